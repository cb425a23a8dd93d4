//! The live view: two looks at the server's status, and what changed between them. Not here: the status itself.

use super::client::{Client, Trouble};
use super::{say, show};
use serde_json::{Value, json};
use std::fmt::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// To the upper left, and what is behind the text is cleared: no mode of the terminal is left behind by Ctrl-C.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";

pub(super) fn run(client: &Client, every: Duration, once: bool, is_json: bool) -> Result<u8, Trouble> {
    let look =
        || client.ask(&json!({ "wish": "status" }), None, |_| {}).map(|answer| (answer, Instant::now()));
    let mut before = look()?;
    if !once && !is_json {
        say("\x1b[2J");
    }
    loop {
        if before.0.get("status").is_none() {
            return Ok(super::refusal(&before.0));
        }
        sleep(every);
        let now = look()?;
        let seconds = (now.1 - before.1).as_secs_f64();
        let rates = Rates::between(&before.0["status"], &now.0["status"], seconds);
        let frame = if is_json { format!("{}\n", rates.to_json()) } else { rates.show(&now.0["status"]) };
        if once || is_json {
            say(&frame);
        } else {
            let lines: String = frame.lines().map(|line| format!("{line}{CLEAR_LINE}\n")).collect();
            say(&format!("{HOME}{lines}{CLEAR_REST}"));
        }
        if once {
            return Ok(0);
        }
        before = now;
    }
}

/// What was done in a second, on average.
struct Rates {
    requests: f64,
    errors: f64,
    /// Of cache look-ups, 0 to 1; `None` without any.
    hits: Option<f64>,
    /// In seconds; `None`: no request, or beyond the last bound.
    p50: Option<f64>,
    p99: Option<f64>,
    workers: Vec<WorkerRates>,
}

struct WorkerRates {
    slot: u64,
    requests: f64,
    /// Of a core.
    cpu: f64,
}

impl Rates {
    fn between(before: &Value, now: &Value, seconds: f64) -> Rates {
        let (old, new) = (&before["totals"], &now["totals"]);
        // Another master begins with zero.
        let grown = |new: &Value, old: &Value| (number(new) - number(old)).max(0.0);
        let classes = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
        let by_class = classes.map(|class| grown(&new["requests"][class], &old["requests"][class]));
        let hits = grown(&new["cache_hits"], &old["cache_hits"]);
        let misses = grown(&new["cache_misses"], &old["cache_misses"]);
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let (bounds, new_buckets) = (list(&new["latency_bounds"]), list(&new["latencies"]));
        let old_buckets = list(&old["latencies"]);
        let buckets: Vec<(Option<f64>, f64)> = new_buckets
            .iter()
            .enumerate()
            .map(|(at, count)| {
                let bound = bounds.get(at).and_then(Value::as_f64);
                (bound, grown(count, old_buckets.get(at).unwrap_or(&Value::Null)))
            })
            .collect();
        let workers = list(&now["workers"]).into_iter().map(|worker| {
            let is_same = |old: &&Value| old["pid"] == worker["pid"];
            let nobody = Value::Null;
            let all = before["workers"].as_array();
            let old = all.and_then(|all| all.iter().find(is_same)).unwrap_or(&nobody);
            WorkerRates {
                slot: worker["slot"].as_u64().unwrap_or_default(),
                requests: grown(&worker["requests"], &old["requests"]) / seconds,
                cpu: grown(&worker["cpu_seconds"], &old["cpu_seconds"]) / seconds,
            }
        });
        Rates {
            requests: by_class.iter().sum::<f64>() / seconds,
            errors: by_class[5] / seconds,
            hits: (hits + misses > 0.0).then(|| hits / (hits + misses)),
            p50: quantile(&buckets, 0.5),
            p99: quantile(&buckets, 0.99),
            workers: workers.collect(),
        }
    }

    fn to_json(&self) -> Value {
        let workers = self.workers.iter();
        let workers = workers.map(|worker| json!({ "slot": worker.slot, "requests_per_second": worker.requests, "cpu": worker.cpu }));
        json!({
            "requests_per_second": self.requests,
            "errors_per_second": self.errors,
            "cache_hit_rate": self.hits,
            "p50_seconds": self.p50,
            "p99_seconds": self.p99,
            "workers": workers.collect::<Vec<Value>>(),
        })
    }

    fn show(&self, status: &Value) -> String {
        let mut out = show::server(status);
        let millis =
            |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |time| format!("{:.1} ms", time * 1e3));
        let hits = self.hits.map_or_else(|| "-".to_owned(), |hits| format!("{:.0} %", hits * 100.0));
        let _ = writeln!(
            out,
            "{:.0} requests/s, {:.1} errors/s, half within {}, 99 % within {}, cache hits {hits}",
            self.requests,
            self.errors,
            millis(self.p50),
            millis(self.p99)
        );
        const HEAD: [&str; 7] = ["SLOT", "PID", "STATE", "REQ/s", "CONNS", "NOW", "CPU %"];
        let rows = status["workers"].as_array().into_iter().flatten().zip(&self.workers);
        let rows = rows.map(|(worker, rates)| {
            let [slot, pid, state] = ["slot", "pid", "state"].map(|key| show::text(&worker[key]));
            let [connections, now] = ["connections", "in_flight"].map(|key| show::text(&worker[key]));
            let (requests, cpu) = (format!("{:.0}", rates.requests), format!("{:.0}", rates.cpu * 100.0));
            vec![slot, pid, state, requests, connections, now, cpu]
        });
        out.push_str(&show::table(&rows.collect::<Vec<_>>(), &HEAD));
        out
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

/// The bound of the bucket in which the share of all is reached: the counts are those up to each bound.
fn quantile(buckets: &[(Option<f64>, f64)], share: f64) -> Option<f64> {
    let (_, all) = buckets.last().filter(|(_, all)| *all > 0.0)?;
    buckets.iter().find(|(_, count)| *count >= all * share)?.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_grew_and_a_new_master_is_no_minus() {
        let look = |count: u64, worker: u64| {
            json!({
                "totals": {
                    "requests": { "2xx": count, "5xx": count / 10 },
                    "cache_hits": 3 * count, "cache_misses": count,
                    "latency_bounds": [0.001, 0.01], "latencies": [count / 2, count, count],
                },
                "workers": [{ "slot": 0, "pid": worker, "requests": count, "cpu_seconds": 1.0 }],
            })
        };
        let rates = Rates::between(&look(100, 7), &look(300, 7), 2.0);
        assert_eq!((rates.requests, rates.errors, rates.hits), (110.0, 10.0, Some(0.75)));
        assert_eq!((rates.p50, rates.p99), (Some(0.001), Some(0.01)));
        assert_eq!((rates.workers[0].requests, rates.workers[0].cpu), (100.0, 0.0));
        let rates = Rates::between(&look(300, 7), &look(10, 8), 1.0);
        assert_eq!((rates.requests, rates.p50, rates.workers[0].requests), (0.0, None, 10.0));
    }
}
