//! The handler threads: at most `threads` blocking calls at a time, behind a queue with an end. Of a group of calls only so many
//! are with the threads at a time; a thread that is done with one goes on with the next, and the event loop need not see to it.
//! Not here: what a call does. A call is queued, running or gone, and the one mutex says which (`queue`).

mod queue;
#[cfg(test)]
mod tests;

use super::{Error, RequestId};
use crate::config::Settings;
use crate::scoreboard::{InFlight, RequestPhase, Shed};
use queue::{Shared, Stage};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub(crate) use queue::{Place, Step};

/// The threads of one worker. The last handle to go lets the idle ones end; a running call is never cut short.
pub(crate) struct Threads {
    shared: Arc<Shared>,
}

/// What the settings say of them; a zero time is no limit.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    max_threads: usize,
    max_queued: usize,
    /// How long a call may wait for a thread.
    max_wait: Duration,
    /// How long it may run.
    timeout: Duration,
}

impl Limits {
    pub(crate) fn of(settings: &Settings) -> Limits {
        let Settings { threads, blocking_queue, max_wait, timeout, .. } = *settings;
        Limits { max_threads: threads, max_queued: blocking_queue, max_wait, timeout }
    }
}

/// Calls for which there are only so many places, as those that want one of a pool's connections.
#[derive(Clone, Copy)]
pub(crate) struct Group(usize);

impl Threads {
    /// `shed` is where it is counted how long calls wait, and which are refused; `begin` is what each thread does first.
    pub(crate) fn new(limits: Limits, shed: &'static Shed, begin: fn()) -> Threads {
        Threads { shared: Arc::new(Shared::new(limits, shed, begin)) }
    }

    /// Runs `work` on a handler thread. A call whose future is dropped before a thread took it never starts.
    pub(crate) async fn call<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let mut work = Some(work);
        let once = move |_| Step::Done(work.take().expect("it is run once")(), None);
        self.run(None, None, None, once).await
    }

    /// A group with so many places.
    pub(crate) fn group(&self, places: usize) -> Group {
        Group(self.shared.add_group(places))
    }

    /// Like `call`, when there is a place in the group: `place`, if the caller has one already. `work` is lent it, and gives it
    /// back unless it is to be kept; it is run again when it says so. A call that is queued at `deadline` does not run any more and
    /// fails with `PoolTimeout`.
    pub(crate) async fn call_in<T, F>(
        &self,
        group: Group,
        place: Option<Place>,
        deadline: Instant,
        mut work: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(Place) -> Step<T> + Send + 'static,
    {
        let work = move |place: Option<Place>| work(place.expect("who is of a group is given a place"));
        self.run(Some(group), place, Some(deadline), work).await
    }

    async fn run<T, F>(
        &self,
        group: Option<Group>,
        place: Option<Place>,
        deadline: Option<Instant>,
        work: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(Option<Place>) -> Step<T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let now = Instant::now();
        let (in_flight, id) = (InFlight::current(), RequestId::current());
        let _queued = in_flight.queued();
        let waits = group.is_none().then(|| self.shared.waits());
        let mut call = Some((work, sender));
        let call = Box::new(move |place| {
            let (mut work, sender) = call.take().expect("it is not run again when it is done");
            let run = || {
                let _named = id.as_ref().map(RequestId::enter);
                waits.inspect(|waits| waits.record(now.elapsed()));
                in_flight.enter(RequestPhase::Handler);
                let _former = in_flight.make_current();
                work(place)
            };
            // A closure that panicked is gone with all it owned: nobody sees it half done.
            let (outcome, place) = match catch_unwind(AssertUnwindSafe(run)) {
                Ok(Step::Done(value, place)) => (Ok(value), place),
                Ok(Step::Again(place)) if sender.is_closed() => return Step::Done((), Some(place)),
                Ok(Step::Again(place)) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                    (Err(Error::PoolTimeout), Some(place))
                }
                Ok(Step::Again(place)) => {
                    in_flight.enter(RequestPhase::Queued);
                    call = Some((work, sender));
                    return Step::Again(place);
                }
                Err(panic) => {
                    log::error!("handler call panicked message={:?}", panic_message(&*panic));
                    (Err(Error::Panicked), None)
                }
            };
            // Nobody listens when the caller left or was told that it timed out. Then the result is dropped here,
            // which runs code of the app: a panic in it must not end the thread either.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop((sender.send(outcome), work)))) {
                log::error!("handler result panicked message={:?}", panic_message(&*panic));
            }
            Step::Done((), place)
        });
        let group = group.map(|Group(group)| group);
        let (id, expires) = self.shared.submit(group, place, call, now)?;
        let ticket = Ticket { shared: &self.shared, id, group, expires, is_over: false };
        ticket.wait(receiver, deadline, now).await
    }

    /// There may be something again for calls of the group that are to run again.
    pub(crate) fn unpark(&self, group: Group) {
        self.shared.unpark(group.0);
    }

    /// How many calls of the group wait for a place.
    pub(crate) fn waiting(&self, group: Group) -> usize {
        self.shared.waiting(group.0)
    }

    /// For how long the oldest of the running calls has run, also when its caller has left.
    pub(crate) fn longest_call(&self) -> Option<Duration> {
        self.shared.oldest().map(|since| since.elapsed())
    }

    /// Whether a call still runs `grace` after its request's deadline.
    pub(crate) fn outlived(&self, grace: Duration) -> bool {
        self.shared.outlived(grace)
    }

    /// Takes no more calls and forgets the queued ones; the running ones go on.
    pub(crate) fn close(&self) {
        self.shared.close();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.close();
    }
}

