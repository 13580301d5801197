//! What clients of a cache take from it to know where to ask.

#![allow(unreachable_pub, reason = "the schema derive emits a private copy of each type")]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The environment that clients take from the ConfigMap `<cache>-env`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Clients {
    /// Where the ConfigMap lies besides this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_to: Option<PublishTo>,
    /// Where clients look for what the cache does not give them. None: nowhere. DirectOnNotFound: in version control, when the cache says
    /// that there is no such module or version (GOPROXY=<url>,direct). DirectOnError: there after any error of the cache
    /// (GOPROXY=<url>|direct).
    #[serde(default)]
    pub fallback: ClientFallback,
}

/// Other namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PublishTo {
    /// Each must ask for it, by the label gomodcache.io/env-from with the value `<namespace of the cache>.<name of the cache>`,
    /// which may have 63 characters; its pods may then reach the cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))").message("publishTo.namespaces holds names of namespaces, without patterns"))]
    pub namespaces: Vec<String>,
}

/// Where clients look for what the cache does not give them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ClientFallback {
    /// Nowhere.
    #[default]
    None,
    /// In version control, when the cache says that there is no such module or version: GOPROXY=<url>,direct.
    DirectOnNotFound,
    /// In version control, after any error of the cache: GOPROXY=<url>|direct.
    DirectOnError,
}
