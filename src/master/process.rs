//! Forking, naming and reaping processes, and what they inherit. Every fork of the server goes through `fork`.
//! Not here: why.

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, getpid, getppid};
use std::ffi::CString;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

/// The longest command name that the kernel keeps (prctl(2), PR_SET_NAME).
const COMM_BYTES: usize = 15;

/// Where /proc cannot be read, descriptors are looked for up to this one.
const MAX_DESCRIPTORS_TRIED: RawFd = 65_536;

/// The exit code of a child whose work panicked.
pub(super) const PANICKED: i32 = 101;

/// Forks a child that does `work` and exits with what it returns. All signals are blocked in the child until it has
/// put up its own handlers and calls [`unblock_signals`]; it is killed when this process dies.
///
/// # Errors
/// When the kernel has no process or memory to give.
pub(crate) fn fork(work: impl FnOnce() -> i32) -> io::Result<Pid> {
    let master = getpid();
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: the master runs one thread, so the child finds every lock free and may run any code.
    let forked = unsafe { nix::unistd::fork() };
    if let Ok(ForkResult::Child) = forked {
        let code = match die_with(master) {
            Ok(()) => catch_unwind(AssertUnwindSafe(work)).unwrap_or(PANICKED),
            Err(_) => 0,
        };
        exit_now(code);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    match forked? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => unreachable!("the child has exited above"),
    }
}

/// From a child of `parent`: forks a sibling, which does `work` and exits with what it returns; it is killed when `parent`
/// dies. It is forked by a process that ends at once, and so goes to `parent`, which must be a subreaper.
///
/// # Errors
/// When the kernel has no process, memory or descriptor to give.
pub(crate) fn fork_for(parent: Pid, work: impl FnOnce() -> i32) -> io::Result<()> {
    let mut pipe = Some(io::pipe()?);
    let between = fork(|| {
        // SAFETY: this process has one thread, as its parent has.
        match unsafe { nix::unistd::fork() } {
            Ok(ForkResult::Child) => {
                let Some((mut wait, go)) = pipe.take() else { return 0 };
                drop(go);
                // It ends when our copy is the last: the process between has gone, and we are its parent's child.
                let _ = wait.read(&mut [0]);
                drop(wait);
                match die_with(parent) {
                    Ok(()) => work(),
                    Err(_) => 0,
                }
            }
            Ok(ForkResult::Parent { .. }) => 0,
            Err(error) => error as i32,
        }
    })?;
    match waitpid(between, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, error) => Err(io::Error::from_raw_os_error(error)),
        _ => Err(ErrorKind::Other.into()),
    }
}

/// Makes orphaned descendants this process's children (PR_SET_CHILD_SUBREAPER, prctl(2)).
pub(crate) fn adopt_orphans() -> nix::Result<()> {
    prctl::set_child_subreaper(true)
}

/// Whether it is our child, and has not been reaped.
pub(crate) fn is_child(pid: Pid) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(pid), look).is_ok()
}

/// How many threads run besides this one; `None` where it is alone.
pub(crate) fn more_threads() -> Option<usize> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    (threads > 1).then(|| threads - 1)
}

