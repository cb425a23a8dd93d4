//! What the kernel says of another process, where it may be asked. Not here: shared memory.

use std::fs;
use std::time::Duration;

/// The kernel's unit of time in /proc/PID/stat, on all machines that the server runs on (proc(5), USER_HZ).
const TICKS_A_SECOND: f64 = 100.0;

/// What it uses. It costs the process nothing to be asked so.
#[derive(Debug)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    /// Memory that is there, and what of it no file backs: its heap and stacks.
    pub(super) resident_bytes: u64,
    pub(super) anonymous_bytes: u64,
}

/// `None` where it is gone, or hidden from this user.
pub(super) fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage {
        cpu: cpu(&stat)?,
        resident_bytes: bytes(&status, "VmRSS:")?,
        anonymous_bytes: bytes(&status, "RssAnon:")?,
    })
}

/// What of its memory is its own. To find that out costs: see `memory`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Each page that others have mapped, too, divided by how many have (PSS). The sum over processes is what they take together.
    pub(super) pss_bytes: u64,
    /// Pages that nobody else has mapped: what its end would give back.
    pub(super) private_bytes: u64,
}

/// `None` where it is gone, or where this user may not know: after a change of users the kernel hides it.
pub(super) fn share(pid: u32) -> Option<Share> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let private = ["Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"];
    Some(Share {
        pss_bytes: bytes(&rollup, "Pss:")?,
        private_bytes: private.into_iter().filter_map(|name| bytes(&rollup, name)).sum(),
    })
}

/// Its own time and the kernel's time for it: the fields 14 and 15. The name before them may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: Vec<f64> =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    Duration::try_from_secs_f64(ticks.iter().sum::<f64>() / TICKS_A_SECOND).ok().filter(|_| ticks.len() == 2)
}

fn bytes(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 25 11 12";
        assert_eq!(cpu(stat), Some(Duration::from_millis(1750)));
        assert_eq!(cpu("7 (a) S 1"), None);
        assert_eq!(bytes("VmSize:\t 9 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12_288));
        let own = usage(std::process::id()).unwrap();
        assert!(own.resident_bytes >= own.anonymous_bytes && own.anonymous_bytes > 0, "{own:?}");
        assert!(usage(u32::MAX).is_none());
    }
}
