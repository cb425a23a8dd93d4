//! The requests, each with what RFC 9110 and RFC 9112 allow, or the part of it that this server has chosen.
//! Not here: how they are sent.

mod bodies;
mod bytes;
mod rules;

pub(super) use rules::{Level, Rule};

use super::talk::{Answer, Seen};

pub(super) struct Case {
    pub(super) rule: Rule,
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) allowed: &'static [Verdict],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// So many answers by the app, and the sentinel's behind them.
    Served(usize),
    /// One answer by the app, and the end of the connection.
    Last,
    /// One answer by the server itself with this status, and the end of the connection.
    Refused(u16),
    /// An answer by the app, one by the server with 400, and the end of the connection.
    ThenRefused,
}

use Verdict::{Last, Refused, Served, ThenRefused};

impl Verdict {
    /// What becomes of the request, in a word.
    pub(super) fn outcome(self) -> String {
        match self {
            Served(_) | Last => "served".into(),
            Refused(status) => status.to_string(),
            ThenRefused => "400 behind one that is served".into(),
        }
    }

    pub(super) fn is(self, seen: &Seen) -> bool {
        let by_app = |answer: &Answer| answer.is_app;
        let answers = &seen.answers[..];
        let is_clean = seen.is_closed && seen.rest.is_empty();
        is_clean
            && match self {
                Served(count) => answers.len() == count && answers.iter().all(by_app) && seen.is_in_step,
                Last => answers.len() == 1 && answers.iter().all(by_app) && !seen.is_in_step,
                Refused(status) => {
                    let is_it = |answer: &Answer| answer.status == status && !answer.is_app;
                    answers.len() == 1 && answers.iter().all(is_it) && !seen.is_in_step
                }
                ThenRefused => {
                    let [first, second] = answers else { return false };
                    first.is_app && !second.is_app && second.status == 400 && !seen.is_in_step
                }
            }
    }
}

const GOOD: &[Verdict] = &[Served(1)];
const BAD: &[Verdict] = &[Refused(400)];

/// A request that would be smuggled.
const HIDDEN: &str = "GET /echo?msg=hidden HTTP/1.1\r\nhost: test\r\n\r\n";

pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    lines(&mut cases);
    targets(&mut cases);
    versions(&mut cases);
    hosts(&mut cases);
    fields(&mut cases);
    bodies::lengths(&mut cases);
    bodies::encodings(&mut cases);
    bodies::both(&mut cases);
    bodies::chunks(&mut cases);
    bytes::all(&mut cases);
    limits(&mut cases);
    connections(&mut cases);
    cases
}

fn add(
    cases: &mut Vec<Case>,
    rule: Rule,
    name: impl Into<String>,
    bytes: impl AsRef<[u8]>,
    allowed: &'static [Verdict],
) {
    let bytes = bytes.as_ref().to_vec();
    cases.push(Case { rule, name: name.into(), bytes, allowed });
}

/// What stands between the dots of a name, so that a failure can be read.
fn shown(text: &str) -> String {
    text.escape_debug().take(60).collect()
}

