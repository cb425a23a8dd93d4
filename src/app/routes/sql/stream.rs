//! An answer too large to be held whole: its rows go from the handler thread to the client through a queue with an end.
//! Not here: rows.
//!
//! What fits into `WHOLE` is an answer like any other: its length is known, and a failure is a status. Beyond that the head is
//! sent with what there is, and then each `CHUNK` as soon as the client has taken the ones before. Meanwhile the statement
//! holds its thread and its connection, so
//! - only half of the threads may be taken that way, at least one; beyond that it is a 503,
//! - a client that takes nothing for `STALL` is cut off, and so is an answer that is not over when the call has run for three
//!   quarters of `timeout`; a call that ran longer than that would have its worker replaced,
//! - a client that goes away cancels the statement.
//!
//! A failure after the head cuts the body off: it never ends as if it were whole.

use super::rows::Halt;
use crate::app::Deadline;
use bytes::Bytes;
use http_body::Frame;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout_at;

/// Up to here an answer is made whole before it is sent.
pub(super) const WHOLE: usize = 1024 * 1024;
/// What is sent at once from then on.
const CHUNK: usize = 64 * 1024;
/// Chunks that wait for the client.
const QUEUE: usize = 4;
/// How long a chunk may wait for the client.
const STALL: Duration = Duration::from_secs(10);
/// The longest that an answer may take where `timeout` is off.
const LONGEST: Duration = Duration::from_secs(3600);

/// How many answers may be under way at a time, and for how long each.
pub(super) struct Streams {
    places: Arc<Semaphore>,
    longest: Duration,
}

impl Streams {
    pub(super) fn new(threads: usize, timeout: Duration) -> Streams {
        let longest = if timeout.is_zero() { LONGEST } else { timeout * 3 / 4 };
        Streams { places: Arc::new(Semaphore::new((threads / 2).max(1))), longest }
    }

    /// The thread's end of an answer that may grow large, and where its body comes from if it does.
    pub(super) fn open(&self) -> (Opening, oneshot::Receiver<StreamBody>) {
        let (begin, begun) = oneshot::channel();
        let opening = Opening {
            begin,
            places: Arc::clone(&self.places),
            longest: self.longest,
            runtime: Handle::current(),
            deadline: Deadline::current(),
        };
        (opening, begun)
    }
}

/// On its way to the thread.
pub(super) struct Opening {
    begin: oneshot::Sender<StreamBody>,
    places: Arc<Semaphore>,
    longest: Duration,
    runtime: Handle,
    deadline: Option<Deadline>,
}

impl Opening {
    /// The call begins.
    pub(super) fn start(self) -> Stream {
        let until = Instant::now() + self.longest;
        Stream { opening: Some(self), until, flow: None }
    }
}

/// An answer in the making, on its thread.
pub(super) struct Stream {
    /// `None` once it has begun.
    opening: Option<Opening>,
    until: Instant,
    flow: Option<Flow>,
}

struct Flow {
    sender: mpsc::Sender<Message>,
    runtime: Handle,
    _place: OwnedSemaphorePermit,
}

enum Message {
    Chunk(Bytes),
    /// The body is whole.
    End,
}

impl Stream {
    /// How much is gathered before it is pushed.
    pub(super) fn room(&self) -> usize {
        if self.flow.is_some() { CHUNK } else { WHOLE }
    }

    /// Sends what there is, the head before it at the first time.
    pub(super) fn push(&mut self, json: Vec<u8>) -> Result<(), Halt> {
        if let Some(opening) = self.opening.take() {
            let place = opening.places.try_acquire_owned().map_err(|_| Halt::Busy)?;
            let (sender, receiver) = mpsc::channel(QUEUE);
            opening
                .begin
                .send(StreamBody { receiver, call: None, is_over: false })
                .map_err(|_| Halt::Gone)?;
            // It has begun in time; what follows is not the request's time any more.
            if let Some(deadline) = opening.deadline {
                deadline.extend(self.until.saturating_duration_since(Instant::now()));
            }
            self.flow = Some(Flow { sender, runtime: opening.runtime, _place: place });
        }
        self.send(Message::Chunk(json.into()))
    }

    /// The answer, if nothing of it was sent; else sends the rest, and says that it is whole.
    pub(super) fn finish(&mut self, json: Vec<u8>) -> Result<Bytes, Halt> {
        if self.flow.is_none() {
            return Ok(json.into());
        }
        self.send(Message::Chunk(json.into()))?;
        self.send(Message::End)?;
        Ok(Bytes::new())
    }

