//! Why a request is not done, as a status and `{"error": "…"}`; and the body of a request, checked.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rusqlite::ErrorCode;
use serde::de::DeserializeOwned;
use std::fmt;

#[derive(Debug)]
pub(crate) enum Refusal {
    /// The body is not JSON, or not of this shape.
    Unreadable(JsonRejection),
    Invalid(&'static str),
    NotFound,
    Conflict(String),
    /// It is not the request's fault.
    Failed(ferricorn::Error),
}

pub(crate) trait Check {
    /// What is wrong with it.
    fn fault(&self) -> Option<&'static str>;
}

/// The body, which a handler only gets when there is no fault in it.
pub(crate) struct Checked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Check> FromRequest<S> for Checked<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let Json(body) = Json::<T>::from_request(request, state).await.map_err(Refusal::Unreadable)?;
        body.fault().map_or(Ok(Checked(body)), |fault| Err(Refusal::Invalid(fault)))
    }
}

/// From within a transaction a refusal comes as the app's own error; and the tables refuse what is there twice or still needed.
impl From<ferricorn::Error> for Refusal {
    fn from(error: ferricorn::Error) -> Refusal {
        match error {
            ferricorn::Error::Other(own) => match own.downcast() {
                Ok(refusal) => *refusal,
                Err(other) => Refusal::Failed(ferricorn::Error::Other(other)),
            },
            ferricorn::Error::Sqlite(error)
                if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) =>
            {
                Refusal::Conflict("the name is taken, or the item is part of an order".to_owned())
            }
            error => Refusal::Failed(error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Refusal::Unreadable(rejection) => rejection.status(),
            Refusal::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::Conflict(_) => StatusCode::CONFLICT,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        match self {
            // It logs the details, and tells the client none.
            Refusal::Failed(error) => error.into_response(),
            refusal => (status, Json(serde_json::json!({ "error": refusal.to_string() }))).into_response(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unreadable(rejection) => f.write_str(&rejection.body_text()),
            Refusal::Invalid(fault) => f.write_str(fault),
            Refusal::NotFound => f.write_str("there is no such item"),
            Refusal::Conflict(why) => f.write_str(why),
            Refusal::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}
