//! A pool of connections for async code: callers wait without a thread, and work on a handler thread.
//! Not here: how a connection is made, or kept clean.
//!
//! A caller first waits for one of `pool_size` places. So a connection is free for it, or may be made, and a handler
//! thread is never spent on waiting for another caller. Nor is it spent on waiting for a dead database: a thread
//! looks for a connection, asks for one if there is none, and gives up after `HAND_OVER_WAIT`. When others are in use, which may
//! be all that the budget has, the caller is the first to have the next that comes back, and his place is of no use until there
//! is one more; without it, who came later would be served instead. When there is none, the caller keeps his place and waits for
//! news from `Health`. While the last attempt to connect has failed and no connection is left, callers are refused at once. r2d2 goes on trying, at the latest every `RETRY_WAIT`, so that the database's return is
//! noticed without anybody asking.

use super::budget::Budget;
use super::checkout::{Checkout, Checkouts};
use super::health::{Connect, Goodbye, Health, Manager, Pooled, Session, say_goodbye};
use super::transaction::{TransactionOptions, in_transaction};
use crate::app::Error;
use crate::app::blocking::{Group, Place, Step, Threads};
use crate::config::DatabaseSettings;
use crate::scoreboard::{InFlight, Phase, PoolState, RequestPhase, Seat};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// How long a handler thread waits for a connection that is being made; a near database is connected by then.
const HAND_OVER_WAIT: Duration = Duration::from_millis(5);

/// The longest time between two attempts to reach a database that is down.
pub(super) const RETRY_WAIT: Duration = Duration::from_millis(500);

/// A connection that was idle for longer is asked whether it is alive before it is given away.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// A pool of at most `pool_size` connections, made at need; a handle, cheap to clone.
///
/// ```
/// # use ferricorn::{Error, Worker};
/// async fn rename(worker: Worker, id: i32, name: String) -> Result<u64, Error> {
///     let rename = "UPDATE users SET name = $1 WHERE id = $2";
///     worker.postgres().transaction(move |tx| Ok(tx.execute(rename, &[&name, &id])?)).await
/// }
/// ```
pub struct Pool<C: Session> {
    inner: Arc<Inner<C>>,
}

struct Inner<C: Session> {
    /// `None` once closed.
    connections: Mutex<Option<r2d2::Pool<Manager<C>>>>,
    health: Arc<Health>,
    threads: Arc<Threads>,
    /// The calls of this pool among the threads': as many at a time as there may be connections.
    calls: Group,
    timeouts: AtomicU64,
    timeout: Duration,
    rules: Arc<Rules>,
    checkouts: Checkouts,
    /// The worker's.
    seat: &'static Seat,
}

/// When a connection that came back is closed rather than kept.
struct Rules {
    max_lifetime: Option<Duration>,
    budget: Option<Arc<Budget>>,
}

impl Rules {
    fn is_to_go<C>(&self, connection: &Pooled<C>) -> bool {
        let is_old = self.max_lifetime.is_some_and(|max| connection.made.elapsed() >= max);
        is_old || self.yields()
    }

    /// Whether one is to be closed because other workers go short.
    fn yields(&self) -> bool {
        let budget = self.budget.as_ref().filter(|budget| budget.must_yield());
        budget.inspect(|budget| budget.promise()).is_some()
    }
}

impl<C: Session> Pool<C> {
    pub(super) fn new(
        settings: &DatabaseSettings,
        threads: Arc<Threads>,
        connect: Connect<C>,
        budget: Option<Arc<Budget>>,
        seat: &'static Seat,
    ) -> Pool<C> {
        let health = Arc::new(Health::new());
        let pool_size = settings.pool_size.max(1);
        let calls = threads.group(pool_size);
        let scheduler = scheduled_thread_pool::ScheduledThreadPool::builder()
            .num_threads(1)
            .thread_name_pattern("connect-{}")
            // Else the thread of a dropped pool stays until the reaper's next turn.
            .on_drop_behavior(scheduled_thread_pool::OnPoolDropBehavior::DiscardPendingScheduled)
            .build();
        let connections = r2d2::Pool::builder()
            .max_size(u32::try_from(pool_size).unwrap_or(u32::MAX))
            .min_idle(Some(0))
            .test_on_check_out(false)
            // Nobody waits in r2d2 for that long; it only bounds r2d2's back-off, to half of it.
            .connection_timeout(RETRY_WAIT * 2)
            .idle_timeout(some_time(settings.idle_timeout))
            .max_lifetime(some_time(settings.max_lifetime))
            .error_handler(Box::new(r2d2::NopErrorHandler)) // `Health` logs it
            .connection_customizer(Box::new(Goodbye))
            .thread_pool(Arc::new(scheduler))
            .build_unchecked(Manager {
                connect,
                health: Arc::clone(&health),
                threads: Arc::clone(&threads),
                calls,
            });
        let inner = Inner {
            connections: Mutex::new(Some(connections)),
            health,
            calls,
            threads,
            timeouts: AtomicU64::new(0),
            timeout: settings.pool_timeout,
            rules: Arc::new(Rules { max_lifetime: some_time(settings.max_lifetime), budget }),
            checkouts: Checkouts::default(),
            seat,
        };
        Pool { inner: Arc::new(inner) }
    }

