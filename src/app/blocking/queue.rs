//! The calls that wait for a thread, those that wait for a place of their group, and the threads that take them.
//! Not here: who waits for the outcome.

use super::super::{Deadline, Error};
use super::{Limits, after};
use crate::scoreboard::{Shed, Waits};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A call as the threads see it: it is given its place, if it has one, and says what is to become of both.
pub(super) type Call = Box<dyn FnMut(Option<Place>) -> Step<()> + Send>;

/// What a run of a call came to.
pub(crate) enum Step<T> {
    /// It is done. The place, unless it is kept, goes to the next of the group.
    Done(T, Option<Place>),
    /// What the place stands for was not to be had. The call runs again, before those that came later, and waits for a place
    /// once more: this one is parked, as long as others of the group are out.
    Again(Place),
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// There is a call in the queue, or the end has come.
    ready: Condvar,
    pub(super) limits: Limits,
    shed: &'static Shed,
    begin: fn(),
}

#[derive(Default)]
struct State {
    /// Oldest first; the ids ascend.
    queue: VecDeque<Queued>,
    groups: Vec<Waiting>,
    next_id: u64,
    /// Threads that wait on `ready`.
    idle: usize,
    /// As many of these were called and have not come yet.
    called: usize,
    /// For each thread, what it runs.
    running: Vec<Option<Running>>,
    closed: bool,
}

struct Queued {
    id: u64,
    /// That of the request which it is for.
    deadline: Option<Deadline>,
    /// When it has waited for a thread for too long; `None` also while it waits for a place.
    expires: Option<Instant>,
    place: Option<Place>,
    call: Call,
}

struct Running {
    id: u64,
    since: Instant,
    deadline: Option<Deadline>,
}

/// The calls of a group that have no place yet: none, while there are free ones.
struct Waiting {
    places: usize,
    free: usize,
    /// Places of no use for now. At least one is not parked.
    parked: usize,
    /// Oldest first; the ids ascend.
    queue: VecDeque<Queued>,
}

/// One of a group's places. When it is dropped, the group's next call goes to the threads.
pub(crate) struct Place {
    group: usize,
    /// `None`: it was handed on.
    shared: Option<Arc<Shared>>,
}

/// Where a call is.
pub(super) enum Stage {
    /// For a place.
    Waiting,
    /// For a thread.
    Queued,
    Running(Instant),
    /// Its result is on its way.
    Over,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            let mut state = shared.lock();
            if state.hand_on(&shared, self.group, Instant::now()) {
                shared.call_thread(state);
            }
        }
    }
}

impl State {
    /// A place is free: the next call of the group has it. True: there is one.
    fn hand_on(&mut self, shared: &Arc<Shared>, group: usize, now: Instant) -> bool {
        let waiting = &mut self.groups[group];
        let Some(mut next) = waiting.queue.pop_front() else {
            waiting.free += 1;
            return false;
        };
        next.place = Some(Place { group, shared: Some(Arc::clone(shared)) });
        next.expires = after(now, shared.limits.max_wait);
        // It has waited for longer than what came to the threads meanwhile.
        let at = self.queue.partition_point(|queued| queued.id < next.id);
        self.queue.insert(at, next);
        true
    }

    /// Lets a call that has run wait in its turn for a place, and parks this one unless it is the last that is out.
    fn retry(&mut self, shared: &Arc<Shared>, mut place: Place, call: Queued, now: Instant) {
        place.shared = None;
        let waiting = &mut self.groups[place.group];
        let at = waiting.queue.partition_point(|queued| queued.id < call.id);
        waiting.queue.insert(at, call);
        if waiting.places - waiting.free - waiting.parked > 1 {
            waiting.parked += 1;
        } else {
            self.hand_on(shared, place.group, now);
        }
    }

    fn find(queue: &VecDeque<Queued>, id: u64) -> Option<usize> {
        queue.binary_search_by_key(&id, |queued| queued.id).ok()
    }
}

impl Shared {
    pub(super) fn new(limits: Limits, shed: &'static Shed, begin: fn()) -> Shared {
        Shared { state: Mutex::default(), ready: Condvar::new(), limits, shed, begin }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing that can panic runs under this lock")
    }

