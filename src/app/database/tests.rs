//! Stories of pools over a real PostgreSQL and a real SQLite.

#[path = "../../../tests/support/ports.rs"]
#[allow(unreachable_pub, reason = "public for the tests of the whole program")]
mod ports;
#[path = "../../../tests/support/postgres.rs"]
#[allow(unreachable_pub, reason = "public for the tests of the whole program")]
mod support;

use super::health::Session;
use super::setup::{Outcome, set_up};
use super::*;
use crate::app::{Error, Worker};
use crate::config::DatabaseUrl;
use crate::scoreboard::Board;
use std::sync::{Mutex, Weak, mpsc};
use std::time::{Duration, Instant};
use support::Cluster;
use tokio::task::{LocalSet, spawn_local};

/// As long as nothing in these tests takes unless they fail.
const LONG: Duration = Duration::from_secs(10);

/// A page that is not held up takes less, and one that waits for `PATIENT` takes more.
const LESS: Duration = Duration::from_millis(1500);
const PATIENT: Duration = Duration::from_secs(3);

/// One cluster for all tests that run at the same time and do not stop it.
fn cluster() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    shared.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(Cluster::start());
        *shared = Arc::downgrade(&cluster);
        cluster
    })
}

fn settings(url: DatabaseUrl) -> Settings {
    let mut settings = Settings { timeout: LONG, ..Settings::default() };
    settings.database.url = Some(url);
    settings.database.pool_size = 1;
    settings.database.pool_timeout = LONG;
    settings
}

fn worker(settings: Settings) -> Worker {
    Worker::new(2, Arc::new(settings), Board::stub(3), false, |_| {}, || {})
}

fn on_postgres(cluster: &Cluster) -> Worker {
    worker(settings(DatabaseUrl::Postgres(cluster.url())))
}

fn on_sqlite(folder: &tempfile::TempDir) -> Worker {
    worker(settings(DatabaseUrl::Sqlite(folder.path().join("test.db"))))
}

fn run<T>(story: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(story)
}

async fn one<T>(pool: &Pool<PostgresSession>, sql: &'static str) -> T
where
    T: for<'a> ::postgres::types::FromSql<'a> + Send + 'static,
{
    pool.run(move |db| Ok(db.query_one(sql, &[])?.get(0))).await.unwrap()
}

#[test]
fn a_connection_has_the_settings() {
    let cluster = cluster();
    run(async {
        let pool = on_postgres(&cluster).postgres();
        for (sql, expected) in [("SHOW application_name", "ferricorn/w2"), ("SHOW statement_timeout", "30s")]
        {
            assert_eq!(one::<String>(&pool, sql).await, expected, "{sql}");
        }
        let folder = tempfile::tempdir().unwrap();
        let pool = on_sqlite(&folder).sqlite();
        for (pragma, expected) in [("journal_mode", "wal"), ("foreign_keys", "1"), ("busy_timeout", "10000")]
        {
            let read = move |db: &mut SqliteSession| {
                let value =
                    db.pragma_query_value(None, pragma, |row| row.get::<_, rusqlite::types::Value>(0))?;
                Ok(match value {
                    rusqlite::types::Value::Text(text) => text,
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    other => format!("{other:?}"),
                })
            };
            assert_eq!(pool.run(read).await.unwrap(), expected, "{pragma}");
        }
    });
}

#[test]
fn behind_a_pooler_nothing_outlives_a_transaction() {
    let cluster = cluster();
    run(async {
        let mut settings = settings(DatabaseUrl::Postgres(cluster.url()));
        settings.database.transaction_pooler = true;
        let pool = worker(settings).postgres();
        let left = "SELECT concat(current_setting('statement_timeout'), ' ', (SELECT count(*) FROM pg_prepared_statements))";
        // Of the transaction that asks; and outside, after rows that are still held.
        assert_eq!(one::<String>(&pool, left).await, "30s 0");
        let outside = |db: &mut PostgresSession| {
            let rows = db.query("SELECT $1::int + 1, $2::text", &[&1_i32, &"a"])?;
            db.query_opt("SELECT $1::int WHERE false", &[&1_i32])?;
            assert_eq!(db.execute("SELECT $1::int", &[&1_i32])?, 1);
            assert!(db.query("SELECT 1 / $1::int", &[&0_i32]).is_err());
            let left = db.client().simple_query(
                "SELECT count(*) || current_setting('statement_timeout') FROM pg_prepared_statements",
            )?;
            assert_eq!((rows[0].get::<_, i32>(0), rows[0].get::<_, &str>(1)), (2, "a"));
            let first = left.iter().find_map(|message| match message {
                ::postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None, // not our enum
            });
            Ok(first)
        };
        assert_eq!(pool.run(outside).await.unwrap().as_deref(), Some("00"));
        // A transaction of the app's own is left alone.
        let own = |db: &mut PostgresSession| {
            db.batch_execute("CREATE TEMPORARY TABLE pooled (a int)")?;
            db.batch_execute("BEGIN")?;
            db.execute("INSERT INTO pooled VALUES ($1)", &[&1_i32])?;
            db.batch_execute("ROLLBACK")?;
            Ok(db.query_one("SELECT count(*) FROM pooled", &[])?.get::<_, i64>(0))
        };
        assert_eq!(pool.run(own).await.unwrap(), 0);
    });
}

#[test]
fn connections_that_find_a_new_file_at_once_are_all_let_in() {
    for _ in 0..50 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.db");
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    super::sqlite::open(&path, Duration::from_secs(60)).unwrap();
                });
            }
        });
    }
}

