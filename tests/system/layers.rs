//! Compression, CORS and security fields over the real program. What is compressed is read by curl, which has decoders of its own.
//! Not here: which answers are worth it, in tables beside the code.

use crate::support::tls::Authority;
use crate::support::{Program, Server};
use nix::sys::signal::Signal::SIGINT;
use std::process::Command;

/// What curl made of an answer.
struct Curled {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Curled {
    fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

/// Asks; where an encoding is accepted, what comes is decoded.
#[track_caller]
fn curl(server: &Server, path: &str, accepted: &str, args: &[&str]) -> Curled {
    let mut command = Command::new("curl");
    command.args(["-sS", "-D", "head", "-o", "body"]).current_dir(server.dir()).args(args);
    if !accepted.is_empty() {
        command.args(["--compressed", "-H", &format!("Accept-Encoding: {accepted}")]);
    }
    std::fs::write(server.dir().join("body"), "").unwrap();
    let output = command.arg(format!("http://{}{path}", server.addr())).output().unwrap();
    assert!(output.status.success(), "{path} {accepted}: {output:?}");
    let head = std::fs::read_to_string(server.dir().join("head")).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Curled { status, head, body: std::fs::read(server.dir().join("body")).unwrap() }
}

const ENCODINGS: [&str; 3] = ["gzip", "br", "zstd"];

/// Text that shrinks, but is not the same all over.
fn text() -> String {
    (0..3000).map(|number| format!("line {number} of the file\n")).collect()
}

const ROUTES: &str = r#"
workers = 1
compress = "gzip, br, zstd"
[database]
url = "sqlite:rows.db"
[[route]]
path = "/files"
static = "files"
[[route]]
path = "/text"
text = "TEXT"
[[route]]
path = "/rows"
sql = "with recursive n(i) as (select 1 union all select i + 1 from n limit 40000) select i, 'a row of many' as what from n"
[[route]]
path = "/broken"
sql = "with recursive n(i) as (select 1 union all select i + 1 from n limit 30000) select case when i = 29000 then x'00' else i end as i, hex(zeroblob(50)) as pad from n"
[[route]]
path = "/kept"
sql = "with recursive n(i) as (select 1 union all select i + 1 from n limit 900) select i, 'a row of some' as what from n"
cache = "1h"
[[route]]
path = "/never"
text = "TEXT"
compress = []
headers = { Cache-Control = "max-age=60", X-Frame-Options = "DENY" }
[[route]]
path = "/gzip"
text = "TEXT"
compress = "gzip"
"#;

fn stock() -> Server {
    let routes = ROUTES.replace("TEXT", &"many words ".repeat(400));
    Program::stock().file("files/a.txt", &text()).config(&routes).start()
}

#[test]
fn what_is_compressed_is_read_by_others_as_it_was() {
    let mut server = stock();
    for path in ["/files/a.txt", "/text", "/rows", "/kept"] {
        let plain = curl(&server, path, "", &[]);
        assert!(plain.status == 200 && plain.body.len() > 4000, "{path}: {}", plain.head);
        assert_eq!((plain.field("content-encoding"), plain.field("vary")), (None, Some("accept-encoding")));
        assert_eq!(plain.field("content-length").is_some(), path != "/rows", "{}", plain.head);
        for encoding in ENCODINGS {
            // A second time, for what is kept.
            for _ in 0..2 {
                let answer = curl(&server, path, encoding, &[]);
                assert_eq!(answer.field("content-encoding"), Some(encoding), "{path}");
                assert_eq!(answer.field("vary"), Some("accept-encoding"), "{path} {encoding}");
                assert!(answer.body == plain.body, "{path} {encoding}: {} bytes", answer.body.len());
            }
            let head = curl(&server, path, encoding, &["-I"]);
            let is_known = path != "/rows";
            assert_eq!(head.field("content-encoding"), is_known.then_some(encoding), "HEAD {path}");
            assert_eq!(head.field("content-length"), None, "HEAD {path}");
        }
        assert!(curl(&server, path, "", &[]).body == plain.body, "{path}");
    }
    server.stop();
}

/// Neither ends an answer that failed as if it were whole, nor is in the way of another protocol.
#[test]
fn what_fails_is_cut_and_what_changes_its_protocol_goes_on() {
    let mut server = stock();
    for accepted in ["identity", "gzip", "br", "zstd"] {
        let output = Command::new("curl")
            .args(["-sS", "--raw", "-o", "/dev/null", "-H", &format!("Accept-Encoding: {accepted}")])
            .arg(format!("http://{}/broken", server.addr()))
            .output()
            .unwrap();
        // A part is missing, or all: an encoder may have had nothing to say yet.
        assert!([Some(18), Some(52)].contains(&output.status.code()), "{accepted}: {output:?}");
    }
    server.stop();
    let args = "--compress gzip --nosniff --cors-origins *";
    let mut server = Program::probe().workers(1).args(args).start();
    let mut client = server.connect();
    let upgrade = [("connection", "upgrade"), ("upgrade", "silence"), ("accept-encoding", "gzip")];
    let answer = client.request("GET", "/silence", &upgrade, b"").unwrap();
    assert_eq!((answer.status, answer.field("upgrade")), (101, Some("silence")));
    server.signal(SIGINT);
    server.wait_exit();
}

#[test]
fn a_route_may_have_its_own_word_on_it() {
    let mut server = stock();
    let never = curl(&server, "/never", "gzip", &[]);
    assert_eq!((never.field("content-encoding"), never.field("vary")), (None, None));
    assert_eq!(
        (never.field("cache-control"), never.field("x-frame-options")),
        (Some("max-age=60"), Some("DENY"))
    );
    assert_eq!(curl(&server, "/gzip", "gzip", &[]).field("content-encoding"), Some("gzip"));
    let other = curl(&server, "/gzip", "br", &[]);
    assert_eq!((other.field("content-encoding"), other.field("vary")), (None, Some("accept-encoding")));
    server.stop();
    // Alone, without the server's.
    let routes =
        ROUTES.replace("TEXT", &"many words ".repeat(400)).replace("compress = \"gzip, br, zstd\"\n", "");
    let mut server = Program::stock().file("files/a.txt", "").config(&routes).start();
    assert_eq!(curl(&server, "/gzip", "gzip", &[]).field("content-encoding"), Some("gzip"));
    assert_eq!(curl(&server, "/text", "gzip", &[]).field("content-encoding"), None);
    server.stop();
}

#[test]
fn tags_and_ranges_stay_true() {
    let mut server = stock();
    for (path, accepted) in [("/kept", "gzip"), ("/kept", "br")] {
        let answer = curl(&server, path, accepted, &[]);
        let etag = answer.field("etag").unwrap();
        assert!(etag.starts_with("W/\""), "{etag}");
        let again = curl(&server, path, accepted, &["-H", &format!("If-None-Match: {etag}")]);
        assert_eq!((again.status, again.field("etag")), (304, Some(etag)));
        assert_eq!((again.field("vary"), again.field("content-encoding")), (Some("accept-encoding"), None));
        assert!(again.body.is_empty());
    }
    let strong = curl(&server, "/kept", "", &[]);
    assert!(strong.field("etag").unwrap().starts_with('"'));
    // A part is a part of the file, not of what it is packed in.
    let part = curl(&server, "/files/a.txt", "gzip", &["-r", "100-199"]);
    assert_eq!((part.status, part.field("content-encoding")), (206, None));
    assert_eq!(part.body, &text().as_bytes()[100..200]);
    server.stop();
}

/// `/page` of the probe is kept by the layer for whole responses.
#[test]
fn a_page_that_is_kept_comes_to_each_in_an_encoding_that_he_reads() {
    let args = "--compress gzip,br,zstd --compress-min-size 1";
    let mut server = Program::probe().workers(1).args(args).start();
    let mut first = None;
    for accepted in ["br", "", "gzip", "zstd", "", "identity", "br"] {
        let answer = curl(&server, "/page", accepted, &[]);
        let wanted = ENCODINGS.contains(&accepted).then_some(accepted);
        assert_eq!(answer.field("content-encoding"), wanted, "{accepted:?}");
        assert_eq!(answer.body, b"0", "{accepted:?}");
        // All but the first are out of the cache: the page tells by its tag and its age.
        let etag = answer.field("etag").unwrap().trim_start_matches("W/").to_owned();
        assert_eq!(*first.get_or_insert_with(|| etag.clone()), etag);
    }
    assert!(curl(&server, "/page", "gzip", &[]).field("age").is_some());
    server.stop();
}

#[test]
fn other_sites_and_browsers_are_told_what_the_settings_say() {
    let authority = Authority::new();
    let program = Program::probe().workers(1).tls(&authority).config(
        "plain_bind = '127.0.0.2:0'\n[cors]\norigins = 'https://shop.example'\n\
         [security]\nnosniff = true\nhsts = 'max-age=600'\nreferrer_policy = 'same-origin'\n",
    );
    let mut server = program.file("ca.pem", &authority.pem).start();
    let asked = |fields: &[&str]| -> String {
        let mut command = Command::new("curl");
        command.args(["-sS", "-D", "-", "-o", "/dev/null", "--cacert", "ca.pem"]).current_dir(server.dir());
        fields.iter().for_each(|argument| {
            command.arg(argument);
        });
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().to_ascii_lowercase()
    };
    let addrs: Vec<String> = server
        .log_with("listening on=")
        .iter()
        .filter(|line| !line.contains("admin"))
        .map(|line| line.split("on=").nth(1).unwrap().split(' ').next().unwrap().to_owned())
        .collect();
    let secured = format!("https://{}/echo?msg=a", addrs[0]);
    let plain = format!("http://{}/echo?msg=a", addrs[1]);
    let head = asked(&[&secured, "-H", "Origin: https://shop.example"]);
    for field in [
        "strict-transport-security: max-age=600",
        "x-content-type-options: nosniff",
        "referrer-policy: same-origin",
        "access-control-allow-origin: https://shop.example",
    ] {
        assert!(head.contains(field), "{field}: {head}");
    }
    let head = asked(&[&plain, "-H", "Origin: https://evil.example"]);
    assert!(head.contains("nosniff") && !head.contains("strict-transport"), "{head}");
    assert!(!head.contains("access-control-allow-origin"), "{head}");
    // A proxy that is believed says that the client came by TLS.
    let head = asked(&[&plain, "-H", "X-Forwarded-Proto: https"]);
    assert!(head.contains("strict-transport-security"), "{head}");
    let preflight =
        ["-X", "OPTIONS", "-H", "Origin: https://shop.example", "-H", "Access-Control-Request-Method: POST"];
    let head = asked(&[&[secured.as_str()], preflight.as_slice()].concat());
    assert!(
        head.contains("200 ok") && head.contains("access-control-allow-methods: get,head,post"),
        "{head}"
    );
    assert!(!head.contains("x-worker-pid"), "the app does not see it: {head}");
    server.stop();
}
