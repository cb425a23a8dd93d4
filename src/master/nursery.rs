//! Workers that share what was loaded before them: one process for each generation loads it, and every worker of that
//! generation is forked from there, so that they have its memory in common until one of them writes to it.
//! Not here: what is loaded, and when a worker is wanted.
//!
//! The master stays clean: it sends the new worker's descriptors, and the worker says that it is there. Workers are the
//! master's children all the same: each is forked by a process that ends at once, and the kernel gives it to the master,
//! which is a subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)). fork(2) does that with the C library's knowledge, as a bare
//! clone(2) with CLONE_PARENT would not. A worker waits until the master has noted its pid, which the kernel vouches for.

use super::arbiter::{Generation, SlotId};
use super::process;
use super::{Post, Preload};
use crate::config::Settings;
use crate::logging;
use crate::scoreboard::Board;
use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, send, sendmsg,
    setsockopt, socketpair, sockopt,
};
use nix::unistd::Pid;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Instant;

/// The most descriptors that one message carries (SCM_MAX_FD, unix(7)).
const MAX_DESCRIPTORS: usize = 253;
/// What the nursery says when it has loaded; no slot has this number.
const LOADED: u32 = u32::MAX;
/// Added to a slot whose worker could not be forked.
const FAILED: u32 = 1 << 31;

/// A worker that was asked for and has not shown up.
struct Expected {
    slot: SlotId,
    /// Dropped, it tells the worker that nobody waits for it any more.
    leave: UnixStream,
    since: Instant,
    quiet: bool,
}

/// What the nursery and its workers say.
pub(super) enum News {
    Born(Born),
    NotForked(SlotId),
}

/// A worker that has shown up.
pub(super) struct Born {
    pub(super) slot: SlotId,
    pub(super) pid: Pid,
    pub(super) since: Instant,
    pub(super) quiet: bool,
    leave: UnixStream,
}

impl Born {
    /// The master has noted the pid: the worker may begin.
    pub(super) fn let_begin(mut self) {
        // One that has died meanwhile is reaped.
        let _ = self.leave.write(b"g");
    }
}

/// The master's side.
pub(super) struct Nursery {
    generation: Generation,
    link: OwnedFd,
    is_loaded: bool,
    /// Wanted, and to be asked for when it has loaded.
    waiting: Vec<(SlotId, Instant, bool)>,
    expected: Vec<Expected>,
}

/// What a worker needs from the master.
pub(super) struct Outfit {
    pub(super) listeners: Vec<OwnedFd>,
    pub(super) offers: Option<UnixDatagram>,
    pub(super) bell: UnixStream,
    pub(super) is_on_trial: bool,
}

impl Nursery {
    /// The two ends; the second is for the nursery's process.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(super) fn pair(generation: Generation) -> io::Result<(Nursery, OwnedFd)> {
        // Whole messages, and an end that is noticed.
        let (link, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        setsockopt(&link, sockopt::PassCred, &true)?;
        Ok((
            Nursery { generation, link, is_loaded: false, waiting: Vec::new(), expected: Vec::new() },
            theirs,
        ))
    }

    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// For when it has loaded.
    pub(super) fn wait_for(&mut self, slot: SlotId, since: Instant, quiet: bool) {
        self.waiting.push((slot, since, quiet));
    }

    pub(super) fn take_waiting(&mut self) -> Vec<(SlotId, Instant, bool)> {
        std::mem::take(&mut self.waiting)
    }

    /// Asks for a worker.
    ///
    /// # Errors
    /// When the nursery does not take requests any more.
    pub(super) fn ask(
        &mut self,
        slot: SlotId,
        since: Instant,
        quiet: bool,
        outfit: &Outfit,
    ) -> io::Result<()> {
        let (leave, theirs) = UnixStream::pair()?;
        let offers = outfit.offers.as_ref().map(AsRawFd::as_raw_fd);
        let mut fds: Vec<RawFd> = vec![theirs.as_raw_fd(), outfit.bell.as_raw_fd()];
        fds.extend(offers);
        fds.extend(outfit.listeners.iter().map(AsRawFd::as_raw_fd));
        if fds.len() > MAX_DESCRIPTORS {
            return Err(io::Error::new(ErrorKind::InvalidInput, "more listeners than one message carries"));
        }
        let mut message = slot.to_le_bytes().to_vec();
        message.push(u8::from(offers.is_some()));
        message.push(u8::from(outfit.is_on_trial));
        let rights = [ControlMessage::ScmRights(&fds)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.link.as_raw_fd(), &[IoSlice::new(&message)], &rights, flags, None)?;
        self.expected.push(Expected { slot, leave, since, quiet });
        Ok(())
    }

