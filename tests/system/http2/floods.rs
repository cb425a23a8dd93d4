//! Clients that send 20,000 frames of a kind, for nothing: they are let go, and others do not notice.

use super::in_the_clear;
use crate::support::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, Http2, NO_ERROR, PING, PREFACE,
    PRIORITY, PROTOCOL_ERROR, RESET, SETTINGS, WINDOW_UPDATE,
};
use crate::support::http2::{block, frame, get, post};
use crate::support::{DEADLINE, Program, Server, alone, eventually, holds_for, millis, proc, seconds};
use std::fs;
use std::time::{Duration, Instant};

const FRAMES: u32 = 20_000;

/// One frame after the other, given the number of each.
struct Flood {
    what: &'static str,
    frame: fn(u32) -> Vec<u8>,
    /// What comes before.
    first: fn() -> Vec<u8>,
}

fn stream(number: u32) -> u32 {
    number * 2 + 1
}

fn nothing() -> Vec<u8> {
    Vec::new()
}

const FLOODS: [Flood; 13] = [
    Flood { what: "pings", frame: |_| frame(PING, 0, 0, &[0; 8]), first: nothing },
    Flood { what: "answers to pings", frame: |_| frame(PING, 1, 0, &[0; 8]), first: nothing },
    Flood { what: "settings", frame: |_| frame(SETTINGS, 0, 0, &[]), first: nothing },
    Flood {
        what: "changes of windows",
        frame: |number| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, number as u8]),
        first: nothing,
    },
    Flood {
        what: "priorities",
        frame: |number| frame(PRIORITY, 0, stream(number), &[0, 0, 0, 0, 1]),
        first: nothing,
    },
    Flood { what: "frames that there are not", frame: |_| frame(200, 0, 0, b"?"), first: nothing },
    Flood {
        what: "updates of the window",
        frame: |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        first: nothing,
    },
    Flood {
        what: "requests that are cancelled",
        frame: |number| {
            let head =
                frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block(&get("/sleep?ms=60000")));
            [head, frame(RESET, 0, stream(number), &[0, 0, 0, 8])].concat()
        },
        first: nothing,
    },
    Flood {
        what: "requests beyond the limit",
        frame: |number| {
            frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block(&get("/sleep?ms=60000")))
        },
        first: nothing,
    },
    Flood {
        what: "malformed requests",
        frame: |number| frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block(&get("")[..2])),
        first: nothing,
    },
    Flood {
        what: "pieces of a head",
        frame: |_| frame(CONTINUATION, 0, 1, &block(&[("a", "b")])),
        first: || frame(HEADERS, 0, 1, &block(&get("/"))),
    },
    Flood {
        what: "empty pieces of a head",
        frame: |_| frame(CONTINUATION, 0, 1, &[]),
        first: || frame(HEADERS, 0, 1, &block(&get("/"))),
    },
    Flood {
        what: "empty pieces of a body",
        frame: |_| frame(DATA, 0, 1, &[]),
        first: || frame(HEADERS, END_HEADERS, 1, &block(&post("/upload"))),
    },
];

#[test]
fn floods_are_ended_and_harm_nobody_else() {
    let _alone = alone();
    let mut server = in_the_clear(Program::probe().workers(1)).start();
    let mut other = Http2::open(&server.target());
    let mut old = server.connect();
    for Flood { what, frame, first } in FLOODS {
        let mut client = Http2::open(&server.target());
        let mut bytes = first();
        (0..FRAMES).for_each(|number| bytes.extend(frame(number)));
        let flood = std::thread::spawn(move || {
            // It may be cut off before all is sent.
            let sent = bytes.chunks(64 * 1024).take_while(|piece| client.send(piece).is_ok()).count();
            (client.wait_end(), sent)
        });
        let mut worst = Duration::ZERO;
        while !flood.is_finished() {
            let begin = Instant::now();
            super::text(other.get("/echo?msg=other"));
            old.get("/echo?msg=old").unwrap();
            worst = worst.max(begin.elapsed());
        }
        let (gone, _) = flood.join().unwrap();
        let error = gone.map(|(_, error)| error);
        assert!([Some(ENHANCE_YOUR_CALM), Some(PROTOCOL_ERROR)].contains(&error), "{what}: {gone:?}");
        assert!(worst < seconds(15), "{what}: others waited {worst:?}");
    }
    server.stop();
}

/// Asks for everything at once and takes nothing of it. `window`: so much of each answer it would take, by its own word.
fn take_nothing(server: &Server, window: u32, path: &str) -> Http2 {
    let mut client = Http2::silent(&server.target());
    let mut setting = vec![0, 4];
    setting.extend(window.to_be_bytes());
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &setting)].concat();
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &(i32::MAX as u32 - 65_535).to_be_bytes()));
    (0..100).for_each(|number| {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block(&get(path))));
    });
    client.send(bytes).unwrap();
    client
}

#[test]
fn clients_that_take_nothing_cost_bounded_memory_and_are_let_go() {
    let _alone = alone();
    for window in [0, 1, i32::MAX as u32] {
        let program = Program::stock().workers(1).args("--send-timeout 4s");
        fs::create_dir(program.dir().join("pages")).unwrap();
        fs::write(program.dir().join("pages/large"), vec![b'x'; 20_000_000]).unwrap();
        fs::write(program.dir().join("pages/small"), "small").unwrap();
        let mut server =
            in_the_clear(program.config("[[route]]\npath = '/{*path}'\nstatic = 'pages'\n")).start();
        let worker = server.worker();
        let before = proc::memory_kib(worker, "Private_Dirty");
        let clients: Vec<Http2> = (0..5).map(|_| take_nothing(&server, window, "/large")).collect();
        // Whoever comes later is served.
        let mut most = 0;
        holds_for(millis(2000), "others are served", || {
            most = most.max(proc::memory_kib(worker, "Private_Dirty").saturating_sub(before));
            server.get("/nowhere").status == 404
        });
        // Of 500 answers of 20 MB.
        assert!(most < 150 * 1024, "{most} KiB with a window of {window}");
        eventually(DEADLINE, "nothing is kept for them", || {
            proc::file_targets(worker).iter().all(|file| !file.ends_with("large"))
        });
        drop(clients);
        // Where all is handed over to hyper, which has room for so much, the connection is let go.
        if window == 1 {
            let begin = Instant::now();
            let mut client = take_nothing(&server, window, "/small");
            assert_eq!(client.wait_end(), Some((199, NO_ERROR)));
            assert!(begin.elapsed() > seconds(3), "{:?}", begin.elapsed());
        }
        server.stop();
    }
}
