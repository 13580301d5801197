//! Step 2: from what was written and read to names and values that `build` can rely on. Pure.

use kube::{Resource, ResourceExt};

use super::build::names::Names;
use super::build::{Kept, Sharing};
use super::ca_bundles::{Bundles, Problem};
use super::credentials::Wanted;
use super::defaults::{Defaults, SumDb, host_of, plain_url};
use super::egress::{Need, Needs};
use crate::api::{self, ChecksumMode, Fallback, GoModuleCache, Timeouts, WhenUnavailable};
use crate::config;
use crate::proxy::check_policy;
use crate::quantity::{parse_bytes, parse_duration};
use crate::sumdb::verifier;

/// Faults of the object itself: retrying does not help, editing does.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidCache {
    /// No namespace, name or UID: not an object that an API server stored.
    #[error("the object has no {0}")]
    Incomplete(&'static str),
    /// A URL that the schema let through. Not echoed: it may hold a password.
    #[error(
        "spec.upstreams[{0}].url must be an absolute http or https URL with a host and a valid port, without user name, query or fragment"
    )]
    Url(usize),
    /// A rule that the schema let through and that the proxy can't read.
    #[error("spec.{0}")]
    Policy(String),
    /// The HTTP proxy's; not echoed either.
    #[error("spec.network.httpProxy: {0}")]
    HttpProxy(String),
}

/// A cache whose every name and value was checked.
#[derive(Clone)]
pub(crate) struct Validated {
    /// The object as it was read.
    pub cache: GoModuleCache,
    /// Its namespace.
    pub namespace: String,
    /// The names of its children.
    pub names: Names,
    /// The chain, with CA bundles read in.
    pub upstreams: Vec<config::Upstream>,
    /// The checksum database, unless off.
    pub checksum_database: Option<config::ChecksumDatabase>,
    /// Bytes that the cache may hold.
    pub cache_limit: Option<u64>,
    /// What clients may not have.
    pub policy: config::Policy,
    /// What stands between the pods and their upstreams.
    pub http_proxy: Option<config::HttpProxy>,
    /// The hosts that must be reachable.
    pub needs: Needs,
    /// Which Secret goes where.
    pub wanted: Wanted,
    /// CA bundles that can't be used: reasons and messages.
    pub bundle_problems: Vec<Problem>,
    /// The image of the proxy.
    pub image: String,
    /// How the pods share the volume. As the spec has it; what the claim lets them is found out after the validation.
    pub sharing: Sharing,
    /// Pods that stay as they are until their turn. Found out after the validation.
    pub kept: Option<Kept>,
    /// Other namespaces that the spec lists and that ask for the clients' environment, sorted. Found out after the validation.
    pub guests: Vec<String>,
    /// Other namespaces that the spec lists and that are out of the operator's reach, in its order. Found out with them.
    pub beyond: Vec<String>,
}

impl Validated {
    /// Whether the spec itself leads to this host, and not only the operator's settings.
    #[must_use]
    pub(crate) fn names_host(&self, host: &str) -> bool {
        self.cache.spec.upstreams.iter().any(|upstream| {
            let is_own = plain_url(&upstream.url).and_then(|url| host_of(&url)).is_some_and(|own| own == host);
            is_own || upstream.redirect_hosts.iter().any(|declared| declared == host)
        })
    }
}

