//! What pods say of themselves, and whom the operator believes.

use gomodcache::report::config_digest;
use serde_json::{Value, json};

use super::proxies::{Answer, Impostor, Proxy, config_of, make_ready, on_no_node, own_pod, pod_of};
use super::stage::{Stage, stage};
use super::{await_children, secret, with_secret, without_names};

const APPLIED: &str = "ConfigurationApplied";

async fn is(stage: &Stage, cache: &str, kind: &str, status: &str, reason: &str) -> bool {
    let (now, why, _) = stage.condition(cache, kind).await;
    now == status && why == reason
}

async fn await_reason(stage: &Stage, cache: &str, kind: &str, reason: &str) -> String {
    stage.eventually(&format!("{kind} of {cache} is {reason}"), async || stage.condition(cache, kind).await.1 == reason).await;
    stage.condition(cache, kind).await.2
}

async fn annotation(stage: &Stage, pod: &str) -> String {
    let pod = stage.get("Pod", pod).await.unwrap();
    pod.metadata.annotations.and_then(|all| all.get("gomodcache.io/refresh").cloned()).unwrap_or_default()
}

/// A report as a proxy of the test's wish would give it.
async fn report(stage: &Stage, cache: &str, changes: &Value) -> Answer {
    let mut report = json!({
        "version": 1,
        "configVersions": [1],
        "config": config_digest(&config_of(stage, cache).await),
        "credentials": stage.credential_generation(cache).await,
    });
    report.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    Answer::Json(report.to_string())
}

#[tokio::test]
async fn a_change_is_applied_when_the_running_proxy_says_so_and_a_lagging_pod_is_refreshed_until_then() {
    let Some(stage) = stage("applied").await else { return };
    stage.cache("gum", &on_no_node(without_names())).await;
    await_children(&stage, "gum").await;
    await_reason(&stage, "gum", APPLIED, "NoPodReady").await;
    let pod = own_pod(&stage, "gum").await;
    let proxy = Proxy::start(&stage, "gum", "127.77.1.1").await;
    make_ready(&stage, &pod, "127.77.1.1").await;
    await_reason(&stage, "gum", APPLIED, "Applied").await;
    assert_eq!(annotation(&stage, &pod).await, "", "a pod that has it all needs no refresh");

    let mut spec = on_no_node(without_names());
    spec["privateModules"] = json!([{"pattern": "git.corp.example/*"}]);
    stage.cache("gum", &spec).await;
    await_reason(&stage, "gum", APPLIED, "Pending").await;
    // At once, and again five seconds later.
    stage.eventually("a second refresh", async || annotation(&stage, &pod).await.ends_with("-2")).await;
    assert!(is(&stage, "gum", APPLIED, "False", "Pending").await);
    proxy.refresh(&stage, "gum").await;
    await_reason(&stage, "gum", APPLIED, "Applied").await;
    assert!(proxy.log().contains("configuration reloaded"));
    assert_eq!(stage.status("gum").await["conditions"].as_array().unwrap().len(), 7);

    // And then nothing more is written.
    stage.settle("gum").await;
    let now = async || {
        let (cache, pod) = (stage.get("GoModuleCache", "gum").await.unwrap(), stage.get("Pod", &pod).await.unwrap());
        (cache.metadata.resource_version, pod.metadata.resource_version)
    };
    let before = now().await;
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    assert_eq!(now().await, before);
}

#[tokio::test]
async fn credentials_are_ready_when_every_ready_pod_uses_them() {
    let Some(stage) = stage("taken-up").await else { return };
    let hosts = json!({"gomodcache.io/hosts": "203.0.113.7"});
    stage.apply(&secret(&hosts, "first")).await;
    stage.cache("haw", &on_no_node(with_secret("203.0.113.7"))).await;
    await_children(&stage, "haw").await;
    let pod = own_pod(&stage, "haw").await;
    let proxy = Proxy::start(&stage, "haw", "127.77.1.2").await;
    make_ready(&stage, &pod, "127.77.1.2").await;
    await_reason(&stage, "haw", APPLIED, "Applied").await;
    assert!(is(&stage, "haw", "CredentialsReady", "True", "InUse").await);
    let token = stage.credential_key("haw", "admin-token").await;

    stage.apply(&secret(&hosts, "second")).await;
    await_reason(&stage, "haw", "CredentialsReady", "Pending").await;
    assert_eq!(stage.status("haw").await["credentials"][0]["state"], "Pending");
    proxy.refresh(&stage, "haw").await;
    await_reason(&stage, "haw", "CredentialsReady", "InUse").await;
    assert_eq!(stage.status("haw").await["credentials"][0]["state"], "InUse");
    assert_eq!(stage.credential_key("haw", "admin-token").await, token, "a rotation keeps the token");
    assert_eq!(token.len(), 32);
}

