//! Which part may name which: the table of the architecture, held against the `use` lines and paths of src/.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A part of the crate, the parts that it may name, and the outside crates that it may name.
struct Part {
    name: &'static str,
    parts: &'static [&'static str],
    crates: &'static [&'static str],
}

const TABLE: [Part; 11] = [
    Part { name: "config", parts: &[], crates: &["clap", "log", "serde", "serde_ignored", "strsim", "toml"] },
    Part { name: "scoreboard", parts: &[], crates: &["log", "nix", "siphasher"] },
    Part {
        name: "logging",
        parts: &["config"],
        crates: &["log", "nix", "serde_json", "signal_hook", "time"],
    },
    Part {
        name: "app",
        parts: &["config", "health", "scoreboard"],
        crates: &[
            "axum",
            "bytes",
            "form_urlencoded",
            "http",
            "http_body",
            "http_body_util",
            "httpdate",
            "log",
            "lru",
            "matchit",
            "minijinja",
            "nix",
            "percent_encoding",
            "pin_project_lite",
            "postgres",
            "r2d2",
            "r2d2_postgres",
            "regex",
            "rusqlite",
            "rustix",
            "scheduled_thread_pool",
            "serde",
            "serde_json",
            "sha2",
            "siphasher",
            "slab",
            "subtle",
            "time",
            "tokio",
            "tokio_rustls",
            "tower",
            "tower_http",
        ],
    },
    Part {
        name: "worker",
        parts: &["app", "config", "logging", "scoreboard"],
        crates: &[
            "axum",
            "bytes",
            "h2",
            "http",
            "http_body",
            "http_body_util",
            "hyper",
            "hyper_util",
            "itoa",
            "log",
            "memchr",
            "nix",
            "pin_project_lite",
            "ring",
            // In tests: what the access log calls JSON is some.
            "serde_json",
            "signal_hook",
            "slab",
            "time",
            "tokio",
            "tokio_rustls",
            "tower",
        ],
    },
    Part {
        name: "testing",
        parts: &["app", "config", "scoreboard", "worker"],
        crates: &[
            "bytes",
            "http",
            "http_body",
            "http_body_util",
            "nix",
            "serde",
            "serde_json",
            "tokio",
            "tower",
        ],
    },
    Part { name: "control", parts: &[], crates: &["log"] },
    Part { name: "health", parts: &["scoreboard"], crates: &["serde_json"] },
    Part { name: "ctl", parts: &["config"], crates: &["clap", "serde_json"] },
    Part {
        name: "admin",
        parts: &["config", "control", "health", "logging", "scoreboard"],
        crates: &[
            "base64",
            "bytes",
            "http",
            "http_body_util",
            "hyper",
            "hyper_util",
            "log",
            "nix",
            "serde_json",
            "sha2",
            "tokio",
        ],
    },
    Part {
        name: "master",
        parts: &["config", "control", "logging", "scoreboard"],
        crates: &["log", "nix", "signal_hook"],
    },
];

/// The arbiter is stricter than the folder that it lives in.
const ARBITER: Part = Part { name: "master/arbiter", parts: &["config"], crates: &[] };

