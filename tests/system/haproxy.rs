//! HAProxy before two Ferricorns, from the file that users get: the PROXY protocol, health checks, and clients that notice
//! nothing of what happens behind it.

use crate::support::front::{Clients, Front, Place, deaths, kill_all, shake};
use crate::support::ports::free_port;
use crate::support::{DEADLINE, Program, Server, alone, eventually};
use nix::sys::signal::Signal::{SIGINT, SIGTERM};

/// HAProxy, and the servers of its two services.
struct Setting {
    front: Front,
    /// By Unix socket, by TCP.
    shops: [Server; 2],
    binds: [(String, u16); 2],
    reports: Server,
}

const NAMES: [&str; 2] = ["one", "two"];

fn behind(bind: &str, admin: u16) -> Program {
    let program = Program::probe().bind(bind).workers(2);
    program
        .args("--socket-mode 666 --proxy-protocol v2 --lame-duck 5m")
        .args(&format!("--admin-bind 127.0.0.1:{admin}"))
}

impl Setting {
    fn start() -> Setting {
        let place = Place::new();
        let binds = [
            (format!("unix:{}", place.name("shop.sock")), free_port()),
            (format!("127.0.0.1:{}", free_port()), free_port()),
        ];
        let reports = (format!("127.0.0.1:{}", free_port()), free_port());
        let shops = [behind(&binds[0].0, binds[0].1).start(), behind(&binds[1].0, binds[1].1).start()];
        let changes = [
            ("unix@/run/ferricorn/shop.sock", binds[0].0.replace("unix:", "unix@")),
            ("port 9000", format!("port {}", binds[0].1)),
            ("127.0.0.1:8000", binds[1].0.clone()),
            ("port 9001", format!("port {}", binds[1].1)),
            ("127.0.0.1:8001", reports.0.clone()),
            ("port 9002", format!("port {}", reports.1)),
        ];
        let reports = behind(&reports.0, reports.1).args("--root-path /reports").start();
        let setting = Setting { front: Front::haproxy(place, &changes), shops, binds, reports };
        NAMES.iter().for_each(|name| setting.wait_state(name, "UP"));
        setting
    }

    fn wait_state(&self, server: &str, state: &str) {
        eventually(DEADLINE, &format!("{server} is {state}"), || {
            self.front.state_of("shop", server) == state
        });
    }

    /// Waits until HAProxy finds it ready, and one of its workers answers.
    fn wait_served_by(&self, number: usize) {
        self.wait_state(NAMES[number], "UP");
        eventually(DEADLINE, "it has requests again", || {
            self.shops[number].workers().contains(&self.front.ask("GET", "/pid").worker())
        });
    }

    fn start_again(&mut self, number: usize) {
        self.shops[number] = behind(&self.binds[number].0, self.binds[number].1).start();
        self.wait_served_by(number);
    }

    fn stop(self) {
        let mut servers: Vec<Server> = self.shops.into_iter().chain([self.reports]).collect();
        servers.iter().for_each(|server| server.signal(SIGINT));
        for server in &mut servers {
            server.wait_exit();
        }
    }
}

/// All that can befall one server while the other one serves.
fn befall(setting: &mut Setting, number: usize, clients: &Clients) {
    setting.wait_served_by(number);
    shake(&mut setting.shops[number], clients);
    setting.wait_served_by(number);
    kill_all(&mut setting.shops[number]);
    clients.go_on();
    setting.wait_state(NAMES[number], "DOWN");
    setting.start_again(number);
    clients.go_on();
    // A stop that is announced is seen before it happens.
    setting.shops[number].signal(SIGTERM);
    setting.wait_state(NAMES[number], "DOWN");
    assert!(!setting.shops[number].has_ended(), "it still serves");
    setting.shops[number].signal(SIGTERM);
    setting.shops[number].wait_exit();
    clients.go_on();
    setting.start_again(number);
    clients.go_on();
}

#[test]
fn clients_notice_nothing_of_reloads_upgrades_and_deaths_behind_haproxy() {
    let _alone = alone();
    let mut setting = Setting::start();
    let clients = Clients::of(&setting.front);
    for number in [0, 1] {
        befall(&mut setting, number, &clients);
    }
    let sent = clients.finish();
    let logged = || setting.front.log("said.log").lines().filter(|line| line.contains("GET /echo?")).count();
    eventually(DEADLINE, "all of them are logged", || logged() as u64 == sent);
    assert!(setting.shops.iter().all(|shop| shop.log_with("proxy protocol header refused").is_empty()));
    setting.stop();
}

#[test]
fn haproxy_tells_the_app_who_asked_by_what_and_for_whom() {
    let setting = Setting::start();
    let lies = ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "Forwarded: for=6.6.6.6"];
    for scheme in ["http", "https"] {
        // Both servers are asked in turn.
        for _ in 0..4 {
            let seen = setting.front.seen_by_app(scheme, "/headers", &lies);
            let client = &seen["client"];
            assert_eq!(client["address"], "127.0.0.7", "{seen}");
            assert_eq!(client["scheme"], scheme, "{seen}");
            assert!(client["host"].as_str().unwrap().starts_with("shop.example"), "{seen}");
            assert!(seen["peer"].as_str().unwrap().starts_with("127.0.0.7:"), "{seen}");
            assert!(!seen.to_string().contains("forwarded-"), "{seen}");
        }
    }
    let seen = setting.front.seen_by_app("https", "/reports/headers?a=b", &[]);
    assert_eq!((&seen["target"], &seen["client"]["root_path"]), (&"/headers?a=b".into(), &"/reports".into()));
    assert_eq!(seen["client"]["scheme"], "https");
    setting.stop();
}

#[test]
fn haproxy_sends_only_safe_requests_twice() {
    let setting = Setting::start();
    let deaths = || deaths(&setting.shops);
    for method in ["POST", "PUT", "DELETE"] {
        let before = deaths();
        assert_eq!(setting.front.ask(method, "/crash").status, 502);
        eventually(DEADLINE, "one lost a worker", || deaths() == before + 1);
        for number in [0, 1] {
            setting.wait_served_by(number);
        }
        assert_eq!(deaths(), before + 1, "{method}");
    }
    let before = deaths();
    assert_eq!(setting.front.ask("GET", "/crash").status, 502);
    eventually(DEADLINE, "it was tried again", || deaths() > before + 1);
    setting.stop();
}