#[test]
fn statements_are_kept_up_to_a_limit_and_forgotten_when_stale() {
    let cluster = cluster();
    run(async {
        let pool = on_postgres(&cluster).postgres();
        let many = |db: &mut PostgresSession| {
            for number in 0..300 {
                db.query(&format!("SELECT {number}"), &[])?;
            }
            Ok(db.kept_statements())
        };
        assert_eq!(pool.run(many).await.unwrap(), 256);
        let counted = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT count%'";
        assert_eq!(one::<i64>(&pool, counted).await, 1);
        assert_eq!(one::<i64>(&pool, counted).await, 1);

        let all = "SELECT * FROM stale";
        let columns = move |db: &mut PostgresSession| Ok(db.query_one(all, &[])?.len());
        pool.run(|db| Ok(db.batch_execute("CREATE TABLE stale AS SELECT 1 AS a")?)).await.unwrap();
        assert_eq!(pool.run(columns).await.unwrap(), 1);
        pool.run(|db| Ok(db.batch_execute("ALTER TABLE stale ADD b int")?)).await.unwrap();
        assert_eq!(pool.run(columns).await.unwrap(), 2);
        pool.run(|db| Ok(db.batch_execute("ALTER TABLE stale ADD c int")?)).await.unwrap();
        // In a transaction the statement cannot be repeated; the next one gets a new plan.
        assert!(matches!(pool.transaction(columns).await, Err(Error::Postgres(_))));
        assert_eq!(pool.transaction(columns).await.unwrap(), 3);
        pool.run(|db| Ok(db.batch_execute("DEALLOCATE ALL")?)).await.unwrap();
        assert_eq!(pool.run(columns).await.unwrap(), 3);
    });
}

#[test]
fn a_refusal_that_is_the_statements_own_is_not_repeated() {
    let cluster = cluster();
    run(async {
        let pool = on_postgres(&cluster).postgres();
        // A procedure may commit before it fails, and with the very code of a stale plan.
        let script = "CREATE TABLE calls (code text);
            CREATE PROCEDURE commit_and_fail(code text) LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO calls VALUES (code);
                COMMIT;
                IF code = 'absent' THEN EXECUTE 'EXECUTE absent'; END IF;
                IF code <> '' THEN RAISE EXCEPTION 'no' USING ERRCODE = code; END IF;
            END $$";
        pool.run(move |db| Ok(db.batch_execute(script)?)).await.unwrap();
        let call = |code| pool.run(move |db| Ok(db.execute("CALL commit_and_fail($1)", &[&code])?));
        let mut calls = 0;
        for code in ["0A000", "26000", "absent"] {
            call("").await.unwrap(); // the statement is kept now
            assert!(matches!(call(code).await, Err(Error::Postgres(_))), "{code}");
            calls += 2;
            assert_eq!(one::<i64>(&pool, "SELECT count(*) FROM calls").await, calls, "{code}");
        }
        // A sequence does not roll back, and a time of day has no year: 0A000 as well.
        pool.run(|db| Ok(db.batch_execute("CREATE SEQUENCE runs")?)).await.unwrap();
        let step = "SELECT nextval('runs'), date_part($1, localtime)";
        let part = |unit| pool.run(move |db| Ok(db.query_one(step, &[&unit]).map(drop)?));
        part("hour").await.unwrap();
        assert!(matches!(part("year").await, Err(Error::Postgres(_))));
        assert_eq!(one::<i64>(&pool, "SELECT last_value FROM runs").await, 2);
    });
}

