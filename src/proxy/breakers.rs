//! `gomodcache_upstream_breaker_open`: read from the breakers when it is asked for, since a pause ends though nobody asks the
//! upstream.

use std::sync::{Arc, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Registry, opts};

use super::live::Live;

struct Breakers {
    /// The registry is part of what lives as long as the configuration does.
    live: Weak<Live>,
    open: IntGaugeVec,
}

/// Registers it.
///
/// # Errors
/// The name is taken.
pub(super) fn register(registry: &Registry, live: &Arc<Live>) -> Result<(), prometheus::Error> {
    let open = IntGaugeVec::new(opts!("gomodcache_upstream_breaker_open", "1 while requests to a host are held back."), &["host"])?;
    registry.register(Box::new(Breakers { live: Arc::downgrade(live), open }))
}

impl Collector for Breakers {
    fn desc(&self) -> Vec<&Desc> {
        self.open.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Hosts that no configuration has any more have no value.
        self.open.reset();
        let chain = self.live.upgrade().map(|live| live.chain());
        for (host, is_open) in chain.iter().flat_map(|chain| chain.breakers()) {
            let gauge = self.open.with_label_values(&[host]);
            // Two upstreams may be on one host.
            gauge.set(gauge.get().max(i64::from(is_open)));
        }
        self.open.collect()
    }
}
