//! A reader of requests that shares nothing with the server's: it has all the bytes, takes its time, and knows RFC 9110 and
//! RFC 9112 and what docs/http.md has chosen from them. Not here: how the server is asked.

/// What has to become of one request after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// The app sees it, as this.
    Served(String),
    /// Whether it is valid is not for this reader to say; if it is served, it is as this. A refusal ends the connection.
    Either(String),
    /// Refused, and nothing behind it is read.
    Refused,
    /// It ends before it is complete. It may be refused.
    Cut,
}

/// What follows a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoesOn,
    MayEnd,
    Ends,
}

/// The requests, and whether the connection may end behind the last of them, for what it says itself.
pub(super) struct Reading {
    pub(super) expected: Vec<Expected>,
    /// Behind so many of them at the earliest.
    pub(super) may_end_after: usize,
}

const LINE: usize = 4094;
const FIELDS: usize = 100;
const FIELD: usize = 8190;
const BODY: u64 = 1024 * 1024;
const EXTENSIONS: usize = 8 * 1024;
const TRAILERS: usize = 8 * 1024;
const EMPTY_LINES: usize = 4;

enum Fault {
    Bad,
    Cut,
}

struct Head<'a> {
    method: &'a str,
    target: &'a str,
    is_old: bool,
    fields: Vec<(String, &'a [u8])>,
    /// There is something that this reader does not judge.
    is_odd: bool,
}

pub(super) fn read(bytes: &[u8]) -> Reading {
    let mut reading = Reading { expected: Vec::new(), may_end_after: usize::MAX };
    let mut left = bytes;
    loop {
        for _ in 0..EMPTY_LINES {
            left = left.strip_prefix(b"\r\n").unwrap_or(left);
        }
        if left.is_empty() {
            return reading;
        }
        match one(&mut left) {
            Ok((expected, then)) => {
                reading.expected.push(expected);
                if then != Then::GoesOn && reading.may_end_after == usize::MAX {
                    reading.may_end_after = reading.expected.len();
                }
                if then == Then::Ends {
                    return reading;
                }
            }
            Err(fault) => {
                reading.expected.push(match fault {
                    Fault::Bad => Expected::Refused,
                    Fault::Cut => Expected::Cut,
                });
                return reading;
            }
        }
    }
}

fn one(left: &mut &[u8]) -> Result<(Expected, Then), Fault> {
    let head = head(left)?;
    let values = |name: &str| -> Vec<&[u8]> {
        head.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| *value).collect()
    };
    let length = match values("content-length")[..] {
        [] => None,
        [value] => Some(length(value)?),
        _ => return Err(Fault::Bad),
    };
    let is_chunked = match values("transfer-encoding")[..] {
        [] => false,
        [value] if value.eq_ignore_ascii_case(b"chunked") && !head.is_old && length.is_none() => true,
        _ => return Err(Fault::Bad),
    };
    if ["CONNECT", "TRACE"].contains(&head.method) {
        return Err(Fault::Bad);
    }
    let mut is_odd = head.is_odd;
    match values("host")[..] {
        [] if head.is_old => {}
        [host] => is_odd |= !is_plain_host(host)?,
        _ => return Err(Fault::Bad),
    }
    let is_known = |value: &&[u8]| value.eq_ignore_ascii_case(b"100-continue");
    let expectations = values("expect");
    if !head.is_old
        && !expectations.is_empty()
        && (expectations.len() > 1 || !expectations.iter().all(is_known))
    {
        return Err(Fault::Bad);
    }
    let body = match (length, is_chunked) {
        (_, true) => chunked(left)?,
        (Some(length), false) if length > BODY => return Err(Fault::Bad),
        (length, false) => {
            let (body, rest) = left.split_at_checked(length.unwrap_or(0) as usize).ok_or(Fault::Cut)?;
            *left = rest;
            body.to_vec()
        }
    };
    let seen = super::seen(head.method, head.target, &body);
    // Who waits to be told to go on, and is not, may send the body or not.
    let has_body = is_chunked || !body.is_empty();
    let is_untold = head.method == super::UNREAD && !expectations.is_empty() && has_body;
    let options = values("connection");
    let then = match options[..] {
        _ if is_untold && !head.is_old => Then::MayEnd,
        [] => {
            if head.is_old {
                Then::Ends
            } else {
                Then::GoesOn
            }
        }
        [option] if option.eq_ignore_ascii_case(b"close") => Then::Ends,
        [option] if option.eq_ignore_ascii_case(b"keep-alive") => Then::GoesOn,
        _ => Then::MayEnd,
    };
    Ok((if is_odd { Expected::Either(seen) } else { Expected::Served(seen) }, then))
}

