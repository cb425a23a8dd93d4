//! What proxies say of clients: whom the server believes, and what it tells the app and the log.

use crate::support::{Connection, DEADLINE, Dice, Failure, Program, Server, eventually, seconds};
use nix::sys::signal::Signal::SIGTERM;
use serde_json::Value;
use std::fs;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const GET: &[u8] = b"GET /headers HTTP/1.1\r\nhost: own.example\r\n\r\n";

fn seen(server: &Server, fields: &[(&str, &str)], path: &str) -> Value {
    server.connect().request("GET", path, fields, b"").expect("an answer").json()
}

fn has(seen: &Value, name: &str) -> bool {
    seen["fields"].as_array().unwrap().iter().any(|field| field[0] == name)
}

#[test]
fn a_trusted_proxy_names_the_client_to_the_app_and_to_the_log() {
    let program = Program::probe().config(
        "workers = 1\naccesslog = 'access.log'\nroot_path = '/shop'\n\
         forwarded_fields = ['x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host']",
    );
    let mut server = program.start();
    let fields = [
        ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("forwarded", "for=6.6.6.6;host=evil.example"),
    ];
    let answer = seen(&server, &fields, "/shop/headers?a=b");
    let client = &answer["client"];
    assert_eq!(client["address"], "203.0.113.9");
    assert_eq!((&client["scheme"], &client["host"]), (&"https".into(), &"shop.example".into()));
    assert_eq!((&client["root_path"], &client["is_forwarded"]), (&"/shop".into(), &true.into()));
    assert_eq!(answer["target"], "/headers?a=b");
    assert!(answer["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{answer}");
    assert!(has(&answer, "x-forwarded-for") && !has(&answer, "forwarded"), "{answer}");
    // A path without the prefix is served as it is, and so is whom nobody forwards.
    let answer = seen(&server, &[], "/headers");
    assert_eq!((&answer["client"]["address"], &answer["target"]), (&"127.0.0.1".into(), &"/headers".into()));
    let log = server.dir().join("access.log");
    server.stop();
    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert!(
        lines[0].starts_with("203.0.113.9 - - [") && lines[0].contains("\"GET /shop/headers?a=b HTTP/1.1\""),
        "{log}"
    );
    assert!(lines[1].starts_with("127.0.0.1 - - ["), "{log}");
}

#[test]
fn the_scheme_is_what_named_fields_say_unless_they_contradict_each_other() {
    let program = Program::probe().args(
        "--workers 1 --access-logfile access.log --access-logformat %(scheme)s-%(host)s-%(s)s \
         --secure-scheme-headers X-Forwarded-Ssl=on --secure-scheme-headers Front-End-Https=yes \
         --forwarded-fields x-forwarded-proto,x-forwarded-host",
    );
    let mut server = program.start();
    let ssl_on = ("x-forwarded-ssl", "on");
    let answer = seen(&server, &[ssl_on, ("x-forwarded-host", "shop.example")], "/headers");
    assert_eq!(
        (&answer["client"]["scheme"], &answer["client"]["is_forwarded"]),
        (&"https".into(), &true.into())
    );
    assert_eq!(seen(&server, &[("front-end-https", "no")], "/headers")["client"]["scheme"], "http");
    for contradiction in [[ssl_on, ("front-end-https", "no")], [ssl_on, ("x-forwarded-proto", "http")]] {
        let mut connection = server.connect();
        let answer = connection.request("GET", "/headers", &contradiction, b"").unwrap();
        assert_eq!((answer.status, answer.field("connection")), (400, Some("close")), "{contradiction:?}");
        assert!(answer.text().contains("contradict each other"), "{}", answer.text());
    }
    server.stop();
    let log = fs::read_to_string(server.dir().join("access.log")).unwrap();
    let wanted = ["https-shop.example-200", "http-test-200", "http-test-400", "http-test-400"];
    assert_eq!(log.lines().collect::<Vec<_>>(), wanted);
}

#[test]
fn a_named_field_of_somebody_else_is_dropped_and_contradicts_nobody() {
    let program = Program::probe().config(
        "workers = 1\nforwarded_allow_ips = '10.0.0.0/8'\nsecure_scheme_headers = { Front-End-Https = 'on' }",
    );
    let mut server = program.start();
    let fields = [("front-end-https", "on"), ("front-end-https", "off"), ("x-forwarded-proto", "https")];
    let answer = seen(&server, &fields, "/headers");
    assert_eq!((&answer["client"]["scheme"], has(&answer, "front-end-https")), (&"http".into(), false));
    server.stop();
}

#[test]
fn nobody_else_is_believed_and_the_app_sees_nothing_of_it() {
    let program =
        Program::probe().config("workers = 1\nforwarded_allow_ips = '10.0.0.0/8'\naccesslog = 'access.log'");
    let mut server = program.start();
    let fields = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https"), ("x-real-ip", "6.6.6.6")];
    let answer = seen(&server, &fields, "/headers");
    assert_eq!(answer["client"]["address"], "127.0.0.1");
    assert_eq!(
        (&answer["client"]["scheme"], &answer["client"]["is_forwarded"]),
        (&"http".into(), &false.into())
    );
    for (name, _) in fields {
        assert!(!has(&answer, name), "{answer}");
    }
    server.stop();
    assert!(!fs::read_to_string(server.dir().join("access.log")).unwrap().contains("6.6.6.6"));
}

#[test]
fn a_proxy_at_a_unix_socket_is_believed_unless_it_is_taken_off_the_list() {
    let mut server = Program::probe().bind("unix:s.sock").workers(1).start();
    let forwarded = [("x-forwarded-for", "203.0.113.9")];
    assert_eq!(seen(&server, &forwarded, "/headers")["client"]["address"], "203.0.113.9");
    server.stop();
    let mut server =
        Program::probe().bind("unix:s.sock").workers(1).args("--forwarded-allow-ips 127.0.0.1").start();
    assert_eq!(seen(&server, &forwarded, "/headers")["client"]["address"], Value::Null);
    server.stop();
}

#[test]
fn everybody_can_be_believed_with_a_warning() {
    let mut server = Program::probe().workers(1).args("--forwarded-allow-ips *").start();
    server.wait_text("forwarded_allow_ips is *");
    assert_eq!(
        seen(&server, &[("x-forwarded-for", "6.6.6.6, 1.2.3.4")], "/headers")["client"]["address"],
        "6.6.6.6"
    );
    server.stop();
}

fn announced(last: u8) -> Vec<u8> {
    let addresses = [203, 0, 113, last, 127, 0, 0, 1, 0x10, 0x01, 0, 80];
    let more = [0x04, 0, 3, 1, 2, 3];
    [SIGNATURE, &[0x21, 0x11, 0, 18], &addresses, &more].concat()
}

/// The answer to what is sent in these pieces, each of its own packet as far as one can tell.
fn sent_in_pieces(server: &Server, bytes: &[u8], cuts: &[usize]) -> Result<Value, Failure> {
    let mut connection = server.connect();
    let mut from = 0;
    for &cut in cuts.iter().chain([&bytes.len()]) {
        connection.send(&bytes[from..cut])?;
        from = cut;
    }
    Ok(connection.read()?.json())
}

#[test]
fn a_header_before_the_first_request_names_the_client_however_it_comes_in() {
    let program = Program::probe().workers(1).args("--proxy-protocol auto --access-logfile access.log");
    let mut server = program.start();
    let line = b"PROXY TCP6 2001:db8::1 ::1 4097 80\r\n".to_vec();
    let mut dice = Dice::new();
    for (header, address) in [(announced(9), "203.0.113.9"), (line, "2001:db8::1")] {
        let whole = [&header, GET].concat();
        let bytewise: Vec<usize> = (1..header.len() + 5).collect();
        let mut ways = vec![vec![], vec![header.len()], bytewise];
        ways.extend((0..30).map(|_| {
            let mut cuts: Vec<usize> = (0..4).map(|_| dice.within(0..whole.len() as u64) as usize).collect();
            cuts.sort();
            cuts
        }));
        for cuts in ways {
            let answer =
                sent_in_pieces(&server, &whole, &cuts).unwrap_or_else(|why| panic!("{cuts:?}: {why}"));
            assert_eq!(answer["client"]["address"], address, "{cuts:?}");
            assert_eq!(
                (&answer["client"]["port"], &answer["client"]["is_forwarded"]),
                (&4097.into(), &false.into())
            );
        }
    }
    // The header is the connection's: later requests on it are of the same client.
    let mut connection = server.connect();
    connection.send([announced(7), GET.to_vec(), GET.to_vec()].concat()).unwrap();
    for _ in 0..2 {
        assert_eq!(connection.read().unwrap().json()["client"]["address"], "203.0.113.7");
    }
    drop(connection);
    server.stop();
    let log = fs::read_to_string(server.dir().join("access.log")).unwrap();
    assert_eq!(log.lines().filter(|line| line.starts_with("203.0.113.7 ")).count(), 2, "{log}");
}

#[test]
fn what_is_announced_is_not_believed_for_being_announced_by_a_proxy() {
    let mut server = Program::probe().workers(1).args("--proxy-protocol v2").start();
    let spoof = b"GET /headers HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\n\r\n";
    let ask = |header: &[u8]| sent_in_pieces(&server, &[header, spoof].concat(), &[]).unwrap();
    // The client is on no list, though the proxy is on both.
    assert_eq!(ask(&announced(9))["client"]["address"], "203.0.113.9");
    // Whom the proxy does not name is nobody who is trusted.
    let hidden = [SIGNATURE, &[0x21, 0, 0, 0]].concat();
    assert_eq!(ask(&hidden)["client"]["address"], Value::Null);
    // The proxy's own connection is the proxy's.
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    assert_eq!(ask(&local)["client"]["address"], "6.6.6.6");
    server.stop();
}

#[test]
fn without_a_valid_header_the_connection_ends_and_is_told_of() {
    let program = Program::probe().workers(1).args("--proxy-protocol v2 --admin-bind 127.0.0.1:0");
    let mut server = program.start();
    let line = b"PROXY TCP4 1.2.3.4 127.0.0.1 1 80\r\n";
    let long = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
    for (bytes, reason) in [
        (GET.to_vec(), "there is none"),
        (line.to_vec(), "its version is not the one that proxy_protocol names"),
        (long, "it is too long"),
    ] {
        let mut connection = server.connect();
        connection.send(&bytes).unwrap();
        connection.read_end().expect("closed without an answer");
        let line = server.wait_text(&format!("reason=\"{reason}\""));
        assert!(line.text().starts_with("proxy protocol header refused peer=127.0.0.1:"), "{}", line.raw);
    }
    let mut cut = server.connect();
    cut.send(&announced(9)[..20]).unwrap();
    cut.finish_sending().unwrap();
    cut.read_end().unwrap();
    server.wait_text("reason=\"it was cut short\"");
    let mut slow = server.connect();
    slow.send(&announced(9)[..20]).unwrap();
    slow.read_end().expect("given up after 5 s");
    server.wait_text("reason=\"it took too long\"");
    // One that only looks whether somebody listens is not told of.
    drop(server.connect());
    let admin = server.admin_target();
    let refused = || Connection::open(&admin).unwrap().get("/metrics").unwrap().text();
    eventually(DEADLINE, "five are counted", || {
        refused().contains("ferricorn_proxy_protocol_refusals_total 5\n")
    });
    assert_eq!(
        sent_in_pieces(&server, &[announced(8), GET.to_vec()].concat(), &[]).unwrap()["client"]["address"],
        "203.0.113.8"
    );
    server.stop();
}

#[test]
fn only_proxies_on_the_list_announce_clients() {
    let mut server =
        Program::probe().workers(1).args("--proxy-protocol auto --proxy-allow-from 10.0.0.1").start();
    assert_eq!(seen(&server, &[], "/headers")["client"]["address"], "127.0.0.1");
    let mut connection = server.connect();
    connection.send([announced(9), GET.to_vec()].concat()).unwrap();
    assert_eq!(connection.read().unwrap().status, 400);
    server.stop();
}

#[test]
fn a_server_that_stops_does_not_wait_for_a_header() {
    let mut server = Program::probe().workers(1).args("--proxy-protocol v2").start();
    let mut half = server.connect();
    half.send(&announced(9)[..20]).unwrap();
    let whole = sent_in_pieces(&server, &[announced(8), GET.to_vec()].concat(), &[]).unwrap();
    assert_eq!(whole["client"]["address"], "203.0.113.8");
    server.signal(SIGTERM);
    half.read_end().unwrap();
    server.wait_exit_within(seconds(20));
}
