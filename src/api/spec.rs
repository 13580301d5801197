//! What the user wants. Schema defaults show in the stored object; installation-wide ones in `status.effective`.

#![allow(unreachable_pub, reason = "the schema derive emits a private copy of each type")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::GoModuleCacheStatus;
use super::clients::Clients;
use super::network::{Network, Timeouts};
use super::references::{ConfigMapKeyRef, SecretRef};

/// A caching GOPROXY with a volume, a Service and a closed egress.
// The schema has no place for what a value means, so each field names its values.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "gomodcache.io",
    version = "v1alpha1",
    kind = "GoModuleCache",
    plural = "gomodulecaches",
    shortname = "gmc",
    doc = "A caching GOPROXY with a volume, a Service and a closed egress.",
    namespaced,
    status = "GoModuleCacheStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].reason"}"#,
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".status.url"}"#,
    printcolumn = r#"{"name":"Storage","type":"string","jsonPath":".status.storage.capacity"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    validation = Rule::new("self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name names a Service: at most 52 characters, lower-case letters, digits and '-', beginning with a letter"),
    validation = Rule::new("!isQuantity(self.spec.storage.size) || !isQuantity(oldSelf.spec.storage.size) || quantity(self.spec.storage.size).compareTo(quantity(oldSelf.spec.storage.size)) >= 0 || !has(oldSelf.status) || !has(oldSelf.status.storage) || !has(oldSelf.status.storage.capacity) || quantity(self.spec.storage.size).compareTo(quantity(oldSelf.status.storage.capacity)) >= 0").message("storage.size can grow but not shrink below the volume's present capacity (status.storage.capacity)").field_path(".spec.storage.size")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.replicas == 1 || self.storage.accessMode == 'ReadWriteMany'").message("more than one replica needs storage.accessMode ReadWriteMany").field_path(".replicas"))]
pub struct GoModuleCacheSpec {
    /// Tried in order. Default: the operator's own GOPROXY setting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub upstreams: Vec<Upstream>,
    /// The checksum database; its name and key are the operator's GOSUMDB setting.
    #[serde(default)]
    pub checksum_database: ChecksumDatabase,
    /// Modules that are never named to an upstream that is not internal, nor to the checksum database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub private_modules: Vec<PrivateModules>,
    /// What clients may not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// What is fetched before a client asks for it. All: what a go command certainly asks for next, and go.mod files that it may ask
    /// for. Certain: no guesses. Disabled: nothing.
    #[serde(default)]
    pub look_ahead: LookAhead,
    /// The volume.
    #[serde(default)]
    pub storage: Storage,
    /// Who may reach the cache, and how it reaches its upstreams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The environment that clients take from the ConfigMap `<cache>-env`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Clients>,
    /// Pods; more than one only with ReadWriteMany.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: i32,
    /// Image of the proxy. Default: the operator's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Where the pods run, and with what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// Nothing of this cache is made, changed or repaired; its status goes on telling the truth. The condition Paused says what
    /// waits, and while something does, observedGeneration stays at what was carried out last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

impl GoModuleCacheSpec {
    /// The namespaces besides its own that a cache publishes the clients' environment to, if they ask.
    pub fn listed_namespaces<'a>(&'a self, own: &'a str) -> impl Iterator<Item = &'a String> {
        let listed = self.clients.as_ref().and_then(|clients| clients.publish_to.as_ref());
        listed.into_iter().flat_map(|listed| &listed.namespaces).filter(move |namespace| *namespace != own)
    }
}

fn one() -> i32 {
    1
}

impl GoModuleCacheSpec {
    /// Every Secret that it names.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        let proxy = self.network.iter().filter_map(|network| network.http_proxy.as_ref()?.credentials_ref.as_ref());
        self.upstreams.iter().filter_map(|upstream| upstream.credentials_ref.as_ref()).chain(proxy)
    }
}

