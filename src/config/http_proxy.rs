//! The HTTP proxy through which upstreams are reached, and the hosts that are reached without it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

use super::ConfigError;

/// An HTTP proxy. It resolves the upstreams' names; the cache needs an address of the proxy only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpProxy {
    /// `http` or `https`, without userinfo, path, query or fragment. Private addresses are allowed.
    pub url: Url,
    /// Hosts that are reached directly, in the syntax of `NO_PROXY`'s entries: `corp.example` (and what is below it),
    /// `.corp.example` (only what is below it), an address, a range of addresses, or `*`; behind a host or an address `:443` for this
    /// port only. Loopback always is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_proxy: Vec<String>,
    /// The name of a credential with user name and password, or with a token, in the credentials directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

impl HttpProxy {
    /// Whether a host is reached through the proxy, at this port.
    #[must_use]
    pub fn carries(&self, host: &str, port: Option<u16>) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let is_loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        !is_loopback && !self.no_proxy.iter().any(|entry| matches(&entry.to_ascii_lowercase(), &host, address, port))
    }

    /// Checks what the types let through.
    ///
    /// # Errors
    /// A sentence that does not echo the URL: it may hold a password.
    pub fn check(&self) -> Result<(), ConfigError> {
        let invalid = |key: &str, reason: &str| Err(ConfigError::Invalid { key: format!("httpProxy.{key}"), reason: reason.to_owned() });
        let url = &self.url;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return invalid("url", "must be an http or https URL with a host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return invalid("url", "must not carry a user name or password; name a credential instead");
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return invalid("url", "must not have a path, a query or a fragment");
        }
        if self.no_proxy.iter().any(|entry| entry.is_empty() || entry.contains([',', ' ', '/']) && entry.parse::<IpNet>().is_err()) {
            return invalid("noProxy", "each entry is one host, domain, address, range of addresses, or *");
        }
        if self.no_proxy.iter().any(|entry| has_wrong_port(entry)) {
            return invalid(
                "noProxy",
                "what follows a host, or an IPv6 address in brackets, is its port, from 1 to 65535: corp.example:8443",
            );
        }
        Ok(())
    }
}

fn matches(entry: &str, host: &str, address: Option<IpAddr>, port: Option<u16>) -> bool {
    if entry == "*" {
        return true;
    }
    let (entry, only) = with_port(entry);
    if only.is_some_and(|only| Some(only) != port) {
        return false;
    }
    if let Some(address) = address {
        return entry.parse::<IpNet>().is_ok_and(|range| range.contains(&address)) || entry.parse() == Ok(address);
    }
    let below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    match entry.trim_start_matches('*').strip_prefix('.') {
        Some(domain) => below(domain),
        None => host == entry || below(entry),
    }
}

/// An entry and the port that it is for. What has more colons than one is an IPv6 address, unless that stands in brackets.
fn with_port(entry: &str) -> (&str, Option<u16>) {
    let parsed = entry.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let of = parsed.filter(|(host, _)| !host.contains(':') || host.starts_with('[') && host.ends_with(']'));
    let (host, port) = of.map_or((entry, None), |(host, port)| (host, Some(port)));
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// Whether it would match nothing for what stands in a port's place.
fn has_wrong_port(entry: &str) -> bool {
    let (host, port) = with_port(entry);
    port == Some(0) || host.contains([':', '[', ']']) && host.parse::<IpAddr>().is_err() && host.parse::<IpNet>().is_err()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn proxy(no_proxy: &[&str]) -> HttpProxy {
        let no_proxy = no_proxy.iter().map(|entry| (*entry).to_owned()).collect();
        HttpProxy { url: "http://egress.corp.example:3128".parse().unwrap(), no_proxy, credential: None }
    }

    #[test]
    fn every_form_of_no_proxy_is_read() {
        assert!(!proxy(&["*"]).carries("modules.example", Some(443)));
        let proxy = proxy(&["corp.example", ".lab.example", "*.dev.example", "192.0.2.7", "198.51.100.0/24", "2001:db8::/32"]);
        for direct in [
            "corp.example",
            "Git.Corp.Example.",
            "a.lab.example",
            "a.dev.example",
            "192.0.2.7",
            "198.51.100.9",
            "[2001:db8::1]",
            "localhost",
            "127.0.0.1",
        ] {
            assert!(!proxy.carries(direct, Some(443)), "{direct}");
        }
        for carried in ["notcorp.example", "lab.example", "dev.example", "192.0.2.8", "modules.example"] {
            assert!(proxy.carries(carried, Some(443)), "{carried}");
        }
    }

    #[test]
    fn an_entry_with_a_port_is_for_this_port_only() {
        let proxy = proxy(&["corp.example:8443", "192.0.2.7:80", "[2001:db8::1]:443", "[2001:db8::2]", "2001:db8::3:443"]);
        for (host, port, is_direct) in [
            ("corp.example", 8443, true),
            ("git.corp.example", 8443, true),
            ("corp.example", 443, false),
            ("192.0.2.7", 80, true),
            ("192.0.2.7", 443, false),
            ("[2001:db8::1]", 443, true),
            ("[2001:db8::1]", 80, false),
            ("[2001:db8::2]", 80, true),
            ("[2001:db8::3:443]", 80, true),
        ] {
            assert_eq!(proxy.carries(host, Some(port)), !is_direct, "{host}:{port}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_an_echo() {
        for (url, says) in [
            ("ftp://egress.example", "must be an http or https URL"),
            ("http://u:hunter2@egress.example", "must not carry a user name or password"),
            ("http://egress.example/x", "must not have a path"),
        ] {
            let error = HttpProxy { url: url.parse().unwrap(), ..proxy(&[]) }.check().unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
        }
        assert!(proxy(&["a, b"]).check().is_err() && proxy(&["198.51.100.0/24", "*"]).check().is_ok());
    }

    #[test]
    fn a_port_that_is_none_is_refused_and_not_without_effect() {
        let wrong = ["corp.example:99999", "corp.example:https", "corp.example:", "corp.example:0", "192.0.2.7:99999", "[2001:db8::1]:x"];
        for entry in wrong {
            let error = proxy(&[entry]).check().map_err(|error| error.to_string()).unwrap_err();
            assert!(error.contains("noProxy") && error.contains("from 1 to 65535"), "{entry}: {error}");
        }
        for entry in [".corp.example:8443", "192.0.2.7:65535", "[2001:db8::1]:443", "[2001:db8::1]", "2001:db8::1", "2001:db8::/32", "::1"]
        {
            assert!(proxy(&[entry]).check().is_ok(), "{entry}");
        }
    }
}
