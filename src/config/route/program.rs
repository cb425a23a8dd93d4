//! A route's program: `program`, `params` and the limits of its children. Not here: a single parameter; whether the program is
//! there; what is said to it.

use super::Param;
use super::fields::{self, Fields};
use super::param;
use crate::config::values::{self, Raw};
use std::time::Duration;

/// A program beside each worker, what it is given, and within which limits it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The program and its arguments, word for word; never empty.
    pub words: Vec<String>,
    pub params: Vec<Param>,
    /// How many of it each worker runs.
    pub children: usize,
    /// How many calls may wait in a worker while its children are busy.
    pub queue: usize,
    /// How long a child may take to its first answer before it is killed for being late.
    pub start_timeout: Duration,
}

pub(super) const KEYS: [&str; 5] = ["program", "params", "children", "queue", "start_timeout"];

const CHILDREN: usize = 1;
const MAX_CHILDREN: usize = 64;
const QUEUE: usize = 64;
const MAX_QUEUE: usize = 10_000;
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// `None` where something is wrong, which was noted.
pub(super) fn read(fields: &mut Fields<'_, '_>) -> Option<Program> {
    if let Some((at, _)) = fields.value("invalidates") {
        let what = "route.invalidates: does not go with program, of which nobody knows when it changes something; \
                    allowed with sql and template";
        fields.reader.problem(at, what);
    }
    let words =
        fields.read("program", "the program and its arguments, such as [\"python3\", \"model.py\"]", words);
    let params = param::read(fields);
    let children = fields.read("children", "a number from 1 to 64", |raw| within(raw, 1, MAX_CHILDREN));
    let queue = fields.read("queue", "a number from 0 to 10000", |raw| within(raw, 0, MAX_QUEUE));
    let start_timeout = fields.read("start_timeout", fields::WAIT, fields::wait);
    Some(Program {
        words: words?,
        params,
        children: children.unwrap_or(CHILDREN),
        queue: queue.unwrap_or(QUEUE),
        start_timeout: start_timeout.unwrap_or(START_TIMEOUT),
    })
}

/// An array and nothing else: what would a shell have made of one text?
fn words(raw: &Raw) -> Option<Vec<String>> {
    let Raw::List(items) = raw else { return None };
    let words: Option<Vec<String>> = items.iter().map(values::text).collect();
    words.filter(|words| {
        words.first().is_some_and(|first| !first.is_empty()) && words.iter().all(|word| !word.contains('\0'))
    })
}

fn within(raw: &Raw, min: usize, max: usize) -> Option<usize> {
    values::count(raw).filter(|count| (min..=max).contains(count))
}
