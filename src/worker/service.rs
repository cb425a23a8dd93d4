//! What the server can serve, and what an app may have done around each of its requests. Not here: who calls it.

use crate::app::{Body, Worker};
use http::{Method, Request, Response, Uri, request, response};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tower::Service;

/// What an app has done around each request. Chosen by type, so that an app without such hooks is served as it is.
pub trait Around<S> {
    type Service;

    #[doc(hidden)]
    fn around(&self, worker: &Worker, service: S) -> Self::Service;
}

/// Nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bare;

impl<S> Around<S> for Bare {
    type Service = S;

    fn around(&self, _: &Worker, service: S) -> S {
        service
    }
}

/// A look at each request before the app sees it.
#[derive(Clone, Debug)]
pub struct PreRequest<A, F> {
    pub(crate) inner: A,
    pub(crate) hook: Arc<F>,
}

impl<S, A, F> Around<S> for PreRequest<A, F>
where
    A: Around<S>,
    F: Fn(&Worker, &mut request::Parts),
{
    type Service = Before<A::Service, F>;

    fn around(&self, worker: &Worker, service: S) -> Self::Service {
        let watch = Arc::new(Watch { worker: worker.clone(), hook: self.hook.clone() });
        Before { inner: self.inner.around(worker, service), watch }
    }
}

/// A look at each answer of the app before it is sent.
#[derive(Clone, Debug)]
pub struct PostRequest<A, F> {
    pub(crate) inner: A,
    pub(crate) hook: Arc<F>,
}

impl<S, A, F> Around<S> for PostRequest<A, F>
where
    A: Around<S>,
    F: Fn(&Worker, Answered<'_>),
{
    type Service = After<A::Service, F>;

    fn around(&self, worker: &Worker, service: S) -> Self::Service {
        let watch = Arc::new(Watch { worker: worker.clone(), hook: self.hook.clone() });
        After { inner: self.inner.around(worker, service), watch }
    }
}

/// A request that the app has answered, for `App::post_request`. The body of the answer is still to be sent.
#[derive(Debug)]
pub struct Answered<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    /// From the call of the app to its answer's head.
    pub took: Duration,
    /// Status and header fields, which may be changed.
    pub head: &'a mut response::Parts,
}

/// A hook and the worker that it is told of. Shared, because services are cloned for each request.
struct Watch<F> {
    worker: Worker,
    hook: Arc<F>,
}

/// The service around which `PreRequest` stands.
pub struct Before<S, F> {
    inner: S,
    watch: Arc<Watch<F>>,
}

/// The service around which `PostRequest` stands.
pub struct After<S, F> {
    inner: S,
    watch: Arc<Watch<F>>,
}

impl<S: Clone, F> Clone for Before<S, F> {
    fn clone(&self) -> Self {
        Before { inner: self.inner.clone(), watch: self.watch.clone() }
    }
}

impl<S: Clone, F> Clone for After<S, F> {
    fn clone(&self) -> Self {
        After { inner: self.inner.clone(), watch: self.watch.clone() }
    }
}

impl<S, F> Service<Request<Body>> for Before<S, F>
where
    S: Service<Request<Body>>,
    F: Fn(&Worker, &mut request::Parts),
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let (mut parts, body) = request.into_parts();
        (self.watch.hook)(&self.watch.worker, &mut parts);
        self.inner.call(Request::from_parts(parts, body))
    }
}

impl<S, F, B> Service<Request<Body>> for After<S, F>
where
    S: Service<Request<Body>, Response = Response<B>>,
    F: Fn(&Worker, Answered<'_>),
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Answer<S::Future, F>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let began = Instant::now();
        Answer { future: self.inner.call(request), watch: self.watch.clone(), method, uri, began }
    }
}

pin_project! {
    /// The answer that `After` looks at.
    pub struct Answer<R, F> {
        #[pin]
        future: R,
        watch: Arc<Watch<F>>,
        method: Method,
        uri: Uri,
        began: Instant,
    }
}

impl<R, F, B, E> Future for Answer<R, F>
where
    R: Future<Output = Result<Response<B>, E>>,
    F: Fn(&Worker, Answered<'_>),
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (mut head, body) = ready!(this.future.poll(cx))?.into_parts();
        let took = this.began.elapsed();
        let Watch { worker, hook } = &**this.watch;
        hook(worker, Answered { method: this.method, uri: this.uri, took, head: &mut head });
        Poll::Ready(Ok(Response::from_parts(head, body)))
    }
}