#[test]
fn a_dirty_connection_is_never_handed_out_again() {
    type Work = fn(&mut PostgresSession) -> Result<(), Error>;
    fn execute(db: &mut PostgresSession, sql: &str) -> Result<(), Error> {
        db.execute(sql, &[])?;
        Ok(())
    }
    let rows: [(&str, bool, Work); 12] = [
        ("select", true, |db| execute(db, "SELECT 1")),
        ("refused", true, |db| execute(db, "SELECT 1 / 0")),
        ("error of its own", true, |_| Err(Error::other("no"))),
        ("script", true, |db| Ok(db.batch_execute("SELECT 1; SELECT 2")?)),
        ("whole transaction", true, |db| Ok(db.batch_execute("BEGIN; SELECT 2; COMMIT")?)),
        ("script leaves open", false, |db| Ok(db.batch_execute("BEGIN")?)),
        ("statement leaves open", false, |db| execute(db, " begin")),
        ("hidden in a comment", false, |db| execute(db, "/* harmless */ START TRANSACTION")),
        ("client leaves open", false, |db| Ok(db.client().batch_execute("BEGIN")?)),
        ("failed and left", false, |db| Ok(db.batch_execute("BEGIN; SELECT 1 / 0")?)),
        ("panic", false, |_| panic!("on purpose")),
        ("killed", false, |db| execute(db, "SELECT pg_terminate_backend(pg_backend_pid())")),
    ];
    let cluster = cluster();
    run(async {
        let pool = on_postgres(&cluster).postgres();
        for (name, kept, work) in rows {
            let pid = "SELECT pg_backend_pid()";
            let before: i32 = one(&pool, pid).await;
            let _ = pool.run(work).await;
            assert_eq!(one::<i32>(&pool, pid).await == before, kept, "{name}");
        }
        let killed = pool.run(|db| execute(db, "SELECT pg_terminate_backend(pg_backend_pid())")).await;
        assert!(matches!(killed, Err(Error::DatabaseDown(_))), "{killed:?}");

        let folder = tempfile::tempdir().unwrap();
        let pool = on_sqlite(&folder).sqlite();
        pool.run(|db| Ok(db.execute_batch("CREATE TEMP TABLE mark (a); BEGIN")?)).await.unwrap();
        let marked = |db: &mut SqliteSession| Ok(db.execute_batch("SELECT * FROM mark")?);
        assert!(matches!(pool.run(marked).await, Err(Error::Sqlite(_))));
    });
}

/// The four ways a transaction may end, over any database.
async fn transactions<C: Session>(
    pool: &Pool<C>,
    execute: fn(&mut C, &str) -> Result<(), Error>,
    count: fn(&mut C) -> Result<i64, Error>,
) {
    pool.run(move |db| execute(db, "CREATE TABLE ends (a int CHECK (a > 0))")).await.unwrap();
    let insert = move |db: &mut C| execute(db, "INSERT INTO ends VALUES (1)");
    pool.transaction(insert).await.unwrap();
    assert_eq!(pool.run(count).await.unwrap(), 1, "committed");
    let refused = pool.transaction(move |db| insert(db).and(Err::<(), _>(Error::other("no")))).await;
    assert!(matches!(refused, Err(Error::Other(_))));
    assert_eq!(pool.run(count).await.unwrap(), 1, "rolled back after an error");
    let panics = move |db: &mut C| {
        insert(db)?;
        if true { panic!("on purpose") } else { Ok(()) }
    };
    assert!(matches!(pool.transaction(panics).await, Err(Error::Panicked)));
    assert_eq!(pool.run(count).await.unwrap(), 1, "rolled back after a panic");
}

#[test]
fn a_transaction_commits_or_rolls_back() {
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let count = "SELECT count(*) FROM ends";
        let pool = on_postgres(&cluster).postgres();
        transactions(
            &pool,
            |db, sql| Ok(db.batch_execute(sql)?),
            |db| Ok(db.query_one("SELECT count(*) FROM ends", &[])?.get(0)),
        )
        .await;
        // An error that the closure swallowed: the server would call a rollback a success.
        let swallow = |db: &mut PostgresSession| {
            db.execute("INSERT INTO ends VALUES (2)", &[])?;
            let _ = db.execute("INSERT INTO ends VALUES (-1)", &[]);
            Ok(())
        };
        assert!(matches!(pool.transaction(swallow).await, Err(Error::Postgres(_))));
        assert_eq!(one::<i64>(&pool, count).await, 1);
        // A constraint that is checked at the end.
        pool.run(
            |db| Ok(db.batch_execute("CREATE TABLE late (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")?),
        )
        .await
        .unwrap();
        let twice = |db: &mut PostgresSession| Ok(db.execute("INSERT INTO late VALUES (1), (1)", &[])?);
        assert!(matches!(pool.transaction(twice).await, Err(Error::Postgres(_))));

        let pool = on_sqlite(&folder).sqlite();
        transactions(
            &pool,
            |db, sql| Ok(db.execute_batch(sql)?),
            |db| Ok(db.query_row("SELECT count(*) FROM ends", [], |row| row.get(0))?),
        )
        .await;
    });
}

