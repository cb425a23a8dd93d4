//! Where a benchmark runs: the machine and the versions. Not here: any figure.

use std::fs;
use std::process::Command;

pub fn print() {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("machine   {} × {}", cores, model.trim_start_matches([' ', '\t', ':']));
    println!("kernel    {}", output("uname", &["-sr"]));
    println!("rustc     {}", output("rustc", &["--version"]));
    println!("ferricorn {}, hyper {}", env!("CARGO_PKG_VERSION"), locked_version("hyper"));
    println!("client    {}", output("wrk", &["-v"]));
}

fn output(command: &str, args: &[&str]) -> String {
    let output = Command::new(command).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn locked_version(name: &str) -> String {
    let lock = include_str!("../../Cargo.lock");
    let after = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).map_or("", |(_, after)| after);
    after.split('"').next().unwrap_or_default().to_owned()
}
