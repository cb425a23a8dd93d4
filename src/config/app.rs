//! The `[app]` table of the file: settings of the app's own, as a type that the app declares. Not here: what they mean.

use super::file::{Reader, filled_in, raw};
use super::values::quoted;
use super::{Environment, Settings};
use serde::de::DeserializeOwned;
use std::any::{Any, type_name};
use std::fmt::{self, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

type Value = Arc<dyn Any + Send + Sync>;

/// The value, and the paths of the keys that its type does not know.
type Read = (Result<Value, toml::de::Error>, Vec<String>);

/// The type that an app declares for its table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppType {
    name: &'static str,
    read: fn(Spanned<DeTable<'_>>) -> Read,
}

impl AppType {
    pub(crate) fn of<T: DeserializeOwned + Send + Sync + 'static>() -> AppType {
        AppType { name: type_name::<T>(), read: read::<T> }
    }
}

fn read<T: DeserializeOwned + Send + Sync + 'static>(table: Spanned<DeTable<'_>>) -> Read {
    let mut unknown = Vec::new();
    let note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
    let value: Result<T, _> = serde_ignored::deserialize(Deserializer::from(table), note);
    (value.map(|value| Arc::new(value) as Value), unknown)
}

/// One value of the table.
#[derive(Clone)]
pub(crate) struct Entry {
    /// With the table's own name, and those of the tables between.
    pub(super) key: String,
    /// As it stands in the file: `${NAME}` and `file:PATH` are not filled in.
    pub(super) shown: String,
    /// `file:line`.
    pub(super) place: String,
    /// With all filled in.
    value: String,
}

/// What the settings keep of it.
#[derive(Clone, Default)]
pub(crate) struct AppSettings {
    value: Option<(Value, &'static str)>,
    pub(super) entries: Vec<Entry>,
}

impl fmt::Debug for AppSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries.iter().map(|entry| (&entry.key, &entry.shown))).finish()
    }
}

impl AppSettings {
    /// The keys that differ. Their values are not for the log: the server cannot know what is a secret.
    pub(super) fn differing<'a>(&'a self, serving: &'a AppSettings) -> impl Iterator<Item = &'a str> {
        let find = |of: &'a AppSettings, key: &str| of.entries.iter().find(|entry| entry.key == key);
        let gone = serving.entries.iter().filter(move |old| find(self, &old.key).is_none());
        let is_new =
            move |entry: &&Entry| find(serving, &entry.key).is_none_or(|old| old.value != entry.value);
        self.entries.iter().filter(is_new).chain(gone).map(|entry| entry.key.as_str())
    }
}

impl Settings {
    /// What the `[app]` table says, as the type that was declared with [`App::settings`](crate::App::settings).
    ///
    /// # Panics
    /// When another type was declared, or none.
    pub fn app<T: 'static>(&self) -> &T {
        let wanted = type_name::<T>();
        let (value, declared) = self.app.value.as_ref().unwrap_or_else(|| {
            panic!("the app asks for settings of the type {wanted}, which it did not declare")
        });
        value.downcast_ref().unwrap_or_else(|| {
            panic!("the app asks for settings of the type {wanted}, but declared {declared}")
        })
    }
}

/// The settings of an app whose file has no `[app]` table.
///
/// # Errors
/// What its type misses.
pub(super) fn without_table(declared: AppType, config: Option<&Path>) -> Result<AppSettings, String> {
    let (value, _) = guarded(declared, Spanned::new(0..0, DeTable::new()))?;
    let value = value.map_err(|error| {
        let place = config.map_or_else(|| "default".to_owned(), |path| path.display().to_string());
        format!("{place}: app: {}, and there is no [app] table", one_line(error.message()))
    })?;
    Ok(AppSettings { value: Some((value, declared.name)), entries: Vec::new() })
}

/// Reads the table whose key stands at `offset`; `None` where something was wrong: what, the reader has noted.
pub(super) fn read_table(
    reader: &mut Reader<'_>,
    offset: usize,
    value: &Spanned<DeValue<'_>>,
    environment: &Environment,
    declared: Option<AppType>,
) -> Option<AppSettings> {
    let Some(declared) = declared else {
        reader.problem(offset, "app: unknown setting; this program declares no settings of its own");
        return None;
    };
    let DeValue::Table(table) = value.get_ref() else {
        reader.problem(offset, "app: allowed: a section, begun by [app]");
        return None;
    };
    let mut table = table.clone();
    let mut walk = Walk { reader, environment, entries: Vec::new(), spans: Vec::new(), secrets: Vec::new() };
    if !walk.enter(&mut table, "app") {
        return None;
    }
    let value = walk.read(declared, offset, Spanned::new(value.span(), table))?;
    Some(AppSettings { value: Some((value, declared.name)), entries: walk.entries })
}

