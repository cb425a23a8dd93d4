//! What is sent back, byte by byte: bodies where there must be none, `100 Continue`, fields that are dropped, refusals that
//! reach whoever still sends. Not here: which requests are refused (corpus).

use crate::support::Program;
use bytes::Bytes;
use ferricorn::testing::{Local, Setup};
use ferricorn::{Body, HttpService};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Answers with the status of the path, and always with a body: the fields that it has seen, and the body.
async fn obey(request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut told: Vec<u8> = Vec::new();
    for (name, value) in &head.headers {
        told.extend_from_slice(&[name.as_str().as_bytes(), b"=", value.as_bytes(), b" "].concat());
    }
    if head.uri.query() != Some("unread") {
        told.extend_from_slice(&body.collect().await.map(|body| body.to_bytes()).unwrap_or_default());
    }
    let mut response = Response::new(Full::from(told));
    *response.status_mut() = head.uri.path()[1..].parse().unwrap();
    Ok(response)
}

fn app(config: &str) -> Local<impl HttpService> {
    Setup::new().config(config).app(|_| tower::service_fn(obey))
}

/// What comes back, without the dates.
fn ask(app: &Local<impl HttpService>, pieces: &[&str]) -> String {
    let pieces: Vec<_> = pieces.iter().map(|piece| piece.as_bytes()).collect();
    let text = String::from_utf8(app.speak(&pieces).bytes).unwrap();
    let lines = text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: "));
    lines.collect()
}

#[test]
fn there_is_no_body_where_there_must_be_none() {
    let app = app("");
    let second = "GET /200 HTTP/1.1\r\nhost: b\r\n\r\n";
    let after = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nhost=b ";
    // RFC 9110, 6.4.1, 15.3.5 and 15.4.5: whatever the app gives.
    for (method, status) in [("GET", 204), ("GET", 304), ("HEAD", 200), ("HEAD", 404), ("HEAD", 204)] {
        let said = ask(&app, &[&format!("{method} /{status} HTTP/1.1\r\nhost: a\r\n\r\n{second}")]);
        let (head, rest) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {status}: {said}");
        assert_eq!(rest, after, "{method} {status}");
        assert!(status != 204 || !head.contains("content-length"), "RFC 9110, 8.6: {said}");
    }
    let said = ask(&app, &["HEAD /200 HTTP/1.1\r\nhost: a b\r\n\r\n"]);
    assert!(said.starts_with("HTTP/1.1 400 ") && said.ends_with("\r\n\r\n"), "a refusal to HEAD: {said}");
}

#[test]
fn an_interim_answer_of_the_app_is_an_error() {
    let said = ask(&app(""), &["GET /103 HTTP/1.1\r\nhost: a\r\n\r\nGET /200 HTTP/1.1\r\nhost: b\r\n\r\n"]);
    assert!(said.starts_with("HTTP/1.1 500 "), "hyper sends no other: {said}");
    assert!(
        said.ends_with("\r\n\r\n") && said.matches("HTTP/1.1").count() == 1,
        "and nothing follows: {said}"
    );
}

#[test]
fn a_client_that_waits_is_told_to_go_on_when_the_body_is_wanted() {
    let app = app("");
    let head = |path: &str, fields: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: a\r\n{fields}content-length: 5\r\n\r\n")
    };
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    let waits = head("/200", "expect: 100-continue\r\n");
    assert_eq!(ask(&app, &[&waits]).split_at(go_on.len()).0, go_on);
    let said = ask(&app, &[&waits, "hello"]);
    assert!(said.starts_with(&format!("{go_on}HTTP/1.1 200 ")) && said.ends_with("hello"), "{said}");
    // Neither who does not wait, nor an app that does not want it, nor HTTP/1.0 (RFC 9110, 10.1.1).
    assert!(!ask(&app, &[&head("/200", ""), "hello"]).contains(" 100 "));
    assert!(!ask(&app, &[&head("/200?unread", "expect: 100-continue\r\n")]).contains(" 100 "));
    assert!(!ask(&app, &[&waits.replace("HTTP/1.1", "HTTP/1.0"), "hello"]).contains(" 100 "));
    let said = ask(&app, &[&head("/200", "expect: 200-ok\r\n"), "hello"]);
    assert!(said.starts_with("HTTP/1.1 417 "), "{said}");
}

#[test]
fn names_with_an_underscore_go_the_way_of_header_map() {
    let get = "GET /200 HTTP/1.1\r\nhost: a\r\nx-real-ip: 1\r\nX_Real_IP: 2\r\nx_real-ip: 3\r\nx_real-ip: 4\r\n\r\n";
    let seen = |config: &str| ask(&app(config), &[get]).split_once("\r\n\r\n").unwrap().1.to_owned();
    assert_eq!(seen(""), "host=a x-real-ip=1 ");
    assert_eq!(seen("header_map = 'drop'"), "host=a x-real-ip=1 ");
    assert_eq!(seen("header_map = 'dangerous'"), "host=a x-real-ip=1 x_real_ip=2 x_real-ip=3 x_real-ip=4 ");
    assert_eq!(seen("header_map = 'refuse'"), "the name of a field has an underscore\n");
    let app = app("header_map = 'refuse'");
    let said = ask(&app, &["GET /200 HTTP/1.1\r\nhost: a_b\r\nx-y: z_z\r\n\r\n"]);
    assert!(said.starts_with("HTTP/1.1 200 "), "values may have some: {said}");
}

/// RFC 9112, 9.6: an end with bytes unread resets the connection, and the client may lose the answer.
#[test]
fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let mut server = Program::probe().workers(1).args("--limit-request-body 1000").start();
    let long = "x".repeat(6 * 1024 * 1024);
    let cases = [
        ("POST /echo HTTP/1.1\r\nhost: a b\r\ncontent-length: 6291456\r\n\r\n", 400),
        ("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 6291456\r\n\r\n", 413),
        ("POST /echo HTTP/1.1\r\nhost: a\r\nexpect: x\r\ncontent-length: 6291456\r\n\r\n", 417),
        ("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n600000\r\n", 413),
        ("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nx\r\n", 400),
        ("GET / HTTP/1.1\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\n", 505),
        ("G@T / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n", 501),
    ];
    for (head, status) in cases {
        let mut client = server.connect();
        client.send(head).unwrap();
        client.send(&long).unwrap_or_else(|failure| panic!("{head:?}: {failure}"));
        let response = client.read().unwrap_or_else(|failure| panic!("{head:?}: {failure}"));
        assert_eq!(response.status, status, "{head:?}");
        client.read_end().unwrap_or_else(|failure| panic!("{head:?}: {failure}"));
    }
    server.stop();
}

/// Changes the protocol, to one that says everything again.
async fn turn(mut request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut stream, mut heard) = (TokioIo::new(upgraded), [0; 64]);
        while let Ok(count @ 1..) = stream.read(&mut heard).await {
            stream.write_all(&heard[..count]).await.unwrap();
        }
    });
    let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "x");
    Ok(response.body(Full::default()).unwrap())
}

/// What is no HTTP is not refused, nor replaced, where it turns out to be something else.
#[test]
fn bytes_behind_a_change_of_protocol_are_the_apps_as_they_came() {
    let app = ferricorn::testing::app(|_| tower::service_fn(turn));
    let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    for pieces in [
        &[head, "\n\0raw", "more"][..],
        &[&format!("{head}\n\0raw"), "more"],
        &[&format!("{head}\n\0ra"), "wmore"],
    ] {
        let said = ask(&app, pieces);
        let (head, echo) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{said}");
        assert_eq!(echo, "\n\0rawmore", "{pieces:?}");
    }
}
