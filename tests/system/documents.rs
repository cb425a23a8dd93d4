//! What the pages promise that no other test does: that the log lines they quote are the server's, that they leave nothing out,
//! and that the files of deploy/ are right. Not here: commands of the README (readme.rs), settings (beside their table).

use crate::support::repository::{self, read};
use crate::support::{DEADLINE, Program, Server, eventually};
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// All sources as one text, with the quotes of texts as they are logged, and texts that go over several lines in one.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            sources(&entry.path(), text);
        } else {
            text.push_str(&fs::read_to_string(entry.path()).unwrap());
        }
    }
}

fn logged_texts() -> String {
    let mut text = String::new();
    sources(&repository::path("src"), &mut text);
    let mut joined = String::new();
    let mut pieces = text.split("\\\n");
    joined.push_str(pieces.next().unwrap_or_default());
    pieces.for_each(|piece| joined.push_str(piece.trim_start()));
    joined.replace("\\\"", "\"")
}

/// What stands between single backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn each_log_line_that_troubleshooting_quotes_is_one_that_the_server_writes() {
    let sources = logged_texts();
    let mut seen = 0;
    for line in read("docs/troubleshooting.md").lines().filter(|line| line.starts_with("| ")) {
        // What other programs say.
        if line.starts_with("| nginx:") {
            continue;
        }
        for line in quoted(line).filter(|text| text.contains('…') || text.contains("=\"")) {
            seen += 1;
            // Values stand for themselves, and so do keys.
            for part in
                line.split('…').flat_map(|part| part.split("=\"")).map(|part| part.trim_matches(['"', ' ']))
            {
                assert!(sources.contains(part), "{line:?}: no source has {part:?}");
            }
        }
    }
    assert!(seen >= 40, "{seen} lines are quoted");
}

/// In the order of Gunicorn 23's documentation.
const GUNICORN: &str = "config wsgi_app bind backlog workers worker_class threads worker_connections max_requests \
    max_requests_jitter timeout graceful_timeout keepalive limit_request_line limit_request_fields \
    limit_request_field_size reload reload_engine reload_extra_files spew check_config print_config preload_app \
    sendfile reuse_port chdir daemon raw_env pidfile worker_tmp_dir user group umask initgroups tmp_upload_dir \
    secure_scheme_headers forwarded_allow_ips accesslog disable_redirect_access_to_syslog access_log_format errorlog \
    loglevel capture_output logger_class logconfig logconfig_dict logconfig_json syslog_addr syslog syslog_prefix \
    syslog_facility enable_stdio_inheritance statsd_host dogstatsd_tags statsd_prefix proc_name default_proc_name \
    pythonpath paste on_starting on_reload when_ready pre_fork post_fork post_worker_init worker_int worker_abort \
    pre_exec pre_request post_request child_exit worker_exit nworkers_changed on_exit ssl_context proxy_protocol \
    proxy_allow_ips keyfile certfile ssl_version cert_reqs ca_certs suppress_ragged_eofs do_handshake_on_connect \
    ciphers raw_paste_global_conf permit_obsolete_folding strip_header_spaces permit_unconventional_http_method \
    permit_unconventional_http_version casefold_http_method forwarder_headers header_map";

#[test]
fn every_setting_of_gunicorn_has_an_answer_that_holds() {
    let (page, settings) = (read("docs/gunicorn.md"), read("docs/settings.md"));
    let names: Vec<&str> = GUNICORN.split_whitespace().collect();
    assert_eq!(names.len(), 93);
    for name in &names {
        let begin = format!("| `{name}` | ");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with(&begin)).collect();
        assert_eq!(rows.len(), 1, "{name}");
        let answer = &rows[0][begin.len()..];
        let ours = answer.starts_with('`').then(|| quoted(answer).next().unwrap());
        if let Some(ours) = ours.filter(|ours| !ours.starts_with('-') && !ours.starts_with("App::")) {
            assert!(settings.contains(&format!("| `{ours}` | ")), "{name}: {ours} is no setting");
        }
    }
}

/// The first block of this kind behind a line.
fn block<'a>(page: &'a str, behind: &str, kind: &str) -> &'a str {
    let rest = page.split_once(behind).unwrap_or_else(|| panic!("no {behind:?}")).1;
    let rest = rest.split_once(&format!("```{kind}\n")).expect("a block").1;
    rest.split_once("```").expect("its end").0
}

#[test]
fn the_time_that_a_pod_has_is_enough() {
    let page = read("docs/kubernetes.md");
    let settings = block(&page, "with the settings", "toml");
    let outcome = Program::stock().unbound().config(settings).args("--check-config").run();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let outcome = Program::stock().unbound().config(settings).args("--print-config").run();
    let seconds = |key: &str| -> u64 {
        let value =
            outcome.stdout.lines().find_map(|line| line.strip_prefix(&format!("{key} = \""))).unwrap();
        value.split('s').next().unwrap().parse().unwrap()
    };
    let granted = page.split_once("terminationGracePeriodSeconds: ").unwrap().1;
    let granted: u64 = granted.lines().next().unwrap().parse().unwrap();
    assert!(granted >= seconds("lame_duck") + seconds("graceful_timeout") + 2, "{granted}");
}