/// A table being read.
struct Walk<'a, 'r> {
    reader: &'a mut Reader<'r>,
    environment: &'a Environment,
    entries: Vec<Entry>,
    /// Where each key stands, and each value.
    spans: Vec<(Range<usize>, String)>,
    /// What was filled in.
    secrets: Vec<String>,
}

impl Walk<'_, '_> {
    /// Notes what is in a table, and fills in what its values refer to; false where that could not be done.
    fn enter(&mut self, table: &mut DeTable<'_>, under: &str) -> bool {
        let mut all_filled = true;
        for (key, value) in table.iter_mut() {
            let name = format!("{under}.{}", key_text(key.get_ref()));
            let at = key.span().start;
            self.spans.extend([(key.span(), name.clone()), (value.span(), name.clone())]);
            if let DeValue::Table(inner) = value.get_mut() {
                all_filled &= self.enter(inner, &name);
                continue;
            }
            let shown = value_text(value.get_ref());
            if let Err(what) = self.fill(value.get_mut()) {
                self.reader.problem(at, &format!("{name}: {what}"));
                all_filled = false;
            }
            let (place, value) = (self.reader.place(at), value_text(value.get_ref()));
            self.entries.push(Entry { key: name, shown, place, value });
        }
        all_filled
    }

    fn fill(&mut self, value: &mut DeValue<'_>) -> Result<(), String> {
        match value {
            DeValue::String(text) => {
                let filled = filled_in(text, self.environment)?;
                if (text.starts_with("file:") || text.contains("${")) && !filled.is_empty() {
                    self.secrets.push(filled.clone());
                }
                *text = filled.into();
                Ok(())
            }
            DeValue::Array(items) => items.iter_mut().try_for_each(|item| self.fill(item.get_mut())),
            DeValue::Table(table) => table.iter_mut().try_for_each(|(_, value)| self.fill(value.get_mut())),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => Ok(()),
        }
    }

    fn read(&mut self, declared: AppType, offset: usize, table: Spanned<DeTable<'_>>) -> Option<Value> {
        let (value, unknown) = match guarded(declared, table) {
            Ok(read) => read,
            Err(what) => {
                self.reader.problem(offset, &what);
                return None;
            }
        };
        for path in &unknown {
            let key = format!("app.{path}");
            let at = self.spans.iter().find(|(_, of)| *of == key).map_or(offset, |(span, _)| span.start);
            self.reader.problem(at, &format!("{key}: unknown setting"));
        }
        match value {
            Ok(value) => unknown.is_empty().then_some(value),
            Err(error) => {
                let at = error.span().filter(|span| !span.is_empty()).map_or(offset, |span| span.start);
                let what = self.masked(&one_line(error.message()));
                let key = self.key_at(at).to_owned();
                self.reader.problem(at, &format!("{key}: {what}"));
                None
            }
        }
    }

    /// The innermost key or value there, which is the shortest.
    fn key_at(&self, at: usize) -> &str {
        let around = self.spans.iter().filter(|(of, _)| of.contains(&at));
        around.min_by_key(|(of, _)| of.len()).map_or("app", |(_, key)| key)
    }

    /// Types tell in their errors what they were given.
    fn masked(&self, message: &str) -> String {
        let mask = |message: String, secret: &String| {
            message.replace(&format!("{secret:?}"), "***").replace(secret.as_str(), "***")
        };
        self.secrets.iter().fold(message.to_owned(), mask)
    }
}

/// It is the app's code that reads, and it must not bring the master down.
fn guarded(declared: AppType, table: Spanned<DeTable<'_>>) -> Result<Read, String> {
    catch_unwind(AssertUnwindSafe(|| (declared.read)(table)))
        .map_err(|_| "app: the app panicked as it read its settings".to_owned())
}

fn one_line(text: &str) -> String {
    text.trim().replace('\n', " ")
}

/// A value as it would stand in the file.
fn value_text(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Table(table) => {
            let mut out = String::from("{");
            for (number, (key, value)) in table.iter().enumerate() {
                let comma = if number > 0 { "," } else { "" };
                let (key, value) = (key_text(key.get_ref()), value_text(value.get_ref()));
                let _ = write!(out, "{comma} {key} = {value}");
            }
            out + " }"
        }
        DeValue::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| value_text(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Boolean(_) => raw(value).to_string(),
    }
}

fn key_text(key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !key.is_empty() && key.bytes().all(is_bare) { key.to_owned() } else { quoted(key) }
}

#[cfg(test)]
mod tests {
    use super::super::{AppKind, Source};
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Shop {
        greeting: String,
        #[serde(default)]
        token: String,
        #[serde(default)]
        limits: Limits,
        #[serde(default)]
        peers: Vec<Peer>,
    }

    #[derive(Debug, Default, Deserialize)]
    struct Limits {
        max: u8,
    }

    #[derive(Debug, Deserialize)]
    struct Peer {
        key: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(try_from = "String")]
    struct Picky;

    impl TryFrom<String> for Picky {
        type Error = String;