#[test]
fn a_transaction_has_its_options() {
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let pool = on_postgres(&cluster).postgres();
        let show = |db: &mut PostgresSession| {
            let row = db.query_one(
                "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')",
                &[],
            )?;
            Ok((row.get::<_, String>(0), row.get::<_, String>(1)))
        };
        let plain = TransactionOptions::new();
        for (options, isolation, read_only) in [
            (plain, "read committed", "off"),
            (plain.isolation(Isolation::ReadCommitted), "read committed", "off"),
            (plain.isolation(Isolation::RepeatableRead).read_only(), "repeatable read", "on"),
            (plain.isolation(Isolation::Serializable), "serializable", "off"),
        ] {
            let shown = pool.transaction_with(options, show).await.unwrap();
            assert_eq!(shown, (isolation.to_owned(), read_only.to_owned()), "{options:?}");
        }

        let pool = on_sqlite(&folder).sqlite();
        let create = |db: &mut SqliteSession| Ok(db.execute_batch("CREATE TABLE IF NOT EXISTS t (a)")?);
        let mark = |db: &mut SqliteSession| Ok(db.execute_batch("CREATE TEMP TABLE mark (a)")?);
        pool.run(mark).await.unwrap();
        let refused = pool.transaction_with(plain.read_only(), create).await;
        assert!(matches!(refused, Err(Error::Sqlite(_))), "{refused:?}");
        pool.transaction_with(plain.read_only(), |_| Ok(())).await.unwrap();
        pool.transaction(create).await.unwrap();
        // All of it on one connection.
        pool.run(|db| Ok(db.execute_batch("SELECT * FROM mark")?)).await.unwrap();
    });
}

#[test]
fn a_transaction_that_was_in_anothers_way_is_tried_again_up_to_a_limit() {
    let cluster = cluster();
    run(async {
        let mut settings = settings(DatabaseUrl::Postgres(cluster.url()));
        settings.database.pool_size = 2;
        let pool = worker(settings).postgres();
        pool.run(|db| {
            Ok(db.batch_execute(
                "CREATE TABLE conflict AS SELECT 0 AS a; CREATE TABLE other AS SELECT 0 AS a",
            )?)
        })
        .await
        .unwrap();
        // Somebody else changes the row between the snapshot and the change, the first `times` times.
        let url = cluster.url();
        let attempts = |times: usize, retries: u32| {
            let (url, options) = (url.clone(), TransactionOptions::new().isolation(Isolation::Serializable));
            let tries = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let count = Arc::clone(&tries);
            let work = move |db: &mut PostgresSession| {
                db.query_one("SELECT a FROM conflict", &[])?;
                if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < times {
                    let mut other =
                        ::postgres::Client::connect(&url, ::postgres::NoTls).map_err(Error::other)?;
                    other.batch_execute("UPDATE conflict SET a = a + 1").map_err(Error::other)?;
                }
                db.execute("UPDATE conflict SET a = a + 1", &[])?;
                Ok(())
            };
            let pool = &pool;
            async move {
                let outcome = pool.transaction_with(options.retries(retries), work).await;
                (outcome, tries.load(std::sync::atomic::Ordering::Relaxed))
            }
        };
        let (outcome, tries) = attempts(2, 3).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(tries, 3);
        let (outcome, tries) = attempts(9, 2).await;
        let Err(Error::Postgres(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.code().unwrap().code(), "40001");
        assert_eq!(tries, 3);

        // Two lock the same two rows, in opposite order.
        let meet = Arc::new(std::sync::Barrier::new(2));
        let lock = |first: &'static str, second: &'static str| {
            let (meet, mut has_met) = (Arc::clone(&meet), false);
            let work = move |db: &mut PostgresSession| {
                db.execute(first, &[])?;
                if !has_met {
                    has_met = true;
                    meet.wait();
                }
                db.execute(second, &[])?;
                Ok(())
            };
            pool.transaction_with(TransactionOptions::new().retries(2), work)
        };
        let (one, two) = ("UPDATE conflict SET a = 1", "UPDATE other SET a = 1");
        let (first, second) = tokio::join!(lock(one, two), lock(two, one));
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    });
}

/// Polls `call` until `begun` says so, then drops it.
async fn leave(call: impl Future<Output = Result<(), Error>>, begun: mpsc::Receiver<()>) {
    let watch = async {
        while begun.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        outcome = call => panic!("it ended by itself: {outcome:?}"),
        () = watch => {}
    }
}

/// Counts for much longer than any test lasts.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n WHERE i < 0";

#[test]
fn what_nobody_waits_for_is_cancelled_and_its_thread_is_free_again() {
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let on = |url| {
            let mut settings = settings(url);
            settings.threads = 1;
            settings
        };
        let start = Instant::now();
        let postgres = worker(on(DatabaseUrl::Postgres(cluster.url()))).postgres();
        let (begin, begun) = mpsc::channel();
        let sleep = move |db: &mut PostgresSession| {
            begin.send(()).unwrap();
            Ok(db.batch_execute("SELECT pg_sleep(60)")?)
        };
        leave(postgres.run(sleep), begun).await;
        one::<i32>(&postgres, "SELECT 1").await;

        let sqlite = worker(on(DatabaseUrl::Sqlite(folder.path().join("test.db")))).sqlite();
        let (begin, begun) = mpsc::channel();
        let count = move |db: &mut SqliteSession| {
            begin.send(()).unwrap();
            Ok(db.query_row(ENDLESS, [], |row| row.get::<_, i64>(0)).map(drop)?)
        };
        leave(sqlite.run(count), begun).await;
        sqlite.run(|_| Ok(())).await.unwrap();
        assert!(start.elapsed() < LONG * 3, "{:?}", start.elapsed());
    });
}

