//! The settings put together from all their sources, every kind of error in full, and the papers that must agree.

use super::table::SETTINGS;
use super::*;
use std::ffi::OsString;
use std::path::Path;

/// Reads a file with this text (as `server.toml`), these arguments and variables.
fn read(text: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.toml");
    std::fs::write(&path, text).unwrap();
    let config = ["-c".into(), path.clone().into_os_string()];
    let arguments: Vec<OsString> = config.into_iter().chain(arguments.iter().map(Into::into)).collect();
    read_with(arguments, variables)
        .map_err(|message| message.replace(&format!("{}/", folder.path().display()), ""))
}

fn read_with(arguments: Vec<OsString>, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let environment = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    match Source::new(AppKind::Stock, arguments, environment) {
        Ok((source, _)) => source.read().map_err(|error| error.to_string()),
        Err(Stop::Error(error)) => Err(error.to_string()),
        Err(Stop::Help(text)) => Err(text),
    }
}

#[test]
fn flags_outrank_the_environment_which_outranks_the_file_which_outranks_defaults() {
    let file = "timeout = 1\nthreads = 5\nkeepalive = '9s'";
    let variables = [("FERRICORN_CMD_ARGS", "--timeout 2 --threads 6")];
    let settings = read(file, &["-t", "3s"], &variables).unwrap();
    assert_eq!(settings.timeout, Duration::from_secs(3));
    assert_eq!(settings.threads, 6);
    assert_eq!(settings.keepalive, Duration::from_secs(9));
    assert_eq!(settings.backlog, 2048);
    let printed = settings.print();
    for line in ["timeout = \"3s\"", "threads = 6", "keepalive = \"9s\"", "backlog = 2048"] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
    for origin in
        ["# flag --timeout", "# environment FERRICORN_CMD_ARGS --threads", "server.toml:3\n", "# default"]
    {
        assert!(printed.contains(origin), "{origin} in {printed}");
    }
}

