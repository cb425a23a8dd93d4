//! The load test of benches/run-siege in its shortest form, and that what it says of money and of caches is good. Not here: any figure.

use crate::support::alone;
use std::fs;
use std::process::Command;

#[test]
fn the_load_test_runs_and_no_money_is_lost() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("siege.svg");
    let mut command = Command::new("python3");
    command.args(["-B", "benches/siege/main.py", "--rounds", "1", "--seconds", "1"]);
    command.args(["--ferricorn", env!("CARGO_BIN_EXE_ferricorn"), "--svg"]).arg(&chart);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("Python is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<&str> = said.lines().filter(|line| line.starts_with("| Ferricorn | ")).collect();
    assert_eq!(rows.len(), 4, "{said}");
    for row in rows {
        assert!(row.ends_with("| yes | 0 of 20 |"), "{row}");
    }
    let chart = fs::read_to_string(chart).unwrap();
    assert_eq!(chart.matches("<rect class=\"ours\"").count(), 4);
}
