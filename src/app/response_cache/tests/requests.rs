//! Which request is served from which, and what it does to others.

use super::*;

/// Whether the second of two requests is answered without the app.
fn is_hit(
    options: ResponseCacheOptions,
    first: (&str, &str, &[(&str, &str)]),
    second: (&str, &str, &[(&str, &str)]),
    fields: &[(&'static str, &'static str)],
) -> bool {
    let bench = bench(options, numbered(fields));
    run(async {
        bench.send(first.0, first.1, first.2).await;
        bench.send(second.0, second.1, second.2).await;
    });
    bench.asked() == 1
}

#[test]
fn which_request_is_served_from_which() {
    type Ask<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
    let plain: Ask<'_> = ("GET", "/a", &[]);
    // (first, second, is a hit)
    let table: &[(Ask<'_>, Ask<'_>, bool)] = &[
        (plain, plain, true),
        (plain, ("HEAD", "/a", &[]), true),
        (("HEAD", "/a", &[]), plain, false),
        (plain, ("GET", "/b", &[]), false),
        (plain, ("GET", "/a?", &[]), false),
        (plain, ("GET", "http://other/a", &[]), false),
        (("GET", "http://other/a", &[]), plain, false),
        (("GET", "/a?x=1&y=2", &[]), ("GET", "/a?y=2&x=1", &[]), true),
        (("GET", "/a?x=1&x=2", &[]), ("GET", "/a?x=2&x=1", &[]), false),
        (plain, ("GET", "/a", &[("host", "other")]), false),
        (plain, ("GET", "/a", &[("accept", "x")]), true),
        (plain, ("POST", "/a", &[]), false),
        (("POST", "/a", &[]), plain, false),
        (("OPTIONS", "/a", &[]), ("OPTIONS", "/a", &[]), false),
        // RFC 9111, 3.5, and cookies.
        (plain, ("GET", "/a", &[("authorization", "x")]), false),
        (("GET", "/a", &[("authorization", "x")]), plain, false),
        (plain, ("GET", "/a", &[("cookie", "x")]), false),
        (("GET", "/a", &[("cookie", "x")]), plain, false),
        // Ranges and other conditions are the app's.
        (plain, ("GET", "/a", &[("range", "bytes=0-1")]), false),
        (("GET", "/a", &[("range", "bytes=0-1")]), plain, false),
        (plain, ("GET", "/a", &[("if-match", "\"x\"")]), false),
        (plain, ("GET", "/a", &[("if-unmodified-since", "x")]), false),
        (("GET", "/a", &[("if-none-match", "\"x\"")]), plain, true),
        // RFC 9111, 5.2.1: the request's directives.
        (plain, ("GET", "/a", &[("cache-control", "no-cache")]), false),
        (plain, ("GET", "/a", &[("cache-control", "no-store")]), false),
        (("GET", "/a", &[("cache-control", "no-store")]), plain, false),
        (("GET", "/a", &[("cache-control", "no-cache")]), plain, true),
        (plain, ("GET", "/a", &[("cache-control", "max-age=0")]), false),
        (plain, ("GET", "/a", &[("cache-control", "max-age=9")]), true),
        (plain, ("GET", "/a", &[("cache-control", "min-fresh=9")]), true),
        (plain, ("GET", "/a", &[("cache-control", "min-fresh=61")]), false),
        (plain, ("GET", "/a", &[("cache-control", "only-if-cached")]), true),
        (plain, ("GET", "/a", &[("cache-control", "max-stale, x=y")]), true),
        (plain, ("GET", "/a", &[("pragma", "no-cache")]), true),
    ];
    for (first, second, wanted) in table {
        assert_eq!(is_hit(options(), *first, *second, &[]), *wanted, "{first:?} {second:?}");
    }
}

