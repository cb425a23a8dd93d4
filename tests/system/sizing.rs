//! docs/sizing.md: its commands, and its arithmetic. Not here: its measurements.

use crate::support::{Program, Server, repository};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The shell's commands on the page, for this server in place of the one at port 8000.
fn commands(server: &Server) -> Vec<Command> {
    let page = repository::read("docs/sizing.md");
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split_once("```").expect("its end").0);
    let commands = blocks.map(|block| {
        let mut command = Command::new("sh");
        command.args(["-ec", &block.replace("8000", &server.addr().port().to_string())]);
        command.env("MASTER", server.pid().to_string());
        command
    });
    commands.collect()
}

/// What the first command says of the workers: PSS and private memory in KiB.
fn memory(server: &Server) -> Vec<[u64; 2]> {
    let output = commands(server)[0].output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("-master pss "), "{said}");
    let workers = said.lines().filter(|line| line.contains("-w"));
    let figures = workers.map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, "pss", pss, "private", private] = words[..] else { panic!("{line}") };
        [pss, private].map(|figure| figure.parse().unwrap())
    });
    figures.collect()
}

struct Clients(Child);

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_commands_show_what_workers_and_idle_connections_take() {
    let mut server = Program::example("hello").workers(1).open_files(4096).start();
    let before = memory(&server);
    let mut clients = commands(&server).remove(1);
    let mut clients = Clients(clients.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut said = String::new();
    BufReader::new(clients.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "900 idle\n");
    let with = memory(&server);
    drop(clients);
    let ([[_, before]], [[pss, with]]) = (&before[..], &with[..]) else { panic!("{before:?} {with:?}") };
    let each = (with - before) as f64 / 900.0;
    eprintln!("{before} KiB, with 900 idle connections {with} KiB: {each:.1} KiB each");
    // The page has what was measured; this is that the order of it is right.
    assert!(pss > with && (1.0..64.0).contains(&each), "{each} KiB each");
    server.stop();
}

#[test]
fn the_arithmetic_of_descriptors_is_the_servers() {
    let mut server = Program::stock().workers(1).open_files(1024).start();
    let line = "worker_connections lowered from=1000 to=952 cause=\"RLIMIT_NOFILE is 1024\" remedy=\"raise ulimit -n\"";
    server.wait_text(line);
    assert!(repository::read("docs/sizing.md").contains(line));
    server.stop();
}

#[test]
fn the_arithmetic_of_connections_is_the_servers() {
    for (workers, notify, least) in [(4, "false", 9), (4, "true", 11), (8, "false", 17)] {
        for (budget, code) in [(least - 1, Some(2)), (least, Some(0))] {
            let database =
                format!("[database]\nurl = 'postgres://a@127.0.0.1:1/b'\nmax_connections = {budget}\n");
            let program = Program::stock().unbound().workers(workers);
            let program = program.config(&format!("bind = ':0'\n{database}[cache]\nnotify = {notify}\n"));
            let outcome = program.args("--check-config").run();
            assert_eq!(outcome.code, code, "{workers} workers, notify {notify}, {budget}: {outcome:?}");
        }
    }
}
