//! TLS with clients: who the server is to whom, whom it lets in, what a reload changes, what costs nobody a request.

use crate::support::tls::Authority;
use crate::support::{
    Connection, DEADLINE, Failure, Load, Program, Said, Server, Target, alone, eventually, seconds,
};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;
use tokio_rustls::rustls::ProtocolVersion;

/// What `/tls` says to a client at this target.
#[track_caller]
fn ask(target: &Target) -> Result<String, Failure> {
    Ok(Connection::open(target)?.get("/tls")?.text())
}

fn der(pem: &str) -> Vec<u8> {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn run(command: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new(command).args(args).stdin(std::process::Stdio::null()).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn both_versions_are_spoken_and_the_app_knows_what_of() {
    let authority = Authority::new();
    let mut server = Program::probe().tls(&authority).start();
    let addr = server.addr();
    for (client, version) in
        [(authority.client().tls12(), "TLSv1.2"), (authority.client().tls13(), "TLSv1.3")]
    {
        let said = ask(&client.to(addr)).unwrap();
        assert_eq!(said, format!("{version} https://localhost resumed=false client=0"));
    }
    // What others make of it.
    let roots = server.dir().join("ca.pem");
    fs::write(&roots, &authority.pem).unwrap();
    let (roots, url) = (roots.to_str().unwrap(), format!("https://localhost:{}/tls", addr.port()));
    let at = format!("localhost:{}:127.0.0.1", addr.port());
    for (version, most, said) in [("--tlsv1.2", "1.2", "TLSv1.2"), ("--tlsv1.3", "1.3", "TLSv1.3")] {
        let args = ["-sS", "--cacert", roots, "--resolve", &at, version, "--tls-max", most, &url];
        let (succeeded, text) = run("curl", &args);
        assert!(succeeded && text.starts_with(said), "{text}");
    }
    let connect = addr.to_string();
    let (_, text) = run("openssl", &["s_client", "-connect", &connect, "-CAfile", roots, "-tls1_1"]);
    assert!(!text.contains("Cipher is TLS") && text.contains("no peer certificate available"), "{text}");
    let (_, text) =
        run("openssl", &["s_client", "-connect", &connect, "-CAfile", roots, "-alpn", "http/1.1"]);
    assert!(
        text.contains("Verify return code: 0 (ok)") && text.contains("ALPN protocol: http/1.1"),
        "{text}"
    );
    server.stop();
}

#[test]
fn each_client_gets_the_certificate_of_the_host_that_it_names() {
    let authority = Authority::new();
    let program = Program::probe();
    let names: [&[&str]; 3] = [&["first.example", "localhost"], &["*.second.example"], &["third.example"]];
    let made = names.map(|names| authority.certify(names));
    for (at, certified) in made.iter().enumerate() {
        certified.write(program.dir(), &at.to_string());
    }
    let mut server = program.args("--certfile 0.crt,1.crt,2.crt --keyfile 0.key,1.key,2.key").start();
    let addr = server.addr();
    let config = authority.client().forgetful().config();
    for (name, wanted) in [
        ("first.example", 0),
        ("localhost", 0),
        ("a.second.example", 1),
        ("A.Second.example", 1),
        ("third.example", 2),
    ] {
        let target = Target::Tls { addr, name: name.to_owned(), config: config.clone() };
        let mut connection = Connection::open(&target).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(connection.secured().certificate(), der(&made[wanted].certificate), "{name}");
        let said = connection.get("/tls").unwrap().text();
        assert!(said.contains(&name.to_lowercase()), "{said}");
    }
    // Somebody else's name gets the first, which is not for it, and the client says so.
    let stranger = Target::Tls { addr, name: "stranger.example".to_owned(), config };
    assert!(Connection::open(&stranger).is_err());
    server.stop();
}

#[test]
fn clients_are_let_in_by_their_certificates() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    for reqs in ["optional", "required", "1", "2"] {
        let program = Program::probe().tls(&authority).file("clients.pem", &clients.pem);
        let mut server = program.args("--ca-certs clients.pem --cert-reqs").args(reqs).start();
        let addr = server.addr();
        let is_required = ["required", "2"].contains(&reqs);
        for tls12 in [true, false] {
            let client = || if tls12 { authority.client().tls12() } else { authority.client().tls13() };
            let known = ask(&client().showing(clients.certify(&["somebody"])).to(addr)).unwrap();
            assert!(!known.ends_with("client=0"), "{known}");
            let unknown = ask(&client().showing(strangers.certify(&["somebody"])).to(addr));
            assert!(unknown.is_err(), "{reqs}: {unknown:?}");
            let expired = ask(&client().showing(clients.certify_from(&["somebody"], 2001)).to(addr));
            assert!(expired.is_err(), "{reqs}: {expired:?}");
            let none = ask(&client().to(addr));
            assert_eq!(none.is_err(), is_required, "{reqs}: {none:?}");
            assert!(none.is_err() || none.unwrap().ends_with("client=0"));
        }
        server.stop();
    }
}

#[test]
fn a_session_is_resumed_at_another_worker() {
    let authority = Authority::new();
    for tls12 in [true, false] {
        let mut server = Program::probe().tls(&authority).workers(2).start();
        let client = if tls12 { authority.client().tls12() } else { authority.client().tls13() };
        let target = client.to(server.addr());
        let first = Connection::open(&target).unwrap().get("/tls").unwrap();
        assert!(first.text().contains("resumed=false"), "{}", first.text());
        let mut workers = BTreeSet::new();
        eventually(DEADLINE, "the session is resumed at both workers", || {
            let mut connection = Connection::open(&target).unwrap();
            let answer = connection.get("/tls").unwrap();
            assert!(answer.text().contains("resumed=true"), "{}", answer.text());
            assert!(connection.secured().is_resumed());
            let version = if tls12 { ProtocolVersion::TLSv1_2 } else { ProtocolVersion::TLSv1_3 };
            assert_eq!(connection.secured().version(), Some(version));
            workers.insert(answer.worker());
            workers.len() == 2
        });
        server.stop();
    }
}

#[test]
fn a_reload_keeps_sessions_and_one_that_asks_for_other_certificates_does_not() {
    let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let program = Program::probe().tls(&authority).file("clients.pem", &clients.pem);
    let mut server = program.args("--ca-certs clients.pem --cert-reqs required").start();
    let target = authority.client().showing(clients.certify(&["somebody"])).to(server.addr());
    assert!(ask(&target).unwrap().contains("resumed=false"));
    reload(&server, 1);
    let kept = ask(&target).unwrap();
    assert!(kept.contains("resumed=true") && !kept.ends_with("client=0"), "{kept}");
    fs::write(server.dir().join("clients.pem"), &others.pem).unwrap();
    reload(&server, 2);
    let refused = ask(&target);
    assert!(refused.is_err(), "nobody vouches for it any more: {refused:?}");
    server.wait_lines("the contents of certfile, keyfile or ca_certs changed", 1);
    server.stop();
}

/// Asks for a reload and waits until no old worker is left.
fn reload(server: &Server, number: usize) {
    let old = server.workers();
    server.signal(SIGHUP);
    server.wait_count(Said::ReloadDone, number);
    server.wait_nobody_left(&old, DEADLINE);
}

#[test]
fn a_reload_takes_a_new_certificate_and_refuses_a_broken_one() {
    let authority = Authority::new();
    let mut server = Program::probe().tls(&authority).workers(1).args("--admin-bind 127.0.0.1:0").start();
    let target = authority.client().forgetful().to(server.addr());
    let mut kept = Connection::open(&target).unwrap();
    let old = kept.secured().certificate();
    assert_eq!(kept.get("/").unwrap().status, 200);
    // Under way: what is idle has only a second.
    kept.send("POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\na").unwrap();
    let in_flight = || server.ask_admin("/status").json()["workers"][0]["requests_in_flight"].clone();
    eventually(DEADLINE, "it is under way", || in_flight()[0]["phase"] == "reading");
    let new = authority.certify(&["localhost"]);
    new.write(server.dir(), "s");
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    eventually(DEADLINE, "new connections get the new one", || {
        Connection::open(&target).unwrap().secured().certificate() == der(&new.certificate)
    });
    // The old worker drains, but still answers, with what it had.
    assert_ne!(old, der(&new.certificate));
    kept.send("b").unwrap();
    assert_eq!(kept.read().map(|answer| answer.text()), Ok("2".to_owned()));
    let workers = server.workers();

    let folder = server.dir().to_owned();
    let key = folder.join("s.key");
    let other = authority.certify(&["localhost"]);
    let damages: [(&str, &dyn Fn()); 5] = [
        ("can be read", &|| fs::remove_file(&key).unwrap()),
        ("has at most the permissions", &|| {
            fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap()
        }),
        ("not encrypted", &|| fs::write(&key, "-----BEGIN PRIVATE KEY-----\nsecretsecret\n").unwrap()),
        ("the key of the certificate in s.crt", &|| fs::write(&key, &other.key).unwrap()),
        ("a certificate in PEM", &|| fs::write(folder.join("s.crt"), "").unwrap()),
    ];
    for (count, (why, damage)) in damages.iter().enumerate() {
        new.write(&folder, "s");
        damage();
        server.signal(SIGHUP);
        let refused = server.wait_count(Said::ReloadRefused, count + 1);
        assert!(refused.raw.contains(why), "{}", refused.raw);
        assert!(!refused.raw.contains("secretsecret"), "{}", refused.raw);
        assert_eq!(Connection::open(&target).unwrap().secured().certificate(), der(&new.certificate));
        eventually(DEADLINE, "the same workers serve", || server.workers().len() == 1);
    }
    assert!(server.workers().iter().all(|worker| workers.contains(worker)));
    new.write(&folder, "s");
    server.signal(SIGHUP);
    server.wait_count(Said::ReloadDone, 2);
    server.stop();
}

#[test]
fn what_is_wrong_with_the_files_is_said_before_anything_starts() {
    let authority = Authority::new();
    let other = authority.certify(&["localhost"]);
    let program = |args: &str| {
        let program = Program::stock().tls(&authority);
        other.write(program.dir(), "other");
        authority.certify_from(&["localhost"], 2001).write(program.dir(), "old");
        fs::write(program.dir().join("open.key"), &other.key).unwrap();
        fs::set_permissions(program.dir().join("open.key"), fs::Permissions::from_mode(0o640 | 0o004))
            .unwrap();
        program.args("--check-config").args(args)
    };
    for (args, why) in [
        ("--keyfile other.key", "the key of the certificate in s.crt"),
        ("--keyfile nowhere.key", "No such file"),
        ("--keyfile open.key --certfile other.crt", "has at most the permissions 6"),
        ("--keyfile s.key,other.key", "as many files in certfile as in keyfile"),
        ("--keyfile=", "as many files in certfile as in keyfile"),
        ("--certfile s.key", "a certificate in PEM"),
        ("--cert-reqs required", "none where ca_certs is not set"),
        ("--ca-certs s.crt", "a file only with cert_reqs"),
        ("--ca-certs s.key --cert-reqs required", "certificates of authorities in PEM"),
        ("--plain-bind 127.0.0.1:0 --certfile= --keyfile= --cert-reqs 2", "none where certfile is not set"),
        ("--cert-reqs 3", "none, optional or required"),
        ("-b 127.0.0.1:8443 --plain-bind 127.0.0.1:8443", "addresses that are not in bind"),
    ] {
        let ended = program(args).run();
        assert_eq!(ended.code, Some(2), "{args}: {}", ended.stderr);
        assert!(ended.stderr.contains(why), "{args}: {}", ended.stderr);
    }
    let ended = program("--certfile old.crt --keyfile old.key").run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("certfile old.crt expired on 2011-01-01"), "{}", ended.stderr);
    let printed = program("--print-config").run();
    let secret = other.key.lines().nth(1).unwrap();
    assert!(printed.stdout.contains("keyfile = [\"s.key\"]"), "{}", printed.stdout);
    assert!(!printed.stdout.contains(secret) && !printed.stdout.contains("PRIVATE"), "{}", printed.stdout);
}

