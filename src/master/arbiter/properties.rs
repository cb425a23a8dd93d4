//! What holds whatever happens: random wishes and mishaps in a pretend world of workers, and rules about every order.

use super::*;
use proptest::prelude::*;

const MAX_WORKERS: u32 = 4;
const LAME_SECONDS: u64 = 3;
const SLOTS: u32 = 2 * MAX_WORKERS;
/// Longer than any back-off and any timeout of the world.
const LONG: Duration = Duration::from_secs(40);

/// One thing that happens to the world.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Wish(Event),
    /// A worker in this slot, if there is one: becomes ready, dies, retires, begins to leave.
    Ready(u32),
    Dies(u32),
    Retires(u32),
    Leaves(u32),
    /// The settings, asked for, are read: this many workers, or refused.
    Read(Option<u32>),
    /// The other master, if there is one: it serves, or it ends.
    OtherServes,
    OtherEnds,
    /// Time passes, with the master awake or not.
    Wait(u64),
    Sleep(u64),
}

/// What the world has in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    Booting,
    Ready,
    Leaving,
}

/// The master that an upgrade has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    Absent,
    Starting,
    Serving,
    /// It is killed, and about to end.
    Killed,
    /// The server is its own.
    Reigning,
}

struct World {
    arbiter: Arbiter,
    now: Instant,
    workers: Vec<Option<(Worker, Generation)>>,
    asked_to_read: bool,
    killed: Vec<u32>,
    rejected: Vec<Generation>,
    other: Other,
    lame: bool,
    finished: Option<Ending>,
}

impl World {
    fn new(policy: Policy) -> World {
        let now = Instant::now();
        let arbiter = Arbiter::new(policy, MAX_WORKERS, SLOTS, false, now);
        let workers = vec![None; SLOTS as usize];
        let mut world = World {
            arbiter,
            now,
            workers,
            asked_to_read: false,
            killed: Vec::new(),
            rejected: Vec::new(),
            other: Other::Absent,
            lame: false,
            finished: None,
        };
        world.decide();
        world
    }

    fn serving(&self) -> usize {
        self.workers.iter().flatten().filter(|(worker, _)| *worker == Worker::Ready).count()
    }

    fn tell(&mut self, event: Event) {
        self.arbiter.observe(event, self.now);
    }

    fn decide(&mut self) {
        let served = self.serving();
        for order in self.arbiter.decide(self.now) {
            self.carry_out(order);
        }
        // Killed workers die at once in this world.
        for slot in std::mem::take(&mut self.killed) {
            self.tell(Event::Exited { slot, clean: false });
            self.decide();
        }
        if self.other == Other::Killed {
            self.end_the_other();
            self.decide();
        }
        if self.arbiter.stop.is_none() {
            let floor = served.min(self.arbiter.target());
            assert!(self.serving() >= floor, "our own orders took capacity: {served} to {}", self.serving());
        }
        assert!(self.arbiter.decide(self.now).is_empty(), "asked twice, ordered twice");
        if let Some(deadline) = self.arbiter.next_deadline() {
            assert!(deadline > self.now, "a deadline in the past");
        }
        let standing = self.workers.iter().flatten().filter(|(worker, _)| *worker != Worker::Leaving).count();
        assert!(standing <= 2 * MAX_WORKERS as usize);
    }

