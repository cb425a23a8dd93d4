//! Named parameters in SQL: finds each `:name` and writes the placeholder that the database knows.
//! Not here: whether a name is declared, and the values.
//!
//! This is a scanner, not a parser. It knows just enough of each dialect to tell code from what only looks like it:
//! strings, quoted identifiers, comments, casts. The statement is otherwise passed on as it was written.

use std::fmt;

/// Which database reads the statement; quoting and comments differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app::routes) enum Dialect {
    /// `$1`, strings `''`, `E''` and `$tag$…$tag$`, nested comments. Source: PostgreSQL 15, "4.1 Lexical Structure".
    Postgres,
    /// `?1`, strings `''`, identifiers also in backticks and `[ ]`, flat comments. Source: sqlite.org, "SQLite Keywords"
    /// and "SQL Comment Syntax".
    Sqlite,
}

/// A statement that a database can prepare.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) text: String,
    /// The names in the order of their placeholders; a name used twice is here once.
    pub(super) names: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum SqlError {
    /// A string, quoted identifier or comment that starts in this line (from 1) of the statement never ends.
    Unterminated { what: &'static str, line: usize },
    /// A placeholder that is not `:name`.
    Placeholder(String),
    /// Something follows the `;`.
    SeveralStatements,
    /// Nothing but blanks and comments.
    Empty,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SqlError::Unterminated { what, line } => {
                write!(f, "the {what} that starts in line {line} of the sql never ends")
            }
            SqlError::Placeholder(found) => {
                write!(f, "the sql has a placeholder {found:?}; write a parameter as :name")
            }
            SqlError::SeveralStatements => f.write_str("the sql has more than one statement"),
            SqlError::Empty => f.write_str("the sql has no statement"),
        }
    }
}

/// Replaces each `:name` by `$1` or `?1` and so on, and drops what follows a final `;`.
pub(super) fn translate(sql: &str, dialect: Dialect) -> Result<Statement, SqlError> {
    let scanner = Scanner { sql, bytes: sql.as_bytes(), dialect };
    let mut statement = Statement { text: String::with_capacity(sql.len()), names: Vec::new() };
    let (mut at, mut started, mut ended) = (0, false, false);
    while at < sql.len() {
        let (piece, end) = scanner.piece(at)?;
        let text = &sql[at..end];
        at = end;
        match piece {
            Piece::Blank if ended => continue,
            Piece::Blank => statement.text.push_str(text),
            Piece::Semicolon => ended = started,
            Piece::Placeholder => return Err(SqlError::Placeholder(text.into())),
            Piece::Code | Piece::Parameter if ended => return Err(SqlError::SeveralStatements),
            Piece::Code => {
                started = true;
                statement.text.push_str(text);
            }
            Piece::Parameter => {
                started = true;
                let number = number_of(&text[1..], &mut statement.names);
                let sign = match dialect {
                    Dialect::Postgres => '$',
                    Dialect::Sqlite => '?',
                };
                statement.text.push_str(&format!("{sign}{number}"));
            }
        }
    }
    if started { Ok(statement) } else { Err(SqlError::Empty) }
}

/// The number of `name`'s placeholder, from 1.
fn number_of(name: &str, names: &mut Vec<String>) -> usize {
    match names.iter().position(|known| known == name) {
        Some(index) => index + 1,
        None => {
            names.push(name.into());
            names.len()
        }
    }
}

enum Piece {
    /// White space or a comment.
    Blank,
    Semicolon,
    /// A colon and a name.
    Parameter,
    /// The database's own placeholder, which would be left without a value.
    Placeholder,
    /// Anything else, quoted text whole.
    Code,
}

struct Scanner<'a> {
    sql: &'a str,
    bytes: &'a [u8],
    dialect: Dialect,
}

