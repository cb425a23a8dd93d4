//! Settings from outside: what is refused, what is only warned about, and what can be asked.

use crate::support::server::End;
use crate::support::{Outcome, Program, Said};
use std::fs;
use std::time::Duration;

/// What needs no server is told within this time, which is a second's work on a machine that has much else to do.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Exit code 2, at once, one message that names everything in `named`, and no trace left.
#[track_caller]
fn refused(outcome: &Outcome, named: &[&str]) {
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.elapsed < AT_ONCE, "{outcome:?}");
    for word in named {
        assert!(outcome.stderr.contains(word), "no {word:?} in {:?}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("worker spawned"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("listening"), "{}", outcome.stderr);
}

#[test]
fn a_wrong_line_in_the_file_is_refused_with_its_place() {
    // (file, what the message must name)
    let cases: [(&str, &[&str]); 9] = [
        ("wrokers = 2\n", &["server.toml:1", "wrokers", "workers"]),
        ("\n\nworkers = \"many\"\n", &["server.toml:3", "workers", "many", "auto"]),
        ("workers = 0\n", &["server.toml:1", "workers", "0"]),
        ("timeout = \"30 fortnights\"\n", &["server.toml:1", "timeout", "30 fortnights"]),
        ("limit_request_body = \"1MB?\"\n", &["server.toml:1", "limit_request_body", "1MB?"]),
        ("bind = [\"localhost:99999\"]\n", &["server.toml:1", "bind", "99999"]),
        ("[database]\npool_sizes = 3\n", &["server.toml:2", "pool_sizes", "pool_size"]),
        ("workers = \n", &["server.toml:1"]),
        ("[[route]]\npath = \"/x\"\n", &["server.toml:1", "text", "sql"]),
    ];
    for (text, named) in cases {
        refused(&Program::stock().config(text).args("-p server.pid").run(), named);
        refused(&Program::stock().config(text).arg("--check-config").run(), named);
    }
}

#[test]
fn a_refused_start_leaves_no_pidfile() {
    let program = Program::stock().config("workers = 0\n").args("-p server.pid");
    let pidfile = program.dir().join("server.pid");
    // Spawned, not run: the directory lasts as long as the server.
    let mut server = program.spawn();
    assert_eq!(server.wait_exit(), End::Code(2));
    assert!(!pidfile.exists());
    assert!(server.workers().is_empty());
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let missing = Program::stock().args("-c missing.toml").run();
    refused(&missing, &["missing.toml"]);

    let folder = Program::stock();
    fs::create_dir(folder.dir().join("folder.toml")).unwrap();
    refused(&folder.args("-c folder.toml").run(), &["folder.toml"]);

    let binary = Program::stock();
    fs::write(binary.dir().join("binary.toml"), b"workers = 2\nproc_name = \"\xff\"\n").unwrap();
    refused(&binary.args("-c binary.toml").run(), &["binary.toml"]);

    refused(&Program::stock().args("-c /proc/self/mem").run(), &["/proc/self/mem"]);
}

#[test]
fn a_wrong_flag_or_variable_is_refused() {
    let cases: [(&str, &[&str]); 4] = [
        ("--wrokers 2", &["--wrokers", "--workers"]),
        ("-w none", &["none"]),
        ("--timeout -3s", &["timeout"]),
        ("--log-level loud", &["loud"]),
    ];
    for (args, named) in cases {
        refused(&Program::stock().args(args).run(), named);
        refused(&Program::stock().variable("FERRICORN_CMD_ARGS", args).run(), named);
    }
    refused(&Program::stock().config("proc_name = \"${NOT_SET_ANYWHERE}\"\n").run(), &["NOT_SET_ANYWHERE"]);
    refused(&Program::stock().config("proc_name = \"file:no-such-file\"\n").run(), &["no-such-file"]);
}

#[test]
fn check_config_checks_and_starts_nothing() {
    let outcome = Program::stock().config("workers = 2\n").args("--check-config -p server.pid").run();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.elapsed < AT_ONCE, "{outcome:?}");
    assert!(!outcome.stderr.contains("listening"), "{outcome:?}");
}

#[test]
fn print_config_tells_the_origin_of_each_setting_and_masks_secrets() {
    let file = r#"workers = 3
timeout = "20s"
keepalive = "5s"

[database]
url = "postgres://shop:secret@db/shop"
"#;
    let program =
        Program::stock().config(file).variable("FERRICORN_CMD_ARGS", "--timeout 10s --keep-alive 6s");
    let outcome = program.args("--keep-alive 7s --print-config").run();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let line = |key: &str| {
        let found = outcome.stdout.lines().find(|line| line.trim_start().starts_with(&format!("{key} =")));
        found.unwrap_or_else(|| panic!("no {key} in {}", outcome.stdout)).to_owned()
    };
    // defaults < file < environment < flags
    for (key, value, origin) in [
        ("backlog", "2048", "default"),
        ("workers", "3", "server.toml:1"),
        ("timeout", "10s", "FERRICORN_CMD_ARGS"),
        ("keepalive", "7s", "--keep-alive"),
    ] {
        let line = line(key);
        assert!(line.contains(value) && line.contains(origin), "{key}: {line}");
    }
    assert!(!outcome.stdout.contains("secret"), "{}", outcome.stdout);
    assert!(!outcome.stderr.contains("secret"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("postgres://shop:"), "{}", outcome.stdout);
}

#[test]
fn a_password_in_a_flag_is_warned_about_and_never_told() {
    let url = "postgres://shop:secret@127.0.0.1:1/shop";
    let mut server = Program::probe().workers(1).args(&format!("--database-url {url}")).start();
    let warning = server.wait_text("password");
    assert_eq!(warning.level(), "WARN");
    assert!(server.log_with("secret").is_empty());
    server.stop();

    let mut server = Program::probe().workers(1).variable("FERRICORN_DATABASE_URL", url).start();
    assert!(server.log_with("password").is_empty());
    server.stop();
}

#[test]
fn few_open_files_lower_the_connections_and_do_not_refuse() {
    let mut server = Program::probe().open_files(128).args("-w 1 --worker-connections 1000").start();
    let warning = server.wait(Said::FewFiles);
    assert_eq!(warning.level(), "WARN");
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn help_and_version_are_answered() {
    let help = Program::stock().unbound().arg("--help").run();
    assert_eq!(help.code, Some(0), "{help:?}");
    for flag in ["--bind", "--workers", "--timeout", "--database-url", "--check-config"] {
        assert!(help.stdout.contains(flag), "no {flag} in the help");
    }
    let version = Program::stock().unbound().arg("--version").run();
    assert_eq!(version.code, Some(0), "{version:?}");
    assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    assert!(version.elapsed < AT_ONCE, "{version:?}");
}
