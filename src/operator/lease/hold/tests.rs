//! A candidate and the lease that a server of the test's own keeps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tower::BoxError;

use super::super::Leadership;
use super::*;

const TIMING: Timing = Timing { lease: Duration::from_secs(2), renew: Duration::from_secs(1), retry: Duration::from_millis(50) };

/// As the API server would, but for what it lets pass: a replacement without a version it takes, and the test does not.
#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    requests: usize,
    written: Vec<(Instant, Value)>,
    /// The next request is never answered.
    is_deaf: bool,
    /// A write was told that there is no lease, and none was stored since.
    is_lost: bool,
    /// A request came from a candidate that believed in a lead that was lost.
    believed: bool,
    /// The namespace has gone, too.
    is_gone: bool,
}

impl Server {
    fn answer(&mut self, method: &Method, body: &[u8]) -> (u16, Value) {
        let fault = |code: u16| {
            let reason = if code == 404 { "NotFound" } else { "Conflict" };
            (code, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code}))
        };
        self.is_lost |= method == Method::PUT && self.lease.is_none();
        match (method.as_str(), &self.lease) {
            ("GET", Some(lease)) => (200, lease.clone()),
            ("GET" | "PUT", None) => fault(404),
            ("POST", None) if self.is_gone => fault(404),
            ("POST", Some(_)) => fault(409),
            ("POST", None) => self.store(body),
            ("PUT", Some(lease)) => {
                let seen = &serde_json::from_slice::<Value>(body).unwrap()["metadata"]["resourceVersion"];
                if seen.is_null() || *seen == lease["metadata"]["resourceVersion"] { self.store(body) } else { fault(409) }
            }
            _ => fault(405),
        }
    }

    fn store(&mut self, body: &[u8]) -> (u16, Value) {
        let mut lease: Value = serde_json::from_slice(body).unwrap();
        self.written.push((Instant::now(), lease.clone()));
        self.version += 1;
        self.is_lost = false;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(lease.clone());
        (200, lease)
    }
}

struct Scene {
    server: Arc<Mutex<Server>>,
    leadership: Leadership,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

fn begin(lease: Option<Value>) -> Scene {
    let server = Arc::new(Mutex::new(Server { lease, ..Server::default() }));
    let (word, leadership) = Leadership::new();
    let (served, believer) = (Arc::clone(&server), leadership.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (served, believer) = (Arc::clone(&served), believer.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let is_deaf = {
                let mut server = served.lock().unwrap();
                server.requests += 1;
                server.believed |= server.is_lost && believer.holds();
                std::mem::take(&mut server.is_deaf)
            };
            if is_deaf {
                std::future::pending::<()>().await;
            }
            let (code, answer) = served.lock().unwrap().answer(&parts.method, &body);
            let answer = Body::from(answer.to_string().into_bytes());
            Ok::<_, BoxError>(Response::builder().status(code).body(answer).unwrap())
        }
    });
    let shutdown = CancellationToken::new();
    let candidate = Candidate::new(Client::new(service, "ops"), "ops", "me".to_owned(), TIMING, word);
    Scene { server, leadership, running: tokio::spawn(candidate.run(shutdown.clone())), shutdown }
}

impl Scene {
    async fn leads(&self) {
        tokio::time::timeout(Duration::from_secs(30), self.leadership.acquired()).await.expect("it leads");
    }

    fn look<T>(&self, at: impl Fn(&Server) -> T) -> T {
        at(&self.server.lock().unwrap())
    }

