//! An app and what goes with it, put together step by step. Not here: how it is run (serve.rs).

use super::{Plan, serve};
use crate::app::{BoxError, HttpService, Worker};
use crate::config::{AppKind, AppType, Settings};
use crate::worker::{Answered, Around, Bare, Hooks, Moment, PostRequest, PreRequest};
use http::request;
use serde::de::DeserializeOwned;
use std::cell::Cell;
use std::process::ExitCode;
use std::sync::Arc;

/// An app and what goes with it: hooks at the turns of a worker's life and around requests, memory that the workers share.
/// Without any of these, [`run`](crate::run) is the same in one word.
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use ferricorn::App;
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     App::new()
///         .on_draining(|worker| log::info!("worker {} takes no more", worker.slot()))
///         .run(|_worker| Router::new().route("/", get(async || "Hello from Ferricorn\n")))
/// }
/// ```
///
/// # Hooks
/// Each may be given several times; they run in the order in which they were given. All run in the worker, as its user: the
/// master runs no code of the app. In their order in a worker's life:
///
/// | hook | when |
/// |---|---|
/// | [`on_starting`](App::on_starting) | before the app is built |
/// | [`warm_up`](App::warm_up) | the app is built, the worker not yet ready |
/// | [`on_ready`](App::on_ready) | shown as ready; nothing was accepted yet |
/// | [`pre_request`](App::pre_request), [`post_request`](App::post_request) | around the app, at each request |
/// | [`on_draining`](App::on_draining) | told to finish what is open |
/// | [`on_aborting`](App::on_aborting) | told to leave at once |
/// | [`on_exit`](App::on_exit) | last |
///
/// Those up to `on_aborting` run on the event loop, where nobody else is served meanwhile: they must be short. A worker that is
/// killed, or dies, runs none.
pub struct App<M = Alone, A = Bare> {
    memory: M,
    around: A,
    hooks: Hooks,
    settings: Option<AppType>,
}

/// Its workers share nothing.
#[derive(Debug)]
pub struct Alone;

/// Its workers share what was loaded before they were forked.
pub struct Shared<T> {
    load: Box<Load<T>>,
}

type Load<T> = dyn Fn(&Settings) -> Result<T, BoxError>;

impl App {
    #[expect(clippy::new_without_default, reason = "an app without anything is `run`")]
    pub fn new() -> App {
        App { memory: Alone, around: Bare, hooks: Hooks::default(), settings: None }
    }
}

impl<A> App<Alone, A> {
    /// Runs `load` once for each generation of workers, at start and at each reload, in a process of its own, from which
    /// then all workers of the generation are forked: they have one copy of it in memory, as long as they do not write to it.
    /// It gets the settings of its generation, and runs as the workers' user.
    ///
    /// It may not leave threads behind, nor a runtime, nor an open database: these are lost or harmful in a fork. They belong
    /// into the app, which each worker builds for itself. `boot_timeout` covers it together with the start of the first worker.
    ///
    /// ```no_run
    /// use axum::{Router, routing::get};
    /// use std::process::ExitCode;
    ///
    /// struct Model(Vec<f32>);
    ///
    /// fn main() -> ExitCode {
    ///     let load = |_settings: &_| Ok::<_, std::io::Error>(Model(vec![0.5; 50_000_000]));
    ///     ferricorn::App::new().preload(load).run(|_worker, model: &'static Model| {
    ///         Router::new().route("/", get(move || async move { format!("{}\n", model.0[0]) }))
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// Where `load` fails, panics or leaves threads behind, a reload is refused, and a start is tried again with back-off and
    /// given up as for a worker that cannot start.
    pub fn preload<T, E>(self, load: impl Fn(&Settings) -> Result<T, E> + 'static) -> App<Shared<T>, A>
    where
        T: 'static,
        E: Into<BoxError>,
    {
        let memory = Shared { load: Box::new(move |settings| load(settings).map_err(Into::into)) };
        App { memory, around: self.around, hooks: self.hooks, settings: self.settings }
    }

    /// Like [`run`](crate::run), with all that was put together.
    pub fn run<F, S>(self, app: F) -> ExitCode
    where
        F: Fn(Worker) -> S,
        A: Around<S, Service: HttpService>,
    {
        let App { memory: Alone, around, hooks, settings } = self;
        let app = |worker: Worker| around.around(&worker, app(worker.clone()));
        serve(&Plan { kind: AppKind::Own, settings, preload: None, hooks, app })
    }
}

impl<T: 'static, A> App<Shared<T>, A> {
    /// Like [`run`](crate::run), with all that was put together; the app gets what was loaded, which is never dropped.
    pub fn run<F, S>(self, app: F) -> ExitCode
    where
        F: Fn(Worker, &'static T) -> S,
        A: Around<S, Service: HttpService>,
    {
        let App { memory, around, hooks, settings } = self;
        let loaded: Cell<Option<&'static T>> = Cell::new(None);
        let load = |settings: &Settings| {
            let value = (memory.load)(settings).map_err(|error| error.to_string())?;
            loaded.set(Some(Box::leak(Box::new(value))));
            Ok(())
        };
        let app = |worker: Worker| {
            let value = loaded.get().expect("workers are forked after it was loaded");
            around.around(&worker, app(worker.clone(), value))
        };
        serve(&Plan { kind: AppKind::Own, settings, preload: Some(&load), hooks, app })
    }
}

impl<M, A> App<M, A> {
    /// Declares what the `[app]` table of the config file is read as: settings of the app's own. They are checked wherever the
    /// server's are, by `--check-config`, at the start, and at a reload before anything else is done; an error has file, line
    /// and key. A key that `T` does not know is one. `"${NAME}"` and `"file:PATH"` are filled in, and such a value is shown
    /// nowhere but as it stands in the file. Workers have them from [`Worker::app_settings`].
    ///
    /// It is read in the master, which runs no other code of the app: an own `Deserialize` must not start threads or wait.
    ///
    /// ```no_run
    /// use axum::{Router, routing::get};
    /// use std::process::ExitCode;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Shop {
    ///     greeting: String,
    ///     #[serde(default)]
    ///     token: String,
    /// }
    ///
    /// fn main() -> ExitCode {
    ///     ferricorn::App::new().settings::<Shop>().run(|worker| {
    ///         let greeting = worker.app_settings::<Shop>().greeting.clone();
    ///         Router::new().route("/", get(move || async move { greeting }))
    ///     })
    /// }
    /// ```
    pub fn settings<T: DeserializeOwned + Send + Sync + 'static>(mut self) -> Self {
        self.settings = Some(AppType::of::<T>());
        self
    }

