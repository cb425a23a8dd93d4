//! What is common to all routes, whatever they answer: who may ask, how large a body may be, how long it may take; and
//! the response where the answer is a refusal. Not here: what a route answers.

use super::program;
use super::refusal::Refusal;
use crate::app::{Body, Deadline};
use crate::config::{Kind, Route, Settings, Token};
use axum::extract::Request;
use axum::response::Response;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use http_body_util::Limited;
use sha2::{Digest, Sha256};
use std::time::Duration;
use subtle::{Choice, ConstantTimeEq};

/// The server's own time limit, where it has one, comes this much after the route's, which is the one to answer.
const AFTER: Duration = Duration::from_secs(1);

pub(super) struct Guard {
    tokens: Vec<Token>,
    limit_request_body: Option<usize>,
    timeout: Option<Duration>,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Guard {
    pub(super) fn new(route: &Route, settings: &Settings) -> Guard {
        Guard {
            tokens: route.tokens.clone(),
            limit_request_body: route
                .limit_request_body
                .map(|size| usize::try_from(size).unwrap_or(usize::MAX)),
            timeout: match route.kind {
                Kind::Program(_) => Some(program::timeout(route, settings)),
                Kind::Text(_)
                | Kind::Sql(_)
                | Kind::Template { .. }
                | Kind::Static(_)
                | Kind::Redirect(_) => route.timeout,
            },
            fields: route.fields.iter().map(|(name, value)| field(name, value)).collect(),
        }
    }

    /// What `answer` says, or why it may not say anything.
    pub(super) async fn answer<F>(&self, request: Request, answer: impl FnOnce(Request) -> F) -> Response
    where
        F: Future<Output = Result<Response, Refusal>>,
    {
        let uri = request.uri().clone();
        let outcome = match self.admit(request) {
            Ok(request) => self.in_time(request, &uri, answer).await,
            Err(refusal) => Err(refusal),
        };
        let mut response = outcome.unwrap_or_else(|refusal| refusal.response(uri.path()));
        for (name, value) in &self.fields {
            response.headers_mut().insert(name, value.clone());
        }
        if !self.tokens.is_empty() {
            // Who has it from a proxy's cache has shown no token.
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private"));
        }
        response
    }

    fn admit(&self, request: Request) -> Result<Request, Refusal> {
        if !self.tokens.is_empty() {
            let token = bearer(request.headers()).ok_or(Refusal::Unauthorized { had_token: false })?;
            if !self.knows(token) {
                return Err(Refusal::Unauthorized { had_token: true });
            }
        }
        Ok(match self.limit_request_body {
            Some(limit) => request.map(|body| Body::new(Limited::new(body, limit))),
            None => request,
        })
    }

    /// Compares with every token, each in the same time, whatever was given.
    fn knows(&self, token: &[u8]) -> bool {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let known = self.tokens.iter().fold(Choice::from(0), |known, token| known | token.0.ct_eq(&hash));
        known.into()
    }

    async fn in_time<F>(
        &self,
        request: Request,
        uri: &Uri,
        answer: impl FnOnce(Request) -> F,
    ) -> Result<Response, Refusal>
    where
        F: Future<Output = Result<Response, Refusal>>,
    {
        let Some(timeout) = self.timeout else { return answer(request).await };
        if let Some(of_server) = Deadline::current() {
            of_server.extend(timeout + AFTER);
        }
        let (method, deadline) = (request.method().clone(), Deadline::after(timeout));
        tokio::select! {
            biased;
            // Boxed, so that routes without a timeout do not have the room for two.
            answer = Box::pin(deadline.clone().scope(answer(request))) => answer,
            () = deadline.passed() => {
                log::warn!("request timed out method={method} path={:?} timeout={timeout:?}", uri.path());
                Err(Refusal::Late)
            }
        }
    }
}

fn field(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::from_str(value).expect("the settings are checked");
    (name.parse().expect("the settings are checked"), value)
}

/// The token of the field Authorization (RFC 6750, 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_token_stands_behind_its_scheme() {
        let table: [(&str, Option<&str>); 7] = [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer ", Some("")),
            ("Bearer", None),
            ("Basic abcdef", None),
            ("abc", None),
            ("", None),
        ];
        for (given, expected) in table {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(given))]);
            assert_eq!(bearer(&headers), expected.map(str::as_bytes), "{given:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