        fn try_from(text: String) -> Result<Picky, String> {
            assert!(text != "panic", "told to");
            Err(format!("{text} will not do"))
        }
    }

    #[derive(Debug, Deserialize)]
    struct Strict {
        #[expect(dead_code, reason = "it is refused before anybody looks")]
        name: Picky,
    }

    fn read_as(declared: Option<AppType>, text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::write(folder.path().join("secret"), "hush\"hush\n").unwrap();
        let environment = Environment::from([("TOKEN".to_owned(), "hush".to_owned())]);
        let folder = format!("{}/", folder.path().display());
        let text = text.replace("FOLDER/", &folder);
        std::fs::write(&path, text).unwrap();
        let arguments = ["-c".into(), path.into_os_string()];
        let (mut source, _) = Source::new(AppKind::Own, arguments, environment).unwrap();
        source.declare_app(declared);
        source.read().map_err(|error| error.to_string().replace(&folder, ""))
    }

    #[test]
    fn a_table_becomes_a_value_and_is_printed_without_its_secrets() {
        let text = "[app]\ngreeting = 'hi'\ntoken = '${TOKEN}'\nlimits.max = 7\n\
                    peers = [{ key = 'file:FOLDER/secret' }]\n";
        let settings = read_as(Some(AppType::of::<Shop>()), text).unwrap();
        let shop: &Shop = settings.app();
        assert_eq!((shop.greeting.as_str(), shop.token.as_str(), shop.limits.max), ("hi", "hush", 7));
        assert_eq!(shop.peers[0].key, "hush\"hush");
        let printed = settings.print();
        for (line, place) in [
            ("greeting = \"hi\"", 2),
            ("token = \"${TOKEN}\"", 3),
            ("limits.max = 7", 4),
            ("peers = [{ key = \"file:", 5),
        ] {
            let printed = printed.lines().find(|printed| printed.starts_with(line)).expect(line);
            assert!(printed.ends_with(&format!("s.toml:{place}")), "{printed}");
        }
        assert!(printed.contains("\n[app]\n"), "{printed}");
        assert!(!printed.contains("hush") && !format!("{settings:?}").contains("hush"));
    }

    #[test]
    fn every_error_has_its_place_and_no_secret() {
        let (shop, strict) = (Some(AppType::of::<Shop>()), Some(AppType::of::<Strict>()));
        for (declared, text, message) in [
            (
                shop,
                "[app]\ngreeting = 5",
                "s.toml:2: app.greeting: invalid type: integer `5`, expected a string",
            ),
            (shop, "\n[app]\ntoken = 'a'", "s.toml:2: app: missing field `greeting`"),
            (shop, "", "s.toml: app: missing field `greeting`, and there is no [app] table"),
            (
                shop,
                "[app]\ngreeting = 'a'\n[app.limits]\nmax = 256",
                "s.toml:4: app.limits.max: invalid value: integer `256`, expected u8",
            ),
            (
                shop,
                "[app]\ngreeting = 'a'\nlimits = { max = '${TOKEN}' }",
                "s.toml:3: app.limits.max: invalid type: string ***, expected u8",
            ),
            (
                shop,
                "[app]\ngreeting = 'a'\n[app.limits]\nmax = 1\nmin = 2",
                "s.toml:5: app.limits.min: unknown setting",
            ),
            (
                shop,
                "[app]\ngreeting = 'a'\ntoken = '${NOWHERE}'",
                "s.toml:3: app.token: the environment has no variable NOWHERE",
            ),
            (shop, "app = 1", "s.toml:1: app: allowed: a section, begun by [app]"),
            (
                None,
                "\n[app]\na = 1",
                "s.toml:2: app: unknown setting; this program declares no settings of its own",
            ),
            (strict, "[app]\nname = '${TOKEN}'", "s.toml:2: app.name: *** will not do"),
            (strict, "[app]\nname = 'file:FOLDER/secret'", "s.toml:2: app.name: *** will not do"),
            (strict, "[app]\nname = 'panic'", "s.toml:1: app: the app panicked as it read its settings"),
        ] {
            let error = read_as(declared, text).unwrap_err();
            assert!(error.starts_with(message), "{text:?}:\n{error}\n{message}");
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn what_changed_is_named_without_its_value() {
        let read = |text: &str| read_as(Some(AppType::of::<Shop>()), &format!("[app]\n{text}")).unwrap();
        let serving = read("greeting = 'a'\ntoken = 'b'");
        let told = |mut settings: Settings| -> Vec<String> {
            settings.follow(&serving).taken.iter().map(ToString::to_string).collect()
        };
        let changed = read("greeting = 'a'\ntoken = '${TOKEN}'\nlimits.max = 1");
        assert_eq!(told(changed), ["app.limits.max", "app.token"].map(|key| format!("{key} changed")));
        assert_eq!(told(read("greeting = 'a'")), ["app.token changed"]);
        assert_eq!(told(read("token = 'b'\n\ngreeting = 'a'")), [""; 0]);
    }
}