#[test]
fn who_does_not_finish_a_handshake_is_cut_off_and_counted() {
    let authority = Authority::new();
    let program = Program::probe().tls(&authority).args("--handshake-timeout 2s --log-level debug");
    let mut server = program.args("--admin-bind unix:admin.sock").start();
    let plain = Target::Tcp(server.addr());
    let hello = [0x16, 3, 1, 2, 0];
    let count = |server: &Server| {
        let text = server.ask_admin("/metrics").text();
        let line = text.lines().find(|line| line.starts_with("ferricorn_handshake_failures_total")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as usize
    };
    let began = Instant::now();
    let slow = [&hello[..0], &hello[..1], &hello[..]].map(|sent| {
        let mut slow = Connection::open(&plain).unwrap();
        slow.send(sent).unwrap();
        slow
    });
    for mut slow in slow {
        slow.read_end().unwrap();
        let took = began.elapsed();
        assert!(took >= seconds(2) && took < seconds(20), "{took:?}");
    }
    eventually(DEADLINE, "they are counted", || count(&server) == 3);
    server.wait_lines("handshake failed", 3);
    let mut garbled = Connection::open(&plain).unwrap();
    // A server's hello where a client's is due: an alert, and the end.
    garbled.send([0x16, 3, 1, 0, 4, 2, 0, 0, 0]).unwrap();
    let alert = garbled.read_rest_raw();
    assert_eq!(alert.first(), Some(&0x15), "{alert:?}");
    eventually(DEADLINE, "it is counted", || count(&server) == 4);
    // One that comes and goes at once is a probe of the address.
    drop(Connection::open(&plain).unwrap());
    assert!(ask(&authority.client().to(server.addr())).is_ok());
    assert_eq!(count(&server), 4);
    server.stop();
}

#[test]
fn tls_and_clear_text_are_served_side_by_side() {
    let authority = Authority::new();
    for args in [
        "--plain-bind 127.0.0.2:0 --plain-bind unix:s.sock",
        "--plain-bind 127.0.0.2:0,unix:s.sock --reuse-port",
    ] {
        let mut server = Program::probe().tls(&authority).args(args).start();
        let listening = server.wait_count(Said::Listening, 3);
        assert!(listening.raw.contains("s.sock"), "{}", listening.raw);
        let lines = server.log_with("listening on=");
        let on = |at: usize| Target::named(lines[at].split_once("on=").unwrap().1, server.dir());
        for plain in [on(1), on(2)] {
            assert_eq!(ask(&plain).unwrap(), "none", "{plain:?}");
        }
        let Target::Tcp(secured) = on(0) else { panic!("it is TCP") };
        assert!(ask(&authority.client().to(secured)).unwrap().starts_with("TLSv1.3"));
        // Whoever mistakes one for the other is told.
        let answer = Connection::open(&on(0)).unwrap().get("/").unwrap();
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("https://"), "{}", answer.text());
        let Target::Tcp(plain) = on(1) else { panic!("it is TCP") };
        assert!(ask(&authority.client().to(plain)).is_err());
        reload(&server, 1);
        assert_eq!(ask(&on(1)).unwrap(), "none");
        assert!(ask(&authority.client().to(secured)).is_ok());
        server.stop();
    }
}

