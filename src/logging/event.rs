//! A line of the log as an event: its name, and what was said of it under which keys. With it the line can be written as JSON.
//! The words of the source stay the only ones: the name is made of them, and docs/events.md of both, which a test sees to.
//! Not here: who says what.

use log::Level;
use serde_json::{Map, Value, json};

/// What stands before the first key, and the keys with their values.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    words: &'a str,
    fields: Vec<(&'a str, Said<'a>)>,
}

/// A value as it was said.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    /// In quotes, which are taken off.
    Text(&'a str),
    /// One word, or several where nobody quoted them.
    Plain(&'a str),
}

/// The line of `log_format = "json"`, without its end. What others than the server said is no event, and stands there whole.
pub(super) fn json(
    time: &str,
    level: Level,
    (role, pid): (&str, u32),
    target: &str,
    message: &str,
) -> String {
    let mut line = json!({ "time": time, "level": name_of(level), "process": role, "pid": pid });
    if is_own(target) {
        let event = Event::read(message);
        line["event"] = event.name().into();
        line["message"] = event.words.into();
        line["fields"] = event.fields().into();
    } else {
        line["event"] = "record".into();
        line["message"] = message.into();
        line["fields"] = json!({ "target": target });
    }
    line.to_string()
}

fn is_own(target: &str) -> bool {
    target.split("::").next() == Some(env!("CARGO_CRATE_NAME"))
}

/// As the setting `loglevel` has it.
fn name_of(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

impl<'a> Event<'a> {
    pub(super) fn read(message: &'a str) -> Event<'a> {
        let Some(mut at) = next_key(message, 0) else { return Event { words: message, fields: Vec::new() } };
        let words = &message[..at];
        let mut fields = Vec::new();
        while at < message.len() {
            let rest = &message[at + 1..];
            let Some((key, value)) = rest.split_once('=') else { break };
            let (said, length) = match value.strip_prefix('"').and_then(|text| Some((text, closing(text)?))) {
                Some((text, end)) => (Said::Text(&text[..end]), end + 2),
                None => {
                    let end = next_key(value, 0).unwrap_or(value.len());
                    (Said::Plain(&value[..end]), end)
                }
            };
            fields.push((key, said));
            at += 1 + key.len() + 1 + length;
        }
        Event { words, fields }
    }

    /// In one word of lower case, up to a semicolon.
    pub(super) fn name(&self) -> String {
        let words = self.words.split(';').next().unwrap_or_default();
        let mut name = String::new();
        for character in words.chars().filter(|character| *character != '\'') {
            match character {
                'a'..='z' | '0'..='9' => name.push(character),
                'A'..='Z' => name.push(character.to_ascii_lowercase()),
                _ if name.ends_with('_') || name.is_empty() => {}
                _ => name.push('_'),
            }
        }
        name.trim_end_matches('_').to_owned()
    }

    /// The first of two with one key counts.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        for (key, said) in &self.fields {
            fields.entry(*key).or_insert_with(|| said.value());
        }
        fields
    }
}

impl Said<'_> {
    /// A whole number is one; all else is text.
    fn value(&self) -> Value {
        match self {
            Said::Text(text) => text.replace("\\\"", "\"").replace("\\\\", "\\").into(),
            Said::Plain(word) => word.parse::<i64>().map_or_else(|_| Value::from(*word), Value::from),
        }
    }
}

/// Where the next ` key=` begins.
fn next_key(text: &str, from: usize) -> Option<usize> {
    let spaces = text[from..].match_indices(' ').map(|(at, _)| from + at);
    spaces.into_iter().find(|at| begins_key(&text[*at..]))
}

fn begins_key(text: &str) -> bool {
    let Some((key, _)) = text.strip_prefix(' ').and_then(|rest| rest.split_once('=')) else { return false };
    key.starts_with(|first: char| first.is_ascii_lowercase())
        && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The quote that ends a text: with nothing behind it but the next key. So one that somebody else said may have quotes.
fn closing(text: &str) -> Option<usize> {
    text.match_indices('"').map(|(at, _)| at).find(|at| {
        let escapes = text[..*at].bytes().rev().take_while(|byte| *byte == b'\\').count();
        let behind = &text[at + 1..];
        escapes % 2 == 0 && (behind.is_empty() || begins_key(behind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &str) -> Value {
        let line = json("T", Level::Warn, ("w0", 7), concat!(env!("CARGO_CRATE_NAME"), "::worker"), message);
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["level"], &line["process"], &line["pid"]),
            (&json!("warning"), &json!("w0"), &json!(7))
        );
        json!([line["event"], line["fields"]])
    }

    #[test]
    fn a_line_is_taken_apart_into_a_name_and_fields() {
        let table = [
            ("workers complete", json!(["workers_complete", {}])),
            (
                "worker ready slot=2 pid=17 after=4.5ms",
                json!(["worker_ready", {"slot": 2, "pid": 17, "after": "4.5ms"}]),
            ),
            (
                "a route's statement failed place=s.toml:6",
                json!(["a_routes_statement_failed", {"place": "s.toml:6"}]),
            ),
            ("upgrade failed; this master goes on", json!(["upgrade_failed", {}])),
            ("x reason=\"a b=c d\" n=1", json!(["x", {"reason": "a b=c d", "n": 1}])),
            ("x reason=\"no \"id\" here\" n=1", json!(["x", {"reason": "no \"id\" here", "n": 1}])),
            (r#"x reason="no \"id\" = \\ here""#, json!(["x", {"reason": r#"no "id" = \ here"#}])),
            ("x reason=not in quotes n=-1", json!(["x", {"reason": "not in quotes", "n": -1}])),
            ("x reason=\"never closed", json!(["x", {"reason": "\"never closed"}])),
            ("x n=1 n=2", json!(["x", {"n": 1}])),
            ("x a= b=\"\"", json!(["x", {"a": "", "b": ""}])),
            ("x A=1 =2 3", json!(["x_a_1_2_3", {}])),
            ("é\u{1} =", json!(["", {}])),
        ];
        for (message, wanted) in table {
            assert_eq!(read(message), wanted, "{message}");
        }
    }

    #[test]
    fn what_others_say_is_one_record_whatever_is_in_it() {
        let line = json("T", Level::Info, ("w0", 7), "shop::cart", "sold n=1\n\"x\"");
        assert!(!line.contains('\n'));
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["event"], &line["message"]), (&json!("record"), &json!("sold n=1\n\"x\"")));
        assert_eq!(line["fields"], json!({ "target": "shop::cart" }));
    }
}
