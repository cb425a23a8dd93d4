//! The figures, over all workers. What is counted goes on over their deaths and over reloads: the board keeps what the
//! dead counted. It begins anew with a new master. Not here: how a figure is written down.

use super::exposition::Exposition;
use super::memory::Shares;
use super::{Desk, listeners, named, own, process};
use crate::health::SILENT;
use crate::scoreboard::{Board, Phase, PoolState, Reason, Seat, Tally};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How often a sum is tried that a worker's end came in the way of. Such an end takes a microsecond to write down.
const TRIES: usize = 1000;

/// Of answers, as `Tally::answers` has them.
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// `None` where the board is not to be had: the master was stopped while it wrote there.
pub(super) fn expose(desk: &Desk, shares: &Shares, now: u64) -> Option<String> {
    let Desk { board, addresses, .. } = desk;
    let sum = sum(board)?;
    let mut out = Exposition::default();
    server(&mut out, board, now);
    requests(&mut out, &sum);
    named::expose(&mut out, board, &sum);
    now_in_use(&mut out, board);
    accept_queues(&mut out, addresses);
    each_worker(&mut out, board, shares, now);
    own::expose(&mut out, board, &sum);
    Some(out.finish())
}

/// What all workers counted, those that are gone included.
pub(super) fn sum(board: &Board) -> Option<Box<Seat>> {
    (0..TRIES).find_map(|_| board.sum())
}

fn server(out: &mut Exposition, board: &Board, now: u64) {
    let standing = board.standing();
    let since = |then: u64| Duration::from_millis(now.saturating_sub(then)).as_secs_f64();
    out.gauge("ferricorn_build_info", "1, with the server's version.").with(
        "version",
        env!("CARGO_PKG_VERSION"),
        1,
    );
    out.gauge("ferricorn_uptime_seconds", "Since the master started.").is(since(standing.started));
    let help = "Since the master's loop last turned, as far as can be seen.";
    out.gauge("ferricorn_master_silent_seconds", help).is(since(standing.said));
    out.gauge("ferricorn_generation", "Of the settings that serve.").is(standing.generation);
    let (adopted, refused) = board.reload_counts();
    let mut reloads = out.counter("ferricorn_reloads_total", "Reloads that came to an end.");
    reloads.with("outcome", "adopted", adopted);
    reloads.with("outcome", "refused", refused);
    out.gauge("ferricorn_workers_wanted", "Workers that there should be.").is(standing.workers_wanted);
    let mut workers = out.gauge("ferricorn_workers", "Workers by what they are about.");
    for phase in [Phase::Booting, Phase::Serving, Phase::Retiring, Phase::Draining] {
        let are_so = |seat: &Seat| seat.tenure.pid().is_some() && seat.phase() == phase;
        workers.with("state", phase, board.seats_used().filter(|(_, seat)| are_so(seat)).count());
    }
    let is_silent = |seat: &Seat| seat.phase() != Phase::Booting && seat.silence(now) >= SILENT;
    out.gauge("ferricorn_workers_silent", "Workers whose event loop has not turned for 2 s.")
        .is(board.seats_used().filter(|(_, seat)| is_silent(seat)).count());
    let mut ends = out.counter("ferricorn_worker_ends_total", "Workers that ended, by why.");
    for reason in Reason::ALL {
        ends.with("reason", reason, board.ends(reason));
    }
}

fn requests(out: &mut Exposition, sum: &Seat) {
    let tally = &sum.tally;
    let help = "Requests that are over, by the class of the answer's status; none: the client left before.";
    let mut answers = out.counter("ferricorn_requests_total", help);
    for (class, count) in CLASSES.iter().zip(tally.answers()) {
        answers.with("class", class, count);
    }
    let (buckets, time) = tally.latencies();
    let help = "From the end of a request's head to the end of its answer.";
    out.histogram("ferricorn_request_duration_seconds", help, &in_seconds(buckets), time.as_secs_f64());
    out.counter("ferricorn_response_body_bytes_total", "Bytes of answers' bodies.").is(tally.body_bytes());
    out.counter("ferricorn_connections_accepted_total", "Connections that workers took.").is(tally.accepts());
    out.counter("ferricorn_accept_errors_total", "Connections that could not be taken.")
        .is(tally.accept_errors());
    let help = "Connections that were closed for want of a valid PROXY protocol header.";
    out.counter("ferricorn_proxy_protocol_refusals_total", help).is(tally.proxy_refusals());
    out.counter("ferricorn_handshake_failures_total", "TLS handshakes that failed, or took too long.")
        .is(tally.handshake_failures());
    let help = "Connections that were refused, as their client had limit_client_connections.";
    out.counter("ferricorn_connections_refused_total", help).is(tally.connections_refused());
    let help = "HTTP/2 connections that were ended for sending too much that was for nothing.";
    out.counter("ferricorn_frame_floods_total", help).is(tally.floods());
    let help = "Clients that were cut off, by what they were too slow with.";
    let mut cuts = out.counter("ferricorn_slow_clients_total", help);
    for (what, count) in ["head", "body", "answer"].iter().zip(tally.cuts()) {
        cuts.with("with", what, count);
    }
    let help = "Requests that were refused for want of a handler thread, by how.";
    let mut shed = out.counter("ferricorn_requests_shed_total", help);
    shed.with("by", "blocking_queue", sum.shed.queue_full.load(Relaxed));
    shed.with("by", "max_wait", sum.shed.waited.load(Relaxed));
    let (buckets, time) = sum.shed.waits.read();
    let help = "Waits for a handler thread, of calls that got one and wanted no database connection.";
    out.histogram("ferricorn_queue_wait_seconds", help, &in_seconds(buckets), time.as_secs_f64());
    let (buckets, time) = sum.pool_waits.read();
    let help = "Waits for a database connection and a thread, of calls that got both.";
    out.histogram("ferricorn_pool_wait_seconds", help, &in_seconds(buckets), time.as_secs_f64());
    let help = "Waits for a database connection that took longer than pool_timeout.";
    out.counter("ferricorn_pool_timeouts_total", help).is(sum.pool_timeouts.load(Relaxed));
}

