//! What makes the caches of all workers coherent: counters in shared memory, one for whatever hashes to it. Who changes
//! something moves its counter; who cached it before sees that. docs/caching.md says what this guarantees, and why.
//! Not here: what is cached.
//!
//! The table is a file in memory of its own, so that an upgrade can hand it on; what else two masters share lies in it,
//! too. A hash may differ from build to build,
//! so the table says whose hashes count. Whoever hashes otherwise serves nothing from its caches while that is so, and
//! moves everything where it would move one counter.

use super::tokens::Tokens;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;
use siphasher::sip::SipHasher13;
use std::hash::{Hash, Hasher};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is cached shares this many counters: with 10,000 entries a change costs on average 0.15 others a miss.
const SLOTS: usize = 1 << 16;
const MAGIC: u64 = u64::from_be_bytes(*b"ferrigen");
/// Of the form below.
const VERSION: u64 = 3;
/// How many counters there are of changes to a part of the others: few enough to note them all before a load.
const GROUPS: usize = 256;

#[repr(C, align(128))]
struct Table {
    magic: AtomicU64,
    version: AtomicU64,
    slots: AtomicU64,
    /// Whose hashes count.
    kin: AtomicU64,
    /// The generation of everything.
    all: AtomicU64,
    groups: Group,
    generations: Generation,
    tokens: Tokens,
}

/// On cache lines of their own, apart from the above.
#[repr(C, align(128))]
struct Generation([AtomicU64; SLOTS]);

#[repr(C, align(128))]
struct Group([AtomicU64; GROUPS]);

/// The group counters at one moment.
pub(crate) struct Moment(Box<[u64; GROUPS]>);

/// The number of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u16);

/// The table, as one process sees it. The mapping lives as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Generations {
    table: &'static Table,
    kin: u64,
}

impl Generations {
    /// A new table, and the file that it is in, which goes to a successor.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub(crate) fn make() -> io::Result<(Generations, OwnedFd)> {
        let file =
            memfd_create(c"ferricorn-generations", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        ftruncate(&file, size_of::<Table>() as i64)?;
        // Were it cut short, whoever looks at it would die.
        fcntl(&file, FcntlArg::F_ADD_SEALS(sealed() | SealFlag::F_SEAL_SEAL))?;
        let table = map(&file)?;
        table.magic.store(MAGIC, Ordering::Relaxed);
        table.version.store(VERSION, Ordering::Relaxed);
        table.slots.store(SLOTS as u64, Ordering::Relaxed);
        let kin = kin();
        table.kin.store(kin, Ordering::SeqCst);
        Ok((Generations { table, kin }, file))
    }

    /// The table of another master.
    ///
    /// # Errors
    /// When it is of another form; why, in words.
    pub(crate) fn adopt(file: &OwnedFd) -> Result<Generations, String> {
        let size = fstat(file).map_err(|error| error.to_string())?.st_size;
        if usize::try_from(size) != Ok(size_of::<Table>()) {
            return Err(format!("it has {size} bytes in place of {}", size_of::<Table>()));
        }
        let seals = fcntl(file, FcntlArg::F_GET_SEALS).map_err(|error| error.to_string())?;
        if !SealFlag::from_bits_retain(seals).contains(sealed()) {
            return Err("its size is not sealed".to_owned());
        }
        let table = map(file).map_err(|error| error.to_string())?;
        let form = [&table.magic, &table.version, &table.slots].map(|word| word.load(Ordering::Relaxed));
        if form != [MAGIC, VERSION, SLOTS as u64] {
            return Err(format!("it is of another form, version {}", form[1]));
        }
        Ok(Generations { table, kin: kin() })
    }

    /// Makes the hashes of this program count. Whoever hashes otherwise caches nothing from now on.
    /// To be called before the first worker that relies on it, and when the others are gone.
    pub(crate) fn claim(&self) {
        // First: what was cached before others ruled is not to be found when they no longer do.
        self.bump_all();
        self.table.kin.store(self.kin, Ordering::SeqCst);
    }

    /// Moves one counter: what was read before is not found again by anybody.
    pub(crate) fn bump(&self, slot: Slot) {
        // First: who sees the counter moved sees its group moved.
        self.group(slot).fetch_add(1, Ordering::SeqCst);
        self.counter(slot).fetch_add(1, Ordering::SeqCst);
        // After the change: others who rule by now may have read what was before.
        if !self.rules() {
            self.bump_all();
        }
    }

    /// Like `bump`, of everything.
    pub(crate) fn bump_all(&self) {
        self.table.all.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn generation(&self, slot: Slot) -> u64 {
        self.counter(slot).load(Ordering::Acquire)
    }

    /// To be called before a load of which it is not known yet what it will depend on.
    pub(crate) fn moment(&self) -> Moment {
        Moment(Box::new(std::array::from_fn(|group| self.table.groups.0[group].load(Ordering::Acquire))))
    }

    /// The generation that `slot` had at this moment; `None` where it may have moved since.
    pub(crate) fn generation_at(&self, moment: &Moment, slot: Slot) -> Option<u64> {
        // In this order: a move that the generation has in it shows in the group.
        let generation = self.generation(slot);
        let group = self.group(slot).load(Ordering::Acquire);
        (group == moment.0[slot.group()]).then_some(generation)
    }

    /// The generation of everything; `None` while the hashes of another program count.
    pub(crate) fn of_all(&self) -> Option<u64> {
        self.rules().then(|| self.table.all.load(Ordering::Acquire))
    }

    /// The same table, as a program sees it that hashes otherwise.
    #[cfg(test)]
    pub(crate) fn stranger(&self) -> Generations {
        Generations { kin: self.kin ^ 1, ..*self }
    }

    /// The tokens for connections to the database.
    pub(super) fn tokens(&self) -> &'static Tokens {
        &self.table.tokens
    }

