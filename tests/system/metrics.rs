//! `/metrics` and `/status`: that they are well-formed, that they are right, and that what is counted never falls back.

use crate::support::{Connection, DEADLINE, Load, Program, Said, Server, alone, eventually};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGTTIN};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

/// A scrape: each sample's value under its name and labels, and which of them are counters.
#[derive(Debug, Default)]
struct Scrape {
    samples: BTreeMap<String, f64>,
    counters: BTreeSet<String>,
}

impl Scrape {
    fn of(server: &Server) -> Scrape {
        let answer = server.ask_admin("/metrics");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        parse(&answer.text()).unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("no {sample} in {self:?}"))
    }

    /// What is counted over all workers; what has a slot begins anew with each worker.
    fn totals(&self) -> impl Iterator<Item = (&String, f64)> {
        self.counters.iter().filter(|name| !name.contains("slot=")).map(|name| (name, self.samples[name]))
    }
}

/// The text format 0.0.4, stricter than its readers: each family once, with HELP, TYPE and its samples in a row.
fn parse(text: &str) -> Result<Scrape, String> {
    let mut scrape = Scrape::default();
    let mut seen = BTreeSet::new();
    let mut lines = text.strip_suffix('\n').ok_or("no line end at the end")?.split('\n').peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").ok_or_else(|| format!("HELP expected: {line:?}"))?;
        let (name, help) = help.split_once(' ').ok_or_else(|| format!("no help: {line:?}"))?;
        check(is_name(name) && !help.is_empty() && seen.insert(name), line)?;
        let line = lines.next().unwrap_or_default();
        let kind = line
            .strip_prefix(&format!("# TYPE {name} "))
            .ok_or_else(|| format!("TYPE expected: {line:?}"))?;
        check(["counter", "gauge", "histogram"].contains(&kind), line)?;
        check((kind == "counter") == name.ends_with("_total"), line)?;
        let mut of_family = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (key, value) = line.rsplit_once(' ').ok_or_else(|| format!("no value: {line:?}"))?;
            let value: f64 = value.parse().map_err(|_| format!("no number: {line:?}"))?;
            let (sample, labels) = match key.split_once('{') {
                Some((sample, labels)) => (sample, labels.strip_suffix('}').ok_or("no brace")?),
                None => (key, ""),
            };
            let suffix = sample.strip_prefix(name).ok_or_else(|| format!("not of {name}: {line:?}"))?;
            let fits = if kind == "histogram" {
                ["_bucket", "_sum", "_count"].contains(&suffix)
            } else {
                suffix.is_empty()
            };
            check(fits && are_labels(labels) && value.is_finite() && value >= 0.0, line)?;
            check(scrape.samples.insert(key.to_owned(), value).is_none(), line)?;
            if kind != "gauge" {
                scrape.counters.insert(key.to_owned());
            }
            of_family.push((suffix.to_owned(), labels.to_owned(), value));
        }
        if kind == "histogram" {
            check_histogram(name, &of_family)?;
        }
    }
    Ok(scrape)
}

fn check(holds: bool, line: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("against the format: {line:?}")) }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

fn are_labels(labels: &str) -> bool {
    labels.is_empty()
        || labels.split(',').all(|label| {
            let Some((name, value)) = label.split_once("=\"") else { return false };
            let value = value.strip_suffix('"').unwrap_or("\"");
            is_name(name) && !value.contains(['"', '\\'])
        })
}

/// Bounds and counts rise, the last bound is infinite, and its count is the count of all.
fn check_histogram(name: &str, samples: &[(String, String, f64)]) -> Result<(), String> {
    let of = |kind: &'static str| samples.iter().filter(move |(suffix, ..)| suffix == kind);
    let buckets: Vec<(f64, f64)> = of("_bucket")
        .map(|(_, labels, count)| {
            let bound = labels.strip_prefix("le=\"").and_then(|bound| bound.strip_suffix('"'));
            let bound = bound.and_then(|bound| bound.parse().ok()).ok_or(format!("no bound: {labels}"))?;
            Ok((bound, *count))
        })
        .collect::<Result<_, String>>()?;
    let rises = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
    let last = buckets.last().ok_or("no bucket")?;
    let count = of("_count").next().ok_or("no count")?.2;
    check(rises && last.0 == f64::INFINITY && last.1 == count && of("_sum").count() == 1, name)
}

