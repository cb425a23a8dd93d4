//! A request's name, by which lines of logs and other servers speak of it. Not here: where it comes from.

use super::current::{self, Entered};
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

thread_local! {
    /// Of the request that this thread works for.
    static CURRENT: RefCell<Option<RequestId>> = const { RefCell::new(None) };
}

/// The id of a request, where the setting `request_id_header` is on. It is in the request's field of that name, too.
///
/// ```
/// fn ask_another_server() {
///     if let Some(id) = ferricorn::RequestId::current() {
///         // … with a field x-request-id
///         println!("{id}");
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    pub(crate) fn new(id: &str) -> RequestId {
        RequestId(id.into())
    }

    /// That of the request which this code works for, on handler threads too; `None` elsewhere, and in tasks of the app's own.
    pub fn current() -> Option<RequestId> {
        CURRENT.with_borrow(Clone::clone)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Until the guard is dropped, this thread works for the request.
    pub(crate) fn enter(&self) -> Entered<RequestId> {
        current::enter(&CURRENT, self.clone())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_works_for_one_request_and_then_for_the_one_before() {
        let outer = RequestId::new("a").enter();
        let caught = std::panic::catch_unwind(|| {
            let _inner = RequestId::new("b").enter();
            assert_eq!(RequestId::current().unwrap().as_str(), "b");
            panic!("on purpose");
        });
        assert!(caught.is_err());
        assert_eq!(RequestId::current(), Some(RequestId::new("a")));
        drop(outer);
        assert_eq!(RequestId::current(), None);
    }
}
