//! `GET /explain/<module>@<version>` on the admin address: why a version is answered as it is.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::Serialize;

use super::cache::Cache;
use super::guard::Guard;
use crate::gomod::{ModulePath, Request, Version};
use crate::source::{Attempt, Journal};

/// What is known of one version.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    module: String,
    version: String,
    /// Never named to public upstreams or to the checksum database.
    private: bool,
    offline: bool,
    /// The rule against it, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    denied: Option<String>,
    objects: Vec<Object>,
    /// The last attempts at upstreams, the oldest first.
    attempts: Vec<Attempt>,
}

/// One file of a version.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Object {
    pub(super) endpoint: &'static str,
    pub(super) cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_use: Option<Timestamp>,
    /// The `h1:` of a zip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hash: Option<String>,
    pub(super) in_memory: bool,
    pub(super) downloading: bool,
    /// An upstream said a moment ago that it is not there, and is believed.
    pub(super) known_absent: bool,
}

#[derive(Clone)]
struct Shared {
    cache: Arc<Cache>,
    journal: Arc<Journal>,
    guard: Guard,
}

/// The endpoint.
pub(super) fn router(cache: Arc<Cache>, journal: Arc<Journal>, guard: Guard) -> Router {
    Router::new().route("/explain/{*wanted}", get(explain)).with_state(Shared { cache, journal, guard })
}

async fn explain(State(shared): State<Shared>, Path(wanted): Path<String>, headers: HeaderMap) -> Response {
    if let Some(refusal) = shared.guard.refusal(&headers) {
        return refusal;
    }
    let parsed = wanted.rsplit_once('@').and_then(|(m, v)| Some((ModulePath::new(m).ok()?, Version::new(v).ok()?)));
    let Some((module, version)) = parsed else {
        return (StatusCode::NOT_FOUND, "ask for a module and a version: /explain/example.com/m@v1.2.3\n").into_response();
    };
    let files = [
        Request::Info(module.clone(), version.clone()),
        Request::Mod(module.clone(), version.clone()),
        Request::Zip(module.clone(), version.clone()),
    ];
    let mut objects = Vec::new();
    let mut denied = None;
    for request in files {
        denied = denied.or(shared.cache.refusal(&request).map(|error| error.to_string()));
        objects.push(shared.cache.explain(&request, Instant::now()).await);
    }
    if denied.is_none() {
        denied = shared.cache.known_too_young(&module, &version).await.map(|error| error.to_string());
    }
    let explanation = Explanation {
        private: shared.cache.is_private(&module),
        offline: shared.cache.is_offline(),
        denied,
        objects,
        attempts: shared.journal.of(&format!("{}/@v/{}.", module.escaped(), version.escaped())),
        module: module.to_string(),
        version: version.to_string(),
    };
    match serde_json::to_string_pretty(&explanation) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
