//! One operator process for all tests, a namespace for each, and the questions that tests ask.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gomodcache::api;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::account::{self, Account};
use super::process::{NewOperator, SHORT_LEASE, UPSTREAMS};

/// Tests share the cluster, but for those that change what all would see.
static CLUSTER: RwLock<()> = RwLock::const_new(());

enum Share {
    WithOthers { _until_dropped: RwLockReadGuard<'static, ()> },
    Alone { _until_dropped: RwLockWriteGuard<'static, ()> },
}

/// The operator under test.
struct Operator {
    process: Mutex<Child>,
    account: Account,
    name_server: String,
}

impl Operator {
    fn tell(&self, line: &[u8]) {
        self.process.lock().unwrap().stdin.as_mut().unwrap().write_all(line).unwrap();
    }
}

/// Starts the operator again when it is dropped.
pub(crate) struct Stopped(&'static Operator);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.tell(b"start\n");
    }
}

/// A namespace of one test.
pub(crate) struct Stage {
    client: Client,
    pub(crate) namespace: String,
    operator: &'static Operator,
    share: Share,
}

/// A fresh namespace with the operator running; nothing without a cluster.
pub(crate) async fn stage(name: &str) -> Option<Stage> {
    let share = Share::WithOthers { _until_dropped: CLUSTER.read().await };
    open(name, share).await
}

/// The same while no other test runs.
pub(crate) async fn stage_alone(name: &str) -> Option<Stage> {
    let share = Share::Alone { _until_dropped: CLUSTER.write().await };
    open(name, share).await
}

async fn open(name: &str, share: Share) -> Option<Stage> {
    static OPERATOR: OnceCell<Operator> = OnceCell::const_new();
    if std::env::var_os("KUBECONFIG").is_none() {
        eprintln!("not run: no cluster (KUBECONFIG is not set)");
        return None;
    }
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.expect("a client from KUBECONFIG");
    let operator = OPERATOR.get_or_init(|| start_operator(&client)).await;
    let stage = Stage { client, namespace: format!("op-{name}-{}", std::process::id()), operator, share };
    stage.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": stage.namespace}})).await;
    Some(stage)
}

/// Where the operator under test logs to.
fn log_file() -> String {
    format!("{}/operator-under-test-{}.log", env!("CARGO_TARGET_TMPDIR"), std::process::id())
}

/// Under the account and role that are shipped. The operator stops when this process ends: its shell waits for the end of
/// a pipe that this process holds, and then removes what belongs to no test's namespace. A line in the pipe is a signal: after
/// KILL it is started again, after TERM at the next line.
async fn start_operator(client: &Client) -> Operator {
    const UNTIL_THE_END: &str = "\"$@\" & pid=$!; while read -r signal; do kill -$signal $pid; wait $pid; \
        [ $signal != TERM ] || read -r start; \"$@\" & pid=$!; done; \
        kill $pid; wait $pid; rm -f \"$KUBECONFIG\"; \
        KUBECONFIG=$ADMIN kubectl delete namespace/$NAME clusterrole/$NAME clusterrolebinding/$NAME \
        validatingadmissionpolicy/$NAME-pods validatingadmissionpolicybinding/$NAME-pods \
        validatingadmissionpolicy/$NAME-deletes validatingadmissionpolicybinding/$NAME-deletes --wait=false >/dev/null 2>&1";
    install_crd(client).await;
    let account = account::make(client).await;
    super::dns::set("modules.corp.example", "203.0.113.7");
    let name_server = super::dns::serve().to_string();
    let process = Command::new("sh")
        .args(["-c", UNTIL_THE_END, "sh", env!("CARGO_BIN_EXE_gomodcache"), "operator"])
        .args(["--admin-listen", "127.0.0.1:0", "--proxy-image", "localhost/gomodcache:dev", "--name-server", &name_server])
        .args(UPSTREAMS)
        .env("ADMIN", std::env::var_os("KUBECONFIG").unwrap())
        .env("KUBECONFIG", &account.kubeconfig)
        .env("NAME", account::own_name())
        .env("POD_NAMESPACE", account::own_name())
        .env("POD_NAME", "shared")
        .envs(SHORT_LEASE)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(log_file()).unwrap())
        .spawn()
        .expect("the operator starts");
    Operator { process: Mutex::new(process), account, name_server }
}

async fn install_crd(client: &Client) {
    let crd: Value = serde_saphyr::from_str(&api::crd_yaml().unwrap()).unwrap();
    apply_as(&all(client, "CustomResourceDefinition"), &crd).await;
}

fn all(client: &Client, kind: &str) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &resource(kind).0)
}