/// Starts another program, which goes on when this process dies. Of our descriptors it gets the standard ones and `keep`,
/// under the same numbers.
///
/// # Errors
/// What the system says, also where the program cannot be executed.
pub(crate) fn spawn_with(mut command: Command, keep: Vec<RawFd>) -> io::Result<Pid> {
    let keep_open = move || {
        be_prompt();
        for fd in &keep {
            // SAFETY: F_SETFD clears a flag, of any number; fcntl(2) may be called after a fork (signal-safety(7)).
            if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls and allocates nothing, as is asked for between fork and exec.
    let child = unsafe { command.pre_exec(keep_open) }.spawn()?;
    Ok(Pid::from_raw(child.id() as i32))
}

/// For a child that runs programs: what `command` starts is killed when the thread that starts it ends, and begins with every
/// signal at its default.
pub(crate) fn tie(command: &mut Command) {
    let (starter, last) = (getpid(), libc::SIGRTMAX());
    let begin = move || {
        for signal in 1..=last {
            // SAFETY: a default takes no code of ours; signal(2) may be called after a fork (signal-safety(7)). It refuses KILL,
            // STOP and what the C library keeps for itself.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(die_with(starter)?)
    };
    // SAFETY: the closure only makes system calls and allocates nothing, as is asked for between fork and exec. That no signal
    // is blocked is seen to by the standard library.
    unsafe { command.pre_exec(begin) };
}

/// Goes on in two processes, before there is a master: neither dies with the other.
///
/// # Errors
/// As [`fork`].
pub(crate) fn split() -> io::Result<ForkResult> {
    // SAFETY: the process runs one thread yet, so the child finds every lock free and may run any code.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// The slice of a patient thread; the usual one is a few milliseconds, and a longer one could have it wait as long.
const PATIENT_SLICE: Duration = Duration::from_millis(20);

/// From now on this thread, and what it forks or starts, lets those go first who serve: it still has its share of the core, but
/// whoever wakes with the usual slice interrupts it at once, in place of waiting for the end of its turn. For who starts, leaves
/// or only watches. It takes no privilege, but Linux 6.12 (EEVDF, sched(7)); an older one changes nothing.
pub(crate) fn be_patient() {
    reschedule(|usual| SchedAttr { runtime: PATIENT_SLICE.as_nanos() as u64, ..usual });
}

/// The opposite of [`be_patient`].
pub(crate) fn be_prompt() {
    reschedule(|usual| usual);
}

/// Has the calling thread wait, when it is woken, until whoever runs on its core sleeps or has had his time, rather than interrupt
/// him (SCHED_BATCH, sched(7)).
pub(crate) fn give_way() {
    reschedule(|usual| SchedAttr { policy: libc::SCHED_BATCH as u32, ..usual });
}

/// From the usual policy, with the usual slice: one that somebody chose stays. It never fails: what cannot be had is done without,
/// also where a sandbox forbids the call.
fn reschedule(change: impl FnOnce(SchedAttr) -> SchedAttr) {
    if let Some(attr) = scheduling().filter(|attr| attr.policy == libc::SCHED_OTHER as u32) {
        let attr = change(SchedAttr { runtime: 0, ..attr });
        // SAFETY: sched_setattr(2) reads as many bytes of the struct as it says that it has.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    }
}

/// How this thread is scheduled.
fn scheduling() -> Option<SchedAttr> {
    let size = size_of::<SchedAttr>() as u32;
    let mut attr = SchedAttr::default();
    // SAFETY: sched_getattr(2) writes at most `size` bytes.
    let outcome = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    (outcome == 0).then_some(SchedAttr { size, ..attr })
}

/// `struct sched_attr` in its first version (sched_setattr(2)).
#[derive(Default)]
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// The slice, where the policy is the usual one; zero is the usual one.
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Ends this process without running what the master left to be dropped or flushed.
pub(crate) fn exit_now(code: i32) -> ! {
    #[cfg(ferricorn_pgo)]
    write_profile();
    // SAFETY: _exit(2) takes any number and never returns.
    unsafe { libc::_exit(code) }
}

/// What the compiler has this process count for a profile is otherwise written at exit(3) (docs/performance.md).
#[cfg(ferricorn_pgo)]
fn write_profile() {
    unsafe extern "C" {
        fn __llvm_profile_write_file() -> libc::c_int;
    }
    // SAFETY: it is linked in with `-Cprofile-generate`, takes nothing, and writes a file, as it would at exit.
    unsafe { __llvm_profile_write_file() };
}

/// Has the kernel kill this process when its parent dies, however that comes about (PR_SET_PDEATHSIG, prctl(2)).
/// To be set again after a change of user, which clears it.
pub(crate) fn die_with(master: Pid) -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the line above took effect.
    if getppid() == master { Ok(()) } else { Err(Errno::ESRCH) }
}

/// Whether this is process 1 of its namespace, whose end is everybody's.
pub(crate) fn is_first() -> bool {
    getpid() == Pid::from_raw(1)
}

/// Lets signals through again, once the handlers stand.
pub(crate) fn unblock_signals() {
    SigSet::all().thread_unblock().expect("the full set is valid");
}

/// Names this process for `ps -o comm` and `pgrep`: `name` is cut so that the role always fits.
pub(crate) fn set_comm(name: &str, role: &str) {
    let name = CString::new(comm(name, role)).expect("NUL bytes were taken out");
    prctl::set_name(&name).expect("a short name is always taken");
}

fn comm(name: &str, role: &str) -> String {
    let room = COMM_BYTES.saturating_sub(role.len() + 1);
    let mut end = name.len().min(room);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{role}", &name[..end]).replace('\0', "")
}

/// How a child ended, in words for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Code(i32),
    Signal { number: i32, core: bool },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Cause::Code(PANICKED) => write!(f, "exit code {PANICKED} (panicked)"),
            Cause::Code(code) => write!(f, "exit code {code}"),
            Cause::Signal { number, core } => {
                let suffix = if core { ", core written" } else { "" };
                match Signal::try_from(number) {
                    Ok(signal) => write!(f, "killed by {signal}{suffix}"),
                    Err(_) => write!(f, "killed by signal {number}{suffix}"),
                }
            }
        }
    }
}

/// Takes the next dead child off the kernel's hands, if there is one: ours, or, for process 1, anybody's.
pub(crate) fn reap() -> Option<(Pid, Cause)> {
    let mut status = 0;
    // SAFETY: waitpid(2) writes one int. nix's wrapper loses the pid where a real-time signal killed the child.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let cause = if libc::WIFEXITED(status) {
        Cause::Code(libc::WEXITSTATUS(status))
    } else {
        Cause::Signal { number: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
    };
    Some((Pid::from_raw(pid), cause))
}

/// The descriptors above the standard ones that came through an exec: those that are not close-on-exec, as everything is
/// that Rust opens.
pub(crate) fn inherited_descriptors() -> Vec<RawFd> {
    let is_inherited = |fd: &RawFd| {
        // SAFETY: F_GETFD reads a flag, of any number.
        let flags = unsafe { libc::fcntl(*fd, libc::F_GETFD) };
        *fd > libc::STDERR_FILENO && flags >= 0 && flags & libc::FD_CLOEXEC == 0
    };
    match std::fs::read_dir("/proc/self/fd") {
        Ok(entries) => {
            let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            numbers.filter(is_inherited).collect()
        }
        Err(_) => (0..MAX_DESCRIPTORS_TRIED).filter(is_inherited).collect(),
    }
}

pub(crate) fn close_on_exec(fd: RawFd) {
    // SAFETY: F_SETFD sets a flag, of any number; one that is not open is refused.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Makes a descriptor ours that came through an exec or in a message. Nobody else in this process may hold it.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: nothing in this program owns it yet; the caller takes each once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// For a child: closes its copies of inherited descriptors that nobody in this program owns.
pub(crate) fn close_all(fds: &[RawFd]) {
    for fd in fds {
        // SAFETY: as the caller says, no `OwnedFd` is behind the number.
        unsafe { libc::close(*fd) };
    }
}

/// Takes a variable out of the environment, so that no child sees it. One that is no text counts as none.
pub(crate) fn take_variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?;
    // SAFETY: it is called at start, while the process runs one thread, so that nobody reads the environment meanwhile.
    unsafe { std::env::remove_var(name) };
    value.into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_always_fits_the_command_name() {
        for (name, role, wanted) in [
            ("ferricorn", "master", "ferricor-master"),
            ("ferricorn", "w0", "ferricorn-w0"),
            ("ferricorn", "w511", "ferricorn-w511"),
            ("a-very-long-name", "w511", "a-very-lon-w511"),
            ("shop", "help", "shop-help"),
            ("naïveté-naïveté", "master", "naïvet-master"),
            ("ééééé", "master", "éééé-master"),
            ("", "w1", "-w1"),
        ] {
            assert_eq!(comm(name, role), wanted);
            assert!(comm(name, role).len() <= COMM_BYTES);
        }
    }

    #[test]
    fn patience_is_inherited_and_ends() {
        let slice = || scheduling().expect("every kernel since 3.14 knows it").runtime;
        let usual = slice();
        be_patient();
        let patient = slice();
        let inherited = std::thread::spawn(slice).join().unwrap();
        be_prompt();
        assert_eq!(slice(), usual);
        // An older kernel has no slices to ask for.
        let long = PATIENT_SLICE.as_nanos() as u64;
        assert!(
            [(usual, usual), (long, long)].contains(&(patient, inherited)),
            "{usual} {patient} {inherited}"
        );
    }

    #[test]
    fn a_cause_is_named() {
        for (cause, wanted) in [
            (Cause::Code(3), "exit code 3"),
            (Cause::Code(101), "exit code 101 (panicked)"),
            (Cause::Signal { number: libc::SIGSEGV, core: false }, "killed by SIGSEGV"),
            (Cause::Signal { number: libc::SIGABRT, core: true }, "killed by SIGABRT, core written"),
            (Cause::Signal { number: 40, core: false }, "killed by signal 40"),
        ] {
            assert_eq!(cause.to_string(), wanted);
        }
    }
}
