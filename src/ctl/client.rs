//! Finds the control socket of a server, asks over it, and waits for what no answer can tell: that the server is gone.
//! Not here: what is asked, and how it is shown.

use super::show::plain;
use crate::config::{
    AdminBind, Bind, CONTROL_SUFFIX, Settings, Source, folders_to_search, plain as plain_name, socket_name,
};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A server that is upgraded or restarted is not to be found for a moment.
const SEARCH_TIME: Duration = Duration::from_secs(1);
const SEARCH_PAUSE: Duration = Duration::from_millis(20);
/// How long an answer may take that is nothing to wait for.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// After an upgrade, how long the new master may take to open its socket.
const TAKE_OVER_TIME: Duration = Duration::from_secs(10);
/// Where no limit was given, wishes end by themselves, by the server's own limits.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// The longest line that is believed to be an answer.
const LINE_BYTES: u64 = 16 * 1024 * 1024;

/// Why there is no outcome.
#[derive(Debug)]
pub(super) enum Trouble {
    Usage(String),
    NoServer(String),
    Forbidden(String),
    Lost(String),
}

pub(super) struct Client {
    source: Source,
    /// Given on the command line.
    socket: Option<PathBuf>,
}

impl Client {
    pub(super) fn new(source: Source, socket: Option<PathBuf>) -> Client {
        Client { source, socket }
    }

    /// The last line of the answer; those before go to `hear`.
    pub(super) fn ask(
        &self,
        request: &Value,
        limit: Option<Duration>,
        mut hear: impl FnMut(&Value),
    ) -> Result<Value, Trouble> {
        let waits = request["wait"] == true;
        let until = Instant::now() + limit.unwrap_or(if waits { FOREVER } else { ANSWER_TIME });
        loop {
            let outcome = self.ask_once(request, until, &mut hear)?;
            // It has been replaced by another process, and has done nothing.
            if outcome["outcome"] != "moved" {
                return Ok(outcome);
            }
            sleep(SEARCH_PAUSE);
        }
    }

    fn ask_once(
        &self,
        request: &Value,
        until: Instant,
        hear: &mut impl FnMut(&Value),
    ) -> Result<Value, Trouble> {
        let lost = |what: &str| Trouble::Lost(format!("the outcome is not known: {what}"));
        let mut stream = self.connect()?;
        // Whoever refuses at once may not read it any more.
        let _ = stream.write_all(format!("{request}\n").as_bytes());
        let mut reader = BufReader::new(stream);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(lost("the time is over, and the server goes on"));
            }
            let set = reader.get_ref().set_read_timeout(Some(left));
            set.map_err(|error| lost(&error.to_string()))?;
            let mut line = String::new();
            match reader.by_ref().take(LINE_BYTES).read_line(&mut line) {
                Ok(0) => return Err(lost("the server closed the connection")),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(lost(&error.to_string())),
            }
            let value: Value = serde_json::from_str(&line).map_err(|_| lost("the answer is no JSON"))?;
            if value.get("outcome").is_some() {
                return Ok(value);
            }
            hear(&value);
        }
    }

    fn connect(&self) -> Result<UnixStream, Trouble> {
        let until = Instant::now() + SEARCH_TIME;
        loop {
            let found = self.find().and_then(|path| match UnixStream::connect(&path) {
                Ok(stream) => Ok(stream),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    Err(Trouble::Forbidden(format!("{}: {error}", path.display())))
                }
                Err(error) => Err(Trouble::NoServer(format!("no server at {}: {error}", path.display()))),
            });
            match found {
                Err(Trouble::NoServer(_)) if Instant::now() < until => sleep(SEARCH_PAUSE),
                other => return other,
            }
        }
    }

    fn find(&self) -> Result<PathBuf, Trouble> {
        if let Some(path) = &self.socket {
            return Ok(path.clone());
        }
        let settings = self.source.read_some(&["admin.control", "bind", "proc_name"]);
        match &settings.admin.control {
            AdminBind::At(Bind::Unix(path)) => Ok(path.clone()),
            AdminBind::Off => Err(Trouble::Usage("the settings have admin.control = \"off\"".to_owned())),
            AdminBind::Auto | AdminBind::At(Bind::Tcp { .. }) => {
                let folders = folders_to_search(|name| std::env::var_os(name));
                let names: Vec<PathBuf> = folders.iter().flat_map(|folder| sockets_in(folder)).collect();
                let is_chosen = self.source.names("bind");
                choose(&settings, is_chosen, names).map_err(|what| {
                    let folders: Vec<String> =
                        folders.iter().map(|folder| folder.display().to_string()).collect();
                    Trouble::NoServer(format!("{what} in {}; --socket names one", folders.join(" and ")))
                })
            }
        }
    }

    /// Waits until another master answers.
    pub(super) fn wait_for_another(&self, outcome: &Value) -> Result<Value, Trouble> {
        // Where both masters go on, the old one does answer.
        if !outcome["text"].as_str().is_some_and(|text| text.contains("pid=")) {
            return Ok(outcome.clone());
        }
        let until = Instant::now() + TAKE_OVER_TIME;
        loop {
            let status = self.ask(&json!({ "wish": "status" }), None, |_| {});
            if status.is_ok_and(|status| status["status"]["server"]["master_pid"] != outcome["master_pid"]) {
                return Ok(outcome.clone());
            }
            if Instant::now() > until {
                return Err(Trouble::Lost("the new master has the server and takes no wishes".to_owned()));
            }
            sleep(SEARCH_PAUSE);
        }
    }

    /// Waits until the master is gone.
    pub(super) fn wait_for_the_end(
        &self,
        outcome: &Value,
        limit: Option<Duration>,
    ) -> Result<Value, Trouble> {
        let until = Instant::now() + limit.unwrap_or(FOREVER);
        let Some(master) = outcome["master_pid"].as_u64() else {
            return Err(Trouble::Lost("the server did not say who it is".to_owned()));
        };
        while self.is_there(master) {
            if Instant::now() > until {
                return Err(Trouble::Lost("the time is over, and the server still stops".to_owned()));
            }
            sleep(SEARCH_PAUSE);
        }
        Ok(json!({ "outcome": "done", "text": "the server has stopped", "master_pid": master }))
    }

    /// Whether the process is, by the kernel's word or, where it is hidden from us, its own.
    fn is_there(&self, master: u64) -> bool {
        if let Ok(stat) = fs::read_to_string(format!("/proc/{master}/stat")) {
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            return !matches!(state, Some('Z' | 'X'));
        }
        let Ok(path) = self.find() else { return false };
        let Ok(stream) = UnixStream::connect(path) else { return false };
        drop(stream);
        let status = self.ask(&json!({ "wish": "status" }), None, |_| {});
        status.is_ok_and(|status| status["status"]["server"]["master_pid"] == master)
    }
}

