//! What the server answered, for people. Whatever it is, it comes from another process and is shown without control characters.
//! Not here: what `--json` prints.

use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;

/// Without what a terminal would act on.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// How far a wish is, in a line.
pub(super) fn progress(line: &Value) -> Option<String> {
    let number = |key: &str| line[key].as_u64().unwrap_or_default();
    Some(match line["progress"].as_str()? {
        "put_off" => "put off until what is under way has ended".to_owned(),
        "reading" => "the settings are read".to_owned(),
        "trial" => format!("the first worker of generation {} starts", number("generation")),
        "adopted" => format!("generation {} was adopted", number("generation")),
        "workers" => format!("{} of {} workers are ready", number("ready"), number("wanted")),
        "started" => format!("the new master was started, pid {}", number("pid")),
        "replacing" => format!("{} workers to replace", number("left")),
        other => plain(other),
    })
}

/// The last line of an answer, with an end of line.
pub(super) fn answer(outcome: &Value) -> String {
    if let Some(status) = outcome.get("status") {
        return self::status(status);
    }
    if let Some(deaths) = outcome.get("deaths") {
        return self::deaths(deaths);
    }
    if let Some(settings) = outcome.get("settings").and_then(Value::as_object) {
        let rows = settings.iter().map(|(key, setting)| {
            vec![format!("{} = {}", key, text(&setting["value"])), format!("# {}", text(&setting["origin"]))]
        });
        return table(&rows.collect::<Vec<_>>(), &[]);
    }
    format!("{}\n", text(&outcome["text"]))
}

pub(super) fn status(status: &Value) -> String {
    let mut out = server(status);
    out.push_str(&changes_and_listeners(status));
    out.push_str(&workers(status));
    let deaths = status["deaths"].as_array().map_or(0, Vec::len);
    if deaths > 0 {
        let _ = writeln!(out, "\nlast deaths: {deaths}; `ctl crashes` shows them");
    }
    out
}

/// The lines about the server as a whole.
pub(super) fn server(status: &Value) -> String {
    let server = &status["server"];
    let leaving = if server["is_leaving"] == true { ", about to stop" } else { "" };
    let mut out = format!(
        "ferricorn {} master {} up {}, generation {}, {} workers wanted{leaving}\n",
        text(&server["version"]),
        text(&server["master_pid"]),
        age(&server["uptime_seconds"]),
        text(&server["generation"]),
        text(&server["workers_wanted"]),
    );
    if let Some(last) = server["last_reload"].as_str().filter(|last| !last.is_empty()) {
        let ago = age(&status["last_reload"]["ago_seconds"]);
        let _ = writeln!(out, "last reload: {}, {ago} ago", plain(last));
    }
    out
}

fn changes_and_listeners(status: &Value) -> String {
    let mut out = String::new();
    for change in status["last_reload"]["changes"].as_array().into_iter().flatten() {
        let values = match (&change["old"], &change["new"]) {
            // Some settings have more to them than is shown.
            (Value::String(old), Value::String(new)) if old != new => {
                format!("{} → {}", plain(old), plain(new))
            }
            (_, _) => "changed".to_owned(),
        };
        let fixed = if change["is_fixed"] == true { ", after an upgrade or a restart" } else { "" };
        let _ = writeln!(out, "  {} {values}{fixed}", text(&change["setting"]));
    }
    for listener in status["listeners"].as_array().into_iter().flatten() {
        let on = text(&listener["on"]);
        let _ = match listener["waiting"].as_u64() {
            Some(waiting) => {
                let backlog = text(&listener["backlog"]);
                writeln!(out, "listening on {on}, {waiting} wait to be accepted, of {backlog} at a socket")
            }
            None => writeln!(out, "listening on {on}"),
        };
    }
    out
}