#[test]
fn a_call_that_takes_longer_than_timeout_is_cancelled() {
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let on = |url| {
            let mut settings = settings(url);
            // More than a first connection takes on a busy machine.
            settings.timeout = Duration::from_secs(2);
            settings.threads = 1;
            worker(settings)
        };
        let start = Instant::now();
        let (postgres, sqlite) = (
            on(DatabaseUrl::Postgres(cluster.url())),
            on(DatabaseUrl::Sqlite(folder.path().join("test.db"))),
        );
        let late = postgres.postgres().run(|db| Ok(db.batch_execute("SELECT pg_sleep(60)")?)).await;
        assert!(matches!(late, Err(Error::TimedOut)), "{late:?}");
        let count = |db: &mut SqliteSession| Ok(db.query_row(ENDLESS, [], |row| row.get::<_, i64>(0))?);
        let late = sqlite.sqlite().run(count).await;
        assert!(matches!(late, Err(Error::TimedOut)), "{late:?}");
        for worker in [postgres, sqlite] {
            while worker.longest_call().is_some() {
                assert!(start.elapsed() < LONG * 3, "a thread is still busy");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
}

#[test]
fn a_transaction_that_nobody_waits_for_is_rolled_back() {
    let cluster = Cluster::start();
    run(async {
        let pool = on_postgres(&cluster).postgres();
        pool.run(|db| Ok(db.batch_execute("CREATE TABLE left_behind (a int)")?)).await.unwrap();
        let (begin, begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let insert = move |db: &mut PostgresSession| {
            db.execute("INSERT INTO left_behind VALUES (1)", &[])?;
            begin.send(()).unwrap();
            // Nothing runs in the database while the caller leaves.
            let _ = may_go_on.recv_timeout(LONG);
            Ok(())
        };
        leave(pool.transaction(insert), begun).await;
        let watcher = on_postgres(&cluster).postgres();
        let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
        assert_eq!(one::<i64>(&watcher, open).await, 1, "it is still open");
        drop(go_on);
        assert_eq!(one::<i64>(&pool, "SELECT count(*) FROM left_behind").await, 0);
        assert_eq!(one::<i64>(&watcher, open).await, 0);
    });
}

#[test]
fn a_connection_that_is_old_is_replaced_also_when_it_is_never_idle() {
    let cluster = cluster();
    run(async {
        let mut settings = settings(DatabaseUrl::Postgres(cluster.url()));
        settings.database.max_lifetime = Duration::from_millis(300);
        let pool = worker(settings).postgres();
        let mut pids = std::collections::BTreeSet::new();
        let start = Instant::now();
        while pids.len() < 3 {
            assert!(start.elapsed() < LONG * 3, "{pids:?}");
            pids.insert(one::<i32>(&pool, "SELECT pg_backend_pid()").await);
        }
        assert!(start.elapsed() >= Duration::from_millis(600), "{:?}", start.elapsed());
    });
}

#[test]
fn an_exhausted_pool_refuses_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(DatabaseUrl::Sqlite(folder.path().join("test.db")));
    // Long enough for the first connection to be made on a busy machine.
    let pool_timeout = Duration::from_secs(2);
    settings.database.pool_timeout = pool_timeout;
    settings.blocking_queue = 1;
    run(async {
        let pool = worker(settings).sqlite();
        let (release, released) = mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let holder = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(move |_| {
                    begin.send(()).unwrap();
                    Ok(released.recv_timeout(LONG).is_err())
                })
                .await
            }
        });
        begun.await.unwrap();
        let start = Instant::now();
        let (waits, too_many) = tokio::join!(pool.run(|_| Ok(())), pool.run(|_| Ok(())));
        assert!(matches!(waits, Err(Error::PoolTimeout)), "{waits:?}");
        assert!(matches!(too_many, Err(Error::QueueFull)), "{too_many:?}");
        assert!(start.elapsed() >= pool_timeout && start.elapsed() < LONG / 2);
        drop(release);
        assert!(holder.await.unwrap().unwrap());
        pool.run(|_| Ok(())).await.unwrap();
    });
}

