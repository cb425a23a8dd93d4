//! How many connections a client may have open, and how many requests it may send over one.

use crate::support::tls::Authority;
use crate::support::{Connection, DEADLINE, Failure, Program, Server, Target, eventually, http};
use nix::sys::signal::Signal::SIGKILL;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

/// Nobody is a proxy, so that the tests' own address counts.
const NOBODY: &str = "forwarded_allow_ips = []\n";

fn metric(server: &Server, name: &str) -> u64 {
    let text = server.ask_admin("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// A connection that has had an answer, and stays open.
fn served(server: &Server) -> Connection {
    let mut client = server.connect();
    assert_eq!(client.get("/").unwrap().status, 200);
    client
}

/// The one that is too many is told so, whole, and closed.
#[track_caller]
fn refused(client: &mut Connection) {
    let answer = client.get("/").unwrap();
    assert_eq!((answer.status, answer.field("retry-after")), (429, Some("1")));
    client.read_end().unwrap();
}

/// From another address of this machine.
fn from(addr: Ipv4Addr, to: SocketAddr) -> Connection {
    let SocketAddr::V4(to) = to else { panic!("{to} is not IPv4") };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(addr, 0))).unwrap();
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    let client = Connection::over(TcpStream::from(socket));
    client.set_patience(DEADLINE).unwrap();
    client
}

#[test]
fn a_client_has_so_many_connections_over_all_workers() {
    // One worker cannot take them all.
    let config = format!("{NOBODY}limit_client_connections = 10\nworker_connections = 9\n");
    let program = Program::probe().workers(2).config(&config);
    let mut server = program.args("--access-logfile access.log --admin-bind 127.0.0.1:0").start();
    let mut clients: Vec<Connection> = (0..10).map(|_| served(&server)).collect();
    let mut pids: Vec<i32> = clients.iter_mut().map(|client| client.get("/pid").unwrap().worker()).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 2, "both workers have some");
    for _ in 0..5 {
        refused(&mut server.connect());
    }
    assert_eq!(
        from(Ipv4Addr::new(127, 0, 0, 2), server.addr()).get("/").unwrap().status,
        200,
        "it is another"
    );
    eventually(DEADLINE, "they are counted", || metric(&server, "ferricorn_connections_refused_total") == 5);
    let log = server.dir().join("access.log");
    let lines =
        || fs::read_to_string(&log).unwrap_or_default().lines().filter(|line| line.contains(" 429 ")).count();
    eventually(DEADLINE, "they are logged", || lines() == 5);

    clients.truncate(5);
    eventually(DEADLINE, "those that were closed leave room", || {
        let mut client = server.connect();
        if client.get("/").is_ok_and(|answer| answer.status == 200) {
            clients.push(client);
        }
        clients.len() == 10
    });
    refused(&mut server.connect());
    drop(clients);
    server.stop();
}

#[test]
fn what_a_dead_worker_had_open_is_forgotten() {
    let config = format!("{NOBODY}limit_client_connections = 8\n");
    let mut server = Program::probe().workers(2).config(&config).start();
    let mut clients: Vec<Connection> = (0..8).map(|_| served(&server)).collect();
    refused(&mut server.connect());
    let dead = clients[0].get("/pid").unwrap().worker();
    let before = clients.len();
    server.signal_to(dead, SIGKILL);
    server.wait_about(crate::support::Said::Exited, dead);
    clients.retain_mut(|client| client.get("/").is_ok());
    assert!(clients.len() < before);
    eventually(DEADLINE, "there is room for as many again", || {
        let mut client = server.connect();
        if client.get("/").is_ok_and(|answer| answer.status == 200) {
            clients.push(client);
        }
        clients.len() == before
    });
    refused(&mut server.connect());
    drop(clients);
    server.stop();
}

