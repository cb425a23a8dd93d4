//! What may be wished of the master through the admin process, how that comes out, and how both are written into packets of
//! the line between the two. Both enums are closed, every packet is short, and what cannot be read is `None`: the master
//! believes nothing that a child says but that it was said. Not here: who may wish (admin), what is done about it (master).

use log::LevelFilter;
use std::fmt;

/// The longest packet; text that would make it longer is cut.
pub(crate) const PACKET_BYTES: usize = 4096;
/// An answer's kind, its ticket and two numbers stand before its text.
const HEAD_BYTES: usize = 1 + 4 + 8 + 8;
const ASK_BYTES: usize = 1 + 1 + 4 + 4 + 4;

/// Something that an operator wants of the running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Reload,
    Upgrade,
    Scale(Scale),
    /// Another worker in the place of the one with this slot; `None`: of each, one after the other.
    Recycle(Option<u32>),
    /// After what is open; or at once.
    Stop {
        now: bool,
    },
    Reopen,
    Level(LevelFilter),
}

/// How many workers there should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    To(u32),
    Up(u32),
    Down(u32),
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Reload => f.write_str("reload"),
            Wish::Upgrade => f.write_str("upgrade"),
            Wish::Scale(Scale::To(workers)) => write!(f, "scale to={workers}"),
            Wish::Scale(Scale::Up(workers)) => write!(f, "scale by=+{workers}"),
            Wish::Scale(Scale::Down(workers)) => write!(f, "scale by=-{workers}"),
            Wish::Recycle(Some(slot)) => write!(f, "recycle slot={slot}"),
            Wish::Recycle(None) => f.write_str("recycle slot=all"),
            Wish::Stop { now } => write!(f, "stop now={now}"),
            Wish::Reopen => f.write_str("reopen"),
            Wish::Level(level) => write!(f, "loglevel level={}", level.as_str().to_ascii_lowercase()),
        }
    }
}

/// A wish on its way to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The admin process's own number for it, which the master only gives back.
    pub(crate) ticket: u32,
    /// Who wishes, for the log.
    pub(crate) uid: u32,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Wish {
        wish: Wish,
        /// Tell also what becomes of it.
        wait: bool,
    },
    /// Nobody waits for this ticket any more.
    Forget,
    /// Of a process that was told to retire: no more wishes come.
    Farewell,
}

/// What the master tells of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) ticket: u32,
    pub(crate) news: News,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It is done, or, where nobody waits, begun.
    Done(String),
    /// It is not done, and what was, goes on.
    Refused(String),
    Progress(Stage),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Something else has to end before.
    PutOff,
    /// The settings are read.
    Reading,
    /// The first worker of this generation shows whether it can serve.
    Trial { generation: u64 },
    /// It does, and the others follow.
    Adopted { generation: u64 },
    /// So many of so many workers are there.
    Workers { are: u32, wanted: u32 },
    /// The new master was started.
    Started { pid: u32 },
    /// So many workers are still to be replaced.
    Left { workers: u32 },
}

/// What the master says over the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Open the log anew.
    Reopen,
    /// Take no more; the end of the line follows when nobody waits any more.
    Retire,
    Told(Told),
}

impl Ask {
    pub(crate) fn to_packet(self) -> Vec<u8> {
        let (kind, argument, wait) = match self.what {
            What::Forget => (0, 0, false),
            What::Farewell => (11, 0, false),
            What::Wish { wish, wait } => {
                let (kind, argument) = match wish {
                    Wish::Reload => (1, 0),
                    Wish::Upgrade => (2, 0),
                    Wish::Scale(Scale::To(workers)) => (3, workers),
                    Wish::Scale(Scale::Up(workers)) => (4, workers),
                    Wish::Scale(Scale::Down(workers)) => (5, workers),
                    Wish::Recycle(Some(slot)) => (6, slot),
                    Wish::Recycle(None) => (7, 0),
                    Wish::Stop { now } => (8, u32::from(now)),
                    Wish::Reopen => (9, 0),
                    Wish::Level(level) => (10, level as u32),
                };
                (kind, argument, wait)
            }
        };
        let mut packet = vec![kind, u8::from(wait)];
        [argument, self.ticket, self.uid].iter().for_each(|word| packet.extend(word.to_le_bytes()));
        packet
    }

    pub(crate) fn from_packet(packet: &[u8]) -> Option<Ask> {
        let packet: &[u8; ASK_BYTES] = packet.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| packet[at + byte]));
        let (argument, ticket, uid) = (word(2), word(6), word(10));
        let wish = match packet[0] {
            0 => return Some(Ask { ticket, uid, what: What::Forget }),
            1 => Wish::Reload,
            2 => Wish::Upgrade,
            3 => Wish::Scale(Scale::To(argument)),
            4 => Wish::Scale(Scale::Up(argument)),
            5 => Wish::Scale(Scale::Down(argument)),
            6 => Wish::Recycle(Some(argument)),
            7 => Wish::Recycle(None),
            8 => Wish::Stop { now: argument != 0 },
            9 => Wish::Reopen,
            10 => Wish::Level(level(argument)?),
            11 => return Some(Ask { ticket, uid, what: What::Farewell }),
            12.. => return None,
        };
        Some(Ask { ticket, uid, what: What::Wish { wish, wait: packet[1] != 0 } })
    }
}