#[test]
fn the_end_of_a_connection_is_said() {
    let authority = Authority::new();
    let mut server = Program::probe().tls(&authority).args("--keep-alive 300ms").start();
    let target = authority.client().to(server.addr());
    // By either side's wish, by the idle timeout, and at a stop. `read_end` takes an end that is not said for a failure.
    let mut closing = Connection::open(&target).unwrap();
    assert_eq!(closing.request("GET", "/", &[("connection", "close")], b"").unwrap().status, 200);
    closing.read_end().unwrap();
    let mut idle = Connection::open(&target).unwrap();
    assert_eq!(idle.get("/").unwrap().status, 200);
    idle.read_end().unwrap();
    let mut open = Connection::open(&target).unwrap();
    assert_eq!(open.get("/").unwrap().status, 200);
    server.stop();
    open.read_end().unwrap();
}

#[test]
fn the_workers_user_need_not_be_able_to_read_the_key() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: only root can give another user");
        return;
    }
    let authority = Authority::new();
    let program = Program::probe().tls(&authority).args("--user nobody");
    fs::set_permissions(program.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut server = program.start();
    let target = authority.client().forgetful().to(server.addr());
    assert!(ask(&target).is_ok());
    let new = authority.certify(&["localhost"]);
    new.write(server.dir(), "s");
    reload(&server, 1);
    assert_eq!(Connection::open(&target).unwrap().secured().certificate(), der(&new.certificate));
    server.stop();
}