#[test]
fn the_parser_refuses_what_is_wrong() {
    let good = "# HELP a_total A.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n";
    assert!(parse(good).is_ok());
    let histogram = |buckets: &str| format!("# HELP h H.\n# TYPE h histogram\n{buckets}h_sum 1\nh_count 2\n");
    assert!(parse(&histogram("h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\n")).is_ok());
    for wrong in [
        "a_total 1\n".to_owned(),
        good.trim_end().to_owned(),
        good.replace("counter", "gauge"),
        good.replace("# HELP a_total A.\n", ""),
        good.replace("{b=\"c\"}", "{b=c}"),
        good.replace(" 1\n", " one\n"),
        good.replace("a_total{", "b_total{"),
        good.repeat(2),
        histogram("h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\n"),
        histogram("h_bucket{le=\"1\"} 2\n"),
    ] {
        assert!(parse(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_request_is_counted_once_with_its_class_time_and_bytes() {
    let mut server = Program::probe().workers(2).args("--admin-bind 127.0.0.1:0 --timeout 30s").start();
    let begin = Instant::now();
    for _ in 0..20 {
        assert_eq!(server.get("/bytes?n=1000").status, 200);
    }
    assert_eq!(server.get("/nowhere").status, 404);
    assert_eq!(server.get("/panic").status, 500);
    // In a bucket of its own, however long the machine stands still.
    assert_eq!(server.get("/sleep?ms=2500").status, 200);
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\nbad head\r\n\r\n").unwrap();
    let _ = client.read();
    drop(client);
    let counted = |scrape: &Scrape, class: &str| {
        scrape.value(&format!("ferricorn_requests_total{{class=\"{class}\"}}"))
    };
    // An answer is counted when the worker is rid of it, which may be after the client has it.
    let mut scrape = Scrape::default();
    eventually(DEADLINE, "all are counted", || {
        scrape = Scrape::of(&server);
        ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| counted(&scrape, class))
            == [0.0, 0.0, 21.0, 0.0, 1.0, 1.0]
    });
    let within =
        |bound: &str| scrape.value(&format!("ferricorn_request_duration_seconds_bucket{{le=\"{bound}\"}}"));
    assert!(within("1") <= 22.0 && within("+Inf") == 23.0, "{} {}", within("1"), within("+Inf"));
    let sum = scrape.value("ferricorn_request_duration_seconds_sum");
    assert!(sum >= 2.5 && sum < begin.elapsed().as_secs_f64(), "{sum}");
    assert!(scrape.value("ferricorn_response_body_bytes_total") >= 20_000.0);
    assert_eq!(scrape.value("ferricorn_connections_accepted_total"), 24.0);
    assert_eq!(scrape.value("ferricorn_workers{state=\"serving\"}"), 2.0);
    let resident = scrape.value("ferricorn_worker_resident_bytes{slot=\"1\"}");
    assert!(resident > 1e6);
    let memory = |of: &str| {
        Scrape::of(&server).samples.get(&format!("ferricorn_worker_{of}_bytes{{slot=\"1\"}}")).copied()
    };
    eventually(DEADLINE, "somebody has looked", || memory("pss").is_some());
    let (pss, private) = (memory("pss").unwrap(), memory("private").unwrap());
    assert!(0.0 < private && private <= pss && pss <= resident, "{private} {pss} {resident}");
    server.stop();
}

#[test]
fn waits_for_a_thread_are_counted() {
    let mut server = Program::probe().workers(1).args("--admin-bind 127.0.0.1:0 --threads 1").start();
    let mut clients = [server.connect(), server.connect(), server.connect()];
    let begin = Instant::now();
    for client in &mut clients {
        client.send("GET /block?ms=1000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    }
    let all_sent = begin.elapsed().as_secs_f64();
    for client in &mut clients {
        assert_eq!(client.read().unwrap().status, 200);
    }
    let took = begin.elapsed().as_secs_f64();
    let scrape = Scrape::of(&server);
    assert_eq!(scrape.value("ferricorn_queue_wait_seconds_count"), 3.0);
    // One did not wait, one for a second, and one for two; less by what they came later than the first, and at most half of
    // that, for a worker that stands still before it looks at them.
    let sum = scrape.value("ferricorn_queue_wait_seconds_sum");
    assert!(sum >= 1.5 - 2.0 * all_sent && sum < 2.0 * took, "{sum}, with {all_sent} and {took}");
    assert_eq!(scrape.value("ferricorn_pool_wait_seconds_count"), 0.0);
    server.stop();
}

/// The names in the first column of the table.
fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring.md")).unwrap();
    let names = page.lines().filter(|line| line.starts_with("| `ferricorn_")).flat_map(|line| {
        let column = line.split(" | ").next().unwrap_or_default();
        column.split('`').skip(1).step_by(2).map(|name| name.split('{').next().unwrap_or_default().to_owned())
    });
    names.collect()
}

#[test]
fn each_figure_is_documented_and_each_that_is_exists() {
    let server = Program::probe().workers(1).args("--admin-bind 127.0.0.1:0").start();
    let told = server.ask_admin("/metrics").text();
    let told = told.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let told: BTreeSet<String> =
        told.filter(|name| name.starts_with("ferricorn_")).map(str::to_owned).collect();
    let documented = documented();
    assert!(told.len() > 30, "{told:?}");
    assert!(told.is_subset(&documented), "without a row: {:?}", told.difference(&documented));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin");
    let sources: String = fs::read_dir(folder)
        .unwrap()
        .flatten()
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .collect();
    // What is named by a cache or a program has no sample before there is one.
    let gone: Vec<&String> =
        documented.iter().filter(|name| !sources.contains(&format!("\"{name}\""))).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

/// Kills a worker that did not happen to leave by itself at the same time.
fn kill_one(server: &Server) {
    let is_killed = |worker: i32| {
        kill(Pid::from_raw(worker), SIGKILL).is_ok()
            && server.wait_about(Said::Exited, worker).raw.contains("killed by SIGKILL")
    };
    eventually(DEADLINE, "one is killed", || {
        let ready = server.log().into_iter().filter(|line| line.is(Said::Ready));
        let ready: BTreeSet<i32> = ready.map(|line| line.number("pid")).collect();
        server.workers().into_iter().filter(|worker| ready.contains(worker)).any(is_killed)
    });
}

#[test]
fn counters_never_fall_over_kills_reloads_and_recycling_under_load() {
    let _alone = alone();
    let args = "--admin-bind 127.0.0.1:0 --max-requests 1500";
    let server = Program::probe().workers(3).args(args).start();
    let load = Load::on(server.target()).at_least(30_000).start();
    let is_over = AtomicBool::new(false);
    let scrapes = thread::scope(|scope| {
        let scraping = scope.spawn(|| {
            let (mut last, mut count) = (Scrape::of(&server), 0);
            while !is_over.load(Ordering::Relaxed) {
                let next = Scrape::of(&server);
                for (name, before) in last.totals() {
                    assert!(next.value(name) >= before, "{name} fell from {before} to {}", next.value(name));
                }
                (last, count) = (next, count + 1);
            }
            count
        });
        for round in 1..=5 {
            load.wait_more(2000);
            kill_one(&server);
            load.wait_more(500);
            server.signal(SIGHUP);
            server.wait_count(Said::ReloadDone, round);
        }
        load.wait_answered(30_000);
        is_over.store(true, Ordering::Relaxed);
        scraping.join().unwrap()
    });
    let answered = load.answered();
    load.finish();
    let last = Scrape::of(&server);
    let counted = last.value("ferricorn_requests_total{class=\"2xx\"}");
    eprintln!("{scrapes} scrapes, {answered} answers, {counted} counted");
    // What is lost are answers on their way when their worker was killed.
    assert!(counted + 5.0 * 64.0 >= answered as f64, "{counted} of {answered}");
    assert!(last.value("ferricorn_worker_ends_total{reason=\"killed\"}") >= 5.0);
    assert!(last.value("ferricorn_worker_ends_total{reason=\"left\"}") >= 15.0);
    assert_eq!(last.value("ferricorn_reloads_total{outcome=\"adopted\"}"), 5.0);
    assert_eq!(last.value("ferricorn_generation"), 6.0);
}

#[test]
fn an_app_counts_for_itself_over_the_ends_of_workers() {
    let server = Program::probe().workers(2).args("--admin-bind 127.0.0.1:0").start();
    let scrape = Scrape::of(&server);
    assert!(
        !scrape.samples.keys().any(|name| name.starts_with("probe_")),
        "nothing is counted before: {scrape:?}"
    );
    let measure = |connection: &mut Connection, kind: &str, value: f64, level: i64| {
        let path = format!("/measure?kind={kind}&value={value}&level={level}");
        assert_eq!(connection.get(&path).unwrap().status, 200);
    };
    let is = |scrape: &Scrape, wanted: &[(&str, f64)]| {
        for (sample, value) in wanted {
            assert_eq!(scrape.value(sample), *value, "{sample}");
        }
    };
    let mut both = server.connections_to_all(2);
    let (mut other, (pid, mut one)) = (both.pop().unwrap().1, both.pop().unwrap());
    measure(&mut one, "oak", 0.5, 7);
    measure(&mut one, "oak", 2.5, -3);
    measure(&mut other, "a%22b%0a", 9.25, 10);
    let of_both = [
        ("probe_measured_total{kind=\"oak\"}", 2.0),
        ("probe_measured_total{kind=\"a_b_\"}", 1.0),
        ("probe_values_bucket{le=\"1\"}", 1.0),
        ("probe_values_bucket{le=\"2.5\"}", 2.0),
        ("probe_values_bucket{le=\"+Inf\"}", 3.0),
        ("probe_values_sum", 12.25),
        ("probe_values_count", 3.0),
    ];
    let scrape = Scrape::of(&server);
    is(&scrape, &of_both);
    is(&scrape, &[("probe_level", 7.0)]);
    let told = server.ask_admin("/status").json()["app_metrics"].clone();
    let of = |kind: &str| json!({"name": "probe_measured_total", "labels": {"kind": kind}, "kind": "counter", "help": "What was measured."});
    let level =
        json!({"name": "probe_level", "labels": {}, "kind": "gauge", "help": "The last level.", "value": 7});
    let with = |mut one: Value, value: u64| {
        one["value"] = value.into();
        one
    };
    assert_eq!(
        told.as_array().map(|told| &told[..3]),
        Some(&[level, with(of("a_b_"), 1), with(of("oak"), 2)][..])
    );
    assert_eq!((&told[3]["counts"], &told[3]["sum"]), (&json!([1, 2, 3]), &json!(12.25)));

    server.signal_to(pid, SIGKILL);
    eventually(DEADLINE, "it is gone and its level with it", || {
        Scrape::of(&server).value("probe_level") == 10.0
    });
    server.signal(SIGHUP);
    server.wait_count(Said::ReloadDone, 1);
    eventually(DEADLINE, "the old ones are gone", || Scrape::of(&server).value("probe_level") == 0.0);
    is(&Scrape::of(&server), &of_both);
    measure(&mut server.connect(), "oak", 1.0, 1);
    is(&Scrape::of(&server), &[("probe_measured_total{kind=\"oak\"}", 3.0), ("probe_values_count", 4.0)]);
}

#[test]
fn the_status_tells_of_workers_requests_deaths_and_settings() {
    let url = "[database]\nurl = \"postgres://me:geheim@127.0.0.1:1/d\"\n";
    let server = Program::probe().workers(1).config(url).args("--admin-bind 127.0.0.1:0").start();
    let worker = server.worker();
    let mut client = server.connect();
    client.send("GET /sleep?ms=60000&secret=1 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let status = || server.ask_admin("/status").json();
    eventually(DEADLINE, "the request is under way", || status()["workers"][0]["in_flight"] == 1);
    let told = status();
    assert_eq!((&told["schema"], &told["server"]["master_pid"]), (&1.into(), &server.pid().into()));
    let seat = &told["workers"][0];
    assert_eq!((&seat["pid"], &seat["state"], &seat["slot"]), (&worker.into(), &"serving".into(), &0.into()));
    let request = &seat["requests_in_flight"][0];
    assert_eq!((&request["method"], &request["path"]), (&"GET".into(), &"/sleep".into()), "and no query");
    assert_eq!(told["settings"]["workers"]["value"], "1");
    assert_eq!(told["settings"]["workers"]["origin"], "flag --workers");
    let text = told.to_string();
    assert!(
        text.contains("postgres://me:***@") && !text.contains("geheim") && !text.contains("secret"),
        "{text}"
    );
    server.signal_to(worker, SIGKILL);
    server.wait_count(Said::Ready, 2);
    fs::write(server.dir().join("server.toml"), "workers = none").unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadRefused);
    eventually(DEADLINE, "the reload is told", || status()["server"]["reloads"] == 1);
    let told = status();
    let death = &told["deaths"][0];
    assert_eq!((&death["pid"], &death["in_flight"]), (&worker.into(), &1.into()), "{death}");
    assert_eq!(death["requests_in_flight"][0]["path"], "/sleep");
    assert!(told["server"]["last_reload"].as_str().unwrap().starts_with("reload refused"), "{told}");
    assert_ne!(told["workers"][0]["pid"], worker);
}

#[test]
fn a_request_is_no_older_than_it_is() {
    let mut server = Program::probe().workers(1).args("--admin-bind 127.0.0.1:0").start();
    // Often enough that a clock which is a quarter of a second late would be seen.
    for _ in 0..10 {
        let mut client = server.connect();
        let begin = Instant::now();
        client.send("GET /sleep?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        eventually(DEADLINE, "the request is under way", || {
            let told = server.ask_admin("/status").json();
            let passed = begin.elapsed();
            let all = told["workers"][0]["requests_in_flight"].as_array().unwrap();
            let ages = all.iter().map(|one| one["age_seconds"].as_f64().unwrap());
            let youngest = ages.min_by(f64::total_cmp);
            if let Some(age) = youngest {
                // A request that shares a turn of the loop with another may have begun where that one ended.
                assert!(age <= passed.as_secs_f64() + 0.05, "{age} s, of {passed:?}");
            }
            youngest.is_some()
        });
        drop(client);
        eventually(DEADLINE, "it is gone", || {
            server.ask_admin("/status").json()["workers"][0]["in_flight"] == 0
        });
    }
    server.stop();
}

/// The figures of one kind, of what has this name, in the order of `wanted`.
fn figures(server: &Server, kind: &str, name: &str, wanted: &[&str]) -> Vec<f64> {
    let scrape = Scrape::of(server);
    let figures = wanted.iter().map(|figure| {
        let sample = |end: &str| format!("ferricorn_{kind}_{figure}{end}{{{kind}=\"{name}\"}}");
        let samples = [sample("_total"), sample("")];
        *samples.iter().find_map(|sample| scrape.samples.get(sample)).unwrap_or(&-1.0)
    });
    figures.collect()
}

#[test]
fn what_becomes_of_calls_to_a_program_is_counted_over_the_ends_of_workers() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/faulty.py");
    let routes = format!(
        "[[route]]\npath = '/measure'\nprogram = ['python3', '{script}']\nparams = {{ text = 'text' }}\n\
         timeout = '10s'\nqueue = 1\n"
    );
    let path = format!("/usr/bin:/bin:{}", std::env::var("PATH").unwrap_or_default());
    let program = Program::stock().variable("PATH", &path).config(&routes).workers(1);
    let mut server = program.args("--admin-bind 127.0.0.1:0").start();
    let ask = |text: &str| server.get(&format!("/measure?text={text}")).status;
    let is_told = |what: &str, wanted: [f64; 7]| {
        let names = ["children", "waiting", "calls", "failures", "timeouts", "refusals", "restarts"];
        let mut told = Vec::new();
        eventually(DEADLINE, &format!("{what}: {wanted:?}"), || {
            told = figures(&server, "program", "GET /measure", &names);
            told == wanted
        });
    };
    is_told("it runs", [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(["a", "b", "die", "c"].map(ask), [200, 200, 502, 200]);
    is_told("it died once", [1.0, 0.0, 4.0, 1.0, 0.0, 0.0, 1.0]);
    let mut hung = server.connect();
    hung.send("GET /measure?text=hang HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    server.wait_text("asked hang");
    let mut waiting = server.connect();
    waiting.send("GET /measure?text=d HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    is_told("one waits", [1.0, 1.0, 5.0, 1.0, 0.0, 0.0, 1.0]);
    assert_eq!(ask("e"), 503, "the queue is full");
    drop(waiting);
    assert_eq!(hung.read().unwrap().status, 504);
    is_told("one took too long, and who left is not asked for", [1.0, 0.0, 5.0, 1.0, 1.0, 1.0, 2.0]);

    let worker = server.worker();
    server.signal_to(worker, SIGKILL);
    server.wait_count(Said::Ready, 2);
    is_told("what the dead counted stays", [1.0, 0.0, 5.0, 1.0, 1.0, 1.0, 2.0]);
    server.signal(SIGTTIN);
    server.wait_count(Said::Ready, 3);
    is_told("there are two workers", [2.0, 0.0, 5.0, 1.0, 1.0, 1.0, 2.0]);
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    assert_eq!(ask("f"), 200);
    is_told("a reload counts on", [2.0, 0.0, 6.0, 1.0, 1.0, 1.0, 2.0]);
    let wanted = json!([{"name": "GET /measure", "children": 2, "waiting": 0, "calls": 6, "failures": 1,
        "timeouts": 1, "refusals": 1, "restarts": 2}]);
    // The old workers' children may not have left yet, or the new ones' not be shown.
    let is_told = || server.ask_admin("/status").json()["programs"] == wanted;
    eventually(DEADLINE, "the status tells the same", is_told);
    server.stop();
}

#[test]
fn routes_keep_at_most_max_bytes_of_keys_heads_bodies_and_entries() {
    let routes = "[database]\nurl = 'sqlite:goods.db'\n[cache]\nmax_bytes = '8KiB'\n[[route]]\npath = '/goods/{text}'\n\
                  sql = 'select hex(zeroblob(:size)) as body, length(:text) as n'\nparams = { text = 'text', size = 'integer' }\ncache = '1h'\n";
    let program = Program::stock().config(routes).workers(1);
    let mut server = program.args("--admin-bind 127.0.0.1:0").start();
    let ask = |text: &str, size: usize| {
        let answer = server.get(&format!("/goods/{text}?size={size}"));
        assert_eq!((answer.status, answer.text().len() > 2 * size), (200, true));
    };
    let told = || {
        let told =
            figures(&server, "cache", "route /goods/{text}", &["entries", "bytes", "evictions", "hits"]);
        <[f64; 4]>::try_from(told).unwrap()
    };
    ask("a", 1);
    let [_, small, ..] = told();
    assert!((900.0..1500.0).contains(&small), "an entry, its fields and its place count: {small}");
    ask("b", 501);
    assert_eq!(told()[1], small * 2.0 + 1000.0, "so does the body, which is twice as long");
    ask(&"c".repeat(301), 1);
    assert_eq!(told()[1], small * 3.0 + 1302.0, "and so does the key, whose length is in the body");
    assert_eq!(told()[0], 3.0);
    ask("d", 5000);
    assert_eq!(told()[0], 3.0, "one that is larger alone is not kept");
    ask("d", 5000);
    assert_eq!(told()[3], 0.0);
    for number in 0..20 {
        ask(&format!("e{number}"), 1);
    }
    let [entries, bytes, evictions, _] = told();
    assert!(bytes <= 8192.0 && bytes > 8192.0 - 2.0 * small && evictions > 3.0, "{bytes} {evictions}");
    assert_eq!(entries + evictions, 23.0);
    ask("e19", 1);
    assert_eq!(told()[3], 1.0, "the last one is there");
    server.stop();
}

#[test]
fn what_each_cache_does_is_counted_over_the_ends_of_workers() {
    let routes = "[database]\nurl = 'sqlite:goods.db'\n[cache]\ncapacity = 2\n[[route]]\npath = '/goods/{id}'\n\
                  sql = 'select :id as id'\nparams = { id = 'integer' }\ncache = '1h'\n";
    let program = Program::stock().config(routes).workers(1);
    let mut server = program.args("--admin-bind 127.0.0.1:0").start();
    let told = || {
        let names = ["hits", "misses", "stale", "evictions", "entries"];
        figures(&server, "cache", "route /goods/{id}", &names)
    };
    assert_eq!(told(), [0.0; 5]);
    for id in [1, 2, 3, 3, 2, 1] {
        assert_eq!(server.get(&format!("/goods/{id}")).status, 200);
    }
    assert_eq!(told(), [2.0, 4.0, 0.0, 2.0, 2.0]);
    server.signal_to(server.worker(), SIGKILL);
    server.wait_count(Said::Ready, 2);
    assert_eq!(told(), [2.0, 4.0, 0.0, 2.0, 0.0], "and what the dead one kept is gone");
    assert_eq!(server.get("/goods/1").status, 200);
    assert_eq!(told(), [2.0, 5.0, 0.0, 2.0, 1.0]);
    server.stop();
}
