//! The settings in print: `--print-config`, the reference page, the config file's comments. Not here: reading any.

use super::table::SETTINGS;
#[cfg(test)]
use super::table::Setting;
use super::{Origin, Settings};
use std::collections::BTreeMap;
use std::fmt::Write;

impl Settings {
    /// Every setting in force: its key, its value as it would stand in the file, and where it comes from; secrets masked.
    pub(crate) fn in_force(&self) -> impl Iterator<Item = (&'static str, String, String)> {
        SETTINGS.iter().map(|setting| {
            let origin = self.origins.get(setting.key).unwrap_or(&Origin::Default);
            (setting.key, (setting.show)(self), origin.to_string())
        })
    }

    /// Where the settings come from, and how many from each: `server.toml: 7, environment: 1, flags: 2, defaults: 70`.
    pub(crate) fn sources(&self) -> String {
        let (mut files, mut environment, mut flags) = (BTreeMap::new(), 0, 0);
        for origin in self.origins.values() {
            match origin {
                Origin::Default => {}
                Origin::File(path, _) => *files.entry(path.display().to_string()).or_insert(0) += 1,
                Origin::Environment(_) => environment += 1,
                Origin::Flag(_) => flags += 1,
            }
        }
        let given: usize = files.values().sum::<usize>() + environment + flags;
        let mut sources: Vec<(String, usize)> = files.into_iter().collect();
        sources.extend([("environment".to_owned(), environment), ("flags".to_owned(), flags)]);
        sources.retain(|(_, count)| *count > 0);
        sources.push(("defaults".to_owned(), SETTINGS.len().saturating_sub(given)));
        let sources: Vec<String> =
            sources.into_iter().map(|(source, count)| format!("{source}: {count}")).collect();
        sources.join(", ")
    }

    /// Why there are so many workers.
    pub(crate) fn workers_reason(&self) -> String {
        match self.origins.get("workers") {
            Some(origin) if !self.workers_are_auto => origin.to_string(),
            Some(_) | None if self.workers == self.max_workers => {
                "auto, and no more than max_workers".to_owned()
            }
            Some(_) | None => "auto: the processors that this process may use".to_owned(),
        }
    }

    /// What only an upgrade or a restart changes.
    pub(crate) fn fixed(&self) -> Vec<&'static str> {
        SETTINGS.iter().filter(|setting| setting.is_fixed(self)).map(|setting| setting.key).collect()
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