fn sockets_in(folder: &Path) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == CONTROL_SUFFIX);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(is_one).collect()
}

/// Which of these is the server's: by its name and address, or the only one of its name where the settings do not say the address.
fn choose(settings: &Settings, is_chosen: bool, sockets: Vec<PathBuf>) -> Result<PathBuf, String> {
    let name_of = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let prefix = format!("{}-", plain_name(&settings.proc_name));
    let mut named: Vec<PathBuf> =
        sockets.into_iter().filter(|path| name_of(path).starts_with(&prefix)).collect();
    let addr = match settings.bind.first() {
        Some(Bind::Tcp { host, port: 1.. }) if host.is_empty() => {
            settings.bind.first().map(|bind| format!("0.0.0.0{bind}"))
        }
        Some(Bind::Tcp { port: 0, .. }) | None => None,
        Some(bind @ Bind::Tcp { .. }) => Some(bind.to_string()),
        Some(Bind::Unix(path)) => Some(path.display().to_string()),
    };
    let exact = addr.as_ref().map(|addr| socket_name(&settings.proc_name, addr, CONTROL_SUFFIX));
    if let Some(at) = named.iter().position(|path| exact.as_ref() == Some(&name_of(path))) {
        return Ok(named.swap_remove(at));
    }
    match settings.bind.first() {
        // A name for the address, in place of its numbers.
        Some(Bind::Tcp { port: port @ 1.., .. }) if is_chosen => {
            named.retain(|path| name_of(path).ends_with(&format!(":{port}.{CONTROL_SUFFIX}")));
        }
        Some(Bind::Unix(_)) if is_chosen => named.clear(),
        Some(Bind::Tcp { .. } | Bind::Unix(_)) | None => {}
    }
    match named.len() {
        1 => Ok(named.swap_remove(0)),
        0 => Err(format!("no control socket of {}", plain(&settings.proc_name))),
        _ => Err(format!("several control sockets of {}", plain(&settings.proc_name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_that_of_the_servers_name_and_address_or_the_only_one() {
        let settings = |bind: &str| Settings { bind: vec![bind.parse().unwrap()], ..Settings::default() };
        let both = ["ferricorn-127.0.0.1:8000.ctl", "ferricorn-127.0.0.1:8001.ctl"];
        for (bind, is_chosen, there, wanted) in [
            ("127.0.0.1:8000", true, &both[..], Some(both[0])),
            ("127.0.0.1:8000", false, &both[..], Some(both[0])),
            ("localhost:8001", true, &both[..], Some(both[1])),
            ("127.0.0.1:8002", true, &both[..1], None),
            ("127.0.0.1:8002", false, &both[..1], Some(both[0])),
            ("127.0.0.1:0", true, &both[..1], Some(both[0])),
            ("127.0.0.1:0", true, &both[..], None),
            (":8000", true, &["ferricorn-0.0.0.0:8000.ctl"], Some("ferricorn-0.0.0.0:8000.ctl")),
            ("unix:/run/s.sock", true, &["ferricorn--run-s.sock.ctl"], Some("ferricorn--run-s.sock.ctl")),
            ("unix:/run/t.sock", true, &["ferricorn--run-s.sock.ctl"], None),
            ("127.0.0.1:0", true, &["shop-127.0.0.1:8000.ctl"], None),
            ("127.0.0.1:0", true, &[], None),
        ] {
            let there = there.iter().map(PathBuf::from).collect();
            let chosen = choose(&settings(bind), is_chosen, there).ok();
            assert_eq!(chosen, wanted.map(PathBuf::from), "{bind} {is_chosen}");
        }
    }
}
