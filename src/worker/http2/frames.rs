//! Frames as they pass (RFC 9113, 4.1): where one ends and which it was, whatever pieces the bytes come in. Their contents are
//! hyper's to read.

/// The length of a frame's head.
const HEAD_BYTES: usize = 9;
/// The length of a reset's reason, which is all that there is in it.
const CODE_BYTES: u32 = 4;
/// What a client begins with (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

pub(super) const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;

/// Error codes (RFC 9113, 7).
pub(super) const NO_ERROR: u32 = 0x0;
pub(super) const REFUSED_STREAM: u32 = 0x7;
pub(super) const ENHANCE_YOUR_CALM: u32 = 0xb;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// Of an extension, or none at all: to be ignored (RFC 9113, 5.5).
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    flags: u8,
    pub(super) length: u32,
    /// 0: the connection.
    pub(super) stream: u32,
    /// Of a reset, why.
    pub(super) code: u32,
}

impl Frame {
    pub(super) fn read(head: &[u8; HEAD_BYTES]) -> Frame {
        let [a, b, c, kind, flags, stream @ ..] = *head;
        Frame {
            kind: match kind {
                0 => Kind::Data,
                1 => Kind::Headers,
                2 => Kind::Priority,
                3 => Kind::Reset,
                4 => Kind::Settings,
                5 => Kind::PushPromise,
                6 => Kind::Ping,
                7 => Kind::GoAway,
                8 => Kind::WindowUpdate,
                9 => Kind::Continuation,
                10.. => Kind::Unknown,
            },
            flags,
            length: u32::from_be_bytes([0, a, b, c]),
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
            code: NO_ERROR,
        }
    }

    /// The last one of its stream in its direction.
    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & END_STREAM != 0
    }

    pub(super) fn is_ack(&self) -> bool {
        matches!(self.kind, Kind::Settings | Kind::Ping) && self.flags & ACK != 0
    }
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Scanner {
    head: [u8; HEAD_BYTES],
    /// How much of the head is there.
    filled: usize,
    /// What is left of the preface or of a payload.
    left: usize,
    /// What is left is its reason.
    reset: Option<Frame>,
    /// A block of fields goes on in the next frame.
    in_block: bool,
    /// Frames whose heads have passed.
    count: u64,
}

impl Scanner {
    pub(super) fn of_client() -> Scanner {
        Scanner { left: PREFACE_BYTES, ..Scanner::of_server() }
    }

    pub(super) fn of_server() -> Scanner {
        Scanner { head: [0; HEAD_BYTES], filled: 0, left: 0, reset: None, in_block: false, count: 0 }
    }

    /// Tells of each frame whose head is now complete, and of a reset when its reason is.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let passed = self.left.min(bytes.len());
            self.left -= passed;
            if let Some(frame) = &mut self.reset {
                frame.code =
                    bytes[..passed].iter().fold(frame.code, |code, byte| code << 8 | u32::from(*byte));
                if self.left == 0 {
                    tell(*frame);
                    self.reset = None;
                }
            }
            bytes = &bytes[passed..];
            let taken = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD_BYTES {
                let frame = Frame::read(&self.head);
                (self.filled, self.left) = (0, frame.length as usize);
                self.count += 1;
                if matches!(frame.kind, Kind::Headers | Kind::Continuation | Kind::PushPromise) {
                    self.in_block = frame.flags & END_HEADERS == 0;
                }
                if frame.kind == Kind::Reset && frame.length == CODE_BYTES {
                    self.reset = Some(frame);
                } else {
                    tell(frame);
                }
            }
        }
    }

    pub(super) fn is_between_frames(&self) -> bool {
        self.filled == 0 && self.left == 0
    }

    /// Part of a request's head is there.
    pub(super) fn is_within_head(&self) -> bool {
        self.in_block || (!self.is_between_frames() && self.count > 0)
    }

    /// All that was begun has come, and something has.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_between_frames() && !self.in_block && self.count > 0
    }
}

/// A GOAWAY frame (RFC 9113, 6.8): the last stream that may have been looked at, and why it ends.
pub(super) fn go_away(last_stream: u32, error: u32) -> [u8; HEAD_BYTES + 8] {
    let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame[9..13].copy_from_slice(&last_stream.to_be_bytes());
    frame[13..].copy_from_slice(&error.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, payload.len() as u8, kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn frames_are_told_apart_whatever_pieces_they_come_in() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[0; 6]));
        bytes.extend(frame(1, END_STREAM | END_HEADERS, 1, b"fields"));
        bytes.extend(frame(6, ACK, 0, &[0; 8]));
        bytes.extend(frame(3, 0, u32::MAX, &[1, 2, 3, 0xb]));
        bytes.extend(frame(0, 0, 3, b""));
        for size in 1..=bytes.len() {
            let (mut scanner, mut seen) = (Scanner::of_client(), Vec::new());
            for piece in bytes.chunks(size) {
                scanner.scan(piece, |frame| seen.push((frame.kind, frame.length, frame.stream, frame.code)));
            }
            let wanted = [
                (Kind::Settings, 6, 0, 0),
                (Kind::Headers, 6, 1, 0),
                (Kind::Ping, 8, 0, 0),
                (Kind::Reset, 4, u32::MAX >> 1, 0x0102_030b),
                (Kind::Data, 0, 3, 0),
            ];
            assert_eq!(seen, wanted, "in pieces of {size}");
            assert!(scanner.is_at_rest());
        }
    }

    #[test]
    fn a_client_is_at_rest_when_all_that_it_began_has_come() {
        let mut scanner = Scanner::of_client();
        let mut scan = |bytes: &[u8]| {
            scanner.scan(bytes, |_| {});
            (scanner.is_at_rest(), scanner.is_within_head())
        };
        assert_eq!(scan(b"PRI * HTTP/2.0\r\n\r\nSM"), (false, false));
        assert_eq!(scan(b"\r\n\r\n"), (false, false));
        assert_eq!(scan(&frame(4, 0, 0, &[])), (true, false));
        assert_eq!(scan(&frame(1, 0, 1, b"a")), (false, true));
        assert_eq!(scan(&frame(9, END_HEADERS, 1, b"b")), (true, false));
        assert_eq!(scan(&[0, 0, 8]), (false, true));
    }

    #[test]
    fn what_ends_a_stream() {
        let read = |kind, flags| Frame::read(&[0, 0, 0, kind, flags, 0, 0, 0, 1]);
        assert!(read(0, END_STREAM).ends_stream() && read(1, END_STREAM).ends_stream());
        assert!(!read(6, ACK).ends_stream() && !read(0, 0).ends_stream());
        assert!(read(6, ACK).is_ack() && !read(0, END_STREAM).is_ack());
    }
}
