//! Upgrades of the operator and of the proxies' image, and changes that must not restart a pod. `ROLLOUT_CACHES` (2) says over how
//! many caches, besides the common one, an image is rolled out; twenty in `make soak`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gomodcache::report::config_digest;

use super::cluster::{apply, cluster, eventually, kubectl_ok, metrics, path_from_top, pod_uid, script};
use super::{CACHE, stage};

const OPERATOR: &str = "deployment/gomodcache-operator";

/// The same image under another name, as another release would have.
fn release(tag: &str) -> String {
    let image = format!("localhost/gomodcache:{tag}");
    cluster(&["node", "ctr", "-n", "k8s.io", "images", "tag", "--force", "localhost/gomodcache:dev", &image]);
    image
}

/// Changes the operator and waits until its new pods work.
fn change_operator(change: &[&str]) {
    let base = ["-n", "gomodcache-system", "set"];
    kubectl_ok(&[&base[..], change].concat());
    kubectl_ok(&["-n", "gomodcache-system", "rollout", "status", OPERATOR, "--timeout=180s"]);
}

/// No earlier test left a roll-out behind.
fn rolled_out() {
    kubectl_ok(&["-n", "build", "wait", "--for=condition=RolledOut", "gomodulecache/ci", "--timeout=120s"]);
}

fn generation(cache: &str) -> String {
    let path = "jsonpath={.metadata.generation}";
    kubectl_ok(&["-n", "build", "get", "deployment", &format!("{cache}-proxy"), "-o", path])
}

fn condition(cache: &str, kind: &str, field: &str) -> String {
    let path = format!("jsonpath={{.status.conditions[?(@.type=='{kind}')].{field}}}");
    kubectl_ok(&["-n", "build", "get", "gomodulecache", cache, "-o", &path])
}

fn image(cache: &str) -> String {
    let path = "jsonpath={.spec.template.spec.containers[0].image}";
    kubectl_ok(&["-n", "build", "get", "deployment", &format!("{cache}-proxy"), "-o", path])
}

/// The pod that leads.
fn leader() -> String {
    let path = "jsonpath={.spec.holderIdentity}";
    let holder = kubectl_ok(&["-n", "gomodcache-system", "get", "lease", "gomodcache-operator", "-o", path]);
    holder.split('_').next().unwrap_or_default().to_owned()
}

#[test]
fn e1_an_upgrade_of_the_operator_keeps_the_pods_of_the_caches() {
    let Some(_stage) = stage() else { return };
    rolled_out();
    let (uid, before, led) = (pod_uid("build", "ci"), generation("ci"), leader());
    assert!(!uid.is_empty());
    change_operator(&["image", OPERATOR, &format!("operator={}", release("next"))]);
    eventually("an operator of the new release leads", || leader() != led && !leader().is_empty());
    // It has looked at the cache: a change of the spec is carried out.
    apply(&CACHE.replace("spec:", "spec:\n  privateModules: [{pattern: git.corp.example/*}]"));
    eventually("the new release works", || {
        let config = kubectl_ok(&["-n", "build", "get", "configmap", "ci-config", "-o", "yaml"]);
        config.contains("git.corp.example") && condition("ci", "ConfigurationApplied", "status") == "True"
    });
    assert_eq!((pod_uid("build", "ci"), generation("ci")), (uid, before));
    apply(CACHE);
}

