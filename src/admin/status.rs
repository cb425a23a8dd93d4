//! All that is known of the server, for people and their tools. What workers wrote is escaped and cut; secrets are masked.
//! A key may be added to it any time; for any other change `schema` is raised. Not here: judgements.

use super::memory::Shares;
use super::{Desk, listeners, metrics, named, own, process};
use crate::config::Settings;
use crate::scoreboard::{Board, Change, LastReload, PoolState, Seat, SeenRequest};
use serde_json::{Map, Value, json};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const SCHEMA: u32 = 1;

pub(super) async fn tell(desk: &Desk, now: u64) -> Value {
    let Desk { board, settings, addresses, memory, .. } = desk;
    let shares = memory.look(*board).await;
    let standing = board.standing();
    let (reloads, last_reload) = board.reloads();
    let workers: Vec<Value> =
        board.seats_used().filter_map(|(slot, seat)| worker(slot, seat, &shares, now)).collect();
    // Where the master was stopped while it wrote, the rest is told all the same.
    let sum = metrics::sum(board);
    let (caches, programs) = sum.as_ref().map(|sum| named::tell(board, sum)).unzip();
    json!({
        "schema": SCHEMA,
        "server": {
            "version": env!("CARGO_PKG_VERSION"),
            "master_pid": std::os::unix::process::parent_id(),
            "uptime_seconds": since(standing.started, now),
            "master_silent_seconds": since(standing.said, now),
            "generation": standing.generation,
            "workers_wanted": standing.workers_wanted,
            "is_leaving": board.is_leaving() || standing.is_stopping,
            "is_reloading": standing.is_reloading,
            "reloads": reloads,
            "last_reload": plain(&last_reload),
        },
        "listeners": listeners::tell(addresses, settings.backlog),
        "last_reload": board.last_reload().map(|reload| self::reload(&reload, now)),
        "totals": totals(board),
        "workers": workers,
        "caches": caches,
        "programs": programs,
        "app_metrics": sum.map(|sum| own::tell(board, &sum)),
        "deaths": deaths(board, now),
        "settings": in_force(settings),
    })
}

/// What all workers counted, those that are gone included; null where that is not to be had.
pub(super) fn totals(board: &Board) -> Value {
    let Some(sum) = metrics::sum(board) else { return Value::Null };
    let classes = metrics::CLASSES.into_iter().map(str::to_owned);
    let requests: Map<String, Value> = classes.zip(sum.tally.answers().map(Value::from)).collect();
    let latencies: Vec<u64> = sum.tally.latencies().0.iter().map(|(_, count)| *count).collect();
    let (hits, misses) = sum.named.cache_look_ups();
    json!({
        "requests": requests,
        "latency_bounds": metrics::latency_bounds(&sum.tally),
        "latencies": latencies,
        "cache_hits": hits,
        "cache_misses": misses,
        "pool_timeouts": sum.pool_timeouts.load(Relaxed),
        "response_body_bytes": sum.tally.body_bytes(),
    })
}

fn reload(reload: &LastReload, now: u64) -> Value {
    let change = |change: &Change| {
        let (old, new) = change.values.clone().unzip();
        json!({ "setting": change.setting, "old": old, "new": new, "is_fixed": change.is_fixed })
    };
    json!({
        "outcome": if reload.is_adopted { "adopted" } else { "refused" },
        "ago_seconds": since(reload.at, now),
        "text": plain(&reload.text),
        "changes": reload.changes.iter().map(change).collect::<Vec<Value>>(),
        "has_more_changes": reload.has_more,
    })
}

/// The master wrote it. Its quotes, which the board gives out escaped, harm nobody here.
fn plain(text: &str) -> String {
    text.replace("\\x22", "\"")
}

/// `None` where nobody sits.
fn worker(slot: usize, seat: &Seat, shares: &Shares, now: u64) -> Option<Value> {
    let pid = seat.tenure.pid()?;
    let usage = process::usage(pid);
    let share = shares.get(&pid);
    let in_flight: Vec<Value> = seat.in_flight.see(now).map(|seen| request(&seen)).collect();
    Some(json!({
        "slot": slot,
        "pid": pid,
        "generation": seat.tenure.generation(),
        "state": seat.phase().to_string(),
        "uptime_seconds": since(seat.tenure.since(), now),
        "silent_seconds": seat.silence(now).as_secs_f64(),
        "requests": seat.tally.requests(),
        "connections": seat.connections.load(Relaxed),
        "database": match seat.pool_state() {
            PoolState::Absent => None,
            PoolState::Usable => Some("usable"),
            PoolState::Down => Some("down"),
        },
        "in_flight": seat.in_flight.count(),
        "requests_in_flight": in_flight,
        "cpu_seconds": usage.as_ref().map(|usage| usage.cpu.as_secs_f64()),
        "resident_bytes": usage.as_ref().map(|usage| usage.resident_bytes),
        "anonymous_bytes": usage.as_ref().map(|usage| usage.anonymous_bytes),
        "pss_bytes": share.map(|share| share.pss_bytes),
        "private_bytes": share.map(|share| share.private_bytes),
    }))
}

fn request(seen: &SeenRequest) -> Value {
    json!({
        "method": seen.method,
        "path": seen.path,
        "phase": seen.phase.to_string(),
        "age_seconds": seen.age.as_secs_f64(),
    })
}

/// The latest first.
pub(super) fn deaths(board: &Board, now: u64) -> Vec<Value> {
    let told = board.deaths.all(now).into_iter().map(|(ago, death, lost)| {
        json!({
            "ago_seconds": ago.as_secs_f64(),
            "slot": death.slot,
            "pid": death.pid,
            "cause": death.cause,
            "age_seconds": death.age.as_secs_f64(),
            "requests": death.requests,
            "in_flight": death.in_flight,
            "requests_in_flight": lost.iter().map(request).collect::<Vec<Value>>(),
        })
    });
    told.collect()
}

/// Each value as it would stand in the file.
pub(super) fn in_force(settings: &Settings) -> Map<String, Value> {
    let told = settings
        .in_force()
        .map(|(key, value, origin)| (key.to_owned(), json!({ "value": value, "origin": origin })));
    told.collect()
}

fn since(then: u64, now: u64) -> f64 {
    Duration::from_millis(now.saturating_sub(then)).as_secs_f64()
}
