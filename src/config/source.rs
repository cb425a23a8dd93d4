//! Where settings come from, and who wins: defaults < file < environment < command line. Not here: what they are.

use super::app::{self, AppType};
use super::error::{Error, Problem};
use super::file;
use super::table::{SETTINGS, Setting, setting};
use super::values::{Raw, quoted};
use super::{DatabaseUrl, Environment, Origin, Settings};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Options in the environment, as they would stand on the command line.
const ARGUMENTS: &str = "FERRICORN_CMD_ARGS";
const DATABASE_URL: &str = "FERRICORN_DATABASE_URL";

/// Whose app is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppKind {
    /// What the file's `[[route]]` tables declare.
    Stock,
    /// The program's own; `[[route]]` would do nothing, and is refused.
    Own,
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Serve,
    CheckConfig,
    PrintConfig,
}

/// Why nothing is served.
#[derive(Debug)]
pub enum Stop {
    /// Help or the version, for the standard output; exit code 0.
    Help(String),
    /// Exit code 2.
    Error(Error),
}

/// The command line and the environment as they were at start; the file is read anew each time.
#[derive(Clone, Debug)]
pub struct Source {
    kind: AppKind,
    app: Option<AppType>,
    config: Option<PathBuf>,
    /// In place of what is in the file.
    text: Option<String>,
    /// In ascending rank.
    flags: Vec<(&'static str, Raw, Origin)>,
    environment: Environment,
}

impl Source {
    /// Of this process.
    ///
    /// # Errors
    /// When the command line cannot be read, or asks for help.
    pub fn from_env(kind: AppKind) -> Result<(Source, Mode), Stop> {
        // Variables that are no text cannot be meant.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Source::new(kind, std::env::args_os().skip(1), environment.collect())
    }

    /// Of the given arguments (without the program's name) and environment.
    ///
    /// # Errors
    /// As [`Source::from_env`].
    pub fn new(
        kind: AppKind,
        arguments: impl IntoIterator<Item = OsString>,
        environment: Environment,
    ) -> Result<(Source, Mode), Stop> {
        let mut source = Source { kind, app: None, config: None, text: None, flags: Vec::new(), environment };
        let mut mode = Mode::Serve;
        if let Some(line) = source.variable(ARGUMENTS) {
            let words = split(&line).ok_or_else(|| stop(format!("{ARGUMENTS}: a quote is not closed")))?;
            let words = words.into_iter().map(OsString::from);
            source.add(words, &mut mode, |flag| Origin::Environment(format!("{ARGUMENTS} --{flag}")))?;
        }
        if let Some(url) = source.variable(DATABASE_URL) {
            source.flags.push(("database.url", Raw::Text(url), Origin::Environment(DATABASE_URL.into())));
        }
        source.add(arguments, &mut mode, |flag| Origin::Flag(format!("--{flag}")))?;
        Ok((source, mode))
    }

    /// Of a command line that names a server, by the flags that it was started with, and what is asked of it: one of the
    /// subcommands of `commands`.
    ///
    /// # Errors
    /// As [`Source::from_env`].
    pub(crate) fn with_commands(
        kind: AppKind,
        arguments: impl IntoIterator<Item = OsString>,
        environment: Environment,
        commands: Command,
    ) -> Result<(Source, ArgMatches), Stop> {
        let (mut source, mut mode) = Source::new(kind, [], environment)?;
        let matches = with_settings(commands).try_get_matches_from(arguments).map_err(not_understood)?;
        source.take(&matches, &mut mode, |flag| Origin::Flag(format!("--{flag}")));
        Ok((source, matches))
    }

    /// Of a text, as it would stand in a file.
    pub(crate) fn of_text(kind: AppKind, text: String, environment: Environment) -> Source {
        let config = Some(PathBuf::from("settings"));
        Source { kind, app: None, config, text: Some(text), flags: Vec::new(), environment }
    }

    /// What the file's `[app]` table is to be read as; without a type there may be none.
    pub(crate) fn declare_app(&mut self, app: Option<AppType>) {
        self.app = app;
    }

