//! A route that serves the files of a folder: `folder` says which, `contents` reads them, and what HTTP says of conditional requests,
//! ranges, and `.br` and `.gz` files beside the plain ones is tower-http's `ServeDir`. Not here: those rules.
//!
//! What has to wait for a disk is done on tokio's blocking threads, of which a worker has at most `threads`; each connection has at
//! most one job there, so that no more than `worker_connections` wait.

mod contents;
mod folder;

use super::refusal::Refusal;
use crate::app::Body;
use axum::extract::Request;
use axum::response::Response;
use folder::{Folder, Lookup};
use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::response::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tower::Service;
use tower_http::services::ServeDir;

pub(super) struct Files {
    folder: Arc<Folder>,
    /// What the path begins with, up to the file's name, without the slash before it.
    prefix: usize,
}

impl Files {
    /// `check` has seen that the path ends with `/{*name}`, and that the folder is there.
    pub(super) fn new(folder: &Path, path: &str) -> Files {
        Files { folder: Arc::new(Folder::new(folder)), prefix: path.find("/{*").expect("check saw the path") }
    }

    pub(super) async fn answer(&self, mut request: Request) -> Result<Response, Refusal> {
        let rest = request.uri().path().get(self.prefix..).unwrap_or("/");
        *request.uri_mut() = Uri::try_from(rest).map_err(|_| Refusal::NotFound)?;
        let response = match self.ranged(&mut request) {
            Some(whole) => {
                let part = self.serve(request).await;
                if part.status() == StatusCode::PRECONDITION_FAILED { self.serve(whole).await } else { part }
            }
            None => self.serve(request).await,
        };
        finished(response)
    }

    /// `ServeDir` is asked for the head, which says what part of the file the body is.
    async fn serve(&self, mut request: Request) -> Response {
        let has_body = request.method() == Method::GET;
        if has_body {
            *request.method_mut() = Method::HEAD;
        }
        let lookup = Lookup::new(&self.folder);
        let mut served = ServeDir::with_backend(self.folder.root(), lookup.clone())
            .append_index_html_on_directories(false)
            .precompressed_br()
            .precompressed_gzip();
        let Ok(response) = served.call(request).await;
        let (mut head, _) = response.into_parts();
        let file = if has_body { lookup.take().and_then(|found| found.file) } else { None };
        let body = match file.zip(part(&head)) {
            Some((file, part)) => contents::body(file, part).await,
            None => Ok(Body::empty()),
        };
        let body = body.unwrap_or_else(|_| {
            head.status = StatusCode::INTERNAL_SERVER_ERROR;
            Body::empty()
        });
        Response::from_parts(head, body)
    }

    /// A part is asked for only if the file is still the same (RFC 9110, 13.1.5): that is `If-Match`, and the whole file where
    /// it fails; `ServeDir` does not know it. Returns the request for the whole file. A date is too coarse to tell.
    fn ranged(&self, request: &mut Request) -> Option<Request> {
        let headers = request.headers_mut();
        let if_range = headers.remove(IF_RANGE)?;
        if !headers.contains_key(RANGE) {
            return None;
        }
        if !if_range.as_bytes().starts_with(b"\"") || headers.contains_key(IF_MATCH) {
            headers.remove(RANGE);
            return None;
        }
        let mut whole = Request::new(Body::empty());
        *whole.method_mut() = request.method().clone();
        *whole.uri_mut() = request.uri().clone();
        *whole.headers_mut() = request.headers().clone();
        whole.headers_mut().remove(RANGE);
        request.headers_mut().insert(IF_MATCH, if_range);
        Some(whole)
    }
}

fn finished(mut response: Response) -> Result<Response, Refusal> {
    // `ServeDir` finds the first byte of an empty file, which has none (RFC 9110, 14.1.2).
    if response.headers().get(CONTENT_RANGE).is_some_and(|range| range == "bytes 0-0/0") {
        *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().insert(CONTENT_RANGE, HeaderValue::from_static("bytes */0"));
    }
    match response.status() {
        StatusCode::NOT_FOUND => return Err(Refusal::NotFound),
        StatusCode::INTERNAL_SERVER_ERROR => {
            log::error!("a file could not be read");
            return Err(Refusal::Broken);
        }
        status if status.is_client_error() => {
            return Err(Refusal::Other(status, std::mem::take(response.headers_mut())));
        }
        _ => {}
    }
    let headers = response.headers_mut();
    if !headers.contains_key(LAST_MODIFIED) {
        return Ok(response);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(kind) = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok())
        && kind.starts_with("text/")
        && !kind.contains(';')
    {
        let kind = HeaderValue::try_from(format!("{kind}; charset=utf-8")).expect("it is a field's value");
        headers.insert(CONTENT_TYPE, kind);
    }
    Ok(response)
}

/// The part of the file that a head promises.
fn part(head: &Parts) -> Option<Range<u64>> {
    if !head.status.is_success() {
        return None;
    }
    let text = |name: HeaderName| head.headers.get(name)?.to_str().ok();
    let begin = match text(CONTENT_RANGE) {
        Some(range) => range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()?,
        None => 0,
    };
    let length: u64 = text(CONTENT_LENGTH)?.parse().ok()?;
    Some(begin..begin + length)
}
