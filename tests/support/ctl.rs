//! `ferricorn ctl` against a running server. Not here: what it should answer.

use super::{Outcome, Server};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// Where the tests' servers take wishes, in their own folder.
pub const SOCKET: &str = "c.sock";

/// What starts a server so that `Ctl` finds it.
pub const FLAG: &str = "--admin-control unix:c.sock";

/// A command that runs.
pub struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

/// Found by the flag that the server was started with.
pub fn command(server: &Server, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferricorn"));
    command.arg("ctl").args(FLAG.split(' ')).args(arguments.split_whitespace()).current_dir(server.dir());
    for name in ["FERRICORN_CMD_ARGS", "FERRICORN_DATABASE_URL", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn ctl(server: &Server, arguments: &str) -> Outcome {
    finish(&mut command(server, arguments))
}

pub fn finish(command: &mut Command) -> Outcome {
    let begin = Instant::now();
    let output = command.output().expect("the client can be started");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        elapsed: begin.elapsed(),
    }
}

/// The lines of a command with `--json`.
#[track_caller]
pub fn json(outcome: &Outcome) -> Vec<Value> {
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    outcome.stdout.lines().map(read).collect()
}

/// Starts a command with `--json`.
pub fn start(server: &Server, arguments: &str) -> Running {
    let mut child = command(server, &format!("{arguments} --json"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the client can be started");
    let lines = BufReader::new(child.stdout.take().expect("it is a pipe"));
    Running { child, lines }
}

impl Running {
    /// The next line, as soon as there is one.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it is text");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// All that is left, and the exit code.
    #[track_caller]
    pub fn finish(mut self) -> (Vec<Value>, Option<i32>) {
        let lines = self.lines.lines().map(|line| line.expect("it is text"));
        let lines = lines.map(|line| serde_json::from_str(&line).expect("it is JSON")).collect();
        (lines, self.child.wait().expect("our own child").code())
    }

    pub fn kill(mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }
}
