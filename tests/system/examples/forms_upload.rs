//! A form that is checked, and files that are put into a folder.

use super::example;
use crate::support::http::request;
use crate::support::{DEADLINE, Response, Server, eventually};
use serde_json::json;
use std::fs;
use std::path::Path;

const MULTIPART: [(&str, &str); 1] = [("content-type", "multipart/form-data; boundary=limit")];

/// A form with these files, each with its name and its content.
fn files(files: &[(&str, &[u8])]) -> Vec<u8> {
    let part = |(name, content): &(&str, &[u8])| {
        let head =
            format!("--limit\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n");
        [head.as_bytes(), content, b"\r\n"].concat()
    };
    [files.iter().flat_map(part).collect(), b"--limit--\r\n".to_vec()].concat()
}

fn upload(server: &Server, body: &[u8]) -> Response {
    server.connect().request("POST", "/files", &MULTIPART, body).unwrap()
}

/// Everything in the folder, hidden files too.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn checks_each_field() {
    let mut server = example("forms_upload", &["server.toml"]).start();
    let send = |form: &str| {
        let fields = [("content-type", "application/x-www-form-urlencoded")];
        server.connect().request("POST", "/feedback", &fields, form.as_bytes()).unwrap()
    };
    assert_eq!(send("name=Ada&rating=5&message=a+fine+shop").status, 200);
    let answer = send("name=&rating=6&message=bad");
    assert_eq!(answer.status, 422);
    let text = answer.text();
    let mut faults: Vec<_> = text.lines().map(|line| line.split(':').next().unwrap()).collect();
    faults.sort_unstable();
    assert_eq!(faults, ["message", "name", "rating"], "{text}");
    assert_eq!(send("name=Ada&rating=five&message=a+fine+shop").status, 422);
    server.stop();
}

#[test]
fn keeps_files_whole_and_replaces_none() {
    let mut server = example("forms_upload", &["server.toml"]).start();
    let folder = server.dir().join("uploads");
    let large = vec![b'x'; 1024 * 1024];
    let answer = upload(&server, &files(&[("a.txt", b"one"), ("b.bin", &large)]));
    assert_eq!((answer.status, answer.json()), (201, json!(["a.txt", "b.bin"])));
    assert_eq!(fs::read(folder.join("b.bin")).unwrap(), large);
    let answer = upload(&server, &files(&[("c.txt", b"new"), ("a.txt", b"two")]));
    assert_eq!((answer.status, answer.text().as_str()), (409, "there is such a file\n"));
    assert_eq!(names_in(&folder), ["a.txt", "b.bin"], "and nothing of what came with it");
    assert_eq!(fs::read(folder.join("a.txt")).unwrap(), b"one");
    server.stop();
}

#[test]
fn refuses_what_is_too_much_and_leaves_nothing() {
    let mut server = example("forms_upload", &["server.toml"]).start();
    let folder = server.dir().join("uploads");
    let (full, over) = (vec![b'x'; 1024 * 1024], vec![b'x'; 1024 * 1024 + 1]);
    let five = ["1", "2", "3", "4", "5"].map(|name| (name, &b"x"[..]));
    for (body, why) in [
        (files(&[("a", &full), ("b", &over)]), "at most 1 MiB each\n"),
        (files(&five), "at most 4 files\n"),
        (files(&[("a", &full[..]); 6]), "the body is larger"),
    ] {
        let request = request("POST", "/files", &MULTIPART, &body);
        let answer = server.connect().exchange(request).unwrap();
        assert!(answer.status == 413 && answer.text().contains(why), "{}: {}", answer.status, answer.text());
    }
    assert_eq!(names_in(&folder), Vec::<String>::new());
    // A client that leaves in the middle.
    let body = files(&[("a", &full)]);
    let mut client = server.connect();
    let request = request("POST", "/files", &MULTIPART, &body);
    client.send(&request[..request.len() - 1000]).unwrap();
    eventually(DEADLINE, "it arrives", || names_in(&folder).iter().any(|name| name.starts_with(".upload-")));
    drop(client);
    eventually(DEADLINE, "nothing is left of it", || names_in(&folder).is_empty());
    server.stop();
}

#[test]
fn takes_no_name_that_leads_elsewhere() {
    let mut server = example("forms_upload", &["server.toml"]).start();
    let outside = server.dir().join("outside");
    for name in ["../outside", "..", ".", "", ".hidden", "/etc/outside", "a/b", "a\\b", "a\u{e4}", "a\0b"] {
        let answer = upload(&server, &files(&[(name, b"evil")]));
        assert!((400..500).contains(&answer.status), "{name:?}: {}", answer.status);
    }
    let answer = upload(
        &server,
        b"--limit\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nx\r\n--limit--\r\n",
    );
    assert_eq!(answer.status, 422, "no name at all");
    assert!(!outside.exists());
    assert_eq!(names_in(&server.dir().join("uploads")), Vec::<String>::new());
    server.stop();
}
