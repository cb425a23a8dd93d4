//! Sends what is nearly HTTP through the real scanner, hyper, and the gate, within this process, and holds the outcome to a
//! reader that shares nothing with them: no panic, no hang, no answer that it does not know of, nothing that the app should
//! not have seen or should have; and the same however the bytes are cut. Not here: sockets, time limits.
//!
//! `FUZZ_INPUTS=10000000 SEED=1 cargo test --release --test fuzz` runs for longer than the suite does. An input that leads to
//! answers as no other did is kept, and others are made from it.

#![allow(unreachable_pub, reason = "the dice are shared with other tests")]

#[path = "../support/dice.rs"]
mod dice;
mod generator;
mod reference;

use bytes::Bytes;
use dice::Dice;
use ferricorn::testing::{self, Local};
use ferricorn::{Body, HttpService};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use reference::{Expected, Reading};
use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// In the suite.
const INPUTS: u64 = 2_000;
/// The most that is kept.
const POOL: usize = 4096;
/// The field in which the app says what it has seen.
const SEEN: &str = "x-seen";

static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let inputs = std::env::var("FUZZ_INPUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(INPUTS);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        HAS_PANICKED.store(true, Ordering::Relaxed);
        usual(info);
    }));
    let app = testing::app(|_| tower::service_fn(echo));
    let mut dice = Dice::new();
    let (mut pool, mut known) = (Vec::new(), HashSet::new());
    let mut statuses = BTreeMap::<u16, u64>::new();
    let begin = Instant::now();
    for index in 0..inputs {
        let bytes = generator::make(&mut dice, &pool);
        let verdict = judge(&app, &bytes, &mut dice);
        let behaviour = match verdict {
            Ok(behaviour) => behaviour,
            Err(why) => {
                let bytes = shrink(&app, bytes, &mut dice);
                let why = judge(&app, &bytes, &mut dice).err().unwrap_or(why);
                eprintln!("input {index}: {why}\n{}", bytes.escape_ascii());
                return ExitCode::FAILURE;
            }
        };
        behaviour.statuses.iter().for_each(|status| *statuses.entry(*status).or_default() += 1);
        if known.insert(behaviour.sign) && pool.len() < POOL && bytes.len() < 1024 {
            pool.push(bytes);
        }
        if index % 1_000_000 == 999_999 {
            eprintln!("{} inputs in {:?}, {} kept", index + 1, begin.elapsed(), pool.len());
        }
    }
    println!("fuzz: {inputs} inputs, each whole and cut, in {:?}: nothing found", begin.elapsed());
    println!("fuzz: {} kinds of outcome; answers by status: {statuses:?}", known.len());
    ExitCode::SUCCESS
}

/// Its body the app leaves as it is.
const UNREAD: &str = "PUT";

async fn echo(request: Request<Body>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // A body that breaks off has an answer of the server's own.
    let body = match head.method.as_str() {
        UNREAD => Bytes::new(),
        _ => body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
    };
    let seen = seen(head.method.as_str(), &head.uri.to_string(), &body);
    let mut response = Response::new(Empty::new());
    if let Ok(seen) = seen.parse() {
        response.headers_mut().insert(SEEN, seen);
    }
    Ok(response)
}

/// What the app tells of a request: enough to know it by.
fn seen(method: &str, target: &str, body: &[u8]) -> String {
    // The fragment does not reach the app, and an absolute target is spelt anew.
    let target = target.split('#').next().unwrap_or_default();
    format!("{method} {target} {}", body.escape_ascii())
}

struct Behaviour {
    statuses: Vec<u16>,
    sign: String,
}

/// What the server made of some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Spoken {
    answers: Vec<Answer>,
    is_closed: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    /// The app gave it, and had seen this.
    seen: Option<String>,
    text: String,
}

fn judge<S: HttpService>(app: &Local<S>, bytes: &[u8], dice: &mut Dice) -> Result<Behaviour, String> {
    let whole = speak(app, &[bytes])?;
    let reading = reference::read(bytes);
    compare(&reading, &whole)
        .map_err(|why| format!("{why}\nwanted: {:?}\ngot: {whole:?}", reading.expected))?;
    let pieces = generator::cut(dice, bytes);
    let cut = speak(app, &pieces)?;
    if cut != whole {
        let lengths: Vec<_> = pieces.iter().map(|piece| piece.len()).collect();
        return Err(format!("cut at {lengths:?}: {cut:?}\nwhole: {whole:?}"));
    }
    let statuses = whole.answers.iter().map(|answer| answer.status).collect();
    let mut sign = String::new();
    for answer in &whole.answers {
        let seen = answer.seen.as_ref().map_or(0, |seen| seen.len().min(40) / 8);
        write!(sign, "{} {seen} {};", answer.status, answer.text).expect("a string");
    }
    write!(sign, "{} {:?}", whole.is_closed, reading.expected.last().map(std::mem::discriminant))
        .expect("a string");
    Ok(Behaviour { statuses, sign })
}

