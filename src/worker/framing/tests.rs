//! The scanner, held to a table, and to the same verdict however the bytes are cut.

use super::{Fault, Guard, Limits};
use crate::config::Settings;
use proptest::prelude::*;

fn limits() -> Limits {
    Limits::of(&Settings {
        limit_request_line: 64,
        limit_request_fields: 4,
        limit_request_field_size: 80,
        ..Settings::default()
    })
}

/// What hyper would be given, and the fault behind it. The bytes are cut behind each of the offsets.
fn through(bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<Fault>) {
    let (mut guard, mut given) = (Guard::new(limits()), Vec::new());
    let mut left = bytes;
    let sizes = cuts.iter().copied().chain([bytes.len()]);
    for size in sizes {
        let (piece, rest) = left.split_at(size.min(left.len()));
        left = rest;
        if piece.is_empty() || guard.fault().is_some() {
            continue;
        }
        let passed = guard.take(piece);
        given.extend_from_slice(&piece[..passed]);
        given.extend_from_slice(guard.ready());
        guard.gave(guard.ready().len());
    }
    (given, guard.fault())
}

#[test]
fn each_fault_has_its_case() {
    let get = "GET / HTTP/1.1\r\n";
    let post = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let head = |fields: &str| format!("{get}{fields}\r\n");
    let body = |chunks: &str| format!("{post}{chunks}");
    let long = "x".repeat(80);
    let extensions = "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(300);
    let trailers = format!("a: {}\r\n", "x".repeat(8190));
    let table: &[(String, Option<Fault>)] = &[
        (head(""), None),
        (head("host: a\r\n"), None),
        (format!("\r\n\r\n{}", head("")), None),
        (format!("{}\r\n{}", head("content-length: 2\r\n"), head("")), None),
        (head("Content-Length:\t 007 \t\r\n") + "1234567", None),
        (head("content_length: x\r\ncontent-lengths: x\r\nx-content-length: x\r\n"), None),
        (head("transfer-encoding: CHUNKED\t\r\n") + "0\r\n\r\n", None),
        (head(&format!("{}\r\n", &long)), None),
        ("GET / HTTP/1.1\n\r\n".into(), Some(Fault::LineEnd)),
        ("\nGET / HTTP/1.1\r\n\r\n".into(), Some(Fault::LineEnd)),
        (head("a: b\n"), Some(Fault::LineEnd)),
        (format!("{get}\n"), Some(Fault::LineEnd)),
        ("\r\n\r\n\r\n\r\n\r\n".into(), Some(Fault::EmptyLines)),
        ("GET /\r\n\r\n".into(), Some(Fault::Line)),
        ("GET / HTTP/1.1 \r\n\r\n".into(), Some(Fault::Line)),
        ("GET / http/1.1\r\n\r\n".into(), Some(Fault::Line)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), Some(Fault::Version)),
        ("GET / HTTP/1.2\r\n\r\n".into(), Some(Fault::Version)),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), Some(Fault::LineTooLong)),
        (format!("GET /{long}"), Some(Fault::LineTooLong)),
        (head(&format!("a{long}\r\n")), Some(Fault::FieldsTooLarge)),
        (format!("{get}a: {long}"), Some(Fault::FieldsTooLarge)),
        (head(&"a: b\r\n".repeat(5)), Some(Fault::FieldsTooLarge)),
        (head("content-length:\r\n"), Some(Fault::Length)),
        (head("content-length: +5\r\n"), Some(Fault::Length)),
        (head("content-length: 5 5\r\n"), Some(Fault::Length)),
        (head("content-length: 5, 5\r\n"), Some(Fault::Length)),
        (head("content-length: 9223372036854775808\r\n"), Some(Fault::LengthTooLarge)),
        (head("content-length: 5\r\nCONTENT-LENGTH: 5\r\n"), Some(Fault::Lengths)),
        (head("content-length: 5\r\ntransfer-encoding: chunked\r\n"), Some(Fault::LengthAndEncoding)),
        (head("transfer-encoding: chunked\r\ncontent-length: 5\r\n"), Some(Fault::LengthAndEncoding)),
        (head("transfer-encoding: chunked, chunked\r\n"), Some(Fault::Encoding)),
        (head("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"), Some(Fault::Encoding)),
        (head("transfer-encoding: gzip\r\n"), Some(Fault::Encoding)),
        (head("transfer-encoding: ,chunked\r\n"), Some(Fault::Encoding)),
        (head("transfer-encoding:\r\n"), Some(Fault::Encoding)),
        (head("transfer-encoding: gzip, chunked\r\n"), Some(Fault::UnknownEncoding)),
        ("GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".into(), Some(Fault::EncodingInOld)),
        (body("5\r\nhello\r\n0\r\n\r\n"), None),
        (body("A ;a\t= b ;c=\"\\\"\" \t;d\r\n0123456789\r\n00\r\nx: y\r\nz:\r\n\r\n") + get, None),
        (body("ffffffffffffffff\r\nx"), None),
        (body("\r\n"), Some(Fault::Chunk)),
        (body("5\n"), Some(Fault::Chunk)),
        (body("5\rh"), Some(Fault::Chunk)),
        (body("g"), Some(Fault::Chunk)),
        (body("00000000000000005"), Some(Fault::Chunk)),
        (body("5\r\nhello0"), Some(Fault::ChunkEnd)),
        (body("5\r\nhello\r0"), Some(Fault::ChunkEnd)),
        // hyper sees it too: nobody but this table would miss the rule.
        (body("5\r\nhello\n"), Some(Fault::ChunkEnd)),
        (body("5 \r\n"), Some(Fault::Extension)),
        (body("5;\r\n"), Some(Fault::Extension)),
        (body("5;a=\r\n"), Some(Fault::Extension)),
        (body("5;a=\"b\r\n"), Some(Fault::Extension)),
        (body("5;a\0\r\n"), Some(Fault::Extension)),
        (body("5;a\n"), Some(Fault::Extension)),
        (body(&extensions), Some(Fault::ExtensionsTooLarge)),
        (body("0\r\n\n"), Some(Fault::Trailer)),
        (body("0\r\n a: b\r\n"), Some(Fault::Trailer)),
        (body("0\r\na : b\r\n"), Some(Fault::Trailer)),
        (body("0\r\na\r\n"), Some(Fault::Trailer)),
        (body("0\r\na: b\n"), Some(Fault::Trailer)),
        (body("0\r\na: b\rc"), Some(Fault::Trailer)),
        (body("0\r\na: \0"), Some(Fault::Trailer)),
        (body("0\r\n\rx"), Some(Fault::Trailer)),
        (body(&format!("0\r\n{trailers}")), Some(Fault::TrailersTooLarge)),
        (body(&format!("0\r\n{}", "a:\r\n".repeat(5))), Some(Fault::TrailersTooLarge)),
    ];
    for (bytes, wanted) in table {
        let shown = bytes.escape_debug().take(200).collect::<String>();
        assert_eq!(through(bytes.as_bytes(), &[]).1, *wanted, "{shown}");
        let ones = vec![1; bytes.len()];
        assert_eq!(through(bytes.as_bytes(), &ones), through(bytes.as_bytes(), &[]), "{shown}");
    }
    let cased: Vec<_> = table.iter().filter_map(|(_, fault)| *fault).collect();
    for code in 1.. {
        let Some(fault) = Fault::of(code) else { break };
        assert_eq!(fault as u8, code);
        assert!(cased.contains(&fault), "{fault:?} has no case");
    }
}

