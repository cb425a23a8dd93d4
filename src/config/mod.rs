//! The settings of a server: what they are called, where they come from, and whether they hold.
//! Not here: what anybody does with them.

mod app;
mod change;
mod error;
mod file;
mod header_map;
mod http2;
mod log_format;
mod place;
mod print;
mod proxies;
mod route;
mod scheme_headers;
mod source;
mod table;
mod tls;
mod values;
mod web;

#[cfg(test)]
mod tests;

pub(crate) use app::AppType;
pub(crate) use change::{Change, Changes};
pub use error::Error;
pub use header_map::HeaderMap;
pub use http2::{Http2Settings, HttpProtocol};
pub use log_format::{LogAtom, LogFormat};
pub(crate) use place::{ADMIN_SUFFIX, CONTROL_SUFFIX, folders_to_search, plain, runtime_folder, socket_name};
pub use print::reference;
pub use proxies::{ForwardedFields, ProxyProtocol, Trust};
pub use route::{Kind, Page, Param, ParamKind, Program, Query, Route, Scalar, Sql, Token};
pub use scheme_headers::SchemeHeaders;
pub use source::{AppKind, Mode, Source, Stop};
pub(crate) use source::{command, with_settings};
pub(crate) use tls::TlsFiles;
pub use tls::{CertReqs, TlsSettings};
pub(crate) use web::is_all;
pub use web::{CorsSettings, Encodings, SecuritySettings};

use error::Problem;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use table::SETTINGS;

/// Variables by name.
pub type Environment = HashMap<String, String>;

/// Every setting, checked. A duration of zero is one that is switched off. What each means, its unit, its default and what
/// is allowed stand in docs/settings.md and in `--help`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub bind: Vec<Bind>,
    /// In the clear, whatever `bind` speaks.
    pub plain_bind: Vec<Bind>,
    pub backlog: u32,
    pub reuse_port: bool,
    /// `auto` is resolved.
    pub workers: u32,
    pub max_workers: u32,
    pub threads: usize,
    pub blocking_queue: usize,
    pub max_wait: Duration,
    pub worker_connections: usize,
    /// 0: as many as it likes.
    pub limit_client_connections: u64,
    pub timeout: Duration,
    pub request_timeout: Duration,
    pub graceful_timeout: Duration,
    pub boot_timeout: Duration,
    /// Paths, perhaps with queries.
    pub warm_up: Vec<String>,
    pub lame_duck: Duration,
    /// Where workers answer probes themselves; empty: nowhere.
    pub health_path: String,
    pub ready_path: String,
    pub upgrade: Upgrade,
    pub keepalive: Duration,
    /// 0: as many as come.
    pub keepalive_requests: u64,
    pub max_requests: u64,
    pub max_requests_jitter: u64,
    pub max_worker_age: Duration,
    pub max_worker_memory: u64,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    /// Bytes a second; 0: any rate will do.
    pub min_body_rate: u64,
    pub send_timeout: Duration,
    pub limit_request_line: usize,
    pub limit_request_fields: usize,
    pub limit_request_field_size: usize,
    pub limit_request_body: u64,
    pub header_map: HeaderMap,
    /// Whose fields on clients are believed.
    pub forwarded_allow_ips: Trust,
    pub forwarded_fields: ForwardedFields,
    pub secure_scheme_headers: SchemeHeaders,
    /// Empty, or begins with a slash and does not end with one.
    pub root_path: String,
    pub proxy_protocol: ProxyProtocol,
    pub proxy_allow_ips: Trust,
    pub tls: TlsSettings,
    pub handshake_timeout: Duration,
    pub http2: Http2Settings,
    pub pidfile: Option<PathBuf>,
    pub daemon: bool,
    pub chdir: Option<PathBuf>,
    pub umask: Option<u32>,
    /// By name or number, as all accounts here.
    pub user: Option<String>,
    pub group: Option<String>,
    pub socket_mode: Option<u32>,
    pub socket_user: Option<String>,
    pub socket_group: Option<String>,
    pub accesslog: LogTarget,
    pub access_log_format: LogFormat,
    /// In lower case; empty: requests have no id.
    pub request_id_header: String,
    pub errorlog: LogTarget,
    pub loglevel: log::LevelFilter,
    pub log_format: ErrorLogFormat,
    pub proc_name: String,
    pub compress: Encodings,
    /// Of answers whose length is known.
    pub compress_min_size: u64,
    /// As `text/html`, `text/*` or `application/*+json`, in lower case.
    pub compress_types: Vec<String>,
    pub cors: CorsSettings,
    pub security: SecuritySettings,
    pub database: DatabaseSettings,
    pub cache: CacheSettings,
    pub admin: AdminSettings,
    pub templates: TemplateSettings,
    pub routes: Vec<Route>,
    /// Of the app's own.
    pub(crate) app: app::AppSettings,
    /// Where what is not a default comes from.
    pub(crate) origins: BTreeMap<&'static str, Origin>,
    pub(crate) warnings: Vec<String>,
    /// Their number is that of the processors.
    pub(crate) workers_are_auto: bool,
    /// Where it listens in the clear, as the log names it: what the sockets of `plain_bind` have turned out to be.
    pub(crate) plain_places: Vec<String>,
    /// There is a config file, and it has a key or a table.
    pub(crate) file_sets_anything: bool,
}

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File(PathBuf, usize),
    /// The variable, and the flag within it.
    Environment(String),
    Flag(String),
}