/// RFC 9112, 2.2 and 3: the request line and what comes before it.
fn lines(cases: &mut Vec<Case>) {
    let end = "host: test\r\n\r\n";
    let rows: &[(Rule, &str, &[Verdict])] = &[
        (Rule::RequestLine, "GET / HTTP/1.1\r\n", GOOD),
        (Rule::EmptyLines, "\r\nGET / HTTP/1.1\r\n", GOOD),
        (Rule::EmptyLines, "\r\n\r\nGET / HTTP/1.1\r\n", GOOD),
        (Rule::EmptyLines, "\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n", GOOD),
        (Rule::EmptyLines, "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n", BAD),
        (Rule::UnknownMethods, "M-SEARCH / HTTP/1.1\r\n", GOOD),
        (Rule::UnknownMethods, "get / HTTP/1.1\r\n", GOOD),
        (Rule::Methods, "G!#$%&'*+-.^_`|~9 / HTTP/1.1\r\n", GOOD),
        (Rule::RequestLine, " GET / HTTP/1.1\r\n", BAD),
        (Rule::RequestLine, " / HTTP/1.1\r\n", BAD),
        (Rule::RequestLine, "GET  / HTTP/1.1\r\n", BAD),
        (Rule::RequestLine, "GET /  HTTP/1.1\r\n", BAD),
        (Rule::RequestLine, "GET\t/ HTTP/1.1\r\n", BAD),
        (Rule::RequestLine, "GET /\tHTTP/1.1\r\n", BAD),
        (Rule::RequestLine, "GET /\u{b}HTTP/1.1\r\n", BAD),
        (Rule::RequestLine, "GET / HTTP/1.1 \r\n", BAD),
        (Rule::RequestLine, "GET / HTTP/1.1\t\r\n", BAD),
        (Rule::RequestLine, "GET / x HTTP/1.1\r\n", BAD),
        (Rule::RequestLine, "GET /a b HTTP/1.1\r\n", BAD),
        (Rule::RequestLine, " \r\n", BAD),
        (Rule::RequestLine, "  HTTP/1.1\r\n", BAD),
        (Rule::BareCr, "GET / HTTP/1.1\r \r\n", BAD),
        (Rule::BareCr, "GET / HTTP/1.1\r\r\n", BAD),
        (Rule::BareCr, "GET / HTTP/1.1\rx: y\r\n", BAD),
        (Rule::BareCr, "GET /\r HTTP/1.1\r\n", BAD),
        (Rule::BareCr, "GET\r/ HTTP/1.1\r\n", BAD),
        (Rule::BareCr, "\rGET / HTTP/1.1\r\n", BAD),
        (Rule::BlankFirst, "GET / HTTP/1.1\r\n \r\n", BAD),
        (Rule::BlankFirst, "GET / HTTP/1.1\r\n x: y\r\n", BAD),
        (Rule::BlankFirst, "GET / HTTP/1.1\r\n\tx: y\r\n", BAD),
        (Rule::BlankFirst, "GET / HTTP/1.1\r\n content-length: 5\r\n", BAD),
    ];
    for (rule, line, allowed) in rows {
        add(cases, *rule, shown(line), [line, end].concat(), allowed);
    }
    // A lone LF might be taken for a line's end, and hyper would do so.
    let bare = [
        "GET / HTTP/1.1\nhost: test\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test\nx: y\r\n\r\n",
        "GET / HTTP/1.1\nhost: test\n\n",
        "\nGET / HTTP/1.1\r\nhost: test\r\n\r\n",
    ];
    for head in bare {
        add(cases, Rule::LineEnds, shown(head), head, BAD);
    }
    let empty_line = "GET / HTTP/1.1\r\nhost: test\r\n\nx: y\r\n\r\n";
    add(cases, Rule::LineEnds, "a lone LF for the empty line", empty_line, BAD);
}

