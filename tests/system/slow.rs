//! Clients that take their time, on purpose or not: with a body, with reading; many of them at once, and what others notice.
//! Not here: each limit of time alone (timeouts.rs).

use crate::support::tls::Authority;
use crate::support::{
    Connection, DEADLINE, Program, Server, Target, alone, busy, eventually, millis, proc, seconds,
};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt::RcvBuf,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

/// More than the kernel holds for a client that reads nothing.
const MUCH: usize = 20 * 1024 * 1024;

/// For so many connections of a worker the kernel may hold more than for others.
const LARGE_ALLOWANCES: usize = 64;

/// A client with a small buffer, so that little is on its way.
fn narrow(addr: SocketAddr) -> TcpStream {
    narrower(addr, 32 * 1024)
}

/// The buffer is set before the connection stands: what the other side may send first is agreed on then.
fn narrower(addr: SocketAddr, buffer: usize) -> TcpStream {
    let SocketAddr::V4(addr) = addr else { panic!("{addr} is not IPv4") };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&socket, RcvBuf, &buffer).unwrap();
    connect(socket.as_raw_fd(), &SockaddrIn::from(addr)).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn ask(stream: &mut impl Write, path: &str, fields: &str) {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\n{fields}\r\n").unwrap();
}

/// The figure of /metrics with this name, labels and all.
fn metric(server: &Server, name: &str) -> u64 {
    let text = server.ask_admin("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn with_metrics(args: &str) -> Program {
    Program::probe().workers(1).args("--admin-bind 127.0.0.1:0").args(args)
}

/// Sends a body of `count` pieces, one every 50 ms, and reads the status; `None`: closed without one.
fn upload(server: &Server, piece: usize, count: usize, path: &str) -> Option<u16> {
    let mut client = server.connect();
    let length = piece * count;
    client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n")).unwrap();
    for _ in 0..count {
        if client.send(vec![b'x'; piece]).is_err() || client.has_head() {
            break;
        }
        thread::sleep(millis(50));
    }
    client.read().ok().map(|response| response.status)
}

#[test]
fn a_body_must_come_at_min_body_rate_once_its_grace_is_over() {
    let mut server = with_metrics("--body-timeout 1s --min-body-rate 10KiB").start();
    thread::scope(|scope| {
        // Some 200 KiB/s, and 2 KiB/s; both for three seconds.
        let fast = scope.spawn(|| upload(&server, 10 * 1024, 60, "/upload"));
        let slow = scope.spawn(|| (upload(&server, 100, 60, "/upload"), Instant::now()));
        let begin = Instant::now();
        let (status, end) = slow.join().unwrap();
        assert_eq!(status, Some(408));
        let took = end - begin;
        assert!(took >= millis(900), "{took:?}");
        assert_eq!(fast.join().unwrap(), Some(200));
    });
    let slow = || metric(&server, "ferricorn_slow_clients_total{with=\"body\"}");
    eventually(DEADLINE, "one was slow", || slow() == 1);
    server.stop();
}

#[test]
fn a_rate_of_zero_lets_a_body_drip() {
    let mut server = Program::probe().workers(1).args("--body-timeout 3s --min-body-rate 0").start();
    assert_eq!(upload(&server, 1, 90, "/upload"), Some(200));
    server.stop();
}

#[test]
fn the_time_that_the_app_is_busy_with_a_body_is_not_the_clients() {
    let mut server = Program::probe().workers(1).args("--body-timeout 3s --min-body-rate 10KiB").start();
    let mut client = server.connect();
    client
        .send("POST /upload?ms=5000 HTTP/1.1\r\nhost: test\r\ncontent-length: 20\r\n\r\n0123456789")
        .unwrap();
    // The app has the first half and is busy for five seconds. Then it waits for the second, for less than the grace.
    thread::sleep(millis(5400));
    client.send("0123456789").unwrap();
    assert_eq!(client.read().unwrap().text(), "20");
    server.stop();
}

/// Ways in which an answer can be under way, each with more to come than the kernel takes.
const STALLS: [(&str, &str, &str); 4] = [
    ("an answer in one piece", "/bytes?n=20971520", ""),
    ("a streamed answer", "/stream?n=20971520", ""),
    ("the last answer of a connection", "/bytes?n=20971520", "connection: close\r\n"),
    ("another protocol", "/flood", "connection: upgrade\r\nupgrade: flood\r\n"),
];

#[test]
fn a_client_that_takes_nothing_is_cut_off_and_forgotten() {
    let mut server = with_metrics("--send-timeout 1s --keep-alive 60s").start();
    for (what, path, fields) in STALLS {
        let mut client = narrow(server.addr());
        let begin = Instant::now();
        ask(&mut client, path, fields);
        // It reads a little, so that the answer has begun.
        client.read_exact(&mut [0; 100]).unwrap();
        eventually(seconds(20), what, || metric(&server, "ferricorn_connections_open") == 0);
        assert!(begin.elapsed() >= millis(900), "{what}: {:?}", begin.elapsed());
        let port = client.local_addr().unwrap().port();
        eventually(DEADLINE, "the kernel forgets what it held for it", || !is_known(&server, port));
    }
    assert_eq!(metric(&server, "ferricorn_slow_clients_total{with=\"answer\"}"), STALLS.len() as u64);
    server.stop();
}

/// Whether the kernel has a socket for the connection from this port, at the server's end.
fn is_known(server: &Server, port: u16) -> bool {
    held(server).iter().any(|(peer, _)| *peer == port)
}

/// The sockets at the server's end: from which port, and how many bytes wait there to be sent or taken (/proc/net/tcp).
fn held(server: &Server) -> Vec<(u16, u64)> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |place: &str| u16::from_str_radix(place.split(':').nth(1)?, 16).ok();
    let of_server = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, own, peer, _, queues, ..] = words[..] else { return None };
        let waiting = u64::from_str_radix(queues.split(':').next()?, 16).ok()?;
        (port(own)? == server.addr().port()).then_some((port(peer)?, waiting))
    };
    table.lines().filter_map(of_server).collect()
}

