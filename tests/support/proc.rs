//! What /proc says about processes. `kill(pid, 0)` also succeeds on a zombie, so liveness is read here.
//! Not here: anything that changes a process.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// The fields of /proc/PID/stat that the tests look at.
#[derive(Clone, Copy, Debug)]
struct Stat {
    state: char,
    parent: i32,
    group: i32,
}

/// True while the process runs; a zombie does not.
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// True while the process is stopped by a signal.
pub fn is_stopped(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.state == 'T')
}

/// The living children of `parent`, in the order of their pids.
pub fn children(parent: i32) -> Vec<i32> {
    let mut found: Vec<i32> = all()
        .into_iter()
        .filter(|&pid| {
            stat(pid).is_some_and(|stat| stat.parent == parent && !matches!(stat.state, 'Z' | 'X'))
        })
        .collect();
    found.sort_unstable();
    found
}

/// Children that have ended and that `parent` has not reaped.
pub fn zombies(parent: i32) -> Vec<i32> {
    all()
        .into_iter()
        .filter(|&pid| stat(pid).is_some_and(|stat| stat.parent == parent && stat.state == 'Z'))
        .collect()
}

/// Everybody in a process group: the living, and the zombies.
pub fn group(leader: i32) -> (Vec<i32>, Vec<i32>) {
    let members = all().into_iter().filter(|&pid| stat(pid).is_some_and(|stat| stat.group == leader));
    members.partition(|&pid| is_alive(pid))
}

/// Everybody below `root`, without `root`.
pub fn descendants(root: i32) -> Vec<i32> {
    let mut found = children(root);
    let mut next = 0;
    while next < found.len() {
        let more = children(found[next]);
        found.extend(more);
        next += 1;
    }
    found
}

/// The name that `ps` and `top` show, at most 15 bytes.
pub fn comm(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// What /proc/PID/task/TID has in a file for each living thread of the process.
fn of_threads(pid: i32, file: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| fs::read_to_string(thread.path().join(file)).ok()).collect()
}

/// The time that the living threads of the process were on a processor (/proc/PID/task/TID/schedstat).
pub fn cpu_time(pid: i32) -> Duration {
    let nanoseconds = |stat: &String| -> Option<u64> { stat.split(' ').next()?.parse().ok() };
    Duration::from_nanos(of_threads(pid, "schedstat").iter().filter_map(nanoseconds).sum())
}

/// The scheduling policy (sched(7)) of each living thread of the process, with the thread's name.
pub fn policies(pid: i32) -> Vec<(String, i32)> {
    let policy = |stat: &String| {
        // The name stands in brackets and may hold any; the 41st field is the policy (proc_pid_stat(5)).
        let (before, after) = stat.rsplit_once(") ")?;
        Some((before.split_once('(')?.1.to_owned(), after.split(' ').nth(38)?.parse().ok()?))
    };
    of_threads(pid, "stat").iter().filter_map(policy).collect()
}

/// A field of /proc/PID/smaps_rollup, in KiB.
pub fn memory_kib(pid: i32, field: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.split(':').next() == Some(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

/// How many files the process holds open.
pub fn open_files(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// What the open files of the process are, as `socket:[123]` or a path.
pub fn file_targets(pid: i32) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

/// Waits until one process holds as many files as the other, and no longer than `patience`.
#[track_caller]
pub fn assert_same_files(whose: &str, used: i32, fresh: i32, patience: Duration) {
    let begin = Instant::now();
    // A connection that was just closed may still be open at the server's side.
    while open_files(used) != open_files(fresh) && begin.elapsed() < patience {
        thread::sleep(Duration::from_millis(10));
    }
    let (used, fresh) = (file_targets(used), file_targets(fresh));
    assert_eq!(used.len(), fresh.len(), "{whose} holds {used:?}, and fresh {fresh:?}");
}

/// A field of /proc/PID/status, its words parted by single spaces.
pub fn status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap_or_default();
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The open files above the standard ones that would survive an exec, as `number: target`.
pub fn kept_on_exec(pid: i32) -> Vec<String> {
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let kept = entries.flatten().filter_map(|entry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
        let flags = u32::from_str_radix(flags, 8).ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        (number > 2 && flags & CLOSE_ON_EXEC == 0).then(|| format!("{number}: {}", target.display()))
    });
    kept.collect()
}

fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("Linux has /proc");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may itself hold spaces and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
    })
}
