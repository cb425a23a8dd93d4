//! CORS (the Fetch standard, 3.3), by tower-http. Not here: whether a request is allowed, which is the browser's to hold to and
//! the app's to decide.

use crate::app::Body;
use crate::config::{CorsSettings, Settings, is_all};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, HeaderName};
use http::{HeaderValue, Method, Request, Response};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower::{Layer, Service};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};

pub(super) fn wanted(settings: &Settings) -> bool {
    !settings.cors.origins.is_empty()
}

pub(super) struct Cors {
    layer: CorsLayer,
}

impl Cors {
    pub(super) fn new(settings: &Settings) -> Cors {
        let CorsSettings { origins, methods, headers, expose, credentials, max_age } = &settings.cors;
        let names = |names: &[String]| -> Vec<HeaderName> {
            names.iter().map(|name| name.parse().expect("the settings are checked")).collect()
        };
        let origins = if is_all(origins) {
            AllowOrigin::any()
        } else {
            let value = |origin: &String| HeaderValue::from_str(origin).expect("the settings are checked");
            AllowOrigin::list(origins.iter().map(value))
        };
        let methods: Vec<Method> =
            methods.iter().map(|name| name.parse().expect("the settings are checked")).collect();
        let layer = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods(methods)
            .allow_headers(if is_all(headers) { AllowHeaders::any() } else { names(headers).into() })
            .expose_headers(if is_all(expose) { ExposeHeaders::any() } else { names(expose).into() })
            .allow_credentials(*credentials);
        Cors { layer: if max_age.is_zero() { layer } else { layer.max_age(*max_age) } }
    }
}

impl<S: Clone> Layer<S> for Cors {
    type Service = Asked<S>;

    fn layer(&self, inner: S) -> Asked<S> {
        Asked { plain: inner.clone(), cors: self.layer.layer(inner) }
    }
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

/// tower-http answers every OPTIONS itself. Only a preflight is one that the app is not to see.
#[derive(Clone)]
pub(super) struct Asked<S> {
    plain: S,
    cors: tower_http::cors::Cors<S>,
}

impl<S> Service<Request<Body>> for Asked<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error: 'static, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Both are the same app.
        ready!(self.plain.poll_ready(cx))?;
        self.cors.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_preflight = request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if request.method() == Method::OPTIONS && !is_preflight {
            Box::pin(self.plain.call(request))
        } else {
            Box::pin(self.cors.call(request))
        }
    }
}
