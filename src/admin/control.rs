//! The control socket: one wish a connection, as a JSON document on a line, answered by lines of JSON, the last of which has
//! an `outcome`. docs/control.md has the form. Root and the server's own user may ask, whatever the socket's permissions.
//! Not here: how the master is told (`line`), and the client (`ctl`).

use super::line::{Line, Unsent};
use super::{Desk, status};
use crate::control::{News, Scale, Stage, Wish};
use crate::scoreboard::now_millis;
use log::LevelFilter;
use nix::unistd::Uid;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// Clients at a time; who comes then is told so.
pub(super) const MAX_CLIENTS: usize = 32;
/// How long a wish may take to come, and how long it may be.
const REQUEST_TIME: Duration = Duration::from_secs(2);
const REQUEST_BYTES: usize = 4096;
/// How long a line of the answer may take to be read.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// How long the master may take to answer where nobody waits for the outcome.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long somebody may wait.
const WAIT_TIME: Duration = Duration::from_secs(24 * 3600);

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Status,
    Config,
    Crashes,
    /// A tag in all caches of all workers; `None`: everything.
    Flush(Option<String>),
    Wish {
        wish: Wish,
        wait: bool,
    },
}

pub(super) async fn serve(mut stream: UnixStream, desk: &Desk, line: &Line) {
    let answer = match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == Uid::effective().as_raw() => {
            attend(&mut stream, desk, line, peer.uid()).await
        }
        Ok(peer) => {
            log::warn!(
                "control refused uid={} reason=\"only root and the server's own user may\"",
                peer.uid()
            );
            Err(refused("forbidden", "only root and the server's own user may control it"))
        }
        Err(error) => Err(refused("forbidden", &format!("who asks could not be found out: {error}"))),
    };
    if let Err(answer) = answer {
        // Nobody is there to hear of a failure.
        let _ = say(&mut stream, &answer).await;
    }
}

/// What is said to one too many.
pub(super) async fn turn_away(mut stream: UnixStream) {
    let _ = say(&mut stream, &refused("refused", "too many clients at a time")).await;
}

/// The error is an answer still to be given.
async fn attend(stream: &mut UnixStream, desk: &Desk, line: &Line, uid: u32) -> Result<(), Value> {
    let text = timeout(REQUEST_TIME, read_line(stream)).await;
    let text = text.map_err(|_| refused("invalid", "no wish came in time"))?;
    let text = text.map_err(|error| refused("invalid", &error.to_string()))?;
    let request = parse(&text).map_err(|what| refused("invalid", &what))?;
    let now = now_millis();
    let told = |key: &str, value: Value| {
        let mut answer = json!({ "outcome": "done" });
        answer[key] = value;
        Err(answer)
    };
    match request {
        Request::Status => told("status", status::tell(desk, now).await),
        Request::Config => told("settings", status::in_force(&desk.settings).into()),
        Request::Crashes => told("deaths", status::deaths(&desk.board, now).into()),
        Request::Flush(tag) => {
            (desk.flush)(desk.board, tag.as_deref());
            let what = tag.map_or_else(|| "everything".to_owned(), |tag| format!("the tag {tag:?}"));
            log::info!("cache flushed what=\"{}\" uid={uid}", what.replace('"', "'"));
            told("text", format!("no worker serves what was cached of {what} any more").into())
        }
        Request::Wish { wish, wait } => {
            let (ticket, news) = line.wish(wish, wait, uid).map_err(|unsent| match unsent {
                Unsent::Retired => refused("moved", "another process takes wishes now; ask again"),
                Unsent::Lost(error) => refused("lost", &format!("the master cannot be told: {error}")),
            })?;
            let limit = if wait { WAIT_TIME } else { ANSWER_TIME };
            let outcome = timeout(limit, follow(stream, news, wish, wait)).await;
            line.forget(ticket);
            outcome.unwrap_or_else(|_| Err(refused("lost", "the master did not answer in time")))
        }
    }
}

/// Tells the client what becomes of its wish, as long as it is there.
async fn follow(
    stream: &mut UnixStream,
    mut news: Receiver<News>,
    wish: Wish,
    wait: bool,
) -> Result<(), Value> {
    loop {
        let next = tokio::select! {
            next = news.recv() => next,
            // It has nothing more to say: its end is here, or nonsense.
            _ = stream.read_u8() => return Ok(()),
        };
        match next {
            Some(News::Progress(stage)) => {
                if say(stream, &progress(stage)).await.is_err() {
                    return Ok(());
                }
            }
            Some(News::Done(text)) => {
                // A stop is over when this process is, too.
                let is_over = match wish {
                    Wish::Reopen | Wish::Level(_) => true,
                    Wish::Stop { .. } => false,
                    Wish::Reload | Wish::Upgrade | Wish::Scale(_) | Wish::Recycle(_) => wait,
                };
                let outcome = if is_over { "done" } else { "accepted" };
                let master = std::os::unix::process::parent_id();
                return Err(json!({ "outcome": outcome, "text": text, "master_pid": master }));
            }
            Some(News::Refused(reason)) => return Err(refused("refused", &reason)),
            None => return Err(refused("lost", "the master is gone, or told nothing more")),
        }
    }
}

