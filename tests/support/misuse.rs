//! A service with faults that no example should have. `MISUSE=tokio` calls `ferricorn::run` inside a runtime
//! and `MISUSE=thread` beside a second thread, which it must refuse; a file `die` in the working directory
//! makes a worker panic at its start, a file `hang` makes it never ready. Not here: the tests.

use axum::Router;
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
        Ok(_) | Err(_) => serve(),
    }
}

fn serve() -> ExitCode {
    ferricorn::run(|_worker| {
        assert!(!Path::new("die").exists(), "told to die at start");
        while Path::new("hang").exists() {
            thread::park();
        }
        Router::new()
    })
}
