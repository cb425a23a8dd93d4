//! Why a handler could not do its work, and the status that says so. Not here: what a request got wrong.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use std::error::Error as StdError;
use std::fmt;

/// After how many seconds a client that got a 503 may ask again.
const RETRY_AFTER_SECONDS: &str = "1";

/// What `Worker::blocking`, a `Pool`, a closure on a connection and a `Program` fail with.
///
/// As a response it is a status and one short line that leaks nothing; the details go to the log.
/// `?` works in a closure for both databases, and with [`Error::other`] for everything else:
///
/// ```
/// use ferricorn::Error;
///
/// fn parse(text: &str) -> Result<u32, Error> {
///     text.parse().map_err(Error::other)
/// }
/// assert!(matches!(parse("x"), Err(Error::Other(_))));
/// ```
#[derive(Debug)]
pub enum Error {
    /// As many calls wait already as may, for a handler thread or for a program: 503, Retry-After.
    QueueFull,
    /// The call waited longer than `max_wait` for a handler thread, and was not begun: 503, Retry-After.
    WaitedTooLong,
    /// No connection within `pool_timeout`: 503, Retry-After.
    PoolTimeout,
    /// The database cannot be reached: 503, Retry-After. Whether a statement that was under way took effect is unknown.
    DatabaseDown(String),
    /// A program cannot be started, died too often, or had no child free in time: 503, Retry-After.
    ProgramDown(String),
    /// A program died over the call, or its answer is none: 502.
    ProgramFailed(String),
    /// The call ran longer than `timeout`, the worker's or the program's: 504.
    TimedOut,
    /// The closure panicked: 500.
    Panicked,
    /// PostgreSQL refused a statement: 500.
    Postgres(postgres::Error),
    /// SQLite refused a statement: 500.
    Sqlite(rusqlite::Error),
    /// The app's own error, for `?` in a closure; downcast it to answer better than 500.
    Other(Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// Wraps an error of the app's own, or a plain text.
    pub fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::Other(error.into())
    }

    fn status(&self) -> StatusCode {
        match self {
            Error::QueueFull
            | Error::WaitedTooLong
            | Error::PoolTimeout
            | Error::DatabaseDown(_)
            | Error::ProgramDown(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::ProgramFailed(_) => StatusCode::BAD_GATEWAY,
            Error::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Error::Panicked | Error::Postgres(_) | Error::Sqlite(_) | Error::Other(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::QueueFull => f.write_str("too many calls wait already"),
            Error::WaitedTooLong => f.write_str("the call waited longer than max_wait for a thread"),
            Error::PoolTimeout => f.write_str("no database connection was free within pool_timeout"),
            Error::DatabaseDown(reason) => write!(f, "the database cannot be reached: {reason}"),
            Error::ProgramDown(reason) => write!(f, "the program cannot be asked: {reason}"),
            Error::ProgramFailed(reason) => write!(f, "the program failed: {reason}"),
            Error::TimedOut => f.write_str("the call ran longer than timeout"),
            Error::Panicked => f.write_str("the call panicked"),
            // The source of a PostgreSQL error holds the server's message, which its own text leaves out.
            Error::Postgres(error) => match error.as_db_error() {
                Some(refusal) => write!(f, "postgres: {refusal}"),
                None => write!(f, "postgres: {error}"),
            },
            Error::Sqlite(error) => write!(f, "sqlite: {error}"),
            Error::Other(error) => error.fmt(f),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Postgres(error) => Some(error),
            Error::Sqlite(error) => Some(error),
            Error::Other(error) => Some(error.as_ref()),
            Error::QueueFull
            | Error::WaitedTooLong
            | Error::PoolTimeout
            | Error::DatabaseDown(_)
            | Error::ProgramDown(_)
            | Error::ProgramFailed(_)
            | Error::TimedOut
            | Error::Panicked => None,
        }
    }
}

impl From<postgres::Error> for Error {
    fn from(error: postgres::Error) -> Error {
        Error::Postgres(error)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        Error::Sqlite(error)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        // A panic was logged where it was caught; a 503 or 504 is the server's state, not a fault of the handler.
        if status != StatusCode::INTERNAL_SERVER_ERROR {
            log::warn!("request refused status={} reason={:?}", status.as_u16(), self.to_string());
        } else if !matches!(self, Error::Panicked) {
            log::error!("request failed status=500 reason={:?}", self.to_string());
        }
        let text = match status {
            StatusCode::SERVICE_UNAVAILABLE => "busy or out of order, try again\n",
            StatusCode::BAD_GATEWAY => "the program behind this failed\n",
            StatusCode::GATEWAY_TIMEOUT => "timed out\n",
            _ => "internal error\n",
        };
        let mut response = (status, text).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_for_each_and_nothing_leaks() {
        let secret = "secret";
        let rows = [
            (Error::QueueFull, 503, true),
            (Error::WaitedTooLong, 503, true),
            (Error::PoolTimeout, 503, true),
            (Error::DatabaseDown(secret.into()), 503, true),
            (Error::ProgramDown(secret.into()), 503, true),
            (Error::ProgramFailed(secret.into()), 502, false),
            (Error::TimedOut, 504, false),
            (Error::Panicked, 500, false),
            (Error::Sqlite(rusqlite::Error::InvalidPath(secret.into())), 500, false),
            (Error::other(secret), 500, false),
        ];
        for (error, status, retry) in rows {
            let name = format!("{error:?}");
            let response = error.into_response();
            assert_eq!(response.status(), status, "{name}");
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), retry, "{name}");
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let body = runtime.block_on(axum::body::to_bytes(response.into_body(), 1000)).unwrap();
            assert!(!String::from_utf8_lossy(&body).contains(secret), "{name}");
        }
    }
}
