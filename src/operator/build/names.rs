//! The names of a cache's children.

/// Derived once from the name of the cache, which the schema holds to 52 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The cache, and the Service of the module port.
    pub cache: String,
    /// The Service of the admin port.
    pub admin: String,
    /// Deployment, ServiceAccount, NetworkPolicy and claim.
    pub proxy: String,
    /// The ConfigMap that the proxy reads.
    pub config: String,
    /// The ConfigMap for clients.
    pub env: String,
    /// The Secret that the proxy reads.
    pub credentials: String,
}

impl Names {
    /// From the name of the cache.
    #[must_use]
    pub(crate) fn new(cache: &str) -> Self {
        Self {
            cache: cache.to_owned(),
            admin: format!("{cache}-admin"),
            proxy: format!("{cache}-proxy"),
            config: format!("{cache}-config"),
            env: format!("{cache}-env"),
            credentials: format!("{cache}-credentials"),
        }
    }
}
