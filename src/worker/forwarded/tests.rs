//! Who is believed, in tables.

use super::*;
use crate::app::Peer;
use http::StatusCode;

type Pairs<'a> = &'a [(&'a str, &'a str)];

/// What the app is told over a connection of this peer, and the fields that it sees besides Host.
fn told(peer: &str, setting: &str, pairs: Pairs<'_>) -> (String, Vec<String>) {
    let settings = settings(setting);
    let peer = if peer == "unix" { Peer::Unix } else { Peer::Tcp(peer.parse().unwrap()) };
    let mut request = Request::get("/a?b").header("host", "own.example");
    for (name, value) in pairs {
        request = request.header(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let mut request = request.body(()).unwrap();
    let origin = Origin::of(peer, &settings);
    let fields = Fields::of(request.headers());
    let verdict = judge(&request, &fields, &origin, Scheme::Http, &settings);
    if let Some(verdict) = verdict {
        if let Err(refusal) = verdict.check() {
            return (refusal.status.as_str().to_owned(), Vec::new());
        }
        verdict.apply(&mut request, &settings);
    }
    let (parts, ()) = request.into_parts();
    let _entered = peer.enter();
    let client = ClientInfo::of(&parts).unwrap();
    let address = client.address().map_or("-".to_owned(), |address| address.to_string());
    let port = client.port().map_or(String::new(), |port| format!(" {port}"));
    let seen = parts.headers.iter().filter(|(name, _)| *name != header::HOST);
    let seen = seen.map(|(name, _)| name.as_str().to_owned()).collect();
    (format!("{address}{port} {} {}", client.scheme(), client.host().unwrap()), seen)
}

fn settings(text: &str) -> Settings {
    let text = format!("forwarded_allow_ips = ['10.0.0.0/8', 'fd00::/8', 'unix']\n{text}");
    let source = crate::config::Source::of_text(crate::config::AppKind::Own, text, Default::default());
    source.read().unwrap()
}

const ALL: &str = "forwarded_fields = ['x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host']";
const RFC: &str = "forwarded_fields = 'forwarded'";

#[test]
fn the_right_most_hop_that_is_no_proxy_is_the_client() {
    let long = format!("1.1.1.1{}", ", 10.0.0.1".repeat(40));
    let table: &[(&str, Pairs<'_>, &str)] = &[
        ("10.0.0.1:5", &[("x-forwarded-for", "1.2.3.4")], "1.2.3.4 http own.example"),
        ("unix", &[("x-forwarded-for", "1.2.3.4")], "1.2.3.4 http own.example"),
        ("[fd00::1]:5", &[("x-forwarded-for", "1.2.3.4:99")], "1.2.3.4 99 http own.example"),
        ("[::ffff:10.0.0.1]:5", &[("x-forwarded-for", "[2001:db8::1]:9")], "2001:db8::1 9 http own.example"),
        ("10.0.0.1:5", &[("x-forwarded-for", "6.6.6.6, 1.2.3.4")], "1.2.3.4 http own.example"),
        ("10.0.0.1:5", &[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.9")], "1.2.3.4 http own.example"),
        (
            "10.0.0.1:5",
            &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4")],
            "1.2.3.4 http own.example",
        ),
        ("10.0.0.1:5", &[("x-forwarded-for", "10.0.0.7, 10.0.0.9")], "10.0.0.7 http own.example"),
        ("10.0.0.1:5", &[("x-forwarded-for", "6.6.6.6, unknown")], "- http own.example"),
        ("10.0.0.1:5", &[("x-forwarded-for", "6.6.6.6, x, 10.0.0.9")], "- http own.example"),
        ("10.0.0.1:5", &[("x-forwarded-for", "junk, 1.2.3.4, ,")], "1.2.3.4 http own.example"),
        (
            "10.0.0.1:5",
            &[("x-forwarded-for", "\u{e4}"), ("x-forwarded-for", "10.0.0.2")],
            "- http own.example",
        ),
        ("10.0.0.1:5", &[("x-forwarded-for", &long)], "- http own.example"),
        ("10.0.0.1:5", &[("x-forwarded-for", " , ")], "10.0.0.1 5 http own.example"),
        ("9.9.9.9:5", &[("x-forwarded-for", "1.2.3.4")], "9.9.9.9 5 http own.example"),
        (
            "10.0.0.1:5",
            &[("x-forwarded-proto", "HTTPS"), ("x-forwarded-host", "a.example:8")],
            "10.0.0.1 5 https a.example:8",
        ),
        ("10.0.0.1:5", &[("x-forwarded-proto", "https, http")], "10.0.0.1 5 http own.example"),
        (
            "10.0.0.1:5",
            &[("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a b")],
            "10.0.0.1 5 http own.example",
        ),
        (
            "9.9.9.9:5",
            &[("x-forwarded-proto", "https"), ("x-forwarded-host", "a")],
            "9.9.9.9 5 http own.example",
        ),
    ];
    for (peer, pairs, wanted) in table {
        assert_eq!(told(peer, ALL, pairs).0, *wanted, "{peer} {pairs:?}");
    }
}

#[test]
fn all_that_forwarded_says_is_of_one_element() {
    let table: &[(&str, Pairs<'_>, &str)] = &[
        (
            "10.0.0.1:5",
            &[(
                "forwarded",
                "for=6.6.6.6;host=evil, for=1.2.3.4;proto=https;host=a.example, for=10.0.0.2;proto=http",
            )],
            "1.2.3.4 https a.example",
        ),
        (
            "10.0.0.1:5",
            &[("forwarded", "for=6.6.6.6"), ("forwarded", "for=_x;proto=https")],
            "- https own.example",
        ),
        ("10.0.0.1:5", &[("forwarded", "for=\"evil, for=1.2.3.4")], "- http own.example"),
        (
            "10.0.0.1:5",
            &[("forwarded", "for=\"evil"), ("forwarded", "for=1.2.3.4")],
            "1.2.3.4 http own.example",
        ),
        ("10.0.0.1:5", &[("forwarded", "proto=https")], "- https own.example"),
        ("9.9.9.9:5", &[("forwarded", "for=1.2.3.4;proto=https;host=a")], "9.9.9.9 5 http own.example"),
    ];
    for (peer, pairs, wanted) in table {
        assert_eq!(told(peer, RFC, pairs).0, *wanted, "{peer} {pairs:?}");
    }
}

/// The default of Gunicorn's `secure_scheme_headers`.
const GUNICORN: &str = "forwarded_fields = ''\nsecure_scheme_headers = { X-FORWARDED-PROTOCOL = 'ssl', \
                        X-FORWARDED-PROTO = 'https', X-FORWARDED-SSL = 'on' }";
/// One field more than those of the default.
const ONE_MORE: &str = "secure_scheme_headers = { Front-End-Https = 'on' }";
const WITH_RFC: &str = "forwarded_fields = 'forwarded'\nsecure_scheme_headers = { Front-End-Https = 'on' }";

#[test]
fn fields_that_are_named_with_a_value_tell_the_scheme_if_all_agree() {
    let (http, https, refused) =
        ("10.0.0.1 5 http own.example", "10.0.0.1 5 https own.example", StatusCode::BAD_REQUEST.as_str());
    let (proto, ssl, front) = ("x-forwarded-proto", "x-forwarded-ssl", "front-end-https");
    let table: &[(&str, Pairs<'_>, &str)] = &[
        (GUNICORN, &[], http),
        (GUNICORN, &[(ssl, "on")], https),
        (GUNICORN, &[(ssl, "off")], http),
        (GUNICORN, &[(ssl, "On")], http),
        (GUNICORN, &[(proto, "https"), (ssl, "on"), ("x-forwarded-protocol", "ssl")], https),
        (GUNICORN, &[(proto, "https"), (ssl, "off")], refused),
        (GUNICORN, &[(proto, "http"), (ssl, "on")], refused),
        (GUNICORN, &[(proto, "http"), (ssl, "off")], http),
        (GUNICORN, &[(ssl, "on"), (ssl, "off")], refused),
        (GUNICORN, &[(ssl, "on"), (ssl, "on")], https),
        // As there, a list is another value.
        (GUNICORN, &[(proto, "https, https")], http),
        (GUNICORN, &[(ssl, "")], http),
        (GUNICORN, &[(ssl, "\u{e4}")], http),
        (ONE_MORE, &[], http),
        (ONE_MORE, &[(front, "on")], https),
        (ONE_MORE, &[(proto, "https")], https),
        (ONE_MORE, &[(proto, "http, https"), (front, "on")], https),
        (ONE_MORE, &[(proto, "http"), (front, "on")], refused),
        (ONE_MORE, &[(proto, "https"), (front, "off")], refused),
        // It says nothing, and so contradicts nobody.
        (ONE_MORE, &[(proto, "gopher"), (front, "on")], https),
        (ONE_MORE, &[(ssl, "off"), (front, "on")], https),
        (WITH_RFC, &[("forwarded", "proto=https"), (front, "on")], "- https own.example"),
        (WITH_RFC, &[("forwarded", "proto=http"), (front, "on")], refused),
        (WITH_RFC, &[(proto, "http"), (front, "on")], https),
    ];
    for (setting, pairs, wanted) in table {
        assert_eq!(told("10.0.0.1:5", setting, pairs).0, *wanted, "{setting} {pairs:?}");
    }
}

#[test]
fn a_field_that_is_named_with_a_value_is_kept_from_the_app_where_it_is_not_believed() {
    let both: Pairs<'_> = &[("front-end-https", "on"), ("x-forwarded-proto", "http")];
    assert_eq!(told("9.9.9.9:5", ONE_MORE, both), ("9.9.9.9 5 http own.example".to_owned(), vec![]));
    assert_eq!(told("9.9.9.9:5", "", both).1, ["front-end-https"]);
    let one: Pairs<'_> = &[("x-forwarded-proto", "https"), ("x-forwarded-for", "1.2.3.4")];
    assert_eq!(
        told("10.0.0.1:5", GUNICORN, one),
        ("10.0.0.1 5 https own.example".to_owned(), vec!["x-forwarded-proto".to_owned()])
    );
}

#[test]
fn with_everybody_trusted_the_left_most_is_the_client() {
    let star = "forwarded_allow_ips = '*'";
    let text = crate::config::Source::of_text(crate::config::AppKind::Own, star.into(), Default::default());
    let settings = text.read().unwrap();
    let hops = ["6.6.6.6", "1.2.3.4"].into_iter().rev().map(node);
    assert_eq!(client_of(hops, &settings.forwarded_allow_ips).unwrap().1, node("6.6.6.6"));
}

#[test]
fn the_app_sees_no_field_that_is_not_believed() {
    let all: Pairs<'_> = &[
        ("forwarded", "for=1.2.3.4;proto=https"),
        ("x-forwarded-for", "5.6.7.8"),
        ("x-forwarded-host", "a.example"),
        ("x-forwarded-port", "1"),
        ("x-real-ip", "1.2.3.4"),
    ];
    for (peer, setting, client, seen) in [
        ("9.9.9.9:5", ALL, "9.9.9.9 5 http own.example", vec![]),
        (
            "10.0.0.1:5",
            ALL,
            "5.6.7.8 http a.example",
            vec!["x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-real-ip"],
        ),
        (
            "10.0.0.1:5",
            "",
            "5.6.7.8 http own.example",
            vec!["x-forwarded-for", "x-forwarded-port", "x-real-ip"],
        ),
        ("10.0.0.1:5", RFC, "1.2.3.4 https own.example", vec!["forwarded", "x-forwarded-port", "x-real-ip"]),
        (
            "10.0.0.1:5",
            "forwarded_fields = ''",
            "10.0.0.1 5 http own.example",
            vec!["x-forwarded-port", "x-real-ip"],
        ),
    ] {
        let (told, mut fields) = told(peer, setting, all);
        fields.sort();
        assert_eq!(
            (told.as_str(), fields),
            (client, seen.into_iter().map(str::to_owned).collect()),
            "{peer} {setting}"
        );
    }
}

#[test]
fn the_prefix_is_taken_off_where_it_is_there() {
    for (target, wanted) in [
        ("/shop", Some("/")),
        ("/shop/", Some("/")),
        ("/shop/a/shop?b=/shop", Some("/a/shop?b=/shop")),
        ("/shop?b", Some("/?b")),
        ("http://a.example/shop/b", Some("http://a.example/b")),
        ("/shopping", None),
        ("/a/shop", None),
        ("*", None),
    ] {
        let below = below(&target.parse().unwrap(), "/shop").map(|uri| uri.to_string());
        assert_eq!(below.as_deref(), wanted, "{target}");
    }
    assert_eq!(below(&"/a".parse().unwrap(), ""), None);
}
