//! The streams that a client has begun, and for each who answers it: the service, which has a line for it in the access log, or
//! the h2 crate, which refuses a head that it cannot read and tells nobody. Not here: the lines.

use super::frames::{Frame, Kind, REFUSED_STREAM};
use http::StatusCode;
use std::collections::HashSet;

#[derive(Default)]
pub(super) struct Heads {
    /// Streams that were begun, and whose answers are not out yet.
    open: HashSet<u32>,
    /// One whose fields have not all come.
    begun: Option<u32>,
    last_stream: u32,
    /// In the order of their streams, which is the one in which the service is given those that can be read.
    unsettled: Vec<Head>,
    /// How many requests the service had been given when the others were settled.
    taken: u64,
}

/// Of which it is not known yet who answers it.
struct Head {
    stream: u32,
    /// Some of a body has come.
    has_body: bool,
    /// What went out for it says so much.
    refused: Option<StatusCode>,
}

impl Heads {
    /// The client sent this.
    pub(super) fn received(&mut self, frame: &Frame) {
        if frame.kind != Kind::Continuation {
            // The fields of the last one have come, or this is an error that ends all.
            self.rest();
        }
        if frame.kind == Kind::Headers && frame.stream > self.last_stream {
            self.last_stream = frame.stream;
            self.begun = Some(frame.stream);
            self.unsettled.push(Head { stream: frame.stream, has_body: false, refused: None });
        } else if frame.kind == Kind::Reset {
            self.open.remove(&frame.stream);
        } else if frame.kind == Kind::Data
            && let Some(head) = self.find(frame.stream)
        {
            head.has_body = true;
        }
    }

    fn find(&mut self, stream: u32) -> Option<&mut Head> {
        self.unsettled.iter_mut().find(|head| head.stream == stream)
    }

    /// What the client has begun has come whole.
    pub(super) fn rest(&mut self) {
        self.open.extend(self.begun.take());
    }

    /// The socket took this.
    pub(super) fn sent(&mut self, frame: &Frame) {
        if frame.ends_stream() || frame.kind == Kind::Reset {
            self.open.remove(&frame.stream);
        }
        let status = match (frame.kind, frame.code) {
            // It has no other answer of its own; the service's comes after the head is settled.
            (Kind::Headers, _) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            (Kind::Reset, REFUSED_STREAM) => StatusCode::SERVICE_UNAVAILABLE,
            (Kind::Reset, _) => StatusCode::BAD_REQUEST,
            (_, _) => return,
        };
        if let Some(head) = self.find(frame.stream) {
            head.refused.get_or_insert(status);
        }
    }

    /// h2 has looked at all that has come whole, and the service has been given `taken` requests so far. Tells as what those that
    /// h2 refused are to be logged.
    pub(super) fn settle(&mut self, taken: u64) -> Vec<StatusCode> {
        let mut given = taken - std::mem::replace(&mut self.taken, taken);
        let mut refused = Vec::new();
        self.unsettled.retain(|head| {
            let is_given = head.refused.is_none() && given > 0;
            given -= u64::from(is_given);
            refused.extend(head.refused.map(|status| (!head.has_body, status)));
            !is_given && head.refused.is_none()
        });
        // The service was given these, and at once something was wrong with the body.
        refused.sort_by_key(|(is_all, status)| (*is_all, *status != StatusCode::BAD_REQUEST));
        refused.into_iter().skip(given as usize).map(|(_, status)| status).collect()
    }

    /// How many heads nobody has answered when the connection fails. `with_begun`: one that has not come whole is one of them.
    pub(super) fn unanswered(&self, with_begun: bool) -> usize {
        self.unsettled.iter().filter(|head| with_begun || self.begun != Some(head.stream)).count()
    }

    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::http2::frames::{END_HEADERS, END_STREAM};

    fn frame(kind: u8, flags: u8, stream: u8, code: u32) -> Frame {
        let mut frame = Frame::read(&[0, 0, 4, kind, flags, 0, 0, 0, stream]);
        frame.code = code;
        frame
    }

    fn head(stream: u8) -> Frame {
        frame(1, END_HEADERS | END_STREAM, stream, 0)
    }

    fn reset(stream: u8, code: u32) -> Frame {
        frame(3, 0, stream, code)
    }

    #[test]
    fn what_the_service_was_not_given_is_told_once() {
        /// Streams that are begun, frames that go out, requests that the service was given so far, statuses.
        type Step<'a> = (&'a [u8], &'a [Frame], u64, &'a [u16]);
        let steps: &[Step<'_>] = &[
            (&[1, 3], &[], 2, &[]),
            // Answers.
            (&[], &[head(1), reset(3, 2)], 2, &[]),
            (&[5, 7, 9], &[reset(5, 1), head(9), reset(9, 1)], 3, &[400, 431]),
            (&[11, 13], &[reset(13, REFUSED_STREAM)], 4, &[503]),
            // Its body was wrong at once.
            (&[15], &[reset(15, 1)], 5, &[]),
            // Its reset had to wait.
            (&[17], &[], 5, &[]),
            (&[], &[reset(17, 1)], 5, &[400]),
            // It is not the first.
            (&[17], &[reset(17, 5)], 5, &[]),
            (&[19], &[], 6, &[]),
        ];
        let mut heads = Heads::default();
        for (begun, out, taken, wanted) in steps {
            begun.iter().for_each(|stream| heads.received(&head(*stream)));
            heads.rest();
            out.iter().for_each(|frame| heads.sent(frame));
            assert_eq!(heads.settle(*taken), *wanted, "{begun:?} {out:?}");
            assert_eq!(heads.settle(*taken), [0u16; 0], "{begun:?} {out:?}");
        }
        assert_eq!((heads.unanswered(true), heads.last_stream()), (0, 19));
    }

    #[test]
    fn of_several_resets_the_service_has_the_one_with_a_body() {
        let mut heads = Heads::default();
        for begun in [head(1), head(3), frame(0, END_STREAM, 3, 0), head(5)] {
            heads.received(&begun);
        }
        for out in [reset(1, 1), reset(3, 1), reset(5, REFUSED_STREAM)] {
            heads.sent(&out);
        }
        assert_eq!(heads.settle(1), [400, 503]);
    }

    #[test]
    fn a_stream_is_open_from_its_whole_head_to_its_end() {
        let mut heads = Heads::default();
        heads.received(&frame(1, END_STREAM, 1, 0));
        heads.received(&frame(9, END_HEADERS, 1, 0));
        assert_eq!((heads.has_open(), heads.unanswered(false), heads.unanswered(true)), (false, 0, 1));
        heads.rest();
        assert_eq!((heads.has_open(), heads.unanswered(false)), (true, 1));
        heads.sent(&frame(1, END_HEADERS, 1, 0));
        assert!(heads.has_open());
        heads.sent(&frame(0, END_STREAM, 1, 0));
        assert!(!heads.has_open());
    }
}
