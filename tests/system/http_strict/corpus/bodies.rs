//! Where a request ends: lengths, encodings, chunks. Not here: its head.

use super::Verdict::{Refused, Served};
use super::{BAD, Case, GOOD, HIDDEN, Rule, Verdict, add, post, shown};

/// RFC 9112, 6.2, and RFC 9110, 8.6.
pub(super) fn lengths(cases: &mut Vec<Case>) {
    let rows: &[(&str, &str, &[Verdict])] = &[
        ("5", "hello", GOOD),
        ("\t 5 \t", "hello", GOOD),
        ("005", "hello", GOOD),
        ("0", "", GOOD),
        ("+5", "hello", BAD),
        ("-5", "hello", BAD),
        ("-0", "", BAD),
        ("0x5", "hello", BAD),
        ("5.0", "hello", BAD),
        ("5e0", "hello", BAD),
        ("5a", "hello", BAD),
        ("5;", "hello", BAD),
        ("\"5\"", "hello", BAD),
        ("5 5", "hello", BAD),
        ("5,", "hello", BAD),
        ("5, 5", "hello", BAD),
        ("5, 6", "hello", BAD),
        ("", "", BAD),
        ("5\u{b}", "hello", BAD),
        ("٥", "hello", BAD),
        ("9223372036854775808", "", &[Refused(413), Refused(400)]),
        ("18446744073709551615", "", &[Refused(413), Refused(431), Refused(400)]),
        ("18446744073709551616", "", &[Refused(413), Refused(400)]),
        ("18446744073709551621", "hello", &[Refused(413), Refused(400)]),
        ("99999999999999999999999999999999999", "", &[Refused(413), Refused(400)]),
    ];
    for (length, body, allowed) in rows {
        let bytes = post(&format!("content-length: {length}\r\n"), body);
        let bytes =
            if allowed.iter().any(|verdict| matches!(verdict, Served(_))) { bytes } else { bytes + HIDDEN };
        add(cases, Rule::LengthValues, format!("Content-Length: {}", shown(length)), bytes, allowed);
    }
    // The same twice might be taken for once.
    let twice = post("content-length: 5\r\ncontent-length: 5\r\n", "hello") + HIDDEN;
    add(cases, Rule::Lengths, "the same length twice", twice, BAD);
    let rows = [
        "content-length: 5\r\nContent-Length: 6\r\n",
        "content-length: 0\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length:\r\n",
        "content-length : 5\r\n",
        "content-length:\r\n 5\r\n",
        "content-length: 5\r\n ,5\r\n",
    ];
    for fields in rows {
        add(cases, Rule::Lengths, shown(fields), post(fields, "hello") + HIDDEN, BAD);
    }
    let get = "GET /echo?msg=x HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello";
    add(cases, Rule::BodiesOfGet, "GET with a body", get, GOOD);
    let hidden = format!("GET / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{HIDDEN}", HIDDEN.len());
    add(cases, Rule::BodiesOfGet, "GET with a request for a body", hidden, GOOD);
}