#[tokio::test]
async fn what_its_own_pod_says_becomes_conditions_with_what_to_do() {
    let Some(stage) = stage("says").await else { return };
    stage.apply(&secret(&json!({"gomodcache.io/hosts": "203.0.113.7"}), "first")).await;
    // With a volume, as what is wrong with the claim comes first.
    let class = format!("static-{}", stage.namespace);
    let mut spec = on_no_node(with_secret("203.0.113.7"));
    spec["storage"] = json!({"size": "1Gi", "storageClassName": class});
    stage.cache("ilex", &spec).await;
    await_children(&stage, "ilex").await;
    let volume = super::storage::provide(&stage, "ilex", &class, "1Gi").await;
    let pod = own_pod(&stage, "ilex").await;
    let says = async |changes: Value| report(&stage, "ilex", &changes).await;
    let proxy = Impostor::start("127.77.1.3", says(json!({"config": "other"})).await).await;
    make_ready(&stage, &pod, "127.77.1.3").await;
    await_reason(&stage, "ilex", APPLIED, "Pending").await;

    let digest = config_digest(&config_of(&stage, "ilex").await);
    let refused = json!({"config": digest, "credentials": "x", "reason": "policy.deny: no glob\u{1b}[31m\nsecond line"});
    proxy.answers(says(json!({"config": "other", "refused": refused})).await);
    let message = await_reason(&stage, "ilex", APPLIED, "Rejected").await;
    assert!(message.ends_with("goes on with what it had: policy.deny: no glob[31m"), "{message}");

    proxy.answers(says(json!({"config": "other", "configVersions": [7]})).await);
    let message = await_reason(&stage, "ilex", APPLIED, "ConfigVersionUnsupported").await;
    assert!(message.contains("reads no version of the configuration that this operator writes (1)"), "{message}");

    // One pod, one report: everything that it may complain of. Pending, so that it is asked again soon.
    let lagging = |mut changes: Value| {
        changes["config"] = json!("other");
        changes
    };
    proxy.answers(says(lagging(json!({"storage": "Full"}))).await);
    let message = await_reason(&stage, "ilex", "StorageReady", "VolumeFull").await;
    assert!(message.contains("let spec.storage.size grow"), "{message}");
    proxy.answers(says(lagging(json!({"storage": "ReadOnly"}))).await);
    await_reason(&stage, "ilex", "StorageReady", "VolumeReadOnly").await;
    proxy.answers(says(lagging(json!({"storage": "Failing"}))).await);
    await_reason(&stage, "ilex", "StorageReady", "VolumeFailing").await;
    proxy.answers(says(lagging(json!({"storage": "Limit"}))).await);
    let message = await_reason(&stage, "ilex", "StorageReady", "LimitReached").await;
    assert!(message.contains("or raise spec.storage.evictAbovePercent"), "{message}");
    let redirect = |host: &str| json!({"upstream": "203.0.113.7", "host": host});
    let redirects = json!([redirect("storage.corp.example"), redirect("Bad host]"), {"upstream": "other.example", "host": "x.example"}]);
    proxy.answers(says(lagging(json!({"redirects": redirects}))).await);
    let message = await_reason(&stage, "ilex", "EgressReady", "RedirectHostUndeclared").await;
    assert!(message.ends_with("write in spec.upstreams[0]: redirectHosts: [storage.corp.example]"), "{message}");
    await_reason(&stage, "ilex", "StorageReady", "Bound").await;
    let verdicts = json!([{"secret": "corp", "upstream": "203.0.113.7", "accepted": false}]);
    proxy.answers(says(lagging(json!({"verdicts": verdicts}))).await);
    let message = await_reason(&stage, "ilex", "CredentialsReady", "CredentialRejected").await;
    assert!(message.contains("203.0.113.7 does not accept what Secret corp holds"), "{message}");
    assert_eq!(stage.status("ilex").await["credentials"][0]["state"], "Rejected");
    let unavailable = json!({"checksumDatabase": "asked again in 3.2 s"});
    proxy.answers(says(lagging(unavailable)).await);
    let message = await_reason(&stage, "ilex", "EgressReady", "ChecksumDatabaseUnavailable").await;
    assert!(message.contains("sum.corp.example") && !message.contains("3.2"), "{message}");
    proxy.answers(says(json!({})).await);
    await_reason(&stage, "ilex", APPLIED, "Applied").await;
    await_reason(&stage, "ilex", "EgressReady", "Pinned").await;
    stage.delete("PersistentVolume", &volume).await;
}

