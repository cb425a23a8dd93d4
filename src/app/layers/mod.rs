//! Layers that settings put around an app: answers to probes, fields for security, CORS, compression, from the outside in. Where none is
//! set, there is none, and the app is served as it is. Not here: what the settings are called, the hooks of an app.

mod compress;
mod cors;
mod probes;
mod secure;

pub(crate) use compress::{Compress, Settled};
pub(crate) use probes::Unlogged;

use super::{Body, BoxError, HttpService};
use crate::config::Settings;
use crate::scoreboard::Board;
use http::{Request, Response};
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt};

/// An app with layers around it. Of one type, whatever is set and whatever the app is.
pub(crate) type Layered = BoxCloneService<Request<Body>, Response<Body>, BoxError>;

/// Whether any layer is.
pub(crate) fn wanted(settings: &Settings) -> bool {
    !settings.compress.is_none()
        || cors::wanted(settings)
        || secure::wanted(settings)
        || settings.answers_probes()
}

/// Puts what is set around the app.
pub(crate) fn around<S: HttpService>(settings: &Settings, board: Board, app: S) -> Layered {
    let mut layered =
        BoxCloneService::new(app.map_response(|answer| answer.map(Body::new)).map_err(Into::into));
    if !settings.compress.is_none() {
        layered = BoxCloneService::new(Compress::new(settings.compress, settings).layer(layered));
    }
    if cors::wanted(settings) {
        layered = BoxCloneService::new(cors::Cors::new(settings).layer(layered));
    }
    if secure::wanted(settings) {
        layered = BoxCloneService::new(secure::Secure::new(settings).layer(layered));
    }
    if settings.answers_probes() {
        layered = BoxCloneService::new(probes::Probes::new(settings, board).layer(layered));
    }
    layered
}

#[cfg(test)]
mod tests;
