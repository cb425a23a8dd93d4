//! What is kept of a response, and how it is given.

use super::*;

#[test]
fn a_hit_has_an_age_an_etag_and_the_fields_of_the_response() {
    let fields = [
        ("content-type", "text/x"),
        ("x-own", "1"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("age", "7"),
    ];
    let bench = bench(options(), numbered(&fields));
    run(async {
        let first = bench.send("GET", "/", &[]).await;
        let hit = bench.send("GET", "/", &[]).await;
        assert_eq!((first.status, first.body.as_str()), (200, "1"));
        assert_eq!((hit.status, hit.body.as_str()), (200, "1"));
        assert_eq!(hit.field("age"), Some("7"), "RFC 9111, 5.1");
        assert!(hit.field("etag").unwrap().starts_with('"') && hit.field("etag") == first.field("etag"));
        assert!(httpdate::parse_http_date(hit.field("date").unwrap()).is_ok());
        for name in ["content-type", "x-own"] {
            assert!(hit.field(name).is_some(), "{name}");
        }
        for name in ["connection", "x-hop", "keep-alive", "content-length"] {
            assert_eq!(hit.field(name), None, "{name}");
        }
        let other = bench.send("GET", "/other", &[]).await;
        assert_ne!(other.field("etag"), hit.field("etag"), "of another body");
    });
}

/// RFC 9110, 13.1.2, 13.1.3 and 15.4.5.
#[test]
fn who_has_it_gets_a_304() {
    let modified = "Tue, 14 Nov 2023 22:13:20 GMT";
    let fields = [
        ("last-modified", modified),
        ("content-type", "text/x"),
        ("content-language", "en"),
        ("cache-control", "max-age=60"),
        ("vary", "accept"),
        ("x-own", "1"),
    ];
    let bench = bench(options(), numbered(&fields));
    run(async {
        let etag = bench.send("GET", "/", &[]).await.field("etag").unwrap().to_owned();
        let (weak, list) = (format!("W/{etag}"), format!("\"x\", {etag}"));
        let table: [(&[(&str, &str)], u16); 9] = [
            (&[("if-none-match", &etag)], 304),
            (&[("if-none-match", &weak)], 304),
            (&[("if-none-match", &list)], 304),
            (&[("if-none-match", "*")], 304),
            (&[("if-none-match", "\"x\"")], 200),
            (&[("if-none-match", "\"x\""), ("if-modified-since", modified)], 200),
            (&[("if-modified-since", modified)], 304),
            (&[("if-modified-since", "Tue, 14 Nov 2023 22:13:19 GMT")], 200),
            (&[("if-modified-since", "yesterday")], 200),
        ];
        for method in ["GET", "HEAD"] {
            for (conditions, status) in &table {
                let answer = bench.send(method, "/", conditions).await;
                assert_eq!(answer.status, *status, "{conditions:?}");
                let is_304 = *status == 304;
                assert_eq!(answer.body.is_empty(), is_304, "{conditions:?}");
                for name in ["etag", "date", "cache-control", "vary", "age", "x-own"] {
                    assert!(answer.field(name).is_some(), "{name} {conditions:?}");
                }
                for name in ["content-type", "content-language", "last-modified"] {
                    assert_eq!(answer.field(name).is_none(), is_304, "{name} {conditions:?}");
                }
            }
        }
        assert_eq!(bench.asked(), 1);
        // The one that has it made is judged alike, and has no age.
        let first = bench.send("GET", "/?x", &[("if-modified-since", modified)]).await;
        assert_eq!((first.status, first.field("age"), bench.asked()), (304, None, 2));
    });
}

#[test]
fn the_etag_of_the_app_stays_and_an_error_has_none() {
    let bench = bench(options(), |request, _| match request.uri().path() {
        "/own" => respond(200, &[("etag", "W/\"own\"")], "a"),
        _ => respond(404, &[("cache-control", "max-age=9")], "none"),
    });
    run(async {
        for _ in 0..2 {
            assert_eq!(bench.send("GET", "/own", &[]).await.field("etag"), Some("W/\"own\""));
            assert_eq!(bench.send("GET", "/own", &[("if-none-match", "\"own\"")]).await.status, 304);
            let none = bench.send("GET", "/none", &[("if-none-match", "*")]).await;
            assert_eq!((none.status, none.field("etag"), none.body.as_str()), (404, None, "none"));
        }
        assert_eq!(bench.asked(), 2);
    });
}

/// RFC 9111, 4.1.
#[test]
fn variants_are_told_apart_by_the_fields_that_vary_names() {
    let bench = bench(options(), |request, number| {
        let of = |name| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
        // What it varies by depends on what it is.
        let vary = if of("a") == "2" { "a, b" } else { "a" };
        respond(200, &[("vary", vary)], format!("{}{}#{number}", of("a"), of("b")))
    });
    run(async {
        let ask = async |a: &str, b: &str| bench.send("GET", "/", &[("a", a), ("b", b)]).await.body;
        assert_eq!(ask("1", "x").await, "1x#1");
        assert_eq!(ask("1", "y").await, "1x#1", "b makes no difference");
        assert_eq!(ask("2", "x").await, "2x#2");
        assert_eq!(ask("2", "y").await, "2y#3", "here it does");
        assert_eq!(ask("2", "x").await, "2x#2");
        assert_eq!(ask("2", "y").await, "2y#3");
        // By now both fields count.
        assert_eq!(ask("1", "x").await, "1x#4");
        assert_eq!(ask("1", "x").await, "1x#4");
        let together = join!(ask("3", "x"), ask("3", "x"), ask("4", "x"), ask("4", "x"));
        assert_eq!(together.0, together.1);
        assert_eq!(together.2, together.3);
        assert_eq!(bench.asked(), 6);
    });
}

#[test]
fn what_is_too_large_or_has_trailers_or_breaks_off_passes_as_it_comes() {
    use http_body::Frame;

    struct Frames(std::vec::IntoIter<Result<Frame<Bytes>, std::io::Error>>);
    impl Body for Frames {
        type Data = Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            Poll::Ready(self.0.next())
        }
    }
    let bench = bench(options().max_body(10), |request, number| {
        let data = |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
        let body = match request.uri().path() {
            "/fits" => AppBody::from("0123456789"),
            "/known" => AppBody::from("0123456789x"),
            "/chunks" => AppBody::new(Frames(vec![data("0123456"), data("789x"), data("yz")].into_iter())),
            "/fit-chunks" => AppBody::new(Frames(vec![data("0123456"), data("789")].into_iter())),
            "/trailers" => {
                let trailers =
                    Ok(Frame::trailers(HeaderMap::from_iter([(header::ETAG, "a".parse().unwrap())])));
                AppBody::new(Frames(vec![data("0"), trailers].into_iter()))
            }
            _ => AppBody::new(Frames(vec![data("0"), Err(std::io::Error::other("broke"))].into_iter())),
        };
        let mut response = Response::new(body);
        response.headers_mut().insert("x-number", number.into());
        response
    });
    let ask =
        async |path: &'static str| {
            let request = Request::builder().uri(path).body(AppBody::empty()).unwrap();
            let response = bench.service.clone().oneshot(request).await.unwrap();
            let number = response.headers()["x-number"].to_str().unwrap().to_owned();
            let hint = response.body().size_hint();
            let body = response.into_body().collect().await;
            let has_trailers = body.as_ref().is_ok_and(|body| body.trailers().is_some());
            let body = body.map(|body| body.to_bytes()).ok();
            let length = body.as_ref().map(|body| body.len() as u64);
            assert!(length.is_none_or(
                |length| hint.lower() <= length && hint.upper().is_none_or(|upper| upper >= length)
            ));
            (number, body, has_trailers)
        };
    run(async {
        // (path, body, trailers, kept)
        let table: [(_, Option<&[u8]>, _, _); 6] = [
            ("/fits", Some(b"0123456789"), false, true),
            ("/known", Some(b"0123456789x"), false, false),
            ("/chunks", Some(b"0123456789xyz"), false, false),
            ("/fit-chunks", Some(b"0123456789"), false, true),
            ("/trailers", Some(b"0"), true, false),
            ("/broken", None, false, false),
        ];
        for (path, body, trailers, is_kept) in table {
            let (first, second) = (ask(path).await, ask(path).await);
            for answer in [&first, &second] {
                assert_eq!((answer.1.as_deref(), answer.2), (body, trailers), "{path}");
            }
            assert_eq!(first.0 == second.0, is_kept, "{path}");
        }
    });
}

#[test]
fn numbers_and_bytes_are_bounded() {
    let few = bench(options().capacity(1), numbered(&[]));
    let light = bench(options().max_bytes(900), numbered(&[]));
    run(async {
        for bench in [few, light] {
            assert_eq!([bench.get("/a").await, bench.get("/a").await], ["1", "1"]);
            assert_eq!([bench.get("/b").await, bench.get("/b").await], ["2", "2"]);
            assert_eq!(bench.get("/a").await, "3", "it made room");
        }
    });
}

#[test]
fn too_many_tags_are_not_kept() {
    let bench = bench(options().tags(["own"]), |_, number| {
        let mut response = respond(200, &[], number.to_string());
        response.extensions_mut().insert(CacheTags::new(["t"; MAX_TAGS]));
        response
    });
    run(async { assert_eq!([bench.get("/").await, bench.get("/").await], ["1", "2"]) });
}
