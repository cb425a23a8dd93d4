//! What is counted by name: of each cache and each program, over all workers. Not here: everything else.

use super::exposition::{Exposition, escaped};
use crate::scoreboard::{Board, CacheCounts, NamedPlace, ProgramCounts, Seat};
use serde_json::{Map, Value};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A figure of each thing of a kind, with what it is called in `/status` and in `/metrics`.
struct Figure<C: 'static> {
    name: &'static str,
    metric: &'static str,
    help: &'static str,
    of: fn(&C) -> &AtomicU64,
    /// It only grows, and what the dead counted belongs to it.
    is_counter: bool,
}

/// What has names.
struct Kind<C: 'static> {
    label: &'static str,
    figures: &'static [Figure<C>],
    find: fn(&Seat, NamedPlace) -> &C,
}

const CACHES: Kind<CacheCounts> = Kind {
    label: "cache",
    figures: &[
        counter("hits", "ferricorn_cache_hits_total", "Look-ups that a cache answered.", |of| &of.hits),
        counter("misses", "ferricorn_cache_misses_total", "Look-ups that no cache answered.", |of| {
            &of.misses
        }),
        counter(
            "stale",
            "ferricorn_cache_stale_total",
            "Of the misses, those answered with an old value while another request loaded.",
            |of| &of.stale,
        ),
        counter(
            "evictions",
            "ferricorn_cache_evictions_total",
            "Entries that went for want of room.",
            |of| &of.evictions,
        ),
        gauge("entries", "ferricorn_cache_entries", "Entries that are kept.", |of| &of.entries),
        gauge("bytes", "ferricorn_cache_bytes", "Their bytes, in caches that are bounded by bytes.", |of| {
            &of.bytes
        }),
    ],
    find: |seat, place| seat.named.cache(place),
};

const PROGRAMS: Kind<ProgramCounts> = Kind {
    label: "program",
    figures: &[
        gauge("children", "ferricorn_program_children", "Processes of the program.", |of| &of.children),
        gauge("waiting", "ferricorn_program_waiting", "Calls that wait for one of them.", |of| &of.waiting),
        counter("calls", "ferricorn_program_calls_total", "Calls that a process was asked.", |of| &of.calls),
        counter(
            "failures",
            "ferricorn_program_failures_total",
            "Of the calls, those over which it died, or that it said no answer to.",
            |of| &of.failures,
        ),
        counter(
            "timeouts",
            "ferricorn_program_timeouts_total",
            "Of the calls, those that it had not answered in time.",
            |of| &of.timeouts,
        ),
        counter(
            "refusals",
            "ferricorn_program_refusals_total",
            "Calls that no process was asked: too many waited, none was free in time, or none was there.",
            |of| &of.refusals,
        ),
        counter(
            "restarts",
            "ferricorn_program_restarts_total",
            "Attempts to start a process in the place of one that ended or could not be started.",
            |of| &of.restarts,
        ),
    ],
    find: |seat, place| seat.named.program(place),
};

/// Writes all of them down; `sum` has what was counted, by the dead too.
pub(super) fn expose(out: &mut Exposition, board: &Board, sum: &Seat) {
    CACHES.expose(out, board, sum, &Vec::from_iter(board.caches()));
    PROGRAMS.expose(out, board, sum, &Vec::from_iter(board.programs()));
}

/// The caches, and the programs, each with its figures.
pub(super) fn tell(board: &Board, sum: &Seat) -> (Vec<Value>, Vec<Value>) {
    (CACHES.tell(board, sum, board.caches()), PROGRAMS.tell(board, sum, board.programs()))
}

impl<C> Kind<C> {
    fn expose(&self, out: &mut Exposition, board: &Board, sum: &Seat, names: &[(NamedPlace, String)]) {
        for figure in self.figures {
            let mut family = if figure.is_counter {
                out.counter(figure.metric, figure.help)
            } else {
                out.gauge(figure.metric, figure.help)
            };
            for (place, name) in names {
                family.with(self.label, escaped(name), self.value(figure, board, sum, *place));
            }
        }
    }

    fn tell(
        &self,
        board: &Board,
        sum: &Seat,
        names: impl Iterator<Item = (NamedPlace, String)>,
    ) -> Vec<Value> {
        let told = names.map(|(place, name)| {
            let value = |figure: &Figure<C>| self.value(figure, board, sum, place).into();
            let figures = self.figures.iter().map(|figure| (figure.name.to_owned(), value(figure)));
            let named = [("name".to_owned(), Value::String(name))];
            Value::Object(Map::from_iter(named.into_iter().chain(figures)))
        });
        told.collect()
    }

    fn value(&self, figure: &Figure<C>, board: &Board, sum: &Seat, place: NamedPlace) -> u64 {
        let read = |seat: &Seat| (figure.of)((self.find)(seat, place)).load(Relaxed);
        if figure.is_counter {
            return read(sum);
        }
        board.seats_used().map(|(_, seat)| read(seat)).fold(0, u64::wrapping_add)
    }
}

const fn counter<C>(
    name: &'static str,
    metric: &'static str,
    help: &'static str,
    of: fn(&C) -> &AtomicU64,
) -> Figure<C> {
    Figure { name, metric, help, of, is_counter: true }
}

const fn gauge<C>(
    name: &'static str,
    metric: &'static str,
    help: &'static str,
    of: fn(&C) -> &AtomicU64,
) -> Figure<C> {
    Figure { name, metric, help, of, is_counter: false }
}
