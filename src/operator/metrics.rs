//! What the operator counts.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// The operator's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    reconciles: IntCounterVec,
    writes: IntCounterVec,
    leader: IntGauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// A name is taken.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reconciles = IntCounterVec::new(Opts::new("gomodcache_operator_reconciles_total", "Reconciles by outcome."), &["outcome"])?;
        let writes = IntCounterVec::new(Opts::new("gomodcache_operator_api_writes_total", "Writes to the API server."), &["verb", "kind"])?;
        let info = IntGauge::with_opts(
            Opts::new("gomodcache_operator_build_info", "Always 1.").const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        info.set(1);
        let leader = IntGauge::new("gomodcache_operator_leader", "1 while this operator leads.")?;
        registry.register(Box::new(leader.clone()))?;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        registry.register(Box::new(info))?;
        Ok(Self { reconciles, writes, leader })
    }

    /// One reconcile ended.
    pub(crate) fn reconcile(&self, outcome: &str) {
        self.reconciles.with_label_values(&[outcome]).inc();
    }

    /// Whether this operator leads.
    pub(crate) fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// One object was written.
    pub(crate) fn write(&self, verb: &str, kind: &str) {
        self.writes.with_label_values(&[verb, kind]).inc();
    }
}