/// Checks.
///
/// # Errors
/// A fault of the object itself.
pub(crate) fn validate(
    cache: &GoModuleCache,
    ca_bundles: &Bundles,
    defaults: &Defaults,
    default_image: &str,
) -> Result<Validated, InvalidCache> {
    let namespace = cache.namespace().ok_or(InvalidCache::Incomplete("namespace"))?;
    cache.meta().uid.as_ref().ok_or(InvalidCache::Incomplete("UID"))?;
    let name = cache.meta().name.clone().ok_or(InvalidCache::Incomplete("name"))?;
    let mut wanted = Wanted::new();
    let mut bundle_problems = Vec::new();
    let mut upstreams = Vec::new();
    for (i, upstream) in cache.spec.upstreams.iter().enumerate() {
        let url = plain_url(&upstream.url).ok_or(InvalidCache::Url(i))?;
        if url.scheme() == "http" && !upstream.internal {
            return Err(InvalidCache::Url(i));
        }
        let host = host_of(&url).ok_or(InvalidCache::Url(i))?;
        let credential = upstream.credentials_ref.as_ref().map(|reference| reference.name.clone());
        if let Some(secret) = &credential {
            wanted.entry(secret.clone()).or_default().insert(host);
        }
        let ca_bundle =
            upstream.ca_bundle_ref.as_ref().and_then(|reference| ca_bundles.choose(reference, &url, &namespace, &mut bundle_problems));
        upstreams.push(config::Upstream {
            url,
            fallback: match upstream.fallback {
                Fallback::OnNotFound => config::Fallback::OnNotFound,
                Fallback::OnError => config::Fallback::OnError,
            },
            credential,
            redirect_hosts: upstream.redirect_hosts.clone(),
            internal: upstream.internal,
            ca_bundle,
            timeouts: timeouts(upstream.timeouts.as_ref()),
        });
    }
    let policy = policy(cache)?;
    let http_proxy = http_proxy(cache, &mut wanted)?;
    if upstreams.is_empty() {
        upstreams.clone_from(&defaults.upstreams);
    }
    let checksum_database = defaults.checksum_database.as_ref().and_then(|database| checksum_database(database, cache));
    let storage = &cache.spec.storage;
    let cache_limit = parse_bytes(&storage.size).ok().map(|bytes| bytes / 100 * u64::from(storage.evict_above_percent));
    let is_internal = defaults.checksum_database.as_ref().is_some_and(|database| database.internal);
    let needs = needs(&upstreams, checksum_database.as_ref().map(|database| (database, is_internal)), http_proxy.as_ref());
    let image = cache.spec.image.clone().unwrap_or_else(|| default_image.to_owned());
    Ok(Validated {
        cache: cache.clone(),
        namespace,
        names: Names::new(&name),
        upstreams,
        checksum_database,
        cache_limit,
        policy,
        http_proxy,
        needs,
        wanted,
        bundle_problems,
        image,
        sharing: Sharing::asked(&cache.spec),
        kept: None,
        guests: Vec::new(),
        beyond: Vec::new(),
    })
}

/// A database whose key nobody gave can only be relayed: clients have the key.
fn checksum_database(database: &SumDb, cache: &GoModuleCache) -> Option<config::ChecksumDatabase> {
    let wish = &cache.spec.checksum_database;
    let key = database.key.contains('+').then(|| database.key.clone());
    let mode = match wish.mode {
        ChecksumMode::Disabled => return None,
        ChecksumMode::Verify if verifier(&database.name, key.as_deref()).is_ok() => config::ChecksumMode::Verify,
        ChecksumMode::Verify | ChecksumMode::Relay => config::ChecksumMode::Relay,
    };
    let when_unavailable = match wish.when_unavailable {
        WhenUnavailable::Serve => config::WhenUnavailable::Serve,
        WhenUnavailable::Refuse => config::WhenUnavailable::Refuse,
    };
    Some(config::ChecksumDatabase { name: database.name.clone(), key, mode, when_unavailable, url: database.url.clone() })
}

fn timeouts(wish: Option<&Timeouts>) -> config::Timeouts {
    let wish = wish.cloned().unwrap_or_default();
    let or = |text: Option<String>, default| text.and_then(|text| parse_duration(&text).ok()).filter(|d| !d.is_zero()).unwrap_or(default);
    let default = config::Timeouts::default();
    config::Timeouts { connect: or(wish.connect, default.connect), head: or(wish.head, default.head), idle: or(wish.idle, default.idle) }
}

fn policy(cache: &GoModuleCache) -> Result<config::Policy, InvalidCache> {
    let api::Policy { deny, allow, minimum_release_age } = cache.spec.policy.clone().unwrap_or_default();
    let policy = config::Policy { deny, allow, minimum_release_age };
    check_policy(&policy).map_err(InvalidCache::Policy)?;
    Ok(policy)
}

fn http_proxy(cache: &GoModuleCache, wanted: &mut Wanted) -> Result<Option<config::HttpProxy>, InvalidCache> {
    let Some(wish) = cache.spec.network.as_ref().and_then(|network| network.http_proxy.as_ref()) else { return Ok(None) };
    let not_a_url = || InvalidCache::HttpProxy("url must be an absolute http or https URL with a host and a valid port".to_owned());
    let url = plain_url(&wish.url).ok_or_else(not_a_url)?;
    let host = host_of(&url).ok_or_else(not_a_url)?;
    let credential = wish.credentials_ref.as_ref().map(|reference| reference.name.clone());
    let proxy = config::HttpProxy { url, no_proxy: wish.no_proxy.clone(), credential };
    proxy.check().map_err(|error| InvalidCache::HttpProxy(error.to_string()))?;
    if let Some(secret) = &proxy.credential {
        wanted.entry(secret.clone()).or_default().insert(host);
    }
    Ok(Some(proxy))
}

