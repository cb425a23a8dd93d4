//! Every byte in the places where a byte decides. Not here: those within names and values, which stand with the fields.

use super::Verdict::{Last, Refused};
use super::{BAD, Case, GOOD, HIDDEN, Rule, Verdict, add, post};

pub(super) fn all(cases: &mut Vec<Case>) {
    for byte in 0..=255_u8 {
        lines(cases, byte);
        hosts(cases, byte);
        framing(cases, byte);
        chunks(cases, byte);
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A letter's case is nothing to the framing; some bytes are a matter of another rule.
fn lines(cases: &mut Vec<Case>, byte: u8) {
    let end = b" HTTP/1.1\r\nhost: test\r\n\r\n";
    let method = [&b"G"[..], &[byte], b"T /", end].concat();
    let allowed = if is_token(byte) { GOOD } else { BAD };
    add(cases, Rule::Methods, format!("{byte:#04x} in a method"), method, allowed);
    let path = [&b"GET /a"[..], &[byte], b"b", end].concat();
    let is_visible = (0x21..0x7f).contains(&byte) && !b"\"<>\\".contains(&byte);
    // What RFC 3986 does not know and browsers send may pass.
    let allowed: &[Verdict] = match byte {
        b'^' | b'`' | b'{' | b'|' | b'}' => &[Last, Verdict::Served(1), Refused(400)],
        _ if is_visible => GOOD,
        _ => BAD,
    };
    let rule = if byte == b'#' { Rule::Fragments } else { Rule::Targets };
    add(cases, rule, format!("{byte:#04x} in a path"), path, allowed);
    let query = [&b"GET /?a"[..], &[byte], b"b", end].concat();
    let is_visible = is_visible || byte == b'\\';
    add(cases, rule, format!("{byte:#04x} in a query"), query, if is_visible { GOOD } else { BAD });
}

fn hosts(cases: &mut Vec<Case>, byte: u8) {
    let host = [&b"GET / HTTP/1.1\r\nhost: te"[..], &[byte], b"1\r\n\r\n"].concat();
    let allowed: &[Verdict] = match byte {
        byte if byte.is_ascii_alphanumeric() || b"-.:_~".contains(&byte) => GOOD,
        // Some are known to RFC 3986 alone.
        b'!' | b'$'..=b',' | b';' | b'=' => &[Verdict::Served(1), Refused(400)],
        _ => BAD,
    };
    add(cases, Rule::Hosts, format!("{byte:#04x} in a host"), host, allowed);
}

fn framing(cases: &mut Vec<Case>, byte: u8) {
    let is_blank = matches!(byte, b' ' | b'\t');
    for (name, before, after) in
        [("before", &b""[..], &b"5"[..]), ("within", b"0", b"5"), ("behind", b"5", b"")]
    {
        let bytes =
            [b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: ", before, &[byte], after].concat();
        let bytes = [&bytes[..], b"\r\n\r\n"].concat();
        let allowed: &[Verdict] = match byte {
            _ if is_blank && name != "within" => GOOD,
            b'0' if name != "behind" => GOOD,
            // Another length: what follows is not cut as it should be.
            b'0'..=b'9' => continue,
            // An empty line: the head is over.
            _ => BAD,
        };
        let body: &[u8] = if allowed == GOOD { b"hello" } else { HIDDEN.as_bytes() };
        let name = format!("{byte:#04x} {name} a length");
        add(cases, Rule::LengthValues, name, [&bytes, body].concat(), allowed);
    }
    let coding = [b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked", &[byte][..]].concat();
    let body = if is_blank { "" } else { HIDDEN };
    let coding = [&coding[..], b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n", body.as_bytes()].concat();
    let allowed: &[Verdict] = if is_blank { GOOD } else { &[Refused(400), Refused(501)] };
    add(cases, Rule::LastCoding, format!("{byte:#04x} behind chunked"), coding, allowed);
}

fn chunks(cases: &mut Vec<Case>, byte: u8) {
    let mut chunked = |rule, name: &str, before: &[u8], after: &[u8], is_good: bool| {
        let head = post("transfer-encoding: chunked\r\n", "");
        let hidden = if is_good { "" } else { HIDDEN };
        let bytes = [head.as_bytes(), before, &[byte], after, hidden.as_bytes()].concat();
        add(cases, rule, format!("{byte:#04x} {name}"), bytes, if is_good { GOOD } else { BAD });
    };
    let rest = b"\r\nhello\r\n0\r\n\r\n";
    // Of digits all but a leading zero make another size, of which more would have to come.
    if byte == b'0' || !byte.is_ascii_hexdigit() {
        chunked(Rule::ChunkSizes, "before a size", b"", &[b"5", &rest[..]].concat(), byte == b'0');
    }
    if !byte.is_ascii_hexdigit() {
        chunked(Rule::ChunkSizes, "behind a size", b"5", rest, false);
    }
    chunked(Rule::Chunks, "behind the data", b"5\r\nhello", b"\n0\r\n\r\n", byte == b'\r');
    chunked(Rule::Chunks, "before the LF behind the data", b"5\r\nhello\r", b"0\r\n\r\n", byte == b'\n');
    let is_text = byte == b'\t' || byte >= b' ' && byte != 0x7f;
    chunked(
        Rule::Extensions,
        "in an extension",
        b"5;a",
        &[b"b=c", &rest[..]].concat(),
        is_token(byte) || byte == b';',
    );
    let is_quoted = is_text && byte != b'"' || byte == b'\\';
    chunked(Rule::Extensions, "in a string", b"5;a=\"b", &[b"c\"", &rest[..]].concat(), is_quoted);
    chunked(
        Rule::Trailers,
        "in a trailer's name",
        b"0\r\na",
        b"b: c\r\n\r\n",
        is_token(byte) || byte == b':',
    );
    chunked(Rule::Trailers, "in a trailer's value", b"0\r\na: b", b"c\r\n\r\n", is_text);
    chunked(Rule::Trailers, "for the last CR", b"0\r\n", b"\n", byte == b'\r');
}
