//! Files that a route serves: which, and which parts and versions of them.

use crate::support::Program;
use std::os::unix::fs::symlink;

#[test]
fn files_are_served_from_their_folder_alone() {
    let settings = "[[route]]\npath = '/assets/{*file}'\nstatic = 'public'";
    let program = Program::stock()
        .config(settings)
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
    let mut server = program.workers(1).start();
    let mut client = server.connect();
    for (path, body) in [("a.txt", "0123456789"), ("in/b.css", "b"), ("b.css", "b"), ("in/%62.css", "b")] {
        let file = client.get(&format!("/assets/{path}")).unwrap();
        assert_eq!((file.status, file.text().as_str()), (200, body), "{path}");
        assert_eq!(file.field("x-content-type-options"), Some("nosniff"));
    }
    let long = "a/".repeat(1500);
    for path in [
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
    ] {
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
    // What is read as a file is opened ends at 64 KiB.
    const HEAD: usize = 64 * 1024;
    let text =
        |length: usize| (0..length).map(|at| char::from(b'a' + (at * 7 / 3 % 26) as u8)).collect::<String>();
    let sizes = [0, 1, HEAD - 1, HEAD, HEAD + 1, 3 * HEAD + 5, 20 * HEAD];
    let settings = "[[route]]\npath = '/assets/{*file}'\nstatic = 'public'";
    let mut program = Program::stock().config(settings);
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
            (HEAD - 5, HEAD + 5),
            (HEAD, HEAD),
            (HEAD + 1, HEAD + 9),
            (2 * HEAD + 7, 3 * HEAD),
            (5, 19 * HEAD),
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