    /// Runs `hook` in each new worker before the app is built there. A panic is a worker that cannot start.
    pub fn on_starting(self, hook: impl Fn(&Worker) + 'static) -> Self {
        self.on(Moment::Starting, hook)
    }

    /// Awaits `hook` when the app is built and the worker not yet ready: to fill a cache, to open a connection, to compile what
    /// the first client would otherwise wait for. `boot_timeout` covers it. The setting `warm_up` has pages asked for after it.
    ///
    /// ```
    /// # use ferricorn::{App, Error};
    /// let app = App::new().warm_up(async |worker| {
    ///     let names = worker.cache::<u32, String>("names");
    ///     names.get_or_load(1, async || Ok::<_, Error>("acorn".to_owned())).await?;
    ///     Ok::<_, Error>(())
    /// });
    /// ```
    ///
    /// # Errors
    /// Where it fails or panics the worker does not become ready: a reload is refused, a start is tried again with back-off.
    pub fn warm_up<H, E>(mut self, hook: H) -> Self
    where
        H: AsyncFn(Worker) -> Result<(), E> + 'static,
        E: Into<BoxError> + 'static,
    {
        self.hooks.add_warm_up(hook);
        self
    }

    /// Runs `hook` when the worker is ready. A panic is logged, and the worker serves.
    pub fn on_ready(self, hook: impl Fn(&Worker) + 'static) -> Self {
        self.on(Moment::Ready, hook)
    }

    /// Runs `hook` when the worker was told to finish what is open, because it is replaced or the server stops; it accepts what
    /// waits, and then no more. A panic is logged, and the drain goes on.
    pub fn on_draining(self, hook: impl Fn(&Worker) + 'static) -> Self {
        self.on(Moment::Draining, hook)
    }

    /// Runs `hook` when the worker is told to leave at once: at INT or QUIT, also while it drains.
    /// What is not done after a second is killed. The abort by `timeout` has no hook: the event loop that would run it is the
    /// one that hangs, and a signal handler may not run code that locks or allocates.
    pub fn on_aborting(self, hook: impl Fn(&Worker) + 'static) -> Self {
        self.on(Moment::Aborting, hook)
    }

    /// Runs `hook` last, when connections are closed and the event loop has ended: it may block, within what is left of
    /// `graceful_timeout`, or of the second that a quick stop grants. Not run where the worker could not start. A panic is logged.
    pub fn on_exit(self, hook: impl Fn(&Worker) + 'static) -> Self {
        self.on(Moment::Exit, hook)
    }

    fn on(mut self, moment: Moment, hook: impl Fn(&Worker) + 'static) -> Self {
        self.hooks.add(moment, hook);
        self
    }

    /// Shows each request to `hook` before the app gets it; it may change the head. A panic is a 500 for this request.
    /// Without it a request costs nothing more. What the server itself refuses is not shown.
    pub fn pre_request<F>(self, hook: F) -> App<M, PreRequest<A, F>>
    where
        F: Fn(&Worker, &mut request::Parts) + Send + Sync + 'static,
    {
        let around = PreRequest { inner: self.around, hook: Arc::new(hook) };
        App { memory: self.memory, around, hooks: self.hooks, settings: self.settings }
    }

    /// Shows each answer of the app to `hook` before it is sent; it may change the head. It sees no request whose client left,
    /// whose handler panicked or was late: the server answers those. The access log has all of them.
    ///
    /// ```
    /// let app = ferricorn::App::new().post_request(|worker, answered| {
    ///     log::debug!("{} {} took {:?}", answered.method, answered.uri.path(), answered.took);
    ///     answered.head.headers.insert("x-worker", worker.slot().into());
    /// });
    /// ```
    pub fn post_request<F>(self, hook: F) -> App<M, PostRequest<A, F>>
    where
        F: Fn(&Worker, Answered<'_>) + Send + Sync + 'static,
    {
        let around = PostRequest { inner: self.around, hook: Arc::new(hook) };
        App { memory: self.memory, around, hooks: self.hooks, settings: self.settings }
    }
}
