//! Values as people write them, and back: durations, sizes, addresses, paths. Not here: which setting takes which.

use super::Upgrade;
use super::{AdminBind, Bind, CertReqs, DatabaseUrl, ErrorLogFormat, LogTarget};
use log::LevelFilter;
use std::fmt::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A value before anybody knows what it should be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Raw>),
    /// Names and what they stand for.
    Table(Vec<(String, Raw)>),
    /// Something that no setting takes, by TOML's name.
    Other(&'static str),
}

impl Raw {
    pub(super) fn text(&self) -> Option<&str> {
        if let Raw::Text(text) = self { Some(text) } else { None }
    }
}

/// As it would stand in the file.
impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Text(text) => f.write_str(&quoted(text)),
            Raw::Integer(number) => write!(f, "{number}"),
            Raw::Float(number) => write!(f, "{number}"),
            Raw::Boolean(value) => write!(f, "{value}"),
            Raw::List(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Raw::Table(_) => f.write_str("a table"),
            Raw::Other(kind) => write!(f, "a {kind}"),
        }
    }
}

/// A TOML basic string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control.is_control() => drop(write!(out, "\\u{:04X}", u32::from(control))),
            plain => out.push(plain),
        }
    }
    out + "\""
}

/// A whole number; in a flag, its digits.
pub(super) fn count<T: TryFrom<u64>>(raw: &Raw) -> Option<T> {
    let number = match raw {
        Raw::Integer(number) => u64::try_from(*number).ok()?,
        Raw::Text(text) => digits(text)?,
        Raw::Float(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => return None,
    };
    T::try_from(number).ok()
}

/// On or off; in a flag, the word.
pub(super) fn switch(raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Boolean(value) => Some(*value),
        Raw::Text(text) => text.parse().ok(),
        Raw::Integer(_) | Raw::Float(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => None,
    }
}

/// `auto` is 0 until the number of processors is asked for.
pub(super) fn workers(raw: &Raw) -> Option<u32> {
    if raw.text() == Some("auto") { Some(0) } else { count(raw).filter(|workers| *workers > 0) }
}

/// `threads` is 0 until that setting is known.
pub(super) fn pool_size(raw: &Raw) -> Option<usize> {
    if raw.text() == Some("threads") { Some(0) } else { count(raw).filter(|size| *size > 0) }
}

/// Bytes: a number, or one with `KiB`, `MiB` or `GiB`.
pub(super) fn size<T: TryFrom<u64>>(raw: &Raw) -> Option<T> {
    let Some(text) = raw.text() else { return count(raw) };
    let unit_at = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[unit_at..].trim_start() {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    T::try_from(digits(&text[..unit_at])?.checked_mul(unit)?).ok()
}

/// `500ms`, `30s`, `2m`, `1h`, or seconds.
pub(super) fn duration(raw: &Raw) -> Option<Duration> {
    let (number, unit) = match raw {
        Raw::Integer(seconds) => return u64::try_from(*seconds).ok().map(Duration::from_secs),
        Raw::Float(seconds) => return Duration::try_from_secs_f64(*seconds).ok(),
        Raw::Text(text) => {
            let unit_at = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
            text.split_at(unit_at)
        }
        Raw::Boolean(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => return None,
    };
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    // Rounded to the millisecond, so that 0.1s is what it says.
    Some(Duration::from_millis(
        Duration::try_from_secs_f64(number * seconds).ok()?.as_secs_f64().mul_add(1000.0, 0.5) as u64,
    ))
}

pub(super) fn text(raw: &Raw) -> Option<String> {
    raw.text().map(str::to_owned)
}

/// Empty: none.
pub(super) fn path(raw: &Raw) -> Option<Option<PathBuf>> {
    let text = raw.text()?;
    Some((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// Empty: none.
pub(super) fn name(raw: &Raw) -> Option<Option<String>> {
    match raw {
        Raw::Integer(number) => u32::try_from(*number).ok().map(|number| Some(number.to_string())),
        Raw::Text(text) if text.contains(['\0', ':', '/']) => None,
        Raw::Text(text) => Some((!text.is_empty()).then(|| text.clone())),
        Raw::Float(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => None,
    }
}

/// Permissions, in octal digits with or without `0o` before them; a TOML number is refused, because one would not see
/// whether it was meant so. Empty: none.
pub(super) fn mode(raw: &Raw) -> Option<Option<u32>> {
    let text = raw.text()?;
    if text.is_empty() {
        return Some(None);
    }
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = !digits.is_empty() && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| is_octal && *mode <= 0o777)?;
    Some(Some(mode))
}

/// Empty: off. `-`: the standard stream. A file of the name `off` is not what somebody who writes that wants.
pub(super) fn log_target(raw: &Raw) -> Option<LogTarget> {
    Some(match raw.text()? {
        "" => LogTarget::Off,
        "-" => LogTarget::Standard,
        "off" | "none" => return None,
        path => LogTarget::File(path.into()),
    })
}

/// Gunicorn's names; `critical` is what `error` is here.
pub(super) fn level(raw: &Raw) -> Option<LevelFilter> {
    Some(match raw.text()? {
        "trace" => LevelFilter::Trace,
        "debug" => LevelFilter::Debug,
        "info" => LevelFilter::Info,
        "warning" | "warn" => LevelFilter::Warn,
        "error" | "critical" => LevelFilter::Error,
        _ => return None,
    })
}

pub(super) fn upgrade(raw: &Raw) -> Option<Upgrade> {
    Some(match raw.text()? {
        "auto" => Upgrade::Auto,
        "manual" => Upgrade::Manual,
        _ => return None,
    })
}

pub(super) fn error_log_format(raw: &Raw) -> Option<ErrorLogFormat> {
    Some(match raw.text()? {
        "text" => ErrorLogFormat::Text,
        "json" => ErrorLogFormat::Json,
        _ => return None, // a text, not an enum
    })
}

/// Empty: none.
pub(super) fn url(raw: &Raw) -> Option<Option<DatabaseUrl>> {
    let text = raw.text()?;
    if text.is_empty() {
        return Some(None);
    }
    match text.split_once(':')? {
        ("sqlite", path) if !path.is_empty() => Some(Some(DatabaseUrl::Sqlite(path.into()))),
        ("postgres" | "postgresql", _) => Some(Some(DatabaseUrl::Postgres(text.to_owned()))),
        (_, _) => None,
    }
}

pub(super) fn admin_bind(raw: &Raw) -> Option<AdminBind> {
    Some(match raw.text()? {
        "off" => AdminBind::Off,
        "auto" => AdminBind::Auto,
        at => AdminBind::At(at.parse().ok()?),
    })
}

/// As `admin_bind`, but who tells the server something must be known to it, and so must use a Unix socket.
pub(super) fn control_bind(raw: &Raw) -> Option<AdminBind> {
    admin_bind(raw).filter(|bind| !matches!(bind, AdminBind::At(Bind::Tcp { .. })))
}

/// An array, or one string with commas.
pub(super) fn binds(raw: &Raw) -> Option<Vec<Bind>> {
    let binds: Vec<Bind> = list(raw)?.iter().map(|item| item.parse().ok()).collect::<Option<_>>()?;
    (!binds.is_empty()).then_some(binds)
}

pub(super) fn binds_or_none(raw: &Raw) -> Option<Vec<Bind>> {
    list_or_none(raw)?.iter().map(|item| item.parse().ok()).collect()
}

pub(super) fn cert_reqs(raw: &Raw) -> Option<CertReqs> {
    match raw {
        Raw::Integer(0) => Some(CertReqs::None),
        Raw::Integer(1) => Some(CertReqs::Optional),
        Raw::Integer(2) => Some(CertReqs::Required),
        Raw::Text(text) => match text.as_str() {
            "none" | "0" => Some(CertReqs::None),
            "optional" | "1" => Some(CertReqs::Optional),
            "required" | "2" => Some(CertReqs::Required),
            _ => None,
        },
        Raw::Integer(_) | Raw::Float(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => {
            None
        }
    }
}

pub(super) fn list(raw: &Raw) -> Option<Vec<String>> {
    match raw {
        Raw::Text(text) => Some(text.split(',').map(|item| item.trim().to_owned()).collect()),
        Raw::List(items) => items.iter().map(text).collect(),
        Raw::Integer(_) | Raw::Float(_) | Raw::Boolean(_) | Raw::Table(_) | Raw::Other(_) => None,
    }
}

/// A list that may be empty.
pub(super) fn list_or_none(raw: &Raw) -> Option<Vec<String>> {
    if raw.text() == Some("") { Some(Vec::new()) } else { list(raw) }
}

/// A path, perhaps with a query, as it would stand in a request line.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte))
}

/// A path that is compared with those of requests as they come. Empty: none.
pub(super) fn probe_path(raw: &Raw) -> Option<String> {
    let path = raw.text()?;
    (path.is_empty() || is_path(path) && !path.contains('?')).then(|| path.to_owned())
}

impl FromStr for Bind {
    type Err = ();

    /// `HOST:PORT`, `:PORT` (every address, as Gunicorn has it), `[::1]:PORT`, `unix:PATH`.
    fn from_str(text: &str) -> Result<Bind, ()> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(()) } else { Ok(Bind::Unix(path.into())) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let port = digits(port).and_then(|port| u16::try_from(port).ok()).ok_or(())?;
        let host = match host.strip_prefix('[') {
            Some(v6) => {
                v6.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()).ok_or(())?
            }
            None if host.is_empty() => "0.0.0.0",
            None if host.contains([':', '/', ' ']) => return Err(()),
            None => host,
        };
        Ok(Bind::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Bind::Tcp { host, port } => write!(f, "{host}:{port}"),
            Bind::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The password, wherever it stands, is masked.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            DatabaseUrl::Postgres(url) => f.write_str(&masked(url)),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl DatabaseUrl {
    /// Whether a password stands in it.
    pub(super) fn has_password(&self) -> bool {
        match self {
            DatabaseUrl::Sqlite(_) => false,
            DatabaseUrl::Postgres(url) => masked(url) != *url,
        }
    }
}

const MASK: &str = "***";

fn masked(url: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let mut out = match base.rsplit_once('@') {
        Some((before, host)) => {
            let user_at = before.find("://").map_or(0, |at| at + 3);
            match before[user_at..].split_once(':') {
                Some((user, _)) => format!("{}{user}:{MASK}@{host}", &before[..user_at]),
                None => base.to_owned(),
            }
        }
        None => base.to_owned(),
    };
    if let Some(query) = query {
        let pairs: Vec<String> = query
            .split('&')
            .map(|pair| match pair.split_once('=') {
                Some((key @ ("password" | "sslpassword"), _)) => format!("{key}={MASK}"),
                Some(_) | None => pair.to_owned(),
            })
            .collect();
        let _ = write!(out, "?{}", pairs.join("&"));
    }
    out
}

pub(super) fn show_duration(duration: &Duration) -> String {
    let ms = duration.as_millis();
    quoted(&match ms {
        0 => "0s".to_owned(),
        ms if ms % 1000 != 0 => format!("{ms}ms"),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms => format!("{}s", ms / 1000),
    })
}

pub(super) fn show_size(bytes: &(impl Copy + TryInto<u64>)) -> String {
    let bytes = (*bytes).try_into().unwrap_or(u64::MAX);
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes > 0 && bytes.is_multiple_of(unit) {
            return quoted(&format!("{}{name}", bytes / unit));
        }
    }
    bytes.to_string()
}

pub(super) fn show_number(number: &impl ToString) -> String {
    number.to_string()
}

pub(super) fn show_text(text: &str) -> String {
    quoted(text)
}

pub(super) fn show_path(path: &Option<PathBuf>) -> String {
    quoted(&path.as_ref().map_or_else(String::new, |path| path.display().to_string()))
}

pub(super) fn show_name(name: &Option<String>) -> String {
    quoted(name.as_deref().unwrap_or_default())
}

pub(super) fn show_mode(mode: &Option<u32>) -> String {
    quoted(&mode.map_or_else(String::new, |mode| format!("{mode:03o}")))
}

pub(super) fn show_target(target: &LogTarget) -> String {
    match target {
        LogTarget::Off => quoted(""),
        LogTarget::Standard => quoted("-"),
        LogTarget::File(path) => quoted(&path.display().to_string()),
    }
}

pub(super) fn show_level(level: &LevelFilter) -> String {
    let name = level.as_str().to_lowercase();
    quoted(if name == "warn" { "warning" } else { &name })
}

pub(super) fn show_upgrade(upgrade: &Upgrade) -> String {
    quoted(match upgrade {
        Upgrade::Auto => "auto",
        Upgrade::Manual => "manual",
    })
}

pub(super) fn show_error_log_format(format: &ErrorLogFormat) -> String {
    quoted(match format {
        ErrorLogFormat::Text => "text",
        ErrorLogFormat::Json => "json",
    })
}

pub(super) fn show_cert_reqs(reqs: &CertReqs) -> String {
    quoted(match reqs {
        CertReqs::None => "none",
        CertReqs::Optional => "optional",
        CertReqs::Required => "required",
    })
}

pub(super) fn show_url(url: &Option<DatabaseUrl>) -> String {
    quoted(&url.as_ref().map_or_else(String::new, ToString::to_string))
}

pub(super) fn show_binds(binds: &[Bind]) -> String {
    let binds: Vec<String> = binds.iter().map(|bind| quoted(&bind.to_string())).collect();
    format!("[{}]", binds.join(", "))
}

pub(super) fn show_list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

pub(super) fn show_admin_bind(bind: &AdminBind) -> String {
    quoted(&match bind {
        AdminBind::Off => "off".to_owned(),
        AdminBind::Auto => "auto".to_owned(),
        AdminBind::At(bind) => bind.to_string(),
    })
}

/// Digits and nothing else: no sign, no space.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(value: &str) -> Raw {
        Raw::Text(value.to_owned())
    }

    #[test]
    fn durations() {
        for (raw, ms) in [
            (text_of("500ms"), Some(500)),
            (text_of("30s"), Some(30_000)),
            (text_of("2m"), Some(120_000)),
            (text_of("1.5h"), Some(5_400_000)),
            (text_of("0.1s"), Some(100)),
            (text_of("7"), Some(7000)),
            (Raw::Integer(7), Some(7000)),
            (Raw::Float(0.25), Some(250)),
            (text_of("0"), Some(0)),
            (text_of("30x"), None),
            (text_of("-1s"), None),
            (text_of("1 s"), None),
            (text_of(""), None),
            (text_of("1..5s"), None),
            (text_of("1e99h"), None),
            (Raw::Integer(-1), None),
            (Raw::Float(f64::NAN), None),
            (Raw::Boolean(true), None),
        ] {
            assert_eq!(duration(&raw).map(|duration| duration.as_millis()), ms, "{raw}");
        }
    }

    #[test]
    fn sizes_and_counts() {
        for (raw, bytes) in [
            (text_of("8190"), Some(8190)),
            (Raw::Integer(8190), Some(8190)),
            (text_of("64KiB"), Some(65_536)),
            (text_of("1 MiB"), Some(1_048_576)),
            (text_of("1MB"), None),
            (text_of("1.5MiB"), None),
            (text_of("KiB"), None),
            (text_of("99999999999GiB"), None),
            (Raw::Integer(-1), None),
        ] {
            assert_eq!(size::<u64>(&raw), bytes, "{raw}");
        }
        for (raw, number) in [
            (text_of("4"), Some(4)),
            (text_of("+4"), None),
            (text_of("4KiB"), None),
            (Raw::Float(4.0), None),
            (Raw::Integer(1 << 40), None),
        ] {
            assert_eq!(count::<u32>(&raw), number, "{raw}");
        }
    }

    #[test]
    fn permissions_and_names() {
        for (raw, wanted) in [
            (text_of("022"), Some(Some(0o22))),
            (text_of("0o640"), Some(Some(0o640))),
            (text_of("7"), Some(Some(7))),
            (text_of(""), Some(None)),
            (text_of("0o"), None),
            (text_of("+7"), None),
            (text_of("018"), None),
            (text_of("1777"), None),
            (Raw::Integer(22), None),
        ] {
            assert_eq!(mode(&raw), wanted, "{raw}");
        }
        for (raw, wanted) in [
            (text_of("www-data"), Some(Some("www-data"))),
            (text_of("33"), Some(Some("33"))),
            (Raw::Integer(33), Some(Some("33"))),
            (text_of(""), Some(None)),
            (text_of("a:b"), None),
            (Raw::Integer(-1), None),
            (Raw::Boolean(true), None),
        ] {
            let name = name(&raw);
            assert_eq!(name.as_ref().map(Option::as_deref), wanted, "{raw}");
        }
    }

    #[test]
    fn addresses() {
        for (written, shown) in [
            ("127.0.0.1:8000", Some("127.0.0.1:8000")),
            ("localhost:0", Some("localhost:0")),
            (":80", Some("0.0.0.0:80")),
            ("[::1]:8000", Some("[::1]:8000")),
            ("unix:run/app.sock", Some("unix:run/app.sock")),
            ("unix:", None),
            ("8000", None),
            ("::1:8000", None),
            ("[::1]", None),
            ("[x]:1", None),
            ("host:65536", None),
            ("host:-1", None),
            ("host:", None),
        ] {
            assert_eq!(
                written.parse::<Bind>().ok().map(|bind| bind.to_string()).as_deref(),
                shown,
                "{written}"
            );
        }
        assert_eq!(binds(&text_of("a:1, b:2")).map(|binds| binds.len()), Some(2));
        assert_eq!(binds(&Raw::List(vec![])), None);
    }

    #[test]
    fn a_password_is_never_shown() {
        for (written, shown) in [
            ("postgres://ann:secret@db/x", "postgres://ann:***@db/x"),
            ("postgres://ann:se:c@ret@db/x?a=1", "postgres://ann:***@db/x?a=1"),
            ("postgres://ann@db/x?password=secret&b=2", "postgres://ann@db/x?password=***&b=2"),
            ("postgresql://db/x", "postgresql://db/x"),
        ] {
            let url = url(&text_of(written)).unwrap().unwrap();
            assert_eq!(format!("{url} {url:?}"), format!("{shown} {shown}"));
            assert_eq!(url.has_password(), written != shown);
        }
        for bad in ["mysql://x", "sqlite:", "x", "/a/b"] {
            assert_eq!(url(&text_of(bad)), None, "{bad}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for ms in [0, 1, 500, 1000, 90_000, 120_000, 3_600_000, 5_400_000] {
            let shown = show_duration(&Duration::from_millis(ms));
            assert_eq!(
                duration(&text_of(shown.trim_matches('"'))),
                Some(Duration::from_millis(ms)),
                "{shown}"
            );
        }
        for bytes in [0_u64, 1, 1023, 1024, 8190, 1 << 20, 3 << 30] {
            let shown = show_size(&bytes);
            assert_eq!(size(&text_of(shown.trim_matches('"'))), Some(bytes), "{shown}");
        }
    }
}
