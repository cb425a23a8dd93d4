//! The table of settings: one row gives a setting its key, its flag, its default, what is allowed and what it is for.
//! Everything else is read off it: the file, the command line, `--help`, `--print-config`, the reference.

use super::Settings;
use super::header_map;
use super::http2 as h;
use super::log_format as l;
use super::proxies as p;
use super::scheme_headers;
use super::values::{self as v, Raw};
use super::web as w;
use std::time::Duration;

/// The largest budget; the shared memory has a place for each.
pub(super) const MAX_DATABASE_CONNECTIONS: usize = 4096;

/// One setting.
pub(super) struct Setting {
    /// In the file; before the dot, its section.
    pub(super) key: &'static str,
    /// Without the dashes; the first is the one that help shows.
    pub(super) flags: &'static [&'static str],
    pub(super) short: Option<char>,
    /// As it would stand in the file.
    pub(super) default: &'static str,
    pub(super) allowed: &'static str,
    pub(super) about: &'static str,
    /// Puts a value in its place; false where it is not allowed.
    pub(super) set: fn(&mut Settings, &Raw) -> bool,
    /// The value in force, as it would stand in the file; secrets masked.
    pub(super) show: fn(&Settings) -> String,
    /// Takes the value over from other settings.
    pub(super) copy: fn(&mut Settings, &Settings),
}

impl Setting {
    pub(super) fn section(&self) -> Option<&'static str> {
        self.key.split_once('.').map(|(section, _)| section)
    }

    /// The key within its section.
    pub(super) fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }

    /// A flag that may stand without its value.
    pub(super) fn is_switch(&self) -> bool {
        ["true", "false"].contains(&self.default)
    }

    /// Put to use once, at start: a reload cannot change it. Readers are told so in `about`.
    pub(super) fn is_fixed(&self, serving: &Settings) -> bool {
        self.about.ends_with("Fixed at start.")
            || (["bind", "plain_bind"].contains(&self.key) && serving.reuse_port)
    }

    /// Each time that the flag stands there adds to it.
    pub(super) fn is_given_often(&self) -> bool {
        ["bind", "plain_bind", "secure_scheme_headers"].contains(&self.key)
    }

    pub(super) fn is_secret(&self) -> bool {
        ["database.url", "cache.notify_url"].contains(&self.key)
    }
}

/// A row: key, flags, default; how it is read (and checked), where it goes, how it is shown; what is allowed; what for.
macro_rules! row {
    ($key:literal, $short:expr, $flags:expr, $default:literal,
     $read:expr, $check:expr, [$($field:tt)+], $show:expr, $allowed:expr, $about:literal) => {
        Setting {
            key: $key,
            flags: &$flags,
            short: $short,
            default: $default,
            allowed: $allowed,
            about: $about,
            set: |settings, raw| match $read(raw) {
                Some(value) if $check(&value) => {
                    settings.$($field)+ = value;
                    true
                }
                Some(_) | None => false,
            },
            show: |settings| $show(&settings.$($field)+),
            copy: |to, from| to.$($field)+ = from.$($field)+.clone(),
        }
    };
}

const DURATION: &str =
    "a duration such as 500ms, 30s, 2m or a number of seconds, up to 24h; 0 switches it off";
const DURATION_NOT_OFF: &str = "a duration such as 500ms, 30s, 2m or a number of seconds, from 1ms to 24h";
const PROBE_PATH: &str = "a path such as /healthz, without a query; empty: none";
const PEERS: &str = "addresses, networks such as 10.0.0.0/8, unix for Unix sockets, or * for everybody; in an array or one comma-separated string; empty: nobody";
/// A worker that has this much to do before it may serve has too much.
const MAX_WARM_UP: usize = 100;
/// Each is looked at in each handshake at the most once, but all of them lie in the memory of each worker.
const MAX_CERTIFICATES: usize = 100;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn to_a_day(duration: &Duration) -> bool {
    *duration <= DAY
}

fn not_off(duration: &Duration) -> bool {
    !duration.is_zero() && *duration <= DAY
}

fn any<T>(_: &T) -> bool {
    true
}