async fn apply_as(api: &Api<DynamicObject>, object: &Value) -> DynamicObject {
    let name = object["metadata"]["name"].as_str().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // A custom resource can't be applied until the API server has taken up its definition.
        match api.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(object)).await {
            Ok(applied) => return applied,
            Err(error) => assert!(Instant::now() < deadline, "apply {name}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn resource(kind: &str) -> (ApiResource, bool) {
    let (group, version, plural, namespaced) = match kind {
        "ServiceAccount" => ("", "v1", "serviceaccounts", true),
        "ConfigMap" => ("", "v1", "configmaps", true),
        "Secret" => ("", "v1", "secrets", true),
        "Service" => ("", "v1", "services", true),
        "PersistentVolumeClaim" => ("", "v1", "persistentvolumeclaims", true),
        "Namespace" => ("", "v1", "namespaces", false),
        "Node" => ("", "v1", "nodes", false),
        "Deployment" => ("apps", "v1", "deployments", true),
        "NetworkPolicy" => ("networking.k8s.io", "v1", "networkpolicies", true),
        "StorageClass" => ("storage.k8s.io", "v1", "storageclasses", false),
        "PersistentVolume" => ("", "v1", "persistentvolumes", false),
        "Pod" => ("", "v1", "pods", true),
        "PodDisruptionBudget" => ("policy", "v1", "poddisruptionbudgets", true),
        "ResourceQuota" => ("", "v1", "resourcequotas", true),
        "Event" => ("events.k8s.io", "v1", "events", true),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1", "customresourcedefinitions", false),
        "GoModuleCache" => ("gomodcache.io", "v1alpha1", "gomodulecaches", true),
        other => panic!("unknown kind {other}"),
    };
    (ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural), namespaced)
}

impl Stage {
    fn api(&self, kind: &str) -> Api<DynamicObject> {
        self.api_in(&self.namespace, kind)
    }

    fn api_in(&self, namespace: &str, kind: &str) -> Api<DynamicObject> {
        match resource(kind) {
            (resource, true) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            (_, false) => all(&self.client, kind),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) async fn install_crd(&self) {
        install_crd(&self.client).await;
    }

    pub(crate) async fn apply_in(&self, namespace: &str, object: &Value) {
        apply_as(&self.api_in(namespace, object["kind"].as_str().unwrap()), object).await;
    }

    pub(crate) async fn cache_in(&self, namespace: &str, name: &str, spec: &Value) {
        let object = json!({"apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache", "metadata": {"name": name}, "spec": spec});
        self.apply_in(namespace, &object).await;
    }

    pub(crate) async fn delete_in(&self, namespace: &str, kind: &str, name: &str) {
        self.api_in(namespace, kind).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// How many caches there are in other namespaces.
    pub(crate) async fn caches_of_others(&self) -> usize {
        let caches = all(&self.client, "GoModuleCache").list(&ListParams::default()).await.unwrap();
        caches.iter().filter(|cache| cache.namespace().as_deref() != Some(self.namespace.as_str())).count()
    }

    pub(crate) async fn list_in(&self, namespace: &str, kind: &str) -> Vec<DynamicObject> {
        self.api_in(namespace, kind).list(&ListParams::default()).await.unwrap().items
    }

    /// Who the operator is and what it may do.
    pub(crate) fn account(&self) -> &'static Account {
        &self.operator.account
    }

    /// Kills the operator as a crash would, and starts another.
    pub(crate) fn crash_the_operator(&self) {
        self.operator.tell(b"KILL\n");
    }

    /// Stops the operator in an orderly way until the test ends, so that it can run its own.
    pub(crate) async fn without_the_operator(&self) -> Stopped {
        assert!(matches!(self.share, Share::Alone { .. }), "other tests need it");
        self.operator.tell(b"TERM\n");
        self.eventually("it does not lead", async || self.leader().await != "shared").await;
        Stopped(self.operator)
    }

    /// How to run another operator.
    pub(crate) fn new_operator(&self) -> NewOperator {
        NewOperator::new(&self.account().kubeconfig, &self.operator.name_server)
    }

    /// The pod that holds the lease of the operators' common namespace; empty if none does.
    pub(crate) async fn leader(&self) -> String {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &account::own_name());
        let lease = leases.get_opt("gomodcache-operator").await.unwrap();
        let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
        holder.split_once('_').map_or(String::new(), |(pod, _)| pod.to_owned())
    }

