//! What the operator counts.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::egress::Summary;
use super::verdict::{ROLLED_OUT, ROLLOUT_REASONS};

/// The operator's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    reconciles: IntCounterVec,
    writes: IntCounterVec,
    leader: IntGauge,
    durations: Histogram,
    caches: IntGauge,
    conditions: IntGaugeVec,
    backing_off: IntGauge,
    rollouts: IntGaugeVec,
    egress_addresses: IntGauge,
    egress_oldest_answer: IntGauge,
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
        let buckets = vec![0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];
        let durations = Histogram::with_opts(
            HistogramOpts::new("gomodcache_operator_reconcile_duration_seconds", "Seconds of a successful reconcile.").buckets(buckets),
        )?;
        registry.register(Box::new(durations.clone()))?;
        let caches = IntGauge::new("gomodcache_operator_caches", "GoModuleCache objects that the leader watches.")?;
        registry.register(Box::new(caches.clone()))?;
        let conditions = IntGaugeVec::new(
            Opts::new("gomodcache_operator_cache_conditions", "GoModuleCache objects by condition and status."),
            &["condition", "status"],
        )?;
        registry.register(Box::new(conditions.clone()))?;
        let backing_off = IntGauge::new("gomodcache_operator_backing_off", "Objects whose last reconcile failed and that wait.")?;
        registry.register(Box::new(backing_off.clone()))?;
        let rollouts = IntGaugeVec::new(
            Opts::new(
                "gomodcache_operator_rollouts",
                "GoModuleCache objects without the operator's newest proxy image or pod template, or without all pods that they ask for, by reason.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(rollouts.clone()))?;
        let egress_addresses = IntGauge::new("gomodcache_operator_egress_addresses", "Addresses that are open for caches.")?;
        registry.register(Box::new(egress_addresses.clone()))?;
        let egress_oldest_answer = IntGauge::new(
            "gomodcache_operator_egress_oldest_answer_timestamp_seconds",
            "When the host name was resolved that has waited longest for an answer; 0 without one.",
        )?;
        registry.register(Box::new(egress_oldest_answer.clone()))?;
        crate::telemetry::register_process(registry)?;
        Ok(Self {
            reconciles,
            writes,
            leader,
            durations,
            caches,
            conditions,
            backing_off,
            rollouts,
            egress_addresses,
            egress_oldest_answer,
        })
    }

    /// One reconcile ended.
    pub(crate) fn reconcile(&self, outcome: &str) {
        self.reconciles.with_label_values(&[outcome]).inc();
    }

    /// Whether this operator leads.
    pub(crate) fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// One reconcile succeeded.
    pub(crate) fn reconciled_in(&self, duration: Duration) {
        self.durations.observe(duration.as_secs_f64());
    }

    /// So many objects wait after a failure.
    pub(crate) fn backing_off(&self, count: usize) {
        self.backing_off.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// All objects and all their conditions. Types and statuses are the operator's own words, so they are few.
    pub(crate) fn conditions<'a>(&self, caches: usize, conditions: impl Iterator<Item = &'a Condition>) {
        self.caches.set(i64::try_from(caches).unwrap_or(i64::MAX));
        let mut counts: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        let mut rollouts: BTreeMap<&str, i64> = ROLLOUT_REASONS.map(|reason| (reason, 0)).into();
        for condition in conditions {
            *counts.entry((&condition.type_, &condition.status)).or_default() += 1;
            if condition.type_ == ROLLED_OUT
                && let Some(count) = rollouts.get_mut(condition.reason.as_str())
            {
                *count += 1;
            }
        }
        for (reason, count) in rollouts {
            self.rollouts.with_label_values(&[reason]).set(count);
        }
        self.conditions.reset();
        for ((condition, status), count) in counts {
            self.conditions.with_label_values(&[condition, status]).set(count);
        }
    }

    /// What is open for all caches together.
    pub(crate) fn egress(&self, summary: Summary) {
        self.egress_addresses.set(i64::try_from(summary.addresses).unwrap_or(i64::MAX));
        let answered = summary.oldest_answer.and_then(|age| SystemTime::now().checked_sub(age)?.duration_since(UNIX_EPOCH).ok());
        self.egress_oldest_answer.set(answered.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or_default());
    }

    /// This operator no longer knows of any object.
    pub(crate) fn forget(&self) {
        self.caches.set(0);
        self.conditions.reset();
        self.rollouts.reset();
        self.backing_off.set(0);
        self.egress(Summary::default());
    }

    /// One object was written.
    pub(crate) fn write(&self, verb: &str, kind: &str) {
        self.writes.with_label_values(&[verb, kind]).inc();
    }
}
