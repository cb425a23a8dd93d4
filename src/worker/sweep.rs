//! The sweep: a look at everything every so often, in place of a timer for each request. It beats the heart, ends what is
//! overdue, and writes the access log out. Not here: what a stage means.

use super::connection::linger;
use super::watched::{Stage, Watched};
use super::{Floor, IDLE_LINGER, http2, stall, tls};
use crate::app::Worker;
use crate::config::Settings;
use crate::scoreboard::{Slow, now_millis};
use http::StatusCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// The longest time between two sweeps. A timeout comes at most two of them late, and never early; short timeouts are swept oftener.
const LONGEST_TICK: Duration = Duration::from_millis(250);
const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// A blocking call may run on after its request's deadline for as long as `request_timeout` again, and at least this.
const SHORTEST_GRACE: Duration = Duration::from_secs(1);

/// Sent to a client that was too slow with its request. hyper has not begun an answer then.
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

pub(super) async fn sweep(floor: Arc<Floor>, worker: Worker) {
    let period = tick(&floor.settings);
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // As the settings say, until the operator says otherwise.
    let mut level = None;
    let mut before = now_millis();
    loop {
        tick.tick().await;
        let now = now_millis();
        floor.coarse_now.store(now, Ordering::Relaxed);
        floor.seat.heartbeat.fetch_add(1, Ordering::Relaxed);
        floor.seat.beat_at.store(now, Ordering::Relaxed);
        worker.show();
        if floor.board.level() != level {
            level = floor.board.level();
            log::set_max_level(level.unwrap_or(floor.settings.loglevel));
        }
        // A stage is noted with the time of the sweep before it, and must not seem older than it is. Nor is a client to blame
        // for a worker that slept: what it sent meanwhile is read before the next sweep.
        let surely = std::mem::replace(&mut before, now);
        let settings = &floor.settings;
        let mut overdue = Vec::new();
        floor.connections.each(|watched| {
            let mut judge = |watched: &Arc<Watched>| {
                let is_stalled = watched.stall.is_on()
                    && watched.stall.is_over(settings.send_timeout, now, &watched.stream.lock());
                let end = if is_stalled { Some(End::Stalled) } else { verdict(watched, surely, settings) };
                overdue.extend(end.map(|end| (watched.clone(), end)));
            };
            judge(watched);
            if let Some(session) = watched.session.get() {
                session.each_stream(judge);
                let stalled = |watched: &Arc<Watched>| overdue.push((watched.clone(), End::Stalled));
                http2::each_stalled(session, watched, surely, stalled);
            }
        });
        for (watched, end) in overdue {
            carry_out(&watched, end);
        }
        if let Some(why) = stuck(&floor.settings, &worker).or_else(|| worn(&floor, now)) {
            floor.retire(why);
        }
        if let Some(access_log) = &floor.access_log {
            access_log.flush();
        }
    }
}

/// How long a statement that is cancelled at `timeout` may take to end, so that its thread is free again.
const CANCEL_TIME: Duration = Duration::from_secs(1);

/// Why a blocking call has to be given up, and the worker with it, for nothing ends a thread.
fn stuck(settings: &Settings, worker: &Worker) -> Option<&'static str> {
    let Settings { timeout, request_timeout, .. } = *settings;
    if !timeout.is_zero() && worker.longest_call().is_some_and(|call| call > timeout + CANCEL_TIME) {
        return Some("\"a blocking call ran longer than timeout\"");
    }
    let grace = request_timeout.max(SHORTEST_GRACE);
    // A route may have a limit where the server has none.
    worker.call_outlived_its_request(grace).then_some("\"a blocking call outlived its request\"")
}

/// Why the worker has served long enough.
fn worn(floor: &Floor, now: u64) -> Option<&'static str> {
    if floor.retires_at.is_some_and(|at| now >= at) {
        return Some("max_worker_age");
    }
    floor
        .is_too_large
        .as_ref()
        .is_some_and(|flag| flag.load(Ordering::Relaxed))
        .then_some("max_worker_memory")
}

/// Closes what is idle after a linger, then what becomes idle, until the worker leaves.
pub(super) async fn close_idle(floor: &Arc<Floor>) {
    let began = now_millis();
    while floor.connections.count() > 0 {
        let before = now_millis().saturating_sub(IDLE_LINGER.as_millis() as u64);
        if before >= began {
            let mut idle = Vec::new();
            floor.connections.each(|watched| {
                let is_idle = matches!(watched.stage(), Stage::New | Stage::Idle) && !watched.stall.is_on();
                if is_idle && watched.since() <= before {
                    idle.push(watched.clone());
                }
            });
            idle.iter().for_each(|watched| carry_out(watched, End::Silent));
        }
        tokio::select! {
            () = sleep(SHORTEST_TICK * 2) => {}
            () = floor.connections.all_closed() => {}
        }
    }
}

