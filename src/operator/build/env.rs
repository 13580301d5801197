//! The ConfigMap for clients, made for `envFrom`, here and in namespaces that ask for it. Never GOPRIVATE (it would send private
//! modules round the cache) and never GOFLAGS (it can run programs).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

use super::{ENV_CACHE_UID, ENV_FROM, MANAGED_BY, Validated, asked_name, owned};
use crate::api::ClientFallback;

pub(super) fn build(cache: &Validated) -> ConfigMap {
    ConfigMap { metadata: owned(cache, &cache.names.env), data: Some(data(cache)), ..ConfigMap::default() }
}

/// For another namespace. It can have no owner there, so that labels name the cache and its UID.
pub(super) fn published(cache: &Validated, namespace: &str) -> ConfigMap {
    let uid = cache.cache.meta().uid.clone().unwrap_or_default();
    let labels = [
        (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
        (ENV_FROM.to_owned(), asked_name(&cache.namespace, &cache.names.cache)),
        (ENV_CACHE_UID.to_owned(), uid),
    ];
    let metadata = ObjectMeta {
        name: Some(cache.names.env.clone()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels.into()),
        ..ObjectMeta::default()
    };
    ConfigMap { metadata, data: Some(data(cache)), ..ConfigMap::default() }
}

fn data(cache: &Validated) -> BTreeMap<String, String> {
    let sumdb = cache.checksum_database.as_ref().map_or_else(|| "off".to_owned(), |db| db.key.clone().unwrap_or_else(|| db.name.clone()));
    let private: Vec<&str> = cache.cache.spec.private_modules.iter().map(|modules| modules.pattern.as_str()).collect();
    let url = crate::operator::update_status::url(cache);
    let proxy = match cache.cache.spec.clients.as_ref().map(|clients| clients.fallback).unwrap_or_default() {
        ClientFallback::None => url,
        ClientFallback::DirectOnNotFound => format!("{url},direct"),
        ClientFallback::DirectOnError => format!("{url}|direct"),
    };
    [
        ("GOPROXY".to_owned(), proxy),
        ("GONOPROXY".to_owned(), "none".to_owned()),
        ("GOSUMDB".to_owned(), sumdb),
        ("GONOSUMDB".to_owned(), private.join(",")),
    ]
    .into()
}
