//! One stream: a request and its answer. Not here: what it comes to (`answer`), the frames it is made of.

use super::request;
use super::session::Session;
use crate::app::{Body, BoxError};
use crate::worker::answer::Answering;
use crate::worker::body::AnswerBody;
use crate::worker::connection::Entry;
use crate::worker::gate::Refusal;
use crate::worker::watched::Watched;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tower::Service;

/// Where hyper starts the tasks of its streams.
#[derive(Clone)]
pub(super) struct Tasks(pub(super) Arc<Session>);

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.started(tokio::spawn(stream).abort_handle());
    }
}

/// Held as long as the stream is worked for. With it goes its share in keeping the connection counted as open.
pub(super) struct Guard {
    session: Arc<Session>,
    watched: Arc<Watched>,
    key: usize,
    _entry: Arc<Entry>,
}

impl Guard {
    pub(super) fn new(session: Arc<Session>, watched: Arc<Watched>, key: usize, entry: Arc<Entry>) -> Guard {
        Guard { session, watched, key, _entry: entry }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.watched.place.end(&self.watched.floor.seat.in_flight);
        self.session.close(self.key);
    }
}

pin_project! {
    /// The future of a stream's answer.
    pub(super) struct Exchange<S, F> {
        #[pin]
        answering: Answering<Arc<Watched>, S, F>,
        // Behind what it guards, so that it goes last.
        guard: Option<Guard>,
    }
}

impl<S, B> Exchange<S, S::Future>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>,
{
    pub(super) fn begin(guard: Guard, service: S, request: Request<Incoming>) -> Exchange<S, S::Future> {
        let (request, doubt) = request::in_origin_form(request);
        let mut answering = Answering::new(guard.watched.clone(), service, request);
        if let Some(doubt) = doubt {
            answering.refuse_unasked(doubt);
        }
        Exchange { answering, guard: Some(guard) }
    }
}

impl<S, B> Future for Exchange<S, S::Future>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>,
{
    type Output = Result<Response<StreamBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Guard { session, watched, key, .. } =
            this.guard.as_ref().expect("a future is not polled after its end");
        if watched.is_late.load(Ordering::Relaxed) {
            this.answering.as_mut().refuse(Refusal::SLOW);
        }
        session.note_waker(*key, cx);
        let Ok(response) = ready!(this.answering.poll(cx));
        let guard = this.guard.take();
        Poll::Ready(Ok(response.map(|answer| StreamBody { answer, guard })))
    }
}

pin_project! {
    /// An answer's body, and the stream's guard.
    pub(super) struct StreamBody<B> {
        #[pin]
        answer: AnswerBody<B>,
        guard: Option<Guard>,
    }
}

impl<B> http_body::Body for StreamBody<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let frame = this.answer.poll_frame(cx);
        if let Some(Guard { session, key, .. }) = this.guard {
            session.hand(*key, matches!(frame, Poll::Ready(Some(Ok(_)))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}