    fn carry_out(&mut self, order: Order) {
        assert_eq!(self.finished, None, "{order:?} after the end");
        match order {
            Order::Spawn { slot, generation, .. } => {
                let place = &mut self.workers[slot as usize];
                assert_eq!(*place, None, "spawned over a worker");
                assert!(!self.rejected.contains(&generation), "a rejected generation was spawned");
                *place = Some((Worker::Booting, generation));
            }
            Order::Drain { slot, .. } => {
                let worker = self.workers[slot as usize].as_mut().expect("drained nobody");
                assert_ne!(worker.0, Worker::Leaving, "drained twice");
                worker.0 = Worker::Leaving;
            }
            Order::Quit(slot) | Order::Abort { slot, .. } => {
                self.workers[slot as usize].as_mut().expect("signalled nobody").0 = Worker::Leaving;
            }
            Order::Kill { slot, .. } => {
                self.workers[slot as usize].take().expect("killed nobody");
                self.killed.push(slot);
            }
            Order::Reread => {
                assert_eq!(self.other, Other::Absent, "what was handed over would change");
                assert!(!self.lame, "a reload of a server that leaves");
                self.asked_to_read = true;
            }
            Order::Reject(generation, _) => self.rejected.push(generation),
            Order::Finish(ending) => {
                assert!(self.workers.iter().all(Option::is_none), "finished with workers left");
                self.finished = Some(ending);
            }
            Order::StartSuccessor => {
                assert_eq!(self.other, Other::Absent, "two successors");
                assert!(!self.asked_to_read && self.arbiter.trial.is_none(), "an upgrade amid a reload");
                assert!(!self.lame, "an upgrade of a server that leaves");
                self.other = Other::Starting;
            }
            Order::KillSuccessor(_) => {
                assert_eq!(self.other, Other::Starting, "killed though it serves");
                self.other = Other::Killed;
            }
            Order::HandOver => {
                assert_eq!(self.other, Other::Serving, "handed over to nobody");
                self.other = Other::Reigning;
            }
            Order::Say(Notice::Resting) => assert_eq!(self.other, Other::Serving, "nobody would serve"),
            Order::Say(Notice::LameDuck { .. }) => self.lame = true,
            Order::CloseListeners => {
                assert_ne!(self.other, Other::Serving, "a successor that does not know that it is alone");
            }
            Order::Adopt(_) | Order::Say(_) => {}
            Order::StartSetup | Order::KillSetup => unreachable!("this world has no setup"),
        }
    }

    fn happen(&mut self, happening: Happening) {
        if self.finished.is_some() {
            return;
        }
        match happening {
            Happening::Wish(event) => self.tell(event),
            Happening::Ready(slot) => {
                self.change(slot, Worker::Booting, Some(Worker::Ready), Event::Ready(slot))
            }
            Happening::Dies(slot) => {
                if self.workers[slot as usize].take().is_some() {
                    self.tell(Event::Exited { slot, clean: false });
                }
            }
            Happening::Retires(slot) => {
                self.change(slot, Worker::Ready, Some(Worker::Ready), Event::Retiring(slot))
            }
            Happening::Leaves(slot) => {
                self.change(slot, Worker::Ready, Some(Worker::Leaving), Event::Leaving(slot))
            }
            Happening::Read(workers) => {
                if std::mem::take(&mut self.asked_to_read) {
                    let like = self.arbiter.policy;
                    self.tell(Event::Reread(workers.map(|workers| Policy { workers, ..like })));
                }
            }
            Happening::OtherServes => {
                if self.other == Other::Starting {
                    self.other = Other::Serving;
                    self.tell(Event::SuccessorReady);
                }
            }
            Happening::OtherEnds => self.end_the_other(),
            Happening::Wait(ms) => self.pass(Duration::from_millis(ms), false),
            Happening::Sleep(ms) => self.now += Duration::from_millis(ms),
        }
        if self.finished.is_none() {
            self.decide();
        }
    }

    fn end_the_other(&mut self) {
        match self.other {
            Other::Starting | Other::Serving | Other::Killed => {
                self.other = Other::Absent;
                self.tell(Event::SuccessorGone);
            }
            Other::Absent | Other::Reigning => {}
        }
    }

    fn change(&mut self, slot: u32, from: Worker, to: Option<Worker>, event: Event) {
        if let Some((worker, generation)) = self.workers[slot as usize]
            && worker == from
        {
            self.workers[slot as usize] = to.map(|worker| (worker, generation));
            self.tell(event);
        }
    }

    /// Time as an awake master lives it. In a healthy world workers boot, and leave when told.
    fn pass(&mut self, time: Duration, healthy: bool) {
        let end = self.now + time;
        while self.finished.is_none() {
            self.beat();
            if healthy {
                self.recover();
            }
            self.decide();
            match self.arbiter.next_deadline().filter(|deadline| *deadline < end) {
                Some(deadline) if self.finished.is_none() => self.now = deadline,
                Some(_) | None => break,
            }
        }
        self.now = end;
    }

    fn beat(&mut self) {
        for slot in 0..SLOTS {
            if matches!(self.workers[slot as usize], Some((Worker::Ready, _))) {
                self.tell(Event::Beat(slot));
            }
        }
    }

    fn recover(&mut self) {
        for slot in 0..SLOTS {
            match self.workers[slot as usize].map(|(worker, _)| worker) {
                Some(Worker::Booting) => self.happen(Happening::Ready(slot)),
                Some(Worker::Leaving) => {
                    self.workers[slot as usize] = None;
                    self.tell(Event::Exited { slot, clean: true });
                }
                Some(Worker::Ready) | None => {}
            }
        }
        self.happen_read();
    }