#[test]
fn who_waits_while_the_budget_is_in_use_goes_before_who_comes_later() {
    let cluster = cluster();
    let mut settings = settings(DatabaseUrl::Postgres(cluster.url()));
    settings.database.pool_size = 4;
    settings.database.max_connections = 2; // one of them is set aside
    run(LocalSet::new().run_until(async {
        let pool = worker(settings).postgres();
        let (release, released) = mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let holds = move |_: &mut PostgresSession| {
            let _ = begin.send(());
            Ok(released.recv_timeout(LONG))
        };
        let holder = spawn_local({
            let pool = pool.clone();
            async move { pool.run(holds).await }
        });
        begun.await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let callers: Vec<_> = (0..12)
            .map(|number| {
                let (pool, order) = (pool.clone(), Arc::clone(&order));
                spawn_local(async move {
                    let note = move |_: &mut PostgresSession| {
                        order.lock().unwrap().push(number);
                        Ok(())
                    };
                    pool.run(note).await.unwrap();
                })
            })
            .collect();
        let begin = Instant::now();
        while pool.waiting() < callers.len() {
            assert!(begin.elapsed() < LONG / 2, "{} wait", pool.waiting());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(release);
        assert!(holder.await.unwrap().unwrap().is_err());
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), Vec::from_iter(0..12));
    }));
}

#[test]
fn a_database_that_goes_away_holds_nobody_up_and_comes_back_by_itself() {
    let cluster = Cluster::start();
    let mut settings = settings(DatabaseUrl::Postgres(cluster.url()));
    settings.threads = 2;
    settings.database.pool_size = 2;
    settings.database.pool_timeout = PATIENT;
    run(async {
        let worker = worker(settings);
        let pool = worker.postgres();
        one::<i32>(&pool, "SELECT 1").await;
        cluster.stop();
        let start = Instant::now();
        let ask = || pool.run(|db| Ok(db.execute("SELECT 1", &[])?));
        let callers = async {
            let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
            [a, b, c, d]
        };
        let (outcomes, prompt) = tokio::join!(callers, async {
            worker.blocking(|| ()).await.unwrap();
            start.elapsed()
        });
        for outcome in outcomes {
            assert!(matches!(outcome, Err(Error::DatabaseDown(_))), "{outcome:?}");
        }
        assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
        assert!(prompt < LESS, "{prompt:?}");
        // Down is known by now: refused at once.
        let start = Instant::now();
        assert!(matches!(ask().await, Err(Error::DatabaseDown(_))));
        assert!(start.elapsed() < LESS, "{:?}", start.elapsed());

        // Long enough for a back-off that nothing bounds to show: its next pause would be of six seconds.
        tokio::time::sleep(Duration::from_secs(6)).await;
        cluster.restart();
        let back = Instant::now();
        while ask().await.is_err() {
            assert!(back.elapsed() < LONG * 3, "the pool never noticed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("back after {:?}", back.elapsed());
        assert!(back.elapsed() < Duration::from_secs(4), "{:?}", back.elapsed());

        // A restart that nobody saw costs nobody anything, once the connections were idle for a while.
        pool.run(|_| Ok(())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1100)).await;
        cluster.stop();
        cluster.restart();
        assert!(ask().await.is_ok());
        worker.shut_down();
        assert!(matches!(ask().await, Err(Error::DatabaseDown(_))));
    });
}

#[test]
fn a_database_that_accepts_and_says_nothing_holds_nobody_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@{}/db", silent.local_addr().unwrap());
    let mut settings = settings(DatabaseUrl::Postgres(url));
    settings.threads = 1;
    settings.database.pool_size = 2;
    settings.database.pool_timeout = PATIENT;
    run(async {
        let worker = worker(settings);
        let pool = worker.postgres();
        let start = Instant::now();
        let (one, other, prompt) = tokio::join!(pool.run(|_| Ok(())), pool.run(|_| Ok(())), async {
            worker.blocking(|| ()).await.unwrap();
            start.elapsed()
        });
        assert!(matches!(one, Err(Error::DatabaseDown(_))), "{one:?}");
        assert!(matches!(other, Err(Error::DatabaseDown(_))), "{other:?}");
        assert!(prompt < LESS, "{prompt:?}");
        assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    });
}

