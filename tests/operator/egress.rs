//! The way out of a cache: addresses that are looked up, opened and pinned.

use serde_json::json;

use super::stage::stage;
use super::{dns, with_upstream};

#[tokio::test]
async fn a_new_address_joins_policy_and_configuration_and_the_old_one_stays() {
    let Some(stage) = stage("egress").await else { return };
    let host = "moving.corp.example";
    dns::set(host, "203.0.113.7");
    stage.cache("ivy", &with_upstream(&format!("{host}:8443"))).await;
    let holds = async |address: &str| {
        let policy = stage.get("NetworkPolicy", "ivy-proxy").await.map(|p| p.data["spec"]["egress"].to_string()).unwrap_or_default();
        let config = stage.get("ConfigMap", "ivy-config").await.map(|c| c.data["data"].to_string()).unwrap_or_default();
        policy.contains(&format!("{address}/32")) && config.contains(address)
    };
    stage.eventually("the address is allowed and pinned", async || holds("203.0.113.7").await).await;
    dns::set(host, "203.0.113.8");
    stage.eventually("the new address is allowed and pinned", async || holds("203.0.113.8").await).await;
    assert!(holds("203.0.113.7").await, "the old address was dropped at once");
    let policy = stage.get("NetworkPolicy", "ivy-proxy").await.unwrap();
    let peer = |address: &str| json!({"ipBlock": {"cidr": format!("{address}/32")}});
    // These and no other: not another port, and no DNS.
    let rules = json!([{"ports": [{"port": 8443, "protocol": "TCP"}], "to": [peer("203.0.113.7"), peer("203.0.113.8")]}]);
    assert_eq!(policy.data["spec"]["egress"], rules);
}

#[tokio::test]
async fn a_host_without_an_address_or_with_a_private_one_is_reported_and_gets_no_rule() {
    let Some(stage) = stage("unresolved").await else { return };
    stage.cache("nut", &with_upstream("nowhere.corp.example")).await;
    stage
        .eventually("the condition names the host", async || {
            let (status, reason, message) = stage.condition("nut", "EgressReady").await;
            status == "False" && reason == "HostNotResolved" && message.contains("nowhere.corp.example")
        })
        .await;
    dns::set("inside.corp.example", "10.1.2.3");
    stage.cache("pip", &with_upstream("inside.corp.example")).await;
    stage
        .eventually("the condition says AddressNotAllowed", async || stage.condition("pip", "EgressReady").await.1 == "AddressNotAllowed")
        .await;
    for cache in ["nut-proxy", "pip-proxy"] {
        let policy = stage.get("NetworkPolicy", cache).await.unwrap();
        assert!(policy.data["spec"]["egress"].is_null(), "{}", policy.data);
        assert!(policy.data["spec"]["policyTypes"].to_string().contains("Egress"));
    }
}

#[tokio::test]
async fn an_upstream_that_is_a_service_with_an_address_of_its_own_is_named_and_a_headless_one_is_fine() {
    let Some(stage) = stage("services").await else { return };
    let service = |name: &str, headless: bool| {
        let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        if headless {
            service["spec"]["clusterIP"] = json!("None");
        }
        service
    };
    for (name, headless) in [("own", false), ("pods", true)] {
        stage.apply(&service(name, headless)).await;
        let host = format!("{name}.{}.svc", stage.namespace);
        let address = stage.get("Service", name).await.unwrap().data["spec"]["clusterIP"].as_str().unwrap().to_owned();
        dns::set(&host, if headless { "10.1.2.3" } else { &address });
        stage.cache(name, &json!({"upstreams": [{"url": format!("http://{host}/go"), "internal": true}]})).await;
        let expected = if headless { ("True", "Pinned") } else { ("False", "ServiceNotReachable") };
        stage
            .eventually(&format!("{host} is {expected:?}"), async || {
                let (status, reason, message) = stage.condition(name, "EgressReady").await;
                (status.as_str(), reason.as_str()) == expected && (headless || message.contains(&host) && message.contains(&address))
            })
            .await;
    }
}
