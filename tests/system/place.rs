//! Where the server runs and what its files may: the folder, the umask.

use crate::support::server::End;
use crate::support::{Program, Said, proc};
use nix::sys::signal::Signal::SIGHUP;
use std::fs;

#[test]
fn the_umask_is_what_the_settings_say_in_all_processes() {
    let mut server = Program::probe().workers(1).args("-m 037").start();
    for pid in [server.pid(), server.worker()] {
        assert_eq!(proc::status(pid, "Umask"), "0037");
    }
    server.stop();
    let mut server =
        Program::probe().through(&["sh", "-c", r#"umask 051 && exec "$0" "$@""#]).workers(1).start();
    assert_eq!(proc::status(server.worker(), "Umask"), "0051", "as it was started with");
    server.stop();
}

#[test]
fn everything_relative_begins_in_the_folder_that_chdir_names() {
    let file = r#"chdir = "inner"
bind = "unix:server.sock"
pidfile = "server.pid"
accesslog = "logs/access.log"
proc_name = "file:name"
"#;
    let program = Program::probe().unbound().config(file).file("inner/logs/x", "").file("inner/name", "shop");
    let mut server = program.workers(1).start();
    let inner = server.dir().join("inner");
    for name in ["server.sock", "server.pid", "logs/access.log"] {
        assert!(fs::symlink_metadata(inner.join(name)).is_ok(), "{name}");
    }
    for pid in [server.pid(), server.worker()] {
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), inner);
    }
    assert_eq!(proc::comm(server.worker()), "shop-w0");
    // The file itself was named from outside the folder, and is found again.
    fs::write(server.dir().join("server.toml"), file.replace("access.log", "second.log")).unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    assert!(inner.join("logs/second.log").exists());
    server.stop();
}

#[test]
fn a_folder_that_cannot_be_entered_is_refused() {
    let mut server = Program::probe().config("\nchdir = 'nowhere'").spawn();
    assert_eq!(server.wait_exit(), End::Code(2));
    server.wait_text("server.toml:2: chdir: got \"nowhere\"");
}