#[test]
fn a_url_is_checked_and_its_password_kept() {
    let rows = [
        ("postgres://u:secret@host/db", true),
        ("postgres://u@/db?host=/run/postgresql", true),
        ("postgres://u:secret@host:port/db", false),
        ("postgres://u:secret@host/db?secret=1", false),
        ("postgres://u:secret@host/db?connect_timeout=secret", false),
        ("postgres://u:secret@host/db?sslmode=require", false),
        ("postgres://u:secret@host/db?sslmode=verify-full&sslrootcert=/nowhere/x.pem", false),
        ("postgres://u:secret@/db?host=/run/postgresql&sslmode=verify-full&sslrootcert=x", false),
        ("postgres://", false),
    ];
    for (url, valid) in rows {
        let settings = settings(DatabaseUrl::Postgres(url.into()));
        let outcome = check(&settings);
        assert_eq!(outcome.is_ok(), valid, "{url} {outcome:?}");
        assert!(!outcome.err().unwrap_or_default().contains("secret"), "{url}");
    }
}

#[test]
fn what_is_weak_about_a_url_is_said() {
    let weak = |url: &str| check(&settings(DatabaseUrl::Postgres(url.into()))).unwrap();
    for url in ["postgres://u:secret@db.example/x", "postgres://u:secret@10.0.0.1/x?sslmode=disable"] {
        let said = weak(url).unwrap_or_default();
        assert!(said.contains("is not encrypted") && !said.contains("secret"), "{url} {said}");
    }
    for url in
        ["postgres://u@127.0.0.1/x", "postgres://u@localhost/x?sslmode=disable", "postgres://u@/x?host=/run"]
    {
        assert_eq!(weak(url), None, "{url}");
    }
}

#[test]
fn tls_is_with_the_right_server_or_not_at_all() {
    let cluster = Cluster::start_with_tls();
    let other = tempfile::tempdir().unwrap();
    let stranger = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let stranger_pem = other.path().join("stranger.pem");
    std::fs::write(&stranger_pem, stranger.cert.pem()).unwrap();
    let right = cluster.authority().display().to_string();
    let stranger = stranger_pem.display().to_string();
    let url = cluster.url();
    let elsewhere = url.replace("127.0.0.1", "localhost");
    let attempt = |url: String| {
        let mut settings = settings(DatabaseUrl::Postgres(url));
        settings.database.pool_timeout = LONG * 3;
        settings.threads = 1;
        worker(settings).postgres()
    };
    run(async {
        let verified = |url: &str, roots: &str| format!("{url}?sslmode=verify-full&sslrootcert={roots}");
        let pool = attempt(verified(&url, &right));
        let version = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl";
        assert_eq!(one::<String>(&pool, version).await, "TLSv1.3");
        // A cancel request goes the same way.
        let (begin, begun) = mpsc::channel();
        let sleep = move |db: &mut PostgresSession| {
            begin.send(()).unwrap();
            Ok(db.batch_execute("SELECT pg_sleep(60)")?)
        };
        leave(pool.run(sleep), begun).await;
        one::<i32>(&pool, "SELECT 1").await;

        for (url, why) in [
            (verified(&url, &stranger), "invalid peer certificate"),
            (verified(&elsewhere, &right), "not valid for name \"localhost\""),
            (url.clone(), "no encryption"),
        ] {
            let Err(Error::DatabaseDown(reason)) = attempt(url.clone()).run(|_| Ok(())).await else {
                panic!("{url} was accepted");
            };
            assert!(reason.contains(why), "{url} {reason}");
        }
    });
}

#[test]
fn a_server_without_tls_gets_nothing_in_the_clear() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap().cert.pem())
        .unwrap();
    let heard = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 8];
        client.read_exact(&mut request).unwrap();
        client.write_all(b"N").unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
        rest
    });
    let url = format!("postgres://u:secret@{addr}/db?sslmode=verify-full&sslrootcert={}", roots.display());
    let mut settings = settings(DatabaseUrl::Postgres(url));
    settings.database.pool_timeout = LONG * 3;
    run(async {
        let refused = worker(settings).postgres().run(|_| Ok(())).await;
        let Err(Error::DatabaseDown(reason)) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("the server does not speak TLS"), "{reason}");
    });
    assert_eq!(heard.join().unwrap(), b"", "not a byte more");
}