#[test]
fn every_error_says_where_what_and_what_is_allowed() {
    let duration = "a duration such as 500ms, 30s, 2m or a number of seconds, up to 24h; 0 switches it off";
    for (text, arguments, message) in [
        ("\ntimeout = '30x'", vec![], format!("server.toml:2: timeout: got \"30x\"; allowed: {duration}")),
        ("", vec!["--timeout", "30x"], format!("--timeout: got \"30x\"; allowed: {duration}")),
        (
            "workers = 0",
            vec![],
            "server.toml:1: workers: got 0; allowed: auto, or a number from 1 to max_workers".into(),
        ),
        (
            "workers = 9\nmax_workers = 8",
            vec![],
            "server.toml:1: workers: got 9; allowed: at most max_workers, which is 8".into(),
        ),
        (
            "threads = true",
            vec![],
            "server.toml:1: threads: got true; allowed: a number from 1 to 1024".into(),
        ),
        ("worker = 2", vec![], "server.toml:1: worker: unknown setting; did you mean workers?".into()),
        (
            "pool_size = 2",
            vec![],
            "server.toml:1: pool_size: unknown setting; did you mean database.pool_size?".into(),
        ),
        (
            "[database]\nurls = 'x'",
            vec![],
            "server.toml:2: database.urls: unknown setting; did you mean database.url?".into(),
        ),
        ("[caches]\nttl = 1", vec![], "server.toml:1: caches: unknown setting".into()),
        ("database = 1", vec![], "server.toml:1: database: allowed: a section, begun by [database]".into()),
        (
            "[database]\npool_size = 9",
            vec![],
            "server.toml:2: database.pool_size: got 9; allowed: at most threads, which is 4".into(),
        ),
        (
            "[database]\nurl = 'mysql://a:secret@b'",
            vec![],
            "server.toml:2: database.url: got a value that is not shown here; \
             allowed: sqlite:PATH, or postgres://USER:PASSWORD@HOST/DATABASE; empty: none"
                .into(),
        ),
        (
            "[database]\nsetup = 'x.sql'",
            vec![],
            "server.toml:2: database.setup: got \"x.sql\"; allowed: a script only where database.url is set"
                .into(),
        ),
        (
            "[database]\nurl='sqlite:x'\nsetup = '/nowhere/{backend}.sql'",
            vec![],
            "server.toml:3: database.setup: got \"/nowhere/sqlite.sql\"; \
             allowed: a script that can be read (No such file or directory (os error 2))"
                .into(),
        ),
        (
            "accesslog = 'off'",
            vec![],
            "server.toml:1: accesslog: got \"off\"; allowed: a path, or - for the standard output; empty: off".into(),
        ),
        (
            "accesslog = '/nowhere/a.log'",
            vec![],
            "server.toml:1: accesslog: got \"/nowhere/a.log\"; allowed: a file in a folder that exists"
                .into(),
        ),
        ("", vec!["-p", "/tmp"], "--pid: got \"/tmp\"; allowed: a file in a folder that exists".into()),
        (
            "bind = '${NOWHERE}:1'",
            vec![],
            "server.toml:1: bind: the environment has no variable NOWHERE".into(),
        ),
        (
            "bind = '$x'",
            vec![],
            "server.toml:1: bind: a $ begins ${NAME}; write $$ for the character itself".into(),
        ),
        (
            "bind = 'file:/nowhere'",
            vec![],
            "server.toml:1: bind: file:/nowhere: No such file or directory (os error 2)".into(),
        ),
        ("a b", vec![], "server.toml:1: not TOML: ".into()),
        ("timeout = 1\ntimeout = 2", vec![], "server.toml:2: not TOML: duplicate key".into()),
        ("route = 1", vec![], "server.toml:1: route: allowed: tables, each begun by [[route]]".into()),
        ("[[route]]\npath = '/'", vec![], "server.toml:1: route: needs exactly one of text, sql, template, static, redirect and program; template may have sql".into()),
        ("[[route]]\ntext = ''", vec![], "server.toml:1: route: needs a path".into()),
        (
            "[[route]]\npath='/'\ntext=''\nmethod='GET'",
            vec![],
            "server.toml:4: method: unknown key of a route; did you mean methods?".into(),
        ),
        (
            "[[route]]\npath='/'\nsql=''\nparams={id='int'}",
            vec![],
            "server.toml:4: route.params.id: got \"int\"; allowed: integer, number, text or boolean, or a table with a type".into(),
        ),
        (
            "[[route]]\npath='/'\ntext=''\none=true",
            vec![],
            "server.toml:4: route.one: does not go with text; allowed with template and sql".into(),
        ),
        (
            "[[route]]\npath='/'\ntext=''\nstatus=99",
            vec![],
            "server.toml:4: route.status: got 99; allowed: a status from 200 to 599".into(),
        ),
        ("", vec!["--tiemout", "1"], "unexpected argument '--tiemout' found".into()),
    ] {
        let error = read(text, &arguments, &[]).unwrap_err();
        assert!(error.starts_with(&message), "for {text:?} {arguments:?}\n  got {error}\n  not {message}");
    }
}

#[test]
fn what_does_not_go_with_a_program_is_named_with_its_line() {
    let words =
        "got \"model.py\"; allowed: the program and its arguments, such as [\"python3\", \"model.py\"]";
    for (program, more, message) in [
        ("'model.py'", "", format!("3: route.program: {words}")),
        ("[]", "", "3: route.program: got []; allowed: the program".into()),
        ("['']", "", "3: route.program: got [\"\"]; allowed: the program".into()),
        ("['a', 1]", "", "3: route.program: got [\"a\", 1]; allowed: the program".into()),
        ("['a\\u0000']", "", "3: route.program: got ".into()),
        (
            "['a']",
            "invalidates = 'a'",
            "4: route.invalidates: does not go with program, of which nobody knows when it changes something; \
             allowed with sql and template"
                .into(),
        ),
        ("['a']", "children = 0", "4: route.children: got 0; allowed: a number from 1 to 64".into()),
        ("['a']", "children = 65", "4: route.children: got 65; allowed: a number from 1 to 64".into()),
        ("['a']", "queue = -1", "4: route.queue: got -1; allowed: a number from 0 to 10000".into()),
        ("['a']", "start_timeout = 0", "4: route.start_timeout: got 0; allowed: a duration such as".into()),
        (
            "['a']",
            "one = true",
            "4: route.one: does not go with program; allowed with template and sql".into(),
        ),
        ("['a']", "params = { n = 'int' }", "4: route.params.n: got \"int\"; allowed: integer".into()),
        ("['a']", "text = 'a'", "1: route: needs exactly one of text, sql,".into()),
    ] {
        let program = program.replace('\'', "\"");
        let text = format!("[[route]]\npath = '/'\nprogram = {program}\n{more}\n");
        let error = read(&text, &[], &[]).unwrap_err();
        assert!(
            error.starts_with(&format!("server.toml:{message}")),
            "{text}\n  got {error}\n  not {message}"
        );
    }
    let text = "[[route]]\npath = '/'\nprogram = ['a', '']\nchildren = 64\nqueue = 0\nstart_timeout = '1m'\n";
    let routes =
        [text, "[[route]]\npath = '/'\nprogram = ['a']\n"].map(|text| read(text, &[], &[]).unwrap().routes);
    let limits = routes.map(|routes| match &routes[0].kind {
        Kind::Program(program) => (program.children, program.queue, program.start_timeout.as_secs()),
        other => panic!("{other:?}"),
    });
    assert_eq!(limits, [(64, 0, 60), (1, 64, 30)]);
}

