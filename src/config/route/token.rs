//! A route's bearer tokens, of which the server only knows the hashes. Not here: comparing them.

use super::fields::Fields;
use crate::config::file::{load, raw};
use crate::config::values;
use std::fmt;
use std::path::Path;

/// The SHA-256 of a token. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub [u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// What is wrong is said without the value: it may be a token that was not hashed.
const ALLOWED: &str =
    "sha256: and 64 hexadecimal digits, or file:PATH of a file with such lines; in an array or one string";

pub(super) fn read(fields: &mut Fields<'_, '_>) -> Vec<Token> {
    let Some((at, value)) = fields.value("tokens") else { return Vec::new() };
    let mut tokens = Vec::new();
    let given = values::list(&raw(value.get_ref())).unwrap_or_default();
    for one in &given {
        let read = match one.strip_prefix("file:") {
            Some(path) => from_file(Path::new(path)),
            None => hash(one)
                .map(|token| vec![token])
                .ok_or(format!("got what is not shown here; allowed: {ALLOWED}")),
        };
        match read {
            Ok(read) => tokens.extend(read),
            Err(what) => fields.reader.problem(at, &format!("route.tokens: {what}")),
        }
    }
    if given.is_empty() {
        // An empty list would let everybody in.
        fields.reader.problem(at, &format!("route.tokens: allowed: {ALLOWED}"));
    }
    tokens
}

/// One hash a line; blank lines, and those that begin with `#`, are skipped.
fn from_file(path: &Path) -> Result<Vec<Token>, String> {
    let text = load(path).map_err(|what| format!("file:{}: {what}", path.display()))?;
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        tokens.push(hash(line).ok_or(format!(
            "file:{}:{}: allowed: sha256: and 64 hexadecimal digits",
            path.display(),
            number + 1
        ))?);
    }
    if tokens.is_empty() { Err(format!("file:{}: has no token", path.display())) } else { Ok(tokens) }
}

fn hash(text: &str) -> Option<Token> {
    let digits = text.strip_prefix("sha256:")?;
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(Token(hash))
}
