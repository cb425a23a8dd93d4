//! nginx before two Ferricorns, from the file that users get: what it passes on, keeps and sends itself, and that its clients
//! notice nothing of what happens behind it.

use crate::support::front::{Clients, Front, Place, deaths, kill_all, shake};
use crate::support::ports::free_port;
use crate::support::{DEADLINE, Program, Server, alone, eventually};
use nix::sys::signal::Signal::SIGTERM;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use tungstenite::Message;

/// nginx, and the servers of its two services.
struct Setting {
    front: Front,
    /// By Unix socket, by TCP.
    shops: [Server; 2],
    binds: [String; 2],
    reports: Server,
}

/// As a server on the same machine is set: nginx runs as another user.
fn shop(bind: &str) -> Program {
    Program::probe().bind(bind).workers(2).args("--socket-mode 666 --keep-alive 75s")
}

impl Setting {
    fn start() -> Setting {
        Setting::start_with("")
    }

    /// With more arguments for the shop's servers.
    fn start_with(args: &str) -> Setting {
        let place = Place::new();
        fs::create_dir(place.path("static")).unwrap();
        let binds = [format!("unix:{}", place.name("shop.sock")), format!("127.0.0.1:{}", free_port())];
        let reports = Program::probe().workers(1).args("--root-path /reports").start();
        let shops = [shop(&binds[0]).args(args).start(), shop(&binds[1]).args(args).start()];
        let changes = [
            ("unix:/run/ferricorn/shop.sock", binds[0].clone()),
            ("127.0.0.1:8000", binds[1].clone()),
            ("127.0.0.1:8001", reports.addr().to_string()),
        ];
        Setting { front: Front::nginx(place, &changes), shops, binds, reports }
    }

    /// Waits until a worker of this server answers through nginx: it may have been left out for a while.
    fn wait_served_by(&self, number: usize) {
        eventually(DEADLINE, "it has requests again", || {
            let worker = self.front.ask("GET", "/pid").worker();
            self.shops[number].workers().contains(&worker)
        });
    }

    fn start_again(&mut self, number: usize) {
        self.shops[number] = shop(&self.binds[number]).start();
        self.wait_served_by(number);
    }

    fn stop(mut self) {
        self.shops.iter_mut().chain([&mut self.reports]).for_each(Server::stop);
    }
}

/// All that can befall one server while the other one serves.
fn befall(setting: &mut Setting, number: usize, clients: &Clients) {
    setting.wait_served_by(number);
    shake(&mut setting.shops[number], clients);
    setting.wait_served_by(number);
    kill_all(&mut setting.shops[number]);
    clients.go_on();
    setting.start_again(number);
    clients.go_on();
    setting.shops[number].stop();
    clients.go_on();
    setting.start_again(number);
    clients.go_on();
}

#[test]
fn clients_notice_nothing_of_reloads_upgrades_and_deaths_behind_nginx() {
    let _alone = alone();
    let mut setting = Setting::start();
    let clients = Clients::of(&setting.front);
    for number in [0, 1] {
        befall(&mut setting, number, &clients);
    }
    let sent = clients.finish();
    // nginx knows of the same requests, and that some of them took more than one try.
    let logged = || {
        let log = setting.front.log("access.log");
        log.lines().filter(|line| line.contains("GET /echo?")).map(str::to_owned).collect::<Vec<_>>()
    };
    eventually(DEADLINE, "all of them are logged", || logged().len() as u64 == sent);
    let lines = logged();
    assert!(lines.iter().all(|line| line.contains("HTTP/1.1\" 200 ")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains(", 200 upstream_time")), "something was tried again");
    setting.stop();
}

#[test]
fn nginx_tells_the_app_who_asked_by_what_and_for_whom() {
    let setting = Setting::start();
    let lies = ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil.example", "Forwarded: for=6.6.6.6"];
    for scheme in ["http", "https"] {
        // Both servers are asked in turn.
        for _ in 0..4 {
            let seen = setting.front.seen_by_app(scheme, "/headers", &lies);
            let client = &seen["client"];
            assert_eq!(client["address"], "127.0.0.7", "{seen}");
            assert_eq!((&client["scheme"], &client["host"]), (&scheme.into(), &"shop.example".into()));
            let text = seen.to_string();
            assert!(!text.contains("evil") && !text.contains("forwarded\","), "{seen}");
        }
    }
    // The other service is below its own path, and does not see it.
    let seen = setting.front.seen_by_app("http", "/reports/headers?a=b", &[]);
    assert_eq!((&seen["target"], &seen["client"]["root_path"]), (&"/headers?a=b".into(), &"/reports".into()));
    assert_eq!(setting.front.ask("GET", "/reports/pid").worker(), setting.reports.worker());
    setting.stop();
}