    fn rules(&self) -> bool {
        self.table.kin.load(Ordering::SeqCst) == self.kin
    }

    fn counter(&self, slot: Slot) -> &AtomicU64 {
        &self.table.generations.0[usize::from(slot.0)]
    }

    fn group(&self, slot: Slot) -> &AtomicU64 {
        &self.table.groups.0[slot.group()]
    }
}

impl Slot {
    fn group(self) -> usize {
        usize::from(self.0) % GROUPS
    }
}

/// SipHash-1-3 with the key 0, the same in every process; of each key in turn.
#[derive(Clone, Copy, Default)]
pub(crate) struct SlotHasher(SipHasher13);

impl SlotHasher {
    /// Goes on from here.
    #[must_use]
    pub(crate) fn with(mut self, part: impl Hash) -> SlotHasher {
        part.hash(&mut self.0);
        self
    }

    pub(crate) fn slot(&self) -> Slot {
        Slot(self.0.finish() as u16)
    }
}

/// The size stays as it is.
fn sealed() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

fn map(file: &OwnedFd) -> io::Result<&'static Table> {
    let length = NonZeroUsize::new(size_of::<Table>()).expect("the table has a size");
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a fresh mapping touches no memory that is in use.
    let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file.as_fd(), 0)? };
    // SAFETY: the file is as long as a table and sealed at that, the mapping is page-aligned and never unmapped, and a
    // table is made of atomics only, for which any bits are valid.
    Ok(unsafe { start.cast::<Table>().as_ref() })
}

/// A number that two processes share only if they run the same file. What a key's `Hash` feeds to a hasher is the
/// program's own choice, and the compiler's, so that nothing less says that two of them hash alike.
fn kin() -> u64 {
    let mut hasher = SipHasher13::new();
    match std::fs::metadata("/proc/self/exe") {
        Ok(file) => {
            [file.dev(), file.ino(), file.size()].hash(&mut hasher);
            [file.mtime(), file.mtime_nsec()].hash(&mut hasher);
        }
        // Then nobody is kin.
        Err(_) => (std::process::id(), super::now_millis()).hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_moved_for_all_who_share_the_table() {
        let (ours, file) = Generations::make().unwrap();
        let theirs = Generations::adopt(&file).unwrap();
        let (one, other) = (SlotHasher::default().with("a").slot(), SlotHasher::default().with("b").slot());
        ours.bump(one);
        assert_eq!([one, other].map(|slot| theirs.generation(slot)), [1, 0]);
        assert_eq!(theirs.of_all(), Some(0));
        theirs.bump_all();
        assert_eq!(ours.of_all(), Some(1));
    }

    #[test]
    fn a_generation_of_an_earlier_moment_is_known_unless_it_may_have_moved_since() {
        let (table, _file) = Generations::make().unwrap();
        table.bump(Slot(7));
        let moment = table.moment();
        assert_eq!(table.generation_at(&moment, Slot(7)), Some(1));
        table.bump(Slot(8));
        assert_eq!(table.generation_at(&moment, Slot(7)), Some(1), "of another group");
        table.bump(Slot(7 + GROUPS as u16));
        assert_eq!(table.generation_at(&moment, Slot(7)), None, "of the same group");
        assert_eq!(table.generation_at(&table.moment(), Slot(7)), Some(1));
        assert_eq!(table.generation_at(&moment, Slot(8)), None, "moved itself");
    }

    #[test]
    fn who_hashes_otherwise_has_no_generation_and_moves_everything() {
        let (old, _file) = Generations::make().unwrap();
        let new = old.stranger();
        let slot = SlotHasher::default().with("a").slot();
        assert_eq!((old.of_all(), new.of_all()), (Some(0), None));
        new.claim();
        assert_eq!((old.of_all(), new.of_all()), (None, Some(1)));
        new.bump(slot);
        assert_eq!(new.of_all(), Some(1));
        old.bump(slot);
        assert_eq!(new.of_all(), Some(2), "one counter of the old ones could be any of the new ones");
        old.claim();
        assert_eq!((old.of_all(), new.of_all()), (Some(3), None));
    }

    #[test]
    fn a_table_of_another_form_is_not_taken() {
        let (table, file) = Generations::make().unwrap();
        assert!(ftruncate(&file, 0).is_err() && ftruncate(&file, 1 << 30).is_err(), "sealed");
        table.table.version.store(VERSION + 1, Ordering::Relaxed);
        assert_eq!(Generations::adopt(&file).err(), Some("it is of another form, version 4".to_owned()));
        let other = memfd_create(c"other", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        assert!(Generations::adopt(&other).is_err_and(|reason| reason.contains("0 bytes")));
        ftruncate(&other, size_of::<Table>() as i64).unwrap();
        assert_eq!(Generations::adopt(&other).err(), Some("its size is not sealed".to_owned()));
    }

    /// The hash is a promise from one process to the next; the value is that of another implementation of SipHash-1-3.
    #[test]
    fn the_hash_is_the_same_everywhere() {
        let mut hasher = SipHasher13::new();
        hasher.write(b"hello");
        assert_eq!(SlotHasher(hasher).slot(), Slot(hasher.finish() as u16));
        assert_eq!(hasher.finish(), 0xe2e7_7b41_cb4e_1f9e);
    }
}
