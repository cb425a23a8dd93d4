//! Readiness by the database, where a probe asks for it, with a real one that is stopped and started again.

use crate::support::postgres::Cluster;
use crate::support::{DEADLINE, Program, Response, Server, eventually};

const BOTH: [&str; 2] = ["/readyz?database", "/ready?database"];

/// What the admin process and a worker say.
#[track_caller]
fn answers(server: &Server) -> [Response; 2] {
    [server.ask_admin(BOTH[0]), server.get(BOTH[1])]
}

/// Both say so; who does not ask for the database hears nothing of it.
#[track_caller]
fn wait_for(server: &Server, status: u16, what: &str) -> [Response; 2] {
    eventually(DEADLINE, what, || answers(server).iter().all(|answer| answer.status == status));
    let plain = || server.ask_admin("/readyz");
    eventually(DEADLINE, "it is ready without", || {
        plain().status == 200 && server.get("/ready").status == 200
    });
    assert_eq!(plain().json().get("database"), None);
    answers(server)
}

/// Until each worker has tried to connect in vain: the first call may only lose the connection that it had.
#[track_caller]
fn ask_in_vain(server: &Server) {
    let mut clients = server.connections_to_all(2);
    eventually(DEADLINE, "all workers know", || {
        for (_, client) in &mut clients {
            assert_eq!(client.get("/db?token=a").unwrap().status, 503);
        }
        server.ask_admin(BOTH[0]).json()["database"]["down"] == 2
    });
}

#[test]
fn who_asks_is_told_that_the_database_is_away_until_it_is_back() {
    let cluster = Cluster::start();
    let program = Program::probe().variable("FERRICORN_DATABASE_URL", &cluster.url()).workers(2);
    let mut server = program.args("--admin-bind 127.0.0.1:0 --ready-path /ready --pool-timeout 1s").start();
    let [told, _] = wait_for(&server, 200, "nobody has tried yet");
    assert_eq!(told.json()["database"], serde_json::json!({ "usable": 2, "down": 0 }));
    // The first connection may take a busy machine longer than a page waits for one.
    eventually(DEADLINE, "a page of the database", || server.get("/db?token=a").text() == "a");
    cluster.stop();
    ask_in_vain(&server);
    for told in wait_for(&server, 503, "the database is away") {
        let text = told.text();
        assert_eq!(told.json()["database"], serde_json::json!({ "usable": 0, "down": 2 }), "{text}");
        assert!(text.contains("the database cannot be reached"), "{text}");
        // Nothing of where it is, and as whom.
        assert!(!text.contains(&cluster.addr().port().to_string()) && !text.contains("postgres"), "{text}");
    }
    let metrics = server.ask_admin("/metrics").text();
    assert!(metrics.contains("\nferricorn_pools_down 2\n"), "{metrics}");
    assert_eq!(server.ask_admin("/status").json()["workers"][1]["database"], "down");
    eventually(DEADLINE, "it lives", || server.ask_admin("/healthz?database").status == 200);
    // Nobody asks a page, and it comes back all the same.
    cluster.restart();
    wait_for(&server, 200, "the database is back");
    let all_are = || server.ask_admin(BOTH[0]).json()["database"]["usable"] == 2;
    eventually(DEADLINE, "one was enough, and the others come", all_are);
    eventually(DEADLINE, "a page of the database", || server.get("/db?token=b").text() == "b");
    cluster.stop();
    ask_in_vain(&server);
    wait_for(&server, 503, "it is away again");
    server.stop();
}

#[test]
fn a_server_without_a_database_is_not_ready_by_it() {
    let server = Program::probe().workers(1).args("--admin-bind 127.0.0.1:0 --ready-path /ready").start();
    for told in wait_for(&server, 503, "it has none") {
        assert_eq!(told.json()["reasons"][0], "no database is set");
    }
}
