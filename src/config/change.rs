//! What differs between the settings that serve and those that a reload has read. Not here: what is done about it.

use super::table::SETTINGS;
use super::{Kind, Origin, Route, Settings};
use std::collections::HashMap;
use std::fmt;

/// How many routes that differ are told one by one.
const ROUTES_TOLD: usize = 16;

/// A reload's settings beside those that serve.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// What a reload puts to use.
    pub(crate) taken: Vec<Change>,
    /// What was put to use once, at start, and stays as it is.
    pub(crate) fixed: Vec<Change>,
}

/// `Display`: `key old → new`, or `key changed` where the values are not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) values: Option<(String, String)>,
}

impl Change {
    fn untold(key: impl Into<String>) -> Change {
        Change { key: key.into(), values: None }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.values {
            Some((old, new)) => write!(f, "{} {old} → {new}", self.key),
            None => write!(f, "{} changed", self.key),
        }
    }
}

impl Settings {
    /// Makes these settings, just read, successors of those that serve: what is fixed at start is taken over. Returns how
    /// they differed. Values are as `--print-config` has them: secrets are masked.
    pub(crate) fn follow(&mut self, serving: &Settings) -> Changes {
        let mut changes = Changes::default();
        for setting in SETTINGS {
            let (old, new) = ((setting.show)(serving), (setting.show)(self));
            let is_other_secret = match setting.key {
                "database.url" => self.database.url != serving.database.url,
                "cache.notify_url" => self.cache.notify_url != serving.cache.notify_url,
                _ => false,
            };
            if old == new && !is_other_secret {
                continue;
            }
            let change = Change { key: setting.key.to_owned(), values: Some((old, new)) };
            if setting.is_fixed(serving) {
                changes.fixed.push(change);
                (setting.copy)(self, serving);
            } else {
                changes.taken.push(change);
            }
        }
        changes.taken.extend(self.app.differing(&serving.app).map(Change::untold));
        if self.has_tls() && serving.has_tls() && self.tls.files != serving.tls.files {
            changes.taken.push(Change::untold("the contents of certfile, keyfile or ca_certs"));
        }
        changes.taken.extend(routes_differing(&plain(&serving.routes), &plain(&self.routes)));
        changes
    }

    /// What is wrong with a file that was good when it was read before: half of it may have been written, or nothing.
    ///
    /// # Errors
    /// When a file that set something sets nothing, or no longer says where to listen.
    pub(crate) fn check_after(&self, serving: &Settings) -> Result<(), String> {
        if serving.file_sets_anything && !self.file_sets_anything {
            return Err("the config file is empty, and was not; to go back to defaults, restart".into());
        }
        let from_file = |settings: &Settings| match settings.origins.get("bind") {
            Some(Origin::File(path, _)) => Some(path.clone()),
            Some(Origin::Default | Origin::Environment(_) | Origin::Flag(_)) | None => None,
        };
        match (from_file(serving), from_file(self)) {
            (Some(path), None) => Err(format!(
                "{}: bind is gone, and the server listens where the file said; to listen elsewhere, name it",
                path.display()
            )),
            (Some(_), Some(_)) | (None, _) => Ok(()),
        }
    }
}

/// Beyond [`ROUTES_TOLD`] only how many there were and are.
fn routes_differing<'r>(old: &'r [Route], new: &'r [Route]) -> Vec<Change> {
    let change = |route: &Route, values: Option<[&str; 2]>| Change {
        key: format!("route {} {}", route.methods.join(","), route.path),
        values: values.map(|values| values.map(str::to_owned).into()),
    };
    let name = |route: &'r Route| (&route.path, &route.methods);
    let by_name =
        |routes: &'r [Route]| routes.iter().map(|route| (name(route), route)).collect::<HashMap<_, _>>();
    let [before, after] = [old, new].map(by_name);
    let gone = old.iter().filter(|route| !after.contains_key(&name(route)));
    let mut changes: Vec<Change> =
        gone.map(|route| change(route, Some([route.kind.name(), "none"]))).collect();
    changes.extend(new.iter().filter_map(|route| match before.get(&name(route)) {
        Some(before) => (*before != route).then(|| change(route, None)),
        None => Some(change(route, Some(["none", route.kind.name()]))),
    }));
    if changes.len() > ROUTES_TOLD {
        let values = [old, new].map(|routes| format!("{} tables", routes.len())).into();
        changes = vec![Change { key: "route".to_owned(), values: Some(values) }];
    }
    changes
}