impl Scanner<'_> {
    /// The piece that starts at `at`, and where it ends; both are always between characters.
    fn piece(&self, at: usize) -> Result<(Piece, usize), SqlError> {
        let (first, second) = (self.bytes[at], self.byte(at + 1));
        let code = |end| Ok((Piece::Code, end));
        match (first, second) {
            (b';', _) => Ok((Piece::Semicolon, at + 1)),
            (b'-', Some(b'-')) => Ok((Piece::Blank, self.while_in(at, |byte| byte != b'\n'))),
            (b'/', Some(b'*')) => Ok((Piece::Blank, self.comment(at)?)),
            (b'\'', _) => code(self.quoted(at, b'\'', "string")?),
            (b'"', _) => code(self.quoted(at, b'"', "quoted identifier")?),
            (b':', Some(b':')) => code(at + 2),
            (b':', Some(next)) if self.starts_name(next) => {
                Ok((Piece::Parameter, self.while_in(at + 1, |byte| self.in_name(byte))))
            }
            _ if first.is_ascii_whitespace() => {
                Ok((Piece::Blank, self.while_in(at, |byte| byte.is_ascii_whitespace())))
            }
            _ if first.is_ascii_digit() => code(self.while_in(at, |byte| in_word(byte) || byte == b'.')),
            _ if in_word(first) && first != b'$' => self.word(at),
            _ => match self.dialect {
                Dialect::Postgres => self.postgres_piece(at),
                Dialect::Sqlite => self.sqlite_piece(at),
            },
        }
    }

    fn postgres_piece(&self, at: usize) -> Result<(Piece, usize), SqlError> {
        if self.bytes[at] != b'$' {
            return Ok((Piece::Code, at + 1));
        }
        if self.byte(at + 1).is_some_and(|next| next.is_ascii_digit()) {
            return Ok((Piece::Placeholder, self.while_in(at + 1, |byte| byte.is_ascii_digit())));
        }
        let tag_end = self.while_in(at + 1, |byte| in_word(byte) && byte != b'$');
        if self.byte(tag_end) != Some(b'$') {
            return Ok((Piece::Code, at + 1));
        }
        let (tag, start) = (&self.sql[at..=tag_end], tag_end + 1);
        match self.sql[start..].find(tag) {
            Some(length) => Ok((Piece::Code, start + length + tag.len())),
            None => Err(self.unterminated("string", at)),
        }
    }

    fn sqlite_piece(&self, at: usize) -> Result<(Piece, usize), SqlError> {
        match (self.bytes[at], self.byte(at + 1)) {
            (b'`', _) => Ok((Piece::Code, self.quoted(at, b'`', "quoted identifier")?)),
            (b'[', _) => Ok((Piece::Code, self.quoted(at, b']', "quoted identifier")?)),
            (b'?', _) => Ok((Piece::Placeholder, self.while_in(at + 1, in_word))),
            (b'@' | b'$' | b'#', Some(next)) if in_word(next) => {
                Ok((Piece::Placeholder, self.while_in(at + 1, in_word)))
            }
            _ => Ok((Piece::Code, at + 1)),
        }
    }

    /// A keyword or name; with PostgreSQL's `E'…'` the string that it belongs to as well.
    fn word(&self, at: usize) -> Result<(Piece, usize), SqlError> {
        let end = self.while_in(at, in_word);
        let escapes = self.dialect == Dialect::Postgres
            && self.sql[at..end].eq_ignore_ascii_case("e")
            && self.byte(end) == Some(b'\'');
        Ok((Piece::Code, if escapes { self.escape_string(end)? } else { end }))
    }

    /// Where a quoted text ends. A doubled quote ends it too: the next piece then goes on, which comes to the same.
    fn quoted(&self, at: usize, close: u8, what: &'static str) -> Result<usize, SqlError> {
        let end = self.while_in(at + 1, |byte| byte != close);
        if end < self.bytes.len() { Ok(end + 1) } else { Err(self.unterminated(what, at)) }
    }

    /// Where a string with backslashes ends; here a doubled quote must not end it, the rest has backslashes as well.
    fn escape_string(&self, start: usize) -> Result<usize, SqlError> {
        let mut at = start + 1;
        loop {
            match (self.byte(at), self.byte(at + 1)) {
                (Some(b'\\'), _) | (Some(b'\''), Some(b'\'')) => at += 2,
                (Some(b'\''), _) => return Ok(at + 1),
                (Some(_), _) => at += 1,
                (None, _) => return Err(self.unterminated("string", start)),
            }
        }
    }

    fn comment(&self, start: usize) -> Result<usize, SqlError> {
        let nests = self.dialect == Dialect::Postgres;
        let (mut at, mut depth) = (start + 2, 1);
        while depth > 0 {
            match (self.byte(at), self.byte(at + 1)) {
                (Some(b'*'), Some(b'/')) => (at, depth) = (at + 2, depth - 1),
                (Some(b'/'), Some(b'*')) if nests => (at, depth) = (at + 2, depth + 1),
                (Some(_), _) => at += 1,
                (None, _) => return Err(self.unterminated("comment", start)),
            }
        }
        Ok(at)
    }

    /// SQLite takes `:1` for a parameter; in PostgreSQL it is the end of an array slice.
    fn starts_name(&self, byte: u8) -> bool {
        self.in_name(byte) && (self.dialect == Dialect::Sqlite || !byte.is_ascii_digit())
    }

    fn in_name(&self, byte: u8) -> bool {
        in_word(byte) && (self.dialect == Dialect::Sqlite || byte != b'$')
    }

    fn while_in(&self, from: usize, accept: impl Fn(u8) -> bool) -> usize {
        self.bytes[from..]
            .iter()
            .position(|&byte| !accept(byte))
            .map_or(self.bytes.len(), |length| from + length)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    fn unterminated(&self, what: &'static str, at: usize) -> SqlError {
        SqlError::Unterminated { what, line: 1 + self.sql[..at].matches('\n').count() }
    }
}

