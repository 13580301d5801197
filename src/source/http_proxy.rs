//! The HTTP proxy of a configuration, as every upstream's client uses it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use url::Url;

use crate::config::{Credential, CredentialSecret, HttpProxy};

/// A proxy and what it wants to hear.
#[derive(Clone, Debug)]
pub(super) struct Through {
    proxy: HttpProxy,
    /// Marked as sensitive: it is not printed.
    authorization: Option<HeaderValue>,
}

impl Through {
    /// With the credential of the name that the proxy's configuration has.
    ///
    /// # Errors
    /// A sentence, for a credential that is missing or may not be sent there.
    pub(super) fn new(proxy: &HttpProxy, credential: Option<&Credential>) -> Result<Self, String> {
        let host = proxy.url.host_str().unwrap_or_default();
        let authorization = match (&proxy.credential, credential) {
            (None, _) => None,
            (Some(name), None) => return Err(format!("httpProxy: the credential {name} is missing")),
            (Some(name), Some(credential)) if !credential.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)) => {
                return Err(format!("httpProxy: the credential {name} may not be sent to {host}: its owner must list it"));
            }
            (Some(name), Some(credential)) => {
                let text = match &credential.secret {
                    CredentialSecret::Basic { username, password } => {
                        format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
                    }
                    CredentialSecret::Token(token) => format!("Bearer {token}"),
                };
                let value = HeaderValue::from_str(&text);
                let mut value = value.map_err(|_| format!("httpProxy: the credential {name} can't stand in a header"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self { proxy: proxy.clone(), authorization })
    }

    /// Its host, as it is resolved.
    pub(super) fn host(&self) -> String {
        self.proxy.url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase()
    }

    /// Whether a request goes through it.
    pub(super) fn carries(&self, url: &Url) -> bool {
        url.host_str().is_some_and(|host| self.proxy.carries(host))
    }

    /// For a client.
    pub(super) fn intercept(&self) -> reqwest::Proxy {
        let this = self.clone();
        let proxy = reqwest::Proxy::custom(move |url| this.carries(url).then(|| this.proxy.url.clone()));
        match &self.authorization {
            Some(value) => proxy.custom_http_auth(value.clone()),
            None => proxy,
        }
    }
}
