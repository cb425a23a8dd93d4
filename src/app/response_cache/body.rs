//! The body of a response that went through the cache, and how one is read in to be kept. Not here: whether it is.

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

type BodyFrame<B> = Result<Frame<Bytes>, <B as Body>::Error>;

pin_project! {
    /// The body of a response behind a [`ResponseCacheLayer`](super::ResponseCacheLayer): a kept one, or the app's own.
    pub struct CachedBody<B: Body> {
        #[pin]
        source: Source<B>,
    }
}

pin_project! {
    #[project = View]
    enum Source<B: Body> {
        Kept { data: Option<Bytes> },
        App { #[pin] body: B },
        /// Some of it was read in before it turned out that it will not be kept.
        Begun { first: VecDeque<BodyFrame<B>>, rest: Pin<Box<B>> },
    }
}

/// What became of reading a body in.
pub(super) enum Collected<B: Body> {
    Whole(BytesMut),
    /// Too long, too slow, with trailers, or failed: it passes as it comes.
    Passing(CachedBody<B>),
}

impl<B: Body> CachedBody<B> {
    pub(super) fn empty() -> CachedBody<B> {
        CachedBody { source: Source::Kept { data: None } }
    }

    pub(super) fn kept(data: Bytes) -> CachedBody<B> {
        CachedBody { source: Source::Kept { data: (!data.is_empty()).then_some(data) } }
    }

    pub(super) fn app(body: B) -> CachedBody<B> {
        CachedBody { source: Source::App { body } }
    }
}

/// Reads `body` in, if it ends within so many bytes and this time.
pub(super) async fn collect<B: Body<Data = Bytes>>(body: B, max: usize, patience: Duration) -> Collected<B> {
    if body.size_hint().lower() > max as u64 {
        return Collected::Passing(CachedBody::app(body));
    }
    let mut rest = Box::pin(body);
    let mut first = VecDeque::new();
    let mut length = 0;
    let read = async {
        while let Some(frame) = poll_fn(|cx| rest.as_mut().poll_frame(cx)).await {
            let data = frame.as_ref().ok().and_then(|frame| frame.data_ref().map(Bytes::len));
            first.push_back(frame);
            length += data.unwrap_or(0);
            if data.is_none() || length > max {
                return false;
            }
        }
        true
    };
    if !tokio::time::timeout(patience, read).await.unwrap_or(false) {
        return Collected::Passing(CachedBody { source: Source::Begun { first, rest } });
    }
    let mut whole = BytesMut::with_capacity(length);
    for frame in first {
        whole.extend_from_slice(
            frame.ok().and_then(|frame| frame.into_data().ok()).as_deref().unwrap_or_default(),
        );
    }
    Collected::Whole(whole)
}

impl<B: Body<Data = Bytes>> Body for CachedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<BodyFrame<B>>> {
        match self.project().source.project() {
            View::Kept { data } => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            View::App { body } => body.poll_frame(cx),
            View::Begun { first, rest } => match first.pop_front() {
                Some(frame) => Poll::Ready(Some(frame)),
                None if rest.is_end_stream() => Poll::Ready(None),
                None => rest.as_mut().poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Kept { data } => data.is_none(),
            Source::App { body } => body.is_end_stream(),
            Source::Begun { first, rest } => first.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Kept { data } => SizeHint::with_exact(data.as_ref().map_or(0, Bytes::len) as u64),
            Source::App { body } => body.size_hint(),
            Source::Begun { first, rest } => {
                let data = first.iter().flatten().filter_map(Frame::data_ref);
                let begun = data.map(|data| data.len() as u64).sum::<u64>();
                let left = rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(begun + left.lower());
                if let Some(upper) = left.upper() {
                    hint.set_upper(begun + upper);
                }
                hint
            }
        }
    }
}
