//! The HTTP proxy of a configuration, as every upstream's client uses it.

use http::HeaderValue;
use url::Url;

use crate::config::{Credential, HttpProxy};

/// A proxy and what it wants to hear.
#[derive(Clone, Debug)]
pub(super) struct Through {
    proxy: HttpProxy,
    /// Marked as sensitive: it is not printed. An error says why the credential can't be sent.
    authorization: Result<Option<HeaderValue>, String>,
}

impl Through {
    /// With the credential of the name that the proxy's configuration has. Without one that may be sent, what goes through the
    /// proxy fails, and all else of the configuration is in force: a Secret that is late or was taken back ends no cache.
    pub(super) fn new(proxy: &HttpProxy, credential: Option<&Credential>) -> Self {
        let authorization = proxy.credential.as_ref().map(|name| header(name, proxy.url.host_str().unwrap_or_default(), credential));
        Self { proxy: proxy.clone(), authorization: authorization.transpose() }
    }

    /// Why nothing can go through it, if so.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.authorization.as_ref().err().map(String::as_str)
    }

    /// Its host, as it is resolved.
    pub(super) fn host(&self) -> String {
        self.proxy.url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase()
    }

    /// Whether a request goes through it.
    pub(super) fn carries(&self, url: &Url) -> bool {
        url.host_str().is_some_and(|host| self.proxy.carries(host, url.port_or_known_default()))
    }

    /// For a client.
    pub(super) fn intercept(&self) -> reqwest::Proxy {
        let this = self.clone();
        let proxy = reqwest::Proxy::custom(move |url| this.carries(url).then(|| this.proxy.url.clone()));
        match &self.authorization {
            Ok(Some(value)) => proxy.custom_http_auth(value.clone()),
            Ok(None) | Err(_) => proxy,
        }
    }
}

/// The header for a proxy's host.
fn header(name: &str, host: &str, credential: Option<&Credential>) -> Result<HeaderValue, String> {
    let credential = credential.ok_or_else(|| format!("httpProxy: the credential {name} is missing"))?;
    if !credential.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)) {
        return Err(format!("httpProxy: the credential {name} may not be sent to {host}: its owner must list it"));
    }
    credential.secret.header().ok_or_else(|| format!("httpProxy: the credential {name} can't stand in a header"))
}
