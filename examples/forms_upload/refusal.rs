//! Why a form is not taken, as a status and a text.

use axum::extract::multipart::MultipartError;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ferricorn::Error;
use std::io::{self, ErrorKind};

pub(crate) enum Refusal {
    Wrong(StatusCode, String),
    /// It is not the request's fault.
    Failed(Error),
}

impl Refusal {
    pub(crate) fn invalid(why: &str) -> Refusal {
        Refusal::Wrong(StatusCode::UNPROCESSABLE_ENTITY, format!("{why}\n"))
    }

    pub(crate) fn too_large(why: &str) -> Refusal {
        Refusal::Wrong(StatusCode::PAYLOAD_TOO_LARGE, format!("{why}\n"))
    }
}

/// One line for each field that does not fit.
impl From<garde::Report> for Refusal {
    fn from(report: garde::Report) -> Refusal {
        Refusal::Wrong(StatusCode::UNPROCESSABLE_ENTITY, report.to_string())
    }
}

impl From<MultipartError> for Refusal {
    fn from(error: MultipartError) -> Refusal {
        Refusal::Wrong(error.status(), format!("{}\n", error.body_text()))
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        match error.kind() {
            ErrorKind::AlreadyExists => {
                Refusal::Wrong(StatusCode::CONFLICT, "there is such a file\n".to_owned())
            }
            _ => Refusal::Failed(Error::other(error)),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Failed(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Wrong(status, why) => (status, why).into_response(),
            Refusal::Failed(error) => error.into_response(),
        }
    }
}