#[test]
fn all_problems_of_a_file_are_named_at_once() {
    let error = read("timeout = 'x'\nthreads = 0\nworkers = 2", &[], &[]).unwrap_err();
    let places: Vec<&str> = error.lines().map(|line| line.split(": got").next().unwrap()).collect();
    assert_eq!(places, ["server.toml:1: timeout", "server.toml:2: threads"]);
}

#[test]
fn a_file_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("binary");
    std::fs::write(&binary, b"a = \xff").unwrap();
    for (path, message) in [
        (folder.path().join("missing"), "No such file or directory (os error 2)"),
        (folder.path().to_owned(), "is a folder; allowed: a TOML file"),
        (binary, "not UTF-8: the byte at 4 is no text"),
        (Path::new("/dev/null").to_owned(), "allowed: a plain file of at most 1 MiB"),
    ] {
        let error = read_with(vec!["--config".into(), path.clone().into()], &[]).unwrap_err();
        assert_eq!(error, format!("{}: {message}", path.display()));
    }
}

#[test]
fn secrets_come_from_the_environment_or_a_file_and_are_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("url");
    std::fs::write(&secret, "postgres://ann:hush@db/x\n").unwrap();
    let from_file = format!("[database]\nurl = 'file:{}'", secret.display());
    let in_file = "[database]\nurl = 'postgres://ann:${PASSWORD}@db/x'\n";
    for (text, arguments, variables, warns) in [
        (from_file.as_str(), vec![], vec![], false),
        (in_file, vec![], vec![("PASSWORD", "hush")], false),
        ("", vec![], vec![("FERRICORN_DATABASE_URL", "postgres://ann:hush@db/x")], false),
        ("", vec!["--database-url", "postgres://ann:hush@db/x"], vec![], true),
        ("", vec![], vec![("FERRICORN_CMD_ARGS", "--database-url postgres://ann:hush@db/x")], true),
    ] {
        let settings = read(text, &arguments, &variables).unwrap();
        assert_eq!(settings.database.url, Some(DatabaseUrl::Postgres("postgres://ann:hush@db/x".into())));
        assert!(settings.print().contains("url = \"postgres://ann:***@db/x\""));
        assert!(!format!("{settings:?} {}", settings.print()).contains("hush"));
        assert_eq!(!settings.warnings().is_empty(), warns, "{arguments:?} {variables:?}");
    }
    assert_eq!(read("proc_name = 'a$$b'", &[], &[]).unwrap().proc_name, "a$b");
}

#[test]
fn a_setup_script_of_the_file_runs_only_against_the_database_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("setup.sql");
    std::fs::write(&script, "").unwrap();
    let both = format!("[database]\nurl = 'sqlite:a'\nsetup = '{}'", script.display());
    let elsewhere = ["--database-url", "postgres://db/x"];
    let asked = ["--database-url", "postgres://db/x", "--setup", script.to_str().unwrap()];
    for (arguments, runs) in [(&[] as &[&str], true), (&elsewhere, false), (&asked, true)] {
        let settings = read(&both, arguments, &[]).unwrap();
        assert_eq!(settings.database.setup.is_some(), runs, "{arguments:?}");
        assert_eq!(settings.warnings().is_empty(), runs);
    }
}