#[test]
fn e2_a_new_image_is_rolled_out_one_by_one_and_stops_at_a_broken_one() {
    let Some(_stage) = stage() else { return };
    let count: usize = std::env::var("ROLLOUT_CACHES").map_or(2, |text| text.parse().unwrap());
    let caches: Vec<String> = (1..=count).map(|i| format!("roll{i}")).chain(["ci".to_owned()]).collect();
    // Those of other tests would have their turn, too.
    kubectl_ok(&["-n", "build", "delete", "gomodulecache", "plain", "small", "--ignore-not-found"]);
    for cache in &caches[..count] {
        apply(&CACHE.replace("name: ci,", &format!("name: {cache},")).replace("size: 1Gi", "size: 320Mi"));
    }
    for cache in &caches {
        kubectl_ok(&["-n", "build", "wait", "--for=condition=Ready", &format!("gomodulecache/{cache}"), "--timeout=180s"]);
    }
    let with = |wanted: &str| caches.iter().filter(|cache| image(cache) == wanted).cloned().collect::<BTreeSet<_>>();

    let good = release("good");
    let begun = Instant::now();
    change_operator(&["env", OPERATOR, &format!("GOMODCACHE_PROXY_IMAGE={good}"), "GOMODCACHE_ROLLOUT_DEADLINE=60s"]);
    let mut most = 0;
    while with(&good).len() < caches.len() || caches.iter().any(|cache| condition(cache, "RolledOut", "status") != "True") {
        let rolling = kubectl_ok(&["-n", "build", "get", "deployments", "-l", "gomodcache.io/rolling-since", "-o", "name"]);
        // All at one time: one after the other, two that follow each other look as if they were away together.
        let path = "jsonpath={.items[*].status.conditions[?(@.type=='Available')].status}";
        let available = kubectl_ok(&["-n", "build", "get", "gomodulecaches", "-o", path]);
        let unready = available.split(' ').filter(|status| *status != "True").count();
        most = most.max(rolling.lines().count()).max(unready);
        assert!(begun.elapsed() < Duration::from_secs(60 + 20 * count as u64), "rolled out: {:?}", with(&good));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(most, 1, "one at a time");
    eprintln!("{} caches rolled out in {:.0?}", caches.len(), begun.elapsed());

    let uids: Vec<String> = caches.iter().map(|cache| pod_uid("build", cache)).collect();
    change_operator(&["env", OPERATOR, "GOMODCACHE_PROXY_IMAGE=localhost/gomodcache:absent", "GOMODCACHE_ROLLOUT_DEADLINE=3s"]);
    eventually("it stops at one", || caches.iter().filter(|cache| condition(cache, "RolledOut", "reason") == "RolloutFailed").count() == 1);
    eventually("the others know", || {
        caches.iter().filter(|cache| condition(cache, "RolledOut", "reason") == "RolloutStopped").count() == count
    });
    assert_eq!(with("localhost/gomodcache:absent").len(), 1);
    let kept = caches.iter().zip(&uids).filter(|(cache, uid)| pod_uid("build", cache) == **uid).count();
    assert_eq!(kept, count, "who waits keeps its pod");

    // Back to the good one: only the one that failed has anything to do.
    change_operator(&["env", OPERATOR, &format!("GOMODCACHE_PROXY_IMAGE={good}"), "GOMODCACHE_ROLLOUT_DEADLINE-"]);
    eventually("the stop has ended by itself", || caches.iter().all(|cache| condition(cache, "Ready", "status") == "True"));
    let kept = caches.iter().zip(&uids).filter(|(cache, uid)| pod_uid("build", cache) == **uid).count();
    assert_eq!(kept, count);
    for cache in &caches[..count] {
        kubectl_ok(&["-n", "build", "delete", "gomodulecache", cache, "--wait=false"]);
    }
}

#[test]
fn e3_an_upstream_with_a_secret_and_a_ca_bundle_of_its_own_joins_without_a_restart() {
    let Some(_stage) = stage() else { return };
    rolled_out();
    let uid = pod_uid("build", "ci");
    let authority = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let first = &authority[..authority.find(end).expect("a certificate") + end.len()];
    let bundle = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp-ca", "namespace": "build"}, "data": {"ca.crt": first}});
    apply(&bundle.to_string());
    apply(
        "{apiVersion: v1, kind: Secret, type: kubernetes.io/basic-auth, metadata: {name: second, namespace: build, annotations: {gomodcache.io/hosts: outside.test}}, stringData: {username: ci, password: x}}",
    );
    let second = "{url: 'https://outside.test/go', credentialsRef: {name: second}, caBundleRef: {name: corp-ca, key: ca.crt}}";
    apply(&CACHE.replace("internal: true}]", &format!("internal: true}}, {second}]")));
    eventually("the running proxy has it all", || {
        let states = kubectl_ok(&["-n", "build", "get", "gomodulecache", "ci", "-o", "jsonpath={.status.credentials[*].state}"]);
        let config = kubectl_ok(&["-n", "build", "get", "configmap", "ci-config", "-o", "jsonpath={.data}"]);
        let has_it = config.contains("outside.test") && config.contains("BEGIN CERTIFICATE") && states == "InUse";
        has_it && condition("ci", "ConfigurationApplied", "status") == "True"
    });
    assert_eq!(pod_uid("build", "ci"), uid, "the pod was replaced");
    apply(CACHE);
}

/// An image of this build that speaks these versions of the configuration for its own, as another release would.
fn release_that_speaks(versions: &str, tag: &str) -> String {
    let (image, archive) = (format!("localhost/gomodcache:{tag}"), path_from_top("target/image/release.tar"));
    let speaks = format!("GOMODCACHE_CONFIG_VERSIONS={versions}");
    let binary = format!("{}:/gomodcache:0755", path_from_top("target/image/gomodcache"));
    let certificates = "/etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt";
    let arguments = ["--ref", &image, "--entrypoint", "/gomodcache", "--user", "65532:65532", "--env", &speaks];
    let added = ["--add", &binary, "--add", certificates, &archive];
    script(&path_from_top("deploy/image/oci-archive"), &[&arguments[..], &added].concat());
    cluster(&["load-image", &image, &archive]);
    image
}

/// The file of the configuration that a cache's pod runs, of those that the operator writes.
fn runs(cache: &str) -> Option<String> {
    let files = kubectl_ok(&["-n", "build", "get", "configmap", &format!("{cache}-config"), "-o", "jsonpath={.data}"]);
    let files: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&files).unwrap();
    let seen = metrics("build", cache);
    let info = seen.keys().find(|name| name.starts_with("gomodcache_config_info{"))?;
    files.into_iter().find(|(_, text)| info.contains(&config_digest(text.as_str().unwrap()))).map(|(name, _)| name)
}