fn speak<S: HttpService>(app: &Local<S>, pieces: &[&[u8]]) -> Result<Spoken, String> {
    let spoken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| app.speak(pieces)));
    if HAS_PANICKED.swap(false, Ordering::Relaxed) {
        return Err("a panic".into());
    }
    let testing::Spoken { bytes, is_closed } = spoken.map_err(|_| "a panic")?;
    Ok(Spoken { answers: answers(&bytes)?, is_closed })
}

/// The answers, read strictly: the app's have no body, the server's own have what they say, but for those to HEAD.
fn answers(mut bytes: &[u8]) -> Result<Vec<Answer>, String> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let odd = || format!("no answer: {}", bytes.escape_ascii());
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(odd)?;
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| odd())?;
        let (line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
        let status =
            line.strip_prefix("HTTP/1.").and_then(|line| line.get(2..5)?.parse().ok()).ok_or_else(odd)?;
        bytes = &bytes[end + 4..];
        if status == 100 {
            continue;
        }
        let value = |name: &str| {
            fields
                .split("\r\n")
                .find_map(|field| field.strip_prefix(name)?.strip_prefix(": "))
                .map(str::to_owned)
        };
        let seen = value(SEEN);
        let length = value("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut text = String::new();
        if seen.is_none() && bytes.len() >= length {
            text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            bytes = &bytes[length..];
        }
        answers.push(Answer { status, seen, text });
    }
    Ok(answers)
}

fn compare(reading: &Reading, spoken: &Spoken) -> Result<(), &'static str> {
    let Reading { expected, may_end_after } = reading;
    let answers = &spoken.answers;
    if answers.len() > expected.len() {
        return Err("more answers than requests");
    }
    for (index, (expected, answer)) in expected.iter().zip(answers).enumerate() {
        let is_last = index + 1 == answers.len();
        match (expected, &answer.seen) {
            (Expected::Served(wanted) | Expected::Either(wanted), Some(seen)) => {
                let is_it = wanted == seen || is_unread(seen) && wanted.starts_with(seen);
                if !is_absolute(seen) && !is_it {
                    return Err("the app has seen something else");
                }
            }
            (Expected::Served(_), None) => return Err("a good request is refused"),
            (Expected::Either(_) | Expected::Refused | Expected::Cut, None) if !is_last => {
                return Err("an answer behind a refusal");
            }
            (Expected::Either(_) | Expected::Refused, None) if !spoken.is_closed => {
                return Err("a refusal, and the connection goes on");
            }
            (Expected::Either(_) | Expected::Refused | Expected::Cut, None) => {
                return if answer.status >= 400 { Ok(()) } else { Err("a refusal that is none") };
            }
            // What is wrong with its body, or missing, the app did not want to know.
            (Expected::Refused | Expected::Cut, Some(seen)) if is_unread(seen) && is_last => {}
            (Expected::Refused | Expected::Cut, Some(_)) => {
                return Err("the app has seen what is no request");
            }
        }
    }
    match expected.get(answers.len()) {
        None | Some(Expected::Cut) => Ok(()),
        Some(_) if answers.len() >= *may_end_after => Ok(()),
        Some(_) => Err("a request has no answer"),
    }
}

fn is_unread(seen: &str) -> bool {
    seen.split(' ').next() == Some(UNREAD)
}

/// A target with a host in it is spelt anew by hyper.
fn is_absolute(seen: &str) -> bool {
    seen.split(' ').nth(1).is_some_and(|target| !target.starts_with('/'))
}

/// Leaves out what is not needed for it to go wrong.
fn shrink<S: HttpService>(app: &Local<S>, mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let mut size = bytes.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from + size <= bytes.len() {
            let fewer = [&bytes[..from], &bytes[from + size..]].concat();
            let is_wrong = (0..8).any(|_| judge(app, &fewer, dice).is_err());
            if is_wrong { bytes = fewer } else { from += size }
        }
        size /= 2;
    }
    bytes
}