#[test]
fn the_same_over_tls_and_over_a_unix_socket() {
    let authority = Authority::new();
    let program = with_metrics("--send-timeout 1s").tls(&authority).args("--plain-bind unix:s.sock");
    let mut server = program.start();
    let unix = Target::Unix(server.dir().join("s.sock"));
    for target in [authority.client().to(server.addr()), unix] {
        let mut client = Connection::open(&target).unwrap();
        let begin = Instant::now();
        client.send("GET /stream?n=20971520 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        eventually(DEADLINE, "it is there", || metric(&server, "ferricorn_connections_open") == 1);
        eventually(seconds(20), "it is cut off", || metric(&server, "ferricorn_connections_open") == 0);
        assert!(begin.elapsed() >= millis(800), "{target:?}: {:?}", begin.elapsed());
    }
    server.stop();
}

#[test]
fn an_answer_that_is_read_slowly_comes_to_its_end() {
    // At this pace the socket is full for eight seconds at a time, and says nothing of what is read meanwhile.
    let mut server = with_metrics("--send-timeout 3s --keep-alive 1s").start();
    let whole = 4_000_000;
    for path in ["/bytes?n=4000000", "/stream?n=4000000"] {
        let mut client = narrower(server.addr(), 4096);
        ask(&mut client, path, "connection: close\r\n");
        let (mut buffer, mut read) = (vec![0; 400], 0);
        let begin = Instant::now();
        while begin.elapsed() < seconds(8) {
            read += client.read(&mut buffer).unwrap();
            thread::sleep(millis(50));
        }
        assert!(read < whole / 4, "it was slow: {read}");
        // It makes haste now.
        setsockopt(&client, RcvBuf, &(1024 * 1024)).unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(read + rest.len() > whole, "{path}: {} of {whole} bytes", read + rest.len());
    }
    assert_eq!(metric(&server, "ferricorn_slow_clients_total{with=\"answer\"}"), 0);
    server.stop();
}

#[test]
fn a_slow_reader_is_served_to_its_end_by_a_worker_that_drains() {
    let mut server = Program::probe().workers(1).args("--graceful-timeout 60s").start();
    let mut client = narrow(server.addr());
    ask(&mut client, "/bytes?n=20971520", "");
    client.read_exact(&mut [0; 100]).unwrap();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    // For longer than idle connections are left open.
    thread::sleep(millis(2500));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > MUCH - 100, "{} of {MUCH} bytes", rest.len());
    assert_eq!(server.wait_exit(), crate::support::server::End::Code(0));
}

