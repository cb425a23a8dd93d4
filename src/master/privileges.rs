//! Who the workers are: the accounts that the settings name, and how a child of root becomes one of them for good.
//! Not here: files, sockets.

use crate::config::Settings;
use crate::logging::Owner;
use nix::errno::Errno;
use nix::unistd::{self, Gid, Group, Uid, User};
use std::ffi::CString;
use std::fmt;

/// Every account of the settings as numbers: looked up once, before the first fork, because the system's library may ask
/// a network, start threads and allocate for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    /// `None`: as the master.
    worker: Option<Identity>,
    pub(super) socket: SocketOwner,
}

/// Whose Unix sockets are, where that is not whoever binds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketOwner {
    pub(super) uid: Option<Uid>,
    pub(super) gid: Option<Gid>,
}

/// What a child becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

/// The step that failed on the way down.
#[derive(Debug)]
pub(super) struct StillPrivileged {
    step: &'static str,
    error: Errno,
}

impl fmt::Display for StillPrivileged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step={} error=\"{}\"", self.step, self.error.desc())
    }
}

impl Accounts {
    /// Looks up `user`, `group`, `socket_user` and `socket_group`.
    ///
    /// # Errors
    /// When there is no such account, or this process may not become it; the message is whole.
    pub(crate) fn look_up(settings: &Settings) -> Result<Accounts, String> {
        let user = settings.user.as_deref().map(|name| find_user(settings, "user", name)).transpose()?;
        let group = settings.group.as_deref().map(|name| find_group(settings, "group", name)).transpose()?;
        let worker = worker(settings, user, group)?;
        let socket_user = match settings.socket_user.as_deref() {
            Some(name) => Some(find_user(settings, "socket_user", name)?.uid),
            None => worker.as_ref().map(|worker| worker.uid),
        };
        let socket_group = match settings.socket_group.as_deref() {
            Some(name) => Some(find_group(settings, "socket_group", name)?),
            None => worker.as_ref().map(|worker| worker.gid),
        };
        if let (Some(uid), Some(name)) = (socket_user, &settings.socket_user) {
            only_root_gives(settings, "socket_user", name, uid == Uid::effective())?;
        }
        Ok(Accounts { worker, socket: SocketOwner { uid: socket_user, gid: socket_group } })
    }

    /// Whose the log files are, where that is not the master.
    pub(crate) fn log_owner(&self) -> Option<Owner> {
        self.worker.as_ref().map(|worker| Owner { uid: worker.uid.as_raw(), gid: worker.gid.as_raw() })
    }

    /// For a child, before any code of the app: becomes what the settings say, for good. The kernel then forgets the
    /// child's PDEATHSIG (prctl(2)), which is to be set again.
    pub(super) fn step_down(&self) -> Result<(), StillPrivileged> {
        self.worker.as_ref().map_or(Ok(()), Identity::assume)
    }
}

impl Identity {
    /// The groups first and the user last: after setuid(2) nobody may do the rest. Then looks whether it came true.
    fn assume(&self) -> Result<(), StillPrivileged> {
        let step = |step, result: nix::Result<()>| result.map_err(|error| StillPrivileged { step, error });
        step("setgroups", unistd::setgroups(&self.groups))?;
        step("setgid", unistd::setgid(self.gid))?;
        step("setuid", unistd::setuid(self.uid))?;
        step("verify", if self.is_true() { Ok(()) } else { Err(Errno::EPERM) })
    }

    fn is_true(&self) -> bool {
        let uids = unistd::getresuid()
            .is_ok_and(|ids| [ids.real, ids.effective, ids.saved].iter().all(|uid| *uid == self.uid));
        let gids = unistd::getresgid()
            .is_ok_and(|ids| [ids.real, ids.effective, ids.saved].iter().all(|gid| *gid == self.gid));
        let groups = unistd::getgroups().is_ok_and(|groups| {
            groups.iter().all(|group| self.groups.contains(group)) && groups.len() == self.groups.len()
        });
        let root = Uid::from_raw(0);
        let way_back = self.uid != root && (unistd::setuid(root).is_ok() || unistd::seteuid(root).is_ok());
        uids && gids && groups && !way_back
    }
}