    /// What the operator has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_file()).unwrap()
    }

    pub(crate) async fn get(&self, kind: &str, name: &str) -> Option<DynamicObject> {
        self.api(kind).get_opt(name).await.unwrap()
    }

    pub(crate) async fn apply(&self, object: &Value) {
        apply_as(&self.api(object["kind"].as_str().unwrap()), object).await;
    }

    pub(crate) async fn cache(&self, name: &str, spec: &Value) -> DynamicObject {
        let object = json!({"apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache", "metadata": {"name": name}, "spec": spec});
        apply_as(&self.api("GoModuleCache"), &object).await
    }

    /// The same, where the API server may refuse.
    pub(crate) async fn try_cache(&self, name: &str, spec: &Value) -> Result<(), String> {
        let object = json!({"apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache", "metadata": {"name": name}, "spec": spec});
        let applied = self.api("GoModuleCache").patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(&object)).await;
        applied.map(|_| ()).map_err(|error| error.to_string())
    }

    pub(crate) async fn patch(&self, kind: &str, name: &str, patch: &Value) {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn try_patch(&self, kind: &str, name: &str, patch: &Value) -> Result<DynamicObject, String> {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(|error| error.to_string())
    }

    pub(crate) async fn patch_status(&self, kind: &str, name: &str, patch: &Value) {
        self.api(kind).patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn list(&self, kind: &str) -> Vec<DynamicObject> {
        self.api(kind).list(&ListParams::default()).await.unwrap().items
    }

    pub(crate) async fn annotate(&self, cache: &str, key: &str, value: &str) {
        self.patch("GoModuleCache", cache, &json!({"metadata": {"annotations": {key: value}}})).await;
    }

    pub(crate) async fn delete(&self, kind: &str, name: &str) {
        self.api(kind).delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn status(&self, cache: &str) -> Value {
        self.get("GoModuleCache", cache).await.map(|object| object.data["status"].clone()).unwrap_or_default()
    }

    /// Status, reason and message of a condition; empty texts when it is absent.
    pub(crate) async fn condition(&self, cache: &str, kind: &str) -> (String, String, String) {
        let status = self.status(cache).await;
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
        let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    /// The text of one copied credential.
    pub(crate) async fn credential(&self, cache: &str, secret: &str) -> String {
        self.credential_key(cache, &format!("credential.{secret}")).await
    }

    pub(crate) async fn credential_generation(&self, cache: &str) -> String {
        self.credential_key(cache, "generation").await
    }

    pub(crate) async fn credential_key(&self, cache: &str, key: &str) -> String {
        use base64::Engine;
        let Some(secret) = self.get("Secret", &format!("{cache}-credentials")).await else { return String::new() };
        let bytes = base64::engine::general_purpose::STANDARD.decode(secret.data["data"][key].as_str().unwrap_or_default()).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// A namespace beside the stage's own, which goes with it, and the ConfigMaps there.
    pub(crate) async fn guest(&self, labels: &Value) -> (String, Api<DynamicObject>) {
        let name = format!("{}-guest", self.namespace);
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})).await;
        let config_maps = Api::namespaced_with(self.client.clone(), &name, &resource("ConfigMap").0);
        (name, config_maps)
    }

    /// Has a pod validated as if it were made in a namespace, and makes none.
    pub(crate) async fn try_pod(&self, namespace: &str, pod: &Value) -> Result<(), String> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource("Pod").0);
        let parameters = PostParams { dry_run: true, field_manager: None };
        let pod = serde_json::from_value(pod.clone()).unwrap();
        api.create(&parameters, &pod).await.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Waits until nothing of the cache has changed for three seconds.
    pub(crate) async fn settle(&self, cache: &str) {
        let mut last = String::new();
        for _ in 0..20 {
            let now = self.get("GoModuleCache", cache).await.unwrap().resource_version().unwrap();
            if now == last {
                return;
            }
            last = now;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        panic!("the cache {cache} never came to rest");
    }

    /// Writes to this namespace in the API server's audit log; nothing where the log is not at hand.
    pub(crate) fn audited_writes(&self) -> Option<usize> {
        let writes = audited()?.into_iter().filter(|event| {
            let user = event["user"]["username"].as_str().unwrap_or_default();
            let by_controllers = user.starts_with("system:") && user != self.account().user;
            event["objectRef"]["namespace"] == self.namespace.as_str()
                && ["create", "update", "patch", "delete"].iter().any(|verb| event["verb"] == *verb)
                && event["stage"] == "ResponseComplete"
                && !by_controllers
        });
        Some(writes.count())
    }

    pub(crate) async fn eventually(&self, claim: &str, is_true: impl AsyncFn() -> bool) {
        self.within(60, claim, is_true).await;
    }

    /// Less than the 13 s after which the operator looks at a quiet cache unasked: so a watch must have told it.
    pub(crate) async fn at_once(&self, claim: &str, is_true: impl AsyncFn() -> bool) {
        self.within(8, claim, is_true).await;
    }

    async fn within(&self, seconds: u64, claim: &str, is_true: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while !is_true().await {
            assert!(Instant::now() < deadline, "not within {seconds} s in {}: {claim}", self.namespace);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What the API server's audit log holds; nothing where the log is not at hand.
pub(crate) fn audited() -> Option<Vec<Value>> {
    let log = std::fs::read_to_string(std::env::var_os("GOMODCACHE_AUDIT_LOG")?).ok()?;
    Some(log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

impl Drop for Stage {
    // So that a cluster of the user's is left as it was; in one of our own it costs nothing.
    fn drop(&mut self) {
        let _best_effort = Command::new("kubectl")
            .args(["delete", "namespace", &self.namespace, &format!("{}-guest", self.namespace), "--wait=false", "--ignore-not-found"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