/// Letters, digits, `_`, `$`, and every byte of a character beyond ASCII, so that none is cut in two.
fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Dialect::{Postgres, Sqlite};

    #[test]
    fn names_are_found_in_code_alone() {
        let both = [Postgres, Sqlite].as_slice();
        let (postgres, sqlite) = ([Postgres].as_slice(), [Sqlite].as_slice());
        // Written with `#1` for the placeholder of either database.
        let table: &[(&[Dialect], &str, &str, &[&str])] = &[
            (both, "SELECT 1", "SELECT 1", &[]),
            (both, "SELECT :a, :b, :a", "SELECT #1, #2, #1", &["a", "b"]),
            (both, ":a", "#1", &["a"]),
            (both, "(:a1,:_b)=:c", "(#1,#2)=#3", &["a1", "_b", "c"]),
            (both, "SELECT :größe", "SELECT #1", &["größe"]),
            (both, "SELECT ':a', :b", "SELECT ':a', #1", &["b"]),
            (both, "SELECT 'it''s :a', :b", "SELECT 'it''s :a', #1", &["b"]),
            (both, r"SELECT '\', :b", r"SELECT '\', #1", &["b"]),
            (both, r#"SELECT ":a", "x"":y", :b"#, r#"SELECT ":a", "x"":y", #1"#, &["b"]),
            (both, "SELECT 1 -- :a ' \n, :b", "SELECT 1 -- :a ' \n, #1", &["b"]),
            (both, "SELECT 1 --:a", "SELECT 1 --:a", &[]),
            (both, "SELECT 1 - -:a", "SELECT 1 - -#1", &["a"]),
            (both, "SELECT /* :a ' */ :b", "SELECT /* :a ' */ #1", &["b"]),
            (both, "SELECT 4/2*:b", "SELECT 4/2*#1", &["b"]),
            (both, "SELECT 'ä:a', :b", "SELECT 'ä:a', #1", &["b"]),
            (both, "SELECT a : b", "SELECT a : b", &[]),
            (both, "SELECT :a;", "SELECT #1", &["a"]),
            (both, "SELECT :a ; -- done\n ;", "SELECT #1 ", &["a"]),
            (both, "; SELECT ':;', :a", " SELECT ':;', #1", &["a"]),
            (both, "SELECT a$b, :c", "SELECT a$b, #1", &["c"]),
            (postgres, "SELECT :a::text, b::int", "SELECT #1::text, b::int", &["a"]),
            (postgres, "SELECT x[1:2], f(a := :b)", "SELECT x[1:2], f(a := #1)", &["b"]),
            (postgres, r"SELECT E'\':a', :b", r"SELECT E'\':a', #1", &["b"]),
            (postgres, r"SELECT e'a''\':a', :b", r"SELECT e'a''\':a', #1", &["b"]),
            (postgres, r"SELECT E'\\', :b", r"SELECT E'\\', #1", &["b"]),
            (postgres, r"SELECT namE'\', :b", r"SELECT namE'\', #1", &["b"]),
            (postgres, "SELECT $$ ' :a $$, :b", "SELECT $$ ' :a $$, #1", &["b"]),
            (postgres, "SELECT $q$ $$ :a $q $q$, :b", "SELECT $q$ $$ :a $q $q$, #1", &["b"]),
            (postgres, "SELECT x$$, :b, y$$", "SELECT x$$, #1, y$$", &["b"]),
            (postgres, "SELECT /* a /* :b */ :c */ :d", "SELECT /* a /* :b */ :c */ #1", &["d"]),
            (postgres, "SELECT a ? 'b' AND c @> :d", "SELECT a ? 'b' AND c @> #1", &["d"]),
            (postgres, "SELECT :a$", "SELECT #1$", &["a"]),
            (postgres, "SELECT [':a', :b]", "SELECT [':a', #1]", &["b"]),
            (sqlite, "SELECT [:a], `:b`, :c", "SELECT [:a], `:b`, #1", &["c"]),
            (sqlite, "SELECT /* a /* :b */ :c", "SELECT /* a /* :b */ #1", &["c"]),
            (sqlite, r"SELECT E'\', :b", r"SELECT E'\', #1", &["b"]),
            (sqlite, "SELECT :1", "SELECT #1", &["1"]),
        ];
        for (dialects, sql, text, names) in table {
            for &dialect in *dialects {
                let sign = if dialect == Postgres { "$" } else { "?" };
                let expected = Statement {
                    text: text.replace('#', sign),
                    names: names.iter().map(|name| name.to_string()).collect(),
                };
                assert_eq!(translate(sql, dialect), Ok(expected), "{dialect:?}: {sql}");
            }
        }
    }

    #[test]
    fn what_cannot_be_passed_on_is_refused() {
        let unterminated = |what, line| SqlError::Unterminated { what, line };
        let placeholder = |text: &str| SqlError::Placeholder(text.into());
        let table = [
            (Postgres, "SELECT\n 'a", unterminated("string", 2)),
            (Postgres, r"SELECT E'\'", unterminated("string", 1)),
            (Postgres, r"SELECT E'\", unterminated("string", 1)),
            (Postgres, "SELECT $a$ $b$", unterminated("string", 1)),
            (Postgres, "SELECT \"a", unterminated("quoted identifier", 1)),
            (Postgres, "SELECT 1 /* /* */", unterminated("comment", 1)),
            (Sqlite, "SELECT 1\n\n/*", unterminated("comment", 3)),
            (Sqlite, "SELECT [a", unterminated("quoted identifier", 1)),
            (Postgres, "SELECT $12", placeholder("$12")),
            (Sqlite, "SELECT ?", placeholder("?")),
            (Sqlite, "SELECT ?2 ", placeholder("?2")),
            (Sqlite, "SELECT @a", placeholder("@a")),
            (Sqlite, "SELECT $a", placeholder("$a")),
            (Sqlite, "SELECT 1; SELECT 2", SqlError::SeveralStatements),
            (Postgres, "SELECT 1; :a", SqlError::SeveralStatements),
            (Postgres, " -- nothing\n ;", SqlError::Empty),
            (Sqlite, "", SqlError::Empty),
        ];
        for (dialect, sql, expected) in table {
            assert_eq!(translate(sql, dialect), Err(expected), "{dialect:?}: {sql}");
        }
    }
}
