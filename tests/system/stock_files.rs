//! Files that a route serves: which, and which parts and versions of them.

use crate::support::{DEADLINE, Program, Server, eventually, http};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

const ASSETS: &str = "[[route]]\npath = '/assets/{*file}'\nstatic = 'public'";

/// How much of a file is read at a time.
const PIECE: usize = 128 * 1024;

fn text(length: usize) -> String {
    (0..length).map(|at| char::from(b'a' + (at * 7 / 3 % 26) as u8)).collect()
}

#[test]
fn files_are_served_from_their_folder_alone() {
    let program = Program::stock()
        .config(ASSETS)
        .file("public/a.txt", "0123456789")
        .file("public/in/b.css", "b")
        .file("public/.env", "secret")
        .file("public/.git/config", "secret")
        .file("secret.txt", "secret")
        .file("other/c.txt", "secret");
    let public = program.dir().join("public");
    symlink("../secret.txt", public.join("out.txt")).unwrap();
    symlink("../other", public.join("out")).unwrap();
    symlink(".git/config", public.join("hidden.txt")).unwrap();
    symlink("loop.txt", public.join("loop.txt")).unwrap();
    symlink("in/b.css", public.join("b.css")).unwrap();
    nix::unistd::mkfifo(&public.join("pipe.txt"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(public.join("socket.txt")).unwrap();
    let mut server = program.workers(1).start();
    let mut client = server.connect();
    // The kernel knows of none of them, and then of each.
    for _ in 0..2 {
        for (path, body) in [("a.txt", "0123456789"), ("in/b.css", "b"), ("b.css", "b"), ("in/%62.css", "b")]
        {
            let file = client.get(&format!("/assets/{path}")).unwrap();
            assert_eq!((file.status, file.text().as_str()), (200, body), "{path}");
            assert_eq!(file.field("x-content-type-options"), Some("nosniff"));
        }
    }
    let (long, deep) = ("n".repeat(300), "a/".repeat(1500));
    let nothing = [
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "in/../../secret.txt",
        "/etc/passwd",
        "%2fetc/passwd",
        "out.txt",
        "out/c.txt",
        "hidden.txt",
        "loop.txt",
        "pipe.txt",
        "socket.txt",
        ".env",
        "%2eenv",
        ".git/config",
        "in/",
        "in",
        "",
        "a.txt/",
        "a.txt/b",
        "missing",
        "a%00.txt",
        "%ff",
        &long,
        &deep,
    ];
    for path in nothing.iter().chain(&nothing) {
        let nothing = client.get(&format!("/assets/{path}")).unwrap();
        assert_eq!(nothing.status, 404, "{path}: {}", nothing.text());
        assert_eq!(nothing.field("content-type"), Some("application/problem+json"), "{path}");
        assert!(!nothing.text().contains("secret\""), "{path}");
    }
    assert_eq!(client.request("POST", "/assets/a.txt", &[], b"").unwrap().status, 405);
    server.stop();
}

#[test]
fn files_know_parts_versions_and_compressed_copies() {
    let settings = "[[route]]\npath = '/assets'\nstatic = 'public'";
    let program = Program::stock()
        .config(settings)
        .file("public/a.txt", "0123456789")
        .file("public/a.txt.gz", "gzipped")
        .file("public/a.txt.br", "brotli");
    let mut server = program.workers(1).start();
    let mut client = server.connect();
    let mut get = |fields: &[(&str, &str)]| client.request("GET", "/assets/a.txt", fields, b"").unwrap();
    let whole = get(&[]);
    let tag = whole.field("etag").expect("a file has an entity tag").to_owned();
    assert!(whole.field("last-modified").is_some());
    assert_eq!(whole.field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(get(&[("if-none-match", &tag)]).status, 304);
    let part = get(&[("range", "bytes=2-4")]);
    assert_eq!((part.status, part.text().as_str()), (206, "234"));
    assert_eq!(part.field("content-range"), Some("bytes 2-4/10"));
    let beyond = get(&[("range", "bytes=20-")]);
    assert_eq!((beyond.status, beyond.field("content-range")), (416, Some("bytes */10")));
    assert_eq!(beyond.field("content-type"), Some("application/problem+json"));

    let same = get(&[("range", "bytes=2-4"), ("if-range", &tag)]);
    assert_eq!((same.status, same.text().as_str()), (206, "234"));
    let date = whole.field("last-modified").unwrap();
    for other in ["\"other\"", "W/\"other\"", date] {
        let changed = get(&[("range", "bytes=2-4"), ("if-range", other)]);
        assert_eq!((changed.status, changed.text().as_str()), (200, "0123456789"), "{other}");
    }
    let mut tags = vec![tag];
    for (accepted, encoding, body) in [("gzip", "gzip", "gzipped"), ("gzip, br", "br", "brotli")] {
        let file = get(&[("accept-encoding", accepted)]);
        assert_eq!((file.field("content-encoding"), file.text().as_str()), (Some(encoding), body));
        assert_eq!(file.field("content-type"), Some("text/plain; charset=utf-8"));
        assert!(file.has_token("vary", "accept-encoding"));
        let tag = file.field("etag").unwrap().to_owned();
        assert!(!tags.contains(&tag), "{encoding} is another representation");
        tags.push(tag);
    }
    server.stop();
}

#[test]
fn large_and_empty_files_are_served_to_the_byte() {
    let sizes = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5, 20 * PIECE];
    let mut program = Program::stock().config(ASSETS);
    for size in sizes {
        program = program.file(&format!("public/{size}.txt"), &text(size));
    }
    let mut server = program.workers(1).start();
    let mut client = server.connect();
    for size in sizes {
        let (path, whole) = (format!("/assets/{size}.txt"), text(size));
        let answer = client.get(&path).unwrap();
        assert!(answer.status == 200 && answer.text() == whole, "{size}: {}", answer.status);
        let head = client.request("HEAD", &path, &[], b"").unwrap();
        assert_eq!((head.status, head.field("content-length")), (200, Some(&*size.to_string())));
        assert_eq!(head.field("etag"), answer.field("etag"));
        for (begin, end) in [
            (0, 9),
            (PIECE - 5, PIECE + 5),
            (PIECE, PIECE),
            (PIECE + 1, PIECE + 9),
            (2 * PIECE + 7, 3 * PIECE),
            (5, 19 * PIECE),
        ] {
            let part =
                client.request("GET", &path, &[("range", &format!("bytes={begin}-{end}"))], b"").unwrap();
            if begin >= size {
                let told = (part.status, part.field("content-range").map(str::to_owned));
                assert_eq!(told, (416, Some(format!("bytes */{size}"))), "{size}: {begin}-{end}");
            } else {
                let wanted = &whole[begin..size.min(end + 1)];
                assert!(part.status == 206 && part.text() == wanted, "{size}: {begin}-{end} {}", part.status);
            }
        }
    }
    server.stop();
}

/// What is written is not remembered by the kernel, but on disk alone.
fn put_on_disk(path: &Path, text: &str) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.sync_all().unwrap();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}

#[test]
fn files_that_only_the_disk_has_are_served_to_the_byte() {
    let program = Program::stock().config(ASSETS).file("public/small.txt", "");
    let mut server = program.workers(1).start();
    let mut client = server.connect();
    let large = text(1_000_000);
    for (name, whole) in [("small.txt", &large[..10_000]), ("large.txt", &large)] {
        let path = server.dir().join("public").join(name);
        put_on_disk(&path, whole);
        let answer = client.get(&format!("/assets/{name}")).unwrap();
        assert!(answer.status == 200 && answer.text() == whole, "{name}: {}", answer.status);
        put_on_disk(&path, whole);
        let range = [("range", "bytes=9000-")];
        let part = client.request("GET", &format!("/assets/{name}"), &range, b"").unwrap();
        assert!(part.status == 206 && part.text() == whole[9000..], "{name}: {}", part.status);
    }
    server.stop();
}

#[test]
fn what_takes_a_files_place_is_seen_at_once() {
    let program = Program::stock()
        .config(ASSETS)
        .file("public/a.txt", "first")
        .file("public/b.txt", "b")
        .file("other/a.txt", "another folder")
        .file("secret.txt", "secret");
    let mut server = program.workers(1).start();
    let mut client = server.connect();
    let (dir, public) = (server.dir().to_owned(), server.dir().join("public"));
    let file = public.join("a.txt");
    let put = |text: &str| {
        fs::write(dir.join("new"), text).unwrap();
        fs::rename(dir.join("new"), &file).unwrap();
    };
    let point_to = |to: &str| {
        fs::remove_file(&file).unwrap();
        symlink(to, &file).unwrap();
    };
    // Each stands twice: the kernel has heard of it by the second time.
    let mut see = |what: &str, status: u16, body: &str| {
        for _ in 0..2 {
            let answer = client.get("/assets/a.txt").unwrap();
            assert_eq!(answer.status, status, "{what}: {}", answer.text());
            assert!(status != 200 || answer.text() == body, "{what}: {}", answer.text());
        }
    };
    see("as it was", 200, "first");
    put("the second");
    see("renamed over", 200, "the second");
    fs::remove_file(&file).unwrap();
    see("removed", 404, "");
    put("again");
    see("there again", 200, "again");
    point_to("../secret.txt");
    see("a link to the outside", 404, "");
    point_to("b.txt");
    see("a link within", 200, "b");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    see("a folder", 404, "");
    fs::rename(&public, dir.join("old")).unwrap();
    see("no folder at all", 404, "");
    fs::rename(dir.join("other"), &public).unwrap();
    see("another folder", 200, "another folder");
    fs::rename(&public, dir.join("other")).unwrap();
    symlink("other", &public).unwrap();
    see("a link to a folder outside", 404, "");
    server.stop();
}

/// More than a socket has room for on both its sides, so that the server has not read to the end.
const LARGE: usize = 48 << 20;

/// A client that has begun to read a large file, and the file.
fn begin_large() -> (Server, http::Connection, fs::File, String) {
    let whole = text(LARGE);
    let program = Program::stock().config(ASSETS).file("public/large.txt", &whole);
    let server = program.workers(1).start();
    let mut client = server.connect();
    client.send(http::request("GET", "/assets/large.txt", &[], b"")).unwrap();
    eventually(DEADLINE, "the answer begins", || client.has_head());
    let file = fs::File::options().append(true).open(server.dir().join("public/large.txt")).unwrap();
    (server, client, file, whole)
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_is_cut_short() {
    let (mut server, mut client, file, whole) = begin_large();
    file.set_len(1000).unwrap();
    let raw = client.read_rest_raw();
    let head = raw.windows(4).position(|end| end == b"\r\n\r\n").expect("the head was sent") + 4;
    let body = &raw[head..];
    assert!(body.len() < LARGE && whole.as_bytes().starts_with(body), "{} bytes", body.len());
    server.wait_text("answer cut short error=\"the file has become shorter\"");
    assert_eq!(server.get("/assets/large.txt").text(), whole[..1000]);
    server.stop();
}

#[test]
fn a_file_that_grows_while_it_is_sent_is_as_long_as_was_promised() {
    let (mut server, mut client, mut file, whole) = begin_large();
    file.write_all(b"more").unwrap();
    let answer = client.read().unwrap();
    assert!(answer.status == 200 && answer.text() == whole, "{} bytes", answer.body.len());
    let range = [("range", "bytes=-5")];
    let end = client.request("GET", "/assets/large.txt", &range, b"").unwrap();
    assert_eq!(end.text(), format!("{}more", &whole[LARGE - 1..]));
    server.stop();
}