    pub(super) fn add_group(&self, places: usize) -> usize {
        let mut state = self.lock();
        state.groups.push(Waiting { places, free: places, parked: 0, queue: VecDeque::new() });
        state.groups.len() - 1
    }

    /// What the parked places of a group stand for may be had again.
    pub(super) fn unpark(self: &Arc<Self>, group: usize) {
        loop {
            let mut state = self.lock();
            let Some(fewer) = state.groups[group].parked.checked_sub(1) else { return };
            state.groups[group].parked = fewer;
            if state.hand_on(self, group, Instant::now()) {
                self.call_thread(state);
            }
        }
    }

    /// Where it is counted how long calls wait for a thread.
    pub(super) fn waits(&self) -> &'static Waits {
        &self.shed.waits
    }

    /// How many calls of a group wait for a place.
    pub(super) fn waiting(&self, group: usize) -> usize {
        self.lock().groups[group].queue.len()
    }

    /// Puts a call into the queue and calls or starts a thread for it, or lets it wait for a place of its group. One that has
    /// waited for a place is not refused any more. Returns its number, and when it will have waited for a thread for too long, if
    /// that is known by now.
    pub(super) fn submit(
        self: &Arc<Self>,
        group: Option<usize>,
        mut place: Option<Place>,
        call: Call,
        now: Instant,
    ) -> Result<(u64, Option<Instant>), Error> {
        let Limits { max_threads, max_queued, max_wait, .. } = self.limits;
        let mut state = self.lock();
        let wants_place = group.filter(|_| place.is_none());
        let waits = wants_place.filter(|&group| state.groups[group].free == 0);
        // A call that a free thread is about to take does not wait, so it does not count.
        let busy = state.running.iter().flatten().count();
        let is_full = match waits {
            Some(group) => state.groups[group].queue.len() >= max_queued,
            None => state.queue.len() >= max_queued + max_threads.saturating_sub(busy),
        };
        if state.closed || is_full {
            drop(state); // what the call owns is the app's: not under the lock
            if waits.is_none() {
                self.shed.queue_full.fetch_add(1, Relaxed);
            }
            return Err(Error::QueueFull);
        }
        let id = state.next_id;
        state.next_id += 1;
        if let (Some(group), None) = (wants_place, waits) {
            state.groups[group].free -= 1;
            place = Some(Place { group, shared: Some(Arc::clone(self)) });
        }
        let expires = after(now, max_wait).filter(|_| waits.is_none());
        let queued = Queued { id, deadline: Deadline::current(), expires, place, call };
        if let Some(group) = waits {
            state.groups[group].queue.push_back(queued);
            return Ok((id, expires));
        }
        state.queue.push_back(queued);
        if state.queue.len() > state.running.len() - busy && state.running.len() < max_threads {
            let started = self.start_thread(&mut state);
            if !started && state.running.is_empty() {
                let refused = state.queue.pop_back();
                drop(state);
                drop(refused);
                return Err(Error::QueueFull);
            }
        }
        self.call_thread(state);
        Ok((id, expires))
    }

    /// Wakes a thread for a call that was put into the queue, unless as many are on their way as sleep. Then one that is at
    /// work takes the call when it is done.
    fn call_thread(&self, mut state: MutexGuard<'_, State>) {
        let wake = state.called < state.idle;
        state.called += usize::from(wake);
        drop(state);
        if wake {
            self.ready.notify_one();
        }
    }

    fn start_thread(self: &Arc<Self>, state: &mut State) -> bool {
        let number = state.running.len();
        let shared = Arc::clone(self);
        let name = format!("handler-{number}");
        match std::thread::Builder::new().name(name).spawn(move || shared.serve(number)) {
            Ok(_) => {
                state.running.push(None);
                true
            }
            Err(error) => {
                log::error!("handler thread could not be started number={number} error={error:?}");
                false
            }
        }
    }

    /// The life of one thread.
    fn serve(self: &Arc<Self>, number: usize) {
        (self.begin)();
        let mut state = self.lock();
        // When the thread was last done with a call, unless it has slept since.
        let mut done_at = None;
        loop {
            if let Some(queued) = state.queue.pop_front() {
                let Queued { id, deadline, expires, place, mut call } = queued;
                let now = done_at.take().unwrap_or_else(Instant::now);
                if expires.is_some_and(|expires| expires <= now) {
                    // Its caller, who is late himself, hears of it by this.
                    drop(state);
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(call)));
                    drop(place);
                    state = self.lock();
                    continue;
                }
                state.running[number] = Some(Running { id, since: now, deadline });
                drop(state);
                let step = call(place);
                let now = Instant::now();
                done_at = Some(now);
                state = self.lock();
                let ran = state.running[number].take();
                // Nobody is called for the next of the group: this thread is here, and whoever is called later finds the rest.
                match step {
                    Step::Done((), Some(mut place)) => {
                        place.shared = None;
                        state.hand_on(self, place.group, now);
                    }
                    Step::Done((), None) => {}
                    Step::Again(place) if !state.closed => {
                        let deadline = ran.and_then(|running| running.deadline);
                        let again = Queued { id, deadline, expires: None, place: None, call };
                        state.retry(self, place, again, now);
                    }
                    Step::Again(place) => {
                        drop(state);
                        drop((place, call));
                        done_at = None;
                        state = self.lock();
                    }
                }
            } else if state.closed {
                return;
            } else {
                done_at = None;
                state.idle += 1;
                state = self.ready.wait(state).expect("nothing that can panic runs under this lock");
                state.idle -= 1;
                state.called = state.called.saturating_sub(1);
            }
        }
    }

    /// Takes a call that is still queued out of the queue.
    pub(super) fn abandon(&self, id: u64, group: Option<usize>) {
        let mut state = self.lock();
        let State { queue, groups, .. } = &mut *state;
        let in_group = group.map(|group| &mut groups[group].queue);
        let abandoned = [Some(queue), in_group]
            .into_iter()
            .flatten()
            .find_map(|queue| State::find(queue, id).and_then(|at| queue.remove(at)));
        drop(state);
        drop(abandoned); // owns values of the app, and perhaps a place: not under the lock
    }

    pub(super) fn stage(&self, id: u64, group: Option<usize>) -> Stage {
        let state = self.lock();
        if let Some(running) = state.running.iter().flatten().find(|running| running.id == id) {
            return Stage::Running(running.since);
        }
        let waits = |group: usize| State::find(&state.groups[group].queue, id).is_some();
        match State::find(&state.queue, id) {
            Some(_) => Stage::Queued,
            None if group.is_some_and(waits) => Stage::Waiting,
            None => Stage::Over,
        }
    }

    /// What its caller is told whose call was thrown away: the worker ends, or it has waited for too long.
    pub(super) fn thrown_away(&self) -> Error {
        if self.lock().closed { Error::QueueFull } else { self.expired() }
    }

    pub(super) fn expired(&self) -> Error {
        self.shed.waited.fetch_add(1, Relaxed);
        Error::WaitedTooLong
    }

    #[cfg(test)]
    pub(super) fn parked(&self, group: usize) -> usize {
        self.lock().groups[group].parked
    }

    /// How many calls wait for a thread.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.lock().queue.len()
    }

    /// When the oldest of the running calls began.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.lock().running.iter().flatten().map(|running| running.since).min()
    }

    /// Whether a call still runs `grace` after its request's deadline.
    pub(super) fn outlived(&self, grace: Duration) -> bool {
        let is_late = |running: &Running| {
            let due = running.deadline.as_ref().and_then(Deadline::due);
            due.is_some_and(|due| due.elapsed() > grace)
        };
        self.lock().running.iter().flatten().any(is_late)
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let forgotten = std::mem::take(&mut state.queue);
        let waiting: Vec<_> = state.groups.iter_mut().map(|group| std::mem::take(&mut group.queue)).collect();
        drop(state);
        self.ready.notify_all();
        drop((forgotten, waiting)); // runs the destructors of the app's values: not under the lock
    }
}
