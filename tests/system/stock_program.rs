//! Routes of the stock app that a program answers: what it is asked, what its faults become, and that it changes with a reload.
//! Not here: what holds of every program, by whomever it was started (program.rs).

use crate::support::{
    Connection, DEADLINE, Program, Response, Said, Server, eventually, millis, proc, seconds,
};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL};
use serde_json::json;
use std::fs;
use std::time::Instant;

/// Does what `text` says, and else answers with all that it was asked.
const MODEL: &str = r#"
import json, os, sys, time

if "slow" in sys.argv:
    time.sleep(1000)

def answer(text, question):
    match text:
        case "die":
            os._exit(3)
        case "hang":
            time.sleep(1000)
        case "garbage":
            return b"no JSON"
        case "latin":
            return b'"\xe4"'
        case "two":
            return b"1\n2"
        case "digits":
            return b'{"sum": 12345678901234567890.10}'
        case "fail":
            return b'{"error": "the secret model is gone"}'
        case "refuse":
            return b'{"error": {"status": 422, "detail": "no such word"}}'
        case "teapot":
            return b'{"error": {"status": 418}}'
        case "moved":
            return b'{"error": {"status": 302}}'
        case _:
            return json.dumps({"asked": question, "by": sys.argv[1:], "pid": os.getpid()}).encode()

for line in sys.stdin:
    question = json.loads(line)
    text = question.get("text")
    print("asked", text, file=sys.stderr, flush=True)
    os.write(1, answer(text, question) + b"\n")
"#;

/// A server with these routes, each of which names `model.py`.
fn stock(routes: &str) -> Program {
    // Debian's Python rather than what a developer has put before it, which may take a second to start.
    let path = format!("/usr/bin:/bin:{}", std::env::var("PATH").unwrap_or_default());
    Program::stock().variable("PATH", &path).file("model.py", MODEL).config(routes)
}

/// One route that takes a text, with more keys.
fn score(more: &str) -> String {
    format!(
        "[[route]]\npath = '/score'\nprogram = ['python3', 'model.py', 'first']\nparams = {{ text = 'text' }}\n{more}\n"
    )
}

fn ask(server: &Server, text: &str) -> Response {
    server.get(&format!("/score?text={text}"))
}

/// The pid that the answer names.
#[track_caller]
fn pid(answer: &Response) -> i32 {
    assert_eq!(answer.status, 200, "{}", answer.text());
    i32::try_from(answer.json()["pid"].as_i64().unwrap()).unwrap()
}

/// Sends a question that is not answered soon, and waits until the program has it.
fn begin(server: &Server, text: &str) -> Connection {
    let asked = server.log_with(&format!("asked {text}")).len();
    let mut connection = server.connect();
    connection.send(format!("GET /score?text={text} HTTP/1.1\r\nhost: test\r\n\r\n")).unwrap();
    eventually(DEADLINE, "it is asked", || server.log_with(&format!("asked {text}")).len() > asked);
    connection
}

