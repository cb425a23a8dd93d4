//! The page that a server without routes shows: what runs, and what to do next.
//! Not here: anything about a server that has routes.

use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

const PAGE: &str = include_str!("welcome.html");

/// Nothing may load, run, frame or send anything, except for the page's one style sheet, known by its SHA-256.
const POLICY: &str = "default-src 'none'; style-src 'sha256-3xDsmEqZxr0RaFbSLOzzpMqtbf2xCprOOOSrjeccgKA='; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_TYPE, "text/html; charset=utf-8"),
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    // The next start may have routes.
    (CACHE_CONTROL, "no-store"),
];

/// The page of the worker in this seat.
pub(super) fn page(slot: u32) -> MethodRouter {
    let filled = PAGE.replace("{version}", env!("CARGO_PKG_VERSION")).replace("{slot}", &slot.to_string());
    let page = Bytes::from(filled);
    get(move || std::future::ready((HEADERS, page.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_policy_knows_the_style_sheet() {
        let style = PAGE.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let hash = STANDARD.encode(Sha256::digest(style));
        assert!(POLICY.contains(&format!("style-src 'sha256-{hash}';")), "the hash is {hash}");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for part in ["<script", "<link", "<img", "src=", "href=", "style=", "url(", "@import"] {
            assert!(!PAGE.contains(part), "{part}");
        }
    }
}
