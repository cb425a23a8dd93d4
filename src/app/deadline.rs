//! When the answer to a request is due, where `request_timeout` sets a time. Not here: what becomes of one that is late.

use super::current::{self, Entered};
use axum::extract::FromRequestParts;
use http::request::Parts;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What counts as never.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

thread_local! {
    /// Of the request whose future is polled now.
    static CURRENT: RefCell<Option<Deadline>> = const { RefCell::new(None) };
}

/// When a request's answer must have begun. A handler that knows it takes longer than `request_timeout` says so here;
/// one that is silent is answered for with 504.
///
/// A handler takes it as an argument; other code asks [`Deadline::current`]. It may be handed on, to a blocking call for one.
///
/// ```
/// use ferricorn::{Deadline, Error, Worker};
/// use std::time::Duration;
///
/// async fn export(worker: Worker, deadline: Deadline) -> Result<String, Error> {
///     deadline.extend(Duration::from_secs(300));
///     worker.blocking(|| "a long report\n".to_owned()).await
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Deadline {
    /// `None`: there is none.
    due: Option<Arc<Mutex<Instant>>>,
}

impl Deadline {
    pub(crate) fn after(time: Duration) -> Deadline {
        Deadline { due: Some(Arc::new(Mutex::new(Instant::now() + time))) }
    }

    /// The answer is due no sooner than `time` from now. It never makes the deadline earlier, and does nothing once the
    /// request was answered, or where `request_timeout` is off. `timeout`, for blocking calls, stays as it is.
    pub fn extend(&self, time: Duration) {
        if let Some(due) = &self.due {
            let mut due = due.lock().unwrap_or_else(PoisonError::into_inner);
            *due = (*due).max(Instant::now() + time.min(YEAR));
        }
    }

    /// The time that is left, zero when it is over; `None` where `request_timeout` is off.
    pub fn remaining(&self) -> Option<Duration> {
        self.due().map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Until the deadline has passed, however often it is moved meanwhile.
    pub(crate) async fn passed(self) {
        while let Some(due) = self.due() {
            tokio::time::sleep_until(due.into()).await;
            if self.due().is_some_and(|moved| moved <= due) {
                return;
            }
        }
        std::future::pending().await
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.as_ref().map(|due| *due.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// That of the request which this code works for; `None` where `request_timeout` is off, outside of the app's service and
    /// its future, on handler threads and in tasks of the app's own.
    pub fn current() -> Option<Deadline> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Does `work` until this deadline, which counts for the blocking calls in it in place of the request's.
    pub(super) async fn scope<F: Future>(self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let _in_time = self.enter();
            work.as_mut().poll(cx)
        })
        .await
    }

    /// What this thread does until the result is dropped has this deadline.
    pub(crate) fn enter(&self) -> Entered<Deadline> {
        current::enter(&CURRENT, self.clone())
    }
}

/// Never fails.
impl<S: Sync> FromRequestParts<S> for Deadline {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Deadline, Infallible> {
        Ok(Deadline::current().unwrap_or(Deadline { due: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_only_ever_moves_away() {
        let deadline = Deadline::after(Duration::from_secs(10));
        deadline.extend(Duration::from_secs(5));
        let left = deadline.remaining().unwrap();
        assert!(left <= Duration::from_secs(10) && left > Duration::from_secs(8), "{left:?}");
        deadline.clone().extend(Duration::from_secs(20));
        assert!(deadline.remaining().unwrap() > Duration::from_secs(18));
        deadline.extend(Duration::MAX);
        assert!(deadline.remaining().unwrap() > YEAR / 2);
        assert_eq!(Deadline::after(Duration::ZERO).remaining(), Some(Duration::ZERO));
    }

    #[test]
    fn it_passes_when_it_was_moved_to_pass() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let begin = Instant::now();
            let deadline = Deadline::after(Duration::from_secs(1));
            let moved = deadline.clone();
            let move_it = async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                moved.extend(Duration::from_millis(1200));
            };
            tokio::join!(deadline.passed(), move_it);
            assert!(begin.elapsed() >= Duration::from_millis(1205), "{:?}", begin.elapsed());
        });
    }

    #[test]
    fn there_is_none_without_a_request_timeout() {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let Ok(deadline) = runtime.block_on(Deadline::from_request_parts(&mut parts, &()));
        deadline.extend(Duration::from_secs(1));
        assert_eq!(deadline.remaining(), None);
        assert!(Deadline::current().is_none());
    }

    #[test]
    fn it_is_known_to_what_is_done_for_the_request() {
        let set = Deadline::after(Duration::from_secs(1));
        let entered = set.enter();
        let inner = Deadline::after(Duration::from_secs(2));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let within = runtime.block_on(inner.clone().scope(async { Deadline::current().unwrap().due() }));
        assert_eq!((within, Deadline::current().unwrap().due()), (inner.due(), set.due()));
        drop(entered);
        assert!(Deadline::current().is_none());
    }
}