impl Origin {
    /// What an error message is about.
    fn subject(&self, key: &str) -> String {
        match self {
            Origin::Default | Origin::File(..) => format!("{self}: {key}"),
            Origin::Environment(name) | Origin::Flag(name) => name.clone(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// What follows when an upgraded server is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// The old master leaves.
    Auto,
    /// Both serve until the operator decides.
    Manual,
}

/// How the error log says things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorLogFormat {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Off,
    Standard,
    File(PathBuf),
}

#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    pub url: Option<DatabaseUrl>,
    pub pool_size: usize,
    /// Of the whole server; 0: no such limit.
    pub max_connections: usize,
    pub pool_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_lifetime: Duration,
    pub statement_timeout: Duration,
    /// The URL is that of a pooler in transaction mode.
    pub transaction_pooler: bool,
    /// The script to run at start, `{backend}` filled in; `None` also where it may not run against this URL.
    pub setup: Option<PathBuf>,
}

/// Where the database is; `Display` masks the password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    Sqlite(PathBuf),
    /// A `postgres://` URL, whole.
    Postgres(String),
}

#[derive(Clone, Debug)]
pub struct CacheSettings {
    pub capacity: usize,
    /// Of each route's cache; 0: no bound.
    pub max_bytes: usize,
    pub ttl: Duration,
    /// Tags reach other servers, too, through the database.
    pub notify: bool,
    /// Where to listen, if that is not the database's URL.
    pub notify_url: Option<DatabaseUrl>,
}

#[derive(Clone, Debug)]
pub struct AdminSettings {
    pub bind: AdminBind,
    /// Off, by itself, or a Unix socket.
    pub control: AdminBind,
}

/// The stock app's templates.
#[derive(Clone, Debug)]
pub struct TemplateSettings {
    pub folder: Option<PathBuf>,
}

/// Where the admin process answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminBind {
    Off,
    /// At a Unix socket in the folder that the environment names for such things, if there is one.
    Auto,
    At(Bind),
}

impl Default for Settings {
    fn default() -> Settings {
        let mut settings = Settings::unresolved();
        settings.resolve(&mut Vec::new());
        settings
    }
}

impl Settings {
    /// What is odd about the settings, but no error.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The table's defaults; `auto` and its like still stand for themselves.
    fn unresolved() -> Settings {
        let mut settings = Settings::blank();
        for setting in SETTINGS {
            let default = toml::de::DeValue::parse(setting.default).expect("a default is TOML");
            let is_allowed = (setting.set)(&mut settings, &file::raw(default.get_ref()));
            assert!(is_allowed, "the default of {} is allowed", setting.key);
        }
        settings
    }

