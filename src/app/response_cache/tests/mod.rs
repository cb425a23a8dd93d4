//! What the layer does with requests and responses, by the sections of RFC 9111 and RFC 9110; and two workers' layers.

mod requests;
mod responses;
mod sharing;

use super::*;
use crate::scoreboard::Generations;
use axum::body::Body as AppBody;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::join;
use tokio::task::yield_now;
use tower::util::BoxCloneService;
use tower::{ServiceExt, service_fn};

type App = BoxCloneService<Request<AppBody>, Response<AppBody>, Infallible>;

/// A layer over an app, and how often the app was asked.
#[derive(Clone)]
struct Bench {
    service: CachedService<App>,
    asked: Arc<AtomicU64>,
}

fn options() -> ResponseCacheOptions {
    ResponseCacheOptions::new(Duration::from_secs(60))
}

fn bench_at(
    generations: Generations,
    options: ResponseCacheOptions,
    app: impl Fn(Request<AppBody>, u64) -> Response<AppBody> + Clone + Send + 'static,
) -> Bench {
    let bounds = CacheOptions::new(options.capacity, Duration::ZERO).max_bytes(options.max_bytes, weigh);
    let cache = Cache::new("response test", bounds, generations, Box::leak(Box::default()));
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let app = service_fn(move |request| {
        let (app, number) = (app.clone(), count.fetch_add(1, Relaxed) + 1);
        async move {
            // So that others come in between.
            yield_now().await;
            Ok(app(request, number))
        }
    });
    Bench { service: ResponseCacheLayer::over(cache, options).layer(BoxCloneService::new(app)), asked }
}

/// An app that answers with the number of the request.
fn bench(
    options: ResponseCacheOptions,
    app: impl Fn(Request<AppBody>, u64) -> Response<AppBody> + Clone + Send + 'static,
) -> Bench {
    bench_at(Generations::make().unwrap().0, options, app)
}

fn numbered(
    fields: &[(&'static str, &'static str)],
) -> impl Fn(Request<AppBody>, u64) -> Response<AppBody> + Clone + Send + use<> {
    let fields = fields.to_vec();
    move |_, number| respond(200, &fields, number.to_string())
}

fn respond(status: u16, fields: &[(&str, &str)], body: impl Into<AppBody>) -> Response<AppBody> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

struct Answer {
    status: u16,
    fields: HeaderMap,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Bench {
    async fn send(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(target);
        if !fields.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "test");
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = self.service.clone().oneshot(request.body(AppBody::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status.as_u16(),
            fields: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    async fn get(&self, target: &str) -> String {
        self.send("GET", target, &[]).await.body
    }

    fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }
}

fn run<T>(story: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(story)
}
