//! Calls that wait, run, are late, panic or are given up, and groups of calls.

use super::*;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, mpsc};
use tokio::task::{LocalSet, spawn_local};

/// As long as nothing in these tests takes unless they fail.
const LONG: Duration = Duration::from_secs(10);

/// A limit that some calls exceed, and that those which should not do not either, on a machine that is busy.
const SHORT: Duration = Duration::from_millis(500);

fn run(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, story);
}

fn threads(max_threads: usize, max_queued: usize, timeout: Duration) -> Threads {
    let limits = Limits { max_threads, max_queued, max_wait: Duration::ZERO, timeout };
    Threads::new(limits, Box::leak(Box::default()), || {})
}

/// A call that lasts until the sender is dropped, and that says when it has begun.
fn held() -> (mpsc::Sender<()>, tokio::sync::oneshot::Receiver<()>, impl FnOnce() + Send) {
    let (release, released) = mpsc::channel();
    let (begin, begun) = oneshot::channel();
    let call = move || {
        let _ = begin.send(());
        let _ = released.recv_timeout(LONG);
    };
    (release, begun, call)
}

#[test]
fn a_full_queue_refuses_at_once_and_a_place_freed_is_taken() {
    run(async {
        let threads = Arc::new(threads(1, 2, LONG));
        let (release, begun, call) = held();
        let first = spawn_local({
            let threads = Arc::clone(&threads);
            async move { threads.call(call).await }
        });
        begun.await.unwrap();
        let queued = || {
            let threads = Arc::clone(&threads);
            spawn_local(async move { threads.call(|| 1).await })
        };
        let waiting = [queued(), queued()];
        tokio::task::yield_now().await; // they submit
        assert!(matches!(threads.call(|| ()).await, Err(Error::QueueFull)));
        waiting[0].abort();
        tokio::task::yield_now().await;
        let replacement = queued();
        drop(release);
        assert!(first.await.unwrap().is_ok());
        assert_eq!(replacement.await.unwrap().unwrap(), 1);
    });
}

#[test]
fn what_waited_too_long_is_refused_at_once_and_never_starts() {
    run(async {
        let max_wait = SHORT;
        let shed: &Shed = Box::leak(Box::default());
        let limits = Limits { max_threads: 1, max_queued: 10, max_wait, timeout: LONG };
        let threads = Arc::new(Threads::new(limits, shed, || {}));
        let (release, begun, call) = held();
        let first = spawn_local({
            let threads = Arc::clone(&threads);
            async move { threads.call(call).await }
        });
        begun.await.unwrap();
        let (tell, told) = mpsc::channel();
        let start = Instant::now();
        let late = threads.call({
            let tell = tell.clone();
            move || tell.send("late")
        });
        assert!(matches!(late.await, Err(Error::WaitedTooLong)));
        assert!(start.elapsed() >= max_wait && start.elapsed() < LONG / 2, "{:?}", start.elapsed());
        assert_eq!(shed.waited.load(Relaxed), 1);
        // The event loop hangs meanwhile: the thread finds it before its caller does.
        let mut queued = std::pin::pin!(threads.call(move || tell.send("late")));
        tokio::select! { biased; _ = &mut queued => panic!(), () = std::future::ready(()) => {} }
        std::thread::sleep(max_wait * 2);
        drop(release);
        while threads.shared.oldest().is_some() || threads.shared.queued() > 0 {}
        assert!(matches!(queued.await, Err(Error::WaitedTooLong)));
        assert_eq!((shed.waited.load(Relaxed), told.try_iter().count()), (2, 0));
        assert!(first.await.unwrap().is_ok(), "a call that runs may run on");
        assert_eq!(threads.call(|| 1).await.unwrap(), 1);
    });
}

