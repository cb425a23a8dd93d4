//! docs/events.md is the list of what the server can log, read off its source.

/// The same that the log itself makes names with.
#[allow(dead_code, reason = "only names and keys are asked for")]
#[path = "../../src/logging/event.rs"]
mod event;

use event::Event;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Words of the source that stand for several, each with all that they can be.
const STANDS_FOR: [(&str, &str, &[&str]); 5] = [
    ("src/master/door.rs", "{name}", &["admin", "control"]),
    ("src/master/crew.rs", "{name}", &["admin", "notify"]),
    ("src/master/mod.rs", "{name}", &["error", "access"]),
    ("src/app/program", "{who}", &["name=\"\" child="]),
    ("src/app/program", "{life}", &["pid= why=\"\" cause=\"\" age= answered="]),
];

/// Which part of the source is whose, in the order of the page.
const PARTS: [(&str, &str); 5] = [
    ("src/master/", "The master"),
    ("src/worker/", "A worker"),
    ("src/app/", "What an app uses: database, caches, programs, threads, and the stock app"),
    ("src/admin/", "The admin process"),
    ("src/", "All processes, and what is said before or beside them"),
];

#[derive(Default)]
struct Known {
    levels: BTreeSet<String>,
    keys: Vec<String>,
}

#[test]
fn the_list_of_events_is_the_source() {
    let path = Path::new(ROOT).join("docs/events.md");
    let wanted = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let is = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(is == wanted, "docs/events.md is stale: run the tests once with UPDATE_DOCS=1");
}

fn page() -> String {
    let mut page = String::from(
        "# Events\n\nWhat the server can log, read off its source. In text a line is `TIME LEVEL [PROCESS PID] words key=value`; with \
         `log_format = \"json\"` it is an\nobject: `time`, `level`, `process` (`master`, `w3`, `admin`), `pid`, `event`, `message` (the \
         words), `fields` (the keys). The words make the event's\nname, so both formats say the same: `worker ready` is `worker_ready`. \
         Names and keys stay what they are; keys may be added. A value is a number where it is\na whole one, else text; \
         durations have a unit (`4.5ms`). Lines of a request end with `request_id=` where requests have ids.\n\nWhat the app itself \
         logs is the event `record`, with its text as `message` and the module as `fields.target`. Lines that come before the \
         log is open,\nsuch as a refusal of the settings, are plain text on the standard error.\n",
    );
    let mut all = events();
    for (folder, title) in PARTS {
        page += &format!("\n## {title}\n\n| event | level | keys |\n|---|---|---|\n");
        let (of_part, rest): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|((file, _), _)| file.starts_with(folder));
        let mut merged: BTreeMap<String, Known> = BTreeMap::new();
        for ((_, name), known) in of_part {
            let entry = merged.entry(name).or_default();
            entry.levels.extend(known.levels);
            for key in known.keys {
                if !entry.keys.contains(&key) {
                    entry.keys.push(key);
                }
            }
        }
        for (name, Known { levels, keys }) in merged {
            let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
            let levels = Vec::from_iter(levels).join(", ");
            page += &format!("| `{name}` | {levels} | {} |\n", keys.join(" "));
        }
        all = rest.into_iter().collect();
    }
    page
}

/// By file and name.
fn events() -> BTreeMap<(String, String), Known> {
    let mut events: BTreeMap<(String, String), Known> = BTreeMap::new();
    for path in sources(&Path::new(ROOT).join("src")) {
        let file = path.strip_prefix(ROOT).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (levels, literal) in said_in(text) {
            for message in spelled_out(&file, &literal) {
                let event = Event::read(&message);
                assert!(
                    !event.name().is_empty() && !message.starts_with('{'),
                    "{file}: {message:?} has no name"
                );
                let known = events.entry((file.clone(), event.name())).or_default();
                known.levels.extend(levels.iter().cloned());
                known.keys.extend(event.fields().keys().cloned());
            }
        }
    }
    events
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Each logging call outside of comments: its levels and its text.
fn said_in(text: &str) -> Vec<(Vec<String>, String)> {
    let mut said = Vec::new();
    for (at, _) in text.match_indices("log::") {
        let line = text[..at].rsplit('\n').next().unwrap().trim_start();
        let Some((of, rest)) = text[at + 5..].split_once("!(") else { continue };
        if line.starts_with("//") || !["error", "warn", "info", "debug", "trace", "log"].contains(&of) {
            continue;
        }
        let Some(start) = rest.find('"') else { continue };
        let levels = match of {
            "log" => {
                // Chosen there, or a few lines before.
                let before: Vec<&str> = text[..at].lines().rev().take(12).collect();
                let near = if rest[..start].contains("Level::") {
                    rest[..start].to_owned()
                } else {
                    before.join("\n")
                };
                let names = near.split("Level::").skip(1);
                names
                    .map(|name| name.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_lowercase())
                    .collect()
            }
            other => vec![other.to_owned()],
        };
        let levels = levels.into_iter().map(|level| if level == "warn" { "warning".into() } else { level });
        said.push((levels.collect(), literal(&rest[start + 1..])));
    }
    said
}

/// What a string literal says, from behind its first quote.
fn literal(source: &str) -> String {
    let (mut text, mut characters) = (String::new(), source.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => match characters.next() {
                // The line goes on.
                Some('\n') => {
                    let rest = characters.as_str().trim_start();
                    characters = rest.chars();
                }
                Some(escaped) => text.push(escaped),
                None => break,
            },
            other => text.push(other),
        }
    }
    text
}

fn spelled_out(file: &str, literal: &str) -> Vec<String> {
    let mut messages = vec![literal.to_owned()];
    for (of, short, long) in STANDS_FOR {
        if file.starts_with(of)
            && literal.contains(short)
            && !literal.contains(&format!("={short}"))
            && !literal.contains(&format!("\"{short}"))
        {
            messages = messages
                .iter()
                .flat_map(|message| long.iter().map(|long| message.replace(short, long)))
                .collect();
        }
    }
    messages
}
