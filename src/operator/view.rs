//! Two ways to look at the cluster: at what was seen of it, which costs no request and may be old, and at what there is now.
//! The first may only ever find that there is nothing to do.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::polled::Polls;
use super::watched::Watched;

/// What was seen of the cluster in this term.
pub(crate) struct Memory {
    /// By watches.
    pub watched: Watched,
    /// By asking.
    pub polls: Polls,
}

/// A way to look.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// The way to the API server.
    pub client: &'a Client,
    /// What was seen so far.
    pub memory: &'a Memory,
    /// Whether the API server is asked.
    pub live: bool,
}

/// A kind of child.
pub(crate) trait Child:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
    /// What was seen of it last.
    fn seen(memory: &Memory, namespace: &str, name: &str) -> Option<Self>;
}

macro_rules! watched_children {
    ($($kind:ty: $store:ident),*) => {$(
        impl Child for $kind {
            fn seen(memory: &Memory, namespace: &str, name: &str) -> Option<Self> {
                memory.watched.$store.seen.get(&ObjectRef::new(name).within(namespace)).map(Arc::unwrap_or_clone)
            }
        }
    )*};
}

watched_children!(
    ServiceAccount: accounts,
    ConfigMap: config_maps,
    Service: services,
    Deployment: deployments,
    NetworkPolicy: policies,
    PodDisruptionBudget: budgets,
    PersistentVolumeClaim: claims
);

impl Child for Secret {
    fn seen(memory: &Memory, namespace: &str, name: &str) -> Option<Self> {
        memory.polls.credentials.last(namespace, name)
    }
}

impl View<'_> {
    /// A child, or what lies under its name.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn child<K: Child>(self, namespace: &str, name: &str) -> Result<Option<K>, kube::Error> {
        if self.live {
            Api::<K>::namespaced(self.client.clone(), namespace).get_opt(name).await
        } else {
            Ok(K::seen(self.memory, namespace, name))
        }
    }

    /// The Secret that the operator writes for a cache.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn credentials(self, namespace: &str, name: &str) -> Result<Option<Secret>, kube::Error> {
        let polled = &self.memory.polls.credentials;
        if self.live { polled.read(self.client, namespace, name).await } else { polled.look(self.client, namespace, name).await }
    }

    /// A user's Secret.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn secret(self, namespace: &str, name: &str) -> Result<Option<Secret>, kube::Error> {
        let polled = &self.memory.polls.secrets;
        if self.live { polled.read(self.client, namespace, name).await } else { polled.look(self.client, namespace, name).await }
    }

    /// A user's ConfigMap.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn bundle(self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, kube::Error> {
        let polled = &self.memory.polls.bundles;
        if self.live { polled.read(self.client, namespace, name).await } else { polled.look(self.client, namespace, name).await }
    }

    /// A user's Service.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn service(self, namespace: &str, name: &str) -> Result<Option<Service>, kube::Error> {
        let polled = &self.memory.polls.services;
        if self.live { polled.read(self.client, namespace, name).await } else { polled.look(self.client, namespace, name).await }
    }
}
