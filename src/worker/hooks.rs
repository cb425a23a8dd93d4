//! What an app has done at the turns of a worker's life. Not here: when they come (mod.rs).

use crate::app::{Body, BoxError, HttpService, Peer, Worker};
use http::{HeaderValue, Request, header};
use http_body_util::BodyExt;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use tower::ServiceExt;

/// A turn in a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before the app is built.
    Starting,
    /// It is shown as ready, and has accepted nothing yet.
    Ready,
    /// It was told to finish what is open.
    Draining,
    /// It was told to leave at once.
    Aborting,
    /// All connections are closed, and no event loop runs any more.
    Exit,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Moment::Starting => "starting",
            Moment::Ready => "ready",
            Moment::Draining => "draining",
            Moment::Aborting => "aborting",
            Moment::Exit => "exit",
        })
    }
}

type Hook = dyn Fn(&Worker);
type WarmUp = dyn Fn(Worker) -> Pin<Box<dyn Future<Output = Result<(), BoxError>>>>;

/// The hooks of an app, in the order in which it named them.
#[derive(Default)]
pub(crate) struct Hooks {
    at: Vec<(Moment, Box<Hook>)>,
    warm_up: Vec<Box<WarmUp>>,
}

impl Hooks {
    pub(crate) fn add(&mut self, moment: Moment, hook: impl Fn(&Worker) + 'static) {
        self.at.push((moment, Box::new(hook)));
    }

    pub(crate) fn add_warm_up<H, E>(&mut self, hook: H)
    where
        H: AsyncFn(Worker) -> Result<(), E> + 'static,
        E: Into<BoxError> + 'static,
    {
        let hook = Rc::new(hook);
        self.warm_up.push(Box::new(move |worker| {
            let hook = hook.clone();
            Box::pin(async move { hook(worker).await.map_err(Into::into) })
        }));
    }

    /// Runs the hooks of this moment. A panic, which the panic hook has logged, ends one hook and no more; while starting it
    /// ends the worker, as one in the app itself does.
    pub(super) fn run(&self, moment: Moment, worker: &Worker) {
        for (_, hook) in self.at.iter().filter(|(at, _)| *at == moment) {
            match moment {
                Moment::Starting => hook(worker),
                Moment::Ready | Moment::Draining | Moment::Aborting | Moment::Exit => {
                    if catch_unwind(AssertUnwindSafe(|| hook(worker))).is_err() {
                        log::error!("hook panicked moment={moment}");
                    }
                }
            }
        }
    }

    /// Has the app's own warm-up done, then asks `service` for the pages of the setting `warm_up`, one after the other.
    ///
    /// # Errors
    /// The first that failed: the worker is not to become ready.
    pub(super) async fn warm_up<S: HttpService>(&self, worker: &Worker, service: &S) -> Result<(), BoxError> {
        for hook in &self.warm_up {
            hook(worker.clone()).await.map_err(|error| format!("warm-up: {error}"))?;
        }
        for path in &worker.settings().warm_up {
            ask(service.clone(), path).await.map_err(|error| format!("warm-up GET {path}: {error}"))?;
        }
        Ok(())
    }
}

/// Asks as a client of this host would, and reads the answer to its end.
async fn ask<S: HttpService>(service: S, path: &str) -> Result<(), BoxError> {
    let mut request = Request::get(path).body(Body::empty())?;
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
    request.extensions_mut().insert(Peer::Unix);
    let response = service.oneshot(request).await.map_err(Into::into)?;
    if response.status().is_server_error() {
        return Err(format!("status {}", response.status().as_u16()).into());
    }
    let mut body = std::pin::pin!(response.into_body());
    while let Some(frame) = body.frame().await {
        frame.map_err(Into::into)?;
    }
    Ok(())
}
