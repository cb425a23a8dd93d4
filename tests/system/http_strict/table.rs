//! The table of docs/http.md: each rule, how many requests tried it, and what became of them. Not here: the rules.

use super::corpus::{Case, Level, Rule};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/http.md");
const BEGIN: &str = "<!-- made by tests/system/http_strict -->\n";
const END: &str = "<!-- end -->\n";
/// Set, it has the table written anew.
const WRITE: &str = "WRITE_TABLE";

/// # Panics
/// When the page says something else.
pub(super) fn hold(cases: &[Case], outcomes: &[String]) {
    let page = fs::read_to_string(PAGE).unwrap();
    let table = table(cases, outcomes);
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for it");
    let (written, after) = rest.split_once(END).expect("that has an end");
    if written != table {
        if std::env::var_os(WRITE).is_some() {
            fs::write(PAGE, [before, BEGIN, &table, END, after].concat()).unwrap();
        }
        panic!("{PAGE} is not what was seen; with {WRITE}=1 this is written there:\n{table}");
    }
}

fn table(cases: &[Case], outcomes: &[String]) -> String {
    let mut table =
        String::from("| section | | what is tried | requests | outcome |\n|---|---|---|---|---|\n");
    for &rule in Rule::ALL {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (case, outcome) in cases.iter().zip(outcomes).filter(|(case, _)| case.rule == rule) {
            assert!(!outcome.is_empty(), "{}", case.name);
            *seen.entry(outcome).or_default() += 1;
        }
        let count: usize = seen.values().sum();
        assert!(count > 0, "{rule:?} is not tried");
        let seen: Vec<String> =
            seen.iter().rev().map(|(outcome, count)| format!("{outcome}: {count}")).collect();
        let (section, level, text) = rule.text();
        let level = match level {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::May => "MAY",
        };
        writeln!(table, "| {section} | {level} | {text} | {count} | {} |", seen.join("; ")).unwrap();
    }
    table
}