    async fn until(&self, claim: &str, is_true: impl Fn(&Server) -> bool) {
        let begun = Instant::now();
        while !self.look(&is_true) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{claim}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What was written, after an orderly end.
    async fn end(self) -> Vec<Value> {
        self.shutdown.cancel();
        self.running.await.unwrap();
        assert!(!self.leadership.holds(), "it gave back the lead and goes on");
        let server = self.server.lock().unwrap();
        server.written.iter().map(|(_, lease)| lease.clone()).collect()
    }
}

#[tokio::test]
async fn each_write_replaces_what_was_seen_and_a_lease_that_was_deleted_is_made_anew() {
    let scene = begin(None);
    scene.leads().await;
    scene.until("it renews", |server| server.written.len() >= 3).await;
    scene.server.lock().unwrap().lease = None;
    let before = scene.look(|server| server.written.len());
    scene.until("it has another", |server| server.lease.is_some() && server.written.len() > before + 2).await;
    assert!(scene.leadership.holds());
    assert!(!scene.look(|server| server.believed), "whoever deletes the lease takes the lead: another may have it already");
    let written = scene.end().await;
    let holder = |lease: &Value| lease["spec"]["holderIdentity"].clone();
    let (last, held) = written.split_last().unwrap();
    assert_eq!(holder(last), "", "the lead was not given back");
    assert!(held.iter().all(|lease| holder(lease) == "me"));
    let made: Vec<usize> = (0..written.len()).filter(|i| written[*i]["metadata"]["resourceVersion"].is_null()).collect();
    assert_eq!(made, [0, before], "but for two that were made, each carries the version that it replaces");
}

#[tokio::test]
async fn another_holder_is_waited_for_and_the_change_counts_as_one() {
    let spec = json!({"holderIdentity": "other", "leaseDurationSeconds": 1, "leaseTransitions": 7, "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:00.000000Z"});
    let metadata = json!({"name": NAME, "namespace": "ops", "resourceVersion": "0"});
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec.clone()});
    let begun = Instant::now();
    let scene = begin(Some(lease));
    scene.leads().await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "it did not wait as long as the holder asked");
    scene.until("it renews", |server| server.written.len() >= 3).await;
    let written = scene.end().await;
    let of = |key: &str| written.iter().map(|lease| lease["spec"][key].clone()).collect::<Vec<_>>();
    assert!(of("leaseTransitions").iter().all(|count| *count == 8), "{written:?}");
    let acquired = of("acquireTime");
    assert!(acquired[0] != spec["acquireTime"] && acquired.iter().all(|time| *time == acquired[0]), "{acquired:?}");
    assert_ne!(of("renewTime")[0], of("renewTime")[1]);
}

#[tokio::test]
async fn a_request_that_is_never_answered_costs_no_lead() {
    let scene = begin(None);
    scene.leads().await;
    let before = {
        let mut server = scene.server.lock().unwrap();
        server.is_deaf = true;
        server.requests
    };
    scene.until("the deaf request", |server| server.requests > before).await;
    let lost = tokio::time::timeout(TIMING.renew * 2, scene.leadership.lost()).await;
    assert!(lost.is_err(), "it stepped down for one lost request");
    scene.end().await;
}

#[tokio::test]
async fn a_holder_that_renews_keeps_its_lease() {
    let lease = |second: u32| {
        let spec =
            json!({"holderIdentity": "other", "leaseDurationSeconds": 3, "renewTime": format!("2026-01-01T00:00:{second:02}.000000Z")});
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME, "resourceVersion": second.to_string()}, "spec": spec})
    };
    let scene = begin(Some(lease(0)));
    for second in 1..13 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        scene.server.lock().unwrap().lease = Some(lease(second));
    }
    assert!(!scene.leadership.holds() && scene.look(|server| server.written.is_empty()));
    scene.leads().await;
    scene.end().await;
}

#[tokio::test]
async fn where_no_lease_can_be_made_it_is_tried_at_the_usual_pace() {
    let scene = begin(None);
    scene.leads().await;
    let before = {
        let mut server = scene.server.lock().unwrap();
        (server.lease, server.is_gone) = (None, true);
        server.requests
    };
    let begun = Instant::now();
    scene.until("it is tried", |server| server.requests >= before + 20).await;
    assert!(begun.elapsed() >= TIMING.retry * 8, "as often as this in {:?}", begun.elapsed());
    assert!(!scene.leadership.holds());
    scene.end().await;
}