/// All up to the empty line. A line is judged as soon as it is there, for so does the server, of a head that is cut.
fn head<'a>(left: &mut &'a [u8]) -> Result<Head<'a>, Fault> {
    let first = line(left, LINE)?;
    // The version is judged at once, what stands before it by hyper, when the head is complete.
    let space = first.iter().rposition(|byte| *byte == b' ').ok_or(Fault::Bad)?;
    let is_old = match &first[space + 1..] {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(Fault::Bad),
    };
    let words = std::str::from_utf8(&first[..space]).ok().and_then(|words| words.split_once(' '));
    let (method, target) = words.unwrap_or_default();
    let mut head = Head { method, target, is_old, fields: Vec::new(), is_odd: false };
    let mut is_bad = method.is_empty() || !method.bytes().all(is_token);
    is_bad |= target.is_empty() || !target.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
    head.is_odd = !target.starts_with('/') || !target.bytes().all(is_usual);
    loop {
        let line = line(left, FIELD)?;
        if line.is_empty() {
            return if is_bad { Err(Fault::Bad) } else { Ok(head) };
        }
        if head.fields.len() == FIELDS {
            return Err(Fault::Bad);
        }
        let Some((name, value)) = field(line) else {
            // hyper says so when the head is complete.
            is_bad = true;
            head.fields.push((String::new(), b""));
            continue;
        };
        head.fields.push((name, value));
    }
}

/// Up to CRLF, and no further than a line may go.
fn line<'a>(left: &mut &'a [u8], limit: usize) -> Result<&'a [u8], Fault> {
    let Some(end) = left.iter().position(|byte| *byte == b'\n') else {
        let size = left.strip_suffix(b"\r").unwrap_or(left).len();
        return Err(if size > limit { Fault::Bad } else { Fault::Cut });
    };
    let line = left[..end].strip_suffix(b"\r").filter(|line| line.len() <= limit).ok_or(Fault::Bad)?;
    *left = &left[end + 1..];
    Ok(line)
}

fn field(line: &[u8]) -> Option<(String, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':').filter(|colon| *colon > 0)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !name.iter().copied().all(is_token) || !value.iter().copied().all(is_text) {
        return None;
    }
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let begin = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(begin, |last| last + 1);
    Some((String::from_utf8_lossy(name).to_ascii_lowercase(), &value[begin..end]))
}

fn length(value: &[u8]) -> Result<u64, Fault> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    number.ok_or(Fault::Bad)
}

/// Whether it is a name with or without a port; of what else may be a host this reader knows nothing.
fn is_plain_host(host: &[u8]) -> Result<bool, Fault> {
    if !host.iter().all(|byte| (0x21..0x7f).contains(byte)) {
        return Err(Fault::Bad);
    }
    let (name, port) = match host.iter().position(|byte| *byte == b':') {
        Some(colon) => (&host[..colon], Some(&host[colon + 1..])),
        None => (host, None),
    };
    let is_name = name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(byte));
    let is_port =
        port.is_none_or(|port| !name.is_empty() && port.len() < 5 && port.iter().all(u8::is_ascii_digit));
    Ok(is_name && is_port)
}

fn chunked(left: &mut &[u8]) -> Result<Vec<u8>, Fault> {
    let (mut body, mut extensions) = (Vec::new(), 0);
    loop {
        let digits = left.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let rest = &left[digits..];
        if digits > 16 || digits == 0 && !rest.is_empty() {
            return Err(Fault::Bad);
        }
        let extension = extension(rest)?;
        // Each line's CR behind an extension is counted with it, as the scanner does.
        extensions += if extension == 0 { 0 } else { extension + 1 };
        if extensions > EXTENSIONS {
            return Err(Fault::Bad);
        }
        let size = u64::from_str_radix(std::str::from_utf8(&left[..digits]).expect("digits"), 16);
        *left = &rest[extension + 2..];
        let size = size.expect("no more than 16 digits");
        if size == 0 {
            trailers(left)?;
            return Ok(body);
        }
        if (body.len() as u64).saturating_add(size) > BODY {
            // It is too large as soon as that much of it has come; nothing here is.
            return Err(Fault::Cut);
        }
        let (data, rest) = left.split_at_checked(size as usize).ok_or(Fault::Cut)?;
        body.extend_from_slice(data);
        *left = rest;
        crlf(left)?;
    }
}

