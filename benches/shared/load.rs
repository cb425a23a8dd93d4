//! Load by wrk on a core of its own, and the CPU time that a server spends under it. Not here: which servers.

use super::super::support::{Server, proc};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The server runs on one core, and whoever asks it on the other.
pub const ON_SERVER_CORE: [&str; 3] = ["taskset", "-c", "0"];
pub const ON_CLIENT_CORE: [&str; 3] = ["taskset", "-c", "1"];

/// A server under load.
pub struct Load<'a> {
    server: &'a Server,
    client: Child,
    before: Duration,
}

/// What came of it.
pub struct Outcome {
    pub requests_per_second: f64,
    /// Microseconds of CPU for one request, of all processes of the server together.
    pub cpu: f64,
}

impl<'a> Load<'a> {
    pub fn start(server: &'a Server, path: &str, connections: &str, seconds: u64) -> Load<'a> {
        let before = cpu_time(server);
        let mut command = Command::new(ON_CLIENT_CORE[0]);
        command.args(&ON_CLIENT_CORE[1..]);
        command.args(["wrk", "-t1", "-c", connections, "-d", &format!("{seconds}s"), "--timeout", "10s"]);
        command.arg(format!("http://{}{path}", server.addr())).stdout(Stdio::piped());
        Load { server, client: command.spawn().expect("wrk is installed"), before }
    }

    /// Every answer must have been a good one.
    pub fn finish(self) -> Outcome {
        let output = self.client.wait_with_output().expect("wrk ends");
        let used = cpu_time(self.server) - self.before;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
        let line = text.lines().find(|line| line.contains(" requests in ")).expect("wrk sums up");
        let requests: f64 = word(line, 0).parse().expect("wrk counts requests");
        let rate =
            text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).expect("wrk says how many");
        Outcome {
            requests_per_second: rate.trim().parse().expect("wrk counts requests"),
            cpu: used.as_secs_f64() * 1e6 / requests,
        }
    }
}

fn word(line: &str, at: usize) -> &str {
    line.split_whitespace().nth(at).unwrap_or_default()
}

/// That of all processes of the server.
fn cpu_time(server: &Server) -> Duration {
    let processes = [vec![server.pid()], proc::descendants(server.pid())].concat();
    processes.iter().map(|&pid| proc::cpu_time(pid)).sum()
}