/// RFC 9112, 6.1 and 6.3.
pub(super) fn encodings(cases: &mut Vec<Case>) {
    let chunked = "5\r\nhello\r\n0\r\n\r\n";
    let unknown: &[Verdict] = &[Refused(400), Refused(501)];
    let rows: &[(&str, &[Verdict])] = &[
        ("transfer-encoding: chunked\r\n", GOOD),
        ("Transfer-Encoding:Chunked\r\n", GOOD),
        ("transfer-encoding: CHUNKED\t\r\n", GOOD),
        ("transfer-encoding: chunked, chunked\r\n", BAD),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", BAD),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", unknown),
        ("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n", unknown),
        ("transfer-encoding: chunked\r\ntransfer-encoding:\r\n", BAD),
        ("transfer-encoding: identity\r\n", unknown),
        ("transfer-encoding: identity, chunked\r\n", unknown),
        ("transfer-encoding: gzip\r\n", unknown),
        ("transfer-encoding: gzip, chunked\r\n", unknown),
        ("transfer-encoding: chunked, gzip\r\n", unknown),
        ("transfer-encoding: chunked,\r\n", BAD),
        ("transfer-encoding: ,chunked\r\n", BAD),
        ("transfer-encoding:\r\n", BAD),
        ("transfer-encoding: xchunked\r\n", unknown),
        ("transfer-encoding: chunkedx\r\n", unknown),
        ("transfer-encoding: chunke\r\n", unknown),
        ("transfer-encoding: chunked;q=1\r\n", unknown),
        ("transfer-encoding: \"chunked\"\r\n", unknown),
        ("transfer-encoding: chunked chunked\r\n", unknown),
        ("transfer-encoding: \u{b}chunked\r\n", unknown),
        ("transfer-encoding: chunked\0\r\n", unknown),
        ("transfer-encoding: chun\rked\r\n", unknown),
        ("transfer-encoding : chunked\r\n", BAD),
        ("transfer-encoding:\r\n chunked\r\n", BAD),
        ("transfer-encoding: chunked\r\n , x\r\n", BAD),
        ("x: y\rtransfer-encoding: chunked\r\n", BAD),
    ];
    for (fields, allowed) in rows {
        let body = if allowed.iter().any(|verdict| matches!(verdict, Served(_))) { "" } else { HIDDEN };
        let is_unknown = allowed.contains(&Refused(501));
        let rule = if is_unknown { Rule::UnknownCodings } else { Rule::LastCoding };
        add(cases, rule, shown(fields), post(fields, &[chunked, body].concat()), allowed);
    }
    let old = format!("POST /echo HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n{chunked}{HIDDEN}");
    add(cases, Rule::OldCodings, "HTTP/1.0 with Transfer-Encoding", old, BAD);
    let get = format!("GET / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{chunked}");
    add(cases, Rule::BodiesOfGet, "GET with chunks", get, GOOD);
    // The name is another one: this request has no body, and what follows is one of its own.
    let other = post("transfer_encoding: chunked\r\n", HIDDEN);
    add(cases, Rule::FieldNames, "transfer_encoding", other, &[Served(2)]);
}

/// RFC 9112, 6.1 and 6.3: both, which is how requests are smuggled. The encoding might count, if the connection ends.
pub(super) fn both(cases: &mut Vec<Case>) {
    let encodings = ["chunked", "Chunked", "gzip, chunked", "identity", "xchunked", ""];
    for encoding in encodings {
        for length in ["0", "5", "15", "+5", "x"] {
            let fields = [
                format!("content-length: {length}\r\ntransfer-encoding: {encoding}\r\n"),
                format!("transfer-encoding: {encoding}\r\ncontent-length: {length}\r\n"),
            ];
            for fields in fields {
                let bytes = post(&fields, "5\r\nhello\r\n0\r\n\r\n") + HIDDEN;
                let allowed: &[Verdict] = &[Refused(400), Refused(501)];
                let allowed = if encoding.eq_ignore_ascii_case("chunked") { BAD } else { allowed };
                add(cases, Rule::LengthAndCoding, shown(&fields), bytes, allowed);
            }
        }
    }
}

