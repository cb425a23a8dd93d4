//! Lines in all formats, of whatever bytes came.

use super::*;
use crate::config::{AppKind, Settings, Source};
use http::HeaderValue;
use proptest::prelude::*;

fn format(text: &str) -> LogFormat {
    let text = format!("access_log_format = '{text}'");
    let settings: Settings = Source::of_text(AppKind::Own, text, Default::default()).read().unwrap();
    settings.access_log_format
}

fn request(user_agent: &[u8], target: &str) -> Request<()> {
    let user_agent = HeaderValue::from_bytes(user_agent).unwrap();
    let request = Request::get(target).header("user-agent", user_agent).header("x-id", "7");
    request.header("host", "a.example").body(()).unwrap()
}

/// The line of a request, as it is written.
fn written(format: &LogFormat, request: &Request<()>, id: Option<&RequestId>) -> String {
    let log = AccessLog::open(&LogTarget::File("/dev/null".into()), format).unwrap().unwrap();
    let asked = Asked { scheme: Scheme::Https, host: None };
    let mut line = log.line(request, &Fields::of(request.headers()), asked);
    line.status = StatusCode::OK;
    let mut headers = HeaderMap::new();
    headers.insert("x-made", HeaderValue::from_static("in \"Rust\""));
    log.note_answer(&mut line, &headers);
    log.write("192.0.2.1", &line, &Outcome { bytes: 12, micros: 1_234_567, id });
    let gathered = std::mem::take(&mut log.lock().gathered);
    String::from_utf8(gathered).unwrap()
}

fn without_time(line: &str) -> String {
    let (before, rest) = line.split_once('[').unwrap();
    let (time, after) = rest.split_once(']').unwrap();
    assert!(time.len() == "15/Jan/2027:08:00:00 +0000".len() && time.ends_with(" +0000"), "{time}");
    format!("{before}[]{after}")
}

#[test]
fn a_line_is_combined_and_one_line() {
    let line = written(&LogFormat::Combined, &request(b"x\"y\\\xff\t", "/a?b=%22c"), None);
    assert_eq!(
        without_time(&line),
        "192.0.2.1 - - [] \"GET /a?b=%22c HTTP/1.1\" 200 12 \"-\" \"x\\\"y\\\\\u{fffd}\\x09\"\n"
    );
    assert_eq!(stamp(1_800_000_000, Style::Text), "[15/Jan/2027:08:00:00 +0000]");
    assert_eq!(stamp(1_800_000_000, Style::Json), "\"2027-01-15T08:00:00Z\"");
    let id = RequestId::new("id-1");
    let line = written(&LogFormat::Combined, &request(b"x", "/"), Some(&id));
    assert!(line.ends_with(" 200 12 \"-\" \"x\" \"id-1\"\n"), "{line}");
}

/// The text that Gunicorn has for its default, and `combined` here.
const GUNICORN: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

#[test]
fn every_atom_has_its_value() {
    let request = request(b"x\"y", "/a?b=1");
    let pid = std::process::id();
    for (text, wanted) in [
        ("%(m)s %(U)s %(q)s %(H)s", "GET /a b=1 HTTP/1.1"),
        ("%(s)s %(B)s %(b)s %(T)s %(M)s %(D)s %(L)s", "200 12 12 1 1234 1234567 1.234567"),
        ("%(h)s %(l)s %(u)s %(p)s %%", &format!("192.0.2.1 - - <{pid}> %")),
        ("%({X-Id}i)s %({no}i)s %({X-Made}o)s %({no}o)s", "7 - in \\\"Rust\\\" -"),
        ("%({FERRICORN_NO_SUCH}e)s %(request_id)s", "- id-1"),
        ("%(a)s %(f)s", "x\\\"y -"),
        ("%(scheme)s %(host)s", "https a.example"),
    ] {
        let id = RequestId::new("id-1");
        assert_eq!(written(&format(text), &request, Some(&id)), format!("{wanted}\n"), "{text}");
    }
    let as_text = written(&format(GUNICORN), &request, None);
    assert_eq!(without_time(&as_text), without_time(&written(&LogFormat::Combined, &request, None)));
}

#[test]
fn json_is_an_object_with_every_key() {
    let line = written(&LogFormat::Json, &request(b"x\"y\\\xff\t", "/a?b=1"), None);
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    let keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = "time client method target protocol scheme host referer user_agent status bytes duration_us request_id pid";
    assert_eq!(keys, wanted.split(' ').collect::<Vec<_>>());
    assert_eq!((&object["client"], &object["target"]), (&"192.0.2.1".into(), &"/a?b=1".into()));
    assert_eq!(object["user_agent"], "x\"y\\\u{fffd}\t");
    assert_eq!((&object["status"], &object["duration_us"]), (&200.into(), &1_234_567.into()));
    assert!(object["referer"].is_null() && object["request_id"].is_null(), "{object}");
}

#[test]
fn a_request_that_was_not_read_has_a_line_in_every_format() {
    for (format, wanted) in [
        (LogFormat::Combined, r#""-" 400 0 "-" "-""#),
        (format(GUNICORN), r#""-" 400 - "-" "-""#),
        (LogFormat::Json, r#""method":null,"target":null,"protocol":null"#),
        (format("%({x}o)s %(r)s %(s)s"), "- - 400"),
    ] {
        let log = AccessLog::open(&LogTarget::File("/dev/null".into()), &format).unwrap().unwrap();
        log.write_unread("-", StatusCode::BAD_REQUEST);
        let gathered = String::from_utf8(std::mem::take(&mut log.lock().gathered)).unwrap();
        assert!(gathered.contains(wanted) && gathered.matches('\n').count() == 1, "{gathered}");
    }
}

proptest! {
    /// Whatever bytes came: one line, the same in both ways of writing it, and JSON that is JSON.
    #[test]
    fn a_line_is_one_line(mut value in proptest::collection::vec(any::<u8>(), 0..60)) {
        // What no field can have, hyper has refused.
        value.retain(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f);
        let request = request(&value, "/a");
        let combined = written(&LogFormat::Combined, &request, None);
        prop_assert!(!combined.trim_end_matches('\n').contains(char::is_control), "{combined:?}");
        prop_assert_eq!(combined.matches('\n').count(), 1);
        prop_assert_eq!(without_time(&written(&format(GUNICORN), &request, None)), without_time(&combined));
        let json = written(&LogFormat::Json, &request, None);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
        prop_assert_eq!(json.matches('\n').count(), 1);
    }
}