#[test]
fn proxies_and_unix_sockets_do_not_count_but_whom_a_proxy_names() {
    let bind = "--bind 127.0.0.1:0,unix:s.sock --proxy-protocol v1 --proxy-allow-ips 127.0.0.1";
    let args = format!("--limit-client-connections 3 {bind}");
    let mut server = Program::probe().workers(1).unbound().args(&args).start();
    let announced = |by: &str| {
        let mut client = Connection::open(&Target::Tcp(server.addr())).unwrap();
        client.send(format!("PROXY {by}\r\n")).unwrap();
        client
    };
    // The proxy's own connections, and those of a proxy behind it.
    let mut clients: Vec<Connection> = (0..10).map(|_| announced("UNKNOWN")).collect();
    clients.extend((0..10).map(|n| announced(&format!("TCP4 127.0.0.1 192.0.2.9 {} 80", 1000 + n))));
    let unix = Target::Unix(server.dir().join("s.sock"));
    clients.extend((0..10).map(|_| Connection::open(&unix).unwrap()));
    clients.extend((0..3).map(|n| announced(&format!("TCP4 192.0.2.1 192.0.2.9 {} 80", 1000 + n))));
    clients.extend((0..3).map(|n| announced(&format!("TCP6 2001:db8::{n} 2001:db8::9 {} 80", 1000 + n))));
    for client in &mut clients {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    refused(&mut announced("TCP4 192.0.2.1 192.0.2.9 2000 80"));
    refused(&mut announced("TCP6 2001:db8::abcd 2001:db8::9 2000 80"));
    drop(clients);
    server.stop();
}

#[test]
fn one_too_many_is_closed_where_it_speaks_tls() {
    let authority = Authority::new();
    let config = format!("{NOBODY}limit_client_connections = 2\n");
    let mut server = Program::probe().workers(1).tls(&authority).config(&config).start();
    let target = authority.client().to(server.addr());
    let mut clients: Vec<Connection> = (0..2).map(|_| Connection::open(&target).unwrap()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert!(Connection::open(&target).is_err());
    drop(clients);
    eventually(DEADLINE, "there is room again", || Connection::open(&target).is_ok());
    server.stop();
}

#[test]
fn a_connection_ends_after_so_many_requests() {
    let mut server = Program::probe().workers(1).args("--keepalive-requests 3").start();
    for _ in 0..3 {
        let mut client = server.connect();
        for number in 1..=3 {
            let answer = client.get("/echo?msg=whole").unwrap();
            assert_eq!((answer.text().as_str(), client.is_closing()), ("whole", number == 3));
        }
        client.read_end().unwrap();
    }
    server.stop();
}

#[test]
fn requests_sent_ahead_of_the_last_do_not_cost_its_answer() {
    let mut server = Program::probe().workers(1).args("--keepalive-requests 3").start();
    for _ in 0..20 {
        let mut client = server.connect();
        let path = "/bytes?n=300000";
        client.send(http::request("GET", path, &[], b"").repeat(3)).unwrap();
        // More than hyper reads ahead.
        let _ = client.send(http::request("GET", path, &[("x-padding", &"x".repeat(4000))], b"").repeat(100));
        for _ in 0..3 {
            assert_eq!(client.read().map(|answer| answer.body.len()), Ok(300_000));
        }
        assert_ne!(client.read_end(), Err(Failure::TimedOut));
    }
    server.stop();
}

#[test]
fn requests_sent_while_the_kernel_has_the_last_answer_do_not_cost_it() {
    let program = Program::probe().workers(1).args("--keepalive-requests 3 --admin-bind 127.0.0.1:0");
    let mut server = program.start();
    let request =
        |padding: usize| http::request("GET", "/bytes?n=300000", &[("x-padding", &"x".repeat(padding))], b"");
    let mut client = server.connect();
    client.send(request(1).repeat(3)).unwrap();
    // More than the kernel holds of its own accord, and less than all that it may.
    eventually(DEADLINE, "all is written", || {
        metric(&server, "ferricorn_response_body_bytes_total") == 900_000
            && metric(&server, "ferricorn_requests_in_flight") == 0
    });
    let _ = client.send(request(4000).repeat(100));
    for _ in 0..3 {
        assert_eq!(client.read().map(|answer| answer.body.len()), Ok(300_000));
    }
    assert_ne!(client.read_end(), Err(Failure::TimedOut));
    server.stop();
}
