//! The page for people at `/`: one file that asks nobody but this process, and may run nothing but its own script.
//! Not here: what it shows, which it asks `/history` and `/status` for.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const PAGE: &str = include_str!("dashboard/page.html");
const STYLE: &str = include_str!("dashboard/page.css");
const SCRIPT: &str = include_str!("dashboard/page.js");

pub(super) struct Dashboard {
    pub(super) page: String,
    /// Its Content-Security-Policy.
    pub(super) policy: String,
}

pub(super) static DASHBOARD: LazyLock<Dashboard> = LazyLock::new(|| Dashboard {
    page: PAGE.replace("{style}", STYLE).replace("{script}", SCRIPT),
    policy: format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE),
    ),
});

/// By which a browser knows a script or a style of the page.
fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_whole_and_asks_nobody_else() {
        let Dashboard { page, policy } = &*DASHBOARD;
        assert!(page.len() < 100_000, "{} bytes", page.len());
        assert!(
            page.contains(STYLE)
                && page.contains(SCRIPT)
                && !page.contains("{script}")
                && !page.contains("{style}")
        );
        let names_of_standards = page.replace("http://www.w3.org/2000/svg", "");
        for foreign in ["http://", "https://", "src=\"", "url(", "@import", "innerHTML", "eval(", " style=\""]
        {
            assert!(!names_of_standards.contains(foreign), "{foreign}");
        }
        assert!(!policy.contains("unsafe") && policy.matches("sha256-").count() == 2, "{policy}");
    }
}