/// `sumdb`: the checksum database, and whether its host may have private addresses.
fn needs(upstreams: &[config::Upstream], sumdb: Option<(&config::ChecksumDatabase, bool)>, proxy: Option<&config::HttpProxy>) -> Needs {
    let mut needs = Needs::new();
    let mut add = |host: String, port: u16, internal: bool| {
        // The proxy resolves and dials what goes through it.
        if proxy.is_some_and(|proxy| proxy.carries(&host, Some(port))) {
            return;
        }
        let need: &mut Need = needs.entry(host).or_default();
        need.internal |= internal;
        if let Err(place) = need.ports.binary_search(&port) {
            need.ports.insert(place, port);
        }
    };
    for upstream in upstreams {
        if let Some(host) = host_of(&upstream.url) {
            add(host, upstream.url.port_or_known_default().unwrap_or(443), upstream.internal);
        }
        for host in &upstream.redirect_hosts {
            add(host.clone(), 443, upstream.internal);
        }
    }
    // Without an explicit URL the proxy asks by way of the upstreams, and no other host is opened.
    if let Some((database, is_internal)) = sumdb
        && let Some(url) = &database.url
        && let Some(host) = host_of(url)
    {
        add(host, url.port_or_known_default().unwrap_or(443), is_internal);
    }
    if let Some(url) = proxy.map(|proxy| &proxy.url)
        && let Some(host) = host_of(url)
    {
        let need = needs.entry(host).or_default();
        need.internal = true;
        need.ports.extend(url.port_or_known_default());
        need.ports.sort_unstable();
        need.ports.dedup();
    }
    needs
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn validated(spec: &Value) -> Result<Validated, InvalidCache> {
        let object = json!({"apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache",
            "metadata": {"name": "ci", "namespace": "shop", "uid": "u-1"}, "spec": spec});
        let internal = ["sum.corp.example".to_owned()];
        let defaults = Defaults::parse("https://origin.example", "sum.example https://sum.corp.example/db", &[], &internal).unwrap();
        validate(&serde_json::from_value(object).unwrap(), &Bundles::default(), &defaults, "registry.example/proxy:1")
    }

    #[test]
    fn a_policy_that_no_proxy_can_read_is_refused_with_its_place() {
        let said = |policy: Value| validated(&json!({"policy": policy})).err().map(|fault| fault.to_string());
        for (policy, words) in [
            (
                json!({"deny": ["evil.example/m@v1.2"]}),
                "spec.policy.deny: \"evil.example/m@v1.2\": \"v1.2\" is not a whole version such as v1.2.3",
            ),
            (json!({"allow": ["a.example/m@v1.2.3+meta"]}), "spec.policy.allow: "),
            (json!({"minimumReleaseAge": "3 weeks"}), "spec.policy.minimumReleaseAge: "),
        ] {
            let said = said(policy.clone()).unwrap_or_default();
            assert!(said.starts_with(words), "{policy}: {said}");
        }
        for version in ["v1.2.3", "v1.2.3-rc.1", "v2.0.0+incompatible"] {
            assert_eq!(said(json!({"deny": [format!("evil.example/m@{version}")]})), None, "{version}");
        }
    }

    #[test]
    fn a_no_proxy_entry_that_would_match_nothing_is_refused() {
        let spec = json!({"network": {"httpProxy": {"url": "http://egress.corp.example:3128", "noProxy": ["corp.example:99999"]}}});
        let said = validated(&spec).err().map(|fault| fault.to_string()).unwrap_or_default();
        assert!(said.starts_with("spec.network.httpProxy: httpProxy.noProxy: ") && said.contains("from 1 to 65535"), "{said}");
    }

    #[test]
    fn a_database_on_an_internal_host_of_the_installation_may_have_private_addresses() {
        let valid = validated(&json!({"upstreams": [{"url": "https://modules.example", "redirectHosts": ["files.example"]}]})).unwrap();
        let internal: Vec<(&str, bool)> = valid.needs.iter().map(|(host, need)| (host.as_str(), need.internal)).collect();
        assert_eq!(internal, [("files.example", false), ("modules.example", false), ("sum.corp.example", true)]);
        let named = ["files.example", "modules.example", "sum.corp.example"].map(|host| valid.names_host(host));
        assert_eq!(named, [true, true, false]);
    }
}