impl Word {
    pub(crate) fn to_packet(&self) -> Vec<u8> {
        let (kind, ticket, [one, other], text) = match self {
            Word::Reopen => (0, 0, [0, 0], ""),
            Word::Retire => (1, 0, [0, 0], ""),
            Word::Told(Told { ticket, news }) => match news {
                News::Done(text) => (2, *ticket, [0, 0], text.as_str()),
                News::Refused(text) => (3, *ticket, [0, 0], text.as_str()),
                News::Progress(stage) => {
                    let (kind, numbers) = match *stage {
                        Stage::PutOff => (4, [0, 0]),
                        Stage::Reading => (5, [0, 0]),
                        Stage::Trial { generation } => (6, [generation, 0]),
                        Stage::Adopted { generation } => (7, [generation, 0]),
                        Stage::Workers { are, wanted } => (8, [u64::from(are), u64::from(wanted)]),
                        Stage::Started { pid } => (9, [u64::from(pid), 0]),
                        Stage::Left { workers } => (10, [u64::from(workers), 0]),
                    };
                    (kind, *ticket, numbers, "")
                }
            },
        };
        let mut packet = vec![kind];
        packet.extend(u32::to_le_bytes(ticket));
        packet.extend(u64::to_le_bytes(one));
        packet.extend(u64::to_le_bytes(other));
        packet.extend(&text.as_bytes()[..text.floor_char_boundary(PACKET_BYTES - HEAD_BYTES)]);
        packet
    }

    pub(crate) fn from_packet(packet: &[u8]) -> Option<Word> {
        let (head, text) = packet.split_at_checked(HEAD_BYTES)?;
        let ticket = u32::from_le_bytes(head[1..5].try_into().ok()?);
        let one = u64::from_le_bytes(head[5..13].try_into().ok()?);
        let other = u64::from_le_bytes(head[13..21].try_into().ok()?);
        let small = |number: u64| u32::try_from(number).ok();
        let text = || String::from_utf8_lossy(text).into_owned();
        let news = match head[0] {
            0 => return Some(Word::Reopen),
            1 => return Some(Word::Retire),
            2 => News::Done(text()),
            3 => News::Refused(text()),
            4 => News::Progress(Stage::PutOff),
            5 => News::Progress(Stage::Reading),
            6 => News::Progress(Stage::Trial { generation: one }),
            7 => News::Progress(Stage::Adopted { generation: one }),
            8 => News::Progress(Stage::Workers { are: small(one)?, wanted: small(other)? }),
            9 => News::Progress(Stage::Started { pid: small(one)? }),
            10 => News::Progress(Stage::Left { workers: small(one)? }),
            11.. => return None,
        };
        Some(Word::Told(Told { ticket, news }))
    }
}

/// A level by the number that it has as an integer.
pub(crate) fn level(number: u32) -> Option<LevelFilter> {
    LevelFilter::iter().find(|level| *level as u32 == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wish_comes_through_a_packet_as_it_was() {
        let wishes = [
            Wish::Reload,
            Wish::Upgrade,
            Wish::Scale(Scale::To(4)),
            Wish::Scale(Scale::Up(u32::MAX)),
            Wish::Scale(Scale::Down(1)),
            Wish::Recycle(Some(7)),
            Wish::Recycle(None),
            Wish::Stop { now: true },
            Wish::Stop { now: false },
            Wish::Reopen,
            Wish::Level(LevelFilter::Debug),
        ];
        let whats = wishes.into_iter().flat_map(|wish| [true, false].map(|wait| What::Wish { wish, wait }));
        for what in whats.chain([What::Forget, What::Farewell]) {
            let ask = Ask { ticket: 70_000, uid: 1000, what };
            assert_eq!(Ask::from_packet(&ask.to_packet()), Some(ask));
        }
    }

    #[test]
    fn every_word_comes_through_a_packet_as_it_was() {
        let stages = [
            Stage::PutOff,
            Stage::Reading,
            Stage::Trial { generation: u64::MAX },
            Stage::Adopted { generation: 2 },
            Stage::Workers { are: 1, wanted: 4 },
            Stage::Started { pid: 99 },
            Stage::Left { workers: 3 },
        ];
        let news = stages.map(News::Progress).into_iter();
        let news = news.chain([News::Done("é".into()), News::Refused(String::new())]);
        let words = news.map(|news| Word::Told(Told { ticket: 5, news }));
        for word in words.chain([Word::Reopen, Word::Retire]) {
            assert_eq!(Word::from_packet(&word.to_packet()), Some(word));
        }
    }

    #[test]
    fn nonsense_is_no_wish_and_no_word_and_long_text_is_cut() {
        let good = Ask { ticket: 1, uid: 0, what: What::Wish { wish: Wish::Reload, wait: true } }.to_packet();
        for length in (0..ASK_BYTES).chain([ASK_BYTES + 1, PACKET_BYTES]) {
            let mut packet = good.clone();
            packet.resize(length, 1);
            assert_eq!(Ask::from_packet(&packet), None, "{length} bytes");
        }
        for kind in 11..=u8::MAX {
            let mut packet = good.clone();
            packet[0] = kind;
            assert_eq!(Ask::from_packet(&packet).is_some(), kind == 11, "the farewell");
            assert_eq!(Word::from_packet(&[[kind].as_slice(), &[0; HEAD_BYTES - 1]].concat()), None);
        }
        let level = [[10, 0].as_slice(), &6_u32.to_le_bytes(), &[0; 8]].concat();
        assert_eq!(Ask::from_packet(&level), None, "there is no such level");
        assert_eq!(Word::from_packet(&[2; HEAD_BYTES - 1]), None);
        let long = Word::Told(Told { ticket: 1, news: News::Refused("é".repeat(PACKET_BYTES)) }).to_packet();
        assert!((PACKET_BYTES - 1..=PACKET_BYTES).contains(&long.len()));
        assert!(Word::from_packet(&long).is_some());
    }
}
