//! A service with faults that no example should have. `MISUSE=tokio` calls `ferricorn::run` inside a runtime
//! and `MISUSE=thread` beside a second thread, which it must refuse; a file `die` in the working directory
//! makes a worker panic at its start, a file `hang` makes it never ready. `MISUSE=preload` does such things before there is
//! a worker. `/echo?msg=` gives back what follows. Not here: the tests.

use axum::Router;
use axum::extract::RawQuery;
use axum::routing::get;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

fn main() -> ExitCode {
    match std::env::var("MISUSE").as_deref() {
        Ok("tokio") => {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async { serve() })
        }
        Ok("thread") => {
            thread::spawn(thread::park);
            serve()
        }
        Ok("preload") => preload(),
        Ok(_) | Err(_) => serve(),
    }
}

/// What the files in the working directory say: a `thread` to leave behind, a reason to `panic` or to `hang`, and the
/// `value`, which the worker tells with the process that loaded it.
fn preload() -> ExitCode {
    let load = |_settings: &_| {
        if Path::new("thread").exists() {
            thread::spawn(thread::park);
        }
        assert!(!Path::new("panic").exists(), "told to panic in the preload");
        while Path::new("hang").exists() {
            thread::park();
        }
        Ok::<_, std::io::Error>(format!("{} {}", std::fs::read_to_string("value")?, std::process::id()))
    };
    ferricorn::App::new().preload(load).run(|_worker, value: &'static String| {
        Router::new().route("/echo", get(echo)).route("/", get(async || sign(value.clone())))
    })
}

fn sign(text: String) -> ([(&'static str, String); 1], String) {
    ([("x-worker-pid", std::process::id().to_string())], text)
}

fn serve() -> ExitCode {
    ferricorn::run(|_worker| {
        assert!(!Path::new("die").exists(), "told to die at start");
        while Path::new("hang").exists() {
            thread::park();
        }
        Router::new().route("/echo", get(echo))
    })
}

async fn echo(RawQuery(query): RawQuery) -> String {
    query.as_deref().and_then(|query| query.strip_prefix("msg=")).unwrap_or_default().to_owned()
}