#[test]
fn options_say_what_makes_no_difference() {
    type Row<'a> = (&'a str, ResponseCacheOptions, &'a [(&'a str, &'a str)]);
    let rows: [Row<'_>; 6] = [
        ("host", options().any_host(), &[("host", "other")]),
        ("cookie", options().any_cookie(), &[("cookie", "x")]),
        ("authorization", options().any_authorization(), &[("authorization", "x")]),
        ("no-cache", options().ignore_request_directives(), &[("cache-control", "no-cache, max-age=0")]),
        ("no-store", options().ignore_request_directives(), &[("cache-control", "no-store")]),
        ("vary_by", options().vary_by([header::ACCEPT]), &[("x-other", "1")]),
    ];
    for (what, options, fields) in rows {
        assert!(is_hit(options, ("GET", "/", &[]), ("GET", "/", fields), &[("vary", "x-other")]), "{what}");
    }
    let by_accept = options().vary_by([header::ACCEPT]);
    assert!(!is_hit(by_accept, ("GET", "/", &[]), ("GET", "/", &[("accept", "a")]), &[]));
    let cookie = &[("set-cookie", "a=b")];
    assert!(!is_hit(options(), ("GET", "/", &[]), ("GET", "/", &[]), cookie));
    assert!(is_hit(options().keep_set_cookie(), ("GET", "/", &[]), ("GET", "/", &[]), cookie));
}

#[test]
fn parameters_that_make_no_difference_never_reach_the_app() {
    let bench = bench(options().query(["id"]), |request, _| respond(200, &[], request.uri().to_string()));
    run(async {
        assert_eq!(bench.get("/a?id=1&utm=evil").await, "/a?id=1");
        assert_eq!(bench.get("/a?utm=x&id=1").await, "/a?id=1");
        assert_eq!(bench.asked(), 1);
        assert_eq!(bench.get("/a?%69d=2").await, "/a?%69d=2", "the app knows it by its name");
        assert_eq!(bench.get("/a?utm=x").await, "/a");
        assert_eq!(bench.get("/a").await, "/a");
        assert_eq!(bench.asked(), 3);
        assert_eq!(bench.send("POST", "/a?id=1&set=2", &[]).await.body, "/a?id=1&set=2", "all of a change");
        assert_eq!(
            (bench.get("/a?id=1").await, bench.asked()),
            ("/a?id=1".into(), 5),
            "which concerns this one"
        );
    });
}

/// RFC 9111, 4.4.
#[test]
fn an_unsafe_request_invalidates_its_target_unless_it_was_refused() {
    let bench = bench(options(), |request, number| {
        let refused = request.uri().query() == Some("refused");
        let status = if refused && request.method() == "POST" { 409 } else { 200 };
        respond(status, &[("vary", "a")], number.to_string())
    });
    run(async {
        let ask = async |a: &str| bench.send("GET", "/", &[("a", a)]).await.body;
        let both = async || [ask("1").await, ask("2").await];
        for method in ["POST", "PUT", "DELETE", "PATCH", "X-OWN"] {
            let before = both().await;
            bench.send("OPTIONS", "/", &[]).await;
            bench.send(method, "/other", &[]).await;
            assert_eq!(both().await, before);
            bench.send(method, "/", &[]).await;
            let after = both().await;
            assert!(before.iter().all(|before| !after.contains(before)), "{method}: each variant");
        }
        let before = bench.get("/?refused").await;
        bench.send("POST", "/?refused", &[]).await;
        assert_eq!(bench.get("/?refused").await, before);
    });
}

#[test]
fn only_if_cached_never_asks_the_app() {
    let bench = bench(options(), numbered(&[]));
    run(async {
        let wish = [("cache-control", "only-if-cached")];
        assert_eq!(bench.send("GET", "/", &wish).await.status, 504);
        assert_eq!(bench.asked(), 0);
    });
}

#[test]
fn a_router_and_a_plain_service_take_the_layer() {
    fn is_app<S>(_: &S)
    where
        S: Service<Request<AppBody>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    {
    }
    let bench = bench(options(), numbered(&[]));
    let layer = ResponseCacheLayer { shared: Arc::clone(&bench.service.shared) };
    let router = axum::Router::new().route("/", axum::routing::get(async || "a"));
    is_app(&router.clone().layer(layer.clone()));
    is_app(&layer.layer(router));
}