/// One entry of the source chain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("isURL(self.url) && url(self.url).getScheme() in ['http', 'https'] && url(self.url).getHostname() != ''").message("url must be an absolute http or https URL with a host").field_path(".url"),
    validation = Rule::new("!self.url.matches('^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*@')").message("url must not carry a user name or password; put them in a Secret and name it in credentialsRef").field_path(".url"),
    validation = Rule::new("!self.url.contains('?') && !self.url.contains('#')").message("url must not have a query or a fragment").field_path(".url"),
    validation = Rule::new("!self.url.startsWith('http://') || self.internal").message("plain http is for upstreams that are declared internal only").field_path(".url"),
    validation = Rule::new("!has(self.credentialsRef) || self.url.startsWith('https://') || self.internal").message("credentials are sent over https only, unless the upstream is declared internal").field_path(".credentialsRef")
)]
pub struct Upstream {
    /// `https`, or `http` if internal; never with userinfo.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// When the next upstream is asked. OnNotFound: after 404 and 410 only, as with a comma in GOPROXY. OnError: after any error, as
    /// with `|`.
    #[serde(default)]
    pub fallback: Fallback,
    /// A Secret of this namespace that names this host in its annotation gomodcache.io/hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<SecretRef>,
    /// Hosts to which it may redirect, besides itself; at port 443.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253)))]
    // A rule on the list and not a pattern on its items: a pattern's message would echo a URL with its password.
    #[x_kube(validation = Rule::new("self.all(host, host.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$'))").message("redirectHosts are host names in lower case, without scheme, port or path"))]
    pub redirect_hosts: Vec<String>,
    /// It is asked for private modules, and may have private addresses and plain http.
    #[serde(default)]
    pub internal: bool,
    /// Certificates trusted besides the system's: a key of a ConfigMap of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<ConfigMapKeyRef>,
    /// How long it may be silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

/// GOPROXY's two separators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Fallback {
    /// `,`: the next upstream is asked after 404 and 410 only.
    #[default]
    OnNotFound,
    /// `|`: the next upstream is asked after any error.
    OnError,
}

/// Private modules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrivateModules {
    /// A glob in GOPRIVATE's syntax, without [classes], that matches a module path or its first elements, such as git.corp.example/*.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._~/*?^-]+$') && !self.startsWith('/') && !self.endsWith('/') && !self.contains('//')").message("pattern must be one glob in GOPRIVATE's syntax, such as git.corp.example/*, without commas, spaces, scheme or slash at either end"))]
    pub pattern: String,
}

/// What clients may not have. A rule is a glob in GOPRIVATE's syntax, without [classes], or one and a version: a.example/m@v1.2.3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Nobody gets these; the answer is 403 with the rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(rule, rule.matches('^[A-Za-z0-9._~*?^-][A-Za-z0-9._~/*?^-]*(@v(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)(-[0-9A-Za-z-]+([.][0-9A-Za-z-]+)*)?([+]incompatible)?)?$'))").message("deny holds globs of module paths in GOPRIVATE's syntax, such as evil.example/*, or one and a version: a.example/m@v1.2.3"))]
    pub deny: Vec<String>,
    /// Nobody gets anything else. Empty: everything is allowed. Toolchains need not be named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(rule, rule.matches('^[A-Za-z0-9._~*?^-][A-Za-z0-9._~/*?^-]*(@v(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)(-[0-9A-Za-z-]+([.][0-9A-Za-z-]+)*)?([+]incompatible)?)?$'))").message("allow holds globs of module paths in GOPRIVATE's syntax, such as good.example/*, or one and a version: a.example/m@v1.2.3"))]
    pub allow: Vec<String>,
    /// Such as 72h or 14d: younger versions of public modules are neither listed nor served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{1,6}[smhd]$')").message("minimumReleaseAge must be a whole number and a unit, such as 90m, 72h or 14d"))]
    pub minimum_release_age: Option<String>,
}

/// What is fetched before a client asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum LookAhead {
    /// What a go command certainly asks for next, and go.mod files that it may ask for.
    #[default]
    All,
    /// Only what is certain.
    Certain,
    /// Nothing.
    Disabled,
}

