//! Pods without a node: objects that the cluster's own controllers make, on addresses of the loopback network, where a real
//! proxy or a server of the test's own answers.

use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gomodcache::config::ADMIN_PORT;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::stage::Stage;

/// The same spec with pods that no node may have: where there are nodes, a kubelet would gainsay these tests.
pub(crate) fn on_no_node(mut spec: Value) -> Value {
    spec["podTemplate"] = json!({"nodeSelector": {"tests.example/nowhere": "yes"}});
    spec
}

/// The name of the pod that the Deployment of a cache made.
pub(crate) async fn own_pod(stage: &Stage, cache: &str) -> String {
    pod_of(stage, &format!("{cache}-proxy-")).await
}

/// The name of a pod that begins so, and goes on with the two hashes of a Deployment's pod.
pub(crate) async fn pod_of(stage: &Stage, prefix: &str) -> String {
    let found = Mutex::new(String::new());
    stage
        .eventually(&format!("a pod {prefix}…"), async || {
            let names = stage.list("Pod").await.into_iter().filter_map(|pod| pod.metadata.name);
            let mut own = names.filter(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.split('-').count() == 2));
            own.next().map(|name| *found.lock().unwrap() = name).is_some()
        })
        .await;
    found.into_inner().unwrap()
}

/// What a kubelet would write when the pod is ready at this address.
pub(crate) async fn make_ready(stage: &Stage, pod: &str, address: &str) {
    let now = "2026-01-01T00:00:00Z";
    let conditions = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
    let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions});
    stage.patch_status("Pod", pod, &json!({ "status": status })).await;
}

/// A real proxy on the admin port of an address, with the mounts of a cache's pod.
pub(crate) struct Proxy {
    process: Child,
    folder: tempfile::TempDir,
    address: String,
}

impl Proxy {
    pub(crate) async fn start(stage: &Stage, cache: &str, address: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(stage, cache, folder.path()).await;
        let process = spawn(folder.path(), address, &[]);
        let this = Self { process, folder, address: address.to_owned() };
        this.listens(stage).await;
        this
    }

    /// Goes on with the same volume as a proxy of another release, that reads these versions of the configuration.
    pub(crate) async fn becomes_one_that_reads(&mut self, stage: &Stage, versions: &str) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = spawn(self.folder.path(), &self.address, &["--config-versions", versions]);
        self.listens(stage).await;
    }

    async fn listens(&self, stage: &Stage) {
        stage.eventually("the proxy listens", async || TcpStream::connect((self.address.as_str(), ADMIN_PORT)).await.is_ok()).await;
    }

    /// Does what a kubelet does some time after a change.
    pub(crate) async fn refresh(&self, stage: &Stage, cache: &str) {
        mount(stage, cache, self.folder.path()).await;
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

fn spawn(folder: &Path, address: &str, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_gomodcache"))
        .args(["proxy", "--listen", &format!("{address}:0"), "--admin-listen", &format!("{address}:{ADMIN_PORT}"), "--cache-dir"])
        .arg(folder.join("cache"))
        .arg("--config")
        .arg(folder.join("config/proxy.yaml"))
        .args(arguments)
        .stderr(std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap())
        .spawn()
        .unwrap()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

async fn mount(stage: &Stage, cache: &str, folder: &Path) {
    for name in ["config", "credentials"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    let secret = stage.get("Secret", &format!("{cache}-credentials")).await.unwrap();
    for key in secret.data["data"].as_object().unwrap().keys() {
        write(&folder.join("credentials").join(key), &stage.credential_key(cache, key).await);
    }
    let config = stage.get("ConfigMap", &format!("{cache}-config")).await.unwrap();
    let files = config.data["data"].as_object().unwrap();
    for (name, text) in files {
        write(&folder.join("config").join(name), text.as_str().unwrap());
    }
    for there in std::fs::read_dir(folder.join("config")).unwrap().map(Result::unwrap) {
        if !files.contains_key(there.file_name().to_str().unwrap()) {
            std::fs::remove_file(there.path()).unwrap();
        }
    }
}

/// In one step, as a mounted directory changes.
fn write(path: &Path, text: &str) {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(temporary, path).unwrap();
}

/// The configuration that the cluster holds for the proxies of a cache.
pub(crate) async fn config_of(stage: &Stage, cache: &str) -> String {
    let config = stage.get("ConfigMap", &format!("{cache}-config")).await.unwrap();
    config.data["data"]["proxy.yaml"].as_str().unwrap().to_owned()
}

/// What a server of the test's own does with every request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// 200 with this body.
    Json(String),
    /// To another address.
    Redirect(String),
    /// A body that never ends.
    Endless,
    /// A body of which a byte comes now and then.
    Slow,
}

/// A server of the test's own on the admin port of an address.
#[derive(Clone)]
pub(crate) struct Impostor {
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

impl Impostor {
    pub(crate) async fn start(address: &str, answer: Answer) -> Self {
        let listener = TcpListener::bind((address, ADMIN_PORT)).await.unwrap();
        let this = Self { answer: Arc::new(Mutex::new(answer)), asked: Arc::default(), sent: Arc::default() };
        let serving = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        this
    }

    pub(crate) fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// How many bytes of an endless body went out.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut head = [0; 4096];
        let _request = stream.read(&mut head).await;
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.answer.lock().unwrap().clone();
        let head = |rest: &str| format!("HTTP/1.1 {rest}Connection: close\r\n");
        let _client_may_leave = match answer {
            Answer::Json(body) => {
                stream.write_all(format!("{}Content-Length: {}\r\n\r\n{body}", head("200 OK\r\n"), body.len()).as_bytes()).await
            }
            Answer::Redirect(to) => {
                stream.write_all(format!("{}Location: {to}\r\nContent-Length: 0\r\n\r\n", head("302 Found\r\n")).as_bytes()).await
            }
            Answer::Endless => {
                let _started = stream.write_all(format!("{}\r\n", head("200 OK\r\n")).as_bytes()).await;
                while stream.write_all(&[b' '; 16_384]).await.is_ok() {
                    self.sent.fetch_add(16_384, Ordering::Relaxed);
                }
                Ok(())
            }
            Answer::Slow => {
                let _started = stream.write_all(format!("{}\r\n{{", head("200 OK\r\n")).as_bytes()).await;
                while stream.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Ok(())
            }
        };
    }
}
