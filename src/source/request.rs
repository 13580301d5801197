//! One request to an upstream: its URL, its credential, its redirects, and what a failed transport means.

use std::error::Error as _;
use std::net::IpAddr;
use std::time::Instant;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{RequestBuilder, Response};
use url::{Host, Url};

use super::credential::{Held, Which, is_refusal};
use super::http_proxy::Through;
use super::resolve::ResolveError;
use super::upstream::Upstream;
use super::{Class, Fault, FetchError, Wanted, fault::chain_text};
use crate::config::Credential;

const MAX_REDIRECTS: usize = 10;
/// What the client's error says before the reason for which there is no tunnel; its type is nobody else's.
const TUNNEL: &str = "tunnel error: ";

/// A redirect's user name would become a header beside the upstream's own.
fn without_userinfo(mut url: Url) -> Url {
    // They fail for a URL without a host, and this one has one.
    let _is_changed = (url.set_username(""), url.set_password(None));
    url
}

impl Upstream {
    /// Sends the request with some headers and follows redirects, each hop only where the configuration allows. What was let
    /// through once keeps its retries, whatever became of other requests meanwhile.
    pub(super) async fn follow(&self, wanted: &Wanted, headers: &HeaderMap, is_retry: bool) -> Result<Response, FetchError> {
        let mut url = self.join(&wanted.path)?;
        for hop in 0..=MAX_REDIRECTS {
            let response = match hop {
                0 => self.send(url.clone(), headers).await?,
                _ => self.send_on(&url, headers, wanted, is_retry).await?,
            };
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            let next = response.headers().get(LOCATION).and_then(|location| url.join(&ascii(location)).ok());
            let Some(next) = next else {
                return Err(self.fault(Class::ClientError, "redirected without a usable Location".to_owned()).into());
            };
            let host = next.host_str().unwrap_or_default().to_ascii_lowercase();
            if host != self.host && !self.redirect_hosts.contains(&host) {
                self.facts.redirected(&host, Instant::now());
                let reason = format!("redirected to {host}, which is not declared: add it to the upstream's redirect hosts");
                return Err(self.fault(Class::ClientError, reason).into());
            }
            let downgrade = url.scheme() == "https" && next.scheme() != "https";
            let may_be_plain = self.internal || (host == self.host && self.url.scheme() == "http");
            if downgrade || !matches!(next.scheme(), "http" | "https") || (next.scheme() == "http" && !may_be_plain) {
                return Err(self.fault(Class::ClientError, format!("redirected to {host} without TLS")).into());
            }
            url = without_userinfo(next);
        }
        Err(self.fault(Class::ClientError, format!("redirected more than {MAX_REDIRECTS} times")).into())
    }

    /// Goes on to where the upstream redirected: what is wrong there is no fault of the upstream's own host.
    async fn send_on(&self, url: &Url, headers: &HeaderMap, wanted: &Wanted, is_retry: bool) -> Result<Response, FetchError> {
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        if host == self.host {
            return Ok(self.send(url.clone(), headers).await?);
        }
        let door = self.door(&host);
        let held_back = |wait| match wait {
            Some(wait) => self.of(url, Fault { retry_after: Some(wait), ..self.held_back(wait) }).into(),
            None => FetchError::HeldBack,
        };
        // It ends here, with the verdict.
        let _probe = if is_retry { None } else { self.pass(&door, wanted).await.map_err(held_back)? };
        let asked = Instant::now();
        let result = self.send(url.clone(), headers).await;
        door.note(|breaker| match &result {
            Err(fault) if fault.class.is_silence() && is_retry => breaker.troubled(Instant::now()),
            Err(fault) if fault.class.is_silence() => breaker.failed(asked, fault.began(asked), Instant::now()),
            _ => breaker.answered(),
        });
        result.map_err(|fault| self.of(url, fault).into())
    }

    /// A fault that came up while this was asked.
    pub(super) fn of(&self, url: &Url, fault: Fault) -> Fault {
        match url.host_str() {
            Some(host) if !host.eq_ignore_ascii_case(&self.host) => Fault { host: host.to_ascii_lowercase(), ..fault },
            _ => fault,
        }
    }

    async fn send(&self, url: Url, headers: &HeaderMap) -> Result<Response, Fault> {
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        // The HTTP proxy dials what goes through it.
        let carrier = self.proxy.as_ref().filter(|proxy| proxy.carries(&url));
        if let Some(refusal) = carrier.and_then(Through::refusal) {
            return Err(self.fault(Class::ProxyAuth, refusal.to_owned()));
        }
        if let Some(address) = literal.filter(|_| carrier.is_none()) {
            let own = url.host() == self.url.host();
            self.resolver.check_literal(address, own).map_err(|e| self.fault(Class::Dns, e.to_string()))?;
        }
        let request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity").headers(headers.clone());
        match self.credential.as_ref().filter(|_| self.may_carry_credential(&url)) {
            Some(held) if carrier.is_some() && url.scheme() == "http" => {
                let reason = format!(
                    "the credential {} would pass the HTTP proxy in clear: use https, or add the host to httpProxy.noProxy",
                    held.name()
                );
                Err(self.fault(Class::Auth, reason))
            }
            Some(held) => self.send_with(held, request).await,
            None => self.send_request(request).await,
        }
    }

