//! The whole path on a whole node: real pods, a real `go` client, enforced network policies, a real volume.
//!
//! Needs a node made by `tests/cluster/cluster up --node` (`make test` does that). The tests share one cache and run one
//! after the other, in the order of their names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing, missing_docs)]

mod cluster;
mod load;
mod upgrades;
mod upstream;

use std::sync::LazyLock;

use cluster::{apply, cluster, eventually, kubectl, kubectl_ok, kubectl_wait, metrics, path_from_top, pod_uid, runner, script};
use upstream::Upstream;

/// One upstream that the tests control, one operator, one cache and one runner for all tests.
struct Stage {
    upstream: Upstream,
    upstream_address: String,
}

const CACHE: &str = "
apiVersion: gomodcache.io/v1alpha1
kind: GoModuleCache
metadata: {name: ci, namespace: build}
spec:
  upstreams: [{url: 'http://upstream.test/mirror', internal: true}]
  checksumDatabase: {mode: Disabled}
  storage: {size: 1Gi, deletionPolicy: Delete}
";

/// Set up by the first test; if that fails, the others fail at once.
static STAGE: LazyLock<Option<Stage>> = LazyLock::new(|| {
    if std::env::var_os("KUBECONFIG").is_none() {
        eprintln!("not run: no cluster (KUBECONFIG is not set)");
        return None;
    }
    Some(set_up())
});

fn stage() -> Option<&'static Stage> {
    STAGE.as_ref()
}

fn set_up() -> Stage {
    let go_mod = path_from_top("tests/cluster/dns");
    script("go", &["-C", &go_mod, "mod", "download"]);
    let binary = format!("BINARY={}", env!("CARGO_BIN_EXE_gomodcache"));
    script("env", &[&binary, &path_from_top("deploy/image/build")]);
    cluster(&["load-image", "localhost/gomodcache:dev", &path_from_top("target/image/gomodcache.tar")]);
    script(&path_from_top("tests/cluster/runner-image"), &[&path_from_top("target/image/go-runner.tar")]);
    cluster(&["load-image", "localhost/go-runner:dev", &path_from_top("target/image/go-runner.tar")]);

    let upstream = Upstream::start();
    let upstream_address = cluster(&["relay", "add", "upstream.test:80", &format!("127.0.0.1:{}", upstream.port)]);
    cluster(&["relay", "add", &default_upstream_host()]);

    kubectl_ok(&["apply", "--server-side", "-f", &path_from_top("crds")]);
    kubectl_ok(&["apply", "-f", &path_from_top("deploy/base/namespace.yaml")]);
    let settings = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: gomodcache-operator, namespace: gomodcache-system}}, data: {{GOPROXY: '{}', GOSUMDB: '{}'}}}}",
        go_env("GOPROXY"),
        go_env("GOSUMDB")
    );
    apply(&settings);
    kubectl_ok(&["apply", "-k", &path_from_top("deploy/base")]);
    kubectl_wait(&["-n", "gomodcache-system", "rollout", "status", "deployment/gomodcache-operator", "--timeout=120s"]);
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: build}}");
    apply(CACHE);
    kubectl_wait(&["-n", "build", "wait", "--for=condition=Ready", "gomodulecache/ci", "--timeout=180s"]);
    kubectl_ok(&["apply", "-f", &path_from_top("deploy/samples/runner.yaml")]);
    kubectl_wait(&["-n", "build", "wait", "--for=condition=Ready", "pod/runner", "--timeout=120s"]);
    runner("mkdir -p /home/runner/module");
    for file in ["go.mod", "go.sum"] {
        cluster::runner_file(&format!("/home/runner/module/{file}"), &std::fs::read(format!("{go_mod}/{file}")).unwrap());
    }
    Stage { upstream, upstream_address: upstream_address.trim().to_owned() }
}

fn go_env(key: &str) -> String {
    script("go", &["env", key]).trim().to_owned()
}

/// `host:port` of the first entry of `go env GOPROXY`.
fn default_upstream_host() -> String {
    let first = go_env("GOPROXY").split([',', '|']).next().unwrap_or_default().to_owned();
    let url: url::Url = first.parse().expect("GOPROXY begins with a URL");
    format!("{}:{}", url.host_str().unwrap(), url.port_or_known_default().unwrap())
}