/// The checksum database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChecksumDatabase {
    /// What the cache does with it. Verify: nothing is kept that it contradicts, and it is relayed under /sumdb/. Relay: it is relayed,
    /// and clients verify. Disabled: not at all, and clients get GOSUMDB=off.
    #[serde(default)]
    pub mode: ChecksumMode,
    /// What becomes of a version for which it can't be asked. Serve: it is served, and kept only when the verdict has come; clients
    /// check their go.sum themselves. Refuse: 502.
    #[serde(default)]
    pub when_unavailable: WhenUnavailable,
}

/// What becomes of a version for which the checksum database can't be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum WhenUnavailable {
    /// It is served, and kept only when the verdict has come: clients check their go.sum themselves.
    #[default]
    Serve,
    /// It is refused with 502.
    Refuse,
}

/// What a cache does with the checksum database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ChecksumMode {
    /// Nothing is kept that it contradicts, and it is relayed under /sumdb/.
    #[default]
    Verify,
    /// It is relayed; clients verify.
    Relay,
    /// Not at all; the env ConfigMap says GOSUMDB=off. Not called Off: unquoted, YAML reads that as false.
    Disabled,
}

/// The volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("storageClassName cannot be changed, set or removed after creation; create a second cache with the new class").field_path(".storageClassName"),
    validation = Rule::new("self.accessMode == oldSelf.accessMode").message("accessMode cannot be changed after creation").field_path(".accessMode")
)]
pub struct Storage {
    /// May grow, and go back, never below the volume's capacity.
    #[serde(default = "ten_gi")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))").message("size must be a positive quantity such as 50Gi"))]
    pub size: String,
    /// Immutable. Absent: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Immutable. ReadWriteOnce: by one node. ReadWriteOncePod: by one pod; the storage driver must know of it. ReadWriteMany: by many
    /// nodes, for more than one replica.
    #[serde(default)]
    pub access_mode: AccessMode,
    /// What becomes of the claim when the cache is deleted. Retain: it stays, and a cache of the same name takes it up again. Delete: it
    /// goes too.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The least useful objects are evicted when the cache would hold more than this part of `size`.
    #[serde(default = "ninety")]
    #[schemars(range(min = 10, max = 95))]
    pub evict_above_percent: u8,
}

fn ninety() -> u8 {
    90
}

fn ten_gi() -> String {
    "10Gi".into()
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: ten_gi(),
            storage_class_name: None,
            access_mode: AccessMode::default(),
            deletion_policy: DeletionPolicy::default(),
            evict_above_percent: ninety(),
        }
    }
}

/// How the volume is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum AccessMode {
    /// By one node.
    #[default]
    ReadWriteOnce,
    /// By one pod. The storage driver must know of it.
    ReadWriteOncePod,
    /// By many nodes.
    ReadWriteMany,
}

impl AccessMode {
    /// As a claim spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
            Self::ReadWriteMany => "ReadWriteMany",
        }
    }
}

/// What becomes of the claim when the cache is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum DeletionPolicy {
    /// It stays, and a cache of the same name takes it up again.
    #[default]
    Retain,
    /// It goes too.
    Delete,
}

/// Where the pods run, and with what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Default: requests of 50m and 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that the node must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate. A lost node is tolerated for 30 s, unless it is named here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Rules for nodes and neighbours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Labels besides the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = Rule::new("self.all(key, !key.startsWith('app.kubernetes.io/') && !key.startsWith('gomodcache.io/'))").message("labels of app.kubernetes.io/ and gomodcache.io/ are the operator's own"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = Rule::new("self.all(key, !key.startsWith('gomodcache.io/'))").message("annotations of gomodcache.io/ are the operator's own"))]
    pub annotations: BTreeMap<String, String>,
    /// How the pods rank with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// A ServiceAccount of this namespace, in place of the cache's own. Its token is not mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Secrets of this namespace that open the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<SecretRef>,
}