/// A submitted call, seen by its caller. Dropped while the call is queued, it takes the call out again.
struct Ticket<'a> {
    shared: &'a Shared,
    id: u64,
    group: Option<usize>,
    expires: Option<Instant>,
    /// The outcome is here.
    is_over: bool,
}

impl Ticket<'_> {
    async fn wait<T>(
        mut self,
        mut receiver: oneshot::Receiver<Result<T, Error>>,
        deadline: Option<Instant>,
        begin: Instant,
    ) -> Result<T, Error> {
        // A call that is not running now cannot run for longer than `timeout` before now + timeout, so the
        // caller sleeps that long and then looks; the thread that starts a call need not tell anybody.
        let mut queue_deadline = earliest(deadline, self.expires);
        let mut look_at = earliest(self.run_deadline(begin), queue_deadline);
        loop {
            let Some(at) = look_at else { return self.over(receiver.await) };
            if let Ok(outcome) = tokio::time::timeout_at(at.into(), &mut receiver).await {
                return self.over(outcome);
            }
            let now = Instant::now();
            let is_over = |end: Option<Instant>| end.is_some_and(|end| end <= now);
            let may_run_until = match self.shared.stage(self.id, self.group) {
                Stage::Waiting | Stage::Queued if is_over(deadline) => return Err(Error::PoolTimeout),
                Stage::Queued if is_over(self.expires) => return Err(self.shared.expired()),
                Stage::Queued => self.run_deadline(now),
                Stage::Waiting => {
                    self.expires = None;
                    queue_deadline = deadline;
                    self.run_deadline(now)
                }
                Stage::Running(since) => {
                    queue_deadline = queue_deadline.filter(|at| *at > now);
                    self.run_deadline(since)
                }
                Stage::Over => return self.over(receiver.await),
            };
            if is_over(may_run_until) {
                log::warn!("handler call timed out timeout_ms={}", self.shared.limits.timeout.as_millis());
                return Err(Error::TimedOut);
            }
            look_at = earliest(may_run_until, queue_deadline);
        }
    }

    fn over<T>(&mut self, outcome: Result<Result<T, Error>, oneshot::error::RecvError>) -> Result<T, Error> {
        self.is_over = true;
        outcome.unwrap_or_else(|_| Err(self.shared.thrown_away()))
    }

    fn run_deadline(&self, since: Instant) -> Option<Instant> {
        after(since, self.shared.limits.timeout)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.abandon(self.id, self.group);
        }
    }
}

/// What somebody said when he panicked.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("not a text")
}

/// Zero is for ever.
fn after(begin: Instant, time: Duration) -> Option<Instant> {
    if time.is_zero() { None } else { begin.checked_add(time) }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