#[test]
fn lists_come_as_arrays_or_with_commas_and_flags_repeat() {
    for (text, arguments) in [
        ("bind = ['a:1', 'b:2']", vec![]),
        ("bind = 'a:1, b:2'", vec![]),
        ("bind = 'c:3'", vec!["-b", "a:1", "--bind", "b:2"]),
        ("", vec!["--bind=a:1,b:2"]),
    ] {
        let binds = read(text, &arguments, &[]).unwrap().bind;
        assert_eq!(binds.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:1", "b:2"]);
    }
}

#[test]
fn an_app_of_its_own_takes_no_routes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.toml");
    std::fs::write(&path, "[[route]]\npath = '/'\ntext = ''").unwrap();
    let arguments = [OsString::from("-c"), path.clone().into()];
    let (source, _) = Source::new(AppKind::Own, arguments, Environment::new()).unwrap();
    assert_eq!(
        source.read().unwrap_err().to_string(),
        format!(
            "{}:1: route: this program brings its own app; [[route]] is for the stock ferricorn",
            path.display()
        )
    );
}

#[test]
fn modes_help_and_version() {
    let started = |argument: &str| Source::new(AppKind::Stock, [argument.into()], Environment::new());
    assert_eq!(started("--check-config").unwrap().1, Mode::CheckConfig);
    assert_eq!(started("--print-config").unwrap().1, Mode::PrintConfig);
    let Err(Stop::Help(version)) = started("--version") else { panic!("no version") };
    assert_eq!(version, format!("ferricorn {}\n", env!("CARGO_PKG_VERSION")));
    let Err(Stop::Help(help)) = started("--help") else { panic!("no help") };
    for setting in SETTINGS {
        assert!(help.contains(&format!("--{}", setting.flags[0])), "{}", setting.key);
    }
}

#[test]
fn what_is_printed_is_a_config_file_that_says_the_same() {
    let settings = read("threads = 7\n[cache]\nttl = '90s'", &["-b", "[::1]:1,unix:x"], &[]).unwrap();
    let again = read(&settings.print(), &[], &[]).unwrap();
    for setting in SETTINGS {
        assert_eq!((setting.show)(&again), (setting.show)(&settings), "{}", setting.key);
    }
}

#[test]
fn what_does_not_go_with_a_pooler_is_refused() {
    let pooled =
        |more: &str| format!("[database]\nurl = 'postgres://a:hush@b/c'\ntransaction_pooler = true\n{more}");
    let listening = pooled("[cache]\nnotify = true\nnotify_url = 'postgres://a:hush@b/d'\n");
    let settings = read(&listening, &[], &[]).unwrap();
    assert!(settings.print().contains("notify_url = \"postgres://a:***@b/d\""), "{}", settings.print());
    for (text, wanted) in [
        (pooled("max_connections = 50\n"), "database.max_connections: got 50; allowed: 0 with"),
        (
            pooled("[cache]\nnotify = true\n"),
            "cache.notify_url: got \"\"; allowed: the URL of the server itself",
        ),
        (
            "[database]\ntransaction_pooler = true\n".into(),
            "database.transaction_pooler: got true; allowed: false, or",
        ),
        (
            pooled("[cache]\nnotify_url = 'sqlite:a.db'\n"),
            "cache.notify_url: got \"sqlite:a.db\"; allowed: postgres://",
        ),
    ] {
        let error = read(&text, &[], &[]).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

/// Compares a file of this repository with what it should be; with UPDATE_DOCS set, writes it.
fn keep(path: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let is = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(is == wanted, "{} is stale: run the tests once with UPDATE_DOCS=1", path.display());
}

#[test]
fn the_reference_is_the_table() {
    keep("docs/settings.md", &reference());
}

/// What the demo changes: under the commented default, a live line.
const DEMO: [(&str, &str); 3] = [
    ("database.url", "sqlite:conf/demo.db"),
    ("database.setup", "conf/setup.{backend}.sql"),
    ("templates.folder", "conf/templates"),
];

#[test]
fn the_example_file_shows_every_setting_at_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/server.toml");
    let is = std::fs::read_to_string(path).unwrap_or_default();
    let routes = is.find("# The stock app's routes").map_or("", |at| &is[at..]);
    let mut wanted = String::from(
        "# Every setting of Ferricorn, commented out at its default; a line that is not commented out is one that this demo\n\
         # changes. Command-line options outrank this file. Relative paths begin where the server was started.\n\n",
    );
    let mut section = None;
    for setting in SETTINGS {
        if setting.section() != section {
            section = setting.section();
            wanted += &format!("[{}]\n", section.unwrap_or_default());
        }
        wanted += &print::entry(setting);
        if let Some((_, value)) = DEMO.iter().find(|(key, _)| *key == setting.key) {
            wanted += &format!("{} = {}\n", setting.name(), values::quoted(value));
        }
        wanted.push('\n');
    }
    keep("conf/server.toml", &(wanted + routes));
}