#[test]
fn no_part_names_another_against_the_arrows() {
    let outside = dependencies();
    let names: Vec<&str> = TABLE.iter().map(|part| part.name).collect();
    let mut wrong = Vec::new();
    for part in TABLE.iter().chain([&ARBITER]) {
        let files = sources(part.name);
        assert!(!files.is_empty(), "src/{} is gone: mend the table", part.name);
        for file in files {
            let code = production_code(&fs::read_to_string(&file).unwrap());
            let named = |prefix: &str, name: &str| mentions(&code, &format!("{prefix}{name}"));
            for other in names.iter().filter(|other| **other != part.name.split('/').next().unwrap()) {
                if named("crate::", other) && !part.parts.contains(other) {
                    wrong.push(format!("{} names {other}", file.display()));
                }
            }
            for krate in outside.iter().filter(|krate| !part.crates.contains(&krate.as_str())) {
                if mentions(&code, &format!("{krate}::")) || mentions(&code, &format!("use {krate};")) {
                    wrong.push(format!("{} names the crate {krate}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "against the table:\n{}", wrong.join("\n"));
}

#[test]
fn nobody_but_the_crate_page_and_serve_knows_both_master_and_worker() {
    for file in sources("") {
        let code = production_code(&fs::read_to_string(&file).unwrap());
        let both = ["master", "worker"].iter().all(|part| mentions(&code, &format!("crate::{part}")));
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(!both || ["serve.rs", "lib.rs"].contains(&name.as_str()), "{} names both", file.display());
    }
}

#[test]
fn unsafe_code_is_where_it_may_be() {
    const MAY: [&str; 3] = ["master/listener.rs", "master/process.rs", "scoreboard/"];
    for file in sources("") {
        let code = production_code(&fs::read_to_string(&file).unwrap());
        let place = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let may = MAY.iter().any(|place_of_unsafe| place.starts_with(place_of_unsafe));
        assert!(may || !mentions(&code, "unsafe {"), "{place} has unsafe code");
    }
}

/// A clock that somebody can set is for telling the time to people, also that of a file; all waiting is by one that only goes on.
#[test]
fn nothing_is_timed_by_the_wall_clock() {
    const TELL: [&str; 5] = [
        "admin/history.rs",
        "app/response_cache/date.rs",
        "app/routes/files.rs",
        "logging/mod.rs",
        "worker/tls/certificate.rs",
    ];
    for file in sources("") {
        let code = production_code(&fs::read_to_string(&file).unwrap());
        let place = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let uses = ["SystemTime", "UtcDateTime", "now_utc", "CLOCK_REALTIME"]
            .iter()
            .any(|name| mentions(&code, name));
        assert!(!uses || TELL.contains(&place.as_str()), "{place} asks the wall clock");
    }
}

/// The files of a part: its folder, or the file that it is.
fn sources(part: &str) -> Vec<PathBuf> {
    let path = root().join(part);
    let file = path.with_extension("rs");
    if part.is_empty() || path.is_dir() {
        below(&path)
    } else {
        Vec::from_iter(file.exists().then_some(file))
    }
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries
        .flat_map(|path| match path {
            folder if folder.is_dir() => below(&folder),
            file => Vec::from_iter(file.extension().is_some_and(|kind| kind == "rs").then_some(file)),
        })
        .collect()
}

/// Without comments, strings on comment lines, and the tests, which stand last in a file.
fn production_code(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// True where `word` stands as a whole: not a piece of a longer name, nor inside another path.
fn mentions(code: &str, word: &str) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let bytes = code.as_bytes();
    code.match_indices(word).any(|(start, _)| {
        let before = start.checked_sub(1).map(|at| bytes[at]);
        let after = bytes.get(start + word.len());
        let begins = before.is_none_or(|byte| !is_name(&byte) && byte != b':');
        begins && (word.ends_with("::") || !after.is_some_and(is_name))
    })
}

/// The names of Cargo.toml's [dependencies], as code writes them.
fn dependencies() -> BTreeSet<String> {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let table: toml::Table = manifest.parse().unwrap();
    table["dependencies"].as_table().unwrap().keys().map(|name| name.replace('-', "_")).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn the_reader_of_sources_finds_what_it_looks_for() {
    let lines = [
        "use crate::app::Error;",
        "// use crate::master;",
        "let a = nix::unistd::fork();",
        "#[cfg(test)]",
        "use crate::worker;",
    ];
    let code = production_code(&lines.join("\n"));
    for (word, found) in [
        ("crate::app", true),
        ("crate::ap", false),
        ("crate::master", false),
        ("crate::worker", false),
        ("nix::", true),
        ("unistd::", false),
        ("hyper::", false),
    ] {
        assert_eq!(mentions(&code, word), found, "{word}");
    }
}