    /// With the credential that is in use, and with the other one if that is refused.
    async fn send_with(&self, held: &Held, request: RequestBuilder) -> Result<Response, Fault> {
        let again = request.try_clone();
        let (response, which) = self.send_authorized(held, request).await?;
        let Some(again) = again.filter(|_| is_refusal(response.status()) && held.refused(which)) else { return Ok(response) };
        let (response, which) = self.send_authorized(held, again).await?;
        if is_refusal(response.status()) {
            held.refused(which);
        }
        Ok(response)
    }

    async fn send_authorized(&self, held: &Held, request: RequestBuilder) -> Result<(Response, Which), Fault> {
        let (credential, which) = held.to_send();
        let authorization = self.authorization(held.name(), credential)?;
        let response = self.send_request(request.header(AUTHORIZATION, authorization)).await?;
        self.note_verdict(held, which, response.status());
        Ok((response, which))
    }

    async fn send_request(&self, request: RequestBuilder) -> Result<Response, Fault> {
        match tokio::time::timeout(self.timeouts.head, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.transport_fault(&error)),
            Err(_) => Err(self.fault(Class::Timeout, format!("no answer within {:?}", self.timeouts.head))),
        }
    }

    /// The upstream's own host over TLS and no other: a redirect never carries the credential elsewhere.
    fn may_carry_credential(&self, url: &Url) -> bool {
        let same_origin = url.host() == self.url.host() && url.port_or_known_default() == self.url.port_or_known_default();
        same_origin && (url.scheme() == "https" || self.internal)
    }

    /// The header, if the credential's owner lists this host.
    fn authorization(&self, name: &str, credential: Option<Credential>) -> Result<HeaderValue, Fault> {
        let auth = |reason: String| self.fault(Class::Auth, reason);
        let credential = credential.ok_or_else(|| auth(format!("the credential {name} is missing")))?;
        if !credential.hosts.iter().any(|host| host.eq_ignore_ascii_case(&self.host)) {
            return Err(auth(format!("the credential {name} may not be sent to this host: its owner must list it")));
        }
        credential.secret.header().ok_or_else(|| auth(format!("the credential {name} can't stand in a header")))
    }

    /// The URL of a path.
    pub(super) fn join(&self, path: &str) -> Result<Url, Fault> {
        let base = self.url.as_str().trim_end_matches('/');
        // The URL's own rules escape everything else that a branch name may hold.
        Url::parse(&format!("{base}/{}", path.replace('#', "%23"))).map_err(|e| self.fault(Class::ClientError, e.to_string()))
    }

    fn transport_fault(&self, error: &reqwest::Error) -> Fault {
        let text = chain_text(error);
        if let Some((proxy, (_, why))) = self.proxy.as_ref().zip(text.split_once(TUNNEL)) {
            let class = if why.contains("authorization required") { Class::ProxyAuth } else { Class::Connect };
            return self.fault(class, format!("the HTTP proxy {} opens no tunnel to it: {why}", proxy.host()));
        }
        let resolve = find_cause::<ResolveError>(error);
        let class = if resolve.is_some() {
            Class::Dns
        } else if error.is_connect() && error.is_timeout() {
            // A connection in use that answers no ping has timed out, too: the next try finds another one.
            Class::Timeout
        } else if find_cause::<rustls::Error>(error).is_some() {
            Class::Tls
        } else {
            Class::Connect
        };
        self.fault(class, resolve.map_or(text, ToString::to_string))
    }
}

/// A header's value with what is not ASCII, such as UTF-8 that a server did not escape, as a URL escapes it.
fn ascii(value: &HeaderValue) -> String {
    percent_encoding::percent_encode(value.as_bytes(), percent_encoding::CONTROLS).to_string()
}

/// The first cause of a type. An `io::Error` hides the one that it wraps from `source`.
fn find_cause<E: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut next = error.source();
    while let Some(cause) = next {
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = cause.downcast_ref::<E>().or_else(|| wrapped.and_then(|inner| inner.downcast_ref::<E>())) {
            return Some(found);
        }
        next = wrapped.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| cause.source());
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_gives_no_user_name() {
        let next = |url: &str| without_userinfo(Url::parse(url).unwrap()).to_string();
        assert_eq!(next("https://u:hunter2@a.example:8443/go?sig=x"), "https://a.example:8443/go?sig=x");
        assert_eq!(next("https://a.example/go"), "https://a.example/go");
    }
}
