//! How hosts become addresses, and which of them are nobody's business.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Where the proxy takes addresses from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "mode", rename_all_fields = "camelCase")]
pub enum Resolution {
    /// The system's resolver.
    System {
        /// Upstreams that are not internal may have private addresses, too: whoever runs a proxy alone knows its network.
        #[serde(default)]
        private_addresses: bool,
    },
    /// Only these addresses; a host that is not listed is not dialled, and no name server is asked.
    Pinned {
        /// The hosts, each once.
        hosts: Vec<PinnedHost>,
    },
}

/// A list of hosts from a command line, as they are looked up: in lower case and without a dot at the end. What is empty is left out.
#[must_use]
pub fn host_names(hosts: &[String]) -> Vec<String> {
    hosts.iter().map(|host| host.trim().trim_end_matches('.').to_ascii_lowercase()).filter(|host| !host.is_empty()).collect()
}

impl Default for Resolution {
    fn default() -> Self {
        Self::System { private_addresses: false }
    }
}

/// The addresses of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PinnedHost {
    /// Lower case, without port.
    pub host: String,
    /// Never empty.
    pub addresses: Vec<IpAddr>,
}

/// Ranges that no upstream may resolve to unless it is declared internal: they are the cluster's own network, or
/// the machine's. Documentation ranges are ordinary addresses.
pub const PRIVATE_RANGES: [&str; 19] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// Whether an address lies in [`PRIVATE_RANGES`].
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    PRIVATE_RANGES.iter().filter_map(|range| range.parse::<IpNet>().ok()).any(|range| range.contains(&address))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_as_they_are_looked_up() {
        let said = [" Storage.Example.", "", " ", "b.example"].map(str::to_owned);
        assert_eq!(host_names(&said), ["storage.example", "b.example"]);
    }

    #[test]
    fn documentation_ranges_are_ordinary_and_private_ones_are_not() {
        assert!(!is_private("203.0.113.10".parse().unwrap()));
        for address in ["10.1.2.3", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fe80::1", "64:ff9b:1::a00:1", "fec0::1", "192.0.0.8"] {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
    }
}