    /// Runs `work` with a connection on a handler thread, outside a transaction.
    ///
    /// # Errors
    /// What `work` returns. `PoolTimeout` when no connection and thread was free within `pool_timeout`; `QueueFull`
    /// at once when `blocking_queue` calls wait already; `DatabaseDown` when the database is not there, at the
    /// latest after `pool_timeout`, at once when that is known, and when the connection broke during `work`, which
    /// is never run twice; `TimedOut` and `Panicked` as for `Worker::blocking`.
    ///
    /// When its future is dropped while `work` runs, because the client has left or `request_timeout` has passed, and when
    /// `timeout` has passed, the statement under way is cancelled, and the connection closed.
    #[track_caller]
    pub fn run<T, F>(&self, work: F) -> impl Future<Output = Result<T, Error>> + Send + use<'_, C, T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut C) -> Result<T, Error> + Send + 'static,
    {
        self.call(Location::caller(), move |session, _| work(session))
    }

    /// Like [`Pool::run`], in a transaction: committed when `work` returns `Ok`, rolled back when it returns `Err`
    /// or panics, or when nobody waits for it any more. `work` gets the connection itself and leaves `BEGIN` and `COMMIT` to this method.
    ///
    /// On SQLite the transaction is `BEGIN IMMEDIATE`: one that reads first and writes later would else fail
    /// instead of waiting for another writer.
    #[track_caller]
    pub fn transaction<T, F>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T, Error>> + Send + use<'_, C, T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut C) -> Result<T, Error> + Send + 'static,
    {
        self.call(Location::caller(), move |session, call| {
            let mut work = Some(work);
            // Without retries it is run once.
            let once = |session: &mut C| work.take().expect("it is run once")(session);
            in_transaction(session, TransactionOptions::new(), call, once)
        })
    }

    /// Like [`Pool::transaction`], with options: isolation, read-only, and how often `work` may be run again.
    #[track_caller]
    pub fn transaction_with<T, F>(
        &self,
        options: TransactionOptions,
        work: F,
    ) -> impl Future<Output = Result<T, Error>> + Send + use<'_, C, T, F>
    where
        T: Send + 'static,
        F: FnMut(&mut C) -> Result<T, Error> + Send + 'static,
    {
        self.call(Location::caller(), move |session, call| in_transaction(session, options, call, work))
    }

    /// Shows on the worker's seat how it stands, tells who holds a connection for long, and gives up what others need more.
    pub(super) fn show(&self) {
        let inner = &self.inner;
        let seat = inner.seat;
        inner.checkouts.tell_long(inner.timeout);
        inner.yield_idle(seat.phase() == Phase::Draining);
        let state = inner.connections.lock().expect(UNPOISONED).as_ref().map(r2d2::Pool::state);
        let (connections, idle) = state.map_or((0, 0), |state| (state.connections, state.idle_connections));
        if idle > 0 {
            inner.threads.unpark(inner.calls);
        }
        seat.pool_connections.store(connections, Relaxed);
        seat.pool_idle.store(idle, Relaxed);
        seat.pool_waiting.store(inner.threads.waiting(inner.calls) as u32, Relaxed);
        let is_down = connections == 0 && inner.health.down().is_some();
        seat.set_pool_state(if is_down { PoolState::Down } else { PoolState::Usable });
        seat.pool_timeouts.store(inner.timeouts.load(Relaxed), Relaxed);
    }

