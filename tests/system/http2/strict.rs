//! What RFC 9113, 8, has a server refuse: on its stream, where the connection is not in doubt.

use super::in_the_clear;
use crate::support::http2::{DATA, END_HEADERS, END_STREAM, HEADERS, PROTOCOL_ERROR, REFUSED_STREAM};
use crate::support::http2::{Ended, Http2, block, frame, get};
use crate::support::{Program, Server};

const SCHEME: (&str, &str) = (":scheme", "http");
const METHOD: (&str, &str) = (":method", "GET");
const HOST: (&str, &str) = (":authority", "a.example");
const PATH: (&str, &str) = (":path", "/headers");

/// Two of them are too large a head, and no field is too large.
const LARGE: &str = match std::str::from_utf8(&[b'x'; 5000]) {
    Ok(large) => large,
    Err(_) => "",
};

/// What may become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Status(u16),
    /// A malformed request: reset with PROTOCOL_ERROR, or answered 400 (RFC 9113, 8.1.1).
    Malformed,
}
use Wanted::{Malformed, Status};

fn is_as_wanted(ended: &Ended, wanted: Wanted) -> bool {
    match (ended, wanted) {
        (Ended::Answered(status, _), Status(wanted)) => *status == wanted,
        (Ended::Answered(400, _) | Ended::Reset(PROTOCOL_ERROR), Malformed) => true,
        // An error of a stream may be taken for one of the connection (RFC 9113, 5.4.2).
        (Ended::GoneAway(PROTOCOL_ERROR, _), Malformed) => true,
        (_, _) => false,
    }
}

