//! The paths that are counted within one process. Not here: budgets, servers.

use axum::body::Body;
use ferricorn::testing::Setup;
use ferricorn::{Cache, CacheOptions, Error, Worker, guards};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tower::Service;

/// How often each is run.
pub const TIMES: u64 = 2_000;

/// What is counted is what runs within the function of this name.
pub const MEASURED: &str = "guard_measured";

/// A path by its name, and its size: how many routes, entries, workers.
pub fn run(name: &str, size: u64) {
    match name {
        "route" => route(size),
        "hit" => hit(size),
        "load" => load(size),
        "seat" => guard_measured(&mut guards::seat()),
        "arbiter" => guard_measured(&mut guards::arbiter(u32::try_from(size).expect("a number of workers"))),
        other => panic!("there is no {other}"),
    }
}

#[inline(never)]
fn guard_measured(run: &mut dyn FnMut()) {
    for _ in 0..TIMES {
        black_box(&mut *run)();
    }
}

/// A page of the stock app, from the router to its response, among so many.
fn route(count: u64) {
    let mut router = guards::routes(count as usize);
    let path = format!("/page/{}", count / 2);
    guard_measured(&mut || {
        let request = http::Request::get(path.as_str()).body(Body::empty()).expect("it is right");
        let response = at_once(router.call(request)).expect("a router does not fail");
        assert_eq!(response.status(), 200);
    });
}

fn hit(entries: u64) {
    let cache = cache(entries);
    let mut key = 0;
    guard_measured(&mut || {
        key = (key + 7919) % entries;
        assert_eq!(cache.get(&key), Some(key));
    });
}

fn load(entries: u64) {
    let cache = cache(entries);
    guard_measured(&mut || {
        let value = at_once(cache.get_or_load(3, || async { Err(Error::QueueFull) }));
        assert_eq!(value.ok(), Some(3));
    });
}

fn cache(entries: u64) -> Cache<u64, u64> {
    let mut made = None;
    let _local = Setup::new().app(|worker: Worker| {
        made =
            Some(worker.cache_with("guard", CacheOptions::new(entries as usize, Duration::from_secs(3600))));
        axum::Router::<()>::new()
    });
    let cache: Cache<u64, u64> = made.expect("the app was made");
    (0..entries).for_each(|key| cache.insert(key, key));
    cache
}

/// The outcome of what need not wait.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("there is nothing to wait for"),
    }
}