#[test]
fn nginx_keeps_what_may_be_kept_and_sends_files_by_itself() {
    let mut setting = Setting::start();
    let first = setting.front.ask("GET", "/fresh");
    assert_eq!(first.field("x-cache"), Some("MISS"));
    for _ in 0..5 {
        let again = setting.front.ask("GET", "/fresh");
        assert_eq!((again.field("x-cache"), &again.body), (Some("HIT"), &first.body));
    }
    // Another page, another language, credentials, and what says nothing of caches.
    assert_eq!(setting.front.ask("GET", "/fresh?a").field("x-cache"), Some("MISS"));
    let welsh = [("accept-language", "cy")];
    assert_eq!(setting.front.ask_with("GET", "/fresh", &welsh).field("x-cache"), Some("MISS"));
    assert_eq!(setting.front.ask_with("GET", "/fresh", &welsh).field("x-cache"), Some("HIT"));
    let credentials = [("authorization", "Bearer a"), ("accept-language", "fr")];
    for _ in 0..2 {
        assert_eq!(setting.front.ask_with("GET", "/fresh", &credentials).field("x-cache"), Some("BYPASS"));
        assert_eq!(setting.front.ask("GET", "/echo?msg=a").field("x-cache"), Some("MISS"));
    }
    fs::write(setting.front.place.path("static/site.css"), "p {}").unwrap();
    for server in &mut setting.shops {
        server.stop();
    }
    // Nobody is there any more: files and kept pages are.
    let file = setting.front.ask("GET", "/static/site.css");
    assert_eq!((file.status, file.text().as_str(), file.field("x-worker-pid")), (200, "p {}", None));
    assert!(file.field("content-type").unwrap().starts_with("text/css"), "{file:?}");
    assert_eq!(setting.front.ask("GET", "/static/none").status, 404);
    assert_eq!(setting.front.ask("GET", "/static/../shop.key").status, 502, "it is a page of the shop");
    assert_eq!(setting.front.ask("GET", "/fresh").body, first.body);
    assert_eq!(setting.front.ask("GET", "/fresh?b").status, 502);
    setting.reports.stop();
}

#[test]
fn nginx_keeps_each_form_of_a_page_that_ferricorn_compresses() {
    let setting = Setting::start_with("--compress gzip,br --compress-min-size 1");
    let mut kept: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for accepted in ["gzip", "identity", "br", "identity", "gzip", "br"] {
        let page = setting.front.ask_with("GET", "/fresh", &[("accept-encoding", accepted)]);
        assert_eq!(page.field("content-encoding"), (accepted != "identity").then_some(accepted));
        let cache = if kept.contains_key(accepted) { "HIT" } else { "MISS" };
        assert_eq!(page.field("x-cache"), Some(cache), "{accepted}");
        assert_eq!(kept.entry(accepted).or_insert_with(|| page.body.clone()), &page.body, "{accepted}");
    }
    assert!(kept["identity"].is_ascii() && kept["gzip"].starts_with(&[0x1f, 0x8b]));
    setting.stop();
}

#[test]
fn nginx_sends_no_post_twice() {
    let mut setting = Setting::start();
    // A GET is tried at both servers; a POST that was sent is not.
    assert_eq!(setting.front.ask("GET", "/crash").status, 502);
    eventually(DEADLINE, "both lost a worker", || deaths(&setting.shops) == 2);
    assert_eq!(setting.front.ask("POST", "/crash").status, 502);
    eventually(DEADLINE, "one lost a worker", || deaths(&setting.shops) == 3);
    assert_eq!(setting.front.ask("GET", "/echo?msg=a").status, 200);
    assert_eq!(deaths(&setting.shops), 3);
    // What could not be sent has hurt nobody.
    setting.shops[0].signal(SIGTERM);
    setting.shops[0].wait_exit();
    for _ in 0..10 {
        assert_eq!(setting.front.ask("POST", "/echo").status, 200);
    }
    setting.shops[1].stop();
    setting.reports.stop();
}

#[test]
fn nginx_passes_websocket_and_http2_on() {
    let place = Place::new();
    fs::create_dir(place.path("static")).unwrap();
    let mut server = Program::example("websocket").workers(1).start();
    let addr = server.addr().to_string();
    let upstreams = ["unix:/run/ferricorn/shop.sock", "127.0.0.1:8000", "127.0.0.1:8001"];
    let front = Front::nginx(place, &upstreams.map(|upstream| (upstream, addr.clone())));
    let (mut socket, _) =
        tungstenite::connect(format!("ws://127.0.0.1:{}/talk", front.place.http)).expect("it is opened");
    socket.send(Message::text("hello")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("hello"));
    let output = Command::new("curl")
        .args(["-sS", "--http2", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--cacert"])
        .arg(front.place.path("ca.pem"))
        .arg(format!("https://localhost:{}/nothing", front.place.https))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 404", "{output:?}");
    drop(socket);
    server.stop();
}
