//! How connections end: by time, at a drain, with their worker.

use super::{both, in_the_clear, text};
use crate::support::http2::{
    ALL_STREAMS, DATA, END_HEADERS, END_STREAM, Ended, GOAWAY, HEADERS, Http2, NO_ERROR, PING, PREFACE,
    SETTINGS,
};
use crate::support::http2::{block, frame, get, post};
use crate::support::{Program, Said, Target, millis, seconds};
use nix::sys::signal::Signal::SIGTERM;
use std::time::Instant;

#[test]
fn a_client_that_says_nothing_or_half_is_let_go() {
    let (mut server, targets) = both(Program::probe().workers(1).args("--header-timeout 3s"));
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let head = block(&get("/"));
    let unfinished = [&hello[..], &frame(HEADERS, 1, 1, &head)].concat();
    let whole = [&hello[..], &frame(HEADERS, END_HEADERS | 1, 1, &head)].concat();
    // (what it is, what it sends, whether there is somebody to say goodbye to)
    let cases: [(&str, &[u8], bool); 6] = [
        ("nothing", b"", true),
        ("half a preface", &PREFACE[..12], true),
        ("a preface and no settings", PREFACE, true),
        ("half a frame", &[&hello[..], &[0, 0, 8]].concat(), true),
        ("a head to be continued", &unfinished, true),
        ("half a head", &whole[..whole.len() - 4], true),
    ];
    let try_one = |what: &str, way: &str, target: &Target, bytes: &[u8], is_told: bool| {
        let begin = Instant::now();
        let mut client = Http2::silent(target);
        client.send(bytes).unwrap();
        let gone = client.wait_end();
        assert!(begin.elapsed() >= millis(2700), "{what} {way}: {:?}", begin.elapsed());
        assert!(begin.elapsed() < seconds(25), "{what} {way}: {:?}", begin.elapsed());
        assert_eq!(gone.is_some(), is_told, "{what} {way}");
        assert!(gone.is_none_or(|(_, error)| error == NO_ERROR), "{what} {way}: {gone:?}");
    };
    std::thread::scope(|scope| {
        for (what, bytes, is_told) in cases {
            for (target, way) in targets.iter().zip(["over TLS", "in the clear"]) {
                // In the clear, one that says nothing may still turn out to be HTTP/1.
                if !bytes.is_empty() || way == "over TLS" {
                    scope.spawn(move || try_one(what, way, target, bytes, is_told));
                }
            }
        }
    });
    server.stop();
}

#[test]
fn a_connection_without_requests_is_told_and_then_closed() {
    let (mut server, targets) = both(Program::probe().workers(1).args("--keep-alive 1s"));
    for target in &targets {
        let mut client = Http2::open(target);
        let begin = Instant::now();
        assert!(matches!(client.get("/sleep?ms=1500"), Ended::Answered(200, _)), "a busy one is not idle");
        let mut heard = Vec::new();
        while let Ok(frame) = client.read() {
            heard.extend(frame.gone_away());
        }
        let elapsed = begin.elapsed();
        assert!(elapsed >= millis(1500 + 700) && elapsed < seconds(25), "{elapsed:?}");
        assert_eq!(heard, [(ALL_STREAMS, NO_ERROR), (1, NO_ERROR)]);
    }
    server.stop();
}

#[test]
fn pings_are_no_requests_and_keep_no_connection() {
    let mut server = in_the_clear(Program::probe().workers(1).args("--keep-alive 1s")).start();
    let mut client = Http2::open(&server.target());
    let begin = Instant::now();
    assert!(matches!(client.get("/pid"), Ended::Answered(200, _)));
    // Each is answered, so that the next one comes later, and none is one too many.
    while client.send(frame(PING, 0, 0, &[1; 8])).is_ok() && client.read().is_ok() {
        assert!(begin.elapsed() < seconds(25), "{:?}", begin.elapsed());
        std::thread::sleep(millis(50));
    }
    assert!(begin.elapsed() >= millis(700), "{:?}", begin.elapsed());
    server.stop();
}

#[test]
fn a_connection_has_so_many_requests_and_those_on_their_way() {
    let mut server = in_the_clear(Program::probe().workers(1).args("--keepalive-requests 3")).start();
    let mut client = Http2::open(&server.target());
    let streams: Vec<u32> = (0..5).map(|_| client.ask("/sleep?ms=50")).collect();
    let ended = client.wait_all(&streams);
    assert!(ended.iter().all(|(_, ended)| matches!(ended, Ended::Answered(200, _))), "{ended:?}");
    assert_eq!(client.wait_end(), Some((streams[4], NO_ERROR)));
    server.stop();
}

#[test]
fn without_keep_alive_the_first_answers_are_the_last() {
    let mut server = in_the_clear(Program::probe().workers(1).args("--keep-alive 0")).start();
    let mut client = Http2::open(&server.target());
    let streams = [client.ask("/sleep?ms=100"), client.ask("/sleep?ms=300")];
    for stream in streams {
        assert!(text(client.wait(stream)).starts_with("slept"));
    }
    assert_eq!(client.wait_end(), Some((streams[1], NO_ERROR)));
    server.stop();
}

#[test]
fn a_worker_that_drains_says_so_and_answers_what_is_open_and_on_its_way() {
    for lame_duck in ["0", "500ms"] {
        let program = Program::probe().workers(1).args(&format!("--lame-duck {lame_duck}"));
        let (mut server, targets) = both(program);
        let mut clients = targets.map(|target| Http2::open(&target));
        let mut open = Vec::new();
        for client in &mut clients {
            assert!(matches!(client.get("/pid"), Ended::Answered(200, _)));
            open.push(client.ask_with(&post("/upload"), 0));
            // Answered, so the one before it has arrived, too.
            assert_eq!(text(client.get("/echo?msg=there")), "there");
        }
        server.signal(SIGTERM);
        let mut late = Vec::new();
        for client in &mut clients {
            // What a client owes for the ping behind it is not sent yet.
            let gone = loop {
                let frame = client.read().unwrap();
                if frame.kind == GOAWAY {
                    break frame.gone_away();
                }
            };
            assert_eq!(gone, Some((ALL_STREAMS, NO_ERROR)));
            late.push(client.ask("/echo?msg=late"));
        }
        for ((client, open), on_its_way) in clients.iter_mut().zip(open).zip(late) {
            assert_eq!(text(client.wait(on_its_way)), "late");
            client.send(frame(DATA, END_STREAM, open, b"half")).unwrap();
            assert_eq!(text(client.wait(open)), "4");
            assert_eq!(client.wait_end(), Some((on_its_way, NO_ERROR)));
        }
        server.wait(Said::Stopped);
        assert_eq!(server.wait_exit(), crate::support::server::End::Code(0));
    }
}

#[test]
fn idle_connections_do_not_hold_a_drain_up() {
    let (mut server, targets) = both(Program::probe().workers(1));
    let mut clients = targets.map(|target| Http2::open(&target));
    for client in &mut clients {
        assert!(matches!(client.get("/pid"), Ended::Answered(200, _)));
    }
    let begin = Instant::now();
    // They do not answer the ping: nobody reads.
    server.stop();
    assert!(begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
}
