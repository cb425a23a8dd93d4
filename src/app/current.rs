//! What is known to a thread of the request that it works for, without being handed on. Not here: what that is.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Such a thing, and `None` while the thread works for no request that has it.
pub(super) type Current<T> = LocalKey<RefCell<Option<T>>>;

/// Until the result is dropped, it is this one; then the former one again.
pub(super) fn enter<T>(current: &'static Current<T>, now: T) -> Entered<T> {
    Entered { current, former: current.replace(Some(now)) }
}

pub(crate) struct Entered<T: 'static> {
    current: &'static Current<T>,
    former: Option<T>,
}

impl<T> Drop for Entered<T> {
    fn drop(&mut self) {
        self.current.set(self.former.take());
    }
}
