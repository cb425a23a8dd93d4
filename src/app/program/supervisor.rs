//! The calls that wait for a program's children, and the thread behind each child: it starts it, hands it one call after the
//! other, ends it, and starts another. Not here: what is said between them (child.rs).
//!
//! The kernel kills a child when the thread that started it ends, so these threads live as long as their program.

use super::ProgramOptions;
use super::backoff::BackOff;
use super::child::{Child, Fault};
use crate::app::Error;
use crate::scoreboard::{InFlight, ProgramCounts, RequestPhase};
use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often a child with nothing to do is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a child may take to end by itself when its worker leaves.
const GRACE: Duration = Duration::from_millis(200);
/// How long a worker that leaves waits for that.
const CLOSE_WAIT: Duration = Duration::from_millis(400);

pub(super) struct Call {
    /// The question, its newline included.
    pub(super) line: Vec<u8>,
    pub(super) answer: oneshot::Sender<Result<Vec<u8>, Error>>,
    /// A child has it.
    pub(super) is_begun: Arc<AtomicBool>,
    pub(super) in_flight: InFlight,
}

pub(super) struct Shared {
    name: String,
    pub(super) options: ProgramOptions,
    tie: fn(&mut Command),
    /// On the board.
    counts: &'static ProgramCounts,
    state: Mutex<State>,
    /// There is a call in the queue, or the end has come.
    ready: Condvar,
    /// The end has come, or a thread is done.
    closing: Condvar,
}

struct State {
    queue: VecDeque<Call>,
    /// How many calls the children have.
    busy: usize,
    children: Vec<Standing>,
    is_closed: bool,
}

/// How it stands with one of the children.
enum Standing {
    /// It is there, or soon will be; with what can end its talk.
    Up(Option<UnixStream>),
    Down(String),
    /// Its thread is done.
    Over,
}

enum Next {
    Call(Call),
    Nothing,
    Close,
}

