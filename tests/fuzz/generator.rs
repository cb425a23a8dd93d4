//! Requests that are nearly good: put together from pieces, then bitten. Not here: what should become of them.

use super::dice::Dice;

const LINES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "GET /a?b=c HTTP/1.1\r\n",
    "POST /p HTTP/1.1\r\n",
    "HEAD / HTTP/1.1\r\n",
    "PUT /%20 HTTP/1.1\r\n",
    "PUT / HTTP/1.1\r\n",
    "PUT / HTTP/1.0\r\nconnection: keep-alive\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET http://a/ HTTP/1.1\r\n",
    "GET / HTTP/1.0\r\n",
    "POST / HTTP/1.0\r\n",
    "GET / HTTP/1.2\r\n",
    "GET / HTTP/2.0\r\n",
    "GET /\r\n",
    "\r\nGET / HTTP/1.1\r\n",
];

const FIELDS: &[&str] = &[
    "x: y\r\n",
    "x-y:\t z \r\n",
    "x_y: z\r\n",
    "content-length: 0\r\n",
    "content-length: 5\r\n",
    "Content-Length:5\r\n",
    "content-length: 05\r\n",
    "content-length: 30\r\n",
    "content-length: +5\r\n",
    "content-length: 5, 5\r\n",
    "content-length: 99999999999999999999\r\n",
    "content_length: 5\r\n",
    "transfer-encoding: chunked\r\n",
    "Transfer-Encoding:\tChunked \r\n",
    "transfer-encoding: gzip, chunked\r\n",
    "transfer-encoding: chunked, chunked\r\n",
    "transfer-encoding: identity\r\n",
    "transfer-encoding : chunked\r\n",
    "transfer_encoding: chunked\r\n",
    "connection: close\r\n",
    "connection: keep-alive\r\n",
    "connection: upgrade\r\nupgrade: x\r\n",
    "expect: 100-continue\r\n",
    "expect: x\r\n",
    "host: b\r\n",
    " folded\r\n",
    "x: \u{e4}\r\n",
];

const BODIES: &[&str] = &[
    "",
    "hello",
    "0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n0\r\n\r\n",
    "5 ;a = \"b\\\"\" ;c\r\nhello\r\n0;d\r\n\r\n",
    "5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    "5\r\nhello\r\n0\r\n\n",
    "1e\r\nGET /hidden HTTP/1.1\r\nhost: a\r\n\r\n0\r\n\r\n",
    "GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n",
];

/// What makes a difference, in the place of a byte or between two.
const BITES: &[&str] = &[
    "\r",
    "\n",
    "\r\n",
    "\n\n",
    "\r\n\r\n",
    "\r\r\n",
    "\0",
    " ",
    "\t",
    ":",
    ";",
    ",",
    "=",
    "\"",
    "\\",
    "0",
    "5",
    "f",
    "F",
    "+",
    "-",
    "_",
    "x",
    "\u{7f}",
    "\u{e4}",
    "\u{b}",
    "chunked",
    "HTTP/1.1",
    "content-length: 5\r\n",
    "transfer-encoding: chunked\r\n",
    "0\r\n\r\n",
    "5\r\n",
    "GET / HTTP/1.1\r\n",
    "host: a\r\n",
];

/// The most of an input: some requests.
const MAX_BYTES: usize = 4096;

/// Makes an input, of new pieces or of ones that led somewhere.
pub(super) fn make(dice: &mut Dice, pool: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..dice.within(1..4) {
        if !pool.is_empty() && dice.within(0..3) > 0 {
            bytes.extend_from_slice(&pool[dice.within(0..pool.len() as u64) as usize]);
        } else {
            request(dice, &mut bytes);
        }
    }
    for _ in 0..dice.one_of(&[0, 0, 1, 1, 2, 4]) {
        bite(dice, &mut bytes);
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

fn request(dice: &mut Dice, bytes: &mut Vec<u8>) {
    // The first of each are good, and come oftener.
    let line = if dice.within(0..4) > 0 { LINES[dice.within(0..4) as usize] } else { dice.one_of(LINES) };
    bytes.extend_from_slice(line.as_bytes());
    if dice.within(0..16) > 0 {
        bytes.extend_from_slice(b"host: a\r\n");
    }
    match dice.within(0..8) {
        0 | 1 => bytes.extend_from_slice(b"content-length: 5\r\n\r\nhello"),
        2 | 3 => {
            let body = dice.one_of(BODIES);
            bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            bytes.extend_from_slice(body.as_bytes());
        }
        4 => bytes.extend_from_slice(b"\r\n"),
        _ => {
            for _ in 0..dice.within(0..4) {
                bytes.extend_from_slice(dice.one_of(FIELDS).as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(dice.one_of(BODIES).as_bytes());
        }
    }
}

fn bite(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let at = |dice: &mut Dice| dice.within(0..bytes.len() as u64 + 1) as usize;
    let (from, to) = (at(dice), at(dice));
    match dice.within(0..8) {
        0..=2 => drop(bytes.splice(from..from, dice.one_of(BITES).bytes())),
        3 | 4 => drop(bytes.splice(from..(from + 1).min(bytes.len()), dice.one_of(BITES).bytes())),
        5 => drop(bytes.drain(from..(from + dice.within(1..5) as usize).min(bytes.len()))),
        6 => {
            let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 64));
            let again = bytes[from..to].to_vec();
            drop(bytes.splice(from..from, again));
        }
        _ if from < bytes.len() => bytes[from] = dice.within(0..256) as u8,
        _ => bytes.truncate(to),
    }
}

/// Cuts into a few pieces at random places; now and then into bytes.
pub(super) fn cut<'a>(dice: &mut Dice, bytes: &'a [u8]) -> Vec<&'a [u8]> {
    if dice.within(0..64) == 0 {
        return bytes.chunks(1).collect();
    }
    let mut cuts: Vec<usize> =
        (0..dice.within(1..6)).map(|_| dice.within(0..bytes.len() as u64 + 1) as usize).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut begin = 0;
    let pieces = cuts.into_iter().map(|end| &bytes[std::mem::replace(&mut begin, end)..end]);
    pieces.filter(|piece| !piece.is_empty()).collect()
}
