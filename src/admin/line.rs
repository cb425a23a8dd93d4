//! The line to the master, from the side of this process: wishes go out under a ticket, and what is told of a ticket goes to
//! whoever waits for it. Not here: who may wish.

use crate::control::{Ask, News, PACKET_BYTES, Told, What, Wish, Word};
use crate::logging;
use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixDatagram as StdLine;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::net::UnixDatagram;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// News of one wish that may wait for a slow client; what comes then is lost, and the client with it.
const NEWS_WAITING: usize = 64;

pub(super) struct Line {
    socket: UnixDatagram,
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    last_ticket: u32,
    waiting: HashMap<u32, Sender<News>>,
    /// Another process has taken this one's place: no more wishes.
    is_retired: bool,
}

/// Why a wish did not go out.
pub(super) enum Unsent {
    /// Another process takes wishes now.
    Retired,
    Lost(io::Error),
}

/// What the master wants of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Take no more.
    Retire,
    /// The line has ended.
    Leave,
}

impl Line {
    pub(super) fn new(socket: StdLine) -> io::Result<Line> {
        socket.set_nonblocking(true)?;
        Ok(Line { socket: UnixDatagram::from_std(socket)?, desk: Mutex::default() })
    }

    /// Sends a wish; what becomes of it comes to the receiver, whose end without an outcome says that the master is gone.
    pub(super) fn wish(&self, wish: Wish, wait: bool, uid: u32) -> Result<(u32, Receiver<News>), Unsent> {
        let mut desk = self.desk();
        if desk.is_retired {
            return Err(Unsent::Retired);
        }
        desk.last_ticket = desk.last_ticket.wrapping_add(1);
        let ticket = desk.last_ticket;
        let (sender, receiver) = channel(NEWS_WAITING);
        desk.waiting.insert(ticket, sender);
        let sent = self.socket.try_send(&Ask { ticket, uid, what: What::Wish { wish, wait } }.to_packet());
        if let Err(error) = sent {
            desk.waiting.remove(&ticket);
            return Err(Unsent::Lost(error));
        }
        Ok((ticket, receiver))
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&self, ticket: u32) {
        if self.desk().waiting.remove(&ticket).is_some() {
            // If it cannot be told, it learns it from the end of the line.
            let _ = self.socket.try_send(&Ask { ticket, uid: 0, what: What::Forget }.to_packet());
        }
    }

    /// Hands on what the master tells, until it wants something of this process.
    pub(super) async fn listen(&self) -> Turn {
        let mut packet = [0; PACKET_BYTES];
        loop {
            let word = match self.socket.recv(&mut packet).await {
                Ok(0) | Err(_) => None,
                Ok(bytes) => Word::from_packet(&packet[..bytes]),
            };
            match word {
                Some(Word::Reopen) => logging::reopen(),
                Some(Word::Told(told)) => self.hand_on(told),
                Some(Word::Retire) => {
                    self.desk().is_retired = true;
                    let _ =
                        self.socket.try_send(&Ask { ticket: 0, uid: 0, what: What::Farewell }.to_packet());
                    return Turn::Retire;
                }
                None => {
                    let mut desk = self.desk();
                    desk.is_retired = true;
                    desk.waiting.clear();
                    return Turn::Leave;
                }
            }
        }
    }

    fn hand_on(&self, Told { ticket, news }: Told) {
        let mut desk = self.desk();
        let is_outcome = matches!(news, News::Done(_) | News::Refused(_));
        if let Some(sender) = desk.waiting.get(&ticket)
            && (sender.try_send(news).is_err() || is_outcome)
        {
            desk.waiting.remove(&ticket);
        }
    }

    /// A panic elsewhere leaves nothing half-changed.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
