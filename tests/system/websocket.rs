//! Connections that change their protocol: they are the app's, belong to the server's life, and are no concern of its timeouts.

use crate::support::server::End;
use crate::support::{Program, Said, Server, millis, seconds};
use nix::sys::signal::Signal;
use std::net::TcpStream;
use std::time::Instant;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

/// Longer than the idle time of these servers and two sweeps.
const IDLE_FOR: u64 = 2;

fn open(server: &Server) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(seconds(30))).unwrap();
    let (socket, answer) = tungstenite::client(format!("ws://{}/talk", server.addr()), stream).unwrap();
    assert_eq!(answer.status(), 101);
    socket
}

fn echoes(socket: &mut WebSocket<TcpStream>, text: &str) {
    socket.send(Message::text(text)).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text(text));
}

fn says_goodbye(socket: &mut WebSocket<TcpStream>) {
    match socket.read().unwrap() {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Away),
        other => panic!("not a goodbye: {other:?}"),
    }
    // The closing handshake is answered, and the server ends the connection.
    while socket.read().is_ok() {}
}

#[test]
fn a_websocket_outlasts_timeouts_and_hears_of_a_reload() {
    let mut server = Program::example("websocket")
        .workers(1)
        .args("--keep-alive 1s --header-timeout 1s --body-timeout 1s --request-timeout 1s --access-logfile a.log")
        .start();
    let mut socket = open(&server);
    echoes(&mut socket, "hello");
    let until = Instant::now() + seconds(IDLE_FOR);
    while Instant::now() < until {
        // Another client's idle connection does end meanwhile.
        server.connect().read_end().unwrap();
    }
    echoes(&mut socket, &"x".repeat(40_000));

    server.signal(Signal::SIGHUP);
    says_goodbye(&mut socket);
    // Until it has left it may be given another one.
    server.wait(Said::Exited);
    echoes(&mut open(&server), "again");
    server.stop();
    let log = std::fs::read_to_string(server.dir().join("a.log")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("\"GET /talk HTTP/1.1\" 101 0")).count(), 2, "{log}");
}

#[test]
fn a_stop_waits_for_websockets_and_for_no_longer_than_graceful_timeout() {
    let mut server = Program::example("websocket").workers(2).args("--graceful-timeout 20s").start();
    let mut sockets: Vec<_> = (0..10).map(|_| open(&server)).collect();
    server.signal(Signal::SIGTERM);
    sockets.iter_mut().for_each(says_goodbye);
    assert_eq!(server.wait_exit_within(seconds(15)), End::Code(0), "before graceful_timeout");
}

#[test]
fn one_that_is_never_closed_has_all_of_graceful_timeout() {
    let mut server = Program::probe().workers(1).args("--graceful-timeout 1s").start();
    let mut held = server.connect();
    held.send("GET /silence HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: silence\r\n\r\n").unwrap();
    assert_eq!(held.read().unwrap().status, 101);
    let begin = Instant::now();
    server.signal(Signal::SIGTERM);
    held.read_end().unwrap();
    assert!(begin.elapsed() >= millis(950), "the worker left after {:?}", begin.elapsed());
    assert_eq!(server.wait_exit(), End::Code(0));
}
