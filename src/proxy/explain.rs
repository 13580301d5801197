//! `GET /explain/<module>@<version>` on the admin address: why a version is answered as it is.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::cache::Cache;
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
    /// The admin address is one of this machine alone.
    on_loopback: bool,
}

/// The endpoint.
pub(super) fn router(cache: Arc<Cache>, journal: Arc<Journal>, on_loopback: bool) -> Router {
    Router::new().route("/explain/{*wanted}", get(explain)).with_state(Shared { cache, journal, on_loopback })
}

async fn explain(State(shared): State<Shared>, Path(wanted): Path<String>, headers: HeaderMap) -> Response {
    let token = shared.cache.admin_token();
    if !may_ask(token.as_deref(), &headers, shared.on_loopback) {
        let why = "it names modules: ask with the bearer token of the key admin-token of the credentials Secret\n";
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], why).into_response();
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

fn may_ask(token: Option<&[u8]>, headers: &HeaderMap, on_loopback: bool) -> bool {
    let Some(token) = token else { return on_loopback };
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    // Hashes are compared, so that the time that it takes says nothing about the token.
    given.strip_prefix(b"Bearer ").is_some_and(|given| digest(&SHA256, given).as_ref() == digest(&SHA256, token.trim_ascii()).as_ref())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_token_opens_it_and_without_one_only_this_machine() {
        let headers = |text: &str| HeaderMap::from_iter([(header::AUTHORIZATION, text.parse().unwrap())]);
        assert!(may_ask(Some(b"secret\n"), &headers("Bearer secret"), false));
        assert!(!may_ask(Some(b"secret"), &headers("Bearer other"), true));
        assert!(!may_ask(Some(b"secret"), &HeaderMap::new(), true));
        assert!(may_ask(None, &HeaderMap::new(), true) && !may_ask(None, &HeaderMap::new(), false));
    }
}