const FRESH_DOWNLOAD: &str = "chmod -R u+w /home/runner/go 2>/dev/null; rm -rf /home/runner/go; cd /home/runner/module && go mod download && ls /home/runner/go/pkg/mod/cache/download | wc -l";

#[test]
fn a1_a_runner_downloads_a_real_go_mod_and_the_second_pass_is_served_from_the_cache_alone() {
    let Some(stage) = stage() else { return };
    runner(FRESH_DOWNLOAD);
    let first = stage.upstream.take_requests();
    let zips = first.iter().filter(|path| path.ends_with(".zip")).count();
    assert!(zips >= 60, "the first pass fetched {zips} zips from the upstream");

    let before = metrics("build", "ci");
    runner(FRESH_DOWNLOAD);
    let second = stage.upstream.take_requests();
    assert!(second.is_empty(), "the second pass asked the upstream for {} objects, such as {:?}", second.len(), second.first());
    let after = metrics("build", "ci");
    let (mut hits, mut others) = (0.0, 0.0);
    for (name, value) in &after {
        if name.starts_with("gomodcache_requests_total{")
            && ["info", "mod", "zip"].iter().any(|e| name.contains(&format!("endpoint=\"{e}\"")))
        {
            let delta = value - before.get(name).unwrap_or(&0.0);
            if name.contains("result=\"hit\"") { hits += delta } else { others += delta }
        }
    }
    assert!(hits >= 180.0 && others == 0.0, "second pass: {hits} hits and {others} others");
}

#[test]
fn a2_a_restarted_cache_pod_has_lost_nothing() {
    let Some(stage) = stage() else { return };
    runner(FRESH_DOWNLOAD);
    stage.upstream.take_requests();
    let uid = pod_uid("build", "ci");
    kubectl_ok(&["-n", "build", "delete", "pod", "-l", "app.kubernetes.io/instance=ci", "--force", "--grace-period=0"]);
    eventually("a new cache pod", || pod_uid("build", "ci") != uid && !pod_uid("build", "ci").is_empty());
    kubectl_ok(&["-n", "build", "rollout", "status", "deployment/ci-proxy", "--timeout=90s"]);
    eventually("the service answers", || kubectl(&["-n", "build", "exec", "runner", "--", "sh", "-c", FRESH_DOWNLOAD]).is_ok());
    let asked = stage.upstream.take_requests();
    assert!(asked.is_empty(), "after the restart the upstream was asked for {} objects, such as {:?}", asked.len(), asked.first());
}

#[test]
fn b1_the_runner_reaches_the_cache_and_nothing_else() {
    let Some(stage) = stage() else { return };
    let service = kubectl_ok(&["-n", "build", "get", "service", "ci", "-o", "jsonpath={.spec.clusterIP}"]);
    let api = kubectl_ok(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]);
    assert!(runner_reaches(&service, 8080), "the runner can't reach the cache");
    for (address, port) in [(stage.upstream_address.as_str(), 80), ("198.51.100.10", 80), (&api, 443)] {
        assert!(!runner_reaches(address, port), "the runner reached {address}:{port}");
    }
}

fn runner_reaches(address: &str, port: u16) -> bool {
    kubectl(&["-n", "build", "exec", "runner", "--", "timeout", "2", "nc", "-w", "1", address, &port.to_string()]).is_ok()
}

#[test]
fn b2_the_cache_reaches_its_upstream_and_another_address_only_without_the_policy() {
    let Some(stage) = stage() else { return };
    let allowed = || cluster::pod_reaches("build", "ci", &stage.upstream_address, 80);
    let forbidden = || cluster::pod_reaches("build", "ci", "198.51.100.10", 80);
    assert!(allowed(), "the cache can't reach its upstream");
    assert!(!forbidden(), "the cache reached 198.51.100.10");

    kubectl_ok(&["-n", "gomodcache-system", "scale", "deployment/gomodcache-operator", "--replicas=0"]);
    eventually("the operator has stopped", || kubectl_ok(&["-n", "gomodcache-system", "get", "pods", "-o", "name"]).trim().is_empty());
    kubectl_ok(&["-n", "build", "delete", "networkpolicy", "ci-proxy"]);
    eventually("without the policy the address is reachable", forbidden);

    kubectl_ok(&["-n", "gomodcache-system", "scale", "deployment/gomodcache-operator", "--replicas=2"]);
    eventually("the policy is back and the address is not reachable", || !forbidden());
    assert!(allowed(), "the cache can't reach its upstream any more");
}

