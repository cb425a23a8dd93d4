//! What the README promises, done as it says.

use crate::support::{Program, repository};
use std::process::Command;

fn readme() -> String {
    repository::read("README.md")
}

/// The text between the first line that begins with `from` and the next that begins with `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let start = text.find(from).unwrap_or_else(|| panic!("the README has no {from:?}")) + from.len();
    &text[start..start + text[start..].find(to).unwrap_or_else(|| panic!("no {to:?} after {from:?}"))]
}

#[test]
fn the_calls_to_the_demo_answer_what_they_are_said_to() {
    let program = Program::stock().workers(2);
    repository::copy_demo(program.dir());
    let mut server = program.args("-c conf/server.toml").start();
    let readme = readme();
    let mut calls = 0;
    let mut lines = between(&readme, "```console\n", "```").lines();
    while let Some(line) = lines.next() {
        let call = line.strip_prefix("$ ").unwrap_or_else(|| panic!("no call: {line:?}"));
        let call = call.replace("127.0.0.1:8000", &server.addr().to_string());
        let output = Command::new("sh").args(["-c", &call.replacen("curl", "curl -sS", 1)]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim_end(), lines.next().unwrap_or_default(), "{call}: {output:?}");
        calls += 1;
    }
    assert!(calls >= 5, "the README shows {calls} calls");
    server.stop();
}

#[test]
fn the_first_service_is_the_example() {
    let example = repository::read("examples/hello.rs");
    let code = example.split_once("\n\n").unwrap().1;
    assert_eq!(between(&readme(), "```rust,no_run\n", "```"), code);
    assert!(code.lines().filter(|line| !line.is_empty()).count() <= 10);
}
