//! A proxy between an operator and the API server that shows it one namespace only, counts its writes, kills it, and lies.

use std::collections::HashMap;
use std::io::{Error, Result};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::{Client, Config};
use serde_json::json;
use tokio::net::TcpListener;

use super::process::Process;

type Answer = Response<UnsyncBoxBody<Bytes, Error>>;

/// Collections that an operator watches in all namespaces.
const WATCHED: [&str; 9] = [
    "gomodulecaches",
    "serviceaccounts",
    "configmaps",
    "services",
    "deployments",
    "networkpolicies",
    "persistentvolumeclaims",
    "poddisruptionbudgets",
    "pods",
];

/// A proxy; it ends with the test.
pub(crate) struct Meddler {
    state: Arc<State>,
    /// For the operator behind it.
    pub(crate) kubeconfig: String,
}

struct State {
    client: Client,
    namespace: String,
    /// Writes that the API server carried out, leases apart.
    writes: AtomicUsize,
    kill_at: AtomicUsize,
    victim: AtomicU32,
    down: AtomicBool,
    faults: AtomicBool,
    random: AtomicU64,
    /// Lists as they were.
    lists: Mutex<HashMap<String, Vec<Bytes>>>,
    played: Mutex<HashMap<&'static str, usize>>,
}

impl Meddler {
    /// For one namespace, with the power of this account.
    pub(crate) async fn start(mut account: Config, namespace: &str, seed: u64) -> Self {
        account.default_retry = false;
        let state = Arc::new(State {
            client: Client::try_from(account).unwrap(),
            namespace: namespace.to_owned(),
            writes: AtomicUsize::new(0),
            kill_at: AtomicUsize::new(0),
            victim: AtomicU32::new(0),
            down: AtomicBool::new(false),
            faults: AtomicBool::new(false),
            random: AtomicU64::new(seed),
            lists: Mutex::default(),
            played: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubeconfig = format!("{}/{namespace}.kubeconfig", env!("CARGO_TARGET_TMPDIR"));
        let server = format!("http://{}", listener.local_addr().unwrap());
        let content = json!({"apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": server}}], "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}]});
        std::fs::write(&kubeconfig, content.to_string()).unwrap();
        let serving = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = serving.clone();
                let service = hyper::service::service_fn(move |request| {
                    let state = state.clone();
                    async move { state.answer(request).await }
                });
                tokio::spawn(async move {
                    let _cut = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { state, kubeconfig }
    }

    /// From now on the operator dies of its k-th write, after the API server carried it out and before it hears of it.
    pub(crate) fn kill_at(&self, operator: &Process, k: usize) {
        self.state.victim.store(operator.id(), SeqCst);
        self.state.writes.store(0, SeqCst);
        self.state.kill_at.store(k, SeqCst);
    }

    /// Writes since it was last asked.
    pub(crate) fn writes(&self) -> usize {
        self.state.writes.swap(0, SeqCst)
    }

    /// As if there were no API server.
    pub(crate) fn down(&self, down: bool) {
        self.state.down.store(down, SeqCst);
    }

    /// From now on there are faults.
    pub(crate) fn play_faults(&self) {
        self.state.faults.store(true, SeqCst);
    }

    /// How often each fault was played.
    pub(crate) fn played(&self) -> HashMap<&'static str, usize> {
        self.state.played.lock().unwrap().clone()
    }
}

impl State {
    fn below(&self, bound: u64) -> u64 {
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, SeqCst);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn play(&self, fault: &'static str) {
        *self.played.lock().unwrap().entry(fault).or_default() += 1;
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer> {
        if self.down.load(SeqCst) {
            return Err(Error::other("down"));
        }
        let reads = request.method() == Method::GET;
        let uri = request.uri().clone();
        let watch = reads && uri.query().is_some_and(|query| query.contains("watch=true"));
        let list = reads && !watch && self.is_collection(uri.path());
        // A reconcile asks a dozen times, so most questions must be answered if it is ever to come to an end.
        let chance = if watch {
            25
        } else if uri.path().contains("/leases") {
            5
        } else if list || !reads {
            15
        } else {
            4
        };
        let playing = self.faults.load(SeqCst);
        let fault = playing && self.below(100) < chance;
        let kind = if fault { self.below(8) } else { 99 };
        let accepted = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let list_key = format!("{} {accepted}", uri.path());
        let refused = |code: u16, reason: &str, retry: u32| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "played", "reason": reason,
                "code": code, "details": {"retryAfterSeconds": retry}});
            let body = Full::new(Bytes::from(status.to_string())).map_err(|never| match never {}).boxed_unsync();
            let mut answer = Response::new(body);
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            answer.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
            if retry > 0 {
                answer.headers_mut().insert(header::RETRY_AFTER, retry.into());
            }
            Ok(answer)
        };
        match kind {
            _ if playing && list && self.below(2) == 0 && self.lists.lock().unwrap().contains_key(&list_key) => {
                self.play("stale list");
                let old = self.lists.lock().unwrap()[&list_key].clone();
                let old = old[usize::try_from(self.below(old.len() as u64)).unwrap()].clone();
                let mut answer = Response::new(Full::new(old).map_err(|never| match never {}).boxed_unsync());
                answer.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
                return Ok(answer);
            }
            0 if !reads => {
                self.play("409");
                return refused(409, "Conflict", 0);
            }
            0..=2 if watch => {
                self.play("410 in a watch");
                let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
                    "reason": "Expired", "message": "too old resource version"}});
                let body = Full::new(Bytes::from(format!("{gone}\n"))).map_err(|never| match never {}).boxed_unsync();
                return Ok(Response::new(body));
            }
            1 => {
                self.play("429");
                return refused(429, "TooManyRequests", 1);
            }
            2 => {
                self.play("500");
                return refused(500, "InternalError", 0);
            }
            3 => {
                self.play("503");
                return refused(503, "ServiceUnavailable", 0);
            }
            4 => {
                self.play("latency");
                tokio::time::sleep(Duration::from_millis(self.below(1500))).await;
            }
            5 => {
                self.play("cut before");
                return Err(Error::other("cut"));
            }
            _ => {}
        }
        let answer = self.forward(request).await?;
        let carried_out = answer.status().is_success();
        if !reads && carried_out && !uri.path().contains("/leases") {
            let k = self.writes.fetch_add(1, SeqCst) + 1;
            if k == self.kill_at.load(SeqCst) {
                self.kill_at.store(0, SeqCst);
                let victim = self.victim.load(SeqCst).to_string();
                let _gone_already = Command::new("kill").args(["-KILL", &victim]).status();
                return Err(Error::other("killed"));
            }
        }
        if !watch && kind == 7 {
            self.play("cut after");
            return Err(Error::other("cut"));
        }
        let (mut head, body) = answer.into_parts();
        head.headers.remove(header::TRANSFER_ENCODING);
        head.headers.remove(header::CONNECTION);
        if list && carried_out {
            let bytes = body.collect().await.map_err(Error::other)?.to_bytes();
            let mut lists = self.lists.lock().unwrap();
            let known = lists.entry(list_key).or_default();
            if known.len() < 20 {
                known.push(bytes.clone());
            }
            return Ok(Response::from_parts(head, Full::new(bytes).map_err(|never| match never {}).boxed_unsync()));
        }
        if watch && fault {
            self.play("watch cut");
            let pause = Duration::from_millis(200 + self.below(2000));
            let data = body.into_data_stream().map(|data| data.map(Frame::data).map_err(Error::other));
            let cut = data.take_until(tokio::time::sleep(pause)).chain(futures::stream::iter([Err(Error::other("cut"))]));
            return Ok(Response::from_parts(head, BodyExt::boxed_unsync(StreamBody::new(cut))));
        }
        Ok(Response::from_parts(head, body.map_err(Error::other).boxed_unsync()))
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let (mut head, body) = request.into_parts();
        let path = if head.method == Method::GET { self.narrowed(head.uri.path()) } else { head.uri.path().to_owned() };
        let query = head.uri.query().map_or(String::new(), |query| format!("?{query}"));
        head.uri = format!("{path}{query}").parse().map_err(Error::other)?;
        head.headers.remove(header::HOST);
        head.headers.remove(header::CONTENT_LENGTH);
        head.version = http::Version::HTTP_11;
        let bytes = body.collect().await.map_err(Error::other)?.to_bytes();
        self.client.send(Request::from_parts(head, Body::from(bytes))).await.map_err(Error::other)
    }

    fn is_collection(&self, path: &str) -> bool {
        self.narrowed(path) != path
    }

    /// A collection of all namespaces becomes that of one.
    fn narrowed(&self, path: &str) -> String {
        match path.trim_start_matches('/').split('/').collect::<Vec<_>>()[..] {
            ["api", version, kind] if WATCHED.contains(&kind) => format!("/api/{version}/namespaces/{}/{kind}", self.namespace),
            ["apis", group, version, kind] if WATCHED.contains(&kind) => {
                format!("/apis/{group}/{version}/namespaces/{}/{kind}", self.namespace)
            }
            _ => path.to_owned(),
        }
    }
}
