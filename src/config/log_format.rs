//! How the access log is written: `combined`, `json`, or a text with Gunicorn's atoms. Not here: what they are filled with.

use super::values::{self, Raw};

/// Checked: what it names is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Combined,
    Json,
    /// The text as it was written, and what it consists of.
    Text(String, Vec<LogAtom>),
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogAtom {
    Literal(String),
    /// `h`
    Client,
    /// `l` and `u`, which are always `-`: the server asks nobody who he is.
    Nobody,
    /// `t`
    Time,
    /// `r`
    RequestLine,
    /// `m`
    Method,
    /// `U`
    Path,
    /// `q`
    Query,
    /// `H`
    Protocol,
    /// `s`
    Status,
    /// `B`
    Bytes,
    /// `b`: `-` for none.
    BytesOrDash,
    /// `f`, `a`, `{name}i`
    RequestField(String),
    /// `{name}o`
    ResponseField(String),
    /// `{name}e`
    Variable(String),
    /// `T`
    Seconds,
    /// `M`
    Millis,
    /// `D`
    Micros,
    /// `L`: seconds with six decimals.
    DecimalSeconds,
    /// `p`: as `<123>`.
    Pid,
    /// `scheme`
    Scheme,
    /// `host`
    Host,
    /// `request_id`
    RequestId,
}

/// The longest format, in bytes.
const MAX_FORMAT: usize = 4096;

pub(super) const ALLOWED: &str = "combined, json, or a text with the atoms %(X)s, X one of h l u t r m U q H s B b f a T D M L p \
                                  {field}i {field}o {variable}e scheme host request_id, and %% for a percent sign";

pub(super) fn log_format(raw: &Raw) -> Option<LogFormat> {
    Some(match raw.text()? {
        "combined" => LogFormat::Combined,
        "json" => LogFormat::Json,
        text if text.len() <= MAX_FORMAT && !text.chars().any(char::is_control) => {
            LogFormat::Text(text.to_owned(), atoms(text)?)
        }
        _ => return None,
    })
}

pub(super) fn show_log_format(format: &LogFormat) -> String {
    values::quoted(match format {
        LogFormat::Combined => "combined",
        LogFormat::Json => "json",
        LogFormat::Text(text, _) => text,
    })
}

/// `None` where something is no atom, or where there is none.
fn atoms(text: &str) -> Option<Vec<LogAtom>> {
    let (mut atoms, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
        } else {
            let (name, after) = rest.strip_prefix('(')?.split_once(")s")?;
            if !literal.is_empty() {
                atoms.push(LogAtom::Literal(std::mem::take(&mut literal)));
            }
            atoms.push(atom(name)?);
            rest = after;
        }
    }
    literal.push_str(rest);
    let has_atoms = !atoms.is_empty();
    if !literal.is_empty() {
        atoms.push(LogAtom::Literal(literal));
    }
    has_atoms.then_some(atoms)
}

fn atom(name: &str) -> Option<LogAtom> {
    if let Some(inner) = name.strip_prefix('{') {
        let (inner, kind) = inner.rsplit_once('}')?;
        return match kind {
            "i" if is_token(inner) => Some(LogAtom::RequestField(inner.to_ascii_lowercase())),
            "o" if is_token(inner) => Some(LogAtom::ResponseField(inner.to_ascii_lowercase())),
            "e" if !inner.is_empty() && !inner.contains(['=', '\0']) => {
                Some(LogAtom::Variable(inner.to_owned()))
            }
            _ => None,
        };
    }
    Some(match name {
        "h" => LogAtom::Client,
        "l" | "u" => LogAtom::Nobody,
        "t" => LogAtom::Time,
        "r" => LogAtom::RequestLine,
        "m" => LogAtom::Method,
        "U" => LogAtom::Path,
        "q" => LogAtom::Query,
        "H" => LogAtom::Protocol,
        "s" => LogAtom::Status,
        "B" => LogAtom::Bytes,
        "b" => LogAtom::BytesOrDash,
        "f" => LogAtom::RequestField("referer".to_owned()),
        "a" => LogAtom::RequestField("user-agent".to_owned()),
        "T" => LogAtom::Seconds,
        "M" => LogAtom::Millis,
        "D" => LogAtom::Micros,
        "L" => LogAtom::DecimalSeconds,
        "p" => LogAtom::Pid,
        "scheme" => LogAtom::Scheme,
        "host" => LogAtom::Host,
        "request_id" => LogAtom::RequestId,
        _ => return None,
    })
}

/// RFC 9110, 5.6.2: what a field may be called.
pub(super) fn is_token(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Of what a request is made, and of what a connection: their values are not for a request's id.
const TAKEN: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "host",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The name of a field, in lower case; empty: none.
pub(super) fn field_name(raw: &Raw) -> Option<String> {
    let name = raw.text()?.to_ascii_lowercase();
    (name.is_empty() || is_token(&name) && !TAKEN.contains(&name.as_str())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<LogFormat> {
        log_format(&Raw::Text(text.to_owned()))
    }

    #[test]
    fn a_text_is_cut_into_literals_and_atoms() {
        let LogFormat::Text(_, atoms) = of("%(h)s 100%% %({X-Id}i)s%({A}e)s)s").unwrap() else {
            panic!("no text")
        };
        assert_eq!(
            atoms,
            [
                LogAtom::Client,
                LogAtom::Literal(" 100% ".into()),
                LogAtom::RequestField("x-id".into()),
                LogAtom::Variable("A".into()),
                LogAtom::Literal(")s".into()),
            ]
        );
        for name in "h l u t r m U q H s B b f a T D M L p scheme host request_id".split(' ') {
            assert!(of(&format!("%({name})s")).is_some(), "{name}");
        }
        assert_eq!((of("combined"), of("json")), (Some(LogFormat::Combined), Some(LogFormat::Json)));
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for text in [
            "",
            "plain",
            "%%",
            "%(z)s",
            "%(h)d",
            "%(h",
            "%h",
            "100% %(h)s",
            "%({}i)s",
            "%({a b}i)s",
            "%({a}x)s",
            "%({a}i",
            "%(h)s\n",
            "%()s",
            "%(hh)s",
        ] {
            assert_eq!(of(text), None, "{text:?}");
        }
        for (name, is_one) in
            [("", true), ("X-Request-Id", true), ("Host", false), ("a b", false), ("a:", false)]
        {
            assert_eq!(field_name(&Raw::Text(name.into())).is_some(), is_one, "{name:?}");
        }
    }
}