#[test]
fn a_head_passes_whole_and_a_bad_one_is_replaced_up_to_where_it_is_good() {
    let mut guard = Guard::new(limits());
    assert_eq!(guard.take(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HT"), 19);
    assert_eq!((guard.ready(), guard.holds()), (&b""[..], true));
    assert_eq!(guard.take(b"TP/1.0\r\na: b\n\r\nGET /3"), 0);
    assert_eq!((guard.ready(), guard.fault()), (&b""[..], Some(Fault::LineEnd)));
    guard.replace_head();
    assert_eq!(guard.ready(), b"GET /2 HTTP/1.0\r\nhost:\r\n\r\n");
    let mut guard = Guard::new(limits());
    assert_eq!(guard.take(b"GET /\r\n\r\n"), 0);
    guard.replace_head();
    assert_eq!(guard.ready(), b"- / HTTP/1.1\r\nhost:\r\n\r\n");
    let long = "x".repeat(80);
    for (line, substitute) in [
        (format!("\r\nGET /a?b={long}"), format!("GET /a?b={} HTTP/1.1", "x".repeat(64 - 9))),
        (format!("GET /a\"{long}"), "GET /a HTTP/1.1".into()),
        (format!("GET {long}"), "- / HTTP/1.1".into()),
        (format!("G\0T /{long}"), "- / HTTP/1.1".into()),
        (long.clone(), "- / HTTP/1.1".into()),
    ] {
        let mut guard = Guard::new(limits());
        guard.take(line.as_bytes());
        assert_eq!(guard.fault(), Some(Fault::LineTooLong), "{line}");
        guard.replace_head();
        assert_eq!(
            str::from_utf8(guard.ready()),
            Ok(format!("{substitute}\r\nhost:\r\n\r\n").as_str()),
            "{line}"
        );
    }
}

#[test]
fn what_follows_a_change_of_protocol_goes_on_as_it_came() {
    let mut guard = Guard::new(limits());
    let head = b"GET / HTTP/1.1\r\nupgrade: x\r\n\r\n";
    assert_eq!(guard.take(&[&head[..], b"\n\0\n"].concat()), head.len());
    assert_eq!(guard.fault(), Some(Fault::LineEnd));
    guard.step_aside();
    assert_eq!((guard.ready(), guard.fault()), (&b"\n\0\n"[..], None));
}

/// Pieces of requests, so that what is put together is nearly one.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&str] = &[
        "GET / HTTP/1.1\r\n",
        "POST /a HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "GET / HTTP/1.2\r\n",
        "host: a\r\n",
        "a: 0123456789012345678901234567890123456789012345678901234567890123456789012345\r\n",
        "content-length: 5\r\n",
        "content-length: 0\r\n",
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        "\r\n",
        "\r\n\r\n",
        "hello",
        "5\r\nhello\r\n",
        "5;a=\"b\";c\r\nhello\r\n",
        "0\r\n\r\n",
        "0\r\na: b\r\n\r\n",
        "\n",
        "\r",
        ":",
        " ",
        "\0",
    ];
    prop_oneof![
        20 => prop::sample::select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_are_cut(
        pieces in prop::collection::vec(piece(), 1..12),
        cuts in prop::collection::vec(1_usize..40, 0..40),
    ) {
        let bytes = pieces.concat();
        let whole = through(&bytes, &[]);
        prop_assert_eq!(&through(&bytes, &cuts), &whole);
        prop_assert_eq!(&through(&bytes, &vec![1; bytes.len()]), &whole);
        prop_assert!(bytes.starts_with(&whole.0), "only what came goes on");
    }
}