/// A change of the spec reaches the pod, which runs this file of it.
fn takes_a_change(change: &str, file: &str) {
    apply(&CACHE.replace("spec:", &format!("spec:\n  privateModules: [{{pattern: {change}.corp.example/*}}]")));
    let generation = kubectl_ok(&["-n", "build", "get", "gomodulecache", "ci", "-o", "jsonpath={.metadata.generation}"]);
    eventually(&format!("{change}: the pod runs it from {file}"), || {
        let config = kubectl_ok(&["-n", "build", "get", "configmap", "ci-config", "-o", "jsonpath={.data}"]);
        let is_said = condition("ci", "ConfigurationApplied", "observedGeneration") == generation
            && condition("ci", "ConfigurationApplied", "status") == "True";
        is_said && config.contains(change) && runs("ci").as_deref() == Some(file)
    });
}

#[test]
fn e4_operators_and_proxies_of_neighbouring_config_versions_work_together_also_after_a_rollback() {
    let Some(_stage) = stage() else { return };
    rolled_out();
    let begun = Instant::now();
    let path = "jsonpath={.spec.template.spec.containers[0].image}";
    let this = kubectl_ok(&["-n", "gomodcache-system", "get", OPERATOR, "-o", path]);
    let (next, before) = (release_that_speaks("1,2", "v2"), pod_uid("build", "ci"));

    change_operator(&["image", OPERATOR, &format!("operator={next}")]);
    takes_a_change("operator-of-the-next", "proxy.yaml");
    let written = kubectl_ok(&["-n", "build", "get", "configmap", "ci-config", "-o", "jsonpath={.data}"]);
    assert!(written.contains("proxy.v2.yaml"), "the operator writes the next version, too");
    assert_eq!(pod_uid("build", "ci"), before, "a new operator replaced the pod");

    change_operator(&["env", OPERATOR, &format!("GOMODCACHE_PROXY_IMAGE={next}")]);
    eventually("the proxy is of the next release", || image("ci") == next && condition("ci", "RolledOut", "reason") == "Current");
    takes_a_change("both-of-the-next", "proxy.v2.yaml");
    let after = pod_uid("build", "ci");
    assert!(!after.is_empty() && after != before, "a new image makes a new pod");

    // What is rolled back is the operator alone: its setting still names the newer proxy.
    change_operator(&["image", OPERATOR, &format!("operator={this}")]);
    takes_a_change("operator-rolled-back", "proxy.yaml");
    assert_eq!((pod_uid("build", "ci"), image("ci")), (after, next), "a rollback of the operator replaced the pod");
    eprintln!("three steps of two releases in {:.0?}", begun.elapsed());
    apply(CACHE);
}
