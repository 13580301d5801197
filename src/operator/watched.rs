//! What is followed in the cluster and kept in memory: the caches' children but for their Secrets, which the operator may not
//! watch; pods; and namespaces that ask for the environment of a cache.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{FutureExt, Stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    ConfigMap, ContainerStatus, Namespace, PersistentVolumeClaim, Pod, PodSpec, PodStatus, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::build::{ENV_FROM, MANAGED_BY, asked_name};
use super::scope::Scope;

/// How long is waited for a first list.
const LISTED: Duration = Duration::from_secs(5);

/// What the watches have seen so far. All but the namespaces carry our label, whoever made them.
#[derive(Default)]
pub(crate) struct Watched {
    pub accounts: Followed<ServiceAccount>,
    pub config_maps: Followed<ConfigMap>,
    pub services: Followed<Service>,
    pub deployments: Followed<Deployment>,
    pub policies: Followed<NetworkPolicy>,
    pub budgets: Followed<PodDisruptionBudget>,
    pub claims: Followed<PersistentVolumeClaim>,
    /// With little more than their owners, their places and what is said of them.
    pub pods: Followed<Pod>,
    /// Those that ask for the clients' environment of some cache.
    pub namespaces: Followed<Namespace>,
}

/// The objects of one kind.
pub(crate) struct Followed<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    pub seen: Store<K>,
    writer: Mutex<Option<Writer<K>>>,
}

impl<K> Default for Followed<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    fn default() -> Self {
        let (seen, writer) = reflector::store();
        Self { seen, writer: Mutex::new(Some(writer)) }
    }
}

impl<K> Followed<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// The watch of the children with our label, to be polled for as long as the store is used. Only the first call follows
    /// anything: the store has one writer.
    pub(crate) fn follow(&self, client: &Client, scope: &Scope) -> impl Stream<Item = Result<K, watcher::Error>> + Send + use<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
    {
        self.watch(scope.api(client), &format!("{}={}", MANAGED_BY.0, MANAGED_BY.1), |_| ())
    }

    fn watch(&self, api: Api<K>, labels: &str, forget: fn(&mut K)) -> impl Stream<Item = Result<K, watcher::Error>> + Send + use<K> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        watcher(api, watcher::Config::default().labels(labels))
            .modify(move |object| {
                object.meta_mut().managed_fields = None;
                forget(object);
            })
            .reflect(writer)
            .touched_objects()
    }

    /// Whether they were listed; waits a moment for it. Never is when the operator's role does not let it.
    pub(crate) async fn listed(&self) -> bool {
        matches!(tokio::time::timeout(LISTED, self.seen.wait_until_ready()).await, Ok(Ok(())))
    }

    /// The same without a wait.
    pub(crate) fn is_listed(&self) -> bool {
        matches!(self.seen.wait_until_ready().now_or_never(), Some(Ok(())))
    }
}

impl Watched {
    /// The watch of the pods, under the conditions of [`Followed::follow`].
    pub(crate) fn follow_pods(&self, client: &Client, scope: &Scope) -> impl Stream<Item = Result<Pod, watcher::Error>> + Send + use<> {
        let ours = format!("{}={},app.kubernetes.io/component=proxy", MANAGED_BY.0, MANAGED_BY.1);
        self.pods.watch(scope.api(client), &ours, forget_the_rest).default_backoff()
    }

    /// The watch of the namespaces, under the same conditions.
    pub(crate) fn follow_namespaces(&self, client: &Client) -> impl Stream<Item = Result<Namespace, watcher::Error>> + Send + use<> {
        self.namespaces.watch(Api::all(client.clone()), ENV_FROM, |_| ()).default_backoff()
    }

    /// Whether all kinds of children were listed; waits a moment for it, and for the pods, which a reconcile does not depend on.
    pub(crate) async fn children_listed(&self) -> bool {
        let Self { accounts, config_maps, services, deployments, policies, budgets, claims, pods, namespaces: _ } = self;
        let children = async {
            futures::join!(
                accounts.listed(),
                config_maps.listed(),
                services.listed(),
                deployments.listed(),
                policies.listed(),
                budgets.listed(),
                claims.listed()
            )
        };
        let (all, _pods) = futures::join!(children, pods.listed());
        all == (true, true, true, true, true, true, true)
    }

    /// The namespaces that ask for the clients' environment of this cache, sorted. `None`: nobody knows yet.
    pub(crate) async fn asking(&self, namespace: &str, cache: &str) -> Option<BTreeSet<String>> {
        self.namespaces.listed().await.then(|| {
            let wanted = asked_name(namespace, cache);
            let asking = self.namespaces.seen.state_filter(|namespace| namespace.labels().get(ENV_FROM) == Some(&wanted));
            asking.iter().map(|namespace| namespace.name_any()).collect()
        })
    }
}

/// Thousands of pods are kept, and little of them is of use: where a pod is, and what is said of it, mostly without the words,
/// which change with every try.
pub(crate) fn forget_the_rest(pod: &mut Pod) {
    pod.spec = pod.spec.take().map(|spec| PodSpec { node_name: spec.node_name, ..PodSpec::default() });
    let Some(status) = pod.status.take() else { return };
    let conditions = status.conditions.into_iter().flatten().filter(|condition| CONDITIONS.contains(&condition.type_.as_str()));
    let containers = status.container_statuses.into_iter().flatten().map(|container| ContainerStatus {
        image: container.image,
        name: container.name,
        state: container.state,
        last_state: container.last_state,
        ..ContainerStatus::default()
    });
    pod.status = Some(PodStatus {
        pod_ip: status.pod_ip,
        phase: status.phase,
        reason: status.reason,
        conditions: Some(conditions.collect()),
        container_statuses: Some(containers.collect()),
        ..PodStatus::default()
    });
}

/// The conditions of pods that are of use.
const CONDITIONS: [&str; 4] = ["Ready", "ContainersReady", "PodScheduled", "DisruptionTarget"];
