//! Stories of pools over a real PostgreSQL and a real SQLite.

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

/// As long as nothing in these tests takes unless they fail.
const LONG: Duration = Duration::from_secs(10);

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
    Worker::new(2, Arc::new(settings), Board::stub(3))
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
fn an_exhausted_pool_refuses_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(DatabaseUrl::Sqlite(folder.path().join("test.db")));
    settings.database.pool_timeout = Duration::from_millis(50);
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
        assert!(start.elapsed() >= Duration::from_millis(50) && start.elapsed() < LONG / 2);
        drop(release);
        assert!(holder.await.unwrap().unwrap());
        pool.run(|_| Ok(())).await.unwrap();
    });
}

#[test]
fn a_database_that_goes_away_holds_nobody_up_and_comes_back_by_itself() {
    let cluster = Cluster::start();
    let mut settings = settings(DatabaseUrl::Postgres(cluster.url()));
    settings.threads = 2;
    settings.database.pool_size = 2;
    settings.database.pool_timeout = Duration::from_secs(1);
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
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(prompt < Duration::from_millis(500), "{prompt:?}");
        // Down is known by now: refused at once.
        let start = Instant::now();
        assert!(matches!(ask().await, Err(Error::DatabaseDown(_))));
        assert!(start.elapsed() < Duration::from_millis(300));

        // Long enough for a back-off that nothing bounds to show: its next pause would be of three seconds.
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.restart();
        let back = Instant::now();
        while ask().await.is_err() {
            assert!(back.elapsed() < LONG, "the pool never noticed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("back after {:?}", back.elapsed());
        assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());

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
    settings.database.pool_timeout = Duration::from_secs(1);
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
        assert!(prompt < Duration::from_millis(500), "{prompt:?}");
        assert!(start.elapsed() < Duration::from_secs(3));
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