    /// An empty variable counts as none.
    fn variable(&self, name: &str) -> Option<String> {
        self.environment.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn add(
        &mut self,
        arguments: impl IntoIterator<Item = OsString>,
        mode: &mut Mode,
        origin: impl Fn(&str) -> Origin,
    ) -> Result<(), Stop> {
        let matches = command().try_get_matches_from(arguments).map_err(not_understood)?;
        self.take(&matches, mode, origin);
        Ok(())
    }

    fn take(&mut self, matches: &ArgMatches, mode: &mut Mode, origin: impl Fn(&str) -> Origin) {
        if let Some(path) = matches.get_one::<PathBuf>("config") {
            self.config = Some(path.clone());
        }
        for (flag, asked) in [("check-config", Mode::CheckConfig), ("print-config", Mode::PrintConfig)] {
            if matches.try_get_one::<bool>(flag).ok().flatten() == Some(&true) {
                *mode = asked;
            }
        }
        for setting in SETTINGS {
            self.flags
                .extend(value(setting, matches).map(|raw| (setting.key, raw, origin(setting.flags[0]))));
        }
    }

    /// Goes to the folder that `chdir` names, if any, once, before anything relative is looked at. The config file, which
    /// is named from where the server was started, is read again later and so becomes absolute.
    ///
    /// # Errors
    /// When the folder cannot be entered. What else is wrong is for [`Source::read`] to say.
    pub(crate) fn enter_folder(&mut self) -> Result<(), Error> {
        let settings = self.read_some(&["chdir"]);
        let Some(folder) = &settings.chdir else { return Ok(()) };
        let entered = match &mut self.config {
            Some(config) => std::path::absolute(&*config).map(|path| *config = path),
            None => Ok(()),
        };
        entered.and_then(|()| std::env::set_current_dir(folder)).map_err(|error| {
            let allowed = format!("a folder that can be entered ({error})");
            Error::new(vec![settings.problem("chdir", &quoted(&folder.display().to_string()), &allowed)])
        })
    }

    /// These settings alone, as far as they can be read: whatever else is wrong is for [`Source::read`] to say.
    pub(crate) fn read_some(&self, keys: &[&str]) -> Settings {
        let mut settings = Settings::unresolved();
        let text = self.config.as_ref().and_then(|path| Some((path, file::load(path).ok()?)));
        let contents = text.and_then(|(path, text)| {
            let read = file::read_what_can_be(path, &text, &self.environment, self.app).ok()?;
            Some((path, read.0))
        });
        let mut put = |key, raw: &Raw, origin| put(&mut settings, key, raw, origin, &mut Vec::new());
        if let Some((path, contents)) = contents {
            for (key, raw, line) in contents.values.iter().filter(|(key, _, _)| keys.contains(key)) {
                put(*key, raw, Origin::File(path.clone(), *line));
            }
        }
        for (key, raw, origin) in self.flags.iter().filter(|(key, _, _)| keys.contains(key)) {
            put(*key, raw, origin.clone());
        }
        settings
    }

    /// Whether the file, the environment or the command line has this setting.
    pub(crate) fn names(&self, key: &str) -> bool {
        !matches!(self.read_some(&[key]).origins.get(key), None | Some(Origin::Default))
    }

    /// The config file, if one was named.
    pub fn config_file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Reads the file and puts everything together: at start, and again at each reload.
    ///
    /// # Errors
    /// With all that is wrong, each with its place.
    pub fn read(&self) -> Result<Settings, Error> {
        let mut settings = Settings::unresolved();
        let mut problems = Vec::new();
        let mut app = None;
        if let Some(path) = &self.config {
            let text = self.text.clone().map_or_else(|| file::load(path), Ok);
            let text = text.map_err(|what| Error::new(vec![file::unread(path, &what)]))?;
            let contents = file::read(path, &text, &self.environment, self.app).map_err(Error::new)?;
            settings.file_sets_anything =
                !contents.values.is_empty() || !contents.routes.is_empty() || contents.app.is_some();
            app = contents.app;
            for (key, raw, line) in contents.values {
                put(&mut settings, key, &raw, Origin::File(path.clone(), line), &mut problems);
            }
            if let (AppKind::Own, Some(route)) = (self.kind, contents.routes.first()) {
                let message = "route: this program brings its own app; [[route]] is for the stock ferricorn";
                problems.push(Problem::new(format!("{}: {message}", route.place)));
            }
            settings.routes = contents.routes;
        }
        for (key, raw, origin) in &self.flags {
            put(&mut settings, key, raw, origin.clone(), &mut problems);
        }
        match (app, self.app) {
            (Some(app), _) => settings.app = app,
            (None, Some(declared)) => match app::without_table(declared, self.config_file()) {
                Ok(app) => settings.app = app,
                Err(what) => problems.push(Problem::new(what)),
            },
            (None, None) => {}
        }
        settings.resolve(&mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(Error::new(problems)) }
    }
}

fn stop(message: String) -> Stop {
    Stop::Error(Error::new(vec![Problem::new(message)]))
}

fn put(settings: &mut Settings, key: &'static str, raw: &Raw, origin: Origin, problems: &mut Vec<Problem>) {
    let setting = setting(key).expect("only keys of the table are read");
    if !(setting.set)(settings, raw) {
        let given =
            if setting.is_secret() { "a value that is not shown here".to_owned() } else { raw.to_string() };
        problems.push(Problem::new(format!(
            "{}: got {given}; allowed: {}",
            origin.subject(key),
            setting.allowed
        )));
    }
    let in_ps = match &origin {
        Origin::Flag(_) => true,
        Origin::Environment(name) => name.starts_with(ARGUMENTS),
        Origin::Default | Origin::File(..) => false,
    };
    let has_password = |url: &Option<DatabaseUrl>| url.as_ref().is_some_and(DatabaseUrl::has_password);
    let is_shown = match setting.key {
        "database.url" => has_password(&settings.database.url),
        "cache.notify_url" => has_password(&settings.cache.notify_url),
        _ => false,
    };
    if in_ps && is_shown {
        settings.warnings.push(
            "a password was given in a flag, where ps shows it; \
             use FERRICORN_DATABASE_URL, or ${NAME} or file:PATH in the config file"
                .into(),
        );
    }
    settings.origins.insert(setting.key, origin);
}

fn value(setting: &Setting, matches: &ArgMatches) -> Option<Raw> {
    let mut values = matches.get_many::<String>(setting.key)?.cloned();
    if setting.is_given_often() {
        Some(Raw::Text(values.collect::<Vec<_>>().join(",")))
    } else {
        values.next_back().map(Raw::Text)
    }
}

fn not_understood(error: clap::Error) -> Stop {
    let text = error.render().to_string();
    if error.use_stderr() {
        stop(text.trim_end().trim_start_matches("error: ").to_owned())
    } else {
        Stop::Help(text)
    }
}

/// Commands behind the flags by which a server is started, which name it.
pub(crate) fn with_settings(commands: Command) -> Command {
    let is_setting = |arg: &Arg| SETTINGS.iter().any(|setting| arg.get_id() == setting.key);
    add_settings(commands).mut_args(|arg| if is_setting(&arg) { arg.hide(true) } else { arg })
}

/// The command line, read off the table.
pub(crate) fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).overrides_with(name).help(help)
    };
    let command = Command::new("ferricorn")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A pre-fork application server.")
        .no_binary_name(true)
        .args_override_self(true)
        .after_help(
            "Options outrank FERRICORN_CMD_ARGS and FERRICORN_DATABASE_URL, which outrank the file, which outranks defaults.",
        )
        .arg(flag("check-config", "Check the settings, and exit."))
        .arg(flag("print-config", "Print the settings in force and where each comes from, and exit."));
    add_settings(command)
}

