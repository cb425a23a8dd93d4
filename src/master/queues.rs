//! With `reuse_port`, a worker has queues of its own, one at each TCP address. This is the book of who serves which, and
//! what follows from it. Not here: how many workers there are (the arbiter), the sockets (`group`).
//!
//! The master makes the sockets and holds them all, so that a queue outlives its worker. Three rules keep what waits in
//! them from being lost: new connections are steered only to queues that a ready worker serves; what waits in another
//! is offered to whoever lives; and a queue is closed only when it has long been steered away from and empty.

use super::arbiter::{Event, Generation, SlotId};
use super::group::Group;
use super::upgrade::Kind;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// A queue in which something waits is offered this often, until a worker has emptied it.
const OFFER_EVERY: Duration = Duration::from_millis(100);
/// A queue that nobody serves is closed when it has been empty for this long. The kernel gives a handshake up after 63 s
/// (`tcp_synack_retries`, tcp(7)), so none is under way any more. To wait costs a descriptor.
const LINGER: Duration = Duration::from_secs(65);

/// All queues of all workers.
pub(super) struct Queues {
    groups: Vec<Group>,
    /// The first lane is the first socket of each group, and so on.
    lanes: Vec<Lane>,
    /// Where new connections go now.
    steered: Vec<usize>,
    yielded: bool,
    /// Where queues are offered; a worker that lives takes them at the other end.
    counter: (UnixDatagram, UnixDatagram),
}

/// What one worker serves: a queue at each address. While two generations overlap, two workers may serve it.
#[derive(Default)]
struct Lane {
    workers: Vec<Holder>,
    /// Since when nobody has served it and nothing waited in it.
    idle_since: Option<Instant>,
    offered: Option<Instant>,
}

/// A worker that serves a lane, or soon will. One that was told to leave is none.
struct Holder {
    slot: SlotId,
    generation: Generation,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Booting,
    Serving,
    Retiring,
}

impl Lane {
    fn is_served(&self) -> bool {
        self.workers.iter().any(|worker| worker.stage != Stage::Booting)
    }

    /// How many workers will still be here when `generation` has taken over, and how many there are.
    fn load(&self, generation: Generation) -> (usize, usize) {
        let stays = |worker: &&Holder| worker.generation >= generation && worker.stage != Stage::Retiring;
        (self.workers.iter().filter(stays).count(), self.workers.len())
    }
}

impl Queues {
    /// # Errors
    /// When there is no descriptor left.
    pub(super) fn new() -> io::Result<Queues> {
        let counter = UnixDatagram::pair()?;
        counter.0.set_nonblocking(true)?;
        counter.1.set_nonblocking(true)?;
        Ok(Queues { groups: Vec::new(), lanes: Vec::new(), steered: Vec::new(), yielded: false, counter })
    }

    /// Before any worker is there.
    pub(super) fn add(&mut self, group: Group) {
        let lanes = group.sockets().len();
        self.groups.push(group);
        self.lanes = (0..lanes).map(|_| Lane::default()).collect();
        self.steered = (0..lanes).collect();
    }

