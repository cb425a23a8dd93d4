//! HTTP/2: where it is spoken, what its clients get, how its connections end.

mod ends;
mod floods;
mod load;
mod strict;

use crate::support::http2::{Ended, Http2, PREFACE, RESET, frame, post};
use crate::support::tls::Authority;
use crate::support::{Connection, DEADLINE, Failure, Program, Server, Target, eventually, seconds};
use std::fs;
use std::process::Command;
use std::time::Instant;

/// Where each of the two ways is spoken: over TLS, and in the clear.
fn both(program: Program) -> (Server, [Target; 2]) {
    let authority = Authority::new();
    let program = program.tls(&authority).args("--http-protocols h2,h1,h2c --plain-bind 127.0.0.2:0");
    let server = program.start();
    let clear = server.wait_count(crate::support::Said::Listening, 2);
    let clear = Target::named(clear.value("on").unwrap(), server.dir());
    fs::write(server.dir().join("ca.pem"), &authority.pem).unwrap();
    let over_tls = authority.client().offering(&["h2", "http/1.1"]).to(server.addr());
    (server, [over_tls, clear])
}

/// A server that speaks it in the clear.
fn in_the_clear(program: Program) -> Program {
    program.args("--http-protocols h1,h2c")
}

fn text(ended: Ended) -> String {
    match ended {
        Ended::Answered(200, body) => String::from_utf8(body).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn access_lines(server: &Server) -> Vec<String> {
    let text = fs::read_to_string(server.dir().join("access.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn it_is_spoken_over_tls_and_in_the_clear_beside_http_1() {
    let (mut server, [over_tls, clear]) = both(Program::probe().workers(1));
    for target in [&over_tls, &clear] {
        let seen = text(Http2::open(target).get("/headers"));
        let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen["version"], "HTTP/2.0");
        // As the app would see it with HTTP/1.
        assert_eq!(
            (&seen["target"], &seen["fields"]),
            (&"/headers".into(), &serde_json::json!([["host", "test"]]))
        );
    }
    let old = Target::Tls {
        config: match &over_tls {
            Target::Tls { config, .. } => {
                let mut config = (**config).clone();
                config.alpn_protocols.clear();
                config.into()
            }
            other => panic!("{other:?}"),
        },
        addr: server.addr(),
        name: "localhost".into(),
    };
    for target in [&old, &clear] {
        assert_eq!(Connection::open(target).unwrap().get("/echo?msg=old").unwrap().text(), "old");
    }
    // What others make of it.
    let roots = server.dir().join("ca.pem");
    let Target::Tcp(clear) = clear else { panic!("{clear:?}") };
    let secured = server.addr().port();
    let at = format!("localhost:{secured}:127.0.0.1");
    let said = ["-sS", "-w", "%{http_version} %{http_code}", "-o", "/dev/null"];
    for (way, url) in [
        (
            vec!["--http2", "--cacert", roots.to_str().unwrap(), "--resolve", &at],
            format!("https://localhost:{secured}/"),
        ),
        (vec!["--http2-prior-knowledge"], format!("http://{clear}/")),
    ] {
        let output = Command::new("curl").args(said).args(way).arg(&url).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "2 200", "{output:?}");
    }
    server.stop();
}

#[test]
fn it_is_off_by_default_and_the_order_is_the_servers() {
    let authority = Authority::new();
    let offer = |server: &Server| {
        let target = authority.client().offering(&["h2", "http/1.1"]).to(server.addr());
        Connection::open(&target).unwrap().secured().alpn()
    };
    for (protocols, agreed) in [("h1", "http/1.1"), ("h1,h2", "http/1.1"), ("h2,h1", "h2")] {
        let program = Program::probe().workers(1).tls(&authority);
        let mut server = program.args(&format!("--http-protocols {protocols}")).start();
        assert_eq!(offer(&server).as_deref(), Some(agreed), "{protocols}");
        server.stop();
    }
    let mut server = Program::probe().workers(1).start();
    let mut client = server.connect();
    let answered = client.exchange(PREFACE).map(|answer| answer.status);
    assert!(matches!(answered, Err(Failure::Closed) | Ok(400..)), "{answered:?}");
    server.stop();
}

#[test]
fn streams_are_answered_as_they_are_done_and_a_slow_body_is_its_own_affair() {
    let (mut server, targets) = both(Program::probe().workers(1).args("--body-timeout 1s"));
    for target in &targets {
        let mut client = Http2::open(target);
        let begin = Instant::now();
        let slow = client.ask_with(&post("/upload"), 0);
        client.send(frame(0, 0, slow, b"half")).unwrap();
        let late = client.ask("/sleep?ms=400");
        assert_eq!(text(client.get("/echo?msg=first")), "first");
        assert!(text(client.wait(late)).starts_with("slept"));
        let refused = client.wait(slow);
        assert_eq!(refused, Ended::Answered(408, b"the body came too slowly\n".to_vec()));
        assert!(begin.elapsed() >= seconds(1) && begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
        assert_eq!(text(client.get("/echo?msg=last")), "last");
    }
    server.stop();
}

#[test]
fn each_request_has_its_line_whatever_became_of_it() {
    let program = Program::probe().workers(1).config(
        "accesslog = 'access.log'\naccess_log_format = '%(s)s %(r)s %(B)s'\nlimit_request_body = 10\nrequest_timeout = '3s'",
    );
    let mut server = in_the_clear(program).start();
    let mut client = Http2::open(&server.target());
    client.get("/pid?a");
    client.get("/sleep?ms=9000");
    client.get("/panic");
    let stream = client.ask_with(&post("/upload"), 0);
    client.send(frame(0, 0, stream, b"eleven byte")).unwrap();
    assert_eq!(
        client.wait(stream),
        Ended::Answered(413, b"the body is larger than this server takes\n".to_vec())
    );
    let stream = client.ask("/sleep?ms=60000");
    client.send(frame(RESET, 0, stream, &[0, 0, 0, 8])).unwrap();
    let wanted = [
        "200 GET /pid?a HTTP/2.0 ",
        "504 GET /sleep?ms=9000 HTTP/2.0 ",
        "500 GET /panic HTTP/2.0 ",
        "413 POST /upload HTTP/2.0 42",
        "499 GET /sleep?ms=60000 HTTP/2.0 0",
    ];
    eventually(DEADLINE, "a line for each", || access_lines(&server).len() == wanted.len());
    for (line, wanted) in access_lines(&server).iter().zip(wanted) {
        assert!(line.starts_with(wanted), "{line:?} for {wanted:?}");
    }
    assert!(text(client.get("/pid")).parse::<u32>().is_ok(), "all on one connection");
    server.stop();
}
