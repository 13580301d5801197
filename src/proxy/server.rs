//! Connections and requests: accept, parse, answer, count, log; and the drain at the end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::cache::Cache;
use super::respond::{self, Body};
use crate::gomod::Request;
use crate::telemetry::{Health, Metrics};

/// How long running answers may take after SIGTERM; the pod's grace period is 30 s.
const DRAIN: Duration = Duration::from_secs(25);
/// How long a connection may take to send a request's head.
const HEAD: Duration = Duration::from_secs(30);

/// Serves until the token is cancelled, then lets running answers end.
pub(super) async fn serve(listener: TcpListener, cache: Arc<Cache>, metrics: Arc<Metrics>, health: Health, shutdown: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: a pause lets connections end.
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _best_effort = stream.set_nodelay(true);
        let cache = Arc::clone(&cache);
        let service = service_fn(move |request| {
            let cache = Arc::clone(&cache);
            async move { Ok::<_, Infallible>(handle(&cache, client, request).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%client, %error, "connection ended");
            }
        });
    }
    health.set_ready(false);
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!(in_flight = metrics.in_flight.get(), "answers were still running after {} s", DRAIN.as_secs());
    }
}

/// One request from its path to its answer.
async fn handle(cache: &Arc<Cache>, client: SocketAddr, http: http::Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let metrics = cache.metrics();
    metrics.in_flight.inc();
    let parsed = Request::parse(http.uri().path());
    let endpoint = parsed.as_ref().map_or("other", Request::endpoint);
    let is_head = http.method() == Method::HEAD;
    let ((response, length), result) = match &parsed {
        _ if !is_head && http.method() != Method::GET => (respond::method_not_allowed(), "error"),
        Err(error) => (respond::text(StatusCode::NOT_FOUND, format!("not found: {error}\n")), "not_found"),
        Ok(request) => {
            let (answer, result) = cache.answer(request).await;
            (respond::respond(request, answer).await, result)
        }
    };
    let elapsed = started.elapsed();
    metrics.requests.with_label_values(&[endpoint, result]).inc();
    metrics.request_duration.with_label_values(&[endpoint]).observe(elapsed.as_secs_f64());
    if !is_head {
        metrics.response_bytes.with_label_values(&[endpoint]).inc_by(length);
    }
    metrics.in_flight.dec();
    let module = parsed.as_ref().ok().and_then(Request::module).map(ToString::to_string);
    let version = parsed.as_ref().ok().and_then(Request::version).map(ToString::to_string);
    tracing::info!(
        target: "access", %client, endpoint, module, version, status = response.status().as_u16(), result, bytes = length,
        milliseconds = elapsed.as_millis() as u64
    );
    if is_head { respond::without_body(response) } else { response }
}