    /// Something for the defaults to be written into.
    fn blank() -> Settings {
        Settings {
            bind: Vec::new(),
            plain_bind: Vec::new(),
            backlog: 0,
            reuse_port: false,
            workers: 0,
            max_workers: 0,
            threads: 0,
            blocking_queue: 0,
            max_wait: Duration::ZERO,
            worker_connections: 0,
            limit_client_connections: 0,
            timeout: Duration::ZERO,
            request_timeout: Duration::ZERO,
            graceful_timeout: Duration::ZERO,
            boot_timeout: Duration::ZERO,
            warm_up: Vec::new(),
            lame_duck: Duration::ZERO,
            health_path: String::new(),
            ready_path: String::new(),
            upgrade: Upgrade::Auto,
            keepalive: Duration::ZERO,
            keepalive_requests: 0,
            max_requests: 0,
            max_requests_jitter: 0,
            max_worker_age: Duration::ZERO,
            max_worker_memory: 0,
            header_timeout: Duration::ZERO,
            body_timeout: Duration::ZERO,
            min_body_rate: 0,
            send_timeout: Duration::ZERO,
            limit_request_line: 0,
            limit_request_fields: 0,
            limit_request_field_size: 0,
            limit_request_body: 0,
            header_map: HeaderMap::Drop,
            forwarded_allow_ips: Trust::default(),
            forwarded_fields: ForwardedFields::default(),
            secure_scheme_headers: SchemeHeaders::default(),
            root_path: String::new(),
            proxy_protocol: ProxyProtocol::Off,
            proxy_allow_ips: Trust::default(),
            tls: TlsSettings::blank(),
            handshake_timeout: Duration::ZERO,
            http2: Http2Settings::blank(),
            pidfile: None,
            daemon: false,
            chdir: None,
            umask: None,
            user: None,
            group: None,
            socket_mode: None,
            socket_user: None,
            socket_group: None,
            accesslog: LogTarget::Off,
            access_log_format: LogFormat::Combined,
            request_id_header: String::new(),
            errorlog: LogTarget::Off,
            loglevel: log::LevelFilter::Off,
            log_format: ErrorLogFormat::Text,
            proc_name: String::new(),
            compress: Encodings::default(),
            compress_min_size: 0,
            compress_types: Vec::new(),
            cors: CorsSettings::blank(),
            security: SecuritySettings::blank(),
            database: DatabaseSettings {
                url: None,
                pool_size: 0,
                max_connections: 0,
                pool_timeout: Duration::ZERO,
                idle_timeout: Duration::ZERO,
                max_lifetime: Duration::ZERO,
                statement_timeout: Duration::ZERO,
                transaction_pooler: false,
                setup: None,
            },
            cache: CacheSettings {
                capacity: 0,
                max_bytes: 0,
                ttl: Duration::ZERO,
                notify: false,
                notify_url: None,
            },
            admin: AdminSettings { bind: AdminBind::Off, control: AdminBind::Off },
            templates: TemplateSettings { folder: None },
            routes: Vec::new(),
            app: app::AppSettings::default(),
            origins: BTreeMap::new(),
            warnings: Vec::new(),
            workers_are_auto: false,
            plain_places: Vec::new(),
            file_sets_anything: false,
        }
    }

    /// Settles what hangs on more than one setting.
    fn resolve(&mut self, problems: &mut Vec<Problem>) {
        if self.workers == 0 {
            let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
            self.workers = processors.min(self.max_workers);
            self.workers_are_auto = true;
        } else if self.workers > self.max_workers {
            let allowed = format!("at most max_workers, which is {}", self.max_workers);
            problems.push(self.problem("workers", &self.workers.to_string(), &allowed));
        }
        if self.database.pool_size == 0 {
            self.database.pool_size = self.threads;
        } else if self.database.pool_size > self.threads {
            let allowed = format!("at most threads, which is {}", self.threads);
            problems.push(self.problem("database.pool_size", &self.database.pool_size.to_string(), &allowed));
        }
        self.check_budget(problems);
        self.check_notify(problems);
        self.check_pooler(problems);
        self.check_cors(problems);
        self.check_probes(problems);
        if self.daemon && self.errorlog == LogTarget::Standard {
            let warning = "the error log goes to /dev/null: errorlog is the standard error, which a daemon has not; name a file";
            self.warnings.push(warning.to_owned());
        }
        for (key, trust) in
            [("forwarded_allow_ips", &self.forwarded_allow_ips), ("proxy_allow_ips", &self.proxy_allow_ips)]
        {
            let is_used = key == "forwarded_allow_ips" || self.proxy_protocol != ProxyProtocol::Off;
            if is_used && trust.is_everybody() {
                let warning = format!("{key} is *: whoever reaches the server can give itself any address");
                self.warnings.push(warning);
            }
        }
        self.resolve_setup(problems);
        self.resolve_tls(problems);
        self.check_folders(problems);
    }

    /// Whether workers answer probes themselves.
    pub(crate) fn answers_probes(&self) -> bool {
        !self.health_path.is_empty() || !self.ready_path.is_empty()
    }

    fn check_probes(&self, problems: &mut Vec<Problem>) {
        if self.answers_probes() && self.health_path == self.ready_path {
            let given = values::quoted(&self.ready_path);
            problems.push(self.problem("ready_path", &given, "another path than health_path"));
        }
    }

    /// How much of `database.max_connections` is in no worker's share: what the database is asked over, and with
    /// `cache.notify` one to listen, and another beside it at a reload and at an upgrade.
    pub fn connections_set_aside(&self) -> usize {
        if self.cache.notify { 3 } else { 1 }
    }

