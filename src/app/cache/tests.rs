//! What one worker's cache does, and what two that share their generations do.

use super::*;
use std::cell::Cell;
use std::future::{pending, ready};
use std::time::Duration;
use tokio::join;
use tokio::task::yield_now;

const FOREVER: Duration = Duration::ZERO;

fn cache(capacity: usize, ttl: Duration) -> Cache<String, u32> {
    with(CacheOptions::new(capacity, ttl))
}

fn with(options: CacheOptions<String, u32>) -> Cache<String, u32> {
    let (generations, _) = Generations::make().unwrap();
    Cache::new("a", options, generations, Box::leak(Box::default()))
}

fn run<T>(story: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(story)
}

#[test]
fn the_least_recently_used_goes_first() {
    let cache = cache(2, FOREVER);
    cache.insert("a".into(), 1);
    cache.insert("b".into(), 2);
    assert_eq!(cache.get("a"), Some(1));
    cache.insert("c".into(), 3);
    assert_eq!([cache.get("a"), cache.get("b"), cache.get("c")], [Some(1), None, Some(3)]);
    assert_eq!((cache.len(), cache.stats()), (2, CacheStats { hits: 3, misses: 1 }));
    let counts = || {
        let CacheCounts { hits, misses, stale, evictions, entries, bytes } = cache.inner.counts;
        [hits, misses, stale, evictions, entries, bytes].map(|count| count.load(Relaxed))
    };
    assert_eq!(counts(), [3, 1, 0, 1, 2, 0]);
    cache.invalidate("a");
    assert_eq!((cache.get("a"), cache.len()), (None, 1));
    cache.clear();
    assert!(cache.is_empty());
    assert_eq!(counts(), [3, 2, 0, 1, 0, 0]);
}

#[test]
fn capacity_zero_keeps_nothing_and_what_is_too_old_is_gone() {
    let nothing = cache(0, FOREVER);
    nothing.insert("a".into(), 1);
    assert_eq!(nothing.get("a"), None);
    let brief = cache(2, Duration::from_nanos(1));
    brief.insert("a".into(), 1);
    assert_eq!((brief.get("a"), brief.len()), (None, 0));
    let lasting = cache(2, Duration::from_secs(3600));
    lasting.insert("a".into(), 1);
    assert_eq!(lasting.get("a"), Some(1));
}

#[test]
fn one_loads_and_the_others_wait() {
    // Also where nothing is kept: who waited gets the value all the same.
    for capacity in [0, 1] {
        let cache = cache(capacity, FOREVER);
        let loads = Cell::new(0);
        let load = || async {
            loads.set(loads.get() + 1);
            yield_now().await;
            Ok::<u32, ()>(7)
        };
        let get = || cache.get_or_load("a".into(), load);
        assert_eq!(run(async { join!(get(), get(), get()) }), (Ok(7), Ok(7), Ok(7)));
        assert_eq!(loads.get(), 1, "capacity {capacity}");
        assert!(cache.inner.flights.is_empty());
    }
}

#[test]
fn a_load_that_fails_or_is_dropped_lets_the_next_one_load() {
    let cache = cache(1, FOREVER);
    run(async {
        let fail = cache.get_or_load("a".into(), || async {
            yield_now().await;
            Err("away")
        });
        let next = cache.get_or_load("a".into(), || ready(Ok::<u32, &str>(2)));
        assert_eq!(join!(fail, next), (Err("away"), Ok(2)));

        cache.clear();
        let mut stuck = Box::pin(cache.get_or_load("a".into(), pending::<Result<u32, ()>>));
        let mut next = std::pin::pin!(cache.get_or_load("a".into(), || ready(Ok::<u32, ()>(3))));
        tokio::select! {
            biased;
            _ = &mut stuck => panic!("nothing resolves it"),
            _ = &mut next => panic!("the first one loads"),
            () = ready(()) => {}
        }
        drop(stuck);
        assert_eq!(next.await, Ok(3));
        assert!(cache.inner.flights.is_empty());
    });
}

