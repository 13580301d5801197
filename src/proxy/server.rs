//! Requests: parse, answer, count, log; and the drain at the end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::access_log::{AccessLog, Line};
use super::answer::Answer;
use super::body::Body;
use super::cache::Cache;
use super::connection::{Answering, Connection};
use super::labels::{Counters, Endpoint, Outcome};
use super::look_ahead::{LookAhead, Trail};
use super::respond;
use crate::connections::{UNREAD, Waits, accept};
use crate::gomod::Request;
use crate::telemetry::{Health, Metrics};

/// How long running answers may take after SIGTERM; the pod's grace period is 30 s, and what is left of it is for what waits to be kept.
const DRAIN: Duration = Duration::from_secs(25);
/// How long a connection may take to send a request's head.
const HEAD: Duration = Duration::from_secs(30);
/// What the access log has for the status of an answer that nobody waited for. HTTP has none; this one is in use for it elsewhere.
const LEFT: u16 = 499;

/// What a connection needs to answer its requests.
pub(super) struct Service {
    pub(super) cache: Arc<Cache>,
    pub(super) look_ahead: Arc<LookAhead>,
    pub(super) counters: Counters,
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: AccessLog,
}

/// Who asks, on which connection.
struct Peer {
    /// As the log has it.
    client: String,
    trail: Trail,
    answering: Answering,
}

/// Serves until the token is cancelled, goes on to accept connections for as long as `linger` says, then lets running answers end.
pub(super) async fn serve(listener: TcpListener, service: Service, health: Health, shutdown: CancellationToken, linger: Duration) {
    let state = Arc::new(service);
    let of_connections = Arc::clone(&state);
    let connect = move |stream, client: SocketAddr| {
        let (state, answering) = (Arc::clone(&of_connections), Answering::default());
        let connection = Connection::new(stream, answering.clone());
        let peer = Arc::new(Peer { client: client.to_string(), trail: state.look_ahead.trail(client.ip()), answering });
        let service = service_fn(move |request| {
            let (state, peer) = (Arc::clone(&state), Arc::clone(&peer));
            async move { Ok::<_, Infallible>(handle(&state, &peer, request).await) }
        });
        (connection, service)
    };
    let closed = CancellationToken::new();
    // A Service goes on to send connections here until it has heard that this pod is going.
    let close = async {
        shutdown.cancelled().await;
        health.set_ready(false);
        tokio::time::sleep(linger).await;
        closed.cancel();
    };
    let (connections, ()) = tokio::join!(accept(listener, Waits { head: HEAD, unread: UNREAD }, &closed, connect), close);
    let drain = DRAIN.saturating_sub(linger);
    if tokio::time::timeout(drain, connections.shutdown()).await.is_err() {
        tracing::warn!(in_flight = state.metrics.in_flight.get(), "answers were still running after {} s", drain.as_secs());
    }
}

/// One request from its path to its answer.
async fn handle(service: &Service, peer: &Peer, http: http::Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let Peer { client, trail, answering } = peer;
    let path = http.uri().path();
    let is_head = http.method() == Method::HEAD;
    let is_get = http.method() == Method::GET;
    let (endpoint, outcome, (response, length)) = match service.cache.hot(path, started).filter(|_| is_get) {
        Some(hot) => {
            service.look_ahead.asked(trail, &hot.request, started);
            service.look_ahead.answered(trail, &hot);
            if let Some(twin) = hot.twin() {
                answering.with(twin);
            }
            (hot.endpoint, Outcome::Hit, respond::respond(hot.endpoint, Answer::Hot(hot)))
        }
        None if !is_get && !is_head => (Endpoint::Other, Outcome::Error, respond::method_not_allowed()),
        None => match Request::parse(path) {
            Err(error) => (Endpoint::Other, Outcome::NotFound, respond::text(StatusCode::NOT_FOUND, format!("not found: {error}\n"))),
            Ok(request) => {
                let endpoint = Endpoint::of(&request);
                let request = Arc::new(request);
                let mut in_flight = InFlight::enter(service, client, endpoint, path, started);
                // A go command never asks for a head alone, and what would be remembered of one costs memory.
                if is_get {
                    service.look_ahead.asked(trail, &request, started);
                }
                let missed = || {
                    if is_get {
                        service.look_ahead.missed(trail, &request)
                    }
                };
                let (mut answer, mut outcome) = service.cache.answer(&request, path, &missed).await;
                if let Answer::Hot(hot) = &answer
                    && is_get
                {
                    service.look_ahead.answered(trail, hot);
                }
                // Without a length HTTP/1.0 ends a body that is whole and one that breaks off in the same way.
                if http.version() == Version::HTTP_10 {
                    (answer, outcome) = answer.settled(outcome).await;
                }
                in_flight.is_answered = true;
                (endpoint, outcome, respond::respond(endpoint, answer))
            }
        },
    };
    let elapsed = started.elapsed();
    let (status, bytes) = (response.status().as_u16(), if is_head { 0 } else { length });
    service.counters.count(endpoint, outcome, elapsed, bytes);
    service.log.log(&Line { client, endpoint, path, status, outcome, bytes, elapsed });
    if is_head { respond::without_body(response) } else { response }
}

/// A request while it is being answered. One whose client leaves meanwhile ends here, counted and logged like any other: what was
/// fetched for it is kept.
struct InFlight<'a> {
    service: &'a Service,
    line: Line<'a>,
    started: Instant,
    is_answered: bool,
}

impl<'a> InFlight<'a> {
    fn enter(service: &'a Service, client: &'a str, endpoint: Endpoint, path: &'a str, started: Instant) -> Self {
        service.metrics.in_flight.inc();
        let line = Line { client, endpoint, path, status: LEFT, outcome: Outcome::Left, bytes: 0, elapsed: Duration::ZERO };
        Self { service, line, started, is_answered: false }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let Self { service, line, started, is_answered } = self;
        service.metrics.in_flight.dec();
        if !*is_answered {
            service.counters.count_left(line.endpoint);
            line.elapsed = started.elapsed();
            service.log.log(line);
        }
    }
}
