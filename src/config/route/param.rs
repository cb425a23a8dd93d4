//! A declared parameter of a route: its type, and what its values may be. Not here: a request's values.

use super::fields::Fields;
use crate::config::file::raw;
use crate::config::values::{self, Raw};
use toml::de::{DeTable, DeValue};

/// A parameter, by which a request's values are judged before a database sees them.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    pub name: String,
    pub kind: ParamKind,
    /// It must be given, and not as `null`.
    pub required: bool,
    /// What stands for one that is not given; `None`: NULL.
    pub default: Option<Scalar>,
    pub min: Option<Scalar>,
    pub max: Option<Scalar>,
    /// In characters.
    pub max_length: Option<usize>,
    /// A regular expression that is found in the text.
    pub pattern: Option<String>,
    /// The only values that are allowed; empty: any.
    pub one_of: Vec<Scalar>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    Integer,
    Number,
    Text,
    Boolean,
}

/// A value that the file gives; of the parameter's kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    Integer(i64),
    Number(f64),
    Text(String),
    Boolean(bool),
}

const KINDS: [(&str, ParamKind); 4] = [
    ("integer", ParamKind::Integer),
    ("number", ParamKind::Number),
    ("text", ParamKind::Text),
    ("boolean", ParamKind::Boolean),
];
const KIND_NAMES: &str = "integer, number, text or boolean";
const KEYS: [&str; 8] = ["type", "required", "default", "min", "max", "max_length", "pattern", "enum"];

impl Param {
    /// One of this kind that must be given, and may be anything.
    pub fn new(name: impl Into<String>, kind: ParamKind) -> Param {
        Param {
            name: name.into(),
            kind,
            required: true,
            default: None,
            min: None,
            max: None,
            max_length: None,
            pattern: None,
            one_of: Vec::new(),
        }
    }
}

pub(super) fn read(fields: &mut Fields<'_, '_>) -> Vec<Param> {
    let Some((at, value)) = fields.value("params") else { return Vec::new() };
    let DeValue::Table(declared) = value.get_ref() else {
        fields.reader.problem(at, "route.params: allowed: a table such as { id = \"integer\" }");
        return Vec::new();
    };
    let mut params = Vec::new();
    for (name, value) in declared {
        let param = match value.get_ref() {
            DeValue::Table(table) => full(name.get_ref(), table),
            short => match kind(&raw(short)) {
                Some(kind) => Ok(Param::new(name.get_ref().as_ref(), kind)),
                None => Err(format!(": got {}; allowed: {KIND_NAMES}, or a table with a type", raw(short))),
            },
        };
        match param {
            Ok(param) => params.push(param),
            Err(what) => {
                let what = format!("route.params.{}{what}", name.get_ref());
                fields.reader.problem(name.span().start, &what);
            }
        }
    }
    params
}

/// The error begins with the key that is wrong.
fn full(name: &str, table: &DeTable<'_>) -> Result<Param, String> {
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.get_ref().as_ref())) {
        return Err(format!(".{}: unknown; allowed: {}", key.get_ref(), KEYS.join(", ")));
    }
    let given = |key: &str| table.get(key).map(|value| raw(value.get_ref()));
    let kind = given("type").ok_or(format!(": needs a type: {KIND_NAMES}"))?;
    let kind = self::kind(&kind).ok_or(format!(".type: got {kind}; allowed: {KIND_NAMES}"))?;
    let scalar = |key: &str| match given(key) {
        None => Ok(None),
        Some(raw) => match kind.scalar(&raw) {
            Some(scalar) => Ok(Some(scalar)),
            None => Err(format!(".{key}: got {raw}; allowed: {}", kind.name())),
        },
    };
    let mut param = Param::new(name, kind);
    param.default = scalar("default")?;
    (param.min, param.max) = (scalar("min")?, scalar("max")?);
    param.required = match given("required") {
        None => param.default.is_none(),
        Some(Raw::Boolean(required)) => required,
        Some(raw) => return Err(format!(".required: got {raw}; allowed: true or false")),
    };
    param.max_length = match given("max_length") {
        None => None,
        Some(raw) => Some(
            values::count(&raw).ok_or(format!(".max_length: got {raw}; allowed: a number of characters"))?,
        ),
    };
    param.pattern = match given("pattern") {
        None => None,
        Some(raw) => {
            Some(values::text(&raw).ok_or(format!(".pattern: got {raw}; allowed: a regular expression"))?)
        }
    };
    if let Some(raw) = given("enum") {
        let Raw::List(items) = &raw else { return Err(format!(".enum: got {raw}; allowed: an array")) };
        let scalars: Option<Vec<Scalar>> = items.iter().map(|item| kind.scalar(item)).collect();
        param.one_of = scalars
            .filter(|scalars| !scalars.is_empty())
            .ok_or(format!(".enum: got {raw}; allowed: an array of {}", kind.name()))?;
    }
    misplaced(&param).map_or(Ok(param), Err)
}

/// A limit that could never take effect, or a default that its own limits forbid, is a mistake.
fn misplaced(param: &Param) -> Option<String> {
    let is_text = param.kind == ParamKind::Text;
    let is_numeric = [ParamKind::Integer, ParamKind::Number].contains(&param.kind);
    for (key, given, fits) in [
        ("min", param.min.is_some(), is_numeric),
        ("max", param.max.is_some(), is_numeric),
        ("max_length", param.max_length.is_some(), is_text),
        ("pattern", param.pattern.is_some(), is_text),
    ] {
        if given && !fits {
            return Some(format!(".{key}: does not go with {}", param.kind.name()));
        }
    }
    if param.required && param.default.is_some() {
        return Some(".default: is of no use where required is true".into());
    }
    None
}

fn kind(raw: &Raw) -> Option<ParamKind> {
    KINDS.iter().find(|(word, _)| raw.text() == Some(word)).map(|(_, kind)| *kind)
}

impl ParamKind {
    pub fn name(self) -> &'static str {
        match self {
            ParamKind::Integer => "integer",
            ParamKind::Number => "number",
            ParamKind::Text => "text",
            ParamKind::Boolean => "boolean",
        }
    }

    fn scalar(self, raw: &Raw) -> Option<Scalar> {
        match (self, raw) {
            (ParamKind::Integer, Raw::Integer(integer)) => Some(Scalar::Integer(*integer)),
            (ParamKind::Number, Raw::Integer(integer)) => Some(Scalar::Number(*integer as f64)),
            (ParamKind::Number, Raw::Float(number)) if number.is_finite() => Some(Scalar::Number(*number)),
            (ParamKind::Text, Raw::Text(text)) => Some(Scalar::Text(text.clone())),
            (ParamKind::Boolean, Raw::Boolean(boolean)) => Some(Scalar::Boolean(*boolean)),
            (_, _) => None,
        }
    }
}