#[test]
fn to_wait_for_a_place_is_not_to_wait_for_a_thread() {
    run(async {
        let max_wait = SHORT;
        let limits = Limits { max_threads: 1, max_queued: 10, max_wait, timeout: LONG };
        let threads = Arc::new(Threads::new(limits, Box::leak(Box::default()), || {}));
        let group = threads.group(1);
        let keep = |place: Place| Step::Done(place, None);
        let place = threads.call_in(group, None, Instant::now() + LONG, keep).await.unwrap();
        let (begin, begun) = mpsc::channel();
        let [first, second] = [0, 1].map(|number| numbered(&threads, group, number, &begin));
        tokio::time::sleep(max_wait * 3).await;
        assert_eq!(threads.waiting(group), 2);
        drop((first.0, second.0, place));
        assert_eq!([(); 2].map(|()| begun.recv_timeout(LONG)), [Ok(0), Ok(1)]);
        first.1.await.unwrap().unwrap();
        second.1.await.unwrap().unwrap();
        // One that has a place and finds no thread in time gives the place back.
        let (release, running, call) = held();
        let hold = spawn_local({
            let threads = Arc::clone(&threads);
            async move { threads.call(call).await }
        });
        running.await.unwrap();
        let late = threads.call_in(group, None, Instant::now() + LONG, |place| Step::Done((), Some(place)));
        assert!(matches!(late.await, Err(Error::WaitedTooLong)));
        drop(release);
        hold.await.unwrap().unwrap();
        let again = threads.call_in(group, None, Instant::now() + LONG, |place| Step::Done(3, Some(place)));
        assert_eq!(again.await.unwrap(), 3);
    });
}

#[test]
fn what_nobody_waits_for_never_starts() {
    run(async {
        let threads = threads(1, 10, LONG);
        let (release, mut begun, call) = held();
        let mut first = std::pin::pin!(threads.call(call));
        tokio::select! { biased; _ = &mut first => panic!(), begun = &mut begun => begun.unwrap() }
        let (tell, told) = mpsc::channel();
        {
            let tell = tell.clone();
            let mut left = std::pin::pin!(threads.call(move || tell.send("left")));
            tokio::select! { biased; _ = &mut left => panic!(), () = std::future::ready(()) => {} }
        }
        let late = threads
            .call_in(threads.group(1), None, Instant::now(), move |place| {
                Step::Done(tell.send("late"), Some(place))
            })
            .await;
        assert!(matches!(late, Err(Error::PoolTimeout)));
        drop(release);
        first.await.unwrap();
        threads.call(|| ()).await.unwrap(); // behind them, had they stayed
        assert_eq!(told.try_iter().count(), 0);
    });
}

#[test]
fn a_call_times_out_from_its_start_and_is_seen_until_it_ends() {
    run(async {
        let timeout = SHORT;
        let threads = threads(1, 10, timeout);
        let (release, _begun, call) = held();
        let start = Instant::now();
        assert!(matches!(threads.call(call).await, Err(Error::TimedOut)));
        assert!(start.elapsed() >= timeout && start.elapsed() < LONG / 2);
        assert!(threads.longest_call().unwrap() >= timeout);
        // This one waits for longer than `timeout` in the queue; only its own run counts.
        let start = Instant::now();
        let second = threads.call(Instant::now);
        let release_later = async {
            tokio::time::sleep(timeout * 2).await;
            drop(release);
        };
        let (ran_at, ()) = tokio::join!(second, release_later);
        assert!(ran_at.unwrap() - start >= timeout * 2);
        // The thread clears its entry before it takes the next call.
        assert!(threads.call(|| ()).await.is_ok());
    });
}

#[test]
fn a_panic_is_an_error_and_the_thread_lives() {
    run(async {
        let threads = threads(1, 10, Duration::ZERO);
        let outcome: Result<(), Error> = threads.call(|| panic!("on purpose")).await;
        assert!(matches!(outcome, Err(Error::Panicked)));
        assert_eq!(threads.call(|| 2).await.unwrap(), 2);
        threads.close();
        assert!(matches!(threads.call(|| ()).await, Err(Error::QueueFull)));
    });
}

