//! A route that serves the files of a folder, through tower-http's `ServeDir`: conditional requests, ranges, and `.br` and
//! `.gz` files beside the plain ones. Here is what keeps it within the folder. Not here: HTTP's own rules about files.
//!
//! Files are read on tokio's blocking threads, of which a worker has at most `threads`; each connection has at most one
//! read under way, so that no more than `worker_connections` wait. To go there and back costs more than to read what is in the
//! kernel's cache: a file is found, opened and read at one go, as far as [`HEAD_BYTES`].

use super::refusal::Refusal;
use crate::app::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, StatusCode, Uri};
use std::fs::Metadata;
use std::future::{Ready, ready};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tokio::task::spawn_blocking;
use tower::ServiceExt;
use tower_http::services::ServeDir;
use tower_http::services::fs::{self, Backend, DefaultServeDirFallback, File};

/// How much of a file is read as it is opened. `ServeDir` asks for as much at a time.
const HEAD_BYTES: u64 = 64 * 1024;

pub(super) struct Files {
    /// For GET, which opens what it asks for, and for HEAD, which does not.
    served: [ServeDir<DefaultServeDirFallback, Within>; 2],
    /// What the path begins with, up to the file's name, without the slash before it.
    prefix: usize,
}

impl Files {
    /// `check` has seen that the path ends with `/{*name}`, and that the folder is there.
    pub(super) fn new(folder: &Path, path: &str) -> Files {
        // A folder that went away since serves nothing, until a reload that finds it.
        let root: Arc<Path> = folder.canonicalize().unwrap_or_else(|_| folder.into()).into();
        let served = [true, false].map(|opens| {
            ServeDir::with_backend(&*root, Within { root: Arc::clone(&root), opens })
                .append_index_html_on_directories(false)
                .precompressed_br()
                .precompressed_gzip()
        });
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
        let [opening, looking] = &self.served;
        let served = if request.method() == Method::HEAD { looking } else { opening };
        let Ok(response) = served.clone().oneshot(request).await;
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

/// The files below a folder, hidden ones left out, wherever links lead.
#[derive(Clone)]
struct Within {
    /// Without links.
    root: Arc<Path>,
    /// What is looked at is opened then: what it is can wait until that.
    opens: bool,
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
    type Metadata = Facts;
    type OpenFuture = Opening<Opened>;
    type MetadataFuture = Opening<Facts>;

    fn open(&self, path: PathBuf) -> Opening<Opened> {
        let within = self.clone();
        Box::pin(in_turn(move || {
            let (real, metadata) = within.find(&path)?;
            if !metadata.is_file() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Opened::read(std::fs::File::open(real)?)
        }))
    }

    fn metadata(&self, path: PathBuf) -> Opening<Facts> {
        if self.opens {
            return Box::pin(ready(Ok(Facts::Untold)));
        }
        let within = self.clone();
        Box::pin(in_turn(move || within.find(&path).map(|(_, metadata)| Facts::Of(metadata))))
    }
}

async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// What `ServeDir` asks of a file.
enum Facts {
    Of(Metadata),
    /// It asks whether this is a folder, which `open` refuses.
    Untold,
}

impl fs::Metadata for Facts {
    fn is_dir(&self) -> bool {
        matches!(self, Facts::Of(metadata) if metadata.is_dir())
    }

    fn modified(&self) -> io::Result<SystemTime> {
        match self {
            Facts::Of(metadata) => metadata.modified(),
            Facts::Untold => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Facts::Of(metadata) => metadata.len(),
            Facts::Untold => 0,
        }
    }
}

/// An open file, as `ServeDir` wants it.
struct Opened {
    metadata: Metadata,
    /// What was read of its begin; given up when it has been taken.
    head: Vec<u8>,
    /// How much of that was taken.
    taken: usize,
    /// Behind the head; `None` where that is all.
    rest: Option<tokio::fs::File>,
}

impl Opened {
    fn read(file: std::fs::File) -> io::Result<Opened> {
        let metadata = file.metadata()?;
        let wanted = metadata.len().min(HEAD_BYTES);
        let mut head = Vec::with_capacity(wanted as usize);
        (&file).take(wanted).read_to_end(&mut head)?;
        let rest = (wanted < metadata.len()).then(|| file.into());
        Ok(Opened { metadata, head, taken: 0, rest })
    }
}

impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Opened { head, taken, rest, .. } = &mut *self;
        let left = &head[*taken..];
        if left.is_empty() {
            (*head, *taken) = (Vec::new(), 0);
            return rest.as_mut().map_or(Poll::Ready(Ok(())), |rest| Pin::new(rest).poll_read(cx, buffer));
        }
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        *taken += count;
        Poll::Ready(Ok(()))
    }
}

/// To where a range begins, before anything is read.
impl AsyncSeek for Opened {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        let io::SeekFrom::Start(begin) = position else { return Err(io::ErrorKind::Unsupported.into()) };
        let Opened { head, taken, rest, .. } = &mut *self;
        if begin <= head.len() as u64 {
            *taken = begin as usize;
            return Ok(());
        }
        *head = Vec::new();
        rest.as_mut().map_or(Ok(()), |rest| Pin::new(rest).start_seek(position))
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let taken = self.taken as u64;
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_complete(cx),
            None => Poll::Ready(Ok(taken)),
        }
    }
}

impl File for Opened {
    type Metadata = Facts;
    type MetadataFuture<'a> = Ready<io::Result<Facts>>;

    fn metadata(&self) -> Ready<io::Result<Facts>> {
        ready(Ok(Facts::Of(self.metadata.clone())))
    }
}
