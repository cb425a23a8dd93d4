//! Why a route did not give its answer, and the response that says so.
//! Not here: finding it out.
//!
//! The body is a problem document (RFC 9457, `application/problem+json`); where fields are to blame, its member
//! `errors` names each of them. What went wrong inside the server is in the log, never in the body.

use crate::app::Error;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;
use std::borrow::Cow;

/// Each variant is one status, but for those that carry one, or an error.
#[derive(Debug)]
pub(super) enum Refusal {
    /// 400: parameters are missing or wrong, every one of them in the list.
    Fields(Vec<Fault>),
    /// 400: the request cannot be taken apart; the text is for the client.
    Malformed(String),
    /// 401: no token, or one that is not known.
    Unauthorized { had_token: bool },
    /// 404: no such path, or `one = true` and no row.
    NotFound,
    /// 405; the router adds `Allow`.
    MethodNotAllowed,
    /// 409: a unique key or a reference is in the way.
    Conflict,
    /// 415: a body that is neither JSON nor a form.
    MediaType,
    /// 422: the database takes the values' types, but not the values: not null, check, length, range.
    Unprocessable,
    /// 500: the route does not fit its database or its template; the log says how.
    Broken,
    /// 503: so many large answers are under way that another would leave no thread for the rest.
    Busy,
    /// 504: the route's own time is over.
    Late,
    /// 413 at the limit of the body, 400 when the body broke off.
    Body(StatusCode),
    /// Whatever the database's error says: 500, 503 or 504.
    Database(Error),
    /// 413: the question to a program would be longer than a program takes.
    LongQuestion,
    /// A program's own, from 400 to 599; the text is for the client.
    Reported(StatusCode, String),
    /// Whatever the error of a program's call says: 502, 503 or 504.
    Program(Error),
    /// What a library answered, without its body.
    Other(StatusCode, HeaderMap),
}

/// What is wrong with one parameter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) field: String,
    pub(super) message: Cow<'static, str>,
}

impl Refusal {
    /// The response to a request for this path.
    pub(super) fn response(self, path: &str) -> Response {
        let detail = self.detail();
        let mut faults = Vec::new();
        let mut response = match self {
            Refusal::Fields(of_fields) => {
                faults = of_fields;
                StatusCode::BAD_REQUEST.into_response()
            }
            Refusal::Malformed(_) => StatusCode::BAD_REQUEST.into_response(),
            Refusal::Unauthorized { had_token } => {
                let challenge = if had_token { r#"Bearer error="invalid_token""# } else { "Bearer" };
                (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response()
            }
            Refusal::NotFound => StatusCode::NOT_FOUND.into_response(),
            Refusal::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED.into_response(),
            Refusal::Conflict => StatusCode::CONFLICT.into_response(),
            Refusal::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response(),
            Refusal::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
            Refusal::Broken => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            Refusal::Busy => (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]).into_response(),
            Refusal::Late => StatusCode::GATEWAY_TIMEOUT.into_response(),
            Refusal::Body(status) => status.into_response(),
            // It logs itself, and knows its status.
            Refusal::Database(error) | Refusal::Program(error) => error.into_response(),
            Refusal::LongQuestion => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
            Refusal::Reported(status, _) => status.into_response(),
            Refusal::Other(status, headers) => (status, headers).into_response(),
        };
        let body = document(response.status(), detail, path, &faults);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(body);
        response
    }

    /// For the client.
    fn detail(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Refusal::Fields(_) => "parameters are missing or wrong",
            Refusal::Malformed(detail) | Refusal::Reported(_, detail) => return Cow::Owned(detail.clone()),
            Refusal::Unauthorized { had_token: false } => "a bearer token is needed",
            Refusal::Unauthorized { had_token: true } => "the bearer token is not known",
            Refusal::NotFound => "there is nothing here",
            Refusal::MethodNotAllowed => {
                "the method does not exist here; the field Allow lists those that do"
            }
            Refusal::Conflict => "the change contradicts data that is already there",
            Refusal::MediaType => "the body must be application/json or application/x-www-form-urlencoded",
            Refusal::Unprocessable => "the database does not allow these values",
            Refusal::Broken => "the answer could not be made",
            Refusal::Busy => "too many large answers are under way, try again",
            Refusal::Late => TOOK_TOO_LONG,
            Refusal::Body(_) => "the body is too large or broke off",
            Refusal::LongQuestion => "the parameters are too long for the program behind this",
            Refusal::Database(error) | Refusal::Program(error) => of_error(error),
            Refusal::Other(..) => "the request cannot be answered as it is",
        })
    }
}

const TOOK_TOO_LONG: &str = "the answer took too long";

fn of_error(error: &Error) -> &'static str {
    match error {
        Error::TimedOut => TOOK_TOO_LONG,
        Error::QueueFull
        | Error::WaitedTooLong
        | Error::PoolTimeout
        | Error::DatabaseDown(_)
        | Error::ProgramDown(_) => "busy or out of order, try again",
        Error::ProgramFailed(_) => "the program behind this failed",
        Error::Panicked | Error::Postgres(_) | Error::Sqlite(_) | Error::Other(_) => {
            "the answer could not be made"
        }
    }
}

/// `about:blank` says that there is no more to it than the status; the title is then the status's own.
fn document(status: StatusCode, detail: Cow<'static, str>, path: &str, faults: &[Fault]) -> String {
    let mut body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
        "instance": path,
    });
    if !faults.is_empty() {
        let errors = faults.iter().map(|fault| json!({"field": fault.field, "message": fault.message}));
        body["errors"] = errors.collect();
    }
    body.to_string()
}
