//! The bytes of a request target (RFC 9112, 3.2, and RFC 3986): hyper lets some through that no target can have.
//! Not here: its form, which is the gate's.

use http::Uri;
use http::uri::PathAndQuery;

/// What hyper takes and RFC 3986 does not, and no browser sends as it is. What browsers do send, such as brackets and bars, passes.
const QUERY: [bool; 256] = table(b"\"<>");
/// In a path some servers take a backslash for a slash; browsers send one only in a query.
const PATH: [bool; 256] = table(b"\"<>\\");

/// Printable ASCII but for these.
const fn table(invalid: &[u8]) -> [bool; 256] {
    let mut valid = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        valid[byte] = true;
        byte += 1;
    }
    let mut index = 0;
    while index < invalid.len() {
        valid[invalid[index] as usize] = false;
        index += 1;
    }
    valid
}

pub(super) fn has_valid_bytes(uri: &Uri) -> bool {
    let whole = uri.path_and_query().map_or("", PathAndQuery::as_str).as_bytes();
    let (path, query) = whole.split_at(uri.path().len().min(whole.len()));
    let fits = |table: &[bool; 256], bytes: &[u8]| bytes.iter().all(|byte| table[usize::from(*byte)]);
    fits(&PATH, path) && fits(&QUERY, query)
}