fn progress(stage: Stage) -> Value {
    match stage {
        Stage::PutOff => json!({ "progress": "put_off" }),
        Stage::Reading => json!({ "progress": "reading" }),
        Stage::Trial { generation } => json!({ "progress": "trial", "generation": generation }),
        Stage::Adopted { generation } => json!({ "progress": "adopted", "generation": generation }),
        Stage::Workers { are, wanted } => json!({ "progress": "workers", "ready": are, "wanted": wanted }),
        Stage::Started { pid } => json!({ "progress": "started", "pid": pid }),
        Stage::Left { workers } => json!({ "progress": "replacing", "left": workers }),
    }
}

fn refused(outcome: &str, reason: &str) -> Value {
    json!({ "outcome": outcome, "reason": reason })
}

async fn say(stream: &mut UnixStream, answer: &Value) -> io::Result<()> {
    let line = format!("{answer}\n");
    timeout(WRITE_TIME, stream.write_all(line.as_bytes()))
        .await
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok(line);
        }
        if line.len() >= REQUEST_BYTES {
            return Err(io::Error::other(format!("a wish has at most {REQUEST_BYTES} bytes")));
        }
        let mut piece = [0; 512];
        match stream.read(&mut piece).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => line.extend_from_slice(&piece[..bytes]),
        }
    }
}

fn parse(line: &[u8]) -> Result<Request, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("no JSON: {error}"))?;
    let number = |key: &str| -> Result<Option<u32>, String> {
        let Some(value) = value.get(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.map(Some).ok_or_else(|| format!("{key}: a number was expected"))
    };
    let is = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let wish = match text("wish").ok_or("wish: is missing")? {
        "status" => return Ok(Request::Status),
        "config" => return Ok(Request::Config),
        "crashes" => return Ok(Request::Crashes),
        "flush" => match (text("tag"), is("all")) {
            (Some(tag), false) if !tag.is_empty() => return Ok(Request::Flush(Some(tag.to_owned()))),
            (None, true) => return Ok(Request::Flush(None)),
            (Some(_), _) | (None, false) => return Err("flush: a tag, or all".to_owned()),
        },
        "reload" => Wish::Reload,
        "upgrade" => Wish::Upgrade,
        "scale" => match (number("to")?, number("up")?, number("down")?) {
            (Some(workers), None, None) => Wish::Scale(Scale::To(workers)),
            (None, Some(workers), None) => Wish::Scale(Scale::Up(workers)),
            (None, None, Some(workers)) => Wish::Scale(Scale::Down(workers)),
            _ => return Err("scale: one of to, up and down".to_owned()),
        },
        "recycle" => match (number("slot")?, is("all")) {
            (Some(slot), false) => Wish::Recycle(Some(slot)),
            (None, true) => Wish::Recycle(None),
            (Some(_), true) | (None, false) => return Err("recycle: a slot, or all".to_owned()),
        },
        "stop" => Wish::Stop { now: is("now") },
        "reopen" => Wish::Reopen,
        "loglevel" => {
            let level = text("level").and_then(|level| level.parse::<LevelFilter>().ok());
            Wish::Level(level.ok_or("loglevel: trace, debug, info, warn, error or off")?)
        }
        other => return Err(format!("wish: {other:?} is unknown")),
    };
    Ok(Request::Wish { wish, wait: is("wait") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_as_it_is_meant_or_refused_with_what_is_wrong() {
        let wish = |wish, wait| Ok(Request::Wish { wish, wait });
        let bad = |what: &str| Err(what.to_owned());
        for (line, wanted) in [
            (r#"{"wish":"status"}"#, Ok(Request::Status)),
            (r#"{"wish":"reload","wait":true}"#, wish(Wish::Reload, true)),
            (r#"{"wish":"scale","to":4}"#, wish(Wish::Scale(Scale::To(4)), false)),
            (r#"{"wish":"scale","up":1}"#, wish(Wish::Scale(Scale::Up(1)), false)),
            (r#"{"wish":"scale"}"#, bad("scale: one of to, up and down")),
            (r#"{"wish":"scale","to":4,"up":1}"#, bad("scale: one of to, up and down")),
            (r#"{"wish":"scale","to":-1}"#, bad("to: a number was expected")),
            (r#"{"wish":"scale","to":4294967296}"#, bad("to: a number was expected")),
            (r#"{"wish":"recycle","slot":0}"#, wish(Wish::Recycle(Some(0)), false)),
            (r#"{"wish":"recycle","all":true}"#, wish(Wish::Recycle(None), false)),
            (r#"{"wish":"recycle"}"#, bad("recycle: a slot, or all")),
            (r#"{"wish":"stop","now":true}"#, wish(Wish::Stop { now: true }, false)),
            (r#"{"wish":"loglevel","level":"debug"}"#, wish(Wish::Level(LevelFilter::Debug), false)),
            (r#"{"wish":"loglevel","level":"x"}"#, bad("loglevel: trace, debug, info, warn, error or off")),
            (r#"{"wish":"flush","tag":"a"}"#, Ok(Request::Flush(Some("a".into())))),
            (r#"{"wish":"flush","all":true}"#, Ok(Request::Flush(None))),
            (r#"{"wish":"flush","tag":""}"#, bad("flush: a tag, or all")),
            (r#"{"wish":"fly"}"#, bad("wish: \"fly\" is unknown")),
            ("[]", bad("wish: is missing")),
        ] {
            assert_eq!(parse(line.as_bytes()), wanted, "{line}");
        }
        assert!(parse(b"{\xff").is_err_and(|what| what.starts_with("no JSON")));
    }
}
