//! Signing in with a password, and a session that every worker understands, since it is a signed cookie. How to run it:
//! server.toml beside this file. Browsers send such a cookie over TLS only, or to localhost: there belongs a proxy before it.
//! A session ends by itself, and at the browser that signs out; to end it everywhere sooner takes a table.

mod session;

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use axum::Router;
use axum::extract::{Form, FromRef, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum_extra::extract::cookie::{Key, SignedCookieJar};
use ferricorn::{App, Error, Worker};
use serde::Deserialize;
use session::Session;
use std::collections::BTreeMap;
use std::process::ExitCode;

#[derive(Deserialize)]
struct Settings {
    secret: Secret,
    users: BTreeMap<String, Hash>,
}

/// Both are judged where the settings are read: `--check-config` refuses what does not fit.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Secret(Key);

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Hash(PasswordHash);

#[derive(Clone)]
struct Site(Worker);

#[derive(Deserialize)]
struct SignIn {
    csrf: String,
    name: String,
    password: String,
}

#[derive(Deserialize)]
struct SignOut {
    csrf: String,
}

fn main() -> ExitCode {
    App::new()
        .settings::<Settings>()
        // Each page is for one browser, also behind its back button.
        .post_request(|_worker, answered| {
            answered.head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        })
        .run(|worker| {
            Router::new()
                .route("/", get(home))
                .route("/sign-in", post(sign_in))
                .route("/sign-out", post(sign_out))
                .with_state(Site(worker))
        })
}

async fn home(jar: SignedCookieJar) -> Response {
    let session = Session::of(&jar).unwrap_or_else(|| Session::new(None));
    let page = session.page();
    (session.into_cookie(jar), page).into_response()
}

async fn sign_in(
    State(site): State<Site>,
    jar: SignedCookieJar,
    Form(form): Form<SignIn>,
) -> Result<Response, Error> {
    let Some(session) = Session::of(&jar).filter(|session| session.made_form(&form.csrf)) else {
        return Ok(StatusCode::FORBIDDEN.into_response());
    };
    let (worker, name) = (site.0.clone(), form.name.clone());
    // A hash takes long on purpose. At most `threads` of them are under way, and `blocking_queue` wait.
    if !site.0.blocking(move || is_right(&worker, &name, &form.password)).await? {
        return Ok((StatusCode::UNAUTHORIZED, session.page()).into_response());
    }
    // A new one: whoever knew the session from before must not be signed in by it.
    Ok((Session::new(Some(form.name)).into_cookie(jar), Redirect::to("/")).into_response())
}

async fn sign_out(jar: SignedCookieJar, Form(form): Form<SignOut>) -> Response {
    match Session::of(&jar) {
        Some(session) if session.made_form(&form.csrf) => {
            (Session::end(jar), Redirect::to("/")).into_response()
        }
        Some(_) | None => StatusCode::FORBIDDEN.into_response(),
    }
}

/// An unknown name is compared with somebody's hash, so that it takes as long as a wrong password.
fn is_right(worker: &Worker, name: &str, password: &str) -> bool {
    let users = &worker.app_settings::<Settings>().users;
    let (is_known, hash) = (users.contains_key(name), users.get(name).or(users.values().next()));
    let verify =
        |hash: &Hash| argon2::Argon2::default().verify_password(password.as_bytes(), &hash.0).is_ok();
    hash.is_some_and(verify) && is_known
}

impl FromRef<Site> for Key {
    fn from_ref(site: &Site) -> Key {
        site.0.app_settings::<Settings>().secret.0.clone()
    }
}

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Secret, &'static str> {
        Key::try_from(text.as_bytes()).map(Secret).map_err(|_| "at least 64 bytes are needed")
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Hash, &'static str> {
        PasswordHash::new(&text).map(Hash).map_err(|_| "not the hash of a password ($argon2id$…)")
    }
}
