//! `GET /report` on the admin address: what the operator wants to know of a running proxy.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::guard::Guard;
use super::live::Live;
use crate::report::{ProxyReport, REPORT_PATH, REPORT_VERSION};
use crate::store::Store;

#[derive(Clone)]
struct Shared {
    live: Arc<Live>,
    store: Store,
    guard: Guard,
}

/// The endpoint.
pub(super) fn router(live: Arc<Live>, store: Store, guard: Guard) -> Router {
    Router::new().route(REPORT_PATH, get(answer)).with_state(Shared { live, store, guard })
}

async fn answer(State(Shared { live, store, guard }): State<Shared>, headers: HeaderMap) -> Response {
    if let Some(refusal) = guard.refusal(&headers) {
        return refusal;
    }
    let storage = tokio::task::spawn_blocking(move || store.trouble()).await.unwrap_or_default();
    let in_use = live.in_use();
    let report = ProxyReport {
        version: REPORT_VERSION,
        config_versions: live.config_versions().newest_first().to_vec(),
        config: in_use.config,
        credentials: in_use.credentials,
        refused: live.refused(),
        storage,
        redirects: live.chain().refused_redirects(),
        checksum_database: live.verify().database_trouble(),
        verdicts: live.chain().credential_verdicts(),
    };
    match serde_json::to_string(&report) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