#[test]
fn a_script_runs_whole_or_not_at_all() {
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("setup.sql");
    let urls = [DatabaseUrl::Postgres(cluster.url()), DatabaseUrl::Sqlite(folder.path().join("setup.db"))];
    for url in urls {
        let mut settings = settings(url.clone());
        assert_eq!(set_up(&settings, Board::stub(1)), Outcome::Done, "no script");
        settings.database.setup = Some(script.clone());
        std::fs::write(&script, "CREATE TABLE whole (a int);\nINSERT INTO whole\n  VALUES (nonsense);")
            .unwrap();
        let Outcome::Wrong(message) = set_up(&settings, Board::stub(1)) else { panic!("{url:?}") };
        assert!(message.contains("setup.sql:3: ") && message.contains("nonsense"), "{message}");
        // `whole` does not exist: the failure took it back.
        std::fs::write(&script, "CREATE TABLE whole (a int); INSERT INTO whole VALUES (1);").unwrap();
        assert_eq!(set_up(&settings, Board::stub(1)), Outcome::Done, "{url:?}");
        settings.database.setup = Some("absent.sql".into());
        assert!(matches!(set_up(&settings, Board::stub(1)), Outcome::Wrong(_)));
    }
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [
        DatabaseUrl::Postgres(format!("postgres://u@{nowhere}/db")),
        DatabaseUrl::Sqlite(folder.path().join("absent/test.db")),
    ] {
        let mut settings = settings(url);
        settings.database.setup = Some(script.clone());
        assert!(matches!(set_up(&settings, Board::stub(1)), Outcome::Away(_)));
    }
}

#[test]
fn what_a_transaction_invalidates_is_told_if_and_when_it_commits() {
    use ::postgres::fallible_iterator::FallibleIterator;
    let cluster = cluster();
    let mut listener = cluster.client();
    listener.batch_execute("LISTEN ferricorn").unwrap();
    // Up to a mark of our own, so that nothing is waited for in vain.
    let mut heard = |mark: &str| {
        cluster.client().execute("SELECT pg_notify('ferricorn', $1)", &[&mark]).unwrap();
        let mut notifications = listener.notifications();
        let mut all = notifications.timeout_iter(LONG);
        let mut payloads = Vec::new();
        while let Some(notification) = all.next().unwrap() {
            if notification.payload() == mark {
                break;
            }
            payloads.push(notification.payload().to_owned());
        }
        payloads
    };
    for notify in [true, false] {
        let mut settings = settings(DatabaseUrl::Postgres(cluster.url()));
        settings.cache.notify = notify;
        let board = Board::stub(3);
        let pool = Worker::new(2, Arc::new(settings), board, false, |_| {}, || {}).postgres();
        let told = |tag: &str| if notify { vec![format!("tag:{tag}")] } else { Vec::new() };
        let now = move |tag: &str| board.generations.generation(crate::app::cache::tag_slot(tag));
        let commits = move |db: &mut PostgresSession| {
            db.invalidate_tag("a")?;
            db.invalidate_tag("a")?;
            Ok(now("a"))
        };
        let before_commit = run(pool.transaction(commits)).unwrap();
        assert_eq!(before_commit, 0, "nobody must load anew what is not committed");
        assert_eq!((heard("1"), now("a") > 0), (told("a"), true));

        let fails = |db: &mut PostgresSession| {
            db.invalidate_tag("b")?;
            Err::<(), _>(Error::other("no"))
        };
        run(pool.transaction(fails)).unwrap_err();
        assert_eq!((heard("2"), now("b")), (Vec::new(), 0));

        run(pool.run(|db| Ok(db.invalidate_tag("c")?))).unwrap();
        assert_eq!((heard("3"), now("c") > 0), (told("c"), true));
        assert_eq!(now("b"), 0, "it is forgotten");

        // A transaction of the app's own: what is noted counts once more when the call is over.
        let own = move |db: &mut PostgresSession| {
            db.batch_execute("BEGIN")?;
            db.invalidate_tag("d")?;
            let before = now("d");
            db.batch_execute("COMMIT")?;
            Ok(before)
        };
        let before = run(pool.run(own)).unwrap();
        assert_eq!((heard("4"), now("d") > before), (told("d"), true));
    }
}
