//! What an app is to whoever serves it: a tower service over HTTP. Not here: who serves it, what is put around it.

use super::Body;
use bytes::Bytes;
use http::{Request, Response};
use std::error::Error;
use tower::Service;

/// The error of a service, or of a body, whatever it is.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// A tower service over HTTP that can be served: an axum `Router`, or any other whose requests have a
/// [`Body`](crate::Body). It is cloned for each request, and the bodies of its answers are streamed.
///
/// Everything that fits is one; there is nothing to implement.
pub trait HttpService:
    Service<
        Request<Body>,
        Response = Response<<Self as HttpService>::AnswerBody>,
        Error: Into<BoxError>,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
    type AnswerBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type AnswerBody = B;
}
