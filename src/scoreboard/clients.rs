//! How many connections each client's address has, over all workers: a table for each seat, which its worker alone writes, and
//! everybody may add up. So nothing is locked, and what a worker that died had counted goes with its seat.
//! Not here: which addresses count, and what becomes of one that has too many.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Addresses share a bucket by chance; one is a cache line.
const BUCKETS: usize = 512;
const PLACES: usize = 8;
/// An entry is the address's mark, and behind it how many connections it has. Zero: it is free.
const COUNT_BITS: u32 = 16;
const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;

/// What one worker has open.
#[repr(C, align(64))]
pub(crate) struct Clients {
    buckets: [[AtomicU64; PLACES]; BUCKETS],
}

/// An address, as far as two of them need to be told apart. Not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientMark(u64);

impl ClientMark {
    /// Whoever has an IPv6 address has all of its /64. Without the `key`, nobody can choose addresses that share a bucket.
    pub(super) fn of(addr: IpAddr, key: u64) -> ClientMark {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u64(key);
        match addr.to_canonical() {
            IpAddr::V4(addr) => hasher.write_u32(addr.to_bits()),
            IpAddr::V6(addr) => hasher.write_u64((addr.to_bits() >> 64) as u64),
        }
        ClientMark(hasher.finish() | 1 << COUNT_BITS)
    }

    /// For where it is kept between; 0 is none.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Option<ClientMark> {
        (bits != 0).then_some(ClientMark(bits))
    }

    fn tag(self) -> u64 {
        self.0 >> COUNT_BITS
    }

    fn bucket(self) -> usize {
        self.0 as usize % BUCKETS
    }
}

impl Default for Clients {
    fn default() -> Clients {
        Clients { buckets: std::array::from_fn(|_| Default::default()) }
    }
}

impl Clients {
    /// One connection more. False: the bucket is full of others, or the number is; then it is not counted.
    pub(crate) fn add(&self, mark: ClientMark) -> bool {
        let bucket = &self.buckets[mark.bucket()];
        let place = self.place(mark).or_else(|| bucket.iter().find(|entry| entry.load(SeqCst) == 0));
        let Some(entry) = place else { return false };
        let count = entry.load(SeqCst) & MAX_COUNT;
        if count < MAX_COUNT {
            entry.store(mark.tag() << COUNT_BITS | (count + 1), SeqCst);
        }
        count < MAX_COUNT
    }

    /// One connection less, that was counted.
    pub(crate) fn remove(&self, mark: ClientMark) {
        if let Some(entry) = self.place(mark) {
            let left = (entry.load(SeqCst) & MAX_COUNT).saturating_sub(1);
            entry.store(if left == 0 { 0 } else { mark.tag() << COUNT_BITS | left }, SeqCst);
        }
    }

    /// How many it has with this worker.
    pub(super) fn count(&self, mark: ClientMark) -> u64 {
        self.place(mark).map_or(0, |entry| entry.load(SeqCst) & MAX_COUNT)
    }

    pub(super) fn clear(&self) {
        self.buckets.iter().flatten().for_each(|entry| entry.store(0, SeqCst));
    }

    fn place(&self, mark: ClientMark) -> Option<&AtomicU64> {
        let is_its = |entry: &&AtomicU64| entry.load(SeqCst) >> COUNT_BITS == mark.tag();
        self.buckets[mark.bucket()].iter().find(is_its)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(addr: &str) -> ClientMark {
        ClientMark::of(addr.parse().unwrap(), 7)
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_a_mapped_address_is_what_it_maps() {
        let same = [("2001:db8::1", "2001:db8::ffff:1"), ("::ffff:192.0.2.1", "192.0.2.1")];
        let other = [("2001:db8::1", "2001:db8:0:1::1"), ("192.0.2.1", "192.0.2.2")];
        for (one, two) in same {
            assert_eq!(mark(one), mark(two));
        }
        for (one, two) in other {
            assert_ne!(mark(one), mark(two));
        }
        assert_ne!(ClientMark::of([192, 0, 2, 1].into(), 7), ClientMark::of([192, 0, 2, 1].into(), 8));
    }

    #[test]
    fn what_is_opened_and_closed_is_counted_and_nothing_is_left() {
        let table = Clients::default();
        let marks: Vec<ClientMark> = (0..1000_u32).map(|n| ClientMark::of(IpAddr::V4(n.into()), 7)).collect();
        let counted: Vec<usize> =
            marks.iter().map(|mark| (0..3).filter(|_| table.add(*mark)).count()).collect();
        // As many addresses as a worker has connections by default: all but a few find a place.
        assert!(counted.iter().filter(|count| **count == 3).count() > 990);
        for (mark, counted) in marks.iter().zip(&counted) {
            assert_eq!(table.count(*mark), *counted as u64);
            (0..*counted).for_each(|_| table.remove(*mark));
            assert_eq!(table.count(*mark), 0);
        }
        assert!(table.buckets.iter().flatten().all(|entry| entry.load(SeqCst) == 0));
        table.remove(marks[0]);
        assert_eq!(table.count(marks[0]), 0);
    }

    #[test]
    fn a_number_that_is_full_counts_no_further() {
        let table = Clients::default();
        let mark = mark("192.0.2.1");
        (0..MAX_COUNT).for_each(|_| assert!(table.add(mark)));
        assert!(!table.add(mark));
        assert_eq!(table.count(mark), MAX_COUNT);
        table.clear();
        assert_eq!(table.count(mark), 0);
    }
}