#[test]
fn a_result_that_panics_when_nobody_takes_it_leaves_the_thread() {
    struct Spiteful;
    impl Drop for Spiteful {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    run(async {
        let threads = threads(1, 10, SHORT);
        let (release, _begun, call) = held();
        let work = move || {
            call();
            Spiteful
        };
        assert!(matches!(threads.call(work).await, Err(Error::TimedOut)));
        drop(release);
        let next = tokio::time::timeout(LONG, threads.call(|| 2)).await;
        assert_eq!(next.expect("the thread lives").unwrap(), 2);
    });
}

#[test]
fn as_many_at_a_time_as_there_are_threads() {
    run(async {
        let threads = threads(2, 0, LONG);
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let meet = || {
            let barrier = Arc::clone(&barrier);
            threads.call(move || barrier.wait().is_leader())
        };
        let (one, other) = tokio::join!(meet(), meet());
        assert_ne!(one.unwrap(), other.unwrap());
    });
}

/// A call of the group, which tells its number and then lasts until the sender is dropped.
fn numbered(
    threads: &Arc<Threads>,
    group: Group,
    number: u32,
    begun: &mpsc::Sender<u32>,
) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<(), Error>>) {
    let (release, released) = mpsc::channel::<()>();
    let (threads, begun) = (Arc::clone(threads), begun.clone());
    let call = async move {
        let work = move |place| {
            let _ = begun.send(number);
            let _ = released.recv_timeout(LONG);
            Step::Done((), Some(place))
        };
        threads.call_in(group, None, Instant::now() + LONG, work).await
    };
    (release, spawn_local(call))
}

#[test]
fn the_next_of_a_group_begins_though_the_event_loop_is_busy() {
    run(async {
        let threads = Arc::new(threads(4, 10, LONG));
        let group = threads.group(1);
        let (begin, begun) = mpsc::channel();
        let calls = [0, 1, 2].map(|number| numbered(&threads, group, number, &begin));
        tokio::task::yield_now().await; // they submit
        // From here on nothing is done here but to wait for the threads.
        assert_eq!((begun.recv_timeout(LONG), threads.waiting(group)), (Ok(0), 2));
        assert!(begun.recv_timeout(Duration::from_millis(20)).is_err(), "there is one place");
        let mut outcomes = Vec::new();
        for (number, (release, outcome)) in calls.into_iter().enumerate() {
            drop(release);
            if number < 2 {
                assert_eq!(begun.recv_timeout(LONG), Ok(number as u32 + 1));
            }
            outcomes.push(outcome);
        }
        for outcome in outcomes {
            outcome.await.unwrap().unwrap();
        }
        assert_eq!(threads.waiting(group), 0);
    });
}

#[test]
fn a_group_that_is_full_keeps_nobody_else_waiting() {
    run(async {
        let threads = Arc::new(threads(2, 10, LONG));
        let group = threads.group(1);
        let (begin, begun) = mpsc::channel();
        let calls = [0, 1].map(|number| numbered(&threads, group, number, &begin));
        tokio::task::yield_now().await;
        assert_eq!(threads.call(|| 5).await.unwrap(), 5);
        assert_eq!((begun.recv_timeout(LONG), threads.waiting(group)), (Ok(0), 1));
        drop(calls);
    });
}

#[test]
fn who_leaves_gives_his_place_to_the_next() {
    run(async {
        let threads = Arc::new(threads(1, 10, LONG));
        let group = threads.group(1);
        let keep = |place: Place| Step::Done(place, None);
        let place = threads.call_in(group, None, Instant::now() + LONG, keep).await.unwrap();
        let (begin, begun) = mpsc::channel();
        let calls = [0, 1, 2].map(|number| numbered(&threads, group, number, &begin));
        tokio::task::yield_now().await;
        assert_eq!((begun.try_recv().is_err(), threads.waiting(group)), (true, 3));
        calls[0].1.abort();
        tokio::task::yield_now().await;
        assert_eq!(threads.waiting(group), 2);
        drop(place);
        assert_eq!(begun.recv_timeout(LONG), Ok(1));
        let [_, (one, first), (other, second)] = calls;
        drop((one, other));
        first.await.unwrap().unwrap();
        second.await.unwrap().unwrap();
        // Who panics, too.
        let panics =
            threads.call_in(group, None, Instant::now() + LONG, |_| -> Step<()> { panic!("on purpose") });
        assert!(matches!(panics.await, Err(Error::Panicked)));
        let again = threads.call_in(group, None, Instant::now() + LONG, |place| Step::Done(7, Some(place)));
        assert_eq!(again.await.unwrap(), 7);
    });
}