impl Shared {
    /// Starts the threads. Where there is none to be had the program is down.
    pub(super) fn start(
        name: &str,
        options: ProgramOptions,
        tie: fn(&mut Command),
        counts: &'static ProgramCounts,
    ) -> Arc<Shared> {
        let children = (0..options.children).map(|_| Standing::Up(None)).collect();
        let state = Mutex::new(State { queue: VecDeque::new(), busy: 0, children, is_closed: false });
        let (ready, closing) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { name: name.to_owned(), options, tie, counts, state, ready, closing });
        for number in 0..shared.options.children {
            let supervised = Arc::clone(&shared);
            let thread = thread::Builder::new().name(format!("program-{number}"));
            if let Err(error) = thread.spawn(move || supervised.supervise(number)) {
                let who = shared.who(number);
                log::error!("program thread could not be started {who} error=\"{error}\"");
                shared.stand(number, Standing::Over);
            }
        }
        shared
    }

    /// # Errors
    /// `QueueFull`, and `ProgramDown` where no child is up.
    pub(super) fn submit(&self, call: Call) -> Result<(), Error> {
        self.queue(call).inspect_err(|_| count(&self.counts.refusals, 1))
    }

    /// Nobody waits any more for a call that no child was asked: its time is over.
    pub(super) fn gave_up(&self) {
        count(&self.counts.refusals, 1);
    }

    /// How many children there are, and how many calls wait for one.
    pub(super) fn standing(&self) -> (u64, u64) {
        let state = self.lock();
        let is_up = |child: &&Standing| matches!(child, Standing::Up(Some(_)));
        let waits = |call: &&Call| !call.answer.is_closed();
        (state.children.iter().filter(is_up).count() as u64, state.queue.iter().filter(waits).count() as u64)
    }

    fn queue(&self, call: Call) -> Result<(), Error> {
        let mut state = self.lock();
        if let Some(reason) = state.why_down() {
            return Err(Error::ProgramDown(reason));
        }
        let max = self.options.queue + self.options.children;
        if state.queue.len() + state.busy >= max {
            state.queue.retain(|waiting| !waiting.answer.is_closed());
        }
        if state.queue.len() + state.busy >= max {
            return Err(Error::QueueFull);
        }
        state.queue.push_back(call);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Takes no more calls, forgets the waiting ones, and has the children leave.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.queue.clear();
        for standing in &state.children {
            if let Standing::Up(Some(wire)) = standing {
                // The child reads the end, and so does the thread that may wait for its answer.
                let _ = wire.shutdown(Shutdown::Both);
            }
        }
        drop(state);
        self.ready.notify_all();
        self.closing.notify_all();
    }

    /// After `close`: waits until the children are gone, and no longer than `CLOSE_WAIT`.
    pub(super) fn wait_closed(&self) {
        let is_there =
            |state: &mut State| !state.children.iter().all(|child| matches!(child, Standing::Over));
        let waited = self.closing.wait_timeout_while(self.lock(), CLOSE_WAIT, is_there);
        drop(waited.expect("nothing that can panic runs under this lock"));
    }

    /// The life of a child's thread.
    fn supervise(&self, number: usize) {
        let (mut back_off, mut is_first) = (BackOff::default(), true);
        while !self.lock().is_closed {
            count(&self.counts.restarts, u64::from(!std::mem::replace(&mut is_first, false)));
            let who = self.who(number);
            let started = Child::start(who.clone(), &self.options, self.tie);
            let (delay, reason) = match started.and_then(|child| Ok((child.wire()?, child))) {
                Ok((wire, child)) => {
                    log::info!("program started {who} pid={}", child.pid());
                    self.stand(number, Standing::Up(Some(wire)));
                    let Some((life, delay)) = self.live(child, &mut back_off) else { break };
                    log::warn!("program ended {who} {life} restart_in={delay:?}");
                    (delay, BackOff::is_long(delay).then(|| format!("{who} ended")))
                }
                Err(error) => {
                    let delay = back_off.after(Duration::ZERO, false);
                    log::error!("program could not be started {who} error=\"{error}\" restart_in={delay:?}");
                    (delay, Some(format!("{who} cannot be started: {error}")))
                }
            };
            self.stand(number, reason.map_or(Standing::Up(None), Standing::Down));
            self.pause(delay);
        }
        self.stand(number, Standing::Over);
        self.closing.notify_all();
    }

    /// Hands calls to a child until it cannot go on: how it lived, for the log, and how long there shall be no other.
    /// `None` where the program is closed.
    fn live(&self, mut child: Child, back_off: &mut BackOff) -> Option<(String, Duration)> {
        let fault = loop {
            let call = match self.next() {
                Next::Close => {
                    child.leave(GRACE);
                    return None;
                }
                Next::Nothing => None,
                Next::Call(call) => Some(call),
            };
            if let Err(fault) = child.look() {
                // Nothing was asked of it: the next child can be.
                call.into_iter().for_each(|call| self.put_back(call));
                break fault;
            }
            let Some(call) = call else { continue };
            let outcome = self.answer(call, &mut child);
            self.lock().busy -= 1;
            if let Err(fault) = outcome {
                break fault;
            }
        };
        if self.lock().is_closed {
            child.leave(GRACE);
            return None;
        }
        let (pid, age, answered) = (child.pid(), child.born.elapsed(), child.answered);
        let delay = back_off.after(age, answered > 0);
        let cause = child.end(fault);
        let age = age.as_secs_f32();
        Some((
            format!("pid={pid} why=\"{fault}\" cause=\"{cause}\" age={age:.1}s answered={answered}"),
            delay,
        ))
    }

    /// Has one call answered, unless its caller has gone.
    fn answer(&self, call: Call, child: &mut Child) -> Result<(), Fault> {
        call.is_begun.store(true, Ordering::SeqCst);
        if call.answer.is_closed() {
            return Ok(());
        }
        call.in_flight.enter(RequestPhase::Handler);
        count(&self.counts.calls, 1);
        let mut caller = Some(call.answer);
        // Whoever left meanwhile does not hear of it.
        let mut tell = |answer| caller.take().is_some_and(|caller| caller.send(answer).is_ok());
        let mut is_late = false;
        let outcome = child.exchange(&call.line, &self.options, || {
            count(&self.counts.timeouts, u64::from(!std::mem::replace(&mut is_late, true)));
            tell(Err(Error::TimedOut));
        });
        let fault = outcome.as_ref().err().copied();
        count(&self.counts.failures, u64::from(fault.is_some() && !is_late));
        tell(outcome.map_err(|fault| match fault {
            Fault::Late => Error::TimedOut,
            Fault::Gone | Fault::NoJson | Fault::TooLong | Fault::OutOfStep => {
                Error::ProgramFailed(format!("{:?}: {fault}", self.name))
            }
        }));
        fault.map_or(Ok(()), Err)
    }

    /// Waits for a call, but not for ever.
    fn next(&self) -> Next {
        let is_idle = |state: &mut State| state.queue.is_empty() && !state.is_closed;
        let waited = self.ready.wait_timeout_while(self.lock(), LOOK_EVERY, is_idle);
        let (mut state, _) = waited.expect("nothing that can panic runs under this lock");
        if state.is_closed {
            return Next::Close;
        }
        state.queue.pop_front().map_or(Next::Nothing, |call| {
            state.busy += 1;
            Next::Call(call)
        })
    }

    fn put_back(&self, call: Call) {
        let mut state = self.lock();
        state.busy -= 1;
        state.queue.push_front(call);
        drop(state);
        self.ready.notify_one();
    }

    /// Notes how it stands with a child. Where the last one is down, nobody waits for it.
    fn stand(&self, number: usize, standing: Standing) {
        let mut state = self.lock();
        if let (true, Standing::Up(Some(wire))) = (state.is_closed, &standing) {
            let _ = wire.shutdown(Shutdown::Both);
        }
        state.children[number] = standing;
        let Some(reason) = state.why_down() else { return };
        let refused = std::mem::take(&mut state.queue);
        drop(state);
        count(&self.counts.refusals, refused.iter().filter(|call| !call.answer.is_closed()).count() as u64);
        for call in refused {
            let _ = call.answer.send(Err(Error::ProgramDown(reason.clone())));
        }
    }

    fn pause(&self, delay: Duration) {
        let waited = self.closing.wait_timeout_while(self.lock(), delay, |state| !state.is_closed);
        drop(waited.expect("nothing that can panic runs under this lock"));
    }

    fn who(&self, number: usize) -> String {
        format!("name={:?} child={number}", self.name)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing that can panic runs under this lock")
    }
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Relaxed);
}

impl State {
    /// Why no child can be asked, nor will be soon.
    fn why_down(&self) -> Option<String> {
        if self.is_closed {
            return Some("the worker leaves".to_owned());
        }
        let mut reason = None;
        for child in &self.children {
            match child {
                Standing::Up(_) => return None,
                Standing::Down(why) => reason = Some(why.clone()),
                Standing::Over => {}
            }
        }
        Some(reason.unwrap_or_else(|| "none of its threads could be started".to_owned()))
    }
}