#[test]
fn a_change_overtakes_the_load_under_way() {
    type Change = fn(&Cache<String, u32>);
    let rows: [(&str, Change, Option<u32>); 4] = [
        ("nothing", |_| {}, Some(1)),
        ("invalidate", |cache| cache.invalidate("a"), None),
        ("clear", |cache| cache.clear(), None),
        ("insert", |cache| cache.insert("a".into(), 2), Some(2)),
    ];
    for (name, change, kept) in rows {
        let cache = cache(1, FOREVER);
        let load = || async {
            change(&cache);
            Ok::<u32, ()>(1)
        };
        assert_eq!(run(cache.get_or_load("a".into(), load)), Ok(1), "{name}");
        assert_eq!(cache.get("a"), kept, "{name}");
    }
}

#[test]
fn a_future_that_borrows_can_go_between_threads() {
    fn must_be_send<T: Send>(value: T) -> T {
        value
    }
    let (cache, local) = (cache(1, FOREVER), String::from("five"));
    let loaded = cache.get_or_load("a".into(), || async { Ok::<u32, ()>(local.len() as u32) });
    assert_eq!(run(must_be_send(loaded)), Ok(4));
}

/// The cache of one name in two workers.
fn two_workers(name: &str) -> [Cache<String, u32>; 2] {
    let (generations, _) = Generations::make().unwrap();
    let options = || CacheOptions::new(100, FOREVER);
    [(); 2].map(|()| Cache::new(name, options(), generations, Box::leak(Box::default())))
}

fn ok(value: u32) -> impl Future<Output = Result<u32, ()>> {
    ready(Ok(value))
}

#[test]
fn what_one_worker_invalidates_no_worker_serves() {
    type Change = fn(&Cache<String, u32>);
    // (what, the change, whether "a" and the tagged "t" are there afterwards)
    let rows: [(&str, Change, [bool; 2]); 6] = [
        ("nothing", |_| {}, [true, true]),
        ("a", |cache| cache.invalidate("a"), [false, true]),
        ("another key", |cache| cache.invalidate("b"), [true, true]),
        ("a tag", |cache| cache.invalidate_tag("two"), [true, false]),
        ("another tag", |cache| cache.invalidate_tag("three"), [true, true]),
        ("all", |cache| cache.clear(), [false, false]),
    ];
    for (what, change, left) in rows {
        let [ours, theirs] = two_workers("a");
        for cache in [&ours, &theirs] {
            run(cache.get_or_load("a".into(), || ok(1))).unwrap();
            run(cache.tagged(["one", "two"]).get_or_load("t".into(), || ok(2))).unwrap();
        }
        change(&ours);
        for cache in [&ours, &theirs] {
            assert_eq!(["a", "t"].map(|key| cache.get(key).is_some()), left, "{what}");
        }
    }
}

#[test]
fn everything_goes_when_everything_is_moved_or_another_program_rules() {
    let (generations, _) = Generations::make().unwrap();
    let cache: Cache<String, u32> =
        Cache::new("a", CacheOptions::new(9, FOREVER), generations, Box::leak(Box::default()));
    cache.insert("a".into(), 1);
    generations.bump_all();
    assert_eq!(cache.get("a"), None);
    cache.insert("a".into(), 1);
    generations.stranger().claim();
    assert_eq!(cache.get("a"), None);
    let loads = Cell::new(0);
    let load = || {
        loads.set(loads.get() + 1);
        ok(2)
    };
    let get = || cache.get_or_load("a".into(), load);
    assert_eq!(run(async { join!(get(), get()) }), (Ok(2), Ok(2)));
    assert_eq!((loads.get(), cache.len()), (2, 0), "nothing is kept, and nobody waits");
    generations.claim();
    assert_eq!(run(get()), Ok(2));
    assert_eq!((loads.get(), cache.get("a")), (3, Some(2)));
}