/// RFC 9112, 3.2, and RFC 9110, 7.1.
fn targets(cases: &mut Vec<Case>) {
    let rows: &[(&str, &str, &[Verdict])] = &[
        ("GET", "/?", GOOD),
        ("GET", "/?a=b&c=%20/?", GOOD),
        ("GET", "//", GOOD),
        ("GET", "/%zz", GOOD),
        ("GET", "http://test/", GOOD),
        ("GET", "HTTP://test/", GOOD),
        ("GET", "http://other/", GOOD),
        ("GET", "http://test:80/?q", GOOD),
        ("GET", "https://test/", GOOD),
        ("GET", "http://test", GOOD),
        ("OPTIONS", "*", GOOD),
        ("OPTIONS", "/", GOOD),
        ("OPTIONS", "http://test", GOOD),
        ("GET", "*", BAD),
        ("GET", "**", BAD),
        ("GET", "test:80", BAD),
        ("GET", "test", BAD),
        ("GET", "?q", BAD),
        ("GET", "#", BAD),
        // hyper drops a fragment: the app never sees it.
        ("GET", "/#fragment", GOOD),
        ("GET", "/?a=[b]|c", GOOD),
        ("GET", "/?\"", BAD),
        ("GET", "/?ä", BAD),
        ("GET", "http://", BAD),
        ("GET", "http:///", BAD),
        ("GET", "http:/test", BAD),
        ("GET", "http://user@test/", BAD),
        ("GET", "http://test:99999/", BAD),
        ("GET", "ftp://test/", BAD),
        ("GET", "//test:x/", GOOD),
        ("GET", "\\", BAD),
        ("GET", "/\u{1}", BAD),
        ("GET", "/\u{7f}", BAD),
        ("GET", "/<>", BAD),
        ("GET", "/\"", BAD),
        ("GET", "/\\", BAD),
        ("GET", "/^`{|}", BAD),
        ("GET", "/ä", BAD),
        ("CONNECT", "test:80", &[Refused(501)]),
        ("CONNECT", "/", &[Refused(501), Refused(400)]),
        ("TRACE", "/", &[Refused(501)]),
    ];
    for (method, target, allowed) in rows {
        let bytes = format!("{method} {target} HTTP/1.1\r\nhost: test\r\n\r\n");
        let rule = match (*method, *target) {
            ("CONNECT", _) => Rule::Connect,
            ("TRACE", _) => Rule::Trace,
            (_, "*" | "**") => Rule::Asterisk,
            (_, target) if target.contains('#') => Rule::Fragments,
            (_, target) if target.to_ascii_lowercase().starts_with("http") => Rule::Absolute,
            (_, _) => Rule::Targets,
        };
        add(cases, rule, format!("{method} {}", shown(target)), bytes, allowed);
    }
}

/// RFC 9112, 2.3, and RFC 9110, 2.5.
fn versions(cases: &mut Vec<Case>) {
    let rows: &[(&str, &[Verdict])] = &[
        ("HTTP/1.1", GOOD),
        ("HTTP/1.0", &[Last]),
        ("HTTP/1.2", &[Served(1), Refused(505), Refused(400)]),
        ("HTTP/1.9", &[Served(1), Refused(505), Refused(400)]),
        ("HTTP/0.9", &[Refused(505), Refused(400)]),
        ("HTTP/2.0", &[Refused(505), Refused(400)]),
        ("HTTP/3", &[Refused(505), Refused(400)]),
        ("HTTP/11", BAD),
        ("HTTP/1.10", BAD),
        ("HTTP/1.1x", BAD),
        ("HTTP/1,1", BAD),
        ("HTTP/1.", BAD),
        ("HTTP 1.1", BAD),
        ("http/1.1", BAD),
        ("HTTPS/1.1", BAD),
        ("HTP/1.1", BAD),
        ("x", BAD),
        ("", BAD),
    ];
    for (version, allowed) in rows {
        let bytes = format!("GET / {version}\r\nhost: test\r\n\r\n");
        add(cases, Rule::Versions, shown(version), bytes, allowed);
    }
    add(cases, Rule::Versions, "of two words", "GET /\r\n", BAD);
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    add(cases, Rule::Prefaces, "the preface of HTTP/2", preface, &[Refused(505)]);
}

/// RFC 9112, 3.2, and RFC 9110, 7.2.
fn hosts(cases: &mut Vec<Case>) {
    let rows: &[(&str, &[Verdict])] = &[
        ("host: test\r\n", GOOD),
        ("HOST:test\r\n", GOOD),
        ("host: \t test \t \r\n", GOOD),
        ("host:\r\n", GOOD),
        ("host: a.b-c.d_e:8080\r\n", GOOD),
        ("host: [::1]:80\r\n", GOOD),
        ("host: 127.0.0.1\r\n", GOOD),
        ("", BAD),
        ("host: test\r\nhost: test\r\n", BAD),
        ("host: test\r\nHost: other\r\n", BAD),
        ("host: test, other\r\n", BAD),
        ("host: a b\r\n", BAD),
        ("host: user@test\r\n", BAD),
        ("host: test/\r\n", BAD),
        ("host: test?\r\n", BAD),
        ("host: test#\r\n", BAD),
        ("host: http://test\r\n", BAD),
        ("host: test:x\r\n", BAD),
        ("host: test:80:80\r\n", BAD),
        ("host: test:65536\r\n", BAD),
        ("host: :80\r\n", BAD),
        ("host: [::1\r\n", BAD),
        ("host: ::1\r\n", BAD),
        ("host: te\0st\r\n", BAD),
        ("host: te\\st\r\n", BAD),
        ("host: tést\r\n", BAD),
    ];
    for (fields, allowed) in rows {
        let bytes = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let is_once = fields.matches("ost:").count() < 2;
        add(cases, if is_once { Rule::Hosts } else { Rule::HostOnce }, shown(fields), bytes, allowed);
    }
    add(cases, Rule::Hosts, "HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n", &[Last]);
    add(cases, Rule::HostOnce, "HTTP/1.0, two Hosts", "GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", BAD);
    add(cases, Rule::Absolute, "no Host, absolute form", "GET http://test/ HTTP/1.1\r\n\r\n", BAD);
}

