//! The settings in print: `--print-config`, the reference page, the config file's comments. Not here: reading any.

use super::table::SETTINGS;
#[cfg(test)]
use super::table::Setting;
use super::{Origin, Settings};
use std::fmt::Write;

impl Settings {
    /// Every setting in force: its key, its value as it would stand in the file, and where it comes from; secrets masked.
    pub(crate) fn in_force(&self) -> impl Iterator<Item = (&'static str, String, String)> {
        SETTINGS.iter().map(|setting| {
            let origin = self.origins.get(setting.key).unwrap_or(&Origin::Default);
            (setting.key, (setting.show)(self), origin.to_string())
        })
    }

    /// Every setting in force with where it comes from, as TOML; secrets are masked.
    pub fn print(&self) -> String {
        let of_server = self.in_force().map(|(key, value, origin)| -> (&str, _, _) { (key, value, origin) });
        let of_app = self.app.entries.iter();
        let of_app = of_app.map(|entry| (entry.key.as_str(), entry.shown.clone(), entry.place.clone()));
        let lines: Vec<(Option<&str>, String, String)> = of_server
            .chain(of_app)
            .map(|(key, value, origin)| {
                let (section, name) =
                    key.split_once('.').map_or((None, key), |(section, name)| (Some(section), name));
                (section, format!("{name} = {value}"), origin)
            })
            .collect();
        let width = lines.iter().map(|(_, value, _)| value.len()).max().unwrap_or(0).min(60);
        let mut out = String::new();
        let mut section = None;
        for (of, value, origin) in lines {
            if of != section {
                let _ = writeln!(out, "\n[{}]", of.unwrap_or_default());
                section = of;
            }
            let _ = writeln!(out, "{value:width$}  # {origin}");
        }
        for route in &self.routes {
            let _ = writeln!(out, "# route {} {}  # {}", route.methods.join(","), route.path, route.place);
        }
        out
    }
}

/// The reference of all settings, in Markdown.
pub fn reference() -> String {
    let mut out = String::from(
        "# Settings\n\nThe file's keys, with the flags that outrank them. This page is generated from the table of settings.\n",
    );
    let mut section = Some("");
    for setting in SETTINGS {
        if setting.section() != section {
            section = setting.section();
            let title = section.map_or_else(|| "The server".to_owned(), |section| format!("`[{section}]`"));
            let _ = write!(
                out,
                "\n## {title}\n\n| key | flags | default | meaning | allowed |\n|---|---|---|---|---|\n"
            );
        }
        let mut flags: Vec<String> = setting.short.iter().map(|short| format!("`-{short}`")).collect();
        flags.extend(setting.flags.iter().map(|flag| format!("`--{flag}`")));
        let _ = writeln!(
            out,
            "| `{}` | {} | `{}` | {} | {} |",
            setting.name(),
            flags.join(" "),
            setting.default,
            setting.about,
            setting.allowed
        );
    }
    out
}

/// How a setting stands in the example file: meaning, what is allowed, and the default, commented out.
#[cfg(test)]
pub(super) fn entry(setting: &Setting) -> String {
    let mut out = String::new();
    let mut line = String::from("#");
    for word in format!("{} Allowed: {}.", setting.about, setting.allowed).split(' ') {
        if line.len() + 1 + word.len() > 110 {
            out.push_str(&line);
            out.push('\n');
            line = "#".into();
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = write!(out, "{line}\n# {} = {}\n", setting.name(), setting.default);
    out
}
