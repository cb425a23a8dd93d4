//! How the last reload came out and what it changed. The master writes it; a process that was forked before reads it here.
//! Not here: what differs between settings.

use super::text::Text;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Between the changes, and between the parts of each: no setting has these bytes.
const RECORD: char = '\u{1e}';
const UNIT: char = '\u{1f}';

/// The last one that came to an end; read from the board it is as untrusted as all that stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastReload {
    /// On the clock of `now_millis`.
    pub(crate) at: u64,
    pub(crate) is_adopted: bool,
    /// In the log's words.
    pub(crate) text: String,
    pub(crate) changes: Vec<Change>,
    /// There was no room for all of them.
    pub(crate) has_more: bool,
}

/// A setting that the file has otherwise than what served. Without values where these are secret, or not to be told in a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) setting: String,
    pub(crate) values: Option<(String, String)>,
    /// It needs an upgrade or a restart, and stayed as it was.
    pub(crate) is_fixed: bool,
}

#[derive(Default)]
#[repr(C)]
pub(super) struct Kept {
    at: AtomicU64,
    adopted: AtomicU32,
    text: Text<32>,
    changes: Text<512>,
}

impl Kept {
    pub(super) fn keep(&self, reload: &LastReload) {
        self.at.store(reload.at, Ordering::Relaxed);
        self.adopted.store(u32::from(reload.is_adopted), Ordering::Relaxed);
        self.text.write(&reload.text);
        let changes = reload.changes.iter().map(|change| {
            let kind = if change.is_fixed { "fixed" } else { "taken" };
            let (old, new) = change.values.as_ref().map_or(("", ""), |(old, new)| (old, new));
            let known = if change.values.is_some() { "told" } else { "" };
            let parts =
                [kind, &change.setting, known, old, new].map(|part| part.replace([RECORD, UNIT], " "));
            format!("{}{RECORD}", parts.join(&UNIT.to_string()))
        });
        self.changes.write(&changes.collect::<String>());
    }

    pub(super) fn read(&self) -> LastReload {
        let changes = self.changes.read_raw();
        // What was cut has no end.
        let (whole, rest) = changes.rsplit_once(RECORD).unwrap_or(("", &changes));
        LastReload {
            at: self.at.load(Ordering::Relaxed),
            is_adopted: self.adopted.load(Ordering::Relaxed) != 0,
            text: self.text.read(),
            changes: whole.split(RECORD).filter_map(change).collect(),
            has_more: !rest.is_empty(),
        }
    }

    pub(super) fn read_text(&self) -> String {
        self.text.read()
    }
}

fn change(record: &str) -> Option<Change> {
    let parts: Vec<&str> = record.split(UNIT).collect();
    let [kind, setting, known, old, new] = parts.try_into().ok()?;
    let values = (known == "told").then(|| (old.to_owned(), new.to_owned()));
    Some(Change { setting: setting.to_owned(), values, is_fixed: kind == "fixed" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(setting: &str, old: &str, new: &str) -> Change {
        Change { setting: setting.into(), values: Some((old.into(), new.into())), is_fixed: false }
    }

    #[test]
    fn what_is_kept_is_read_and_what_has_no_room_is_said() {
        let kept = Kept::default();
        assert_eq!(kept.read(), LastReload::default());
        let fixed = Change { is_fixed: true, ..taken("max_workers", "1", "2") };
        let secret = Change { setting: "app.token".into(), ..Change::default() };
        let changes = vec![taken("proc_name", "\"ä\\\"", "\"\""), fixed, secret];
        let reload = LastReload { at: 7, is_adopted: true, text: "adopted".into(), changes, has_more: false };
        kept.keep(&reload);
        assert_eq!(kept.read(), reload);
        let many = (0..500).map(|number| taken(&number.to_string(), "1", "2")).collect();
        kept.keep(&LastReload { changes: many, ..reload.clone() });
        let read = kept.read();
        assert!(read.has_more && read.changes.len() > 100, "{}", read.changes.len());
        assert!(read.changes.iter().enumerate().all(|(number, change)| change.setting == number.to_string()));
        kept.keep(&LastReload { changes: Vec::new(), ..reload });
        assert!(kept.read().changes.is_empty() && !kept.read().has_more);
    }
}