    fn check_notify(&self, problems: &mut Vec<Problem>) {
        let is_postgres = matches!(self.database.url, Some(DatabaseUrl::Postgres(_)));
        if self.cache.notify && !is_postgres {
            problems.push(self.problem("cache.notify", "true", "false, or a postgres:// database.url"));
        }
        if let Some(url @ DatabaseUrl::Sqlite(_)) = &self.cache.notify_url {
            let given = values::quoted(&url.to_string());
            problems.push(self.problem("cache.notify_url", &given, "postgres://USER:PASSWORD@HOST/DATABASE"));
        }
    }

    /// Behind a pooler nobody can count the database's processes, and LISTEN is heard by none.
    fn check_pooler(&self, problems: &mut Vec<Problem>) {
        if !self.database.transaction_pooler {
            return;
        }
        if !matches!(self.database.url, Some(DatabaseUrl::Postgres(_))) {
            let allowed = "false, or a postgres:// database.url";
            problems.push(self.problem("database.transaction_pooler", "true", allowed));
        }
        if self.database.max_connections > 0 {
            let given = self.database.max_connections.to_string();
            let allowed = "0 with database.transaction_pooler: the pooler has the limit";
            problems.push(self.problem("database.max_connections", &given, allowed));
        }
        if self.cache.notify && self.cache.notify_url.is_none() {
            let allowed = "the URL of the server itself, or of a pooler in session mode, with database.transaction_pooler";
            problems.push(self.problem("cache.notify_url", "\"\"", allowed));
        }
    }

    /// At a reload and at an upgrade there is a new worker beside each old one.
    fn check_budget(&self, problems: &mut Vec<Problem>) {
        let (budget, workers) = (self.database.max_connections, self.workers as usize);
        let set_aside = self.connections_set_aside();
        if budget > 0 && budget < 2 * workers + set_aside {
            let listeners = if self.cache.notify { ", two for cache.notify" } else { "" };
            let allowed = format!(
                "at least {}, one for each of {workers} workers, for each of as many that take their places{listeners}, and \
                 one to ask with; or 0",
                2 * workers + set_aside
            );
            problems.push(self.problem("database.max_connections", &budget.to_string(), &allowed));
        }
    }

    /// A file that cannot be made is found out before anything is started.
    fn check_folders(&self, problems: &mut Vec<Problem>) {
        let log = |target: &LogTarget| match target {
            LogTarget::File(path) => Some(path.clone()),
            LogTarget::Off | LogTarget::Standard => None,
        };
        for (key, path) in [
            ("pidfile", self.pidfile.clone()),
            ("accesslog", log(&self.accesslog)),
            ("errorlog", log(&self.errorlog)),
        ] {
            let Some(path) = path else { continue };
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if path.is_dir() || folder.is_some_and(|folder| !folder.is_dir()) {
                let given = values::quoted(&path.display().to_string());
                problems.push(self.problem(key, &given, "a file in a folder that exists"));
            }
        }
    }

    /// A script that the file names is meant for the database that the file names, and for no other.
    fn resolve_setup(&mut self, problems: &mut Vec<Problem>) {
        let Some(setup) = self.database.setup.take() else { return };
        let backend = match &self.database.url {
            Some(DatabaseUrl::Sqlite(_)) => "sqlite",
            Some(DatabaseUrl::Postgres(_)) => "postgres",
            None => {
                let given = values::quoted(&setup.display().to_string());
                problems.push(self.problem(
                    "database.setup",
                    &given,
                    "a script only where database.url is set",
                ));
                return;
            }
        };
        let from_file = |key| matches!(self.origins.get(key), Some(Origin::File(..)));
        if from_file("database.setup") && !from_file("database.url") {
            let warning = "the database setup script of the config file is not run: database.url comes from elsewhere; \
                           give --setup to run it there";
            self.warnings.push(warning.to_owned());
            return;
        }
        let setup = PathBuf::from(setup.display().to_string().replace("{backend}", backend));
        if let Err(error) = std::fs::File::open(&setup) {
            let given = values::quoted(&setup.display().to_string());
            problems.push(self.problem(
                "database.setup",
                &given,
                &format!("a script that can be read ({error})"),
            ));
        }
        self.database.setup = Some(setup);
    }

    fn problem(&self, key: &str, given: &str, allowed: &str) -> Problem {
        let origin = self.origins.get(key).unwrap_or(&Origin::Default);
        Problem::new(format!("{}: got {given}; allowed: {allowed}", origin.subject(key)))
    }

    /// What is wrong with a text that only somebody else can judge, in the words of every other problem.
    pub(crate) fn refusal(&self, key: &str, given: &str, allowed: &str) -> String {
        Error::new(vec![self.problem(key, &values::quoted(given), allowed)]).to_string()
    }
}