#[test]
fn what_the_kernel_holds_for_a_closed_connection_is_forgotten_too() {
    let mut server = with_metrics("--send-timeout 1s").start();
    // Its buffer is so small that it hardly ever holds all that is left.
    let has_some = |port: u16| held(&server).iter().any(|(peer, bytes)| *peer == port && *bytes > 0);
    let left_with = || {
        let mut client = narrower(server.addr(), 4096);
        ask(&mut client, "/bytes?n=1000000", "connection: close\r\n");
        client.read_exact(&mut vec![0; 700_000]).unwrap();
        let mut some = vec![0; 4096];
        eventually(DEADLINE, "the server has written all and closed", || {
            // A server that is slow to close leaves nothing over.
            client.read_exact(&mut some).is_err() || metric(&server, "ferricorn_connections_open") == 0
        });
        has_some(client.local_addr().unwrap().port()).then_some(client)
    };
    let client = (0..10).find_map(|_| left_with()).expect("there is something left");
    let port = client.local_addr().unwrap().port();
    // The kernel looks now and then, and ever less often.
    eventually(DEADLINE, "nobody takes it", || !has_some(port));
    server.stop();
}

#[test]
fn a_head_sent_ahead_is_not_late_before_the_answer_to_the_one_before_is_read() {
    let mut server = Program::probe().workers(1).args("--header-timeout 1s --keep-alive 1s").start();
    let mut client = Connection::over(narrow(server.addr()));
    client.send("GET /bytes?n=20971520 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    eventually(DEADLINE, "the answer has begun", || client.has_head());
    client.send("GET / HT").unwrap();
    thread::sleep(seconds(3));
    assert_eq!(client.read().map(|answer| (answer.status, answer.body.len())), Ok((200, MUCH)));
    assert_eq!(client.read().map(|answer| answer.status), Ok(408), "now it is");
    server.stop();
}

#[test]
fn a_hundred_readers_that_stop_cost_little_memory() {
    let _alone = alone();
    let mut server = with_metrics("--send-timeout 8s").start();
    let worker = server.worker();
    for _ in 0..20 {
        assert_eq!(server.get("/stream?n=1000000").body.len(), 1_000_000);
    }
    let before = proc::memory_kib(worker, "Private_Dirty");
    let mut clients: Vec<TcpStream> = (0..100).map(|_| narrow(server.addr())).collect();
    for client in &mut clients {
        ask(client, "/stream?n=20971520", "");
    }
    eventually(DEADLINE, "all are served", || metric(&server, "ferricorn_requests_in_flight") == 100);
    let begin = Instant::now();
    let mut most = before;
    while begin.elapsed() < seconds(2) {
        most = most.max(proc::memory_kib(worker, "Private_Dirty"));
        thread::sleep(millis(100));
    }
    let each = most.saturating_sub(before) / 100;
    assert!(each < 256, "{each} KiB for each of them");
    let mut in_the_kernel: Vec<u64> = held(&server).iter().map(|(_, bytes)| *bytes).collect();
    in_the_kernel.sort_unstable_by(|one, other| other.cmp(one));
    let (large, others) = in_the_kernel.split_at(LARGE_ALLOWANCES);
    assert!(large[0] < 1200 * 1024, "{} bytes for one of them", large[0]);
    assert!(others[0] < 300 * 1024, "{} bytes for one of the others: {in_the_kernel:?}", others[0]);
    assert_eq!(server.get("/").status, 200);
    eventually(DEADLINE, "they are cut off", || metric(&server, "ferricorn_connections_open") == 0);
    assert_eq!(server.worker(), worker);
    server.stop();
}

#[test]
fn who_comes_when_others_have_left_is_given_as_much() {
    let mut server = with_metrics("--send-timeout 60s").start();
    let stopped = || {
        let mut client = narrow(server.addr());
        ask(&mut client, "/stream?n=20971520", "");
        client
    };
    let bytes_for = |client: &TcpStream| {
        let port = client.local_addr().unwrap().port();
        held(&server).iter().find(|(peer, _)| *peer == port).map_or(0, |(_, bytes)| *bytes)
    };
    let is_large = |client: &TcpStream| bytes_for(client) > 900 * 1024;
    let first: Vec<TcpStream> = (0..LARGE_ALLOWANCES).map(|_| stopped()).collect();
    eventually(DEADLINE, "they are given much", || first.iter().all(is_large));
    let next = stopped();
    eventually(DEADLINE, "one more is given a little", || bytes_for(&next) > 100 * 1024);
    drop((first, next));
    eventually(DEADLINE, "they have left", || metric(&server, "ferricorn_connections_open") == 0);
    let last = stopped();
    eventually(DEADLINE, "who comes then is given much", || is_large(&last));
    drop(last);
    server.stop();
}

#[test]
fn twenty_megabytes_are_streamed_in_little_memory() {
    let _alone = alone();
    let mut server = Program::probe().workers(1).start();
    let worker = server.worker();
    assert_eq!(server.get("/stream?n=1000000").body.len(), 1_000_000);
    let before = proc::memory_kib(worker, "Private_Dirty");
    let mut most = before;
    for _ in 0..3 {
        let mut client = server.connect();
        client.send(format!("GET /stream?n={MUCH} HTTP/1.1\r\nhost: test\r\n\r\n")).unwrap();
        assert!(client.read().unwrap().body.len() == MUCH);
        most = most.max(proc::memory_kib(worker, "Private_Dirty"));
    }
    assert!(most - before < 2 * 1024, "{} KiB more", most - before);
    server.stop();
}

/// How long each of 1000 requests took, from the shortest to the longest; over one connection, with a moment between them.
fn paces(server: &Server) -> Vec<Duration> {
    let mut client = server.connect();
    let mut paces: Vec<Duration> = (0..1000)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(client.get("/echo?msg=x").unwrap().status, 200);
            let pace = begin.elapsed();
            thread::sleep(millis(1));
            pace
        })
        .collect();
    paces.sort_unstable();
    paces
}

