//! Who waits for whom, and two workers with a cache of one name.

use super::*;

#[test]
fn one_asks_the_app_and_the_others_wait() {
    let bench = bench(options(), numbered(&[]));
    run(async {
        let get = || bench.get("/");
        let (one, two, three) = join!(get(), get(), get());
        assert_eq!([one, two, three], ["1", "1", "1"]);
        assert_eq!(bench.asked(), 1);
    });
}

#[test]
fn who_waits_does_not_fail_with_the_one_who_left() {
    let bench = bench(options(), numbered(&[]));
    run(async {
        let mut first = Box::pin(bench.get("/"));
        let mut second = std::pin::pin!(bench.get("/"));
        tokio::select! {
            biased;
            _ = &mut first => panic!("the app yields once"),
            _ = &mut second => panic!("it waits"),
            () = ready(()) => {}
        }
        drop(first);
        assert_eq!(second.await, "2");
        assert_eq!(bench.get("/").await, "2");
    });
}

#[test]
fn who_has_waited_for_long_enough_asks_the_app_itself() {
    let options = options().max_wait(Duration::from_millis(1));
    let (generations, _) = Generations::make().unwrap();
    let mut bench = bench_at(generations, options.clone(), numbered(&[]));
    // The first request is never answered.
    let asked = Arc::clone(&bench.asked);
    let app = service_fn(move |_| {
        let number = asked.fetch_add(1, Relaxed) + 1;
        async move {
            if number == 1 {
                pending::<()>().await;
            }
            Ok::<_, Infallible>(respond(200, &[], number.to_string()))
        }
    });
    bench.service.inner = BoxCloneService::new(app);
    run(async {
        let mut stuck = Box::pin(bench.get("/"));
        let mut others = std::pin::pin!(async { join!(bench.get("/"), bench.get("/")) });
        tokio::select! {
            biased;
            _ = &mut stuck => panic!("nothing resolves it"),
            (one, two) = &mut others => assert!(one != two && one != "1" && two != "1"),
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("they wait for ever"),
        }
        drop(stuck);
        assert_eq!(bench.get("/").await, "4", "theirs were not kept");
        assert_eq!(bench.get("/").await, "4");
    });
}

#[test]
fn what_is_not_to_be_kept_is_waited_for_once_only() {
    let bench = bench(options(), numbered(&[("cache-control", "no-store")]));
    run(async {
        let get = || bench.get("/");
        let (one, two, three) = join!(get(), get(), get());
        let mut all = [one, two, three];
        all.sort();
        assert_eq!(all, ["1", "2", "3"]);
        assert_eq!(bench.asked(), 3);
        let mut both = std::pin::pin!(async { join!(get(), get()) });
        tokio::select! {
            biased;
            _ = &mut both => panic!("the app yields once"),
            () = ready(()) => assert_eq!(bench.asked(), 5, "neither waits for the other"),
        }
        both.await;
    });
    // The app may answer 304 where the cache cannot.
    let conditional = self::bench(options(), |request, _| {
        let asked = request.headers().contains_key("if-none-match");
        respond(if asked { 304 } else { 200 }, &[("cache-control", "private")], "")
    });
    run(async {
        let ask = async || conditional.send("GET", "/", &[("if-none-match", "\"x\"")]).await.status;
        assert_eq!([ask().await, ask().await, ask().await], [200, 304, 304]);
    });
    // What there is not leaves no mark.
    let none = self::bench(options(), |_, _| respond(404, &[], ""));
    run(async {
        none.get("/").await;
        assert_eq!(none.service.shared.cache.len(), 0);
        let get = || none.get("/");
        join!(get(), get(), get());
        assert_eq!((none.service.shared.cache.len(), none.asked()), (0, 4));
    });
    // As soon as it may be kept it is.
    let turns = self::bench(options(), |_, number| {
        let control = if number == 1 { "no-store" } else { "max-age=60" };
        respond(200, &[("cache-control", control)], number.to_string())
    });
    run(async {
        assert_eq!([turns.get("/").await, turns.get("/").await, turns.get("/").await], ["1", "2", "2"]);
    });
}

#[test]
fn the_old_response_serves_others_while_one_is_made() {
    let control = [("cache-control", "max-age=2, stale-while-revalidate=100")];
    let bench = bench(options(), numbered(&control));
    run(async {
        assert_eq!(bench.get("/").await, "1");
        tokio::time::sleep(Duration::from_millis(2100)).await;
        let get = || bench.get("/");
        let (one, two) = join!(get(), get());
        assert_eq!((one.as_str(), two.as_str()), ("2", "1"));
        assert_eq!(bench.get("/").await, "2");
    });
}

/// The layers of one name in two workers.
fn two_workers(tag: &'static str) -> [Bench; 2] {
    let (generations, _) = Generations::make().unwrap();
    [(); 2].map(|()| {
        bench_at(generations, options().tags(["all"]), move |request, number| {
            let mut response = respond(200, &[("vary", "a")], number.to_string());
            if request.uri().path() == "/tagged" {
                response.extensions_mut().insert(CacheTags::new([tag]));
            }
            response
        })
    })
}

#[test]
fn what_one_worker_invalidates_no_worker_serves() {
    // (what, how, "/" is kept, "/tagged" is kept)
    type Change = fn(&Bench) -> Pin<Box<dyn Future<Output = ()> + '_>>;
    let rows: [(&str, Change, [bool; 2]); 5] = [
        ("nothing", |_| Box::pin(ready(())), [true, true]),
        (
            "its tag",
            |bench| Box::pin(async { bench.service.shared.cache.invalidate_tag("t") }),
            [true, false],
        ),
        (
            "another tag",
            |bench| Box::pin(async { bench.service.shared.cache.invalidate_tag("u") }),
            [true, true],
        ),
        (
            "the tag of all",
            |bench| Box::pin(async { bench.service.shared.cache.invalidate_tag("all") }),
            [false, false],
        ),
        (
            "a POST",
            |bench| {
                Box::pin(async {
                    bench.send("POST", "/", &[]).await;
                })
            },
            [false, true],
        ),
    ];
    for (what, change, kept) in rows {
        let [ours, theirs] = two_workers("t");
        run(async {
            let mut before = Vec::new();
            for bench in [&ours, &theirs] {
                before.push([bench.get("/").await, bench.get("/tagged").await]);
                assert_eq!(before.last(), Some(&[bench.get("/").await, bench.get("/tagged").await]));
            }
            change(&ours).await;
            for (bench, before) in [&ours, &theirs].into_iter().zip(before) {
                let after = [bench.get("/").await, bench.get("/tagged").await];
                assert_eq!([after[0] == before[0], after[1] == before[1]], kept, "{what}");
            }
        });
    }
}

/// The tags of a response are known only when it is there; what was invalidated while the app made it counts all the same.
#[test]
fn a_response_that_was_overtaken_is_not_kept() {
    for (tag, is_kept) in [("t", false), ("u", true)] {
        let [ours, theirs] = two_workers("t");
        run(async {
            let mut making = std::pin::pin!(ours.get("/tagged"));
            tokio::select! {
                biased;
                _ = &mut making => panic!("the app yields once"),
                () = ready(()) => {}
            }
            theirs.service.shared.cache.invalidate_tag(tag);
            let waiting = ours.get("/tagged");
            let (made, waited) = join!(making, waiting);
            assert_eq!(made, "1");
            assert_eq!(waited == "1", is_kept, "{tag}");
            assert_eq!(ours.get("/tagged").await == "1", is_kept, "{tag}");
        });
    }
}