/// How an overdue connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It owes nothing and is owed nothing.
    Silent,
    /// Its handshake took too long.
    Unsecured,
    /// A request was begun and not finished: 408 (RFC 9110, 15.5.9).
    TooSlow,
    /// It takes nothing of what it is sent.
    Stalled,
}

fn verdict(watched: &Watched, now: u64, settings: &Settings) -> Option<End> {
    let spent = now.saturating_sub(watched.since());
    let over = |limit: Duration| !limit.is_zero() && spent > limit.as_millis() as u64;
    match watched.stage() {
        Stage::Handshake => over(settings.handshake_timeout).then_some(End::Unsecured),
        // Nothing more is expected of a client before it has what it is sent.
        Stage::Idle | Stage::Head if watched.stall.is_on() => None,
        Stage::New => over(settings.header_timeout).then_some(End::Silent),
        Stage::Idle => over(settings.keepalive).then_some(End::Silent),
        Stage::Head => over(settings.header_timeout).then_some(End::TooSlow),
        Stage::Body => {
            let bytes = watched.body_bytes.load(Ordering::Relaxed);
            let due = spent.saturating_mul(settings.min_body_rate) / 1000;
            let slow = over(settings.body_timeout) && bytes < due;
            (slow && watched.body_awaited.load(Ordering::Relaxed)).then_some(End::TooSlow)
        }
        // What is read away has a time of its own.
        Stage::Answer | Stage::Upgraded | Stage::Rest => None,
    }
}

fn carry_out(watched: &Arc<Watched>, end: End) {
    match end {
        End::TooSlow if watched.is_stream() => http2::cut(watched),
        End::Stalled if watched.is_stream() => http2::give_up(watched),
        // What came since the last look is served first.
        End::Silent if watched.stream.lock().has_unread() => {}
        End::Silent | End::TooSlow if watched.session.get().is_some() => http2::end(watched, end),
        End::Stalled if watched.session.get().is_some() && !watched.stall.is_on() => http2::end(watched, end),
        End::Silent => {
            tls::say_goodbye(&watched.stream);
            watched.abort();
        }
        End::Unsecured => {
            tls::fail(watched, "handshake_timeout");
            watched.abort();
        }
        End::TooSlow => {
            watched.floor.seat.tally.cut(if watched.stage() == Stage::Head {
                Slow::Head
            } else {
                Slow::Body
            });
            if !watched.answering.load(Ordering::Relaxed) {
                let _ = watched.stream.lock().try_write(TOO_SLOW);
                watched.is_late.store(true, Ordering::Relaxed);
                if watched.stage() == Stage::Head {
                    watched.floor.log_unread(watched, StatusCode::REQUEST_TIMEOUT);
                }
            }
            watched.abort();
            let stream = watched.stream.clone();
            tokio::spawn(async move { linger(&stream).await });
        }
        End::Stalled => {
            watched.floor.seat.tally.cut(Slow::Answer);
            let peer = watched.peer().map_or_else(|| "-".to_owned(), |peer| peer.to_string());
            log::debug!("client took nothing and was cut off peer={peer}");
            stall::give_up(&watched.stream.lock(), watched.stage() == Stage::Upgraded);
            watched.abort();
        }
    }
}

fn tick(settings: &Settings) -> Duration {
    [
        settings.timeout,
        settings.keepalive,
        settings.header_timeout,
        settings.body_timeout,
        settings.send_timeout,
        settings.handshake_timeout,
    ]
    .into_iter()
    .filter(|timeout| !timeout.is_zero())
    .map(|timeout| timeout / 4)
    .fold(LONGEST_TICK, Duration::min)
    .max(SHORTEST_TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_timeouts_are_swept_oftener() {
        let tick_with = |timeout| tick(&Settings { timeout, ..Settings::default() });
        assert_eq!(tick_with(Duration::from_secs(30)), LONGEST_TICK);
        assert_eq!(tick_with(Duration::ZERO), LONGEST_TICK);
        assert_eq!(tick_with(Duration::from_millis(400)), Duration::from_millis(100));
        assert_eq!(tick_with(Duration::from_millis(4)), SHORTEST_TICK);
    }
}
