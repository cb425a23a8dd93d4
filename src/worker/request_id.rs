//! Names for requests: the one that a trusted proxy gave, or one of our own. Not here: where they are written.

use crate::app::RequestId;
use crate::scoreboard::now_micros;
use http::{HeaderName, HeaderValue, Request};
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::process;

/// The longest id that is taken over.
const MAX_BYTES: usize = 128;

pub(super) struct RequestIds {
    name: HeaderName,
    /// Differs between workers, before and after any restart.
    seed: u64,
}

thread_local! {
    /// How many this worker has made: the event loop alone makes them.
    static MADE: Cell<u64> = const { Cell::new(0) };
}

impl RequestIds {
    /// `None` where the setting is empty.
    pub(super) fn new(name: &str) -> Option<RequestIds> {
        let name = name.parse().ok()?;
        // The hasher's keys may have been thrown before the fork, so the process and the time are in it, too.
        let seed = RandomState::new().hash_one((process::id(), now_micros()));
        Some(RequestIds { name, seed })
    }

    /// The request's id, which the app finds in its field.
    pub(super) fn give<B>(&self, request: &mut Request<B>, is_trusted: bool) -> RequestId {
        let given = request.headers().get(&self.name).filter(|_| is_trusted);
        let id = match given.and_then(|value| value.to_str().ok()).filter(|value| is_valid(value)) {
            Some(given) => RequestId::new(given),
            None => {
                let number = MADE.replace(MADE.get().wrapping_add(1));
                RequestId::new(&format!("{:016x}{number:016x}", self.seed))
            }
        };
        request.headers_mut().insert(self.name.clone(), value(&id));
        id
    }

    pub(super) fn name(&self) -> &HeaderName {
        &self.name
    }
}

pub(super) fn value(id: &RequestId) -> HeaderValue {
    HeaderValue::from_str(id.as_str()).expect("it is made of printable characters")
}

/// What no log and no shell takes for anything else.
fn is_valid(id: &str) -> bool {
    (1..=MAX_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=~@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn an_id_is_taken_over_from_whom_is_trusted_if_it_is_valid() {
        let ids = RequestIds::new("x-request-id").unwrap();
        let long = "a".repeat(MAX_BYTES + 1);
        for (given, is_trusted, is_kept) in [
            ("a1-_.:/+=~@", true, true),
            (&long[1..], true, true),
            (long.as_str(), true, false),
            ("a b", true, false),
            ("a\"", true, false),
            ("", true, false),
            ("a1", false, false),
        ] {
            let mut request = Request::get("/").header("x-request-id", given).body(()).unwrap();
            let id = ids.give(&mut request, is_trusted);
            assert_eq!(id.as_str() == given, is_kept, "{given:?}");
            let in_field = request.headers().get_all("x-request-id").iter().collect::<Vec<_>>();
            assert_eq!(in_field, [id.as_str()]);
        }
    }

    #[test]
    fn no_two_are_the_same() {
        let makers = [RequestIds::new("a").unwrap(), RequestIds::new("a").unwrap()];
        let made = (0..1000).map(|number| makers[number % 2].give(&mut Request::new(()), true).to_string());
        assert_eq!(made.collect::<HashSet<String>>().len(), 1000);
        assert!(RequestIds::new("").is_none());
    }
}
