//! For the tests of an app: [`app`] runs it within the test's own process, [`Server`] runs the real program.
//! Not here: anything that a server needs.
//!
//! ```
//! use axum::{Router, routing::get};
//! use ferricorn::Worker;
//!
//! fn shop(_worker: Worker) -> Router {
//!     Router::new().route("/", get(async || "open\n"))
//! }
//!
//! let shop = ferricorn::testing::app(shop);
//! let answer = shop.get("/");
//! assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "open\n"));
//! assert_eq!(shop.get("/nothing").status, 404);
//! ```

mod local;
mod server;

pub use local::{Local, Setup, Spoken, app};
pub use server::{Server, example};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body, which is JSON.
    ///
    /// # Panics
    /// When it is something else than `T`; the panic shows it.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in an answer {}: {}", self.status, self.text()))
    }

    /// The first field of this name, as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}
