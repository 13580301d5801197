//! Names to addresses, by the system's name servers or by those of the command line.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

/// A resolver without a cache of its own: the window is the cache.
pub(crate) struct Resolver(TokioResolver);

impl Resolver {
    /// Asks these servers, or the system's if there are none.
    ///
    /// # Errors
    /// The system's resolver configuration can't be read.
    pub(crate) fn new(name_servers: &[SocketAddr]) -> std::io::Result<Self> {
        let mut builder = if name_servers.is_empty() {
            TokioResolver::builder_tokio().map_err(std::io::Error::other)?
        } else {
            let servers = name_servers.iter().map(|address| {
                let mut udp = ConnectionConfig::udp();
                udp.port = address.port();
                let mut tcp = ConnectionConfig::tcp();
                tcp.port = address.port();
                NameServerConfig::new(address.ip(), true, vec![udp, tcp])
            });
            TokioResolver::builder_with_config(ResolverConfig::from_name_servers(servers.collect()), TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.timeout = Duration::from_secs(2);
        options.attempts = 2;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        builder.build().map(Self).map_err(std::io::Error::other)
    }

    /// A and AAAA of an absolute name, and how long the answer holds. `None`: no answer, or an empty one.
    pub(crate) async fn lookup(&self, host: &str) -> Option<(Vec<IpAddr>, Duration)> {
        // The trailing dot: search domains of the operator's pod are none of the user's business.
        let absolute = format!("{}.", host.trim_end_matches('.'));
        let answer = tokio::time::timeout(Duration::from_secs(6), self.0.lookup_ip(absolute)).await.ok()?.ok()?;
        let addresses: Vec<IpAddr> = answer.iter().collect();
        (!addresses.is_empty()).then(|| (addresses, answer.valid_until().saturating_duration_since(Instant::now())))
    }
}