    /// What is new since this was last asked. It may also have loaded.
    pub(super) fn hear(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        while let Some((word, pid)) = heard(self.link.as_fd()) {
            if word == LOADED {
                self.is_loaded = true;
                continue;
            }
            let slot = word & !FAILED;
            // One that comes too late finds that nobody waits, and leaves.
            let Some(at) = self.expected.iter().position(|expected| expected.slot == slot) else { continue };
            let Expected { slot, leave, since, quiet } = self.expected.swap_remove(at);
            news.push(if word == slot {
                News::Born(Born { slot, pid, since, quiet, leave })
            } else {
                News::NotForked(slot)
            });
        }
        news
    }

    /// Nobody waits for this worker any more; false where nobody did.
    pub(super) fn forget(&mut self, slot: SlotId) -> bool {
        let before = self.waiting.len() + self.expected.len();
        self.waiting.retain(|(waiting, ..)| *waiting != slot);
        self.expected.retain(|expected| expected.slot != slot);
        self.waiting.len() + self.expected.len() < before
    }

    /// Everybody that somebody waits for.
    pub(super) fn unborn(&self) -> Vec<SlotId> {
        let waiting = self.waiting.iter().map(|(slot, ..)| *slot);
        waiting.chain(self.expected.iter().map(|expected| expected.slot)).collect()
    }
}

impl AsFd for Nursery {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// A word and the process that sent it.
fn heard(link: BorrowedFd<'_>) -> Option<(u32, Pid)> {
    let mut word = [0; 4];
    let mut bytes = [IoSliceMut::new(&mut word)];
    let mut space = cmsg_space!(nix::libc::ucred);
    let message =
        recvmsg::<()>(link.as_raw_fd(), &mut bytes, Some(&mut space), MsgFlags::MSG_DONTWAIT).ok()?;
    let pid = message.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmCredentials(sender) => Some(Pid::from_raw(sender.pid())),
        _ => None,
    })?;
    Some((u32::from_le_bytes(word), pid))
}

/// The nursery's process: loads, then forks a worker for each request, until the master closes its end. `work` is a worker's
/// life. Returns the exit code, in the nursery and in each worker.
pub(super) fn tend(
    link: OwnedFd,
    master: Pid,
    settings: &Settings,
    board: Board,
    load: Preload<'_>,
    mut work: impl FnMut(Post) -> i32,
) -> i32 {
    logging::log_panics();
    // What the app starts is not to be patient; workers are, until they serve.
    process::be_prompt();
    let loaded = load(settings);
    process::be_patient();
    if let Err(error) = loaded {
        log::error!("preload failed error=\"{error}\"");
        return LOAD_FAILED;
    }
    if let Some(threads) = process::more_threads() {
        log::error!(
            "preload failed error=\"{threads} threads run behind it, which are lost in a fork: start them in the app\""
        );
        return LOAD_FAILED;
    }
    let mut link = say(&link, LOADED).then_some(link);
    while let Some(to_master) = &link
        && let Ok((slot, mut leave, outfit)) = asked(to_master.as_fd())
    {
        let born = process::fork_for(master, || {
            // The worker keeps neither line. Where the second has come to its end, nobody waits any more.
            let is_heard = link.take().is_some_and(|to_master| say(&to_master, slot));
            if !is_heard || !leave.read(&mut [0]).is_ok_and(|bytes| bytes > 0) {
                return 0;
            }
            drop(leave);
            let Outfit { listeners, offers, bell, is_on_trial } = outfit;
            work(Post { slot, settings: settings.clone(), board, listeners, offers, bell, is_on_trial })
        });
        if let Err(error) = born {
            log::error!("worker could not be forked slot={slot} error=\"{error}\"");
            let _ = link.as_ref().map(|to_master| say(to_master, slot | FAILED));
        }
    }
    0
}

/// False where the master has closed its end.
fn say(link: &OwnedFd, word: u32) -> bool {
    send(link.as_raw_fd(), &word.to_le_bytes(), MsgFlags::MSG_NOSIGNAL).is_ok()
}

/// The exit code of a nursery that has nothing to share.
const LOAD_FAILED: i32 = 1;

/// The next request of the master.
///
/// # Errors
/// `UnexpectedEof` where the master has closed its end.
fn asked(link: BorrowedFd<'_>) -> io::Result<(SlotId, UnixStream, Outfit)> {
    let mut word = [0; 6];
    let mut bytes = [IoSliceMut::new(&mut word)];
    let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let message = recvmsg::<()>(link.as_raw_fd(), &mut bytes, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let length = message.bytes;
    let rights = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let mut fds = rights.unwrap_or_default().into_iter().map(process::own);
    let [slot @ .., has_offers, is_on_trial] = word;
    let (leave, bell) = (fds.next(), fds.next());
    let offers = if has_offers == 1 { fds.next().map(UnixDatagram::from) } else { None };
    let listeners = fds.collect();
    match (leave, bell, length) {
        (Some(leave), Some(bell), 6) => {
            let outfit = Outfit { listeners, offers, bell: bell.into(), is_on_trial: is_on_trial == 1 };
            Ok((SlotId::from_le_bytes(slot), leave.into(), outfit))
        }
        (_, _, _) => Err(ErrorKind::UnexpectedEof.into()),
    }
}