    /// Closes what is idle, and blocks meanwhile.
    pub(super) fn close(&self) {
        let connections = self.inner.connections.lock().expect(UNPOISONED).take();
        drop(connections);
    }

    /// What all of the above do, for whoever needs the call itself.
    pub(crate) async fn call<T, F>(
        &self,
        taken_at: &'static Location<'static>,
        mut work: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut C, &Checkout) -> Result<T, Error> + Send + 'static,
    {
        let inner = &self.inner;
        let begin = Instant::now();
        let waiting = inner.checkouts.enter(taken_at);
        let in_flight = InFlight::current();
        let _queued = in_flight.queued();
        let deadline = begin + inner.timeout;
        let (mut place, mut changes) = (None, None);
        loop {
            let connections = inner.refuse_if_down()?;
            let (health, rules) = (Arc::clone(&inner.health), Arc::clone(&inner.rules));
            let (call, seat) = (waiting.checkout(), inner.seat);
            let mut once = Some(work);
            let attempt = move |place| match check_out(&connections, &health, deadline) {
                Some((connection, now)) => {
                    seat.pool_waits.record(now.saturating_duration_since(begin));
                    in_flight.enter(RequestPhase::Database);
                    let work = once.take().expect(ONCE);
                    let outcome = serve(connection, &health, &rules, &call, now, work);
                    Step::Done(Attempt::Done(outcome), Some(place))
                }
                // They are in use, and who uses one will be done with it.
                None if connections.state().connections > 0 => Step::Again(place),
                None => Step::Done(Attempt::NoConnection(once.take().expect(ONCE), place), None),
            };
            let attempt = inner.threads.call_in(inner.calls, place.take(), deadline, attempt).await;
            match attempt.map_err(|error| inner.judge(error))? {
                Attempt::Done(outcome) => return outcome,
                Attempt::NoConnection(same_work, same_place) => (work, place) = (same_work, Some(same_place)),
            }
            in_flight.enter(RequestPhase::Queued);
            // Who begins to listen looks once more, so that nothing is missed in between.
            match &mut changes {
                None => changes = Some(inner.health.changes()),
                Some(changes) => {
                    let news = timeout_at(deadline.into(), changes.changed()).await;
                    news.map_err(|_| inner.too_late())?.expect("the sender lives in the pool");
                }
            }
        }
    }

    /// How many callers wait for their turn.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.inner.threads.waiting(self.inner.calls)
    }

    /// A pool of just this session.
    #[cfg(test)]
    pub(crate) fn stub(session: C) -> Pool<C> {
        let settings = crate::config::Settings::default();
        let threads =
            Threads::new(crate::app::blocking::Limits::of(&settings), Box::leak(Box::default()), || {});
        let session = Mutex::new(Some(session));
        let connect = move || {
            let only = session.lock().unwrap().take();
            only.ok_or_else(|| Error::DatabaseDown("the only connection is gone".into()))
        };
        let database = DatabaseSettings { pool_size: 1, ..settings.database };
        Pool::new(
            &database,
            Arc::new(threads),
            Box::new(connect),
            None,
            crate::scoreboard::Board::stub(1).seat(0),
        )
    }
}

impl<C: Session> Clone for Pool<C> {
    fn clone(&self) -> Pool<C> {
        Pool { inner: Arc::clone(&self.inner) }
    }
}

/// What a handler thread brings back.
enum Attempt<T, F> {
    Done(Result<T, Error>),
    NoConnection(F, Place),
}

const ONCE: &str = "what was done is not run again";
const UNPOISONED: &str = "nothing that can panic runs under this lock";

impl<C: Session> Inner<C> {
    /// The connections, unless it is known that none can be had.
    fn refuse_if_down(&self) -> Result<r2d2::Pool<Manager<C>>, Error> {
        let connections = self.connections.lock().expect(UNPOISONED).clone();
        let connections = connections.ok_or_else(|| Error::DatabaseDown("the worker is ending".into()))?;
        match none_is_to_be_had(&connections, &self.health) {
            Some(reason) => Err(Error::DatabaseDown(reason.to_string())),
            None => Ok(connections),
        }
    }

    /// Closes connections that nobody uses while other workers go short, or this one leaves.
    fn yield_idle(&self, leaving: bool) {
        let Some(budget) = &self.rules.budget else { return };
        if leaving {
            budget.set_leaving();
        }
        while budget.must_yield() {
            let connections = self.connections.lock().expect(UNPOISONED).clone();
            let idle = connections.and_then(|connections| connections.try_get());
            let Some(mut connection) = idle else { return };
            budget.promise();
            connection.spent = true;
        }
    }

