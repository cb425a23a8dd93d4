//! Pages from minijinja's templates, which escape what is put into them, and of which a change shows at once while one writes them.
//! `cargo run --example templates -- -c examples/templates/server.toml`, then `curl '127.0.0.1:8000/?name=Ada'`, and edit
//! `pages/hello.html` beside this file.

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Html;
use axum::routing::get;
use ferricorn::{App, Error};
use minijinja::{Environment, Value, context, path_loader};
use serde::Deserialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Those that handlers render; what these extend or include is found in the folder, too.
const PAGES: [&str; 1] = ["hello.html"];

#[derive(Deserialize)]
struct Settings {
    folder: PathBuf,
    #[serde(default)]
    development: bool,
}

#[derive(Deserialize)]
struct Greeting {
    #[serde(default = "world")]
    name: String,
}

fn world() -> String {
    "world".to_owned()
}

fn main() -> ExitCode {
    App::new().settings::<Settings>().run(|worker| {
        // A worker whose pages are broken cannot start: a reload with them is refused, and the old ones are served on.
        let pages = pages(worker.app_settings()).unwrap_or_else(|error| panic!("{error}"));
        Router::new().route("/", get(hello)).with_state(Arc::new(pages))
    })
}

/// Templates are kept once they are read. In development each use looks whether the file has changed: its time and its size.
fn pages(settings: &Settings) -> Result<Environment<'static>, minijinja::Error> {
    let mut pages = Environment::new();
    pages.set_loader(path_loader(&settings.folder));
    pages.set_auto_reload(settings.development);
    // Read now, so that no request waits for the disk, and rendered, so that what they extend is read with them.
    for name in PAGES {
        pages.get_template(name)?.render(context! {})?;
    }
    Ok(pages)
}

async fn hello(
    State(pages): State<Arc<Environment<'static>>>,
    Query(greeting): Query<Greeting>,
) -> Result<Html<String>, Error> {
    render(&pages, "hello.html", context! { name => greeting.name })
}

/// Each value is escaped, because the name ends in `.html`; `{{ value | safe }}` in a template lets it through. What is wrong with a
/// template goes to the log, and the client gets a 500.
fn render(pages: &Environment<'static>, name: &str, values: Value) -> Result<Html<String>, Error> {
    let page = pages.get_template(name).and_then(|template| template.render(values));
    page.map(Html).map_err(Error::other)
}