/// The flags by which a server is started.
fn add_settings(command: Command) -> Command {
    let config = Arg::new("config").short('c').long("config").value_name("FILE").action(ArgAction::Set);
    let config = config.value_parser(clap::value_parser!(PathBuf)).help("The config file, in TOML.");
    let mut command = command.arg(config);
    for setting in SETTINGS {
        let action = if setting.is_given_often() { ArgAction::Append } else { ArgAction::Set };
        let mut arg = Arg::new(setting.key)
            .long(setting.flags[0])
            .visible_aliases(setting.flags[1..].iter().copied())
            .value_name("VALUE")
            .action(action)
            .allow_hyphen_values(true)
            .help(format!("{} Allowed: {}. [default: {}]", setting.about, setting.allowed, setting.default));
        if setting.is_switch() {
            arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
        }
        if let Some(short) = setting.short {
            arg = arg.short(short);
        }
        command = command.arg(arg);
    }
    command
}

/// Splits as a shell would: blanks part words, quotes and backslashes keep them together. `None`: a quote is left open.
fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '\'' => break,
                        quoted => word.push(quoted),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '"' => break,
                        '\\' => word.push(characters.next()?),
                        quoted => word.push(quoted),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(characters.next()?),
            blank if blank.is_whitespace() => words.extend(word.take()),
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn arguments_in_the_environment_are_split_as_a_shell_does() {
        for (line, words) in [
            ("", vec![]),
            ("  -w 2\t--name=a ", vec!["-w", "2", "--name=a"]),
            ("-n 'a \"b' \"c \\\" d\" e\\ f ''", vec!["-n", "a \"b", "c \" d", "e f", ""]),
        ] {
            assert_eq!(split(line).unwrap(), words);
        }
        assert_eq!(split("'open"), None);
        assert_eq!(split("\"open\\"), None);
    }
}
