//! A program about to be started: which one, with which arguments, settings file and environment.
//! Not here: the running program (server.rs).

use super::Server;
use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// A server to be. It gets a directory of its own, which is also its working directory.
pub struct Program {
    path: PathBuf,
    wrapper: Vec<OsString>,
    within: Option<PathBuf>,
    bind: Option<String>,
    args: Vec<OsString>,
    environment: Vec<(String, String)>,
    pub(super) stdin: Option<OwnedFd>,
    /// How many workers `start` waits for.
    pub(super) expected: usize,
    pub(super) dir: TempDir,
}

/// How a program ended that was run to its end.
#[derive(Debug)]
pub struct Outcome {
    /// `None`: ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
}

impl Program {
    /// The stock app: serves what the settings file describes.
    pub fn stock() -> Program {
        Program::at(PathBuf::from(env!("CARGO_BIN_EXE_ferricorn")))
    }

    /// examples/probe.rs, which misbehaves on demand.
    pub fn probe() -> Program {
        Program::at(example("probe"))
    }

    /// The probe, copied to `server` in the program's folder, where another can be put in its place.
    pub fn replaceable() -> Program {
        let mut program = Program::probe();
        let copy = program.dir().join("server");
        put_program(&program.path, &copy);
        program.path = copy;
        program
    }

    /// An example, or another program that cargo builds beside them.
    pub fn example(name: &str) -> Program {
        Program::at(example(name))
    }

    /// Any program that takes `-b` and says where it listens.
    pub fn at(path: PathBuf) -> Program {
        let dir = tempfile::Builder::new().prefix("ferricorn-").tempdir().expect("a temporary directory");
        Program {
            path,
            wrapper: Vec::new(),
            within: None,
            bind: Some("127.0.0.1:0".to_owned()),
            args: Vec::new(),
            environment: Vec::new(),
            stdin: None,
            expected: 1,
            dir,
        }
    }

    /// Where the program will run; files that it needs go here.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Passes `-w count`, and `start` waits until they are all ready.
    pub fn workers(mut self, count: usize) -> Program {
        self.expected = count;
        self.args(&format!("-w {count}"))
    }

    /// `start` waits for this many workers; the number itself comes from elsewhere.
    pub fn expect_workers(mut self, count: usize) -> Program {
        self.expected = count;
        self
    }

    /// Arguments separated by spaces. One with a space in it: `arg`.
    pub fn args(mut self, args: &str) -> Program {
        self.args.extend(args.split_whitespace().map(OsString::from));
        self
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Program {
        self.args.push(arg.into());
        self
    }

    /// Instead of a free port of 127.0.0.1.
    pub fn bind(mut self, bind: &str) -> Program {
        self.bind = Some(bind.to_owned());
        self
    }

    /// No `-b` at all: for settings that bring their own.
    pub fn unbound(mut self) -> Program {
        self.bind = None;
        self
    }

    /// Writes the settings file and passes it with `-c`.
    pub fn config(self, text: &str) -> Program {
        let program = self.file("server.toml", text);
        program.args("-c server.toml")
    }

    /// Puts a file into the program's directory.
    pub fn file(self, name: &str, text: &str) -> Program {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().expect("a file is in a folder"))
            .expect("the temporary directory is writable");
        fs::write(path, text).expect("the temporary directory is writable");
        self
    }

    /// Starts the program in this folder instead of its own.
    pub fn within(mut self, folder: &Path) -> Program {
        self.within = Some(folder.to_owned());
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Program {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the program through another one, which must end by exec or wait for it.
    pub fn through(mut self, wrapper: &[&str]) -> Program {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    /// Passes the socket in as systemd does, as the descriptors 3 and on, one for each of `names`.
    pub fn passing(mut self, socket: impl Into<OwnedFd>, names: &[&str]) -> Program {
        self.stdin = Some(socket.into());
        let fds: String = (3..3 + names.len()).map(|fd| format!(" {fd}<&0")).collect();
        let variables =
            format!("LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}", names.len(), names.join(":"));
        let script = format!(r#"exec{fds} && {variables} exec "$0" "$@" </dev/null"#);
        self.through(&["sh", "-c", &script])
    }

    /// Limits the open files of the program with the shell's `ulimit`.
    pub fn open_files(self, limit: u32) -> Program {
        self.through(&["sh", "-c", &format!(r#"ulimit -n {limit} && exec "$0" "$@""#)])
    }

    /// Starts it and waits until it listens and all expected workers are ready.
    #[track_caller]
    pub fn start(self) -> Server {
        let expected = self.expected;
        let server = self.spawn();
        server.wait_listening();
        server.wait_each(super::Said::Ready, expected);
        server
    }

    /// Starts it and waits for nothing.
    pub fn spawn(self) -> Server {
        Server::spawn(self)
    }

    /// Runs it to its end, for starts that must fail and for `--check-config`.
    pub fn run(self) -> Outcome {
        let begin = Instant::now();
        let output = self.command().stdin(Stdio::null()).output().expect("the program can be started");
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            elapsed: begin.elapsed(),
        }
    }

    pub(super) fn command(&self) -> Command {
        let words: Vec<OsString> =
            self.wrapper.iter().cloned().chain([self.path.clone().into_os_string()]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if let Some(bind) = &self.bind {
            command.arg("-b").arg(bind);
        }
        command.args(&self.args).current_dir(self.within.as_deref().unwrap_or(self.dir()));
        // The developer's own environment must not decide a test.
        for name in ["FERRICORN_CMD_ARGS", "FERRICORN_DATABASE_URL", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Puts a copy of a program, or of a script, where it can be executed. Another process writes it: what this one has open for
/// writing is open for a moment in whatever other threads start, too, and can be executed by nobody until then.
#[track_caller]
pub fn put_program(from: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).args([from, to]).status();
    assert!(status.expect("install is part of coreutils").success(), "{from:?} {to:?}");
}

/// Where cargo put an example. `cargo test` builds them all; `cargo test --test system` does not, and a stale
/// one would test yesterday's server.
fn example(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_ferricorn")).with_file_name("examples").join(name);
    assert!(is_fresh(&beside), "{name} is missing or older than its sources: run cargo build --examples");
    beside
}

/// Cargo writes what a program was made from beside it, as `program: source source`.
fn is_fresh(program: &Path) -> bool {
    let (Some(built), Ok(rule)) = (modified(program), fs::read_to_string(program.with_extension("d"))) else {
        return false;
    };
    let sources = rule.split_once(": ").map_or("", |(_, sources)| sources);
    sources.split_whitespace().all(|source| modified(Path::new(source)).is_some_and(|time| time <= built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