/// RFC 9112, 7.1.
pub(super) fn chunks(cases: &mut Vec<Case>) {
    let rows: &[(&str, &[Verdict])] = &[
        ("0\r\n\r\n", GOOD),
        ("5\r\nhello\r\n0\r\n\r\n", GOOD),
        ("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", GOOD),
        ("005\r\nhello\r\n000\r\n\r\n", GOOD),
        ("A\r\n0123456789\r\n0\r\n\r\n", GOOD),
        ("a\r\n0123456789\r\n0\r\n\r\n", GOOD),
        ("5;ext\r\nhello\r\n0;ext\r\n\r\n", GOOD),
        ("5;ext=value;b\r\nhello\r\n0\r\n\r\n", GOOD),
        ("5;ext=\"a;b c\"\r\nhello\r\n0\r\n\r\n", GOOD),
        ("5 ; ext = value\r\nhello\r\n0\r\n\r\n", GOOD),
        ("5 \r\nhello\r\n0\r\n\r\n", BAD),
        ("5;\r\nhello\r\n0\r\n\r\n", BAD),
        ("5;a=\r\nhello\r\n0\r\n\r\n", BAD),
        ("5;a=\"\r\nhello\r\n0\r\n\r\n", BAD),
        ("00000000000000005\r\nhello\r\n0\r\n\r\n", BAD),
        ("5\r\nhello\r\n0\r\na: b\r\nc: d\r\n\r\n", GOOD),
        ("\r\n", BAD),
        ("x\r\n", BAD),
        ("-5\r\nhello\r\n0\r\n\r\n", BAD),
        ("+5\r\nhello\r\n0\r\n\r\n", BAD),
        ("0x5\r\nhello\r\n0\r\n\r\n", BAD),
        (" 5\r\nhello\r\n0\r\n\r\n", BAD),
        ("5 5\r\nhello\r\n0\r\n\r\n", BAD),
        ("5,\r\nhello\r\n0\r\n\r\n", BAD),
        ("5g\r\nhello\r\n0\r\n\r\n", BAD),
        ("5\nhello\r\n0\r\n\r\n", BAD),
        ("5\rhello\r\n0\r\n\r\n", BAD),
        ("5\r\nhello\n0\r\n\r\n", BAD),
        ("5\r\nhello0\r\n\r\n", BAD),
        ("5\r\nhello!\r\n0\r\n\r\n", BAD),
        ("5\r\nhell\r\n0\r\n\r\n", BAD),
        ("5\r\nhello\r\r\n0\r\n\r\n", BAD),
        ("5;a\nb\r\nhello\r\n0\r\n\r\n", BAD),
        ("5;a\rb\r\nhello\r\n0\r\n\r\n", BAD),
        ("5;a\0\r\nhello\r\n0\r\n\r\n", BAD),
        ("5\r\nhello\r\n0\r\n \r\n\r\n", BAD),
        ("5\r\nhello\r\n0\r\na : b\r\n\r\n", BAD),
        ("5\r\nhello\r\n0\r\na\r\n\r\n", BAD),
        ("5\r\nhello\r\n0\r\na: b\r\n c\r\n\r\n", BAD),
        ("5\r\nhello\r\n0\r\na: \0\r\n\r\n", BAD),
        // hyper would take all up to the next empty line for trailers, and drop what is none.
        ("5\r\nhello\r\n0\r\n\n", BAD),
        ("10000000000000005\r\nhello\r\n0\r\n\r\n", BAD),
        ("fffffffffffffffff\r\nhello\r\n0\r\n\r\n", BAD),
    ];
    for (body, allowed) in rows {
        let hidden = if *allowed == GOOD { "" } else { HIDDEN };
        let bytes = post("transfer-encoding: chunked\r\n", &[body, hidden].concat());
        let size = body.split(['\r', '\n']).next().unwrap_or_default();
        let rule = match body.split_once("\r\n0\r\n") {
            _ if size.contains(';') || size.ends_with(' ') => Rule::Extensions,
            Some((_, end)) if end != "\r\n" => Rule::Trailers,
            _ if !size.bytes().all(|byte| byte.is_ascii_hexdigit()) || size.is_empty() || size.len() > 9 => {
                Rule::ChunkSizes
            }
            _ => Rule::Chunks,
        };
        add(cases, rule, shown(body), bytes, allowed);
    }
    let long = "x".repeat(32 * 1024);
    let bytes = post("transfer-encoding: chunked\r\n", &format!("5;{long}\r\nhello\r\n0\r\n\r\n"));
    add(cases, Rule::Extensions, "an extension of 32 KiB", bytes, BAD);
    let many = "1;0123456789abcdef\r\nx\r\n".repeat(2000);
    let bytes = post("transfer-encoding: chunked\r\n", &format!("{many}0\r\n\r\n"));
    add(cases, Rule::Extensions, "32 KiB of extensions", bytes, BAD);
}