    /// While another master has the same sockets, it alone steers and closes.
    pub(super) fn yield_to_successor(&mut self, is_beside: bool) {
        self.yielded = is_beside;
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// All sockets, for a successor.
    pub(super) fn handed(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Kind)> {
        let sockets = self.groups.iter().flat_map(|group| group.sockets().iter().map(move |fd| (group, fd)));
        sockets.map(|(group, fd)| (fd.as_fd(), Kind::Queue(group.bind().clone())))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The queues for a new worker, of as many as are `wanted`: those that have the fewest, or new ones.
    ///
    /// # Errors
    /// When the system has no socket to give.
    pub(super) fn assign(
        &mut self,
        slot: SlotId,
        generation: Generation,
        wanted: u32,
    ) -> io::Result<Vec<OwnedFd>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let lanes = self.lanes.iter().enumerate();
        let fewest = lanes.min_by_key(|(_, lane)| lane.load(generation)).map_or(0, |(at, _)| at);
        let at = if self.lanes[fewest].workers.is_empty() || self.lanes.len() >= wanted as usize {
            fewest
        } else {
            self.grow()?
        };
        let fds = self.groups.iter().map(|group| group.share(at)).collect::<io::Result<_>>()?;
        self.lanes[at].workers.push(Holder { slot, generation, stage: Stage::Booting });
        Ok(fds)
    }

    /// The end at which workers take what is offered.
    pub(super) fn workers_end(&self) -> io::Result<Option<UnixDatagram>> {
        if self.is_empty() { Ok(None) } else { self.counter.1.try_clone().map(Some) }
    }

    /// Notes what is known of a worker.
    pub(super) fn observe(&mut self, event: Event) {
        match event {
            Event::Ready(slot) => self.enter(slot, Stage::Serving),
            Event::Retiring(slot) => self.enter(slot, Stage::Retiring),
            Event::SpawnFailed(slot) | Event::Leaving(slot) | Event::Exited { slot, .. } => self.leave(slot),
            Event::Reload | Event::Grow | Event::Shrink | Event::Resize(_) | Event::Drain | Event::Halt => {}
            Event::Upgrade | Event::Rest | Event::SuccessorReady | Event::SuccessorGone => {}
            Event::Reread(_) | Event::Beat(_) | Event::SetUp(_) => {}
        }
    }

    fn enter(&mut self, slot: SlotId, stage: Stage) {
        let mut workers = self.lanes.iter_mut().flat_map(|lane| &mut lane.workers);
        if let Some(worker) = workers.find(|worker| worker.slot == slot) {
            worker.stage = stage;
        }
    }

    /// The worker is told to leave, or has left.
    pub(super) fn leave(&mut self, slot: SlotId) {
        self.lanes.iter_mut().for_each(|lane| lane.workers.retain(|worker| worker.slot != slot));
    }

    /// Steers, offers and closes as the rules say.
    pub(super) fn tend(&mut self, wanted: u32, now: Instant) {
        if self.yielded {
            return;
        }
        self.steer();
        if !self.lanes.iter().any(Lane::is_served) {
            return;
        }
        for at in 0..self.lanes.len() {
            if self.lanes[at].is_served() {
                self.lanes[at].idle_since = None;
            } else if self.groups.iter().any(|group| group.has_waiting(at)) {
                self.lanes[at].idle_since = None;
                if self.lanes[at].offered.is_none_or(|offered| now >= offered + OFFER_EVERY) {
                    self.lanes[at].offered = Some(now);
                    self.offer(at);
                }
            } else {
                self.lanes[at].idle_since.get_or_insert(now);
            }
        }
        self.close_the_idle(wanted, now);
    }

    /// When to tend again if nothing happens.
    pub(super) fn next_deadline(&self, wanted: u32, now: Instant) -> Option<Instant> {
        let too_many = self.lanes.len() > wanted as usize;
        let deadline = |lane: &Lane| {
            let close = lane.idle_since.filter(|_| too_many && lane.workers.is_empty());
            let offer = lane.offered.filter(|_| !lane.is_served()).map(|offered| offered + OFFER_EVERY);
            close.map(|since| since + LINGER).into_iter().chain(offer.filter(|offer| *offer > now)).min()
        };
        self.lanes.iter().filter_map(deadline).min()
    }

    /// Queues that nobody serves, to be woken by what comes there.
    pub(super) fn unserved(&self, now: Instant) -> Vec<BorrowedFd<'_>> {
        if self.yielded || !self.lanes.iter().any(Lane::is_served) {
            return Vec::new();
        }
        let waits = |lane: &Lane| {
            !lane.is_served() && lane.offered.is_none_or(|offered| now >= offered + OFFER_EVERY)
        };
        let lanes = self.lanes.iter().enumerate().filter(|(_, lane)| waits(lane));
        lanes.flat_map(|(at, _)| self.groups.iter().map(move |group| group.socket(at))).collect()
    }

    /// The server stops: a last offer of what nobody serves, and the master's copies close.
    pub(super) fn stop(&mut self) {
        (0..self.lanes.len()).filter(|at| !self.lanes[*at].is_served()).for_each(|at| self.offer(at));
        self.clear();
    }

    /// For a child: closes its copies, and nobody else's.
    pub(super) fn clear(&mut self) {
        self.groups.clear();
        self.lanes.clear();
    }

