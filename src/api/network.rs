//! Who may reach the cache, and how it reaches its upstreams: an HTTP proxy on the way, and how long they may be silent.

#![allow(unreachable_pub, reason = "the schema derive emits a private copy of each type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::references::SecretRef;

/// Who may reach the cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Network {
    /// The module port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// An HTTP proxy between the cache and its upstreams.
    #[serde(default, rename = "httpProxy", skip_serializing_if = "Option::is_none")]
    pub http_proxy: Option<HttpProxy>,
}

/// Peers of the module port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Ingress {
    /// Default: the pods of this namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub from: Vec<Peer>,
}

/// One peer; both selectors together mean both must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.namespaceSelector) || has(self.podSelector)").message("set namespaceSelector, podSelector or both"))]
pub struct Peer {
    /// Namespaces; absent means this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Pods; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
}

/// An HTTP proxy. It resolves the upstreams' names, so that the cache's egress is open to the proxy alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("isURL(self.url) && url(self.url).getScheme() in ['http', 'https'] && url(self.url).getHostname() != ''").message("url must be an absolute http or https URL with a host").field_path(".url"),
    validation = Rule::new("!self.url.matches('^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*@')").message("url must not carry a user name or password; put them in a Secret and name it in credentialsRef").field_path(".url"),
    validation = Rule::new("self.url.matches('^[A-Za-z]+://[^/?#]*/?$')").message("url must not have a path, a query or a fragment").field_path(".url")
)]
pub struct HttpProxy {
    /// Such as http://egress.corp.example:3128. Private addresses are allowed.
    #[schemars(length(min = 1, max = 512))]
    pub url: String,
    /// A Secret of this namespace that names the proxy's host in its annotation gomodcache.io/hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<SecretRef>,
    /// Hosts that are reached without the proxy: a domain and what is below it, .domain for what is below it only, an
    /// address, a range of addresses, or * for all. With :443 behind it, a domain or address is meant for this port only; an IPv6
    /// address then has brackets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(entry, entry.matches('^[A-Za-z0-9.*:_/\\\\[\\\\]-]+$'))").message("noProxy holds one host, domain, address or range of addresses an entry, such as .corp.example"))]
    pub no_proxy: Vec<String>,
}

/// How long an upstream may be silent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// For a connection, TLS included. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,3}[sm]$')").message("connect must be a whole number and a unit, such as 10s or 2m"))]
    pub connect: Option<String>,
    /// Until the head of an answer: a public mirror may need most of a minute for a module that it does not have yet.
    /// Default: 75s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,3}[sm]$')").message("head must be a whole number and a unit, such as 75s or 2m"))]
    pub head: Option<String>,
    /// Between two pieces of a body. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,3}[sm]$')").message("idle must be a whole number and a unit, such as 30s or 1m"))]
    pub idle: Option<String>,
}
