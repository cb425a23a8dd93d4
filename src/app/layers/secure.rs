//! Fields that tell browsers to be careful, in every answer of the app that has not set them itself. One service in place of a
//! layer for each field, since one of them depends on the request. Not here: what the values mean.

use crate::app::{Body, ClientInfo, Scheme, TlsInfo};
use crate::config::{SecuritySettings, Settings};
use http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower::{Layer, Service};

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

pub(super) fn wanted(settings: &Settings) -> bool {
    let SecuritySettings { nosniff, .. } = settings.security;
    nosniff || named(&settings.security).iter().any(|(_, value)| !value.is_empty())
}

fn named(settings: &SecuritySettings) -> [(HeaderName, &str); 5] {
    let SecuritySettings {
        nosniff: _,
        referrer_policy,
        frame_options,
        content_security_policy,
        permissions_policy,
        hsts,
    } = settings;
    [
        (REFERRER_POLICY, referrer_policy),
        (X_FRAME_OPTIONS, frame_options),
        (CONTENT_SECURITY_POLICY, content_security_policy),
        (PERMISSIONS_POLICY, permissions_policy),
        (STRICT_TRANSPORT_SECURITY, hsts),
    ]
}

#[derive(Clone)]
pub(super) struct Secure {
    fields: Arc<[(HeaderName, HeaderValue)]>,
}

impl Secure {
    pub(super) fn new(settings: &Settings) -> Secure {
        let nosniff = settings.security.nosniff.then_some((X_CONTENT_TYPE_OPTIONS, "nosniff"));
        let given = named(&settings.security).into_iter().filter(|(_, value)| !value.is_empty());
        let value = |value| HeaderValue::from_str(value).expect("the settings are checked");
        Secure { fields: nosniff.into_iter().chain(given).map(|(name, text)| (name, value(text))).collect() }
    }

    fn add(&self, headers: &mut HeaderMap, is_secured: bool) {
        for (name, value) in &*self.fields {
            // Over a connection that anybody can read it says nothing (RFC 6797, 7.2).
            let is_due = *name != STRICT_TRANSPORT_SECURITY || is_secured;
            if is_due && !headers.contains_key(name) {
                headers.insert(name, value.clone());
            }
        }
    }
}

/// As the connection is, or as a proxy that is believed has it.
fn is_secured(request: &Request<Body>) -> bool {
    let told = request.extensions().get::<ClientInfo>().map(ClientInfo::scheme);
    told.map_or_else(
        || request.extensions().get::<TlsInfo>().is_some(),
        |scheme| match scheme {
            Scheme::Http => false,
            Scheme::Https => true,
        },
    )
}

impl<S> Layer<S> for Secure {
    type Service = Secured<S>;

    fn layer(&self, inner: S) -> Secured<S> {
        Secured { inner, secure: self.clone() }
    }
}

#[derive(Clone)]
pub(super) struct Secured<S> {
    inner: S,
    secure: Secure,
}

impl<S> Service<Request<Body>> for Secured<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Securing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Securing<S::Future> {
        let (secure, is_secured) = (self.secure.clone(), is_secured(&request));
        Securing { future: self.inner.call(request), secure, is_secured }
    }
}

pin_project! {
    pub(super) struct Securing<F> {
        #[pin]
        future: F,
        secure: Secure,
        is_secured: bool,
    }
}

impl<F, E> Future for Securing<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut answer = ready!(this.future.poll(cx))?;
        this.secure.add(answer.headers_mut(), *this.is_secured);
        Poll::Ready(Ok(answer))
    }
}
