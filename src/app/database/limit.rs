//! Whether the database has room for the server's budget of connections. Not here: when that is asked, and what follows.

use super::budget::Budget;
use super::dial::{Contact, Dialer, describe};
use crate::config::{DatabaseUrl, Settings};
use crate::scoreboard::Board;
use postgres::{Client, SimpleQueryMessage};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// How long to wait for a token to ask with, and for the whole answer.
const TOKEN_WAIT: Duration = Duration::from_secs(2);
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// What the server keeps for others is not for this one; a role and a database may have limits of their own.
/// <https://www.postgresql.org/docs/current/runtime-config-connection.html>
const ASK: &str = "SELECT current_setting('max_connections'), current_setting('superuser_reserved_connections'), \
     coalesce(current_setting('reserved_connections', true), '0'), \
     (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user), \
     (SELECT datconnlimit FROM pg_database WHERE datname = current_database())";

/// What the database said.
pub(crate) enum Verdict {
    /// It has room, or there is no budget.
    Holds,
    /// It has not; the arithmetic.
    TooFew(String),
    /// It could not be asked; why.
    Unknown(String),
}

/// The numbers that decide.
#[derive(Debug, Clone, Copy)]
struct Room {
    max: i64,
    superusers: i64,
    reserved: i64,
    /// -1: no limit.
    role: i64,
    database: i64,
}

/// Asks the database, and blocks for at most a few seconds. Leaves a thread behind where it hangs.
pub(crate) fn check(settings: &Settings, board: Board) -> Verdict {
    let (Some(DatabaseUrl::Postgres(url)), Some(budget)) =
        (&settings.database.url, Budget::new(settings, board))
    else {
        return Verdict::Holds;
    };
    let dialer = match Dialer::new(url, &format!("{}/limit", settings.proc_name)) {
        Ok(dialer) => dialer,
        Err(reason) => return Verdict::Unknown(reason),
    };
    let (tell, told) = mpsc::channel();
    let asking = thread::Builder::new().name("limit".into()).spawn(move || tell.send(ask(&dialer, &budget)));
    let answer = asking.map_err(|error| error.to_string()).and_then(|_| {
        told.recv_timeout(ANSWER_WAIT).unwrap_or_else(|_| Err("no answer within 5 s".to_owned()))
    });
    match answer {
        Ok(room) => room.judge(settings.database.max_connections as i64),
        Err(reason) => Verdict::Unknown(reason),
    }
}

fn ask(dialer: &Dialer, budget: &Arc<Budget>) -> Result<Room, String> {
    let mut token = budget.take_aside(TOKEN_WAIT).ok_or("somebody else asks the whole time")?;
    let contact = Arc::new(Contact::default());
    token.accompany(&contact);
    let mut client = dialer.dial(&contact).map_err(|error| describe(&error))?;
    let room = Room::ask(&mut client);
    // Before its token.
    drop(client);
    drop(token);
    room
}

/// Says in the log when the database has no room, over a connection that there is.
pub(super) fn check_over(client: &mut Client, budget: usize) {
    if let Ok(Verdict::TooFew(reason)) = Room::ask(client).map(|room| room.judge(budget as i64)) {
        log::error!("database limit too low reason=\"{reason}\"");
    }
}

impl Room {
    fn ask(client: &mut Client) -> Result<Room, String> {
        let answer = client.simple_query(ASK).map_err(|error| describe(&error))?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None, // not our enum
        });
        let row = row.ok_or("it did not say")?;
        let number = |at, absent| row.get(at).map_or(Some(absent), |text| text.parse::<i64>().ok());
        let numbers = [number(0, 0), number(1, 0), number(2, 0), number(3, -1), number(4, -1)];
        let [Some(max), Some(superusers), Some(reserved), Some(role), Some(database)] = numbers else {
            return Err("what it said is no number".to_owned());
        };
        Ok(Room { max, superusers, reserved, role, database })
    }

    fn judge(self, budget: i64) -> Verdict {
        let Room { max, superusers, reserved, role, database } = self;
        let room = max - superusers - reserved;
        let limits = [
            (
                room,
                format!(
                    "{room} = max_connections {max} - superuser_reserved_connections {superusers} - reserved_connections {reserved}"
                ),
            ),
            (role, format!("{role}, the limit of its role")),
            (database, format!("{database}, the limit of the database")),
        ];
        let least = limits.into_iter().filter(|(limit, _)| *limit >= 0).min_by_key(|(limit, _)| *limit);
        match least {
            Some((limit, why)) if limit < budget => Verdict::TooFew(format!(
                "database.max_connections is {budget}, but the database has room for {why}"
            )),
            Some(_) | None => Verdict::Holds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_the_limits_counts() {
        let free = Room { max: 100, superusers: 3, reserved: 2, role: -1, database: -1 };
        let rows = [
            (free, 95, None),
            (
                free,
                96,
                Some("95 = max_connections 100 - superuser_reserved_connections 3 - reserved_connections 2"),
            ),
            (Room { role: 10, ..free }, 10, None),
            (Room { role: 10, ..free }, 11, Some("10, the limit of its role")),
            (Room { role: 10, database: 0, ..free }, 5, Some("0, the limit of the database")),
        ];
        for (room, budget, expected) in rows {
            let verdict = match room.judge(budget) {
                Verdict::TooFew(why) => Some(why),
                Verdict::Holds => None,
                Verdict::Unknown(why) => panic!("{why}"),
            };
            let expected = expected.map(|why| {
                format!("database.max_connections is {budget}, but the database has room for {why}")
            });
            assert_eq!(verdict, expected, "{room:?}");
        }
    }
}
