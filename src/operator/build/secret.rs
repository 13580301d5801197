//! The Secret that the proxy reads: accepted credentials and the id of their generation.

use k8s_openapi::api::core::v1::Secret;

use super::{Validated, owned};
use crate::operator::credentials::Data;

pub(super) fn build(cache: &Validated, data: Data) -> Secret {
    Secret { metadata: owned(cache, &cache.names.credentials), data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() }
}
