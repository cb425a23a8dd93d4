//! A route that serves the files of a folder, through tower-http's `ServeDir`: conditional requests, ranges, and `.br` and
//! `.gz` files beside the plain ones. Here is what keeps it within the folder. Not here: HTTP's own rules about files.
//!
//! Files are read on tokio's blocking threads, of which a worker has at most `threads`; each connection has at most one
//! read under way, so that no more than `worker_connections` wait.

use super::refusal::Refusal;
use crate::app::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONTENT_TYPE, IF_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode, Uri};
use std::fs::Metadata;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tokio::task::spawn_blocking;
use tower::ServiceExt;
use tower_http::services::ServeDir;
use tower_http::services::fs::{Backend, DefaultServeDirFallback, File};

pub(super) struct Files {
    served: ServeDir<DefaultServeDirFallback, Within>,
    /// What the path begins with, up to the file's name, without the slash before it.
    prefix: usize,
}

impl Files {
    /// `check` has seen that the path ends with `/{*name}`, and that the folder is there.
    pub(super) fn new(folder: &Path, path: &str) -> Files {
        // A folder that went away since serves nothing, until a reload that finds it.
        let root: Arc<Path> = folder.canonicalize().unwrap_or_else(|_| folder.into()).into();
        let served = ServeDir::with_backend(&*root, Within { root: Arc::clone(&root) })
            .append_index_html_on_directories(false)
            .precompressed_br()
            .precompressed_gzip();
        Files { served, prefix: path.find("/{*").expect("check saw the path") }
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

    async fn serve(&self, request: Request) -> Response {
        let Ok(response) = self.served.clone().oneshot(request).await;
        response.map(Body::new)
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

/// The files below a folder, hidden ones left out, wherever links lead.
#[derive(Clone)]
struct Within {
    /// Without links.
    root: Arc<Path>,
}

impl Within {
    /// Where the file really is; as if there were none where it is hidden, outside, or neither file nor folder: to open a
    /// pipe would wait for who writes to it.
    fn find(&self, path: &Path) -> io::Result<(PathBuf, Metadata)> {
        let none = || io::Error::from(io::ErrorKind::NotFound);
        let may = |path: &Path| path.strip_prefix(&self.root).is_ok_and(|within| !is_hidden(within));
        if !may(path) {
            return Err(none());
        }
        // A name too long, a file taken for a folder, a link to itself: none of it is there.
        let real = path.canonicalize().map_err(|_| none())?;
        let metadata = real.metadata()?;
        if may(&real) && (metadata.is_file() || metadata.is_dir()) {
            Ok((real, metadata))
        } else {
            Err(none())
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.components().any(|part| match part {
        Component::Normal(name) => name.as_encoded_bytes().starts_with(b"."),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => true,
    })
}

type Opening<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl Backend for Within {
    type File = Opened;
    type Metadata = Metadata;
    type OpenFuture = Opening<Opened>;
    type MetadataFuture = Opening<Metadata>;

    fn open(&self, path: PathBuf) -> Opening<Opened> {
        let within = self.clone();
        Box::pin(in_turn(move || {
            let (real, metadata) = within.find(&path)?;
            if !metadata.is_file() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(Opened(std::fs::File::open(real)?.into()))
        }))
    }

    fn metadata(&self, path: PathBuf) -> Opening<Metadata> {
        let within = self.clone();
        Box::pin(in_turn(move || within.find(&path).map(|(_, metadata)| metadata)))
    }
}

async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// An open file, as `ServeDir` wants it.
struct Opened(tokio::fs::File);

impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncSeek for Opened {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.0).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.0).poll_complete(cx)
    }
}

impl File for Opened {
    type Metadata = Metadata;
    type MetadataFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Metadata>> + Send + 'a>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        Box::pin(self.0.metadata())
    }
}
