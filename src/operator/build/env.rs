//! The ConfigMap for clients, made for `envFrom`. Never GOPRIVATE (it would send private modules round the cache) and
//! never GOFLAGS (it can run programs).

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Validated, owned};

pub(super) fn build(cache: &Validated) -> ConfigMap {
    let sumdb = cache.checksum_database.as_ref().map_or_else(|| "off".to_owned(), |db| db.key.clone().unwrap_or_else(|| db.name.clone()));
    let private: Vec<&str> = cache.cache.spec.private_modules.iter().map(|modules| modules.pattern.as_str()).collect();
    ConfigMap {
        metadata: owned(cache, &cache.names.env),
        data: Some(
            [
                ("GOPROXY".to_owned(), crate::operator::update_status::url(cache)),
                ("GONOPROXY".to_owned(), "none".to_owned()),
                ("GOSUMDB".to_owned(), sumdb),
                ("GONOSUMDB".to_owned(), private.join(",")),
            ]
            .into(),
        ),
        ..ConfigMap::default()
    }
}