    fn send(&mut self, message: Message) -> Result<(), Halt> {
        let flow = self.flow.as_ref().ok_or(Halt::Gone)?;
        // Also where the client keeps up with rows that never end.
        if Instant::now() >= self.until {
            return Err(Halt::TooSlow);
        }
        let message = match flow.sender.try_send(message) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Halt::Gone),
            Err(mpsc::error::TrySendError::Full(message)) => message,
        };
        let latest = self.until.min(Instant::now() + STALL);
        let sent =
            flow.runtime.block_on(async { timeout_at(latest.into(), flow.sender.send(message)).await });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Halt::Gone),
            Err(_) => Err(Halt::TooSlow),
        }
    }
}

/// The body of an answer whose rows are still being read. To drop it cancels the statement.
pub(super) struct StreamBody {
    receiver: mpsc::Receiver<Message>,
    /// What makes the answer: dropped before its end, it is cancelled.
    call: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    is_over: bool,
}

impl StreamBody {
    pub(super) fn made_by(mut self, call: impl Future<Output = ()> + Send + 'static) -> StreamBody {
        self.call = Some(Box::pin(call));
        self
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.is_over {
            match ready!(self.receiver.poll_recv(cx)) {
                Some(Message::Chunk(chunk)) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                Some(Message::End) => self.is_over = true,
                None => {
                    self.is_over = true;
                    return Poll::Ready(Some(Err(io::Error::other("the rows broke off"))));
                }
            }
        }
        // The answer is whole, and whoever made it puts its things away.
        if let Some(call) = &mut self.call {
            ready!(call.as_mut().poll(cx));
            self.call = None;
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    /// What comes of an answer that a thread makes by `work`.
    fn answered(
        streams: &Streams,
        work: impl FnOnce(&mut Stream) -> Result<Bytes, Halt> + Send + 'static,
    ) -> (Result<Bytes, Halt>, Option<io::Result<Bytes>>) {
        runtime().block_on(async {
            let (opening, begun) = streams.open();
            let thread = std::thread::spawn(move || work(&mut opening.start()));
            let body = match begun.await {
                Ok(body) => Some(body.collect().await.map(|body| body.to_bytes())),
                Err(_) => None,
            };
            (thread.join().unwrap(), body)
        })
    }

    #[test]
    fn what_is_pushed_arrives_whole_or_is_cut() {
        let streams = Streams::new(4, Duration::from_secs(30));
        let (whole, none) = answered(&streams, |stream| stream.finish(b"abc".into()));
        assert_eq!((whole, none.is_none()), (Ok(Bytes::from("abc")), true), "small: nothing is streamed");
        let (_, body) = answered(&streams, |stream| {
            for _ in 0..20 {
                stream.push(b"abc".into())?;
            }
            stream.finish(b"d".into())
        });
        assert_eq!(body.unwrap().unwrap(), "abc".repeat(20) + "d");
        let (_, body) = answered(&streams, |stream| {
            stream.push(b"abc".into())?;
            Err(Halt::Gone)
        });
        assert!(body.unwrap().is_err(), "it broke off");
    }

    #[test]
    fn only_half_of_the_threads_stream() {
        let streams = Streams::new(4, Duration::from_secs(30));
        let taken = Arc::clone(&streams.places).try_acquire_many_owned(2).unwrap();
        let (outcome, body) = answered(&streams, |stream| stream.push(Vec::new()).map(|()| Bytes::new()));
        assert_eq!((outcome, body.is_none()), (Err(Halt::Busy), true));
        drop(taken);
        let (outcome, _) = answered(&streams, |stream| stream.push(Vec::new()).map(|()| Bytes::new()));
        assert!(outcome.is_ok());
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut_off() {
        let streams = Streams::new(1, Duration::from_millis(100));
        runtime().block_on(async {
            let (opening, begun) = streams.open();
            let thread = std::thread::spawn(move || {
                let mut stream = opening.start();
                loop {
                    if let Err(halt) = stream.push(b"abc".into()) {
                        return halt;
                    }
                }
            });
            let body = begun.await.unwrap();
            while !thread.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(thread.join().unwrap(), Halt::TooSlow);
            assert!(body.collect().await.is_err());
        });
    }
}