/// The answer is a problem document of this status, for this path; returns what it says.
#[track_caller]
fn problem(answer: &Response, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.field("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["instance"]), (&json!(status), &json!("/score")), "{problem}");
    assert_eq!(answer.field("retry-after").is_some(), status == 503, "{problem}");
    problem["detail"].as_str().unwrap().to_owned()
}

#[test]
fn a_program_is_asked_with_what_was_declared_and_its_document_is_the_answer() {
    // printf %s open-sesame | sha256sum
    let routes = r#"
[[route]]
path = "/score/{id}"
methods = ["GET", "POST"]
program = ["python3", "model.py", "a b", "$HOME"]
limit_request_body = "1KiB"
[route.params]
id = "integer"
text = { type = "text", max_length = 10, default = "none" }
share = { type = "number", min = 0, max = 1, required = false }
size = { type = "text", enum = ["s", "m"], required = false }
sure = { type = "boolean", required = false }
[[route]]
path = "/plain"
methods = "PUT"
status = 204
program = ["python3", "model.py"]
[[route]]
path = "/secret"
program = ["python3", "model.py"]
params = { text = "text" }
tokens = "sha256:d7ecdf25eaf3deba0f2628771dbdd22d4138ab6cf38f91ed02a2ca0dec7c8ab7"
"#;
    let mut server = stock(routes).workers(1).start();
    let mut client = server.connect();
    let asked = |answer: Response| {
        assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/json")));
        assert_eq!(answer.json()["by"], json!(["a b", "$HOME"]), "there is no shell");
        answer.json()["asked"].clone()
    };
    let none = json!({"id": 7, "text": "none", "share": null, "size": null, "sure": null});
    assert_eq!(asked(client.get("/score/7?undeclared=1").unwrap()), none);
    let all = json!({"id": 7, "text": "k\u{e4}se\n", "share": 0.5, "size": "m", "sure": true});
    let given = "/score/7?text=k%C3%A4se%0A&share=0.5&size=m&sure=true";
    assert_eq!(asked(client.get(given).unwrap()), all);
    let mut post = |kind: &str, body: &str| {
        client.request("POST", "/score/7", &[("content-type", kind)], body.as_bytes()).unwrap()
    };
    let body = r#"{"text": "käse\n", "share": 0.5, "size": "m", "sure": true, "more": [1]}"#;
    assert_eq!(asked(post("application/json", body)), all);
    assert_eq!(
        asked(post("application/x-www-form-urlencoded", "text=k%C3%A4se%0A&share=0.5&size=m&sure=true")),
        all
    );
    assert_eq!(post("application/json", &format!("{{\"x\": \"{}\"}}", "x".repeat(1024))).status, 413);
    assert_eq!(post("text/plain", "text=a").status, 415);

    let wrong = client.get("/score/x?text=longer+than+ten&share=2&size=xl&sure=1").unwrap();
    assert_eq!((wrong.status, wrong.field("content-type")), (400, Some("application/problem+json")));
    let wrong = wrong.json();
    let fields: Vec<&str> =
        wrong["errors"].as_array().unwrap().iter().map(|fault| fault["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["id", "share", "size", "sure", "text"]);
    assert_eq!(client.get("/secret").unwrap().status, 401, "the token is looked at first");

    let head = client.request("HEAD", "/score/7", &[], b"").unwrap();
    assert_eq!((head.status, head.text().as_str()), (200, ""));
    let options = client.request("OPTIONS", "/score/7", &[], b"").unwrap();
    assert_eq!(options.status, 204);
    let deleted = client.request("DELETE", "/score/7", &[], b"").unwrap();
    assert_eq!((deleted.status, deleted.field("content-type")), (405, Some("application/problem+json")));
    for method in ["GET", "HEAD", "POST", "OPTIONS"] {
        assert!(options.has_token("allow", method) && deleted.has_token("allow", method), "{method}");
    }
    let done = client.request("PUT", "/plain", &[], b"").unwrap();
    assert_eq!((done.status, done.text().as_str(), done.field("content-type")), (204, "", None));
    let mut secret = |token: &str, text: &str| {
        let fields = [("authorization", token)];
        client.request("GET", &format!("/secret?text={text}"), &fields, b"").unwrap()
    };
    assert_eq!(secret("Bearer open-sesam", "a").status, 401);
    let opened = secret("Bearer open-sesame", "digits");
    assert_eq!(opened.text(), r#"{"sum": 12345678901234567890.10}"#, "to the last digit");
    assert_eq!(opened.field("cache-control"), Some("private"));
    assert!(server.log_with("program ended").is_empty());
    server.stop();
}

#[test]
fn each_fault_of_a_program_is_a_problem_document_and_costs_nobody_else() {
    let mut server = stock(&score("timeout = '20s'")).workers(1).start();
    for (text, said) in [
        ("die", "exit status: 3"),
        ("garbage", "its line is not JSON"),
        ("latin", "its line is not JSON"),
        ("two", "it said more than it was asked for"),
    ] {
        let before = pid(&ask(&server, "before"));
        assert_eq!(problem(&ask(&server, text), 502), "the program behind this failed", "{text}");
        assert_ne!(pid(&ask(&server, "after")), before, "{text}");
        server.wait_text(said);
    }
    // What a program reports costs it nothing.
    let before = pid(&ask(&server, "before"));
    assert_eq!(problem(&ask(&server, "refuse"), 422), "no such word");
    assert_eq!(problem(&ask(&server, "teapot"), 418), "i'm a teapot");
    assert_eq!(problem(&ask(&server, "fail"), 500), "the answer could not be made", "and no secret");
    server.wait_text("a program reported an error place=server.toml:1 error=\"the secret model is gone\"");
    assert_eq!(problem(&ask(&server, "moved"), 502), "the program behind this failed");
    server.wait_text("it reported an error with the status 302; allowed: 400 to 599");
    assert_eq!(pid(&ask(&server, "after")), before);

    let mut lost = begin(&server, "hang");
    server.signal_to(before, SIGKILL);
    problem(&lost.read().unwrap(), 502);
    assert_ne!(pid(&ask(&server, "after")), before);
    server.stop();
}

/// The pid of a child that answers in time, which one that starts on a busy machine may not.
#[track_caller]
fn started(server: &Server) -> i32 {
    let mut answer = None;
    eventually(DEADLINE, "it answers in time", || {
        answer = Some(ask(server, "a")).filter(|answer| answer.status == 200);
        answer.is_some()
    });
    pid(&answer.unwrap())
}

#[test]
fn one_that_hangs_is_504_in_time_and_the_next_answers() {
    let mut server = stock(&score("timeout = '2s'")).workers(1).args("--request-timeout 100ms").start();
    let hung = started(&server);
    let begin = Instant::now();
    assert_eq!(problem(&ask(&server, "hang"), 504), "the answer took too long");
    let took = begin.elapsed();
    assert!(took >= seconds(2) && took < seconds(15), "{took:?}");
    assert_ne!(started(&server), hung);
    assert!(!proc::is_alive(hung));
    server.stop();
}

#[test]
fn who_waits_for_a_child_in_vain_may_come_again_and_a_full_queue_says_so_at_once() {
    // One that never starts is busy with its first call, and not killed for it.
    let slow = score("timeout = '500ms'\nqueue = 1").replace("first", "slow");
    let mut server = stock(&slow).workers(1).start();
    let mut first = server.connect();
    first.send("GET /score?text=a HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert_eq!(problem(&first.read().unwrap(), 504), "the answer took too long");
    for _ in 0..5 {
        let begin = Instant::now();
        assert_eq!(problem(&ask(&server, "b"), 503), "busy or out of order, try again");
        let took = begin.elapsed();
        assert!(took >= millis(500) && took < seconds(10), "{took:?}");
    }
    assert!(server.log_with("program ended").is_empty());
    server.stop();

    let mut server = stock(&score("timeout = '60s'\nqueue = 0\nchildren = 2")).workers(1).start();
    let (one, other) = (begin(&server, "hang"), begin(&server, "hang"));
    let begin = Instant::now();
    assert_eq!(problem(&ask(&server, "c"), 503), "busy or out of order, try again");
    assert!(begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
    drop((one, other));
    server.stop();
}

#[test]
fn a_reload_changes_the_program_and_its_script_and_refuses_one_that_is_not_there() {
    let mut server = stock(&score("")).workers(1).start();
    let by = |server: &Server| ask(server, "a").json()["by"].clone();
    assert_eq!(by(&server), json!(["first"]));
    let children = proc::children(server.worker());
    assert_eq!(children.len(), 1);
    let file = server.dir().join("server.toml");
    fs::write(&file, format!("# moved\n{}", score("").replace("python3", "./nothing-like-that"))).unwrap();
    server.signal(SIGHUP);
    let refused = server.wait(Said::ReloadRefused);
    let wanted = "server.toml:2: program is \"./nothing-like-that\", which is no file that is there";
    assert!(refused.raw.contains(wanted), "{}", refused.raw);
    assert_eq!(by(&server), json!(["first"]), "the old one serves on");
    assert_eq!(proc::children(server.worker()), children);

    fs::write(&file, score("children = 2").replace("first", "second")).unwrap();
    fs::write(server.dir().join("model.py"), MODEL.replace("\"asked\":", "\"new\": 1, \"asked\":")).unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    server.wait_nobody_left(&children, DEADLINE);
    eventually(DEADLINE, "the old worker has left", || server.workers().len() == 1);
    let answer = ask(&server, "a").json();
    assert_eq!((&answer["by"], &answer["new"]), (&json!(["second"]), &json!(1)));
    eventually(DEADLINE, "both are there", || proc::children(server.worker()).len() == 2);
    let last = proc::children(server.worker());
    server.stop();
    server.wait_nobody_left(&last, DEADLINE);
}

#[test]
fn what_is_kept_is_asked_once() {
    let routes = score("methods = ['GET', 'POST']\ncache = '1h'\ntags = 'words'")
        + "[[route]]\npath = '/words'\nmethods = 'POST'\nsql = 'delete from words'\ninvalidates = 'words'\n\
           [database]\nurl = 'sqlite:words.db'\nsetup = 'setup.sql'\n";
    let server =
        stock(&routes).file("setup.sql", "create table if not exists words (word text)").workers(1).start();
    let mut client = server.connect();
    let asked = |text: &str| server.log_with(&format!("asked {text}")).len();
    let first = client.get("/score?text=oak").unwrap();
    pid(&first);
    let kept = client.get("/score?text=o%61k&more=1").unwrap();
    assert_eq!((&kept.body, kept.field("content-type")), (&first.body, Some("application/json")));
    assert!(kept.field("age").is_some(), "it was kept");
    let etag = kept.field("etag").unwrap();
    let same = client.request("GET", "/score?text=oak", &[("if-none-match", etag)], b"").unwrap();
    assert_eq!((same.status, same.body.len()), (304, 0));
    eventually(DEADLINE, "it was asked once", || asked("oak") == 1);

    // Others' values, other methods, and what is no answer, are nobody else's.
    assert_eq!(client.get("/score?text=elm").unwrap().json()["asked"]["text"], json!("elm"));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(client.request("POST", "/score", &form, b"text=oak").unwrap().status, 200);
    eventually(DEADLINE, "POST asks", || asked("oak") == 2);
    for _ in 0..2 {
        assert_eq!(client.get("/score?text=refuse").unwrap().status, 422);
    }
    eventually(DEADLINE, "a refusal is not kept", || asked("refuse") == 2);

    assert_eq!(client.request("POST", "/words", &form, b"").unwrap().status, 200);
    let anew = client.get("/score?text=oak").unwrap();
    assert_eq!((anew.status, anew.field("age")), (200, None));
    eventually(DEADLINE, "what was invalidated is asked anew", || asked("oak") == 3);
}

#[test]
fn the_check_of_the_settings_looks_for_programs() {
    for (routes, message) in [
        (score(""), None),
        (
            score("").replace("python3", "nothing-like-that"),
            Some("1: program is \"nothing-like-that\", which is in no folder"),
        ),
        (
            score("").replace("python3", "./model.py"),
            Some("1: program is \"./model.py\", which cannot be executed"),
        ),
        (score("invalidates = 'a'"), Some("5: route.invalidates: does not go with program")),
        (score("cache = '1s'\nmethods = 'POST'"), Some("1: cache needs GET among the methods")),
        (score("cache = '1s'\nstatus = 201"), Some("1: cache keeps answers of status 200 alone")),
        (score("status = 301"), Some("1: status is 301; with program it must be within 200 to 299")),
        (score("").replace("/score", "/{id}"), Some("1: the path has {id}, which params does not declare")),
        (score("limit_request_body = '2MiB'"), Some("1: limit_request_body is 2097152; allowed: at most")),
    ] {
        let outcome = stock(&routes).args("--check-config").run();
        assert_eq!(outcome.code, Some(if message.is_some() { 2 } else { 0 }), "{}", outcome.stderr);
        let message = message.map(|message| format!("server.toml:{message}")).unwrap_or_default();
        assert!(outcome.stderr.contains(&message), "{routes}\n{}", outcome.stderr);
    }
}

#[test]
fn the_descriptors_of_children_are_set_aside() {
    let files = |children: u32| {
        let mut server = stock(&score(&format!("children = {children}"))).open_files(300).workers(1).start();
        server.wait_text(&format!("worker_connections lowered from=1000 to={}", 300 - 64 - 8 - 4 * children));
        // All of them have started when the last one was told of; what else was open for that is closed.
        eventually(DEADLINE, "all run", || server.log_with("program started").len() == children as usize);
        let mut client = server.connect();
        assert_eq!(client.get("/score?text=a").unwrap().status, 200);
        let files = proc::open_files(server.worker());
        server.stop();
        files
    };
    assert_eq!(files(11) - files(1), 4 * 10);
}