    pub(super) fn set_backlog(&mut self, backlog: u32) {
        for group in &mut self.groups {
            if let Err(error) = group.set_backlog(backlog) {
                log::error!("backlog could not be set on={group} error=\"{error}\"");
            }
        }
    }

    fn grow(&mut self) -> io::Result<usize> {
        let at = self.lanes.len();
        for done in 0..self.groups.len() {
            if let Err(error) = self.groups[done].grow() {
                self.groups[..done].iter_mut().for_each(|group| group.close(at));
                return Err(error);
            }
        }
        self.lanes.push(Lane::default());
        Ok(at)
    }

    /// New connections go where a ready worker is; where there is none at all, to where they went before.
    fn steer(&mut self) {
        let lanes = self.lanes.iter().enumerate();
        let served: Vec<usize> = lanes.filter(|(_, lane)| lane.is_served()).map(|(at, _)| at).collect();
        if served.is_empty() || served == self.steered {
            return;
        }
        for group in &self.groups {
            if let Err(error) = group.steer(&served) {
                // What goes astray is offered.
                log::error!("connections could not be steered on={group} error=\"{error}\"");
            }
        }
        self.steered = served;
    }

    /// Whoever takes it accepts what waits there. A full counter means that nobody has looked yet.
    fn offer(&self, at: usize) {
        for group in self.groups.iter().filter(|group| group.has_waiting(at)) {
            let fds = [group.socket(at).as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&fds)];
            let sent = sendmsg::<()>(
                self.counter.0.as_raw_fd(),
                &[IoSlice::new(&[0])],
                &rights,
                MsgFlags::MSG_DONTWAIT,
                None,
            );
            log::debug!("queue offered on={group} lane={at} taken_on={}", sent.is_ok());
        }
    }

    fn close_the_idle(&mut self, wanted: u32, now: Instant) {
        let mut at = self.lanes.len();
        while at > 0 && self.lanes.len() > wanted as usize {
            at -= 1;
            let lane = &self.lanes[at];
            if lane.workers.is_empty() && lane.idle_since.is_some_and(|since| now >= since + LINGER) {
                // The last one takes its place, in the groups and here.
                self.groups.iter_mut().for_each(|group| group.close(at));
                self.lanes.swap_remove(at);
                self.steered.clear();
                self.steer();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::listener::receive;
    use std::io::Write;
    use std::net::TcpStream;

    const SECOND: Duration = Duration::from_secs(1);

    fn queues() -> Queues {
        let mut queues = Queues::new().unwrap();
        queues.add(Group::open("127.0.0.1", 0, 64).unwrap());
        queues.add(Group::open("127.0.0.1", 0, 64).unwrap());
        queues
    }

    /// Which slots serve each lane.
    fn book(queues: &Queues) -> Vec<Vec<SlotId>> {
        let slots = |lane: &Lane| lane.workers.iter().map(|worker| worker.slot).collect();
        queues.lanes.iter().map(slots).collect()
    }

    fn start(queues: &mut Queues, slot: SlotId, generation: Generation, wanted: u32) {
        assert_eq!(queues.assign(slot, generation, wanted).unwrap().len(), 2, "one at each address");
        queues.observe(Event::Ready(slot));
    }

    /// Whether something is offered.
    fn is_offered(queues: &Queues) -> bool {
        receive(queues.counter.1.as_fd()).is_ok()
    }

    /// Has a connection wait in this lane.
    fn connect(queues: &Queues, lane: usize) -> TcpStream {
        queues.groups[1].steer(&[lane]).unwrap();
        let mut client = TcpStream::connect(queues.groups[1].to_string()).unwrap();
        client.write_all(b"x").unwrap();
        let until = Instant::now() + SECOND * 5;
        while !queues.groups[1].has_waiting(lane) {
            assert!(Instant::now() < until, "it went elsewhere");
        }
        client
    }

    #[test]
    fn each_worker_gets_a_lane_and_a_successor_that_of_its_predecessor() {
        let mut queues = queues();
        start(&mut queues, 0, 1, 2);
        start(&mut queues, 1, 1, 2);
        assert_eq!(book(&queues), [[0], [1]]);
        // A death, and a start in its place.
        queues.observe(Event::Exited { slot: 1, clean: false });
        start(&mut queues, 1, 1, 2);
        assert_eq!(book(&queues), [[0], [1]]);
        // A reload: each newcomer takes over from an old one, whichever leaves first.
        start(&mut queues, 2, 2, 2);
        queues.leave(1);
        start(&mut queues, 3, 2, 2);
        queues.leave(0);
        assert_eq!(book(&queues), [[2], [3]]);
        // One that retires is succeeded where it is.
        queues.observe(Event::Retiring(3));
        start(&mut queues, 0, 2, 2);
        assert_eq!(book(&queues), [vec![2], vec![3, 0]]);
        queues.leave(3);
        // A reload to more.
        start(&mut queues, 5, 3, 2);
        for slot in [6, 7, 8] {
            start(&mut queues, slot, 3, 4);
        }
        queues.leave(2);
        queues.leave(0);
        let mut workers: Vec<usize> = book(&queues).iter().map(Vec::len).collect();
        workers.sort_unstable();
        assert_eq!(workers, [1, 1, 1, 1]);
    }

    #[test]
    fn connections_are_steered_to_ready_workers_and_what_waits_elsewhere_is_offered() {
        let (mut queues, now) = (queues(), Instant::now());
        start(&mut queues, 0, 1, 2);
        queues.assign(1, 1, 2).unwrap();
        queues.tend(2, now);
        assert_eq!(queues.steered, [0], "slot 1 is not ready");
        queues.observe(Event::Ready(1));
        queues.tend(2, now);
        assert_eq!(queues.steered, [0, 1]);
        queues.leave(0);
        queues.tend(2, now);
        assert_eq!(queues.steered, [1]);
        assert!(!is_offered(&queues), "nothing waits there");
        assert_eq!(queues.unserved(now).len(), 2, "it is watched");

        // A handshake that began before ends there.
        let _late = connect(&queues, 0);
        queues.tend(2, now);
        assert!(is_offered(&queues) && !is_offered(&queues), "once");
        assert!(queues.unserved(now).is_empty(), "not to be woken again at once");
        assert_eq!(queues.next_deadline(2, now), Some(now + OFFER_EVERY));
        queues.tend(2, now + OFFER_EVERY / 2);
        assert!(!is_offered(&queues));
        queues.tend(2, now + OFFER_EVERY);
        assert!(is_offered(&queues), "until it is taken");
    }

    #[test]
    fn a_lane_is_closed_when_it_was_empty_for_long_and_is_too_many() {
        let (mut queues, now) = (queues(), Instant::now());
        for slot in 0..3 {
            start(&mut queues, slot, 1, 3);
        }
        queues.tend(3, now);
        queues.leave(0);
        queues.tend(3, now);
        queues.tend(3, now + LINGER);
        assert_eq!(queues.lanes.len(), 3, "slot 0 will be back");
        assert_eq!(queues.next_deadline(3, now), None);
        assert_eq!(queues.next_deadline(2, now), Some(now + LINGER));

        let _late = connect(&queues, 0);
        queues.tend(2, now + LINGER);
        assert_eq!(queues.lanes.len(), 3, "something waits");
        drop(receive(queues.counter.1.as_fd()).map(std::net::TcpListener::from).unwrap().accept());
        queues.tend(2, now + LINGER + SECOND);
        queues.tend(2, now + LINGER + LINGER);
        assert_eq!(queues.lanes.len(), 3, "it was empty for too short a time");
        queues.tend(2, now + LINGER + SECOND + LINGER);
        assert_eq!(book(&queues), [[2], [1]], "the last takes its place");
        assert_eq!(queues.steered, [0, 1]);
        // And a new one comes last.
        start(&mut queues, 0, 1, 3);
        assert_eq!(book(&queues), [[2], [1], [0]]);
    }

    #[test]
    fn nothing_is_offered_or_closed_while_nobody_serves() {
        let (mut queues, now) = (queues(), Instant::now());
        start(&mut queues, 0, 1, 1);
        queues.leave(0);
        let _waiting = connect(&queues, 0);
        queues.tend(1, now);
        assert!(!is_offered(&queues) && queues.unserved(now).is_empty());
        queues.stop();
        assert!(is_offered(&queues), "a last time, to those that are about to leave");
    }
}
