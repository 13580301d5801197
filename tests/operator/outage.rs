//! No CRD, and no API server: waited for, said, and told apart from an operator that is dead.

use std::time::Duration;

use super::meddler::Meddler;
use super::stage::stage_alone;
use super::{account, await_children, without_names};

#[tokio::test]
async fn a_missing_crd_is_named_and_its_appearance_is_noticed() {
    let Some(stage) = stage_alone("crd").await else { return };
    if super::stage::audited().is_none() {
        eprintln!("not run: a CRD takes every cache with it, so only in a cluster of our own (GOMODCACHE_AUDIT_LOG is not set)");
        return;
    }
    let crd = "gomodulecaches.gomodcache.io";
    stage.delete("CustomResourceDefinition", crd).await;
    stage.eventually("the CRD has gone", async || stage.get("CustomResourceDefinition", crd).await.is_none()).await;
    let stopped = stage.without_the_operator().await;
    let operator = stage.new_operator().start("pod-waiting");
    let said = || operator.log().lines().filter(|line| line.contains("is not installed: apply the files of crds/")).count();
    stage.eventually("the log says what to do", async || said() == 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = async |path: &str| operator.admin(path).await.map(|(status, _)| status);
    assert_eq!((status("/livez").await, status("/readyz").await), (Some(200), Some(503)));
    assert_eq!(said(), 1, "the same sentence again and again");

    stage.install_crd().await;
    stage.cache("reed", &without_names()).await;
    await_children(&stage, "reed").await;
    assert_eq!(status("/readyz").await, Some(200));

    // Once more, under an operator that is at work.
    stage.delete("CustomResourceDefinition", crd).await;
    stage.eventually("the log says it again", async || said() == 2).await;
    stage.eventually("the CRD has gone", async || stage.get("CustomResourceDefinition", crd).await.is_none()).await;
    stage.install_crd().await;
    stage.cache("rush", &without_names()).await;
    await_children(&stage, "rush").await;
    drop(operator);
    drop(stopped);
}

#[tokio::test]
async fn an_operator_without_an_api_server_is_live_and_not_ready_and_goes_on_when_it_is_back() {
    let Some(stage) = stage_alone("away").await else { return };
    let _stopped = stage.without_the_operator().await;
    account::grant_the_lease(stage.client(), &stage.namespace).await;
    let proxy = Meddler::start(stage.account().config(), &stage.namespace, 0).await;
    let operator = stage.new_operator().behind(&proxy.kubeconfig, &stage.namespace).start("pod-away");
    let status = async |path: &str| operator.admin(path).await.map(|(status, _)| status);
    stage.eventually("it is ready", async || status("/readyz").await == Some(200)).await;
    stage.cache("sage", &without_names()).await;
    await_children(&stage, "sage").await;

    proxy.down(true);
    stage.eventually("it is not ready", async || status("/readyz").await == Some(503)).await;
    stage.eventually("it does not lead", async || operator.metric("gomodcache_operator_leader").await == Some(0.0)).await;
    assert_eq!(status("/livez").await, Some(200));
    stage.delete("Service", "sage").await;
    proxy.down(false);
    stage.eventually("the child is back", async || stage.get("Service", "sage").await.is_some()).await;
    stage.eventually("it is ready again", async || status("/readyz").await == Some(200)).await;
}
