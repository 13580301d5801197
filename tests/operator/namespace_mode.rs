//! An operator of one namespace, under the Role alone that is shipped for it: what it does there, and what it says it can't.

use serde_json::json;

use super::access::{have_everything_done, uses_its_roles_and_nothing_more};
use super::stage::stage_alone;
use super::{account, without_names};

#[tokio::test]
async fn an_operator_of_one_namespace_does_its_work_under_the_shipped_role_and_says_what_it_cannot_do() {
    let Some(stage) = stage_alone("one").await else { return };
    let _stopped = stage.without_the_operator().await;
    let account = account::make_in(stage.client(), &stage.namespace).await;
    let new = stage.new_operator().behind(&account.kubeconfig, &stage.namespace).with(&["--namespace", &stage.namespace]);
    let operator = new.start("pod-one");
    stage.eventually("it is ready", async || operator.admin("/readyz").await.is_some_and(|(status, _)| status == 200)).await;

    // What other tests claim of an operator of the whole cluster holds of this one.
    super::children_are_made(&stage).await;
    super::children_come_back(&stage).await;
    super::nothing_is_written(&stage).await;
    super::a_claim_is_replaced(&stage).await;
    super::claims_are_kept(&stage).await;
    super::credentials::a_secret_is_rotated(&stage).await;

    // Another namespace is none of its business, also where a cache lists it and it asks.
    let (guest, config_maps) = stage.guest(&json!({"gomodcache.io/env-from": format!("{}.sun", stage.namespace)})).await;
    stage.cache_in(&guest, "far", &without_names()).await;
    let refused = async || {
        let (status, reason, message) = stage.condition("sun", "Ready").await;
        let says_what_to_do = message.contains(&guest) && message.contains("scope: Cluster") && message.contains("sun-env");
        status == "False" && reason == "NotInNamespaceMode" && says_what_to_do
    };
    have_everything_done(&stage, &[guest.as_str()], refused).await;
    stage.eventually("what was wrong is no more", async || !stage.condition("sun", "Ready").await.2.contains(&guest)).await;
    let storage = stage.condition("sun", "StorageReady").await;
    assert_eq!(storage.1, "NotInNamespaceMode");
    assert!(storage.2.contains("kubectl describe persistentvolumeclaim sun-proxy"), "{}", storage.2);
    uses_its_roles_and_nothing_more(&stage, &account).await;

    assert!(config_maps.get_opt("sun-env").await.unwrap().is_none());
    assert!(stage.list_in(&guest, "Deployment").await.is_empty());
    let far = stage.list_in(&guest, "GoModuleCache").await;
    assert!(far[0].data["status"].is_null(), "{:?}", far[0].data["status"]);
    std::fs::remove_file(&account.kubeconfig).unwrap();
}
