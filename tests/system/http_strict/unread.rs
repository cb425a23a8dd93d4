//! What becomes of a connection whose app leaves a body unread: the same for every cut of the bytes, and said in the answer's
//! head where it can be known by then. Not here: bodies that are refused.

use crate::support::{Dice, Program};
use bytes::Bytes;
use ferricorn::testing::{Local, Setup};
use ferricorn::{Body, HttpService};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// As much as is read away.
const KEPT: usize = 64 * 1024;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Leaves the body at once; with `/late` when the head of the answer has gone; with `/one` after its first piece.
async fn leave(request: Request<Body>) -> Result<Answer, Infallible> {
    let (head, mut body) = request.into_parts();
    let answer = match head.uri.path() {
        "/late" => UnsyncBoxBody::new(Late { body: Some(body), pieces: 3, has_paused: false }),
        "/one" => {
            let _ = body.frame().await;
            UnsyncBoxBody::new(Empty::new())
        }
        _ => UnsyncBoxBody::new(Empty::new()),
    };
    Ok(Response::new(answer))
}

/// An answer in pieces, that lets the request's body go behind the first one.
struct Late {
    body: Option<Body>,
    pieces: u8,
    has_paused: bool,
}

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.has_paused = !self.has_paused;
        if self.has_paused {
            // So that each is written on its own.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(left) = self.pieces.checked_sub(1) else { return Poll::Ready(None) };
        if left == 1 {
            self.body = None;
        }
        self.pieces = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

fn post(path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    [format!("POST {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n").as_bytes(), body].concat()
}

fn with_length(path: &str, length: usize) -> Vec<u8> {
    post(path, &format!("content-length: {length}\r\n"), &vec![b'b'; length])
}

fn chunked(path: &str, sizes: &[usize], end: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for size in sizes {
        body.extend(format!("{size:x}\r\n").bytes().chain(vec![b'b'; *size]).chain(*b"\r\n"));
    }
    body.extend_from_slice(end.as_bytes());
    post(path, "transfer-encoding: chunked\r\n", &body)
}

/// How many answers there are, whether the first one announces the end, and whether it comes.
fn seen(app: &Local<impl HttpService>, pieces: &[&[u8]]) -> (usize, bool, bool) {
    let spoken = app.speak(pieces);
    let text = String::from_utf8_lossy(&spoken.bytes).into_owned();
    let first = text.split("\r\n\r\n").next().unwrap();
    (text.matches("HTTP/1.1 200 OK\r\n").count(), first.contains("connection: close"), spoken.is_closed)
}

/// In pieces of any size up to `largest`.
fn cut<'a>(dice: &mut Dice, bytes: &'a [u8], largest: u64) -> Vec<&'a [u8]> {
    let (mut pieces, mut left) = (Vec::new(), bytes);
    while !left.is_empty() {
        let (piece, rest) = left.split_at((dice.within(1..largest + 1) as usize).min(left.len()));
        pieces.push(piece);
        left = rest;
    }
    pieces
}

#[test]
fn a_body_that_is_left_unread_has_one_outcome_however_it_is_cut() {
    let app = Setup::new().config("").app(|_| tower::service_fn(leave));
    let mut dice = Dice::new();
    let (kept, announced, silent) = ((2, false, false), (1, true, true), (1, false, true));
    let hidden = b"GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";
    let end = "0\r\n\r\n";
    let length = |path: &str| with_length(path, 5);
    let table = [
        ("a length", length("/"), kept),
        ("a length, left late", length("/late"), kept),
        ("a length, read in part", length("/one"), kept),
        ("a request for a body", post("/", &format!("content-length: {}\r\n", hidden.len()), hidden), kept),
        ("chunks", chunked("/", &[1, 2, 30], end), kept),
        ("chunks, left late", chunked("/late", &[1, 2, 30], end), kept),
        ("chunks, read in part", chunked("/one", &[1, 2, 30], end), kept),
        ("no chunk", chunked("/", &[], end), kept),
        ("a trailer", chunked("/", &[5], "0;a=b\r\nx: y\r\n\r\n"), kept),
        ("a bad chunk", chunked("/late", &[5], "x\r\n"), silent),
        ("as long as may be", with_length("/", KEPT), kept),
        ("longer", with_length("/", KEPT + 1), announced),
        ("longer, left late", with_length("/late", KEPT + 1), silent),
        ("chunks as long as may be", chunked("/", &[4096; 16], end), kept),
        ("longer chunks", chunked("/", &[[4096; 16].as_slice(), &[1]].concat(), end), silent),
        (
            "who waits to be told",
            post("/", "expect: 100-continue\r\ncontent-length: 5\r\n", b"hello"),
            announced,
        ),
        (
            "who waits, and is told",
            post("/one", "expect: 100-continue\r\ncontent-length: 5\r\n", b"hello"),
            kept,
        ),
        ("with an expectation, and no body", post("/", "expect: 100-continue\r\n", b""), kept),
    ];
    for (name, request, wanted) in table {
        let bytes = [&request[..], b"GET /after HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
        assert_eq!(seen(&app, &[&bytes]), wanted, "{name}, whole");
        if bytes.len() < 1000 {
            let each: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(seen(&app, &each), wanted, "{name}, byte by byte");
            for at in 1..bytes.len() {
                assert_eq!(seen(&app, &[&bytes[..at], &bytes[at..]]), wanted, "{name}, cut at {at}");
            }
        } else {
            let edge = request.len();
            for at in [edge - 10, edge - 3, edge - 1, edge, edge + 1] {
                assert_eq!(seen(&app, &[&bytes[..at], &bytes[at..]]), wanted, "{name}, cut at {at}");
            }
        }
        for largest in [40, 3000, 20_000] {
            let pieces = cut(&mut dice, &bytes, largest.min(bytes.len() as u64));
            assert_eq!(seen(&app, &pieces), wanted, "{name}, cut at random, up to {largest}");
        }
    }
}

/// The rest of the body may come long after the answer, and is no part of the next request's head for the limits of time either.
#[test]
fn the_rest_of_a_body_may_come_behind_the_answer() {
    let mut server = Program::probe().workers(1).args("--header-timeout 800ms").start();
    let mut client = server.connect();
    client.send("POST /headers HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01234").unwrap();
    assert_eq!(client.read().unwrap().status, 200);
    client.send("56").unwrap();
    // Another client's requests take the time that the first one's head would have had.
    let patient = server.connect().get("/sleep?ms=1200").unwrap();
    assert_eq!(patient.status, 200);
    client.send("789").unwrap();
    let patient = server.connect().get("/sleep?ms=1200").unwrap();
    assert_eq!(patient.status, 200);
    assert_eq!(client.get("/pid").unwrap().status, 200);
    assert_eq!(client.get("/pid").unwrap().status, 200);
    server.stop();
}

/// Whoever sends nothing more is not waited for, and has had his answer.
#[test]
fn a_body_that_never_comes_ends_its_connection_behind_the_answer() {
    let mut server = Program::probe().workers(1).start();
    let mut client = server.connect();
    client.send("POST /headers HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01234").unwrap();
    let answer = client.read().unwrap();
    assert_eq!((answer.status, answer.field("connection")), (200, None));
    client.read_end().unwrap();
    server.stop();
}