#[tokio::test]
async fn a_pod_that_copies_the_labels_is_not_asked_and_its_lies_change_nothing() {
    let Some(stage) = stage("hostile").await else { return };
    stage.cache("jute", &on_no_node(without_names())).await;
    await_children(&stage, "jute").await;
    let pod = own_pod(&stage, "jute").await;
    let labels = stage.get("Pod", &pod).await.unwrap().metadata.labels.unwrap();
    let own_labels: Value = labels.into_iter().filter(|(key, _)| key != "pod-template-hash").collect();
    let lie = report(&stage, "jute", &json!({"storage": "Full", "redirects": [{"upstream": "203.0.113.7", "host": "evil.example"}]})).await;

    // One of a Deployment whose ReplicaSets are named as ours are, and one of nobody.
    let container = json!({"name": "proxy", "image": "registry.example/evil:1"});
    let spec = json!({"containers": [container], "nodeSelector": {"tests.example/nowhere": "yes"}});
    let template = json!({"metadata": {"labels": own_labels}, "spec": spec});
    let deployment = json!({"replicas": 1, "selector": {"matchLabels": own_labels}, "template": template});
    stage.apply(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "jute-proxy-liar"}, "spec": deployment})).await;
    let metadata = json!({"name": "jute-proxy-7c9d-x2x2x", "labels": own_labels});
    stage.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})).await;
    let liar = pod_of(&stage, "jute-proxy-liar-").await;
    let liars = [
        (liar, "127.77.1.5", Impostor::start("127.77.1.5", lie.clone()).await),
        ("jute-proxy-7c9d-x2x2x".to_owned(), "127.77.1.6", Impostor::start("127.77.1.6", lie).await),
    ];
    let own = Impostor::start("127.77.1.4", report(&stage, "jute", &json!({"config": "other"})).await).await;
    for (name, address, _) in &liars {
        make_ready(&stage, name, address).await;
    }
    make_ready(&stage, &pod, "127.77.1.4").await;
    await_reason(&stage, "jute", APPLIED, "Pending").await;
    // Three more rounds, at a known pace.
    let asked = own.asked();
    stage.eventually("three more questions", async || own.asked() >= asked + 3).await;
    assert!(is(&stage, "jute", APPLIED, "False", "Pending").await);
    assert_ne!(stage.condition("jute", "StorageReady").await.1, "VolumeFull");
    assert_eq!(stage.condition("jute", "EgressReady").await.1, "Pinned");
    for (name, _, liar) in &liars {
        assert_eq!((liar.asked(), annotation(&stage, name).await), (0, String::new()), "{name}");
    }
}

#[tokio::test]
async fn an_endless_a_slow_and_a_redirecting_answer_are_cut_short() {
    let Some(stage) = stage("bounded").await else { return };
    stage.cache("kale", &on_no_node(without_names())).await;
    await_children(&stage, "kale").await;
    let pod = own_pod(&stage, "kale").await;
    let elsewhere = Impostor::start("127.77.1.8", report(&stage, "kale", &json!({})).await).await;
    let proxy = Impostor::start("127.77.1.7", Answer::Redirect("http://127.77.1.8:9090/report".to_owned())).await;
    make_ready(&stage, &pod, "127.77.1.7").await;
    let says = async |words: &str| {
        stage
            .eventually(&format!("PodUnreachable: {words}"), async || {
                let (status, reason, message) = stage.condition("kale", APPLIED).await;
                status == "False" && reason == "PodUnreachable" && message.contains(words)
            })
            .await;
    };
    says("it answered 302 in place of a report").await;
    assert_eq!(elsewhere.asked(), 0);
    proxy.answers(Answer::Endless);
    says("its answer is longer than 64 KiB").await;
    // What the system's buffers take beside it.
    let per_question = proxy.sent() / proxy.asked().max(1);
    assert!(per_question < 16 << 20, "{per_question} bytes");
    proxy.answers(Answer::Slow);
    says("no answer within 2 s").await;
    proxy.answers(Answer::Json("[]".to_owned()));
    says("its answer is not a report").await;
    proxy.answers(report(&stage, "kale", &json!({})).await);
    await_reason(&stage, "kale", APPLIED, "Applied").await;
}