#[test]
fn c1_a_changed_secret_reaches_the_running_pod_without_a_restart() {
    let Some(stage) = stage() else { return };
    let secret = |password: &str| {
        format!(
            "{{apiVersion: v1, kind: Secret, type: kubernetes.io/basic-auth, metadata: {{name: corp, namespace: build, annotations: {{gomodcache.io/hosts: upstream.test}}}}, stringData: {{username: ci, password: {password}}}}}"
        )
    };
    apply(&secret("first"));
    apply(&CACHE.replace("internal: true}", "internal: true, credentialsRef: {name: corp}}"));
    let uid = pod_uid("build", "ci");
    // A list is asked again after its time to live, so each try uses a module of its own.
    let mut n = 0;
    let mut sent = |password: &str| {
        eventually(&format!("the upstream sees the password '{password}'"), || {
            n += 1;
            let _not_found = kubectl(&[
                "-n",
                "build",
                "exec",
                "runner",
                "--",
                "sh",
                "-c",
                &format!("cd /tmp && go list -m -versions corp.example/m{n}"),
            ]);
            stage.upstream.last_password().as_deref() == Some(password)
        });
    };
    sent("first");
    apply(&secret("second"));
    sent("second");
    assert_eq!(pod_uid("build", "ci"), uid, "the pod was replaced");
    let restarts = kubectl_ok(&[
        "-n",
        "build",
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/instance=ci",
        "-o",
        "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
    ]);
    assert_eq!(restarts.trim(), "0");
    apply(CACHE);
}

#[test]
fn d1_the_default_upstream_is_reached_by_its_real_name_with_tls_end_to_end_and_sums_are_checked() {
    let Some(_stage) = stage() else { return };
    apply(
        "{apiVersion: gomodcache.io/v1alpha1, kind: GoModuleCache, metadata: {name: plain, namespace: build}, spec: {storage: {size: 1Gi, deletionPolicy: Delete}}}",
    );
    kubectl_ok(&["-n", "build", "wait", "--for=condition=Ready", "gomodulecache/plain", "--timeout=120s"]);
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: runner-plain, namespace: build}, spec: {podSelector: {matchLabels: {app: runner}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app.kubernetes.io/instance: plain}}}], ports: [{port: 8080}]}]}}";
    apply(policy);
    let sumdb = kubectl_ok(&["-n", "build", "get", "configmap", "plain-env", "-o", "jsonpath={.data.GOSUMDB}"]);
    // The runner's Go has no standard library, so nothing is built: the sum is what the client checked with the database.
    let script = format!(
        "rm -rf /home/runner/other; mkdir -p /home/runner/other && cd /home/runner/other && GOFLAGS=-modcacherw GOPROXY=http://plain.build.svc:8080 GOSUMDB='{sumdb}' GOPATH=/home/runner/other/go go mod download -json github.com/google/uuid@v1.6.0"
    );
    let mut said = String::new();
    eventually("go mod download through the cache", || {
        kubectl(&["-n", "build", "exec", "runner", "--", "sh", "-c", &script]).map(|output| said = output).is_ok()
    });
    assert!(said.contains("\"Sum\": \"h1:"), "{said}");
    let seen = metrics("build", "plain");
    let lookups: f64 = seen
        .iter()
        .filter(|(name, _)| name.starts_with("gomodcache_requests_total{") && name.contains("endpoint=\"sumdb\""))
        .map(|(_, v)| v)
        .sum();
    assert!(lookups > 0.0, "no checksum-database request went through the cache");
    kubectl_ok(&["-n", "build", "delete", "gomodulecache", "plain", "--wait=false"]);
}