    fn happen_read(&mut self) {
        if std::mem::take(&mut self.asked_to_read) {
            self.tell(Event::Reread(None));
        }
    }
}

fn policy(workers: u32) -> Policy {
    let timeout = Duration::from_secs(10);
    Policy {
        workers,
        timeout,
        graceful_timeout: timeout,
        boot_timeout: timeout,
        lame_duck: Duration::ZERO,
        upgrade_is_manual: false,
    }
}

/// With upgrades by hand or not, and a lame duck's time or none.
fn any_policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), prop_oneof![Just(0), Just(LAME_SECONDS)]).prop_map(|(upgrade_is_manual, seconds)| {
        Policy { upgrade_is_manual, lame_duck: Duration::from_secs(seconds), ..policy(2) }
    })
}

fn happening() -> impl Strategy<Value = Happening> {
    let slot = 0..SLOTS;
    prop_oneof![
        4 => slot.clone().prop_map(Happening::Ready),
        3 => slot.clone().prop_map(Happening::Dies),
        1 => slot.clone().prop_map(Happening::Retires),
        1 => slot.prop_map(Happening::Leaves),
        2 => Just(Happening::Wish(Event::Reload)),
        2 => (1..=MAX_WORKERS).prop_map(|workers| Happening::Read(Some(workers))),
        1 => Just(Happening::Read(None)),
        1 => Just(Happening::Wish(Event::Grow)),
        1 => Just(Happening::Wish(Event::Shrink)),
        1 => (0..=MAX_WORKERS + 1).prop_map(|workers| Happening::Wish(Event::Resize(workers))),
        1 => Just(Happening::Wish(Event::Upgrade)),
        1 => Just(Happening::Wish(Event::Rest)),
        1 => Just(Happening::OtherServes),
        1 => Just(Happening::OtherEnds),
        3 => (0..5000_u64).prop_map(Happening::Wait),
        1 => (0..60_000_u64).prop_map(Happening::Sleep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever happened, in a healthy world exactly the wanted workers of one generation serve, and nobody else lives. The
    /// upgrades are manual, so that this master is not the one that leaves.
    #[test]
    fn trouble_passes(happenings in prop::collection::vec(happening(), 0..60)) {
        let mut world = World::new(Policy { upgrade_is_manual: true, ..policy(2) });
        // A server that has once served never gives up.
        world.happen(Happening::Ready(0));
        for happening in happenings {
            world.happen(happening);
        }
        world.happen(Happening::OtherEnds);
        world.pass(LONG, true);
        // An upgrade that was put off may have begun now.
        world.happen(Happening::OtherEnds);
        world.pass(LONG, true);
        prop_assert_eq!(world.finished, None);
        let generation = world.arbiter.generation;
        let living: Vec<_> = world.workers.iter().flatten().copied().collect();
        prop_assert_eq!(living, vec![(Worker::Ready, generation); world.arbiter.wanted as usize]);
    }

    /// Whatever happened, a stop comes to its end in bounded time, even where nobody obeys.
    #[test]
    fn a_stop_ends(
        policy in any_policy(),
        happenings in prop::collection::vec(happening(), 0..40),
        halts in any::<bool>(),
        later in prop::collection::vec(happening(), 0..10),
    ) {
        let mut world = World::new(policy);
        for happening in happenings {
            world.happen(happening);
        }
        world.happen(Happening::Wish(if halts { Event::Halt } else { Event::Drain }));
        for happening in later {
            world.happen(happening);
        }
        let limit = if halts { Duration::from_secs(2) } else { Duration::from_secs(12 + LAME_SECONDS) };
        world.pass(limit, false);
        prop_assert!(world.finished.is_some());
    }

    /// A worker that is never silent is never aborted, and one in boot is never killed early, nor a successor, however long we
    /// slept.
    #[test]
    fn sleep_blames_nobody(sleeps in prop::collection::vec(0..600_000_u64, 1..8)) {
        let mut world = World::new(policy(2));
        for slot in 0..2 {
            world.happen(Happening::Ready(slot));
        }
        world.happen(Happening::Wish(Event::Upgrade));
        for sleep in sleeps {
            world.happen(Happening::Sleep(sleep));
            prop_assert_eq!(world.serving(), 2);
            world.happen(Happening::Wait(100));
            prop_assert_eq!(world.other, Other::Starting);
        }
        prop_assert_eq!(world.serving(), 2);
    }
}
