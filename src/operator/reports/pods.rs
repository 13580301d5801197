//! Which pods are a cache's own. Labels are no identity: anybody may write them. The chain of controllers is, by UID: the pod's
//! ReplicaSet, and its Deployment.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};

use crate::operator::build::INSTANCE;

/// How many ReplicaSets of one cache are looked up at a time: anybody may make pods that name more.
const MAX_LOOKUPS: usize = 4;
/// How many ReplicaSets are remembered.
const MAX_KNOWN: usize = 16_384;
/// For how long at least a ReplicaSet is known to belong to a Deployment, and for how long it is known not to: it may be adopted.
const OURS_LASTS: Duration = Duration::from_secs(600);
const FOREIGN_LASTS: Duration = Duration::from_secs(30);

/// A ready pod of a cache, that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnPod {
    pub uid: String,
    pub name: String,
    pub address: IpAddr,
    /// The value of the annotation that makes the kubelet look again.
    pub refresh: Option<String>,
}

/// Whose the ReplicaSets are, by their UIDs.
#[derive(Default)]
pub(super) struct ReplicaSets(Mutex<HashMap<String, (Option<String>, Instant)>>);

impl ReplicaSets {
    /// The pods whose chain of controllers ends at this Deployment, ready or not, by name.
    ///
    /// # Errors
    /// The API server's.
    pub(super) async fn own_pods(&self, client: &Client, pods: &Store<Pod>, deployment: &Deployment) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let (Some(namespace), Some(uid)) = (deployment.namespace(), deployment.metadata.uid.as_deref()) else { return Ok(Vec::new()) };
        let instance = deployment.labels().get(INSTANCE);
        let mut candidates =
            pods.state_filter(|pod| pod.metadata.namespace.as_ref() == Some(&namespace) && pod.labels().get(INSTANCE) == instance);
        // Those that can be asked are the ones that others must not crowd out.
        candidates.sort_by_key(|pod| !is_ready(pod));
        let mut own = Vec::new();
        let mut lookups = 0;
        for pod in candidates {
            let Some(owner) = controller(&pod.metadata, "ReplicaSet") else { continue };
            // A ReplicaSet of a Deployment bears its name: others need not be looked up.
            if !owner.name.starts_with(&format!("{}-", deployment.name_any())) {
                continue;
            }
            let known = self.known(&owner.uid, uid);
            let is_own = match known {
                Some(is_own) => is_own,
                None if lookups < MAX_LOOKUPS => {
                    lookups += 1;
                    let api = Api::<ReplicaSet>::namespaced(client.clone(), &namespace);
                    let found = api.get_opt(&owner.name).await?.filter(|set| set.metadata.uid.as_ref() == Some(&owner.uid));
                    let deployment = found.and_then(|set| controller(&set.metadata, "Deployment").map(|owner| owner.uid.clone()));
                    let is_own = deployment.as_deref() == Some(uid);
                    self.remember(&owner.uid, deployment, is_own);
                    is_own
                }
                None => false,
            };
            own.extend(is_own.then_some(pod));
        }
        own.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        Ok(own)
    }

    fn known(&self, replica_set: &str, deployment: &str) -> Option<bool> {
        let sets = self.lock();
        let (owner, since) = sets.get(replica_set)?;
        let is_own = owner.as_deref() == Some(deployment);
        (since.elapsed() < if is_own { OURS_LASTS } else { FOREIGN_LASTS }).then_some(is_own)
    }

    fn remember(&self, replica_set: &str, deployment: Option<String>, is_own: bool) {
        // Up to twice as long, or all that were looked up after a start would be again at one time.
        let since = Instant::now() + if is_own { OURS_LASTS.mul_f64(rand::random()) } else { Duration::ZERO };
        let mut sets = self.lock();
        if sets.len() >= MAX_KNOWN {
            sets.retain(|_, (owner, since)| since.elapsed() < if owner.is_some() { OURS_LASTS } else { FOREIGN_LASTS });
        }
        if sets.len() < MAX_KNOWN {
            sets.insert(replica_set.to_owned(), (deployment, since));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Option<String>, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn controller<'a>(meta: &'a ObjectMeta, kind: &str) -> Option<&'a OwnerReference> {
    let owners = meta.owner_references.iter().flatten();
    owners.into_iter().find(|owner| owner.controller == Some(true) && owner.kind == kind && owner.api_version == "apps/v1")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// What is needed to ask a pod, if it is ready to be asked.
pub(super) fn own_pod(pod: &Pod, annotation: &str) -> Option<OwnPod> {
    is_ready(pod).then_some(())?;
    Some(OwnPod {
        uid: pod.metadata.uid.clone()?,
        name: pod.metadata.name.clone()?,
        address: pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?,
        refresh: pod.annotations().get(annotation).cloned(),
    })
}
