//! The admin address: `/livez`, `/readyz` and `/metrics`, never on the address that clients use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::service::TowerToHyperService;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::connections::{UNREAD, Waits, accept};

/// How long a connection may take to send a request's head, or rest between two: longer than most scrapes are apart.
const HEAD: Duration = Duration::from_secs(90);
/// How long running answers may take at the end.
const DRAIN: Duration = Duration::from_secs(2);

/// Readiness and liveness, shared between the work and the admin server.
#[derive(Clone, Debug, Default)]
pub struct Health {
    ready: Arc<AtomicBool>,
    /// When the work counts as dead unless it is heard of. None: that the admin server answers is enough.
    deadline: Arc<Mutex<Option<Instant>>>,
}

impl Health {
    /// Says whether `/readyz` answers 200.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// The work lives; it is dead if it does not say so again in this time.
    pub fn expect_beat(&self, within: Duration) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + within);
    }

    /// The work is over, or waits for something outside.
    pub fn expect_no_beat(&self) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What `/livez` answers.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|deadline| Instant::now() < deadline)
    }

    /// What `/readyz` answers.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

/// Serves the admin endpoints, and `more`, until the token is cancelled.
pub async fn serve_admin(listener: TcpListener, registry: Registry, health: Health, more: Router, shutdown: CancellationToken) {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state((registry, health))
        .merge(more);
    let service = TowerToHyperService::new(router);
    let connections = accept(listener, Waits { head: HEAD, unread: UNREAD }, &shutdown, move |stream, _| (stream, service.clone())).await;
    if tokio::time::timeout(DRAIN, connections.shutdown()).await.is_err() {
        tracing::debug!("requests to the admin address were still running after {} s", DRAIN.as_secs());
    }
}

async fn livez(State((_, health)): State<(Registry, Health)>) -> impl IntoResponse {
    if health.is_live() { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "the work has stopped\n") }
}

async fn readyz(State((_, health)): State<(Registry, Health)>) -> impl IntoResponse {
    if health.is_ready() { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

async fn metrics(State((registry, _)): State<(Registry, Health)>) -> impl IntoResponse {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_does_not_say_that_it_lives_is_dead_until_it_does_or_ends() {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/livez", listener.local_addr().unwrap());
        let server = tokio::spawn(serve_admin(listener, Registry::new(), health.clone(), Router::new(), shutdown.clone()));
        let live = async || reqwest::get(&url).await.unwrap().status().as_u16();
        assert_eq!(live().await, 200, "nothing was promised yet");
        health.expect_beat(Duration::from_secs(60));
        assert_eq!(live().await, 200);
        health.expect_beat(Duration::ZERO);
        assert_eq!(live().await, 503);
        health.expect_beat(Duration::from_secs(60));
        assert_eq!(live().await, 200);
        health.expect_beat(Duration::ZERO);
        health.expect_no_beat();
        assert_eq!(live().await, 200, "what waits for something outside is not dead");
        shutdown.cancel();
        server.await.unwrap();
    }
}
