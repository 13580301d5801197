//! The installation's own settings, in Go's syntax: GOPROXY and GOSUMDB.

use url::{Host, Url};

use crate::config::{Fallback, Timeouts, Upstream, host_names};

/// What a cache gets that names nothing itself.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The default upstreams.
    pub upstreams: Vec<Upstream>,
    /// The checksum database; `None` is off.
    pub checksum_database: Option<SumDb>,
}

/// A checksum database in GOSUMDB's syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumDb {
    /// `name`.
    pub name: String,
    /// `name` or `name+hash+key`: what clients set.
    pub key: String,
    /// Where to ask, only if the setting says so.
    pub url: Option<Url>,
    /// Private addresses of that host are allowed.
    pub internal: bool,
}

/// Settings that can't be used. Never echoes a value, which may hold a password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DefaultsError {
    /// An entry of GOPROXY.
    #[error("GOPROXY: entry {0} must be an http or https URL with a host, without user name, password, query or fragment")]
    Goproxy(usize),
    /// GOPROXY without an upstream.
    #[error("GOPROXY: names no proxy, and `direct` is not followed; `off` alone means that such a cache is offline")]
    NoUpstream,
    /// GOSUMDB.
    #[error("GOSUMDB: must be `off`, a name, name+hash+key, or either and an http or https URL without user name")]
    Gosumdb,
}

impl Defaults {
    /// Parses the operator's settings. `internal_hosts`: those of the upstreams and of the database that may have private addresses;
    /// such as are named without TLS are internal anyway.
    ///
    /// # Errors
    /// An entry is no URL that a proxy may use.
    pub fn parse(goproxy: &str, gosumdb: &str, redirect_hosts: &[String], internal_hosts: &[String]) -> Result<Self, DefaultsError> {
        let (redirect_hosts, internal_hosts) = (host_names(redirect_hosts), host_names(internal_hosts));
        let is_internal = |url: &Url| url.scheme() == "http" || host_of(url).is_some_and(|host| internal_hosts.contains(&host));
        let mut upstreams = Vec::new();
        let mut seen_off = false;
        for (i, part) in goproxy.split_inclusive([',', '|']).enumerate() {
            let fallback = if part.ends_with('|') { Fallback::OnError } else { Fallback::OnNotFound };
            let entry = part.trim_end_matches([',', '|']).trim();
            if entry.is_empty() {
                continue;
            }
            // A go command asks nobody after either; a cache has no version-control tools and no other way out.
            seen_off = entry == "off";
            if seen_off || entry == "direct" {
                break;
            }
            let with_scheme = if entry.contains("://") { entry.to_owned() } else { format!("https://{entry}") };
            let url = plain_url(&with_scheme).ok_or(DefaultsError::Goproxy(i + 1))?;
            let internal = is_internal(&url);
            upstreams.push(Upstream {
                url,
                fallback,
                credential: None,
                redirect_hosts: redirect_hosts.clone(),
                internal,
                ca_bundle: None,
                timeouts: Timeouts::default(),
            });
        }
        if upstreams.is_empty() && !seen_off {
            return Err(DefaultsError::NoUpstream);
        }
        let checksum_database = parse_gosumdb(gosumdb)?.map(|database| {
            let internal = database.url.as_ref().is_some_and(is_internal);
            SumDb { internal, ..database }
        });
        Ok(Self { upstreams, checksum_database })
    }
}

