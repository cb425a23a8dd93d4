//! A program in another language, behind the worker: questions and answers are JSON, a document a line.
//! Not here: the threads (supervisor.rs), the process (child.rs).

mod backoff;
mod child;
mod options;
mod stderr;
mod supervisor;
#[cfg(test)]
mod tests;

pub(crate) use child::DESCRIPTORS_OF_A_CHILD;
pub use options::ProgramOptions;

use crate::app::Error;
use crate::scoreboard::{Board, InFlight, NamedPlace, ProgramCounts};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use supervisor::{Call, Shared};
use tokio::sync::oneshot;

/// A program in another language that runs beside the worker, from [`Worker::program`](crate::Worker::program); a handle, cheap
/// to clone.
///
/// It reads a line from its standard input, which is one JSON document, writes its answer as one line of JSON to its standard
/// output, and so on until its input ends. What it writes to its standard error comes into the error log.
///
/// ```no_run
/// use ferricorn::{Error, Program};
///
/// async fn score(program: &Program, text: &str) -> Result<f64, Error> {
///     program.call(&serde_json::json!({ "text": text })).await
/// }
/// ```
#[derive(Clone)]
pub struct Program {
    handle: Arc<Handle>,
}

/// Closes the program when nobody can call it any more.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Program {
    fn start(
        name: &str,
        options: ProgramOptions,
        tie: fn(&mut Command),
        counts: &'static ProgramCounts,
    ) -> Program {
        Program { handle: Arc::new(Handle(Shared::start(name, options, tie, counts))) }
    }

    /// Asks the program, and waits for its answer. It is asked once: a call that failed is not repeated, and whether it took
    /// effect is unknown. A call whose future is dropped while it waits never starts; one that has begun runs on, unheard.
    ///
    /// # Errors
    /// - `QueueFull`: as many calls wait as may.
    /// - `ProgramDown`: it cannot be started, it dies again and again, or no child was free within its `timeout`.
    /// - `ProgramFailed`: it died over this call, or its answer is no JSON, longer than `max_line`, or no `Out`.
    /// - `TimedOut`: it had not answered within its `timeout`, and was killed.
    /// - `Other`: the question cannot be written as JSON, or is longer than `max_line`.
    pub async fn call<In, Out>(&self, input: &In) -> Result<Out, Error>
    where
        In: Serialize + ?Sized,
        Out: DeserializeOwned,
    {
        let line = line(input, self.handle.0.options.max_line)?;
        let answer = self.ask(line, Instant::now() + self.handle.0.options.timeout).await?;
        // The error's own text would quote what the program said.
        serde_json::from_slice(&answer).map_err(|error| {
            let (kind, column) = (error.classify(), error.column());
            Error::ProgramFailed(format!("its answer does not fit: {kind:?} at column {column}"))
        })
    }

    /// Asks with a whole line, its newline included, and waits for a child `until` then: the answer as it came, which is JSON.
    pub(in crate::app) async fn ask(&self, line: Vec<u8>, until: Instant) -> Result<Vec<u8>, Error> {
        let Handle(shared) = &*self.handle;
        let (answer, mut answered) = oneshot::channel();
        let (is_begun, in_flight) = (Arc::new(AtomicBool::new(false)), InFlight::current());
        let _queued = in_flight.queued();
        shared.submit(Call { line, answer, is_begun: Arc::clone(&is_begun), in_flight })?;
        let outcome = match tokio::time::timeout_at(until.into(), &mut answered).await {
            Ok(outcome) => outcome,
            // From its begin on its thread counts the time.
            Err(_) if is_begun.load(Ordering::SeqCst) => answered.await,
            Err(_) => {
                shared.gave_up();
                return Err(Error::ProgramDown("no child was free within its timeout".to_owned()));
            }
        };
        outcome.unwrap_or_else(|_| Err(Error::ProgramDown("the worker leaves".to_owned())))
    }
}

/// The question as one line.
fn line<In: Serialize + ?Sized>(input: &In, max_line: usize) -> Result<Vec<u8>, Error> {
    let mut line = serde_json::to_vec(input).map_err(Error::other)?;
    if line.len() > max_line {
        return Err(Error::other(format!(
            "the question takes {} bytes, and max_line is {max_line}",
            line.len()
        )));
    }
    if line.contains(&b'\n') {
        return Err(Error::other("the question has a newline in it"));
    }
    line.push(b'\n');
    Ok(line)
}

/// The programs of one worker, by name.
pub(crate) struct Programs {
    /// Has what a command starts die with the thread that starts it, with signals at their defaults.
    tie: fn(&mut Command),
    board: Board,
    slot: u32,
    made: Mutex<HashMap<String, Made>>,
}

struct Made {
    program: Program,
    place: NamedPlace,
    counts: &'static ProgramCounts,
}

impl Programs {
    pub(crate) fn new(tie: fn(&mut Command), board: Board, slot: u32) -> Programs {
        Programs { tie, board, slot, made: Mutex::default() }
    }

    pub(crate) fn find_or_start(&self, name: &str, options: ProgramOptions) -> Program {
        let mut made = self.made();
        let start = || {
            let (place, counts) = self.board.program_counts(self.slot, name);
            Made { program: Program::start(name, options, self.tie, counts), place, counts }
        };
        made.entry(name.to_owned()).or_insert_with(start).program.clone()
    }

    /// Shows on the board how they stand.
    pub(crate) fn show(&self) {
        // Those that came too late for a place of their own are shown together.
        let mut sums = BTreeMap::new();
        for Made { program, place, counts } in self.made().values() {
            let (children, waiting) = program.handle.0.standing();
            let (_, sum) = sums.entry(*place).or_insert((*counts, (0, 0)));
            *sum = (sum.0 + children, sum.1 + waiting);
        }
        for (counts, (children, waiting)) in sums.into_values() {
            counts.children.store(children, Ordering::Relaxed);
            counts.waiting.store(waiting, Ordering::Relaxed);
        }
    }

    /// Has all of them leave, and waits for it, though not for long.
    pub(crate) fn close(&self) {
        let made = self.made();
        made.values().for_each(|made| made.program.handle.0.close());
        made.values().for_each(|made| made.program.handle.0.wait_closed());
    }

    fn made(&self) -> MutexGuard<'_, HashMap<String, Made>> {
        self.made.lock().expect("nothing that can panic runs under this lock")
    }
}
