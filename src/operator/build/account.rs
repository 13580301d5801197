//! The ServiceAccount: an identity without a token, since the proxy never talks to the API server.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{Validated, owned};

pub(super) fn build(cache: &Validated) -> ServiceAccount {
    ServiceAccount { metadata: owned(cache, &cache.names.proxy), automount_service_account_token: Some(false), ..ServiceAccount::default() }
}