/// The host as it is looked up: lower case, an IPv6 address without brackets.
#[must_use]
pub fn host_of(url: &Url) -> Option<String> {
    Some(match url.host()? {
        Host::Domain(name) => name.trim_end_matches('.').to_ascii_lowercase(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    })
}

fn parse_gosumdb(text: &str) -> Result<Option<SumDb>, DefaultsError> {
    let mut words = text.split_whitespace();
    let Some(key) = words.next() else { return Err(DefaultsError::Gosumdb) };
    if key == "off" {
        return Ok(None);
    }
    let url = words.next().map(|word| plain_url(word).ok_or(DefaultsError::Gosumdb)).transpose()?;
    let name = key.split('+').next().unwrap_or_default();
    if name.is_empty() || words.next().is_some() || key.contains("://") {
        return Err(DefaultsError::Gosumdb);
    }
    Ok(Some(SumDb { name: name.to_owned(), key: key.to_owned(), url, internal: false }))
}

/// An http or https URL with a host and without userinfo, query or fragment.
#[must_use]
pub fn plain_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some_and(|h| !h.is_empty())
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    plain.then_some(url)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn separators_become_fallbacks_and_nobody_is_asked_after_direct() {
        let defaults = Defaults::parse(
            "a.example|http://b.example/go,direct,https://never.example",
            "sum.example+1+k https://c.example",
            &["R.example".into()],
            &[],
        )
        .unwrap();
        assert_eq!(defaults.upstreams.len(), 2);
        assert_eq!(defaults.upstreams[0].fallback, Fallback::OnError);
        assert_eq!(defaults.upstreams[0].url.as_str(), "https://a.example/");
        assert!(!defaults.upstreams[0].internal && defaults.upstreams[1].internal);
        assert_eq!(defaults.upstreams[0].redirect_hosts, ["r.example"]);
        let sumdb = defaults.checksum_database.unwrap();
        assert_eq!((sumdb.name.as_str(), sumdb.key.as_str()), ("sum.example", "sum.example+1+k"));
        assert_eq!(sumdb.url.unwrap().host_str(), Some("c.example"));
    }

    #[test]
    fn internal_are_hosts_without_tls_and_those_that_the_setting_lists() {
        let listed = ["Modules.corp.example".to_owned(), " sum.corp.example.".to_owned()];
        let parse = |gosumdb: &str, internal: &[String]| {
            Defaults::parse("https://modules.corp.example:8443/go,https://a.example,http://b.example", gosumdb, &[], internal).unwrap()
        };
        let upstreams = |defaults: &Defaults| defaults.upstreams.iter().map(|upstream| upstream.internal).collect::<Vec<_>>();
        let database = |gosumdb: &str, internal: &[String]| parse(gosumdb, internal).checksum_database.unwrap().internal;
        assert_eq!(upstreams(&parse("off", &listed)), [true, false, true]);
        assert_eq!(upstreams(&parse("off", &[])), [false, false, true]);
        let secure = "sum.example https://sum.corp.example/db";
        assert!(database(secure, &listed) && !database(secure, &[]) && database("sum.example http://sum.corp.example", &[]));
        assert!(!database("sum.corp.example", &listed), "it is asked by way of the upstreams");
    }

    #[test]
    fn a_password_is_refused_and_not_echoed() {
        for entry in ["https://u:hunter2@a.example", "u:hunter2@a.example"] {
            let error = Defaults::parse(entry, "off", &[], &[]).unwrap_err().to_string();
            assert!(error.contains("entry 1") && !error.contains("hunter2"));
        }
    }

    #[test]
    fn an_installation_without_an_upstream_says_so_by_off() {
        let parse = |goproxy: &str| Defaults::parse(goproxy, "off", &[], &[]).map(|defaults| defaults.upstreams.len());
        for none in ["", ",", "direct", "direct,off", "direct,https://never.example"] {
            assert_eq!(parse(none), Err(DefaultsError::NoUpstream), "{none}");
        }
        assert_eq!([parse("off"), parse("off,https://never.example"), parse("https://a.example,off")], [Ok(0), Ok(0), Ok(1)]);
    }

    #[test]
    fn a_bare_name_has_no_url() {
        let sumdb = Defaults::parse("off", "sum.example/db", &[], &[]).unwrap().checksum_database.unwrap();
        assert_eq!((sumdb.name.as_str(), sumdb.url), ("sum.example/db", None));
        assert_eq!(Defaults::parse("off", "off", &[], &[]).unwrap().checksum_database, None);
    }
}