/// The generations have to be seen before the load: this is the load that a change overtakes in another worker.
#[test]
fn a_load_that_another_worker_overtook_is_served_to_nobody_who_came_later() {
    let [ours, theirs] = two_workers("a");
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let slow = || async {
        let _ = gone.await;
        Ok::<u32, ()>(1)
    };
    run(async {
        let mut early = std::pin::pin!(ours.get_or_load("a".into(), slow));
        tokio::select! {
            biased;
            _ = &mut early => panic!("it waits"),
            () = ready(()) => {}
        }
        theirs.invalidate("a");
        let late = ours.get_or_load("a".into(), || ok(2));
        let open = async { go.send(()).unwrap() };
        let (early, late, ()) = join!(early, late, open);
        assert_eq!((early, late), (Ok(1), Ok(2)), "who began before may see what was before");
        assert_eq!(ours.get("a"), Some(2));
    });
}

#[test]
fn that_there_is_none_is_kept_for_a_time_of_its_own() {
    let none = || ready(Ok::<Option<u32>, ()>(None));
    let cache = with(CacheOptions::new(9, FOREVER));
    assert_eq!(run(cache.find_or_load("a".into(), none)), Ok(None));
    assert_eq!(run(cache.find_or_load("a".into(), || ready(Ok::<_, ()>(Some(1))))), Ok(None), "kept");
    assert_eq!((cache.get("a"), cache.len()), (None, 1));
    assert_eq!(run(cache.get_or_load("a".into(), || ok(2))), Ok(2), "none is no answer to that");
    assert_eq!(run(cache.find_or_load("a".into(), none)), Ok(Some(2)));
    cache.invalidate("a");
    assert_eq!(run(cache.find_or_load("a".into(), none)), Ok(None));
    cache.invalidate("a");
    assert_eq!(run(cache.find_or_load("a".into(), || ready(Ok::<_, ()>(Some(3))))), Ok(Some(3)));

    let never = with(CacheOptions::new(9, FOREVER).absent_ttl(Duration::ZERO));
    assert_eq!(run(never.find_or_load("a".into(), none)), Ok(None));
    assert_eq!(never.len(), 0);
}

#[test]
fn bytes_are_bounded() {
    let cache = with(CacheOptions::new(9, FOREVER).max_bytes(10, |key, value| key.len() + *value as usize));
    let keys = || ["a", "b", "c"].map(|key| cache.get(key));
    cache.insert("a".into(), 4);
    cache.insert("b".into(), 4);
    assert_eq!(keys(), [Some(4), Some(4), None]);
    cache.insert("c".into(), 1);
    assert_eq!(keys(), [None, Some(4), Some(1)], "the least recently used made room");
    cache.insert("c".into(), 4);
    assert_eq!(keys(), [None, Some(4), Some(4)], "what was replaced does not count");
    cache.insert("b".into(), 10);
    assert_eq!(keys(), [None, None, Some(4)], "too heavy to be kept, and the old one is not right");
    cache.clear();
    cache.insert("a".into(), 9);
    assert_eq!(keys(), [Some(9), None, None]);
}

#[test]
fn the_old_value_serves_others_while_one_loads() {
    let cache = with(CacheOptions::new(9, Duration::from_nanos(1)).stale(Duration::from_secs(3600)));
    let slow = |value| {
        move || async move {
            yield_now().await;
            Ok::<u32, ()>(value)
        }
    };
    let get = |value| cache.get_or_load("a".into(), slow(value));
    run(async {
        assert_eq!(get(1).await, Ok(1));
        assert_eq!(join!(get(2), get(3), get(4)), (Ok(2), Ok(1), Ok(1)));
        assert_eq!(cache.inner.counts.stale.load(Relaxed), 2);
        cache.invalidate("a");
        assert_eq!(join!(get(5), get(6)), (Ok(5), Ok(5)), "what was invalidated is never served");
        assert_eq!(cache.inner.counts.stale.load(Relaxed), 2);
    });
    assert_eq!(cache.get("a"), None, "get gives nothing that is too old");
}

#[test]
#[should_panic(expected = "at most 8 tags, not 9")]
fn tags_are_bounded() {
    cache(1, FOREVER).tagged(["a"; MAX_TAGS + 1]);
}
