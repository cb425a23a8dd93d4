//! `ferricorn ctl`: asks a running server over its control socket, shows what it answers, and turns the outcome into an exit
//! code. docs/control.md is its page. Not here: who may ask, and what is done (admin, master).

mod client;
mod show;
mod top;

use crate::config::{AppKind, Source, Stop};
use clap::{Arg, ArgAction, ArgMatches, Command};
use client::{Client, Trouble};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// The word that stands for all this on the command line.
pub(crate) const WORD: &str = "ctl";

const DONE: u8 = 0;
const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const NO_SERVER: u8 = 3;
const UNKNOWN: u8 = 4;
const FORBIDDEN: u8 = 5;

const EXIT_CODES: &str = "Exit codes: 0 done, or begun where nobody waits; 1 refused, or it failed; 2 the command or the settings; \
                          3 no server listens; 4 the outcome is not known; 5 not allowed.";

/// Runs one command; `arguments` are those behind `ctl`.
pub(crate) fn run(kind: AppKind, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let (mut source, matches) = match Source::with_commands(kind, arguments, environment.collect(), command())
    {
        Ok(read) => read,
        Err(Stop::Help(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Stop::Error(error)) => return fail(USAGE, &error.to_string()),
    };
    if let Err(error) = source.enter_folder() {
        return fail(USAGE, &error.to_string());
    }
    let Some((name, wanted)) = matches.subcommand() else { return fail(USAGE, "a command is missing") };
    let client = Client::new(source, wanted.get_one::<String>("socket").map(Into::into));
    let is_json = wanted.get_flag("json");
    let done = if name == "top" {
        let every = wanted.get_one::<f64>("interval").copied().unwrap_or(1.0);
        top::run(&client, Duration::from_secs_f64(every), wanted.get_flag("once"), is_json)
    } else {
        request(name, wanted).map_err(Trouble::Usage).and_then(|request| {
            let waits = request["wait"] == true;
            let limit = wanted
                .try_get_one::<f64>("timeout")
                .ok()
                .flatten()
                .map(|time| Duration::from_secs_f64(*time));
            obey(&client, &request, waits, limit, is_json)
        })
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => report(&trouble, is_json),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("ferricorn ctl: {message}");
    ExitCode::from(code)
}

fn report(trouble: &Trouble, is_json: bool) -> ExitCode {
    let (code, outcome, reason) = match trouble {
        Trouble::Usage(reason) => (USAGE, "invalid", reason),
        Trouble::NoServer(reason) => (NO_SERVER, "no_server", reason),
        Trouble::Lost(reason) => (UNKNOWN, "lost", reason),
        Trouble::Forbidden(reason) => (FORBIDDEN, "forbidden", reason),
    };
    if is_json {
        say(&format!("{}\n", json!({ "outcome": outcome, "reason": reason })));
    }
    fail(code, reason)
}

/// Whoever reads may have left.
fn say(text: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Asks, shows what comes, and returns the exit code.
fn obey(
    client: &Client,
    request: &Value,
    waits: bool,
    limit: Option<Duration>,
    is_json: bool,
) -> Result<u8, Trouble> {
    let outcome = client.ask(request, limit, |line| {
        if is_json {
            say(&format!("{line}\n"));
        } else if let Some(text) = show::progress(line) {
            eprintln!("{text}");
        }
    })?;
    let ended = match (request["wish"].as_str(), outcome["outcome"].as_str()) {
        (Some("upgrade"), Some("done")) if waits => client.wait_for_another(&outcome),
        (Some("stop"), Some("accepted")) if waits => client.wait_for_the_end(&outcome, limit),
        (_, _) => Ok(outcome),
    }?;
    let is_good = code(&ended) == DONE;
    if is_json {
        say(&format!("{ended}\n"));
    } else if is_good {
        say(&show::answer(&ended));
    }
    Ok(if is_good { DONE } else { refusal(&ended) })
}

fn code(outcome: &Value) -> u8 {
    match outcome["outcome"].as_str() {
        Some("done" | "accepted") => DONE,
        Some("refused") => REFUSED,
        Some("forbidden") => FORBIDDEN,
        Some("invalid") => USAGE,
        Some(_) | None => UNKNOWN,
    }
}

/// Says why, and returns the exit code.
fn refusal(outcome: &Value) -> u8 {
    let code = code(outcome);
    // Several things may be wrong with a file, each in a line of its own.
    let reason = outcome["reason"].as_str().unwrap_or("no reason was given");
    fail(code, &reason.lines().map(show::plain).collect::<Vec<_>>().join("\n"));
    code
}

/// The wish as it goes over the socket.
fn request(name: &str, wanted: &ArgMatches) -> Result<Value, String> {
    let flag = |name| wanted.try_get_one::<bool>(name).ok().flatten() == Some(&true);
    let word = |name| wanted.try_get_one::<String>(name).ok().flatten().map(String::as_str);
    let mut request = json!({ "wish": name });
    if flag("wait") {
        request["wait"] = true.into();
    }
    match (name, word("what")) {
        ("scale", Some(number)) => {
            let (key, digits) = match number.split_at_checked(1) {
                Some(("+", digits)) => ("up", digits),
                Some(("-", digits)) => ("down", digits),
                Some(_) | None => ("to", number),
            };
            let count = digits.parse::<u32>().ok().filter(|count| key == "to" || *count > 0);
            request[key] = count.ok_or("scale: allowed: N, +N or -N")?.into();
        }
        ("recycle", Some("all")) => request["all"] = true.into(),
        ("recycle", Some(slot)) => {
            request["slot"] =
                slot.parse::<u32>().map_err(|_| "recycle: allowed: a slot's number, or all")?.into();
        }
        ("flush", Some(tag)) => request["tag"] = tag.into(),
        ("flush", None) if flag("all") => request["all"] = true.into(),
        ("flush", None) => return Err("flush: a TAG, or --all".to_owned()),
        ("loglevel", Some(level)) => {
            // As the setting has them.
            let known = match level {
                "warning" => "warn",
                "critical" => "error",
                other => other,
            };
            request["level"] = known.into();
        }
        ("stop", None) if flag("now") => request["now"] = true.into(),
        (_, _) => {}
    }
    Ok(request)
}

/// All that can be asked.
pub(crate) fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let seconds = |name: &'static str, help: &'static str| {
        let above_zero = |text: &str| match text.trim_end_matches('s').parse::<f64>() {
            Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(seconds),
            Ok(_) | Err(_) => Err("allowed: seconds, from 0.01 to 86400"),
        };
        Arg::new(name).long(name).value_name("SECONDS").value_parser(above_zero).help(help)
    };
    let wait = || {
        flag("wait", "Wait until it is done, show how far it is, and say in the exit code how it came out.")
    };
    let limit = || {
        seconds("timeout", "Wait no longer than this, with --wait; the server goes on. [default: no limit]")
    };
    let what = |name: &'static str| Arg::new("what").value_name(name);
    let waiting = |command: Command| command.arg(wait()).arg(limit());
    let of = |name: &'static str, about: &'static str| Command::new(name).about(about);
    let commands = [
        of("status", "What runs: the server, its workers, their requests, its last deaths."),
        of("top", "A live view of rates and workers, until Ctrl-C.")
            .arg(flag("once", "Show it once, after one interval, for scripts."))
            .arg(seconds("interval", "Between two looks. [default: 1]")),
        waiting(of("reload", "Read the settings again and put them to trial, as HUP does.")),
        waiting(of("upgrade", "Start the binary anew and hand the server to it, as USR2 does.")),
        waiting(
            of("scale", "Change how many workers there should be.").arg(
                what("N|+N|-N")
                    .required(true)
                    .allow_hyphen_values(true)
                    .help("So many, so many more, or so many less."),
            ),
        ),
        waiting(
            of("recycle", "Put new workers in the places of old ones, which finish what is open.")
                .arg(what("SLOT|all").default_value("all").help("One worker, by its slot, or each in turn.")),
        ),
        waiting(of("stop", "Stop the server after what is open, as TERM does."))
            .arg(flag("now", "At once, as QUIT does.")),
        of("crashes", "The last deaths of workers, with the requests that each cost."),
        of("flush", "Have no worker serve any more what was cached with a tag.")
            .arg(what("TAG").help("The tag."))
            .arg(flag("all", "Everything in every cache.").conflicts_with("what")),
        of("reopen", "Open the logs anew by their names, as USR1 does."),
        of("loglevel", "Change what is logged, until the next reload.").arg(
            what("LEVEL")
                .required(true)
                .help("trace, debug, info, warning, error or critical.")
                .value_parser(["trace", "debug", "info", "warning", "error", "critical"]),
        ),
        of("config", "The settings in force and where each comes from; secrets are masked."),
    ];
    Command::new("ctl")
        .bin_name("ferricorn ctl")
        .about("Controls a running server, which is found by the same config file and flags that it was started with.")
        .no_binary_name(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .after_help(EXIT_CODES)
        .arg(flag("json", "Print what the server answers, a JSON document a line.").global(true))
        .arg(Arg::new("socket").long("socket").value_name("PATH").global(true)
            .help("The control socket, in place of the one that the settings name."))
        .subcommands(commands)
}