fn crlf(left: &mut &[u8]) -> Result<(), Fault> {
    match left {
        [b'\r', b'\n', rest @ ..] => {
            *left = rest;
            Ok(())
        }
        [] | [b'\r'] => Err(Fault::Cut),
        _ => Err(Fault::Bad),
    }
}

/// How many bytes there are of extensions, up to CRLF: by a grammar written backwards from the server's, piece by piece.
fn extension(bytes: &[u8]) -> Result<usize, Fault> {
    let mut left = bytes;
    let blanks = |left: &mut &[u8]| {
        let count = left.iter().take_while(|byte| **byte == b' ' || **byte == b'\t').count();
        *left = &left[count..];
        count
    };
    let token = |left: &mut &[u8]| {
        let count = left.iter().take_while(|byte| is_token(**byte)).count();
        *left = &left[count..];
        if left.is_empty() {
            Err(Fault::Cut)
        } else if count == 0 {
            Err(Fault::Bad)
        } else {
            Ok(())
        }
    };
    let mut may_end = true;
    loop {
        match left {
            [] | [b'\r'] if may_end => return Err(Fault::Cut),
            [b'\r', b'\n', ..] if may_end => return Ok(bytes.len() - left.len()),
            _ => {}
        }
        blanks(&mut left);
        match left {
            [] => return Err(Fault::Cut),
            [b';', rest @ ..] => left = rest,
            _ => return Err(Fault::Bad),
        }
        blanks(&mut left);
        token(&mut left)?;
        may_end = true;
        let mut ahead = left;
        if blanks(&mut ahead) > 0 {
            may_end = false;
        }
        if let [b'=', rest @ ..] = ahead {
            left = rest;
            may_end = true;
            blanks(&mut left);
            match left {
                [] => return Err(Fault::Cut),
                [b'"', rest @ ..] => left = quoted(rest)?,
                _ => token(&mut left)?,
            }
        } else if ahead.is_empty() {
            return Err(Fault::Cut);
        } else {
            left = ahead;
        }
    }
}

/// What follows the string that has begun.
fn quoted(mut left: &[u8]) -> Result<&[u8], Fault> {
    loop {
        match left {
            [] | [b'\\'] => return Err(Fault::Cut),
            [b'"', rest @ ..] => return Ok(rest),
            [b'\\', byte, rest @ ..] if is_text(*byte) => left = rest,
            [byte, rest @ ..] if is_text(*byte) && *byte != b'\\' => left = rest,
            _ => return Err(Fault::Bad),
        }
    }
}

fn trailers(left: &mut &[u8]) -> Result<(), Fault> {
    let (mut count, begin) = (0, left.len());
    loop {
        if let [b'\r', b'\n', rest @ ..] = left {
            *left = rest;
            return if begin - left.len() > TRAILERS { Err(Fault::Bad) } else { Ok(()) };
        }
        let end = left.iter().position(|byte| *byte == b'\n');
        let whole = end.map_or(*left, |end| &left[..end]);
        if begin - left.len() + whole.len() > TRAILERS {
            return Err(Fault::Bad);
        }
        let Some(end) = end else {
            return Err(if may_become_a_field(whole) && count < FIELDS || whole.is_empty() {
                Fault::Cut
            } else {
                Fault::Bad
            });
        };
        count += 1;
        whole.strip_suffix(b"\r").and_then(field).filter(|_| count <= FIELDS).ok_or(Fault::Bad)?;
        *left = &left[end + 1..];
    }
}

fn may_become_a_field(begun: &[u8]) -> bool {
    let begun = begun.strip_suffix(b"\r").unwrap_or(begun);
    let name = begun.iter().take_while(|byte| is_token(**byte)).count();
    match &begun[name..] {
        [] => true,
        [b':', value @ ..] => name > 0 && value.iter().copied().all(is_text),
        _ => false,
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}
