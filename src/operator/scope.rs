//! Where the operator works: in all namespaces, or, under a Role and no ClusterRole, in one.

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

/// Where the operator works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In all namespaces.
    Cluster,
    /// In this one: it asks for nothing outside of it, and nothing that is in no namespace.
    Namespace(String),
}

impl Scope {
    /// The objects of a kind that it follows.
    pub(crate) fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}