    /// What a call is told that no thread took.
    fn judge(&self, error: Error) -> Error {
        if matches!(error, Error::PoolTimeout) { self.too_late() } else { error }
    }

    fn too_late(&self) -> Error {
        let connections = self.connections.lock().expect(UNPOISONED);
        let none_left = connections.as_ref().is_none_or(|pool| pool.state().connections == 0);
        if !none_left || self.health.is_short() {
            self.timeouts.fetch_add(1, Relaxed);
            return Error::PoolTimeout;
        }
        let reason = self.health.down();
        Error::DatabaseDown(reason.map_or("no connection within pool_timeout".into(), |why| why.to_string()))
    }
}

impl<C: Session> Drop for Inner<C> {
    fn drop(&mut self) {
        // The last handle may go on a thread that runs async code, where no client can be closed.
        let connections = self.connections.get_mut().expect(UNPOISONED).take();
        if connections.is_some() {
            say_goodbye(connections);
        }
    }
}

/// Why there is no connection, and no use in waiting for one. With some left only more of them cannot be had: the server's
/// limit, perhaps.
fn none_is_to_be_had<C: Session>(connections: &r2d2::Pool<Manager<C>>, health: &Health) -> Option<Arc<str>> {
    health.down().filter(|_| connections.state().connections == 0)
}

/// A connection that is alive as far as can be told, and the time; `None`: there is none now, and one was asked for.
fn check_out<C: Session>(
    connections: &r2d2::Pool<Manager<C>>,
    health: &Health,
    deadline: Instant,
) -> Option<(r2d2::PooledConnection<Manager<C>>, Instant)> {
    // Those who wait for their turn while the database goes away are not to wait for it one after the other.
    if none_is_to_be_had(connections, health).is_some() {
        return None;
    }
    for _ in 0..=connections.max_size() {
        // Where the network stalls, each question takes its time.
        let now = Instant::now();
        if now >= deadline {
            return None;
        }
        // One that is there is had without a look at the clock.
        let there = connections.try_get().map(|connection| (connection, now));
        let made = || Some((connections.get_timeout(HAND_OVER_WAIT).ok()?, Instant::now()));
        let (mut connection, now) = there.or_else(made)?;
        let losses = health.losses();
        let idle = now.saturating_duration_since(connection.idle_since);
        if connection.losses == losses && idle < TRUSTED_IDLE {
            return Some((connection, now));
        }
        if connection.session.is_alive() {
            connection.losses = losses;
            return Some((connection, Instant::now()));
        }
        // Nothing of the caller's was sent, so another one will do.
        log::info!("database connection was found closed");
        connection.spent = true;
    }
    None
}

/// Runs `work` and decides whether the connection may be used again.
fn serve<C, T>(
    mut connection: r2d2::PooledConnection<Manager<C>>,
    health: &Health,
    rules: &Rules,
    call: &Checkout,
    now: Instant,
    work: impl FnOnce(&mut C, &Checkout) -> Result<T, Error>,
) -> Result<T, Error>
where
    C: Session,
{
    if !call.begin(&connection.cancel, now) {
        return Err(Error::TimedOut); // which nobody hears
    }
    connection.spent = true; // unless all goes well
    let outcome = match catch_unwind(AssertUnwindSafe(|| work(&mut connection.session, call))) {
        Ok(outcome) => outcome,
        Err(panic) => {
            call.end();
            drop(connection);
            health.came_back();
            resume_unwind(panic)
        }
    };
    let was_left = call.end();
    let lost = outcome.as_ref().err().and_then(|error| connection.session.lost(error));
    let outcome = match lost {
        Some(reason) => {
            health.lose();
            log::warn!("database connection was lost reason={reason:?}");
            Err(Error::DatabaseDown(reason))
        }
        None => {
            connection.spent = was_left || rules.is_to_go(&connection) || !connection.session.is_clean();
            outcome
        }
    };
    connection.idle_since = Instant::now();
    drop(connection);
    health.came_back();
    outcome
}

/// Zero is "off" in the settings and `None` in r2d2.
fn some_time(time: Duration) -> Option<Duration> {
    if time.is_zero() { None } else { Some(time) }
}