/// In the order in which people read them.
pub(super) static SETTINGS: &[Setting] = &[
    row!(
        "bind",
        Some('b'),
        ["bind"],
        "[\"127.0.0.1:8000\"]",
        v::binds,
        any,
        [bind],
        v::show_binds,
        "HOST:PORT, :PORT, [::1]:PORT or unix:PATH; several in an array or one comma-separated string",
        "Where to listen. Port 0 lets the kernel choose, and the log says which; :PORT is every IPv4 address."
    ),
    row!(
        "plain_bind",
        None,
        ["plain-bind"],
        "[]",
        v::binds_or_none,
        any,
        [plain_bind],
        v::show_binds,
        "as for bind; empty: none",
        "More addresses to listen at, in the clear also where certfile has those of bind speak TLS."
    ),
    row!(
        "backlog",
        None,
        ["backlog"],
        "2048",
        v::count,
        |n: &u32| (1..=65_535).contains(n),
        [backlog],
        v::show_number,
        "a number from 1 to 65535",
        "Connections that may wait to be accepted, per address; the kernel cuts it at net.core.somaxconn."
    ),
    row!(
        "reuse_port",
        None,
        ["reuse-port"],
        "false",
        v::switch,
        any,
        [reuse_port],
        v::show_number,
        "true or false; the flag alone is true",
        "Gives each worker a queue of its own at every TCP address (SO_REUSEPORT). The addresses are then fixed, too. Fixed at start."
    ),
    row!(
        "workers",
        Some('w'),
        ["workers"],
        "\"auto\"",
        v::workers,
        any,
        [workers],
        v::show_number,
        "auto, or a number from 1 to max_workers",
        "Worker processes. auto: the processors that this process may use, by affinity and cgroup quota."
    ),
    row!(
        "max_workers",
        None,
        ["max-workers"],
        "256",
        v::count,
        |n: &u32| (1..=1024).contains(n),
        [max_workers],
        v::show_number,
        "a number from 1 to 1024",
        "The most workers that TTIN can reach; sizes the memory shared with them. Fixed at start."
    ),
    row!(
        "threads",
        None,
        ["threads"],
        "4",
        v::count,
        |n: &usize| (1..=1024).contains(n),
        [threads],
        v::show_number,
        "a number from 1 to 1024",
        "Blocking calls that a worker runs at a time, each on a thread of its own; database work among them."
    ),
    row!(
        "blocking_queue",
        None,
        ["blocking-queue"],
        "128",
        v::count,
        |n: &usize| *n <= 1_000_000,
        [blocking_queue],
        v::show_number,
        "a number from 0 to 1000000",
        "Blocking calls that may wait for a thread, per worker; beyond it a request is answered 503."
    ),
    row!(
        "max_wait",
        None,
        ["max-wait"],
        "\"30s\"",
        v::duration,
        to_a_day,
        [max_wait],
        v::show_duration,
        DURATION,
        "How long a blocking call may wait for a thread; then its request is answered 503, and it is not begun."
    ),
    row!(
        "worker_connections",
        None,
        ["worker-connections"],
        "1000",
        v::count,
        |n: &usize| (1..=1_000_000).contains(n),
        [worker_connections],
        v::show_number,
        "a number from 1 to 1000000",
        "Connections open at a time, per worker; at this number it leaves new ones to others."
    ),
    row!(
        "limit_client_connections",
        None,
        ["limit-client-connections"],
        "0",
        v::count,
        |n: &u64| *n <= 60_000,
        [limit_client_connections],
        v::show_number,
        "a number up to 60000; 0 switches it off",
        "The most connections that one client may have open, over all workers; beyond it one is answered 429, or closed where it speaks TLS. A client is an IPv4 address or an IPv6 network of 64 bits. Unix sockets and forwarded_allow_ips do not count."
    ),
    row!(
        "timeout",
        Some('t'),
        ["timeout"],
        "\"30s\"",
        v::duration,
        to_a_day,
        [timeout],
        v::show_duration,
        DURATION,
        "A worker whose event loop is silent this long is aborted; a blocking call that runs this long is answered 504, and its worker is replaced."
    ),
    row!(
        "request_timeout",
        None,
        ["request-timeout"],
        "\"0s\"",
        v::duration,
        to_a_day,
        [request_timeout],
        v::show_duration,
        DURATION,
        "How long the answer to a request may take to begin, from the end of its head; then it is 504. A request may extend its own time. A blocking call of it that runs on for as long again has its worker replaced."
    ),
    row!(
        "graceful_timeout",
        None,
        ["graceful-timeout"],
        "\"30s\"",
        v::duration,
        to_a_day,
        [graceful_timeout],
        v::show_duration,
        DURATION,
        "How long a draining worker may take to finish its requests before it is killed."
    ),
    row!(
        "boot_timeout",
        None,
        ["boot-timeout"],
        "\"30s\"",
        v::duration,
        to_a_day,
        [boot_timeout],
        v::show_duration,
        DURATION,
        "How long a new worker may take to become ready before it is killed."
    ),
    row!(
        "warm_up",
        None,
        ["warm-up"],
        "[]",
        v::list_or_none,
        |paths: &Vec<String>| paths.len() <= MAX_WARM_UP && paths.iter().all(|path| v::is_path(path)),
        [warm_up],
        v::show_list,
        "paths that begin with /, at most 100, in an array or one comma-separated string; empty: none",
        "Pages that a new worker asks itself for, one after the other, before it is ready: to fill caches and open connections. A panic, or a status of 500 or more, is a worker that cannot start."
    ),
    row!(
        "lame_duck",
        None,
        ["lame-duck"],
        "\"0s\"",
        v::duration,
        to_a_day,
        [lame_duck],
        v::show_duration,
        DURATION,
        "How long serving goes on after TERM, so that load balancers notice first; a second TERM ends it."
    ),
    row!(
        "health_path",
        None,
        ["health-path"],
        "\"\"",
        v::probe_path,
        any,
        [health_path],
        v::show_text,
        PROBE_PATH,
        "A path of the public addresses that each worker answers as the admin process answers /healthz, in place of the app."
    ),
    row!(
        "ready_path",
        None,
        ["ready-path"],
        "\"\"",
        v::probe_path,
        any,
        [ready_path],
        v::show_text,
        PROBE_PATH,
        "The same for /readyz. The answers say how many workers there are, and nothing else that a client could not find out."
    ),
    row!(
        "upgrade",
        None,
        ["upgrade"],
        "\"auto\"",
        v::upgrade,
        any,
        [upgrade],
        v::show_upgrade,
        "auto or manual",
        "What follows when the server started by USR2 is ready: the old one leaves, or both serve until you decide."
    ),
    row!(
        "keepalive",
        None,
        ["keep-alive"],
        "\"75s\"",
        v::duration,
        to_a_day,
        [keepalive],
        v::show_duration,
        "a duration such as 500ms, 30s, 2m or a number of seconds, up to 24h; 0 closes after each answer",
        "How long an idle connection is kept for the next request."
    ),
    row!(
        "keepalive_requests",
        None,
        ["keepalive-requests"],
        "0",
        v::count,
        any,
        [keepalive_requests],
        v::show_number,
        "a number; 0 switches it off",
        "Requests after which a connection is closed, so that its client comes again, perhaps to another worker."
    ),
    row!(
        "max_requests",
        None,
        ["max-requests"],
        "0",
        v::count,
        any,
        [max_requests],
        v::show_number,
        "a number; 0 switches it off",
        "Requests after which a worker is replaced, its successor first."
    ),
    row!(
        "max_requests_jitter",
        None,
        ["max-requests-jitter"],
        "0",
        v::count,
        any,
        [max_requests_jitter],
        v::show_number,
        "a number",
        "The most requests that are added to max_requests at random, so that workers are not replaced together."
    ),
    row!(
        "max_worker_age",
        None,
        ["max-worker-age"],
        "\"0s\"",
        v::duration,
        |age: &Duration| *age <= 365 * DAY,
        [max_worker_age],
        v::show_duration,
        "a duration such as 30m, 12h or a number of seconds, up to 8760h; 0 switches it off",
        "A worker this old is replaced, its successor first. Up to a tenth is added at random, so that workers are not replaced together."
    ),
    row!(
        "max_worker_memory",
        None,
        ["max-worker-memory"],
        "0",
        v::size,
        any,
        [max_worker_memory],
        v::show_size,
        "a size such as 512MiB, 2GiB; 0 switches it off",
        "A worker that holds more private memory than this, three times in a row, is replaced, its successor first. What it shares with others does not count."
    ),
    row!(
        "header_timeout",
        None,
        ["header-timeout"],
        "\"10s\"",
        v::duration,
        to_a_day,
        [header_timeout],
        v::show_duration,
        DURATION,
        "How long a request's head may take from its first byte, then 408; and how long a new connection may be silent."
    ),
    row!(
        "body_timeout",
        None,
        ["body-timeout"],
        "\"30s\"",
        v::duration,
        to_a_day,
        [body_timeout],
        v::show_duration,
        DURATION,
        "How long a request's body may take before it must have come at min_body_rate on average; else 408. What the app takes does not count."
    ),
    row!(
        "min_body_rate",
        None,
        ["min-body-rate"],
        "\"1KiB\"",
        v::size,
        |n: &u64| *n <= 1 << 30,
        [min_body_rate],
        v::show_size,
        "a size such as 512, 1KiB, up to 1GiB; 0 switches it off",
        "How much of a request's body must come in a second, on average, once it has taken body_timeout."
    ),
    row!(
        "send_timeout",
        None,
        ["send-timeout"],
        "\"60s\"",
        v::duration,
        to_a_day,
        [send_timeout],
        v::show_duration,
        DURATION,
        "How long a client may take nothing of what it is sent, before it is cut off. One that takes some, however slowly, is not."
    ),
    row!(
        "limit_request_line",
        None,
        ["limit-request-line"],
        "4094",
        v::size,
        |n: &usize| (64..=65_536).contains(n),
        [limit_request_line],
        v::show_size,
        "a size from 64 to 64KiB",
        "The longest request line, in bytes; beyond it 414."
    ),
    row!(
        "limit_request_fields",
        None,
        ["limit-request-fields"],
        "100",
        v::count,
        |n: &usize| (1..=32_768).contains(n),
        [limit_request_fields],
        v::show_number,
        "a number from 1 to 32768",
        "The most header fields of a request; beyond it 431."
    ),
    row!(
        "limit_request_field_size",
        None,
        ["limit-request-field_size", "limit-request-field-size"],
        "8190",
        v::size,
        |n: &usize| (64..=1_048_576).contains(n),
        [limit_request_field_size],
        v::show_size,
        "a size from 64 to 1MiB",
        "The largest header field, name and value, in bytes; beyond it 431."
    ),
    row!(
        "limit_request_body",
        None,
        ["limit-request-body"],
        "\"1MiB\"",
        v::size,
        any,
        [limit_request_body],
        v::show_size,
        "a size such as 8190, 64KiB, 1MiB",
        "The largest request body; beyond it 413."
    ),
    row!(
        "header_map",
        None,
        ["header-map"],
        "\"drop\"",
        header_map::read,
        any,
        [header_map],
        header_map::show,
        "drop; refuse: 400; or dangerous: the app sees them",
        "What becomes of header fields with an underscore in their names, which proxies and apps may take for other ones."
    ),
    row!(
        "forwarded_allow_ips",
        None,
        ["forwarded-allow-ips"],
        "[\"127.0.0.1\", \"::1\", \"unix\"]",
        p::trust,
        any,
        [forwarded_allow_ips],
        p::show_trust,
        PEERS,
        "The proxies whose word on a client counts. From all others the fields Forwarded, X-Forwarded-… and X-Real-IP are dropped."
    ),
    row!(
        "forwarded_fields",
        None,
        ["forwarded-fields"],
        "[\"x-forwarded-for\", \"x-forwarded-proto\"]",
        p::forwarded_fields,
        any,
        [forwarded_fields],
        p::show_forwarded_fields,
        "some of x-forwarded-for, x-forwarded-proto and x-forwarded-host, or forwarded alone; empty: none",
        "What the proxies write of their own. Name no field that they pass on as it came: it would be the client's word."
    ),
    row!(
        "secure_scheme_headers",
        None,
        ["secure-scheme-headers"],
        "{}",
        scheme_headers::read,
        any,
        [secure_scheme_headers],
        scheme_headers::show,
        scheme_headers::ALLOWED,
        "Fields by which the proxies say whether the client came by https: with this value, it did, with another, it did not. If what is said of it differs, 400."
    ),
    row!(
        "root_path",
        None,
        ["root-path"],
        "\"\"",
        p::root_path,
        any,
        [root_path],
        v::show_text,
        "a path such as /shop, that begins with / and does not end with one; empty: none",
        "Where the app is to be found for clients. It is taken off the paths of requests that begin with it, and told to the app."
    ),
    row!(
        "proxy_protocol",
        None,
        ["proxy-protocol"],
        "\"off\"",
        p::proxy_protocol,
        any,
        [proxy_protocol],
        p::show_proxy_protocol,
        "off, v1, v2 or auto, which takes both",
        "Whether connections of proxy_allow_ips begin with a header of the PROXY protocol. One that does not is closed."
    ),
    row!(
        "proxy_allow_ips",
        None,
        ["proxy-allow-from", "proxy-allow-ips"],
        "[\"127.0.0.1\", \"::1\", \"unix\"]",
        p::trust,
        any,
        [proxy_allow_ips],
        p::show_trust,
        PEERS,
        "The proxies that speak the PROXY protocol. Connections of others are taken as they are."
    ),
    row!(
        "certfile",
        None,
        ["certfile"],
        "[]",
        v::list_or_none,
        |files: &Vec<String>| files.len() <= MAX_CERTIFICATES && files.iter().all(|file| !file.is_empty()),
        [tls.certfile],
        v::show_list,
        "files in PEM, at most 100, in an array or one comma-separated string; empty: none",
        "The server's certificates, each with its chain: every address of bind then speaks TLS. The first is for clients that name no host, or one that no certificate is for. Read again at a reload."
    ),
    row!(
        "keyfile",
        None,
        ["keyfile"],
        "[]",
        v::list_or_none,
        |files: &Vec<String>| files.len() <= MAX_CERTIFICATES && files.iter().all(|file| !file.is_empty()),
        [tls.keyfile],
        v::show_list,
        "files in PEM, as many as in certfile; empty: none",
        "The key of each certificate, in the order of certfile. Nobody else may read it. The master reads it, so user need not be able to."
    ),
    row!(
        "ca_certs",
        None,
        ["ca-certs"],
        "\"\"",
        v::path,
        any,
        [tls.ca_certs],
        v::show_path,
        "a file in PEM; empty: none",
        "The authorities that clients' certificates must come from."
    ),
    row!(
        "cert_reqs",
        None,
        ["cert-reqs"],
        "\"none\"",
        v::cert_reqs,
        any,
        [tls.cert_reqs],
        v::show_cert_reqs,
        "none, optional or required, or Gunicorn's 0, 1 or 2",
        "Whether a client may or must show a certificate of ca_certs. One that is shown must be good."
    ),
    row!(
        "handshake_timeout",
        None,
        ["handshake-timeout"],
        "\"10s\"",
        v::duration,
        not_off,
        [handshake_timeout],
        v::show_duration,
        DURATION_NOT_OFF,
        "How long a client may take for its TLS handshake."
    ),
    row!(
        "http_protocols",
        None,
        ["http-protocols"],
        "[\"h1\"]",
        h::protocols,
        any,
        [http2.protocols],
        h::show_protocols,
        "h1, and perhaps h2 and h2c, in an array or one comma-separated string",
        "What is spoken: HTTP/1.1 always, with h2 HTTP/2 over TLS, and with h2c HTTP/2 in the clear with clients that begin with it. Where a client offers both over TLS, the one that stands first here is spoken."
    ),
    row!(
        "http2_max_concurrent_streams",
        None,
        ["http2-max-concurrent-streams"],
        "100",
        v::count,
        |n: &u32| (1..=10_000).contains(n),
        [http2.max_concurrent_streams],
        v::show_number,
        "a number from 1 to 10000",
        "Requests that may be under way at a time on one HTTP/2 connection; more are refused there."
    ),
    row!(
        "http2_initial_window_size",
        None,
        ["http2-initial-window-size"],
        "65535",
        v::size,
        |n: &u32| (1024..=1 << 24).contains(n),
        [http2.initial_window_size],
        v::show_size,
        "a size from 1KiB to 16MiB",
        "How much of a body an HTTP/2 client may send before the app reads it. All bodies of a connection together have four times as much."
    ),
    row!(
        "http2_max_frame_size",
        None,
        ["http2-max-frame-size"],
        "\"16KiB\"",
        v::size,
        |n: &u32| (16_384..=(1 << 24) - 1).contains(n),
        [http2.max_frame_size],
        v::show_size,
        "a size from 16KiB to 16777215, one byte less than 16MiB",
        "The largest frame that an HTTP/2 client may send."
    ),
    row!(
        "http2_max_header_list_size",
        None,
        ["http2-max-header-list-size"],
        "\"64KiB\"",
        v::size,
        |n: &u32| (1024..=1 << 20).contains(n),
        [http2.max_header_list_size],
        v::show_size,
        "a size from 1KiB to 1MiB",
        "The largest head of an HTTP/2 request, 32 bytes added to each of its fields; beyond it 431. One of four times that size ends the connection."
    ),
    row!(
        "pidfile",
        Some('p'),
        ["pid", "pidfile"],
        "\"\"",
        v::path,
        any,
        [pidfile],
        v::show_path,
        "a path; empty: none",
        "A file that holds the master's process id while it runs, and its lock. Fixed at start."
    ),
    row!(
        "daemon",
        Some('D'),
        ["daemon"],
        "false",
        v::switch,
        any,
        [daemon],
        v::show_number,
        "true or false; the flag alone is true",
        "Goes on in the background, the standard streams on /dev/null. The command returns when a worker serves, with 0, or when that failed, with the exit code and a message. Fixed at start."
    ),
    row!(
        "chdir",
        None,
        ["chdir"],
        "\"\"",
        v::path,
        any,
        [chdir],
        v::show_path,
        "a folder that can be entered; empty: where it was started",
        "The folder to run in, entered first: every other relative path but that of the config file begins there. Fixed at start."
    ),
    row!(
        "umask",
        Some('m'),
        ["umask"],
        "\"\"",
        v::mode,
        any,
        [umask],
        v::show_mode,
        "an octal number in quotes, such as \"027\"; empty: as it was started with",
        "The permissions that new files do not get. Fixed at start."
    ),
    row!(
        "user",
        Some('u'),
        ["user"],
        "\"\"",
        v::name,
        any,
        [user],
        v::show_name,
        "the name or number of a user; empty: whoever starts the server. Only root can give another",
        "Who the workers are. They get the user's groups, and nothing of root's. The log files belong to the user. Fixed at start."
    ),
    row!(
        "group",
        Some('g'),
        ["group"],
        "\"\"",
        v::name,
        any,
        [group],
        v::show_name,
        "the name or number of a group; empty: the group of user",
        "The workers' group. Fixed at start."
    ),
    row!(
        "socket_mode",
        None,
        ["socket-mode"],
        "\"\"",
        v::mode,
        any,
        [socket_mode],
        v::show_mode,
        "an octal number in quotes, such as \"660\"; empty: 777 without the umask",
        "The permissions of Unix sockets; to connect, one needs to be allowed to write. Fixed at start."
    ),
    row!(
        "socket_user",
        None,
        ["socket-user"],
        "\"\"",
        v::name,
        any,
        [socket_user],
        v::show_name,
        "the name or number of a user; empty: user. Only root can give another",
        "Whose Unix sockets are. Fixed at start."
    ),
    row!(
        "socket_group",
        None,
        ["socket-group"],
        "\"\"",
        v::name,
        any,
        [socket_group],
        v::show_name,
        "the name or number of a group; empty: group",
        "The group of Unix sockets. Fixed at start."
    ),
    row!(
        "accesslog",
        None,
        ["access-logfile", "accesslog"],
        "\"\"",
        v::log_target,
        any,
        [accesslog],
        v::show_target,
        "a path, or - for the standard output; empty: off",
        "Where each request is logged."
    ),
    row!(
        "access_log_format",
        None,
        ["access-logformat", "access-log-format"],
        "\"combined\"",
        l::log_format,
        any,
        [access_log_format],
        l::show_log_format,
        l::ALLOWED,
        "How each request is logged. The atoms are Gunicorn's."
    ),
    row!(
        "request_id_header",
        None,
        ["request-id-header"],
        "\"\"",
        l::field_name,
        any,
        [request_id_header],
        v::show_text,
        "the name of a field, such as X-Request-Id, that HTTP itself does not use; empty: off",
        "Gives each request an id: that of this field, if a peer of forwarded_allow_ips sent a valid one, or a new one. It is in the answer and in the log."
    ),
    row!(
        "compress",
        None,
        ["compress"],
        "[]",
        w::encodings,
        any,
        [compress],
        w::show_encodings,
        w::ENCODINGS,
        "Compresses answers with what the client accepts; of several, zstd before br before gzip. A page that shows a secret beside what its asker says should not be compressed."
    ),
    row!(
        "compress_min_size",
        None,
        ["compress-min-size"],
        "\"1KiB\"",
        v::size,
        any,
        [compress_min_size],
        v::show_size,
        "a size such as 860, 1KiB",
        "Answers that are shorter are not compressed; those whose length is not known are."
    ),
    row!(
        "compress_types",
        None,
        ["compress-types"],
        "[\"text/*\", \"application/json\", \"application/*+json\", \"application/javascript\", \"application/xml\", \"application/*+xml\", \"application/wasm\", \"image/svg+xml\"]",
        w::media_types,
        any,
        [compress_types],
        v::show_list,
        "media types such as text/html, text/* or application/*+json, in an array or one comma-separated string; empty: none",
        "What is compressed, by Content-Type. text/event-stream only where it is named."
    ),
    row!(
        "errorlog",
        None,
        ["error-logfile", "errorlog"],
        "\"-\"",
        v::log_target,
        |target: &super::LogTarget| *target != super::LogTarget::Off,
        [errorlog],
        v::show_target,
        "a path, or - for the standard error",
        "Where the server and the app log."
    ),
    row!(
        "loglevel",
        None,
        ["log-level"],
        "\"info\"",
        v::level,
        any,
        [loglevel],
        v::show_level,
        "trace, debug, info, warning, error or critical",
        "What is not logged: everything below this level."
    ),
    row!(
        "log_format",
        None,
        ["log-format"],
        "\"text\"",
        v::error_log_format,
        any,
        [log_format],
        v::show_error_log_format,
        "text or json",
        "How the error log says things: for people, or the same events as JSON, an object a line; see docs/events.md."
    ),
    row!(
        "proc_name",
        Some('n'),
        ["name"],
        "\"ferricorn\"",
        v::text,
        |name: &String| !name.is_empty() && !name.contains(['\0', '/']),
        [proc_name],
        v::show_text,
        "a name without a slash",
        "What the processes are called: NAME-master, NAME-w0; cut so that the role fits 15 bytes."
    ),
    row!(
        "database.url",
        None,
        ["database-url"],
        "\"\"",
        v::url,
        any,
        [database.url],
        v::show_url,
        "sqlite:PATH, or postgres://USER:PASSWORD@HOST/DATABASE; empty: none",
        "The database. A password is better given as ${NAME}, file:PATH or in FERRICORN_DATABASE_URL than in a flag."
    ),
    row!(
        "database.pool_size",
        None,
        ["pool-size"],
        "\"threads\"",
        v::pool_size,
        any,
        [database.pool_size],
        v::show_number,
        "threads, or a number from 1 to threads",
        "Connections of each worker; threads: one for each handler thread."
    ),
    row!(
        "database.max_connections",
        None,
        ["max-connections"],
        "0",
        v::count,
        |n: &usize| *n <= MAX_DATABASE_CONNECTIONS,
        [database.max_connections],
        v::show_number,
        "a number from 1 to 4096, and no less than 2 for each of workers and 1 more, 3 with cache.notify; 0: workers × pool_size",
        "PostgreSQL connections of the whole server at any moment, reloads, upgrades and deaths of workers included."
    ),
    row!(
        "database.pool_timeout",
        None,
        ["pool-timeout"],
        "\"5s\"",
        v::duration,
        not_off,
        [database.pool_timeout],
        v::show_duration,
        DURATION_NOT_OFF,
        "How long a request may wait for a connection, queue included; then 503."
    ),
    row!(
        "database.idle_timeout",
        None,
        ["idle-timeout"],
        "\"10m\"",
        v::duration,
        to_a_day,
        [database.idle_timeout],
        v::show_duration,
        DURATION,
        "A connection that is idle this long is closed."
    ),
    row!(
        "database.max_lifetime",
        None,
        ["max-lifetime"],
        "\"30m\"",
        v::duration,
        to_a_day,
        [database.max_lifetime],
        v::show_duration,
        DURATION,
        "A connection this old is closed when it comes back to the pool."
    ),
    row!(
        "database.statement_timeout",
        None,
        ["statement-timeout"],
        "\"30s\"",
        v::duration,
        to_a_day,
        [database.statement_timeout],
        v::show_duration,
        DURATION,
        "PostgreSQL ends a statement that runs this long."
    ),
    row!(
        "database.transaction_pooler",
        None,
        ["transaction-pooler"],
        "false",
        v::switch,
        any,
        [database.transaction_pooler],
        v::show_number,
        "true or false; the flag alone is true; true only with a postgres:// database.url, and without max_connections",
        "Whether url is that of a pooler in transaction mode, such as PgBouncer. Each statement is then run in a transaction, and none stays prepared."
    ),
    row!(
        "database.setup",
        None,
        ["setup"],
        "\"\"",
        v::path,
        any,
        [database.setup],
        v::show_path,
        "a path, in which {backend} stands for sqlite or postgres; empty: none",
        "An SQL script to run at start, in one transaction. It must do no harm when run again. One that the file names runs only against the URL that the same file names. Fixed at start."
    ),
    row!(
        "cache.capacity",
        None,
        ["cache-capacity"],
        "10000",
        v::count,
        |n: &usize| (1..=100_000_000).contains(n),
        [cache.capacity],
        v::show_number,
        "a number from 1 to 100000000",
        "Entries of each cache of each worker; beyond it the least recently used go."
    ),
    row!(
        "cache.max_bytes",
        None,
        ["cache-max-bytes"],
        "\"64MiB\"",
        v::size,
        any,
        [cache.max_bytes],
        v::show_size,
        "a size such as 512KiB, 64MiB; 0 switches it off",
        "Bytes of the cache of each route of the stock app, in each worker: values, heads, bodies, and 300 for what an entry costs beside them. Beyond it the least recently used go, and an answer that is larger alone is not kept."
    ),
    row!(
        "cache.ttl",
        None,
        ["cache-ttl"],
        "\"60s\"",
        v::duration,
        to_a_day,
        [cache.ttl],
        v::show_duration,
        DURATION,
        "How long an entry is good."
    ),
    row!(
        "cache.notify",
        None,
        ["cache-notify"],
        "false",
        v::switch,
        any,
        [cache.notify],
        v::show_number,
        "true or false; the flag alone is true; true only with a postgres:// database.url",
        "Has what is invalidated by tag reach other servers on the same PostgreSQL database, by NOTIFY."
    ),
    row!(
        "cache.notify_url",
        None,
        ["cache-notify-url"],
        "\"\"",
        v::url,
        any,
        [cache.notify_url],
        v::show_url,
        "postgres://USER:PASSWORD@HOST/DATABASE; empty: database.url",
        "Where notify listens: the server itself, where database.url is that of a pooler in transaction mode."
    ),
    row!(
        "cors.origins",
        None,
        ["cors-origins"],
        "[]",
        w::origins,
        any,
        [cors.origins],
        v::show_list,
        "origins such as https://shop.example, in an array or one comma-separated string, or * for all; empty: none",
        "The sites whose pages may ask this server from a browser. Preflights are then answered before the app sees them."
    ),
    row!(
        "cors.methods",
        None,
        ["cors-methods"],
        "[\"GET\", \"HEAD\", \"POST\"]",
        w::methods,
        any,
        [cors.methods],
        v::show_list,
        "methods in an array or one comma-separated string",
        "How they may ask."
    ),
    row!(
        "cors.headers",
        None,
        ["cors-headers"],
        "[]",
        w::fields,
        any,
        [cors.headers],
        v::show_list,
        w::FIELDS,
        "The fields that their requests may have, beside those that every page may send."
    ),
    row!(
        "cors.expose",
        None,
        ["cors-expose"],
        "[]",
        w::fields,
        any,
        [cors.expose],
        v::show_list,
        w::FIELDS,
        "The fields of answers that their scripts may read, beside those that every script may."
    ),
    row!(
        "cors.credentials",
        None,
        ["cors-credentials"],
        "false",
        v::switch,
        any,
        [cors.credentials],
        v::show_number,
        "true or false; the flag alone is true; false where an origin or field is *",
        "Whether their requests may carry cookies and the like."
    ),
    row!(
        "cors.max_age",
        None,
        ["cors-max-age"],
        "\"10m\"",
        v::duration,
        to_a_day,
        [cors.max_age],
        v::show_duration,
        "a duration such as 30s, 10m or a number of seconds, up to 24h; 0 says nothing of it",
        "How long a browser may keep what a preflight said."
    ),
    row!(
        "security.nosniff",
        None,
        ["nosniff"],
        "false",
        v::switch,
        any,
        [security.nosniff],
        v::show_number,
        "true or false; the flag alone is true",
        "Sends X-Content-Type-Options: nosniff. As all of this section, unless the app has set the field itself."
    ),
    row!(
        "security.referrer_policy",
        None,
        ["referrer-policy"],
        "\"\"",
        w::referrer_policy,
        any,
        [security.referrer_policy],
        v::show_text,
        "a policy such as strict-origin-when-cross-origin, or several, parted by commas; empty: not sent",
        "Sends Referrer-Policy."
    ),
    row!(
        "security.frame_options",
        None,
        ["frame-options"],
        "\"\"",
        w::frame_options,
        any,
        [security.frame_options],
        v::show_text,
        "DENY or SAMEORIGIN; empty: not sent",
        "Sends X-Frame-Options."
    ),
    row!(
        "security.content_security_policy",
        None,
        ["content-security-policy"],
        "\"\"",
        w::field_value,
        any,
        [security.content_security_policy],
        v::show_text,
        "a policy such as default-src 'self'; empty: not sent",
        "Sends Content-Security-Policy."
    ),
    row!(
        "security.permissions_policy",
        None,
        ["permissions-policy"],
        "\"\"",
        w::field_value,
        any,
        [security.permissions_policy],
        v::show_text,
        "a policy such as camera=(), geolocation=(); empty: not sent",
        "Sends Permissions-Policy."
    ),
    row!(
        "security.hsts",
        None,
        ["hsts"],
        "\"\"",
        w::hsts,
        any,
        [security.hsts],
        v::show_text,
        "max-age=SECONDS, with ; includeSubDomains and ; preload behind it if wanted; empty: not sent",
        "Sends Strict-Transport-Security, where the client came by TLS: to this server, or to a proxy that is believed. Browsers hold to it for that long, also when TLS is gone."
    ),
    row!(
        "admin.bind",
        None,
        ["admin-bind"],
        "\"auto\"",
        v::admin_bind,
        any,
        [admin.bind],
        v::show_admin_bind,
        "off, auto, unix:PATH, HOST:PORT, :PORT or [::1]:PORT",
        "Where a process of its own answers /healthz, /readyz, /metrics, /status and /history, and shows a dashboard at /. auto: a socket in $RUNTIME_DIRECTORY, else in $XDG_RUNTIME_DIR/ferricorn, for the server's user alone; off where neither is set. It asks nobody who he is, so give a TCP address only where all who reach it may know."
    ),
    row!(
        "admin.control",
        None,
        ["admin-control"],
        "\"auto\"",
        v::control_bind,
        any,
        [admin.control],
        v::show_admin_bind,
        "off, auto or unix:PATH",
        "The Unix socket at which `ferricorn ctl` asks for a reload and the like; root and the server's own user may. auto: beside that of admin.bind, in $RUNTIME_DIRECTORY, else in $XDG_RUNTIME_DIR/ferricorn; off where neither is set."
    ),
    row!(
        "templates.folder",
        None,
        ["templates"],
        "\"\"",
        v::path,
        any,
        [templates.folder],
        v::show_path,
        "a folder; empty: none",
        "Where the stock app's templates are. All of them are read when a worker starts, so a reload takes new ones."
    ),
];

/// The setting with this key.
pub(super) fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}
