//! The children that live, by pid and by role; the only place that knows both. Not here: decisions.

use super::arbiter::{Event, Generation, Setup, SlotId};
use super::obituary::{Coroner, End};
use super::process::{self, Cause};
use crate::scoreboard::{Board, Phase, Seat};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What a child was forked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Worker(SlotId),
    Setup,
    /// It asks the database whether it has room for a reload's settings.
    Limit,
    /// The master that an upgrade has started.
    Successor,
    /// What a generation's workers are forked from.
    Nursery(Generation),
    /// It answers for the server; they are counted.
    Admin(u64),
    /// It hears what other servers invalidate, with the settings of this generation.
    Notify(Generation),
}

struct Member {
    role: Role,
    pid: Pid,
    since: Instant,
    seat: Option<&'static Seat>,
    /// What the seat showed when it was last looked at.
    phase: Phase,
    heartbeat: u64,
    /// The signal that was meant to end it, and why.
    sent: Option<(Signal, &'static str)>,
    quiet: bool,
}

pub(super) struct Crew {
    members: Vec<Member>,
    board: Board,
    coroner: Coroner,
    /// Nurseries that ended since this was last taken.
    pub(super) lost_nurseries: Vec<Generation>,
    /// What the database said, once it has been asked for a reload: whether it has room.
    pub(super) room: Option<bool>,
    /// How the new master of an upgrade ended, since this was last taken.
    pub(super) successor_end: Option<Cause>,
}

impl Crew {
    pub(super) fn new(board: Board) -> Crew {
        Crew {
            members: Vec::new(),
            board,
            coroner: Coroner::new(board.deaths),
            lost_nurseries: Vec::new(),
            room: None,
            successor_end: None,
        }
    }

    pub(super) fn add(&mut self, role: Role, pid: Pid, since: Instant) {
        let (phase, heartbeat) = (Phase::Booting, 0);
        self.members.push(Member {
            role,
            pid,
            since,
            seat: None,
            phase,
            heartbeat,
            sent: None,
            quiet: false,
        });
    }

    /// A quiet one comes and goes without a line at `info`: the log has told of its like.
    pub(super) fn add_worker(
        &mut self,
        slot: SlotId,
        pid: Pid,
        since: Instant,
        seat: &'static Seat,
        quiet: bool,
    ) {
        self.add(Role::Worker(slot), pid, since);
        if let Some(member) = self.members.last_mut() {
            member.seat = Some(seat);
            member.quiet = quiet;
        }
    }

    /// Sends a signal; to nobody, if the child has been reaped. A dead child that was not reaped yet keeps its pid.
    pub(super) fn send(&self, role: Role, signal: Signal) {
        if let Some(member) = self.members.iter().find(|member| member.role == role) {
            let _ = kill(member.pid, signal);
        }
    }

    /// Like `send`, with a signal that ends a worker; `why` is for its obituary.
    pub(super) fn end(&mut self, slot: SlotId, signal: Signal, why: &'static str) {
        let role = Role::Worker(slot);
        if let Some(member) = self.members.iter_mut().find(|member| member.role == role) {
            member.sent = Some((signal, why));
        }
        self.send(role, signal);
    }

    pub(super) fn pid(&self, role: Role) -> Option<Pid> {
        self.members.iter().find(|member| member.role == role).map(|member| member.pid)
    }

    pub(super) fn has_any_admin(&self) -> bool {
        self.members.iter().any(|member| matches!(member.role, Role::Admin(_)))
    }

    /// The nursery is not needed any more.
    pub(super) fn dismiss_nursery(&mut self, generation: Generation) {
        let role = Role::Nursery(generation);
        if let Some(member) = self.members.iter_mut().find(|member| member.role == role) {
            member.quiet = true;
        }
        self.send(role, Signal::SIGKILL);
    }

    pub(super) fn send_to_workers(&self, signal: Signal) {
        for member in self.members.iter().filter(|member| matches!(member.role, Role::Worker(_))) {
            let _ = kill(member.pid, signal);
        }
    }

    /// How many workers serve, by what the board showed last.
    pub(super) fn serving(&self) -> usize {
        let serves = |member: &&Member| matches!(member.phase, Phase::Serving | Phase::Retiring);
        self.members.iter().filter(serves).count()
    }

