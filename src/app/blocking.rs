//! The handler threads: at most `threads` blocking calls at a time, behind a queue with an end.
//! Not here: what a call does. A call is queued, running or gone, and the one mutex says which.

use super::{Deadline, Error, RequestId};
use crate::config::Settings;
use crate::scoreboard::{InFlight, RequestPhase, Shed};
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

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

struct Shared {
    state: Mutex<State>,
    /// There is a call in the queue, or the end has come.
    ready: Condvar,
    limits: Limits,
    shed: &'static Shed,
}

#[derive(Default)]
struct State {
    /// Oldest first; the ids ascend.
    queue: VecDeque<Queued>,
    next_id: u64,
    /// Threads that wait on `ready`.
    idle: usize,
    /// For each thread, what it runs.
    running: Vec<Option<Running>>,
    closed: bool,
}

struct Queued {
    id: u64,
    /// That of the request which it is for.
    deadline: Option<Deadline>,
    /// When it has waited for too long.
    expires: Option<Instant>,
    call: Box<dyn FnOnce() + Send>,
}

struct Running {
    id: u64,
    since: Instant,
    deadline: Option<Deadline>,
}

/// Where a call is.
enum Place {
    Queued,
    Running(Instant),
    /// Its result is on its way.
    Over,
}

impl Threads {
    /// `shed` is where the calls are counted that are refused.
    pub(crate) fn new(limits: Limits, shed: &'static Shed) -> Threads {
        let shared = Shared { state: Mutex::default(), ready: Condvar::new(), limits, shed };
        Threads { shared: Arc::new(shared) }
    }

    /// Runs `work` on a handler thread. A call whose future is dropped before a thread took it never starts.
    pub(crate) async fn call<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.call_by(None, work).await
    }

    /// Like `call`, but a call that is still queued at `deadline` never starts and fails with `PoolTimeout`.
    pub(crate) async fn call_by<T, F>(&self, deadline: Option<Instant>, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let now = Instant::now();
        let expires = after(now, self.shared.limits.max_wait);
        let (in_flight, id) = (InFlight::current(), RequestId::current());
        let _queued = in_flight.queued();
        let work = move || {
            let _named = id.as_ref().map(RequestId::enter);
            in_flight.enter(RequestPhase::Handler);
            in_flight.during(work)
        };
        let call = Box::new(move || {
            // A closure that panicked is gone with all it owned: nobody sees it half done.
            let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
                log::error!("handler call panicked message={:?}", panic_message(&*panic));
                Error::Panicked
            });
            // Nobody listens when the caller left or was told that it timed out. Then the result is dropped here,
            // which runs code of the app: a panic in it must not end the thread either.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(sender.send(outcome)))) {
                log::error!("handler result panicked message={:?}", panic_message(&*panic));
            }
        });
        let id = self.shared.submit(call, expires)?;
        let ticket = Ticket { shared: &self.shared, id, expires };
        ticket.wait(receiver, deadline, now).await
    }

    /// For how long the oldest of the running calls has run, also when its caller has left.
    pub(crate) fn longest_call(&self) -> Option<Duration> {
        let oldest = self.shared.lock().running.iter().flatten().map(|running| running.since).min();
        oldest.map(|since| since.elapsed())
    }

    /// Whether a call still runs `grace` after its request's deadline.
    pub(crate) fn outlived(&self, grace: Duration) -> bool {
        let is_late = |running: &Running| {
            let due = running.deadline.as_ref().and_then(Deadline::due);
            due.is_some_and(|due| due.elapsed() > grace)
        };
        self.shared.lock().running.iter().flatten().any(is_late)
    }

    /// How many calls may wait.
    pub(crate) fn max_queued(&self) -> usize {
        self.shared.limits.max_queued
    }

    /// Takes no more calls and forgets the queued ones; the running ones go on.
    pub(crate) fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let forgotten = std::mem::take(&mut state.queue);
        drop(state);
        self.shared.ready.notify_all();
        drop(forgotten); // runs the destructors of the app's values: not under the lock
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
    expires: Option<Instant>,
}