/// What the settings make of the workers; `None` where they stay what the master is.
fn worker(
    settings: &Settings,
    user: Option<Account>,
    group: Option<Gid>,
) -> Result<Option<Identity>, String> {
    if let (Some(user), Some(name)) = (&user, &settings.user) {
        only_root_gives(settings, "user", name, user.uid == Uid::effective())?;
    }
    if let (Some(gid), Some(name)) = (group, &settings.group) {
        only_root_gives(settings, "group", name, gid == Gid::effective())?;
    }
    if !Uid::effective().is_root() || (user.is_none() && group.is_none()) {
        return Ok(None);
    }
    let Some(user) = user else {
        return Ok(group.map(|gid| Identity { uid: Uid::effective(), gid, groups: vec![gid] }));
    };
    let Some(gid) = group.or(user.gid) else {
        let number = user.uid.to_string();
        return Err(settings.refusal("user", &number, "a number that no account has only with a group"));
    };
    let mut groups = match &user.name {
        Some(name) => unistd::getgrouplist(name, gid)
            .map_err(|error| format!("user: its groups could not be looked up: {}", error.desc()))?,
        None => vec![gid],
    };
    groups.sort_unstable_by_key(|gid| gid.as_raw());
    groups.dedup();
    Ok(Some(Identity { uid: user.uid, gid, groups }))
}

fn only_root_gives(settings: &Settings, key: &str, name: &str, is_self: bool) -> Result<(), String> {
    if is_self || Uid::effective().is_root() {
        return Ok(());
    }
    Err(settings.refusal(key, name, "what the server is started as; only root can give another"))
}

/// A user; name and group are missing where the number has no account.
struct Account {
    uid: Uid,
    gid: Option<Gid>,
    name: Option<CString>,
}

fn find_user(settings: &Settings, key: &str, name: &str) -> Result<Account, String> {
    let number = name.parse().ok().map(Uid::from_raw);
    let found = match number {
        Some(uid) => User::from_uid(uid),
        None => User::from_name(name),
    };
    match (found, number) {
        (Ok(Some(user)), _) => {
            Ok(Account { uid: user.uid, gid: Some(user.gid), name: CString::new(user.name).ok() })
        }
        (Ok(None), Some(uid)) => Ok(Account { uid, gid: None, name: None }),
        (Ok(None), None) => Err(settings.refusal(key, name, "a user that this system knows")),
        (Err(error), _) => Err(format!("{key}: {name} could not be looked up: {}", error.desc())),
    }
}

fn find_group(settings: &Settings, key: &str, name: &str) -> Result<Gid, String> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(settings.refusal(key, name, "a group that this system knows")),
        Err(error) => Err(format!("{key}: {name} could not be looked up: {}", error.desc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(user: &str, group: &str) -> Result<Accounts, String> {
        let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Accounts::look_up(&Settings { user: some(user), group: some(group), ..Settings::default() })
    }

    #[test]
    fn nothing_is_looked_up_where_nothing_is_named() {
        let accounts = look_up("", "").unwrap();
        assert_eq!((accounts.worker, accounts.socket), (None, SocketOwner::default()));
    }

    #[test]
    fn accounts_that_there_are_not_are_refused() {
        for (user, group, message) in [
            (
                "no-such-user",
                "",
                "default: user: got \"no-such-user\"; allowed: a user that this system knows",
            ),
            (
                "",
                "no-such-group",
                "default: group: got \"no-such-group\"; allowed: a group that this system knows",
            ),
        ] {
            assert_eq!(look_up(user, group).unwrap_err(), message);
        }
    }

    #[test]
    fn root_may_name_anybody_and_others_only_themselves() {
        if !Uid::effective().is_root() {
            let me = (Uid::effective().to_string(), Gid::effective().to_string());
            assert_eq!(look_up(&me.0, &me.1).unwrap().worker, None);
            assert!(look_up("0", "").unwrap_err().contains("only root"));
            assert!(look_up("", "0").unwrap_err().contains("only root"));
            eprintln!("skipped: what root may name, as this is not root");
            return;
        }
        let identity = |uid, gid, groups: &[u32]| {
            let groups = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            Some(Identity { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups })
        };
        for (user, group, wanted) in [
            ("0", "0", identity(0, 0, &[0])),
            ("", "7", identity(0, 7, &[7])),
            ("54321", "54322", identity(54321, 54322, &[54322])),
        ] {
            assert_eq!(look_up(user, group).unwrap().worker, wanted, "{user:?} {group:?}");
        }
        assert!(look_up("54321", "").unwrap_err().contains("only with a group"));
    }
}
