//! The queue before a program's children, with a shell script as the program.

use super::*;
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::sleep;

/// Notes each question, and answers with it once there is a file `go`.
const SCRIPT: &str = r#"
while read -r line; do
    printf '%s\n' "$line" >>asked
    until [ -e go ]; do sleep 0.01; done
    printf '%s\n' "$line"
done"#;

fn options(folder: &TempDir) -> ProgramOptions {
    ProgramOptions::new(["sh", "-c", SCRIPT]).folder(folder.path()).timeout(Duration::from_secs(30))
}

fn started(options: ProgramOptions) -> Program {
    Program::start("test", options, |_| {}, Box::leak(Box::default()))
}

fn run(story: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(story);
}

async fn wait_asked(folder: &Path, wanted: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    while fs::read_to_string(folder.join("asked")).unwrap_or_default() != wanted {
        assert!(Instant::now() < until, "{wanted:?} was not asked");
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_call_whose_caller_has_gone_never_starts() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let program = started(options(&folder));
        let mut first = pin!(program.call::<_, u32>(&1));
        tokio::select! { answer = &mut first => panic!("{answer:?}"), () = wait_asked(folder.path(), "1\n") => {} }
        {
            let mut second = pin!(program.call::<_, u32>(&2));
            tokio::select! { biased; answer = &mut second => panic!("{answer:?}"), () = std::future::ready(()) => {} }
        }
        fs::write(folder.path().join("go"), "").unwrap();
        assert_eq!(first.await.unwrap(), 1);
        assert_eq!(program.call::<_, u32>(&3).await.unwrap(), 3);
        wait_asked(folder.path(), "1\n3\n").await;
    });
}

#[test]
fn a_full_queue_refuses_and_who_leaves_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let program = started(options(&folder).queue(1));
        let mut first = pin!(program.call::<_, u32>(&1));
        tokio::select! { answer = &mut first => panic!("{answer:?}"), () = wait_asked(folder.path(), "1\n") => {} }
        let mut third = pin!(program.call::<_, u32>(&3));
        {
            let mut second = pin!(program.call::<_, u32>(&2));
            tokio::select! { biased; answer = &mut second => panic!("{answer:?}"), () = std::future::ready(()) => {} }
            assert!(matches!(program.call::<_, u32>(&9).await, Err(Error::QueueFull)));
        }
        tokio::select! { biased; answer = &mut third => panic!("{answer:?}"), () = std::future::ready(()) => {} }
        fs::write(folder.path().join("go"), "").unwrap();
        assert_eq!((first.await.unwrap(), third.await.unwrap()), (1, 3));
    });
}

#[test]
fn nobody_waits_for_a_child_for_longer_than_timeout() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        // The first call has all of the time to start, and the second finds no child.
        let timeout = Duration::from_millis(50);
        let program = started(options(&folder).timeout(timeout));
        let (first, second) = tokio::join!(program.call::<_, u32>(&1), program.call::<_, u32>(&2));
        assert!(matches!(first, Err(Error::TimedOut)), "{first:?}");
        assert!(matches!(second, Err(Error::ProgramDown(_))), "{second:?}");
    });
}

#[test]
fn an_answer_of_another_shape_costs_nobody_the_child() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("go"), "").unwrap();
    run(async {
        let program = started(options(&folder));
        let failed = program.call::<_, u32>("secret").await.unwrap_err();
        assert!(matches!(failed, Error::ProgramFailed(_)), "{failed:?}");
        assert!(!failed.to_string().contains("secret"), "{failed}");
        assert_eq!(program.call::<_, String>("a\nb").await.unwrap(), "a\nb");
        assert!(matches!(program.call::<_, String>(&"x".repeat(1 << 20)).await, Err(Error::Other(_))));
        assert_eq!(program.call::<_, u32>(&3).await.unwrap(), 3);
    });
}

#[test]
fn a_program_that_is_closed_leaves_and_refuses() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let program = started(options(&folder));
        let mut call = pin!(program.call::<_, u32>(&1));
        tokio::select! { answer = &mut call => panic!("{answer:?}"), () = wait_asked(folder.path(), "1\n") => {} }
        program.handle.0.close();
        assert!(matches!(call.await, Err(Error::ProgramFailed(_))));
        program.handle.0.wait_closed();
        assert!(matches!(program.call::<_, u32>(&2).await, Err(Error::ProgramDown(_))));
    });
}