/// The words of an instruction in the form of a JSON array.
fn instruction(dockerfile: &str, name: &str) -> Vec<String> {
    let joined = dockerfile.replace("\\\n", " ");
    let line = joined.lines().find(|line| line.starts_with(&format!("{name} "))).expect("it is there");
    let words = &line[line.find('[').expect("an array")..];
    let words: Vec<Value> = serde_json::from_str(words).unwrap_or_else(|why| panic!("{why}: {words}"));
    words.into_iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_image_is_nobodys_and_knows_whether_it_is_well() {
    let dockerfile = read("deploy/Dockerfile");
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let user: u32 = user.split(':').next().unwrap().parse().expect("by its number");
    assert!(user > 0 && dockerfile.contains(&format!("--uid {user} --gid {user} ")));
    assert_eq!(instruction(&dockerfile, "ENTRYPOINT"), ["/usr/local/bin/ferricorn"]);
    let mut program = Program::stock().unbound().workers(1);
    for word in instruction(&dockerfile, "CMD") {
        program = program.arg(if word.starts_with(':') { "127.0.0.1:0".to_owned() } else { word });
    }
    let mut server: Server = program.start();
    let crate::support::Target::Tcp(admin) = server.admin_target() else { panic!("it is TCP") };
    let check = instruction(&dockerfile, "HEALTHCHECK");
    let is_well = || {
        let words =
            check.iter().map(|word| word.replace("127.0.0.1/9000", &format!("127.0.0.1/{}", admin.port())));
        let words: Vec<String> = words.collect();
        Command::new(&words[0]).args(&words[1..]).output().unwrap().status.success()
    };
    eventually(DEADLINE, "it is well", is_well);
    let worker = server.worker();
    server.signal_to(worker, SIGSTOP);
    eventually(DEADLINE, "it is not", || !is_well());
    server.signal_to(worker, SIGCONT);
    eventually(DEADLINE, "it is again", is_well);
    server.stop();
    assert!(!is_well(), "nobody is there");
}

/// Where there is systemd, it has nothing to say against the units.
#[test]
fn the_units_are_as_systemd_would_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let units = ["ferricorn.service", "ferricorn.socket"].map(|name| {
        let text = read(&format!("deploy/{name}"));
        let program = "/usr/local/bin/ferricorn";
        assert!(name.ends_with("socket") || text.contains(program));
        let path = dir.path().join(name);
        fs::write(&path, text.replace(program, env!("CARGO_BIN_EXE_ferricorn"))).unwrap();
        path
    });
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg("--man=no").args(&units).output()
    else {
        eprintln!("systemd-analyze is not here");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    // It looks at whatever these depend on, too.
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("ferricorn")).collect();
    assert!(about_ours.is_empty(), "{about_ours:#?}");
}

/// What bash offers behind these words.
fn offered(folder: &Path, words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "source {}/ferricorn.bash; COMP_WORDS=({}); COMP_CWORD={}; _ferricorn ferricorn; echo \"${{COMPREPLY[*]}}\"",
        folder.display(),
        quoted.join(" "),
        words.len() - 1,
    );
    let output = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_manual_and_the_completions_have_all_flags_and_commands() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["ferricorn", "my-server"] {
        let outcome = Program::example("manual").unbound().args(name).arg(folder).run();
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        for file in ["NAME.1", "NAME-ctl.1", "NAME.bash", "_NAME", "NAME.fish"] {
            let text = fs::read_to_string(folder.join(file.replace("NAME", name))).unwrap();
            assert!(text.contains(name) || text.contains(&name.replace('-', "\\-")), "{name} {file}");
        }
    }
    for (words, wanted) in [
        (["ferricorn", "--graceful-t"].as_slice(), "--graceful-timeout"),
        (&["ferricorn", "c"], "ctl"),
        (&["ferricorn", "ctl", "rel"], "reload"),
        (&["ferricorn", "ctl", "reload", "--w"], "--wait"),
    ] {
        let offered = offered(folder, words);
        assert!(offered.split_whitespace().any(|word| word == wanted), "{words:?}: {offered}");
    }
    let page = |name: &str| fs::read_to_string(folder.join(name)).unwrap().replace('\\', "");
    let help = Program::stock().unbound().args("--help").run().stdout;
    // Other names of the same are in help alone.
    let mut parts = help.split("[alias");
    let first = parts.next().unwrap_or_default().to_owned();
    let help = parts.fold(first, |help, part| help + part.split_once(']').expect("its end").1);
    let flags: Vec<&str> = help
        .split_whitespace()
        .filter(|word| word.starts_with("--"))
        .map(|word| word.trim_end_matches(|last: char| !last.is_ascii_alphanumeric()))
        .map(|word| word.split(['[', '=']).next().unwrap())
        .collect();
    assert!(flags.len() > 60, "{flags:?}");
    for flag in flags {
        assert!(page("ferricorn.1").contains(flag), "{flag}");
    }
    for command in ["RELOAD", "SCALE", "LOGLEVEL"] {
        assert!(page("ferricorn-ctl.1").contains(&format!("COMMAND {command}")), "{command}");
    }
}