/// RFC 9112, 5, and RFC 9110, 5.
fn fields(cases: &mut Vec<Case>) {
    let mut field = |rule, name: &str, bytes: &[u8], allowed| {
        let bytes = [b"GET / HTTP/1.1\r\nhost: test\r\n", bytes, b"\r\n"].concat();
        add(cases, rule, name, bytes, allowed);
    };
    for byte in 0..=255_u8 {
        let allowed = match byte {
            b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~' => GOOD,
            byte if byte.is_ascii_alphanumeric() => GOOD,
            // An empty value; and the end of a line without a colon.
            b':' => GOOD,
            _ => BAD,
        };
        field(
            Rule::FieldNames,
            &format!("{byte:#04x} in a name"),
            &[&[b'a', byte, b'b'][..], b": c\r\n"].concat(),
            allowed,
        );
    }
    for byte in 0..=255_u8 {
        let allowed = match byte {
            b'\t' | b' '..=b'~' | 0x80.. => GOOD,
            // NUL, CR and LF are never taken; the other control characters need not be.
            0..=0x1f | 0x7f => BAD,
        };
        field(
            Rule::FieldValues,
            &format!("{byte:#04x} in a value"),
            &[&b"a: b"[..], &[byte], b"c\r\n"].concat(),
            allowed,
        );
    }
    let rows: &[(Rule, &str, &[Verdict])] = &[
        (Rule::FieldValues, "a:\r\n", GOOD),
        (Rule::FieldValues, "a: \t \r\n", GOOD),
        (Rule::FieldValues, "a:b:c\r\n", GOOD),
        (Rule::FieldValues, "a: b\r\na: b\r\n", GOOD),
        (Rule::FieldNames, "content_length: 5\r\n", GOOD),
        (Rule::FieldNames, ": b\r\n", BAD),
        (Rule::FieldNames, "a b\r\n", BAD),
        (Rule::Colons, "a : b\r\n", BAD),
        (Rule::Colons, "a\t: b\r\n", BAD),
        (Rule::Colons, "host : b\r\n", BAD),
        (Rule::Colons, "a\r\n", BAD),
        (Rule::Folding, "a: b\r\n c\r\n", BAD),
        (Rule::Folding, "a: b\r\n\tc\r\n", BAD),
        (Rule::Folding, "a: b\r\n \r\n", BAD),
        (Rule::Folding, "a:\r\n b\r\n", BAD),
        (Rule::Folding, "a: b\r\n content-length: 5\r\n", BAD),
        (Rule::BareCr, "a: b\r\r\n", BAD),
        (Rule::BareCr, "a: b\rc: d\r\n", BAD),
        (Rule::BareCr, "a\r: b\r\n", BAD),
        (Rule::BareCr, "\ra: b\r\n", BAD),
        (Rule::LineEnds, "a: b\nc: d\r\n", BAD),
        (Rule::LineEnds, "a:\nb\r\n", BAD),
        (Rule::LineEnds, "a\n: b\r\n", BAD),
    ];
    for (rule, fields, allowed) in rows {
        field(*rule, &shown(fields), fields.as_bytes(), allowed);
    }
}