/// The routes without their place in the file.
fn plain(routes: &[Route]) -> Vec<Route> {
    let plain = |route: &Route| {
        let mut route = Route { place: String::new(), ..route.clone() };
        if let Kind::Sql(query) | Kind::Template { query, .. } = &mut route.kind {
            query.statements.iter_mut().for_each(|statement| statement.line = 0);
        }
        route
    };
    routes.iter().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::ROUTES_TOLD;
    use crate::config::{AppKind, Settings, Source};
    use std::collections::HashMap;

    fn read(file: &str, flags: &[&str]) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        std::fs::write(&path, file).unwrap();
        let arguments = ["-c".as_ref(), path.as_os_str()];
        let arguments = arguments.into_iter().chain(flags.iter().map(AsRef::as_ref)).map(Into::into);
        Source::new(AppKind::Stock, arguments, HashMap::new()).unwrap().0.read().unwrap()
    }

    #[test]
    fn changes_are_named_with_both_values_and_no_secret() {
        let route = |text| format!("[[route]]\npath = \"/\"\nmethods = [\"GET\"]\ntext = \"{text}\"\n");
        let many =
            |text| (0..=ROUTES_TOLD).map(|n| route(text).replace("/", &format!("/{n}"))).collect::<String>();
        let statement = "[[route]]\npath = \"/\"\nsql = \"SELECT 1\"\n";
        let table = [
            ("workers = 2", "workers = 2", vec![], vec![]),
            ("workers = 2", "# moved\nworkers = 3", vec!["workers 2 → 3"], vec![]),
            ("workers = 1\ntimeout = 30", "workers = 1\ntimeout = \"30s\"", vec![], vec![]),
            ("workers = 1", "workers = 1\nmax_workers = 8", vec![], vec!["max_workers 256 → 8"]),
            (
                "[database]\nurl = \"postgres://a:one@h/d\"",
                "[database]\nurl = \"postgres://a:two@h/d\"",
                vec!["database.url \"postgres://a:***@h/d\" → \"postgres://a:***@h/d\""],
                vec![],
            ),
            (&route("a"), &route("b"), vec!["route GET / changed"], vec![]),
            (
                &route("a"),
                &route("a").replace("\"GET\"", "\"GET\", \"PUT\""),
                vec!["route GET / text → none", "route GET,PUT / none → text"],
                vec![],
            ),
            (&route("a"), statement, vec!["route GET / changed"], vec![]),
            (&many("a"), &many("b"), vec!["route 17 tables → 17 tables"], vec![]),
            (&route("a"), &format!("\n{}", route("a")), vec![], vec![]),
            (statement, &format!("\n{statement}"), vec![], vec![]),
        ];
        for (old, new, taken, fixed) in table {
            let (serving, mut read) = (read(old, &[]), read(new, &[]));
            let changes = read.follow(&serving);
            assert_eq!(read.max_workers, serving.max_workers, "it is fixed");
            let told: [Vec<String>; 2] = [changes.taken, changes.fixed]
                .map(|changes| changes.iter().map(ToString::to_string).collect());
            assert_eq!(told, [own(taken), own(fixed)], "{old:?} to {new:?}");
        }
    }

    fn own(texts: Vec<&str>) -> Vec<String> {
        texts.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_file_that_lost_what_it_said_is_no_successor() {
        let bind = "bind = \"127.0.0.1:1\"\nworkers = 1";
        let flag = ["-b", "127.0.0.1:2"];
        for (old, new, flags, wanted) in [
            (bind, bind, &[][..], true),
            (bind, "bind = \"127.0.0.1:2\"", &[], true),
            (bind, "workers = 1", &[], false),
            (bind, "workers = 1", &flag, true),
            (bind, "", &flag, false),
            ("", "", &[], true),
            ("workers = 1", "# nothing\n", &[], false),
            ("workers = 1", "threads = 1", &[], true),
        ] {
            let checked = read(new, flags).check_after(&read(old, flags));
            assert_eq!(checked.is_ok(), wanted, "{old:?} to {new:?}: {checked:?}");
        }
    }
}
