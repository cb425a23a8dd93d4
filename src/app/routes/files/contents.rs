//! A part of a file as the body of an answer, read piece by piece. Not here: which part.
//!
//! What the kernel has in its memory is read at once, and what it has not on a blocking thread.

use crate::app::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rustix::io::{ReadWriteFlags, preadv2};
use std::cell::RefCell;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::{JoinHandle, spawn_blocking, yield_now};

/// How much is read at a time: enough for few calls, and little enough that it is sent while it is in the processor's cache.
const PIECE_BYTES: usize = 128 * 1024;

/// How many buffers of that size a thread keeps for the next pieces, of whatever file.
const MAX_SPARE: usize = 4;

/// The body that has this part of `file`. Its begin is read before there is a body, so that what cannot be read is not promised.
pub(super) async fn body(file: File, part: Range<u64>) -> io::Result<Body> {
    if part.is_empty() {
        return Ok(Body::empty());
    }
    let mut contents =
        Contents { file: Arc::new(file), part, first: Bytes::new(), reading: None, has_had_its_turn: false };
    let first = poll_fn(|cx| contents.poll_read(cx)).await?;
    if contents.part.is_empty() {
        return Ok(Body::from(first));
    }
    contents.first = first;
    Ok(Body::new(contents))
}

struct Contents {
    file: Arc<File>,
    /// What is still to be read.
    part: Range<u64>,
    /// What was read before there was a body.
    first: Bytes,
    reading: Option<JoinHandle<io::Result<Piece>>>,
    has_had_its_turn: bool,
}

impl Contents {
    /// The next piece. A file that has become shorter than was promised is an error, and the client sees a connection closed early.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let piece = match &mut self.reading {
            Some(reading) => {
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                read.map_err(io::Error::other)??
            }
            None => {
                let mut piece = Piece::for_part(&self.part);
                match piece.read_at_once(&self.file, self.part.start) {
                    Ok(()) => piece,
                    // Whatever is wrong, the thread will see it as well.
                    Err(_) => {
                        let (file, begin) = (Arc::clone(&self.file), self.part.start);
                        self.reading = Some(spawn_blocking(move || piece.read(&file, begin)));
                        return self.poll_read(cx);
                    }
                }
            }
        };
        if piece.length == 0 {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file has become shorter",
            )));
        }
        self.part.start += piece.length as u64;
        Poll::Ready(Ok(Bytes::from_owner(piece)))
    }
}

impl http_body::Body for Contents {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = if !self.first.is_empty() {
            Ok(std::mem::take(&mut self.first))
        } else if self.part.is_empty() {
            return Poll::Ready(None);
        } else if std::mem::take(&mut self.has_had_its_turn) {
            // The piece before is sent first, and other connections have their turn: also those of which the runtime does not know yet
            // that they are ready, which a waker called here would have it see to only after 61 turns of whoever is.
            let _ = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        } else {
            ready!(self.poll_read(cx))
        };
        self.has_had_its_turn = true;
        Poll::Ready(Some(piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.part.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.first.len() as u64 + self.part.end - self.part.start)
    }
}

/// What was read at a time.
struct Piece {
    buffer: Vec<u8>,
    length: usize,
}

thread_local! {
    /// What was sent last is taken first: it is still in the processor's cache.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Piece {
    /// What is shorter than a piece gets no more room than it needs, since a slow client may hold it for long.
    fn for_part(part: &Range<u64>) -> Piece {
        let left = usize::try_from(part.end - part.start).unwrap_or(PIECE_BYTES);
        let spare = || SPARE.with_borrow_mut(Vec::pop);
        let buffer = if left < PIECE_BYTES { None } else { spare() };
        Piece { buffer: buffer.unwrap_or_else(|| vec![0; left.min(PIECE_BYTES)]), length: 0 }
    }

    /// As much as the kernel has in its memory; an error where that is nothing, or where it cannot tell.
    fn read_at_once(&mut self, file: &File, begin: u64) -> io::Result<()> {
        let buffer = &mut [IoSliceMut::new(&mut self.buffer)];
        self.length = preadv2(file, buffer, begin, ReadWriteFlags::NOWAIT)?;
        Ok(())
    }

    fn read(mut self, file: &File, begin: u64) -> io::Result<Piece> {
        self.length = file.read_at(&mut self.buffer, begin)?;
        Ok(self)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.buffer.len() < PIECE_BYTES {
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        // A thread that ends has none to keep.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;

    fn file(text: &[u8]) -> (tempfile::NamedTempFile, File) {
        let named = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(named.path(), text).unwrap();
        let file = File::open(named.path()).unwrap();
        (named, file)
    }

    #[test]
    fn what_is_read_at_once_is_what_a_thread_reads() {
        let text: Vec<u8> = (0..PIECE_BYTES + 10).map(|at| (at % 251) as u8).collect();
        let (_named, file) = file(&text);
        let end = text.len() as u64;
        for begin in [0, 1, 9, 10, 11, end - 1, end, end + 1] {
            let part = begin..end + 5;
            let expected =
                &text[text.len().min(begin as usize)..text.len().min(begin as usize + PIECE_BYTES)];
            let read = Piece::for_part(&part).read(&file, begin).unwrap();
            assert_eq!(read.as_ref(), expected, "{begin} on a thread");
            let mut piece = Piece::for_part(&part);
            piece.read_at_once(&file, begin).expect("the kernel has just written it");
            assert_eq!(piece.as_ref(), expected, "{begin} at once");
        }
    }

    #[test]
    fn memory_of_what_was_sent_takes_what_is_read_next() {
        let part = 0..PIECE_BYTES as u64;
        let pieces: Vec<Piece> = (0..=MAX_SPARE).map(|_| Piece::for_part(&part)).collect();
        let last = pieces[MAX_SPARE - 1].buffer.as_ptr();
        drop(pieces);
        assert_eq!(SPARE.with_borrow(Vec::len), MAX_SPARE);
        assert_eq!(Piece::for_part(&part).buffer.as_ptr(), last);
        assert_eq!(Piece::for_part(&(0..10)).buffer.len(), 10);
    }

    #[tokio::test]
    async fn each_piece_has_a_turn_and_a_file_cut_short_is_an_error() {
        let text = vec![b'x'; 3 * PIECE_BYTES];
        let (named, file) = file(&text);
        let mut body = body(file, 5..text.len() as u64).await.unwrap();
        let mut polls = Vec::new();
        for turn in 0..5 {
            if turn == 3 {
                std::fs::write(named.path(), "short").unwrap();
            }
            let mut cx = Context::from_waker(std::task::Waker::noop());
            polls.push(match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => frame.data_ref().unwrap().len(),
                Poll::Ready(Some(Err(error))) => {
                    assert_eq!(error.to_string(), "the file has become shorter");
                    1
                }
                Poll::Ready(None) => panic!("it is not over"),
                Poll::Pending => 0,
            });
        }
        assert_eq!(polls, [PIECE_BYTES, 0, PIECE_BYTES, 0, 1]);
    }
}
