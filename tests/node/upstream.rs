//! A local upstream that serves this machine's module cache: a corpus that was fetched once, and requests that a test counts.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;

#[derive(Default)]
struct Seen {
    requests: Vec<String>,
    password: Option<String>,
}

#[derive(Clone)]
struct Corpus {
    folder: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

/// The running server, on loopback. Its base path is `/mirror`.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    seen: Arc<Mutex<Seen>>,
}

impl Upstream {
    /// Serves `$(go env GOMODCACHE)/cache/download` until the test process ends.
    pub(crate) fn start() -> Self {
        let modcache = crate::cluster::script("go", &["env", "GOMODCACHE"]);
        let corpus = Corpus { folder: PathBuf::from(modcache.trim()).join("cache/download"), seen: Arc::default() };
        let seen = Arc::clone(&corpus.seen);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let router = Router::new().fallback(serve).with_state(corpus);
                axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
            });
        });
        Self { port, seen }
    }

    /// The paths asked since the last call.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap().requests)
    }

    /// The password of the last request that carried one.
    pub(crate) fn last_password(&self) -> Option<String> {
        self.seen.lock().unwrap().password.clone()
    }
}

async fn serve(State(corpus): State<Corpus>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    {
        let mut seen = corpus.seen.lock().unwrap();
        seen.requests.push(path.clone());
        if let Some(password) = basic_password(&request) {
            seen.password = Some(password);
        }
    }
    let Some(relative) = path.strip_prefix("/mirror/") else { return not_found() };
    let relative = relative.replace("%21", "!");
    if relative.split('/').any(|element| element == "..") || relative.ends_with("/list") {
        return not_found();
    }
    match tokio::fs::read(corpus.folder.join(relative)).await {
        Ok(bytes) => bytes.into_response(),
        Err(_) => not_found(),
    }
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "not found\n").into_response()
}

fn basic_password(request: &Request) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(value).ok()?).ok()?;
    Some(text.split_once(':')?.1.to_owned())
}
