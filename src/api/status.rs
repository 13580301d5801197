//! What the operator says back. Fast-moving numbers are metrics and never stand here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The observed state of a cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GoModuleCacheStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What clients set as GOPROXY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What is in force after the operator's own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<Effective>,
    /// Ready, Available, StorageReady, CredentialsReady, EgressReady, ConfigurationApplied and RolledOut; Paused on a paused cache only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The hosts that the proxy may reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressHost>,
    /// The Secrets that the upstreams and the HTTP proxy name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialStatus>,
    /// The other namespaces that the spec lists for the clients' environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientNamespace>,
    /// The volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
    /// Pods of the Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Effective {
    /// URLs in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<String>,
    /// The name of the checksum database and what the cache does with it, such as `sum.example (Verify)`; or `off`.
    pub checksum_database: String,
    /// The image of the proxy.
    pub image: String,
}

/// One host of the egress policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressHost {
    /// Host name or address.
    pub host: String,
    /// How many addresses are open.
    pub addresses: i32,
    /// When the set last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_changed: Option<Time>,
}

/// One Secret that the spec names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// Name of the Secret.
    pub secret_name: String,
    /// What became of it.
    pub state: CredentialState,
}

/// What became of a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CredentialState {
    /// Copied to the proxy, and every ready pod uses it.
    InUse,
    /// Copied to the proxy, and a ready pod does not use it yet.
    Pending,
    /// An upstream does not accept it.
    Rejected,
    /// There is no such Secret.
    Missing,
    /// The Secret has no form that is known.
    Malformed,
    /// The Secret does not name the upstream's host.
    HostNotAllowed,
}

/// One namespace that the spec lists for the clients' environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientNamespace {
    /// Its name.
    pub namespace: String,
    /// What became of it.
    pub state: ClientNamespaceState,
}

/// What became of the clients' environment in another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientNamespaceState {
    /// The ConfigMap lies there, and pods of that namespace may reach the cache.
    Published,
    /// The namespace does not ask for it by the label gomodcache.io/env-from, or does not exist.
    NotAsked,
    /// A ConfigMap of that name is there, and is someone else's.
    NameConflict,
    /// The API server refused it.
    Refused,
    /// The operator works in one namespace, and this is another.
    NotInNamespaceMode,
}

/// The volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// The size that the claim requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub requested: Option<String>,
    /// The size of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub capacity: Option<String>,
    /// What deleting the cache would do to the claim now: Retained or Deleted.
    pub on_delete: String,
}