    /// The workers that serve, by what the board showed last.
    pub(super) fn serving_workers(&self) -> impl Iterator<Item = (SlotId, Pid)> {
        self.members.iter().filter_map(|member| match (member.role, member.phase) {
            (Role::Worker(slot), Phase::Serving | Phase::Retiring) => Some((slot, member.pid)),
            (_, Phase::Booting | Phase::Draining | Phase::Serving | Phase::Retiring) => None,
        })
    }

    pub(super) fn serves(&self, pid: Pid) -> bool {
        self.serving_workers().any(|(_, serving)| serving == pid)
    }

    /// Adds what changed on the board since the last look.
    pub(super) fn look_at_board(&mut self, learnt: &mut Vec<Event>) {
        for member in &mut self.members {
            let (Role::Worker(slot), Some(seat)) = (member.role, member.seat) else { continue };
            let phase = seat.phase();
            if phase != member.phase {
                if member.phase == Phase::Booting {
                    log::log!(
                        if member.quiet { log::Level::Debug } else { log::Level::Info },
                        "worker ready slot={slot} pid={} after={:.1?}",
                        member.pid,
                        member.since.elapsed()
                    );
                    learnt.push(Event::Ready(slot));
                }
                match phase {
                    Phase::Booting | Phase::Serving => {}
                    Phase::Retiring => learnt.push(Event::Retiring(slot)),
                    Phase::Draining => {
                        log::info!("worker draining slot={slot} pid={}", member.pid);
                        learnt.push(Event::Leaving(slot));
                    }
                }
                member.phase = phase;
            }
            let heartbeat = seat.heartbeat.load(Ordering::Relaxed);
            if heartbeat != member.heartbeat {
                member.heartbeat = heartbeat;
                learnt.push(Event::Beat(slot));
            }
        }
    }

    /// Takes in every child that has died, and says how. Strangers that process 1 inherits are only taken in.
    pub(super) fn reap(&mut self, learnt: &mut Vec<Event>) {
        while let Some((pid, cause)) = process::reap() {
            let Some(at) = self.members.iter().position(|member| member.pid == pid) else {
                log::debug!("stranger reaped pid={pid} cause=\"{cause}\"");
                continue;
            };
            let member = self.members.swap_remove(at);
            // Its connections may live on in the database for a moment.
            self.board.tokens.abandon(pid.as_raw() as u32);
            learnt.push(match member.role {
                Role::Worker(slot) => {
                    let Member { pid, since, sent, seat, quiet, .. } = member;
                    if let Some(seat) = seat {
                        let end = End { slot, pid, age: since.elapsed(), cause, sent, quiet };
                        let reason = self.coroner.report(&end, seat);
                        // The dead count for nobody's share.
                        self.board.vacate(seat, reason);
                    }
                    Event::Exited { slot, clean: cause == Cause::Code(0) }
                }
                Role::Setup => Event::SetUp(outcome(cause)),
                Role::Limit => {
                    self.room = Some(outcome(cause) != Setup::Wrong);
                    continue;
                }
                Role::Successor => {
                    log::warn!("new master exited pid={pid} cause=\"{cause}\"");
                    self.successor_end = Some(cause);
                    Event::SuccessorGone
                }
                Role::Nursery(generation) => {
                    log::log!(
                        if member.quiet { log::Level::Debug } else { log::Level::Warn },
                        "nursery exited generation={generation} pid={pid} cause=\"{cause}\""
                    );
                    self.lost_nurseries.push(generation);
                    continue;
                }
                role @ (Role::Admin(_) | Role::Notify(_)) => {
                    // One that was let go has done its work; another is the keeper's affair, not the arbiter's.
                    let level = if cause == Cause::Code(0) { log::Level::Debug } else { log::Level::Warn };
                    let name = if matches!(role, Role::Admin(_)) { "admin" } else { "notify" };
                    log::log!(level, "{name} exited pid={pid} cause=\"{cause}\"");
                    continue;
                }
            });
        }
    }
}

/// The exit code of the setup helper that stands for an outcome.
pub(super) fn exit_code(outcome: Setup) -> i32 {
    match outcome {
        Setup::Done => 0,
        Setup::Away => 75, // EX_TEMPFAIL, sysexits.h
        Setup::Wrong => 3,
    }
}

/// A helper that was killed or crashed says nothing about the script: worth another try.
fn outcome(cause: Cause) -> Setup {
    match cause {
        Cause::Code(code) if code == exit_code(Setup::Done) => Setup::Done,
        Cause::Code(code) if code == exit_code(Setup::Wrong) => Setup::Wrong,
        Cause::Code(_) | Cause::Signal { .. } => Setup::Away,
    }
}
