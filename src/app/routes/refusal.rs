//! Why a route did not give its answer, and the response that says so.
//! Not here: finding it out.
//!
//! The body is a problem document (RFC 9457, `application/problem+json`); where fields are to blame, its member
//! `errors` names each of them. What went wrong inside the server is in the log, never in the body.

use crate::app::Error;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;

/// Each variant is one status.
#[derive(Debug)]
pub(super) enum Refusal {
    /// 400: parameters are missing or wrong, every one of them in the list.
    Fields(Vec<Fault>),
    /// 400: the request cannot be taken apart; the text is for the client.
    Malformed(String),
    /// 404: no such path, or `one = true` and no row.
    NotFound,
    /// 405; the router adds `Allow`.
    MethodNotAllowed,
    /// 409: a unique key or a reference is in the way.
    Conflict,
    /// 413 at the limit of the body, 400 when the body broke off.
    Body(StatusCode),
    /// 415: a body that is neither JSON nor a form.
    MediaType,
    /// 422: the database takes the values' types, but not the values: not null, check, length, range.
    Unprocessable,
    /// 500: the route does not fit its database; the log says how.
    Broken,
    /// Whatever the database's error says: 500, 503 or 504.
    Database(Error),
}

/// What is wrong with one parameter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) field: String,
    pub(super) message: &'static str,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Fields(faults) => {
                problem(StatusCode::BAD_REQUEST, "parameters are missing or wrong", &faults)
            }
            Refusal::Malformed(detail) => problem(StatusCode::BAD_REQUEST, &detail, &[]),
            Refusal::NotFound => problem(StatusCode::NOT_FOUND, "there is nothing here", &[]),
            Refusal::MethodNotAllowed => problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "the method does not exist here; the field Allow lists those that do",
                &[],
            ),
            Refusal::Conflict => {
                problem(StatusCode::CONFLICT, "the change contradicts data that is already there", &[])
            }
            Refusal::Body(status) => problem(status, "the body is too large or broke off", &[]),
            Refusal::MediaType => problem(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json or application/x-www-form-urlencoded",
                &[],
            ),
            Refusal::Unprocessable => {
                problem(StatusCode::UNPROCESSABLE_ENTITY, "the database does not allow these values", &[])
            }
            Refusal::Broken => {
                problem(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made", &[])
            }
            Refusal::Database(error) => error.into_response(),
        }
    }
}

fn problem(status: StatusCode, detail: &str, faults: &[Fault]) -> Response {
    let mut body = json!({
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    if !faults.is_empty() {
        let errors = faults.iter().map(|fault| json!({"field": fault.field, "message": fault.message}));
        body["errors"] = errors.collect();
    }
    (status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