/// How many requests each kind of load sends; a handshake costs more than a request.
const REQUESTS: u64 = 6_000;
const RELOADS: u64 = 4;

#[test]
fn reloads_lose_no_request_over_tls() {
    let _alone = alone();
    let authority = Authority::new();
    for (args, keep_alive) in [("", true), ("", false), ("--reuse-port", true), ("--reuse-port", false)] {
        let mut server = Program::probe().tls(&authority).args(args).workers(2).start();
        let load = Load::on(authority.client().to(server.addr())).keeping(keep_alive);
        let load = load.at_least(REQUESTS).start();
        for done in 1..=RELOADS {
            server.signal(SIGHUP);
            server.wait_count(Said::ReloadDone, usize::try_from(done).unwrap());
            load.wait_more(REQUESTS / RELOADS / 4);
        }
        let report = load.finish();
        report.assert_none_failed();
        assert!(report.workers.len() > usize::try_from(RELOADS).unwrap(), "{report}");
        server.stop();
    }
}

#[test]
fn a_killed_worker_costs_what_it_had_and_its_sessions_go_on() {
    let _alone = alone();
    let authority = Authority::new();
    let mut server = Program::probe().tls(&authority).workers(2).start();
    let load = Load::on(authority.client().to(server.addr())).without_keep_alive().at_least(REQUESTS).start();
    load.wait_more(REQUESTS / 10);
    for count in 1..=2 {
        server.signal_to(server.workers()[0], SIGKILL);
        server.wait_count(Said::Exited, count);
        server.wait_count(Said::Ready, 2 + count);
        load.wait_more(REQUESTS / 10);
    }
    let report = load.finish();
    // Eight connections: no more can have been at the two that died.
    assert!(report.failed() <= 16, "{report}");
    assert!(report.refused == 0 && report.wrong_body == 0 && report.wrong_status.is_empty(), "{report}");
    server.stop();
}