impl Ticket<'_> {
    async fn wait<T>(
        &self,
        mut receiver: oneshot::Receiver<Result<T, Error>>,
        deadline: Option<Instant>,
        begin: Instant,
    ) -> Result<T, Error> {
        // A call that is not running now cannot run for longer than `timeout` before now + timeout, so the
        // caller sleeps that long and then looks; the thread that starts a call need not tell anybody.
        let mut queue_deadline = earliest(deadline, self.expires);
        let mut look_at = earliest(self.run_deadline(begin), queue_deadline);
        loop {
            let Some(at) = look_at else { return self.outcome(receiver.await) };
            if let Ok(outcome) = tokio::time::timeout_at(at.into(), &mut receiver).await {
                return self.outcome(outcome);
            }
            let now = Instant::now();
            let is_over = |end: Option<Instant>| end.is_some_and(|end| end <= now);
            let may_run_until = match self.shared.place(self.id) {
                Place::Queued if is_over(deadline) => return Err(Error::PoolTimeout),
                Place::Queued if is_over(self.expires) => return Err(self.shared.expired()),
                Place::Queued => self.run_deadline(now),
                Place::Running(since) => {
                    queue_deadline = None;
                    self.run_deadline(since)
                }
                Place::Over => return self.outcome(receiver.await),
            };
            if is_over(may_run_until) {
                log::warn!("handler call timed out timeout_ms={}", self.shared.limits.timeout.as_millis());
                return Err(Error::TimedOut);
            }
            look_at = earliest(may_run_until, queue_deadline);
        }
    }

    fn run_deadline(&self, since: Instant) -> Option<Instant> {
        after(since, self.shared.limits.timeout)
    }

    /// A call that was thrown away has waited for too long, or the worker ends.
    fn outcome<T>(&self, outcome: Result<Result<T, Error>, oneshot::error::RecvError>) -> Result<T, Error> {
        outcome.unwrap_or_else(|_| {
            let has_expired = self.expires.is_some_and(|expires| expires <= Instant::now());
            Err(if has_expired { self.shared.expired() } else { Error::QueueFull })
        })
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let found = state.queue.binary_search_by_key(&self.id, |queued| queued.id);
        let abandoned = found.ok().and_then(|at| state.queue.remove(at));
        drop(state);
        drop(abandoned); // owns values of the app: not under the lock
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing that can panic runs under this lock")
    }

    /// Puts a call into the queue and wakes or starts a thread for it.
    fn submit(
        self: &Arc<Self>,
        call: Box<dyn FnOnce() + Send>,
        expires: Option<Instant>,
    ) -> Result<u64, Error> {
        let Limits { max_threads, max_queued, .. } = self.limits;
        let mut state = self.lock();
        // A call that a free thread is about to take does not wait, so it does not count.
        let busy = state.running.iter().flatten().count();
        let free = max_threads.saturating_sub(busy);
        if state.closed || state.queue.len() >= max_queued + free {
            self.shed.queue_full.fetch_add(1, Relaxed);
            return Err(Error::QueueFull);
        }
        let id = state.next_id;
        state.next_id += 1;
        state.queue.push_back(Queued { id, deadline: Deadline::current(), expires, call });
        if state.queue.len() > state.running.len() - busy && state.running.len() < max_threads {
            self.start_thread(&mut state)?;
        }
        let wake = state.idle > 0;
        drop(state);
        if wake {
            self.ready.notify_one();
        }
        Ok(id)
    }

    fn expired(&self) -> Error {
        self.shed.waited.fetch_add(1, Relaxed);
        Error::WaitedTooLong
    }

    fn start_thread(self: &Arc<Self>, state: &mut State) -> Result<(), Error> {
        let number = state.running.len();
        let shared = Arc::clone(self);
        let name = format!("handler-{number}");
        match std::thread::Builder::new().name(name).spawn(move || shared.serve(number)) {
            Ok(_) => state.running.push(None),
            Err(error) => {
                log::error!("handler thread could not be started number={number} error={error:?}");
                if number == 0 {
                    state.queue.pop_back();
                    return Err(Error::QueueFull);
                }
            }
        }
        Ok(())
    }

    /// The life of one thread.
    fn serve(&self, number: usize) {
        let mut state = self.lock();
        loop {
            if let Some(queued) = state.queue.pop_front() {
                let Queued { id, deadline, expires, call } = queued;
                let now = Instant::now();
                if expires.is_some_and(|expires| expires <= now) {
                    // Its caller, who is late himself, hears of it by this.
                    drop(state);
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(call)));
                    state = self.lock();
                    continue;
                }
                state.running[number] = Some(Running { id, since: now, deadline });
                drop(state);
                call();
                state = self.lock();
                state.running[number] = None;
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.ready.wait(state).expect("nothing that can panic runs under this lock");
                state.idle -= 1;
            }
        }
    }

    fn place(&self, id: u64) -> Place {
        let state = self.lock();
        if let Some(running) = state.running.iter().flatten().find(|running| running.id == id) {
            return Place::Running(running.since);
        }
        match state.queue.binary_search_by_key(&id, |queued| queued.id) {
            Ok(_) => Place::Queued,
            Err(_) => Place::Over,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::task::{LocalSet, spawn_local};

    /// As long as nothing in these tests takes unless they fail.
    const LONG: Duration = Duration::from_secs(10);

    fn run(story: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, story);
    }

    fn threads(max_threads: usize, max_queued: usize, timeout: Duration) -> Threads {
        let limits = Limits { max_threads, max_queued, max_wait: Duration::ZERO, timeout };
        Threads::new(limits, Box::leak(Box::default()))
    }

    /// A call that lasts until the sender is dropped, and that says when it has begun.
    fn held() -> (mpsc::Sender<()>, tokio::sync::oneshot::Receiver<()>, impl FnOnce() + Send) {
        let (release, released) = mpsc::channel();
        let (begin, begun) = oneshot::channel();
        let call = move || {
            let _ = begin.send(());
            let _ = released.recv_timeout(LONG);
        };
        (release, begun, call)
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_a_place_freed_is_taken() {
        run(async {
            let threads = Arc::new(threads(1, 2, LONG));
            let (release, begun, call) = held();
            let first = spawn_local({
                let threads = Arc::clone(&threads);
                async move { threads.call(call).await }
            });
            begun.await.unwrap();
            let queued = || {
                let threads = Arc::clone(&threads);
                spawn_local(async move { threads.call(|| 1).await })
            };
            let waiting = [queued(), queued()];
            tokio::task::yield_now().await; // they submit
            assert!(matches!(threads.call(|| ()).await, Err(Error::QueueFull)));
            waiting[0].abort();
            tokio::task::yield_now().await;
            let replacement = queued();
            drop(release);
            assert!(first.await.unwrap().is_ok());
            assert_eq!(replacement.await.unwrap().unwrap(), 1);
        });
    }

    #[test]
    fn what_waited_too_long_is_refused_at_once_and_never_starts() {
        run(async {
            let max_wait = Duration::from_millis(50);
            let shed: &Shed = Box::leak(Box::default());
            let limits = Limits { max_threads: 1, max_queued: 10, max_wait, timeout: LONG };
            let threads = Arc::new(Threads::new(limits, shed));
            let (release, begun, call) = held();
            let first = spawn_local({
                let threads = Arc::clone(&threads);
                async move { threads.call(call).await }
            });
            begun.await.unwrap();
            let (tell, told) = mpsc::channel();
            let start = Instant::now();
            let late = threads.call({
                let tell = tell.clone();
                move || tell.send("late")
            });
            assert!(matches!(late.await, Err(Error::WaitedTooLong)));
            assert!(start.elapsed() >= max_wait && start.elapsed() < LONG / 2, "{:?}", start.elapsed());
            assert_eq!(shed.waited.load(Relaxed), 1);
            // The event loop hangs meanwhile: the thread finds it before its caller does.
            let mut queued = std::pin::pin!(threads.call(move || tell.send("late")));
            tokio::select! { biased; _ = &mut queued => panic!(), () = std::future::ready(()) => {} }
            std::thread::sleep(max_wait * 2);
            drop(release);
            while threads.shared.lock().running[0].is_some() || !threads.shared.lock().queue.is_empty() {}
            assert!(matches!(queued.await, Err(Error::WaitedTooLong)));
            assert_eq!((shed.waited.load(Relaxed), told.try_iter().count()), (2, 0));
            assert!(first.await.unwrap().is_ok(), "a call that runs may run on");
            assert_eq!(threads.call(|| 1).await.unwrap(), 1);
        });
    }

    #[test]
    fn what_nobody_waits_for_never_starts() {
        run(async {
            let threads = threads(1, 10, LONG);
            let (release, mut begun, call) = held();
            let mut first = std::pin::pin!(threads.call(call));
            tokio::select! { biased; _ = &mut first => panic!(), begun = &mut begun => begun.unwrap() }
            let (tell, told) = mpsc::channel();
            {
                let tell = tell.clone();
                let mut left = std::pin::pin!(threads.call(move || tell.send("left")));
                tokio::select! { biased; _ = &mut left => panic!(), () = std::future::ready(()) => {} }
            }
            let late = threads.call_by(Some(Instant::now()), move || tell.send("late")).await;
            assert!(matches!(late, Err(Error::PoolTimeout)));
            drop(release);
            first.await.unwrap();
            threads.call(|| ()).await.unwrap(); // behind them, had they stayed
            assert_eq!(told.try_iter().count(), 0);
        });
    }

    #[test]
    fn a_call_times_out_from_its_start_and_is_seen_until_it_ends() {
        run(async {
            let timeout = Duration::from_millis(50);
            let threads = threads(1, 10, timeout);
            let (release, _begun, call) = held();
            let start = Instant::now();
            assert!(matches!(threads.call(call).await, Err(Error::TimedOut)));
            assert!(start.elapsed() >= timeout && start.elapsed() < LONG / 2);
            assert!(threads.longest_call().unwrap() >= timeout);
            // This one waits for longer than `timeout` in the queue; only its own run counts.
            let start = Instant::now();
            let second = threads.call(Instant::now);
            let release_later = async {
                tokio::time::sleep(timeout * 2).await;
                drop(release);
            };
            let (ran_at, ()) = tokio::join!(second, release_later);
            assert!(ran_at.unwrap() - start >= timeout * 2);
            // The thread clears its entry before it takes the next call.
            assert!(threads.call(|| ()).await.is_ok());
        });
    }

    #[test]
    fn a_panic_is_an_error_and_the_thread_lives() {
        run(async {
            let threads = threads(1, 10, Duration::ZERO);
            let outcome: Result<(), Error> = threads.call(|| panic!("on purpose")).await;
            assert!(matches!(outcome, Err(Error::Panicked)));
            assert_eq!(threads.call(|| 2).await.unwrap(), 2);
            threads.close();
            assert!(matches!(threads.call(|| ()).await, Err(Error::QueueFull)));
        });
    }

    #[test]
    fn a_result_that_panics_when_nobody_takes_it_leaves_the_thread() {
        struct Spiteful;
        impl Drop for Spiteful {
            fn drop(&mut self) {
                panic!("on purpose");
            }
        }
        run(async {
            let threads = threads(1, 10, Duration::from_millis(50));
            let (release, _begun, call) = held();
            let work = move || {
                call();
                Spiteful
            };
            assert!(matches!(threads.call(work).await, Err(Error::TimedOut)));
            drop(release);
            let next = tokio::time::timeout(LONG, threads.call(|| 2)).await;
            assert_eq!(next.expect("the thread lives").unwrap(), 2);
        });
    }

    #[test]
    fn as_many_at_a_time_as_there_are_threads() {
        run(async {
            let threads = threads(2, 0, LONG);
            let barrier = Arc::new(std::sync::Barrier::new(2));
            let meet = || {
                let barrier = Arc::clone(&barrier);
                threads.call(move || barrier.wait().is_leader())
            };
            let (one, other) = tokio::join!(meet(), meet());
            assert_ne!(one.unwrap(), other.unwrap());
        });
    }
}