#[test]
fn four_hundred_slow_clients_do_not_slow_others() {
    let _alone = alone();
    let args = "--worker-connections 2000 --header-timeout 60s --body-timeout 60s --send-timeout 60s";
    let mut server = with_metrics(args).start();
    let quiet = paces(&server)[990];
    let mut clients: Vec<TcpStream> = (0..400).map(|_| narrow(server.addr())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        match number % 3 {
            0 => write!(client, "GET / HTTP/1.1\r\nhost: test\r\nx: ").unwrap(),
            1 => {
                let head = "POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 100000\r\n\r\n";
                client.write_all(head.as_bytes()).unwrap();
            }
            _ => ask(client, "/stream?n=20971520", ""),
        }
    }
    eventually(DEADLINE, "they are there", || metric(&server, "ferricorn_connections_open") >= 400);
    let slowed = thread::scope(|scope| {
        let paces = scope.spawn(|| paces(&server)[990]);
        // Each says or takes a little, again and again.
        while !paces.is_finished() {
            for (number, client) in clients.iter_mut().enumerate() {
                match number % 3 {
                    0 => client.write_all(b"y").unwrap(),
                    1 => client.write_all(b"x").unwrap(),
                    _ => client.read_exact(&mut [0; 5]).unwrap(),
                }
            }
            thread::sleep(millis(100));
        }
        paces.join().unwrap()
    });
    println!("p99 alone {quiet:?}, beside 400 slow clients {slowed:?}");
    assert!(slowed < quiet * 10 + busy(millis(50)), "p99 {slowed:?}, and {quiet:?} without them");
    assert!(metric(&server, "ferricorn_connections_open") >= 400, "they are still there");
    drop(clients);
    server.stop();
}