fn workers(status: &Value) -> String {
    const HEAD: [&str; 10] =
        ["SLOT", "PID", "GEN", "STATE", "AGE", "REQUESTS", "CONNS", "NOW", "CPU s", "MEMORY"];
    let rows = status["workers"].as_array().into_iter().flatten().map(|worker| {
        let mut row: Vec<String> =
            ["slot", "pid", "generation", "state"].map(|key| text(&worker[key])).into();
        row.push(age(&worker["uptime_seconds"]));
        row.extend(["requests", "connections", "in_flight"].map(|key| text(&worker[key])));
        row.push(worker["cpu_seconds"].as_f64().map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1}")));
        row.push(bytes(&worker["anonymous_bytes"]));
        row
    });
    let mut out = table(&rows.collect::<Vec<_>>(), &HEAD);
    for worker in status["workers"].as_array().into_iter().flatten() {
        for request in worker["requests_in_flight"].as_array().into_iter().flatten() {
            let slot = text(&worker["slot"]);
            let _ = writeln!(out, "  w{slot} {}", self::request(request));
        }
    }
    out
}

fn request(request: &Value) -> String {
    let seconds = request["age_seconds"].as_f64().unwrap_or_default();
    let [method, path, phase] = ["method", "path", "phase"].map(|key| text(&request[key]));
    format!("{method} {path} {phase} for {seconds:.1} s")
}

fn deaths(deaths: &Value) -> String {
    let mut out = String::new();
    for death in deaths.as_array().into_iter().flatten() {
        let _ = writeln!(
            out,
            "{} ago  w{} pid {}  {}, after {} and {} requests, {} under way",
            age(&death["ago_seconds"]),
            text(&death["slot"]),
            text(&death["pid"]),
            text(&death["cause"]),
            age(&death["age_seconds"]),
            text(&death["requests"]),
            text(&death["in_flight"]),
        );
        for lost in death["requests_in_flight"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "    lost {}", request(lost));
        }
    }
    if out.is_empty() { "no worker has crashed\n".to_owned() } else { out }
}

/// A value in a line.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn age(seconds: &Value) -> String {
    let seconds =
        Duration::try_from_secs_f64(seconds.as_f64().unwrap_or_default()).unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        86_400.. => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

fn bytes(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}M", bytes / (1024.0 * 1024.0)))
}

/// Columns as wide as their widest.
pub(super) fn table(rows: &[Vec<String>], head: &[&str]) -> String {
    let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let all = || Some(&head).filter(|head| !head.is_empty()).into_iter().chain(rows);
    let columns = all().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    // One cell of great length is not to push the others off the screen.
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default().min(60)).collect();
    let mut out = String::new();
    for row in all() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_shown() {
        let hostile =
            json!({ "outcome": "done", "deaths": [{ "cause": "\u{1b}[2J\u{7}x", "ago_seconds": 61.0 }] });
        let shown = answer(&hostile);
        assert!(
            shown.starts_with("1m01s ago") && !shown.contains('\u{1b}') && !shown.contains('\u{7}'),
            "{shown:?}"
        );
    }

    #[test]
    fn the_last_reload_and_the_listeners_are_shown_in_lines() {
        let change = |setting: &str, values: [Option<&str>; 2], is_fixed: bool| json!({ "setting": setting, "old": values[0], "new": values[1], "is_fixed": is_fixed });
        let changes = [
            change("a", [Some("1"), Some("2")], false),
            change("b", [Some("\u{1b}"), Some("x")], true),
            change("c", [None; 2], false),
            change("d", [Some("***"); 2], false),
        ];
        let waiting = json!({ "on": "127.0.0.1:1", "waiting": 3, "backlog": 9 });
        let told = json!({
            "last_reload": { "changes": changes },
            "listeners": [waiting, { "on": "unix:s", "waiting": null, "backlog": 9 }],
        });
        assert_eq!(
            changes_and_listeners(&told),
            "  a 1 → 2\n  b   → x, after an upgrade or a restart\n  c changed\n  d changed\n\
             listening on 127.0.0.1:1, 3 wait to be accepted, of 9 at a socket\nlistening on unix:s\n"
        );
        assert_eq!(changes_and_listeners(&json!({ "last_reload": null })), "");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [vec!["1".to_owned(), "serving".to_owned()], vec!["10".to_owned(), "x".to_owned()]];
        assert_eq!(table(&rows, &["SLOT", "STATE"]), "SLOT  STATE\n1     serving\n10    x\n");
    }
}