/// The bounds of the latencies' buckets, in seconds, but for the last, which has none.
pub(super) fn latency_bounds(tally: &Tally) -> Vec<f64> {
    in_seconds(tally.latencies().0).into_iter().filter_map(|(bound, _)| bound).collect()
}

fn in_seconds(buckets: Vec<(Option<u64>, u64)>) -> Vec<(Option<f64>, u64)> {
    let seconds = |micros: u64| micros as f64 / 1e6;
    buckets.into_iter().map(|(bound, count)| (bound.map(seconds), count)).collect()
}

fn now_in_use(out: &mut Exposition, board: &Board) {
    let sum = |figure: fn(&Seat) -> u32| -> u64 {
        board.seats_used().map(|(_, seat)| u64::from(figure(seat))).sum()
    };
    out.gauge("ferricorn_connections_open", "Clients' connections.")
        .is(sum(|seat| seat.connections.load(Relaxed)));
    out.gauge("ferricorn_requests_in_flight", "Requests under way.").is(sum(|seat| seat.in_flight.count()));
    out.gauge("ferricorn_pool_connections", "Database connections that are open.")
        .is(sum(|seat| seat.pool_connections.load(Relaxed)));
    out.gauge("ferricorn_pool_idle", "Database connections that nobody uses.")
        .is(sum(|seat| seat.pool_idle.load(Relaxed)));
    out.gauge("ferricorn_pool_waiting", "Calls that wait for a database connection.")
        .is(sum(|seat| seat.pool_waiting.load(Relaxed)));
    let help = "Workers without a database connection whose last attempt to make one failed.";
    out.gauge("ferricorn_pools_down", help).is(sum(|seat| u32::from(seat.pool_state() == PoolState::Down)));
}

fn accept_queues(out: &mut Exposition, addresses: &[String]) {
    let mut waiting =
        out.gauge("ferricorn_accept_queue", "Connections that wait to be accepted, by TCP address.");
    for queue in listeners::queues(addresses) {
        waiting.with("on", queue.on, queue.waiting);
    }
}

/// By slot: these begin anew with each worker.
fn each_worker(out: &mut Exposition, board: &Board, shares: &Shares, now: u64) {
    let workers: Vec<_> = board
        .seats_used()
        .filter_map(|(slot, seat)| {
            let pid = seat.tenure.pid()?;
            Some((slot, seat.tenure.since(), (process::usage(pid), shares.get(&pid))))
        })
        .collect();
    let mut uptime = out.gauge("ferricorn_worker_uptime_seconds", "Since the worker was forked.");
    for (slot, since, _) in &workers {
        uptime.with("slot", slot, Duration::from_millis(now.saturating_sub(*since)).as_secs_f64());
    }
    let used = || workers.iter().filter_map(|(slot, _, (usage, _))| Some((slot, usage.as_ref()?)));
    let mut cpu = out.counter("ferricorn_worker_cpu_seconds_total", "Processor time of the worker.");
    for (slot, usage) in used() {
        cpu.with("slot", slot, usage.cpu.as_secs_f64());
    }
    let mut resident = out.gauge("ferricorn_worker_resident_bytes", "Memory of the worker that is there.");
    for (slot, usage) in used() {
        resident.with("slot", slot, usage.resident_bytes);
    }
    let mut anonymous =
        out.gauge("ferricorn_worker_anonymous_bytes", "What of it no file backs: heap and stacks.");
    for (slot, usage) in used() {
        anonymous.with("slot", slot, usage.anonymous_bytes);
    }
    let shared = || workers.iter().filter_map(|(slot, _, (_, share))| Some((slot, (*share)?)));
    let help = "Memory of the worker, each page divided by how many processes have it.";
    let mut pss = out.gauge("ferricorn_worker_pss_bytes", help);
    for (slot, share) in shared() {
        pss.with("slot", slot, share.pss_bytes);
    }
    let mut private =
        out.gauge("ferricorn_worker_private_bytes", "Memory of the worker that no other process has.");
    for (slot, share) in shared() {
        private.with("slot", slot, share.private_bytes);
    }
}
