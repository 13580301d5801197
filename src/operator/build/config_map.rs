//! The ConfigMap that the proxy reads: its whole configuration, pins included.

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Validated, owned};
use crate::config::{CONFIG_FILE, CONFIG_VERSION, ConfigError, LookAhead, PinnedHost, Policy, ProxyConfig, Resolution};

pub(super) fn build(cache: &Validated, pins: &[PinnedHost]) -> Result<ConfigMap, ConfigError> {
    let config = ProxyConfig {
        version: CONFIG_VERSION,
        upstreams: cache.upstreams.clone(),
        checksum_database: cache.checksum_database.clone(),
        private_modules: cache.cache.spec.private_modules.iter().map(|module| module.pattern.clone()).collect(),
        cache_limit: cache.cache_limit,
        policy: Policy::default(),
        look_ahead: LookAhead::default(),
        resolution: Resolution::Pinned { hosts: pins.to_vec() },
    };
    Ok(ConfigMap {
        metadata: owned(cache, &cache.names.config),
        data: Some([(CONFIG_FILE.to_owned(), config.to_yaml()?)].into()),
        ..ConfigMap::default()
    })
}
