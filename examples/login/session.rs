//! A session in a signed cookie, and the pages that go with it. Not here: who may have one.

use axum::response::Html;
use axum_extra::extract::cookie::{Cookie, SameSite, SignedCookieJar};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// The prefix has browsers refuse it without `Secure`, or from a neighbour's domain.
const COOKIE: &str = "__Host-session";
const SESSION: Duration = Duration::from_secs(8 * 60 * 60);

/// Kept by the browser, which can read it and not change it.
#[derive(Deserialize, Serialize)]
pub(crate) struct Session {
    user: Option<String>,
    /// What a form must bring along: another site can make the browser send the cookie, and cannot read this.
    csrf: String,
    /// Seconds since 1970. The browser's own word for it would not be enough.
    expires: u64,
}

impl Session {
    pub(crate) fn new(user: Option<String>) -> Session {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the kernel gives random bytes");
        Session { user, csrf: BASE64_URL_SAFE_NO_PAD.encode(random), expires: now() + SESSION.as_secs() }
    }

    /// The one that the browser has sent, if it is ours and not too old.
    pub(crate) fn of(jar: &SignedCookieJar) -> Option<Session> {
        let session: Session = serde_json::from_str(jar.get(COOKIE)?.value()).ok()?;
        (session.expires > now()).then_some(session)
    }

    pub(crate) fn into_cookie(self, jar: SignedCookieJar) -> SignedCookieJar {
        let value = serde_json::to_string(&self).expect("texts and a number are JSON");
        jar.add(
            Cookie::build((COOKIE, value)).path("/").http_only(true).secure(true).same_site(SameSite::Lax),
        )
    }

    /// The cookie that takes it away again.
    pub(crate) fn end(jar: SignedCookieJar) -> SignedCookieJar {
        jar.remove(Cookie::build(COOKIE).path("/").secure(true))
    }

    /// Whether it was a page of this session that the form was on.
    pub(crate) fn made_form(&self, csrf: &str) -> bool {
        self.csrf.as_bytes().ct_eq(csrf.as_bytes()).into()
    }

    /// What is pasted into it comes from the settings and from here, never from a client: else it had to be escaped.
    pub(crate) fn page(&self) -> Html<String> {
        let csrf = format!("<input type=\"hidden\" name=\"csrf\" value=\"{}\">", self.csrf);
        Html(match &self.user {
            Some(user) => format!(
                "<p>You are {user}.</p><form method=\"post\" action=\"/sign-out\">{csrf}<button>Sign out</button></form>\n"
            ),
            None => format!(
                "<form method=\"post\" action=\"/sign-in\">{csrf}<input name=\"name\" autocomplete=\"username\">\
                 <input name=\"password\" type=\"password\" autocomplete=\"current-password\"><button>Sign in</button></form>\n"
            ),
        })
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}