#[test]
fn a_group_has_a_queue_with_an_end_and_a_wait_with_one() {
    run(async {
        let threads = Arc::new(threads(4, 1, LONG));
        let group = threads.group(1);
        let (begin, _begun) = mpsc::channel();
        let first = numbered(&threads, group, 0, &begin);
        let second = numbered(&threads, group, 1, &begin);
        tokio::task::yield_now().await;
        let call = |deadline| threads.call_in(group, None, deadline, |place| Step::Done((), Some(place)));
        assert!(matches!(call(Instant::now() + LONG).await, Err(Error::QueueFull)));
        second.1.abort();
        tokio::task::yield_now().await;
        assert!(matches!(call(Instant::now() + Duration::from_millis(10)).await, Err(Error::PoolTimeout)));
        assert_eq!(threads.waiting(group), 0);
        drop(first.0);
        first.1.await.unwrap().unwrap();
    });
}

#[test]
fn who_waited_for_a_place_goes_before_who_came_later() {
    run(async {
        let threads = Arc::new(threads(1, 10, LONG));
        let group = threads.group(1);
        let (begin, begun) = mpsc::channel();
        let [first, second] = [0, 1].map(|number| numbered(&threads, group, number, &begin));
        tokio::task::yield_now().await;
        let later = spawn_local({
            let threads = Arc::clone(&threads);
            async move { threads.call(move || begin.send(2)).await }
        });
        tokio::task::yield_now().await;
        drop((first.0, second.0));
        let order = [(); 3].map(|()| begun.recv_timeout(LONG));
        assert_eq!(order, [Ok(0), Ok(1), Ok(2)]);
        first.1.await.unwrap().unwrap();
        second.1.await.unwrap().unwrap();
        later.await.unwrap().unwrap().unwrap();
    });
}

#[test]
fn who_runs_again_goes_first_and_one_place_is_left_to_try() {
    run(async {
        let threads = Arc::new(threads(4, 10, LONG));
        let group = threads.group(3);
        let stock = Arc::new(Mutex::new(0));
        let (begin, begun) = mpsc::channel();
        // Each takes from the stock, or tries again.
        let buyer = |number: u32| {
            let (threads, stock, begin) = (Arc::clone(&threads), Arc::clone(&stock), begin.clone());
            spawn_local(async move {
                let buy = move |place| match stock.lock().unwrap() {
                    mut left if *left > 0 => {
                        *left -= 1;
                        begin.send(number).unwrap();
                        Step::Done((), Some(place))
                    }
                    _ => Step::Again(place),
                };
                threads.call_in(group, None, Instant::now() + LONG, buy).await
            })
        };
        let buyers: Vec<_> = (0..6).map(buyer).collect();
        tokio::task::yield_now().await; // they submit
        while threads.shared.parked(group.0) < 2 {
            std::thread::yield_now();
        }
        for number in 0..3 {
            *stock.lock().unwrap() += 1;
            assert_eq!(begun.recv_timeout(LONG), Ok(number));
        }
        threads.unpark(group);
        *stock.lock().unwrap() += 2;
        let mut others = [(); 2].map(|()| begun.recv_timeout(LONG).unwrap());
        others.sort();
        // One that nobody waits for does not try again.
        let left = (3..6).find(|number| !others.contains(number)).unwrap();
        buyers[left as usize].abort();
        tokio::task::yield_now().await;
        while threads.waiting(group) > 0 || threads.longest_call().is_some() {}
        *stock.lock().unwrap() += 1;
        let last = threads.call_in(group, None, Instant::now() + LONG, |place| Step::Done(9, Some(place)));
        assert_eq!((last.await.unwrap(), *stock.lock().unwrap()), (9, 1));
    });
}

#[test]
fn who_runs_again_still_has_a_deadline() {
    run(async {
        let threads = threads(1, 10, LONG);
        let group = threads.group(1);
        let again = threads.call_in(group, None, Instant::now() + Duration::from_millis(30), |place| {
            std::thread::sleep(Duration::from_millis(1)); // as one who looks around
            Step::<()>::Again(place)
        });
        assert!(matches!(again.await, Err(Error::PoolTimeout)));
        let next = threads.call_in(group, None, Instant::now() + LONG, |place| Step::Done(3, Some(place)));
        assert_eq!(next.await.unwrap(), 3);
    });
}
