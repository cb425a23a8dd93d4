//! What a hit of a worker's cache takes, in this process. Not here: pages that are served from one.

use super::shared::Figures;
use ferricorn::testing::Setup;
use ferricorn::{Cache, CacheOptions, Error, MAX_TAGS, Worker};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 9;
const HITS: u32 = 1_000_000;
const ENTRIES: [u64; 2] = [1, 100_000];

pub fn measure() {
    println!("\na hit of a worker's cache, keys and values of eight bytes, {ROUNDS} rounds of {HITS}");
    for entries in ENTRIES {
        let cache = cache(entries);
        runtime().block_on(async {
            for key in 0..entries {
                cache.insert(key, key);
            }
            let (mut got, mut loaded) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                got.push(time(|at| async move { at }).await); // warms up, and is the price of the loop
                got.pop();
                got.push(
                    time(|at| std::future::ready(cache.get(&(at % entries)).expect("it is there"))).await,
                );
                loaded.push(time(|at| load(&cache, at % entries)).await);
            }
            println!("  get, {entries} entries: {} ns", Figures::of(got));
            println!("  get_or_load, {entries} entries: {} ns", Figures::of(loaded));
        });
    }
    let cache = cache(1); // which has a runtime of its own meanwhile
    runtime().block_on(with_tags(cache));
}

/// What tags add to a hit, and what it takes to invalidate.
async fn with_tags(cache: Cache<u64, u64>) {
    let names: Vec<String> = (0..MAX_TAGS).map(|number| format!("tag {number}")).collect();
    for tags in [1, MAX_TAGS] {
        cache.clear();
        let tagged = cache.tagged(&names[..tags]);
        tagged.get_or_load(0, async || Ok::<_, Error>(7)).await.expect("it has no reason to fail");
        let mut got = Vec::new();
        for _ in 0..ROUNDS {
            got.push(time(|_| std::future::ready(cache.get(&0).expect("it is there"))).await);
        }
        println!("  get, with {tags} tags: {} ns", Figures::of(got));
    }
    let mut invalidated = Vec::new();
    for _ in 0..ROUNDS {
        let invalidate = async |at: u64| {
            cache.invalidate(&at);
            at
        };
        invalidated.push(time(invalidate).await);
    }
    println!("  invalidate: {} ns", Figures::of(invalidated));
}

fn cache(entries: u64) -> Cache<u64, u64> {
    let mut made = None;
    let _local = Setup::new().app(|worker: Worker| {
        let options = CacheOptions::new(entries as usize, Duration::from_secs(3600));
        made = Some(worker.cache_with("bench", options));
        axum::Router::<()>::new()
    });
    made.expect("the app was built")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

async fn load(cache: &Cache<u64, u64>, key: u64) -> u64 {
    let value = cache.get_or_load(key, || async { Err::<u64, Error>(Error::QueueFull) }).await;
    value.expect("it is there")
}

/// Nanoseconds for one.
async fn time<F: Future<Output = u64>>(hit: impl Fn(u64) -> F) -> f64 {
    let begin = Instant::now();
    for at in 0..u64::from(HITS) {
        black_box(hit(black_box(at)).await);
    }
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(HITS)
}
