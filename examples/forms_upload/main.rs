//! A form that is checked, and files that are put into a folder: of a limited size and number, under names that lead nowhere else,
//! and whole or not at all. `cargo run --example forms_upload -- -c examples/forms_upload/server.toml`, then
//! `curl -d name=Ada -d rating=5 -d 'message=A fine shop' 127.0.0.1:8000/feedback` and
//! `curl -F file=@README.md -F file=@LICENSE-MIT 127.0.0.1:8000/files`.

mod refusal;

use axum::extract::multipart::Field;
use axum::extract::{DefaultBodyLimit, Form, Multipart, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use ferricorn::{App, Worker};
use garde::Validate;
use refusal::Refusal;
use serde::Deserialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tempfile::NamedTempFile;

const MAX_FILES: usize = 4;
const MAX_FILE: usize = 1024 * 1024;

#[derive(Deserialize)]
struct Settings {
    folder: PathBuf,
}

#[derive(Deserialize, Validate)]
struct Feedback {
    #[garde(length(chars, min = 1, max = 80))]
    name: String,
    #[garde(range(min = 1, max = 5))]
    rating: u8,
    #[garde(length(chars, min = 10, max = 2000))]
    message: String,
}

fn main() -> ExitCode {
    App::new()
        .settings::<Settings>()
        .on_starting(|worker| std::fs::create_dir_all(folder(worker)).expect("the folder can be made"))
        .run(|worker| {
            // axum's own limit of 2 MB would come before the one in the settings.
            let files = post(upload).layer(DefaultBodyLimit::disable());
            Router::new().route("/feedback", post(feedback)).route("/files", files).with_state(worker)
        })
}

async fn feedback(Form(form): Form<Feedback>) -> Result<&'static str, Refusal> {
    form.validate()?;
    log::info!("feedback received name={:?} rating={} bytes={}", form.name, form.rating, form.message.len());
    Ok("thank you\n")
}

async fn upload(
    State(worker): State<Worker>,
    mut form: Multipart,
) -> Result<(StatusCode, Json<Vec<String>>), Refusal> {
    let mut files = Vec::new();
    while let Some(field) = form.next_field().await? {
        if files.len() == MAX_FILES {
            return Err(Refusal::too_large("at most 4 files"));
        }
        let name = field.file_name().filter(|name| is_plain(name)).map(str::to_owned);
        let name =
            name.ok_or(Refusal::invalid("file names: letters, digits, '.', '-', '_', no '.' first"))?;
        files.push((name, receive(&worker, field).await?));
    }
    let folder = folder(&worker).to_owned();
    let names = worker.blocking(move || keep(files, &folder)).await??;
    Ok((StatusCode::CREATED, Json(names)))
}

fn folder(worker: &Worker) -> &Path {
    &worker.app_settings::<Settings>().folder
}

/// What is allowed is listed, not what is forbidden: `..`, a slash and a NUL are only some of the names that do harm.
fn is_plain(name: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_fine)
}

/// It lies in the folder under a name of its own until it is whole, and goes when the client goes. A worker that is killed leaves
/// it: `.upload-*`.
async fn receive(worker: &Worker, mut field: Field<'_>) -> Result<NamedTempFile, Refusal> {
    let folder = folder(worker).to_owned();
    let make = move || tempfile::Builder::new().prefix(".upload-").tempfile_in(folder);
    let mut file = worker.blocking(make).await??;
    let mut size = 0;
    while let Some(chunk) = field.chunk().await? {
        size += chunk.len();
        if size > MAX_FILE {
            return Err(Refusal::too_large("at most 1 MiB each"));
        }
        // The disk may be slow, and the event loop has others to serve.
        file = worker.blocking(move || file.write_all(&chunk).map(|()| file)).await??;
    }
    Ok(file)
}

/// Gives the files their names, and replaces none that is there. Either all are kept or none.
fn keep(files: Vec<(String, NamedTempFile)>, folder: &Path) -> Result<Vec<String>, io::Error> {
    let mut kept = Vec::new();
    for (name, file) in files {
        let named = file.as_file().sync_all().and_then(|()| Ok(file.persist_noclobber(folder.join(&name))?));
        if let Err(error) = named {
            kept.iter().try_for_each(|name| std::fs::remove_file(folder.join(name)))?;
            return Err(error);
        }
        kept.push(name);
    }
    Ok(kept)
}
