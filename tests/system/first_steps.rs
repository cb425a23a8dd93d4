//! docs/first-steps.md, done as it says, command by command. Not here: what the README shows.

use crate::support::ports::free_port;
use crate::support::{DEADLINE, repository};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Stands for anything within a line, or, alone, for any lines.
const ANYTHING: &str = "…";

/// Where the steps are taken. What was started there ends with it.
struct Place {
    dir: tempfile::TempDir,
    port: u16,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::Builder::new().prefix("ferricorn-").tempdir().unwrap();
        repository::copy_demo(dir.path());
        fs::copy(dir.path().join("conf/server.toml"), dir.path().join("shop.toml")).unwrap();
        Place { dir, port: free_port() }
    }

    /// What the command says, on both streams.
    fn run(&self, command: &str) -> String {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_ferricorn"));
        let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let command = command.replace(":8000", &format!(":{}", self.port));
        let output = Command::new("sh")
            .args(["-c", &format!("({command}) 2>&1")])
            .current_dir(self.dir.path())
            .env("PATH", path)
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("FERRICORN_CMD_ARGS", format!("-b 127.0.0.1:{}", self.port))
            .env_remove("FERRICORN_DATABASE_URL")
            .env_remove("RUNTIME_DIRECTORY")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().replace(&format!(":{}", self.port), ":8000")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Ok(text) = fs::read_to_string(self.dir.path().join("ferricorn.pid")) else { return };
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.dir.path().join("ferricorn.log")).unwrap_or_default());
        }
        let _ = text.trim().parse().map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
    }
}

/// Each command of the page with what it is said to say.
fn steps(page: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    for block in page.split("```console\n").skip(1) {
        for line in block.split_once("```").expect("a block ends").0.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push((command.into(), String::new())),
                (None, Some((_, said))) => *said += &format!("{line}\n"),
                (None, None) => panic!("no command before {line:?}"),
            }
        }
    }
    steps
}

/// Whether `said` is as `wanted`.
fn is_as(said: &str, wanted: &str) -> bool {
    fn lines_are(said: &[&str], wanted: &[&str]) -> bool {
        match (wanted, said) {
            ([], said) => said.is_empty(),
            ([ANYTHING, rest @ ..], _) => (0..=said.len()).any(|count| lines_are(&said[count..], rest)),
            ([_, ..], []) => false,
            ([first, rest @ ..], [line, others @ ..]) => line_is(line, first) && lines_are(others, rest),
        }
    }
    fn line_is(line: &str, wanted: &str) -> bool {
        let mut parts = wanted.split(ANYTHING);
        let Some(mut line) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return line.is_empty() };
        for part in parts {
            let Some((_, rest)) = line.split_once(part.trim()) else { return false };
            line = rest;
        }
        line.ends_with(last.trim())
    }
    lines_are(&Vec::from_iter(said.lines()), &Vec::from_iter(wanted.lines()))
}

#[test]
fn the_first_steps_go_as_they_are_said_to() {
    let steps = steps(&repository::read("docs/first-steps.md"));
    assert!(steps.len() >= 15, "there are {} steps", steps.len());
    let place = Place::new();
    for (command, wanted) in steps {
        // A look may come too early. Everything else is done once.
        let is_look = [
            "cat",
            "tail",
            "curl",
            "grep",
            "ferricorn ctl -c shop.toml status",
            "ferricorn ctl -c shop.toml crashes",
        ]
        .iter()
        .any(|look| command.starts_with(look));
        let begin = Instant::now();
        loop {
            let said = place.run(&command);
            if is_as(&said, &wanted) {
                break;
            }
            assert!(is_look && begin.elapsed() < DEADLINE, "$ {command}\n{said}\nand not\n{wanted}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn what_differs_is_told_from_what_does_not() {
    for (said, wanted, is_good) in [
        ("a\n", "a\n", true),
        ("a\n", "b\n", false),
        ("a\nb\n", "a\n", false),
        ("a\n", "a\nb\n", false),
        ("a 1 b\n", "a … b\n", true),
        ("a 1 c\n", "a … b\n", false),
        ("1 a\n", "… a\n", true),
        ("a 1\n", "a …\n", true),
        ("a\nx\ny\nb\n", "a\n…\nb\n", true),
        ("a\nb\n", "a\n…\nb\n", true),
        ("a\nx\n", "a\n…\nb\n", false),
        ("", "", true),
        ("x\n", "", false),
    ] {
        assert_eq!(is_as(said, wanted), is_good, "{said:?} {wanted:?}");
    }
}
