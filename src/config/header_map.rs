//! What becomes of header fields whose names have an underscore. Not here: who finds them.

use super::values::{Raw, quoted};

/// `X-Client_Id` and `X-Client-Id` are one variable in the environment of a CGI or WSGI app, and a proxy that removes one of
/// them knows nothing of the other. As in Gunicorn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderMap {
    /// They are dropped, and nothing is said.
    Drop,
    /// The request is.
    Refuse,
    /// The app sees them.
    Dangerous,
}

pub(super) fn read(raw: &Raw) -> Option<HeaderMap> {
    Some(match raw.text()? {
        "drop" => HeaderMap::Drop,
        "refuse" => HeaderMap::Refuse,
        "dangerous" => HeaderMap::Dangerous,
        _ => return None,
    })
}

pub(super) fn show(map: &HeaderMap) -> String {
    quoted(match map {
        HeaderMap::Drop => "drop",
        HeaderMap::Refuse => "refuse",
        HeaderMap::Dangerous => "dangerous",
    })
}