#[test]
fn malformed_requests_never_reach_the_app_and_cost_no_other_request() {
    let program = Program::probe().workers(1).args("--limit-request-fields 10 --limit-request-body 10");
    let mut server = in_the_clear(program).start();
    let long = "x".repeat(9000);
    let long_path = format!("/{long}");
    type Fields<'a> = Vec<(&'a str, &'a str)>;
    let with = |field: (&'static str, &'static str)| vec![METHOD, SCHEME, HOST, PATH, field];
    let many = [METHOD, SCHEME, HOST, PATH].into_iter().chain([("a", "b"); 11]).collect();
    let table: Vec<(&str, Fields<'_>, Wanted)> = vec![
        ("a good one", vec![METHOD, SCHEME, HOST, PATH], Status(200)),
        ("Host in place of :authority", vec![METHOD, SCHEME, PATH, ("host", "a.example")], Status(200)),
        ("both, and the same", with(("host", "A.example")), Status(200)),
        ("both, and not the same", with(("host", "b.example")), Malformed),
        ("neither", vec![METHOD, SCHEME, PATH], Malformed),
        ("two Hosts", vec![METHOD, SCHEME, PATH, ("host", "a.example"), ("host", "a.example")], Malformed),
        ("a user in :authority", vec![METHOD, SCHEME, (":authority", "u@a.example"), PATH], Malformed),
        ("an empty :authority", vec![METHOD, SCHEME, (":authority", ""), PATH], Malformed),
        ("a path in :authority", vec![METHOD, SCHEME, (":authority", "a/b"), PATH], Malformed),
        ("no :method", vec![SCHEME, HOST, PATH], Malformed),
        ("no :scheme", vec![METHOD, HOST, PATH], Malformed),
        ("another :scheme", vec![METHOD, (":scheme", "ftp"), HOST, PATH], Malformed),
        ("no :path", vec![METHOD, SCHEME, HOST], Malformed),
        ("an empty :path", vec![METHOD, SCHEME, HOST, (":path", "")], Malformed),
        (":path without a slash", vec![METHOD, SCHEME, HOST, (":path", "headers")], Malformed),
        (":path as a URL", vec![METHOD, SCHEME, HOST, (":path", "http://a.example/")], Malformed),
        ("* with GET", vec![METHOD, SCHEME, HOST, (":path", "*")], Malformed),
        ("* with OPTIONS", vec![(":method", "OPTIONS"), SCHEME, HOST, (":path", "*")], Status(404)),
        ("a space in :path", vec![METHOD, SCHEME, HOST, (":path", "/a b")], Malformed),
        ("a fragment in :path", vec![METHOD, SCHEME, HOST, (":path", "/\"")], Malformed),
        ("two :path", vec![METHOD, SCHEME, HOST, PATH, PATH], Malformed),
        ("a pseudo-field that there is not", vec![METHOD, SCHEME, HOST, PATH, (":nothing", "a")], Malformed),
        ("one of answers", vec![METHOD, SCHEME, HOST, PATH, (":status", "200")], Malformed),
        (
            ":protocol, which is not offered",
            vec![METHOD, SCHEME, HOST, PATH, (":protocol", "websocket")],
            Malformed,
        ),
        ("a pseudo-field behind a field", vec![METHOD, SCHEME, HOST, ("a", "b"), PATH], Malformed),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "a.example:80")], Status(501)),
        ("TRACE", vec![(":method", "TRACE"), SCHEME, HOST, PATH], Status(501)),
        ("Connection", with(("connection", "close")), Malformed),
        ("Keep-Alive", with(("keep-alive", "a")), Malformed),
        ("Proxy-Connection", with(("proxy-connection", "a")), Malformed),
        ("Transfer-Encoding", with(("transfer-encoding", "chunked")), Malformed),
        ("Upgrade", with(("upgrade", "h2c")), Malformed),
        ("TE", with(("te", "gzip")), Malformed),
        ("TE: trailers", with(("te", "trailers")), Status(200)),
        ("capitals in a name", with(("Accept", "a")), Malformed),
        ("a space in a name", with(("a b", "a")), Malformed),
        ("an empty name", with(("", "a")), Malformed),
        ("a line break in a value", with(("a", "b\r\nc: d")), Malformed),
        ("NUL in a value", with(("a", "\0")), Malformed),
        ("a space before a value", with(("a", " b")), Malformed),
        ("a tab behind a value", with(("a", "b\t")), Malformed),
        ("a length and no body", with(("content-length", "3")), Malformed),
        ("a length that is none", with(("content-length", "+0")), Malformed),
        (
            "two lengths",
            vec![METHOD, SCHEME, HOST, PATH, ("content-length", "0"), ("content-length", "1")],
            Malformed,
        ),
        ("too many fields", many, Status(431)),
        ("too large a field", vec![METHOD, SCHEME, HOST, PATH, ("a", &long)], Status(431)),
        ("too long a path", vec![METHOD, SCHEME, HOST, (":path", &long_path)], Status(414)),
    ];
    let mut wrong = Vec::new();
    for (what, fields, wanted) in &table {
        let mut client = Http2::open(&server.target());
        let other = client.ask("/sleep?ms=50");
        let stream = client.ask_with(fields, END_STREAM);
        let ended = client.wait_all(&[other, stream]);
        let of = |stream| ended.iter().find(|(of, _)| *of == stream).map(|(_, ended)| ended.clone()).unwrap();
        let (asked, beside) = (of(stream), of(other));
        let is_alone = !matches!(asked, Ended::GoneAway(..));
        if !is_as_wanted(&asked, *wanted) || (is_alone && !matches!(beside, Ended::Answered(200, _))) {
            wrong.push(format!("{what}: {asked:?}, wanted {wanted:?}; beside it {beside:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.stop();
}

/// As docs/http2.md has it.
#[test]
fn each_request_has_a_line_whoever_refuses_it() {
    let program = Program::probe().workers(1).args("--access-logfile access.log --log-level debug");
    let mut server = in_the_clear(program.args("--http2-max-header-list-size 8KiB")).start();
    let mut client = Http2::open(&server.target());
    let refused = [
        vec![METHOD, SCHEME, HOST],
        vec![METHOD, SCHEME, HOST, PATH, ("connection", "close")],
        vec![METHOD, SCHEME, HOST, ("a", "b"), PATH],
    ];
    for fields in refused {
        let stream = client.ask_with(&fields, END_STREAM);
        assert_eq!(client.wait(stream), Ended::Reset(PROTOCOL_ERROR));
        server.wait_text(&format!("stream={stream} reason=PROTOCOL_ERROR"));
    }
    let good = vec![METHOD, SCHEME, HOST, PATH];
    // The answer to the largest is the h2 crate's.
    let large = [&good[..], &[("a", LARGE), ("b", LARGE)]].concat();
    for (fields, status) in [(large, 431), (vec![METHOD, SCHEME, PATH], 400), (good, 200)] {
        let stream = client.ask_with(&fields, END_STREAM);
        assert!(matches!(client.wait(stream), Ended::Answered(seen, _) if seen == status));
    }
    let stream = client.ask_with(&[METHOD, SCHEME, HOST, PATH, ("Accept", "a")], END_STREAM);
    assert!(matches!(client.wait(stream), Ended::GoneAway(PROTOCOL_ERROR, _)));
    server.wait_text("http/2 connection failed peer=127.0.0.1:");
    drop(client);
    server.stop();
    let wanted = [
        "- 400",
        "- 400",
        "- 400",
        "- 431",
        "GET /headers HTTP/2.0 400",
        "GET /headers HTTP/2.0 200",
        "- 400",
    ];
    assert_eq!(requests_logged(&server), wanted);
}

#[test]
fn what_comes_at_once_has_a_line_each() {
    let program = Program::probe().workers(1).args("--access-logfile access.log");
    let mut server = in_the_clear(program.args("--http2-max-concurrent-streams 10")).start();
    let mut client = Http2::open(&server.target());
    assert!(matches!(client.get("/"), Ended::Answered(200, _)));
    let good = get("/headers");
    let bad = [METHOD, SCHEME, HOST, ("a", "b"), PATH];
    // Beyond its length while the service has not been given it yet.
    let long = [(":method", "POST"), SCHEME, HOST, (":path", "/upload"), ("content-length", "1")];
    let mut bytes = Vec::new();
    let mut streams = Vec::new();
    let mut add = |client: &mut Http2, fields: &[(&str, &str)], body: Option<&[u8]>| {
        let (stream, last) = (client.next_stream(), if body.is_some() { 0 } else { END_STREAM });
        bytes.extend(frame(HEADERS, END_HEADERS | last, stream, &block(fields)));
        if let Some(body) = body {
            bytes.extend(frame(DATA, END_STREAM, stream, body));
        }
        streams.push(stream);
    };
    for _ in 0..3 {
        add(&mut client, &good, None);
        add(&mut client, &bad, None);
        add(&mut client, &long, Some(b"ab"));
    }
    let waiting = get("/sleep?ms=200");
    (0..12).for_each(|_| add(&mut client, &waiting, None));
    client.send(&bytes).unwrap();
    let mut wanted: Vec<String> = Vec::new();
    for (stream, ended) in client.wait_all(&streams) {
        let is_post = (0..3).any(|round| stream == streams[3 * round + 2]);
        wanted.push(match ended {
            Ended::Answered(200, _) if stream < streams[9] => "GET /headers HTTP/2.0 200".into(),
            Ended::Answered(200, _) => "GET /sleep HTTP/2.0 200".into(),
            Ended::Reset(REFUSED_STREAM) => "- 503".into(),
            Ended::Reset(PROTOCOL_ERROR) if is_post => "POST /upload HTTP/2.0 400".into(),
            Ended::Reset(PROTOCOL_ERROR) => "- 400".into(),
            other => panic!("{stream}: {other:?}"),
        });
    }
    drop(client);
    server.stop();
    let mut seen = requests_logged(&server)[1..].to_vec();
    seen.sort();
    wanted.sort();
    assert!(wanted.iter().any(|line| line == "- 503"), "{wanted:?}");
    assert_eq!(seen, wanted);
}

/// `-` or the request line without its query, and the status, of each line in the log.
fn requests_logged(server: &Server) -> Vec<String> {
    let lines = super::access_lines(server);
    let parts = lines.iter().map(|line| line.split('"').collect::<Vec<_>>());
    parts
        .map(|parts| {
            let status = parts[2].split(' ').nth(1).unwrap();
            let line: Vec<&str> = parts[1].split(' ').collect();
            let line = line.iter().map(|word| word.split('?').next().unwrap());
            format!("{} {status}", line.collect::<Vec<_>>().join(" "))
        })
        .collect()
}

#[test]
fn a_body_is_what_its_length_says() {
    let mut server = in_the_clear(Program::probe().workers(1)).start();
    let mut client = Http2::open(&server.target());
    for (body, is_right) in [("abc", true), ("ab", false), ("abcd", false)] {
        let fields = [(":method", "POST"), SCHEME, HOST, (":path", "/upload"), ("content-length", "3")];
        let stream = client.ask_with(&fields, 0);
        client.send(frame(DATA, END_STREAM, stream, body.as_bytes())).unwrap();
        let ended = client.wait(stream);
        assert_eq!(ended == Ended::Answered(200, b"3".to_vec()), is_right, "{body:?}: {ended:?}");
    }
    server.stop();
}

#[test]
fn fields_of_a_connection_are_in_no_answer() {
    let program = Program::stock().workers(1).config("[[route]]\npath = '/'\ntext = 'hello'\n");
    let mut server = in_the_clear(program).start();
    let url = format!("http://{}/", server.addr());
    for url in [url.clone(), format!("{url}nowhere")] {
        let output = std::process::Command::new("curl")
            .args(["-sS", "--http2-prior-knowledge", "-D", "-", &url])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
        assert!(text.starts_with("http/2 ") && text.contains("date:"), "{text}");
        for name in ["connection:", "keep-alive:", "transfer-encoding:", "upgrade:"] {
            assert!(!text.contains(name), "{text}");
        }
    }
    // The server's own refusals have none either.
    let mut client = Http2::open(&server.target());
    let stream = client.next_stream();
    let fields = [&get("/")[..], &[("host", "b")]].concat();
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))).unwrap();
    let head = loop {
        let frame = client.read().unwrap();
        if frame.kind == HEADERS {
            break frame;
        }
    };
    assert_eq!(head.status(), 400);
    assert!(!head.payload.windows(5).any(|window| window == b"close"));
    server.stop();
}
