//! The calls that work on a connection: what is cancelled when nobody waits for it any more, and who holds one for long.
//! Not here: which connection, and how its statement is cancelled.

use super::health::Cancel;
use slab::Slab;
use std::panic::Location;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type Place = &'static Location<'static>;

/// How long after a request to cancel the next one is made, while the work goes on: one that comes before a statement, or
/// between two, finds nothing to cancel.
const AGAIN: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// All calls of one pool.
#[derive(Default)]
pub(super) struct Checkouts {
    calls: Mutex<Slab<Arc<Checkout>>>,
}

/// One call, seen by the thread that works for it.
pub(crate) struct Checkout {
    taken_at: Place,
    stage: Mutex<Stage>,
    /// Somebody may wait for the end of what was left.
    ended: Condvar,
}

enum Stage {
    /// For a connection.
    Waiting,
    Working {
        cancel: Arc<dyn Cancel>,
        since: Instant,
        told: bool,
    },
    Over,
    /// Nobody waits for the outcome.
    Left {
        is_over: bool,
    },
}

/// The same call, seen by who waits for it. Dropped before it is over, it cancels what runs.
pub(super) struct Waiting<'a> {
    checkouts: &'a Checkouts,
    number: usize,
    checkout: Arc<Checkout>,
}

impl Checkouts {
    pub(super) fn enter(&self, taken_at: Place) -> Waiting<'_> {
        let checkout =
            Arc::new(Checkout { taken_at, stage: Mutex::new(Stage::Waiting), ended: Condvar::new() });
        let number = self.lock().insert(Arc::clone(&checkout));
        Waiting { checkouts: self, number, checkout }
    }

    /// Tells of each call, once, that has held a connection for longer than `limit`, waited for or not.
    pub(super) fn tell_long(&self, limit: Duration) {
        for (_, checkout) in self.lock().iter() {
            if let Stage::Working { since, told, .. } = &mut *checkout.lock()
                && !*told
                && since.elapsed() > limit
            {
                *told = true;
                log::warn!(
                    "database connection held for long held={:.1?} taken_at={}",
                    since.elapsed(),
                    checkout.taken_at
                );
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Checkout>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checkout {
    /// A connection was found just `now`. False: the caller has left meanwhile, and nothing should begin.
    pub(super) fn begin(&self, cancel: &Arc<dyn Cancel>, now: Instant) -> bool {
        let mut stage = self.lock();
        if matches!(*stage, Stage::Left { .. }) {
            return false;
        }
        *stage = Stage::Working { cancel: Arc::clone(cancel), since: now, told: false };
        true
    }

    pub(crate) fn has_left(&self) -> bool {
        matches!(*self.lock(), Stage::Left { .. })
    }

    /// The work is done. True: a request to cancel it may be on its way, and would hit what runs next on that connection.
    pub(super) fn end(&self) -> bool {
        let mut stage = self.lock();
        let was_left = matches!(*stage, Stage::Left { .. });
        *stage = if was_left { Stage::Left { is_over: true } } else { Stage::Over };
        drop(stage);
        // To tell nobody is a system call, too.
        if was_left {
            self.ended.notify_all();
        }
        was_left
    }

    /// Has what nobody waits for cancelled, again and again until it is over: its connection is used for nothing else.
    fn cancel(&self, cancel: &dyn Cancel) {
        for pause in AGAIN {
            cancel.cancel();
            let goes_on = |stage: &mut Stage| !matches!(stage, Stage::Left { is_over: true });
            let waited = self.ended.wait_timeout_while(self.lock(), pause, goes_on);
            if !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting<'_> {
    pub(super) fn checkout(&self) -> Arc<Checkout> {
        Arc::clone(&self.checkout)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut stage = self.checkout.lock();
        let left = match &*stage {
            Stage::Over | Stage::Left { .. } => None,
            Stage::Waiting => Some(None),
            Stage::Working { cancel, .. } => Some(Some(Arc::clone(cancel))),
        };
        let Some(running) = left else {
            drop(stage);
            self.checkouts.lock().remove(self.number);
            return;
        };
        *stage = Stage::Left { is_over: false };
        drop(stage);
        self.checkouts.lock().remove(self.number);
        if let Some(cancel) = running {
            // It may connect, and so block. There is one for each call at most, and no more calls than connections.
            let checkout = Arc::clone(&self.checkout);
            let _ =
                std::thread::Builder::new().name("cancel".into()).spawn(move || checkout.cancel(&*cancel));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Tell(mpsc::Sender<()>);

    impl Cancel for Tell {
        fn cancel(&self) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn who_leaves_cancels_what_runs_and_nothing_else() {
        let checkouts = Checkouts::default();
        let (tell, told) = mpsc::channel();
        let cancel: Arc<dyn Cancel> = Arc::new(Tell(tell));
        let call = || {
            let waiting = checkouts.enter(Location::caller());
            (waiting.checkout(), waiting)
        };

        let (checkout, waiting) = call();
        assert!(checkout.begin(&cancel, Instant::now()));
        assert!(!checkout.end());
        drop(waiting);
        assert!(!checkout.has_left());

        let (checkout, waiting) = call();
        drop(waiting);
        assert!(!checkout.begin(&cancel, Instant::now()), "nothing begins for nobody");
        assert!(told.try_recv().is_err(), "nothing ran");

        let (checkout, waiting) = call();
        assert!(checkout.begin(&cancel, Instant::now()));
        drop(waiting);
        for _ in 0..2 {
            // The first one may have found nothing to cancel.
            told.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert!(checkout.has_left() && checkout.end(), "its connection is not used again");
        assert!(checkouts.lock().is_empty());
    }
}
