//! The ConfigMap that the proxy reads: its whole configuration, pins included, once for each version of the format.

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Validated, owned};
use crate::api;
use crate::config::{CONFIG_VERSION, ConfigError, LookAhead, PinnedHost, ProxyConfig, Resolution, Versions, file_name};

pub(super) fn build(cache: &Validated, pins: &[PinnedHost], versions: &Versions) -> Result<ConfigMap, ConfigError> {
    let config = ProxyConfig {
        version: CONFIG_VERSION,
        upstreams: cache.upstreams.clone(),
        checksum_database: cache.checksum_database.clone(),
        private_modules: cache.cache.spec.private_modules.iter().map(|module| module.pattern.clone()).collect(),
        cache_limit: cache.cache_limit,
        policy: cache.policy.clone(),
        look_ahead: match cache.cache.spec.look_ahead {
            api::LookAhead::All => LookAhead::All,
            api::LookAhead::Certain => LookAhead::Certain,
            api::LookAhead::Disabled => LookAhead::Disabled,
        },
        resolution: Resolution::Pinned { hosts: pins.to_vec() },
        http_proxy: cache.http_proxy.clone(),
    };
    let file = |version: &u32| Ok((file_name(*version), config.write(*version)?));
    Ok(ConfigMap {
        metadata: owned(cache, &cache.names.config),
        data: Some(versions.newest_first().iter().map(file).collect::<Result<_, ConfigError>>()?),
        ..ConfigMap::default()
    })
}