/// RFC 9112, 3, RFC 9110, 5.4 and 15.5.15, and RFC 6585, 5: what is just not, and just, too long by default.
fn limits(cases: &mut Vec<Case>) {
    let mut limit = |name: &str, bytes: String, allowed| add(cases, Rule::TooLong, name, bytes, allowed);
    let line = |size: usize| format!("GET /?{} HTTP/1.1\r\nhost: test\r\n\r\n", "x".repeat(size - 15));
    let field = |size: usize| format!("GET / HTTP/1.1\r\nhost: test\r\na: {}\r\n\r\n", "x".repeat(size - 3));
    let fields =
        |count: usize| format!("GET / HTTP/1.1\r\nhost: test\r\n{}\r\n", "a: b\r\n".repeat(count - 1));
    limit("a line of 4094", line(4094), GOOD);
    limit("a line of 4095", line(4095), &[Refused(414)]);
    limit("a line of 9000", line(9000), &[Refused(414)]);
    limit("a field of 8190", field(8190), GOOD);
    limit("a field of 8191", field(8191), &[Refused(431)]);
    limit("100 fields", fields(100), GOOD);
    limit("101 fields", fields(101), &[Refused(431)]);
    let large = format!("a: {}\r\n", "x".repeat(8000)).repeat(9);
    limit("72 kB of fields", format!("GET / HTTP/1.1\r\nhost: test\r\n{large}\r\n"), &[Refused(431)]);
}

/// RFC 9112, 9, and RFC 9110, 10.1.1 and 9.3.2.
fn connections(cases: &mut Vec<Case>) {
    let get = "GET / HTTP/1.1\r\nhost: test\r\n";
    let one = format!("{get}\r\n");
    add(cases, Rule::Pipelining, "three in a row", one.repeat(3), &[Served(3)]);
    let posts = post("content-length: 5\r\n", "hello").repeat(2) + &one;
    add(cases, Rule::Pipelining, "bodies in a row", posts, &[Served(3)]);
    let many = (0..40).map(|n| format!("GET /echo?msg={n} HTTP/1.1\r\nhost: test\r\n\r\n"));
    add(cases, Rule::Pipelining, "forty in a row", many.collect::<String>(), &[Served(40)]);
    let after = format!("{get}connection: close\r\n\r\n{one}");
    add(cases, Rule::Close, "one behind the last one", after, &[Last]);
    add(
        cases,
        Rule::Pipelining,
        "a bad one behind a good one",
        one + "GET / HTTP/1.1\r\n\r\n",
        &[ThenRefused],
    );
    add(cases, Rule::Close, "the last one", format!("{get}connection: close\r\n\r\n"), &[Last]);
    add(cases, Rule::Close, "close among others", format!("{get}connection: x, Close\r\n\r\n"), &[Last]);
    add(
        cases,
        Rule::OldConnections,
        "HTTP/1.0, kept",
        "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        GOOD,
    );
    let old = "POST /echo HTTP/1.0\r\ncontent-length: 5\r\n\r\nhello";
    add(cases, Rule::OldConnections, "HTTP/1.0 with a body", old, &[Last]);
    add(cases, Rule::Heads, "HEAD", "HEAD /bytes?n=9 HTTP/1.1\r\nhost: test\r\n\r\n", GOOD);
    let expect = |what: &str| post(&format!("expect: {what}\r\ncontent-length: 5\r\n"), "hello");
    add(cases, Rule::Expectations, "Expect: 100-continue", expect("100-continue"), GOOD);
    add(cases, Rule::Expectations, "Expect: 100-Continue", expect("100-Continue"), GOOD);
    add(cases, Rule::Expectations, "Expect: something else", expect("x"), &[Refused(417)]);
    add(cases, Rule::Expectations, "two", expect("100-continue\r\nexpect: x"), &[Refused(417)]);
    add(cases, Rule::Expectations, "a list", expect("100-continue, x"), &[Refused(417)]);
    let old = "POST /echo HTTP/1.0\r\nexpect: x\r\ncontent-length: 5\r\n\r\nhello";
    add(cases, Rule::Expectations, "with HTTP/1.0", old, &[Last]);
    add(cases, Rule::Upgrade, "Upgrade", format!("{get}connection: upgrade\r\nupgrade: h2c\r\n\r\n"), GOOD);
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nhost: test\r\n{fields}\r\n{body}")
}
