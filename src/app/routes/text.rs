//! A route that answers a fixed text. Not here: anything that depends on the request.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;

pub(super) struct Text {
    status: StatusCode,
    text: Bytes,
}

impl Text {
    pub(super) fn new(status: StatusCode, text: &str) -> Text {
        Text { status, text: Bytes::from(text.to_owned()) }
    }

    pub(super) fn answer(&self) -> Response {
        (self.status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], self.text.clone()).into_response()
    }
}
