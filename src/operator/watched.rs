//! What is followed in the cluster and kept in memory: pods, Deployments, and namespaces that ask for the environment of a cache.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Namespace, Pod, PodCondition, PodSpec, PodStatus};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};

use super::build::{ENV_FROM, MANAGED_BY, asked_name};
use super::scope::Scope;

/// How long is waited for a first list.
const LISTED: Duration = Duration::from_secs(5);

/// What the watches have seen so far.
pub(crate) struct Watched {
    /// The pods that carry our label, whoever made them.
    pub pods: Store<Pod>,
    /// The namespaces that ask for the clients' environment of some cache.
    pub namespaces: Store<Namespace>,
    /// The Deployments that carry our label, without most of their templates.
    pub deployments: Store<Deployment>,
    deployment_writer: Mutex<Option<Writer<Deployment>>>,
    pod_writer: Mutex<Option<Writer<Pod>>>,
    namespace_writer: Mutex<Option<Writer<Namespace>>>,
}

impl Default for Watched {
    fn default() -> Self {
        let ((pods, pod_writer), (namespaces, namespace_writer)) = (reflector::store(), reflector::store());
        let (deployments, deployment_writer) = reflector::store();
        Self {
            pods,
            namespaces,
            deployments,
            deployment_writer: Mutex::new(Some(deployment_writer)),
            pod_writer: Mutex::new(Some(pod_writer)),
            namespace_writer: Mutex::new(Some(namespace_writer)),
        }
    }
}

impl Watched {
    /// The watch of the pods, to be polled for as long as the store is used. Only the first call follows anything: the store has
    /// one writer.
    pub(crate) fn follow_pods(&self, client: &Client, scope: &Scope) -> impl Stream<Item = Result<Pod, watcher::Error>> + Send + 'static {
        let writer = take(&self.pod_writer);
        let ours = watcher::Config::default().labels(&format!("{}={},app.kubernetes.io/component=proxy", MANAGED_BY.0, MANAGED_BY.1));
        watcher(scope.api::<Pod>(client), ours).default_backoff().modify(forget_the_rest).reflect(writer).touched_objects()
    }

    /// The watch of the Deployments, under the same conditions.
    pub(crate) fn follow_deployments(
        &self,
        client: &Client,
        scope: &Scope,
    ) -> impl Stream<Item = Result<Deployment, watcher::Error>> + Send + 'static {
        let writer = take(&self.deployment_writer);
        let ours = watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
        watcher(scope.api::<Deployment>(client), ours).default_backoff().modify(forget_the_template).reflect(writer).touched_objects()
    }

    /// The watch of the namespaces, under the same conditions.
    pub(crate) fn follow_namespaces(&self, client: &Client) -> impl Stream<Item = Result<Namespace, watcher::Error>> + Send + 'static {
        let writer = take(&self.namespace_writer);
        let asking = watcher::Config::default().labels(ENV_FROM);
        watcher(Api::<Namespace>::all(client.clone()), asking).default_backoff().reflect(writer).touched_objects()
    }

    /// The namespaces that ask for the clients' environment of this cache, sorted. `None`: nobody knows yet.
    pub(crate) async fn asking(&self, namespace: &str, cache: &str) -> Option<BTreeSet<String>> {
        self.namespaces_listed().await.then(|| {
            let wanted = asked_name(namespace, cache);
            let asking = self.namespaces.state_filter(|namespace| namespace.labels().get(ENV_FROM) == Some(&wanted));
            asking.iter().map(|namespace| namespace.name_any()).collect()
        })
    }

    /// Whether the pods were listed; waits a moment for it. Never is when the operator's role does not let it.
    pub(crate) async fn pods_listed(&self) -> bool {
        matches!(tokio::time::timeout(LISTED, self.pods.wait_until_ready()).await, Ok(Ok(())))
    }

    /// The same for the Deployments.
    pub(crate) async fn deployments_listed(&self) -> bool {
        matches!(tokio::time::timeout(LISTED, self.deployments.wait_until_ready()).await, Ok(Ok(())))
    }

    /// The same for the namespaces.
    pub(crate) async fn namespaces_listed(&self) -> bool {
        matches!(tokio::time::timeout(LISTED, self.namespaces.wait_until_ready()).await, Ok(Ok(())))
    }
}

fn take<K>(writer: &Mutex<Option<Writer<K>>>) -> Writer<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    writer.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
}

/// What roll-outs go by is the image.
fn forget_the_template(deployment: &mut Deployment) {
    deployment.metadata.managed_fields = None;
    let Some(spec) = &mut deployment.spec else { return };
    spec.template.metadata = None;
    if let Some(pod) = &mut spec.template.spec {
        let containers = std::mem::take(&mut pod.containers);
        let image_of = |container: Container| Container { name: container.name, image: container.image, ..Container::default() };
        *pod = PodSpec { containers: containers.into_iter().map(image_of).collect(), ..PodSpec::default() };
    }
}

/// Thousands of pods are kept, and little of them is of use.
fn forget_the_rest(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.spec = None;
    if let Some(status) = pod.status.take() {
        let is_ready = |condition: &PodCondition| condition.type_ == "Ready";
        pod.status = Some(PodStatus {
            pod_ip: status.pod_ip,
            conditions: status.conditions.map(|all| all.into_iter().filter(is_ready).collect()),
            ..PodStatus::default()
        });
    }
}
