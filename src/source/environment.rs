//! A configuration without a file: what `GOPROXY` and `GOSUMDB` say, in the environment or to `go env`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use url::{Host, Url};

use crate::config::{
    CONFIG_VERSION, ChecksumDatabase, ChecksumMode, Credential, CredentialSecret, Fallback, HttpProxy, LookAhead, Policy, ProxyConfig,
    Resolution, Timeouts, Upstream, WhenUnavailable, host_names, is_database_name,
};
use crate::sumdb::verifier;

/// By name, as a configuration names them.
type Credentials = BTreeMap<String, Credential>;

const HTTP_PROXY_CREDENTIAL: &str = "http-proxy";

/// Why the environment is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// Neither set nor to be had from `go`.
    #[error("{0} is not set and `go env {0}` gave nothing: set it, or name a file with --config")]
    Unknown(&'static str),
    /// Something that can't be used. Never the value itself: it may hold a password.
    #[error("{name}: {reason}")]
    Invalid {
        /// Which variable.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Reads the environment. Where nothing is kept from proxies (`GONOPROXY`), they are internal: whoever runs the proxy alone
/// chose them. GOPROXY has no place for the hosts that an upstream may redirect to, so that `redirect_hosts` are those of each.
///
/// # Errors
/// See [`EnvironmentError`].
pub async fn from_environment(listen: SocketAddr, redirect_hosts: &[String]) -> Result<(ProxyConfig, Credentials), EnvironmentError> {
    // What `go env` says includes the default, which is GOPRIVATE.
    let not_for_proxies = globs(&variable("GONOPROXY").await.unwrap_or_default());
    let mut upstreams = parse_goproxy(&variable("GOPROXY").await?, listen, not_for_proxies.is_empty())?;
    let redirect_hosts = host_names(redirect_hosts);
    upstreams.iter_mut().for_each(|upstream| upstream.redirect_hosts.clone_from(&redirect_hosts));
    let checksum_database = match variable("GOSUMDB").await {
        Ok(text) => parse_gosumdb(&text)?,
        Err(error) => {
            tracing::warn!(%error, "no checksum database is relayed");
            None
        }
    };
    let mut private_modules = globs(&variable("GONOSUMDB").await.unwrap_or_default());
    private_modules.extend(not_for_proxies);
    private_modules.sort_unstable();
    private_modules.dedup();
    let resolution = Resolution::System { private_addresses: true };
    let (policy, look_ahead) = (Policy::default(), LookAhead::default());
    let set = |names: [&str; 2]| names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let (http_proxy, credentials) = match set(["HTTPS_PROXY", "https_proxy"]) {
        Some(url) => parse_http_proxy(&url, &set(["NO_PROXY", "no_proxy"]).unwrap_or_default())?,
        None => (None, Credentials::new()),
    };
    let config = ProxyConfig {
        version: CONFIG_VERSION,
        upstreams,
        checksum_database,
        private_modules,
        cache_limit: None,
        policy,
        look_ahead,
        resolution,
        http_proxy,
    };
    Ok((config, credentials))
}

/// The form of curl and of Go: a user name and a password may stand in the URL. What does not is sent to nobody else.
fn parse_http_proxy(url: &str, no_proxy: &str) -> Result<(Option<HttpProxy>, Credentials), EnvironmentError> {
    let invalid = |reason: String| EnvironmentError::Invalid { name: "HTTPS_PROXY", reason };
    let with_scheme = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let mut url = Url::parse(&with_scheme).map_err(|e| invalid(format!("not a URL: {e}")))?;
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (username, password) = (decoded(url.username()), url.password().map(decoded).unwrap_or_default());
    let mut credentials = Credentials::new();
    if !username.is_empty() {
        let (_, _) = (url.set_username(""), url.set_password(None));
        let hosts = vec![url.host_str().unwrap_or_default().to_owned()];
        credentials.insert(HTTP_PROXY_CREDENTIAL.to_owned(), Credential { hosts, secret: CredentialSecret::Basic { username, password } });
    }
    let no_proxy = no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect();
    let credential = (!credentials.is_empty()).then(|| HTTP_PROXY_CREDENTIAL.to_owned());
    let proxy = HttpProxy { url, no_proxy, credential };
    proxy.check().map_err(|error| invalid(error.to_string()))?;
    Ok((Some(proxy), credentials))
}

/// Of a variable such as GONOPROXY. The word `none` stands for no module.
fn globs(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|glob| !glob.is_empty() && *glob != "none").map(str::to_owned).collect()
}

async fn variable(name: &'static str) -> Result<String, EnvironmentError> {
    if let Some(value) = std::env::var(name).ok().filter(|value| !value.trim().is_empty()) {
        return Ok(value);
    }
    let output = tokio::process::Command::new("go").args(["env", name]).output().await.map_err(|_| EnvironmentError::Unknown(name))?;
    let value = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if value.is_empty() { Err(EnvironmentError::Unknown(name)) } else { Ok(value) }
}

fn parse_goproxy(text: &str, listen: SocketAddr, for_all_modules: bool) -> Result<Vec<Upstream>, EnvironmentError> {
    let invalid = |reason: &str| EnvironmentError::Invalid { name: "GOPROXY", reason: reason.to_owned() };
    let mut upstreams = Vec::new();
    let mut seen_off = false;
    for part in text.split_inclusive([',', '|']) {
        let fallback = if part.ends_with('|') { Fallback::OnError } else { Fallback::OnNotFound };
        match part.trim_end_matches([',', '|']).trim() {
            "" => {}
            "direct" => {
                tracing::warn!("GOPROXY: direct is not followed, nor what comes after it; add it to the clients' GOPROXY if it is wanted");
                // Nor does a go command ask anybody else then.
                break;
            }
            "off" => {
                seen_off = true;
                break;
            }
            entry => {
                let upstream = upstream(entry, fallback, listen).map_err(|reason| invalid(&reason))?;
                upstreams.push(Upstream { internal: for_all_modules, ..upstream });
            }
        }
    }
    if upstreams.is_empty() && !seen_off {
        return Err(invalid("names no proxy; off alone means offline"));
    }
    Ok(upstreams)
}

fn upstream(entry: &str, fallback: Fallback, listen: SocketAddr) -> Result<Upstream, String> {
    let with_scheme = if entry.contains("://") { entry.to_owned() } else { format!("https://{entry}") };
    let url = Url::parse(&with_scheme).map_err(|e| format!("an entry is not a URL: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("the entry for {} must not carry a user name or password", url.host_str().unwrap_or("a host")));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("the entry for {} must not have a query or a fragment", url.host_str().unwrap_or("a host")));
    }
    if !matches!(url.scheme(), "http" | "https" | "file") {
        return Err(format!("the scheme {} is not supported: http, https or file", url.scheme()));
    }
    let own_address = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback() || listen.ip() == address,
        Some(Host::Ipv6(address)) => address.is_loopback() || listen.ip() == address,
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if own_address && url.port_or_known_default() == Some(listen.port()) {
        return Err(format!("{url} is this proxy's own address: unset GOPROXY for this process, or name an upstream"));
    }
    Ok(Upstream {
        url,
        fallback,
        credential: None,
        redirect_hosts: Vec::new(),
        internal: false,
        ca_bundle: None,
        timeouts: Timeouts::default(),
    })
}

fn parse_gosumdb(text: &str) -> Result<Option<ChecksumDatabase>, EnvironmentError> {
    let invalid = |reason: String| EnvironmentError::Invalid { name: "GOSUMDB", reason };
    let mut fields = text.split_whitespace();
    let Some(key) = fields.next().filter(|key| *key != "off") else { return Ok(None) };
    let url = fields.next().map(Url::parse).transpose().map_err(|e| invalid(format!("the URL: {e}")))?;
    if url.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
        return Err(invalid("the URL must not carry a user name or password".to_owned()));
    }
    let name = key.split('+').next().unwrap_or_default();
    if !is_database_name(name) || fields.next().is_some() {
        return Err(invalid("must be a name, a key, or a key and a URL".to_owned()));
    }
    let key = (key != name).then(|| key.to_owned());
    // A name without a key is of use to clients that have the key.
    let mode = if verifier(name, key.as_deref()).is_ok() { ChecksumMode::Verify } else { ChecksumMode::Relay };
    if mode == ChecksumMode::Relay && key.is_some() {
        return Err(invalid("the key is not one: name+hash+key".to_owned()));
    }
    Ok(Some(ChecksumDatabase { name: name.to_owned(), key, mode, when_unavailable: WhenUnavailable::default(), url }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn listen() -> SocketAddr {
        "127.0.0.1:8080".parse().unwrap()
    }

    #[test]
    fn separators_become_fallbacks_and_direct_ends_the_chain() {
        let upstreams = parse_goproxy("https://a.example|b.example/x,direct,c.example", listen(), true).unwrap();
        assert_eq!(upstreams.len(), 2);
        assert_eq!((upstreams[0].fallback, upstreams[1].fallback), (Fallback::OnError, Fallback::OnNotFound));
        assert_eq!(upstreams[1].url.as_str(), "https://b.example/x");
    }

    #[test]
    fn what_is_kept_from_proxies_is_not_asked_of_them() {
        assert_eq!(globs("corp.example, *.corp.example,"), ["corp.example", "*.corp.example"]);
        assert_eq!(globs("none"), Vec::<String>::new());
        let internal = |for_all| parse_goproxy("https://a.example", listen(), for_all).unwrap()[0].internal;
        assert!(internal(true) && !internal(false));
    }

    #[test]
    fn a_password_in_the_databases_url_is_refused_and_not_echoed() {
        let error = parse_gosumdb("sum.example https://u:hunter2@relay.example").unwrap_err().to_string();
        assert!(error.contains("must not carry a user name or password") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn off_alone_is_offline_and_direct_alone_is_an_error() {
        assert!(parse_goproxy("off", listen(), true).unwrap().is_empty());
        assert!(parse_goproxy("direct", listen(), true).is_err());
        assert!(parse_goproxy("direct,https://a.example", listen(), true).is_err());
    }

    #[test]
    fn a_path_goes_behind_an_entry_so_that_it_has_no_query() {
        for entry in ["https://a.example/go?x=1", "https://a.example/go#x"] {
            let error = parse_goproxy(entry, listen(), true).unwrap_err().to_string();
            assert!(error.contains("must not have a query or a fragment"), "{error}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_echoed() {
        let error = parse_goproxy("https://u:hunter2@a.example", listen(), true).unwrap_err().to_string();
        assert!(error.contains("a.example") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_http_proxy_is_read_and_its_password_taken_out_of_the_url() {
        let (proxy, credentials) = parse_http_proxy("u:p%40ss@egress.example:3128", "corp.example, .lab.example").unwrap();
        let proxy = proxy.unwrap();
        assert_eq!((proxy.url.as_str(), proxy.no_proxy.len()), ("http://egress.example:3128/", 2));
        let credential = &credentials[proxy.credential.as_ref().unwrap()];
        assert!(matches!(&credential.secret, CredentialSecret::Basic { username, password } if username == "u" && password == "p@ss"));
        assert!(parse_http_proxy("socks5://egress.example", "").is_err());
    }

    #[test]
    fn our_own_address_is_refused() {
        for own in ["http://127.0.0.1:8080", "http://localhost:8080/x"] {
            assert!(parse_goproxy(own, listen(), true).is_err(), "{own}");
        }
        assert!(parse_goproxy("http://127.0.0.1:8081", listen(), true).is_ok());
    }

    #[test]
    fn every_form_of_gosumdb_is_read() {
        assert!(parse_gosumdb("off").unwrap().is_none());
        assert_eq!(parse_gosumdb("sum.example").unwrap().unwrap().name, "sum.example");
        let full =
            parse_gosumdb("sum.example/db+9ec6ab89+ATPaWbMTM3SBxphpqrNCUkP6/tyJp/ULbQ5yQu4IC9Tb https://relay.example/x").unwrap().unwrap();
        assert_eq!((full.name.as_str(), full.url.unwrap().as_str()), ("sum.example/db", "https://relay.example/x"));
        assert_eq!(full.mode, ChecksumMode::Verify);
        assert!(parse_gosumdb("../x").is_err() && parse_gosumdb("sum.example/db+abc+key").is_err());
    }
}
