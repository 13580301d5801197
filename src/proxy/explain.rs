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
struct Object {
    endpoint: &'static str,
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_use: Option<Timestamp>,
    /// The `h1:` of a zip.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    in_memory: bool,
    downloading: bool,
    /// An upstream said a moment ago that it is not there, and is believed.
    known_absent: bool,
}

impl Cache {
    /// What is known of an object, without a change to it.
    async fn explain(&self, request: &Request, now: Instant) -> Object {
        let file = self.store.path(request);
        let metadata = tokio::fs::symlink_metadata(&file).await.ok().filter(std::fs::Metadata::is_file);
        let hash = match request {
            Request::Zip(..) => self.read_state(file.with_extension("ziphash")).await,
            _ => None,
        };
        Object {
            endpoint: request.endpoint(),
            cached: metadata.is_some(),
            bytes: metadata.as_ref().map(std::fs::Metadata::len),
            last_use: metadata.and_then(|metadata| metadata.modified().ok()).and_then(|time| Timestamp::try_from(time).ok()),
            hash: hash.and_then(|(bytes, _)| String::from_utf8(bytes.into()).ok()),
            in_memory: self.memory.get(&request.as_go_asks(), now).is_some(),
            downloading: self.is_fetching(request),
            known_absent: self.known_absent(request).is_some(),
        }
    }
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
