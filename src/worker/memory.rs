//! How much memory is this worker's alone, looked at now and then by a thread of its own: the kernel walks all pages to
//! tell it, about 40 ms for 1 GiB, which the event loop should not wait for. Not here: what follows from it.

use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Between two looks, unless a look took so long that a longer rest is due.
const PAUSE: Duration = Duration::from_secs(1);
/// A look is followed by a rest of this many times the processor's time that it took: at most half a hundredth of a core.
const REST: u32 = 200;
/// So many looks in a row must find too much: what is soon given back is no leak.
const LOOKS: u32 = 3;

/// Becomes true, for good, when the worker has held more than `limit` private bytes for a while.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn watch(limit: u64) -> io::Result<Arc<AtomicBool>> {
    let exceeded = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&exceeded);
    let watch = move || match until_exceeded(limit) {
        Ok(()) => told.store(true, Ordering::Relaxed),
        Err(error) => {
            log::error!("worker memory cannot be watched error=\"{error}\" setting=max_worker_memory")
        }
    };
    thread::Builder::new().name("memory".into()).spawn(watch)?;
    Ok(exceeded)
}

fn until_exceeded(limit: u64) -> io::Result<()> {
    let mut found = 0;
    while found < LOOKS {
        thread::sleep(PAUSE);
        let begin = time_spent();
        found = if exceeds(limit)? { found + 1 } else { 0 };
        thread::sleep((time_spent().saturating_sub(begin) * REST).saturating_sub(PAUSE));
    }
    Ok(())
}

/// The processor's time that this thread has had: on a busy machine a look takes long that costs little.
fn time_spent() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

/// All of the memory is quickly told, and only where that is too much is it worth asking what is private.
fn exceeds(limit: u64) -> io::Result<bool> {
    let all = sum("/proc/self/status", &["VmRSS:", "HugetlbPages:"])?;
    Ok(all > limit && private_bytes()? > limit)
}

/// What the process would give back if it ended: pages that no other process has mapped too.
fn private_bytes() -> io::Result<u64> {
    sum("/proc/self/smaps_rollup", &["Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"])
}

/// The sum of the fields, which proc(5) gives in KiB.
fn sum(file: &str, names: &[&str]) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    let kib = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|name| names.contains(name))?;
        words.next()?.parse::<u64>().ok()
    });
    Ok(kib.sum::<u64>() * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_is_told() {
        // So much that what other tests of this process take or give back meanwhile is little beside it.
        const BYTES: usize = 256 * 1024 * 1024;
        let before = private_bytes().unwrap();
        assert!(before > 100_000, "{before}");
        let held = vec![1_u8; BYTES];
        let grown = private_bytes().unwrap() - before;
        assert!((BYTES as u64 * 3 / 4..BYTES as u64 * 2).contains(&grown), "{grown}");
        assert!(exceeds(BYTES as u64 * 3 / 4).unwrap());
        assert!(!exceeds(1 << 40).unwrap());
        assert!(sum("/proc/self/status", &["VmRSS:", "HugetlbPages:"]).unwrap() >= BYTES as u64);
        drop(held);
    }
}
