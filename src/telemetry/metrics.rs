//! The proxy's metrics. Labels are bounded: kinds of request, results, configured hosts and classes of fault.

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, histogram_opts, opts};

use super::register_process;

/// Every metric of a proxy, registered once.
#[derive(Debug)]
pub struct Metrics {
    /// What `/metrics` gathers.
    pub registry: Registry,
    /// `gomodcache_requests_total{endpoint,result}`.
    pub requests: IntCounterVec,
    /// `gomodcache_request_duration_seconds{endpoint}`, until the head of the answer.
    pub request_duration: HistogramVec,
    /// `gomodcache_response_bytes_total{endpoint}`.
    pub response_bytes: IntCounterVec,
    /// `gomodcache_in_flight_requests`.
    pub in_flight: IntGauge,
    /// `gomodcache_upstream_requests_total{host,class}`.
    pub upstream_requests: IntCounterVec,
    /// `gomodcache_upstream_endpoint_requests_total{endpoint}`.
    pub upstream_endpoint_requests: IntCounterVec,
    /// `gomodcache_upstream_request_duration_seconds{host}`, until the end of the body.
    pub upstream_duration: HistogramVec,
    /// `gomodcache_upstream_bytes_total{host}`.
    pub upstream_bytes: IntCounterVec,
    /// `gomodcache_credential_last_success_timestamp_seconds{credential,host}`: when an upstream last accepted it.
    pub credential_success: IntGaugeVec,
    /// `gomodcache_credential_expiry_timestamp_seconds{credential,host}`: if it says so itself.
    pub credential_expiry: IntGaugeVec,
    /// `gomodcache_look_ahead_total{endpoint,result}`: fetched, present, absent, failed.
    pub look_ahead: IntCounterVec,
    /// `gomodcache_verifications_total{verdict}`: good, wrong, pending.
    pub verifications: IntCounterVec,
    /// `gomodcache_cache_bytes`.
    pub cache_bytes: IntGauge,
    /// `gomodcache_cache_limit_bytes`: 0 for none, where the file system has no size.
    pub cache_limit_bytes: IntGauge,
    /// `gomodcache_cache_objects`: files on disk.
    pub cache_objects: IntGauge,
    /// `gomodcache_evictions_total`.
    pub evictions: IntCounter,
    /// `gomodcache_evicted_bytes_total`.
    pub evicted_bytes: IntCounter,
    /// `gomodcache_evicted_age_seconds`: since the last use of what was evicted last. Hours, not days: the cache is too small.
    pub evicted_age: IntGauge,
    /// `gomodcache_scrubbed_objects_total`.
    pub scrubbed: IntCounter,
    /// `gomodcache_quarantined_total`: objects that were broken on disk.
    pub quarantined: IntCounter,
    /// `gomodcache_uncached_total`: objects that were served and could not be written to the volume.
    pub uncached: IntCounter,
    /// `gomodcache_access_log_dropped_total`: lines that nobody took in time.
    pub access_log_dropped: IntCounter,
    /// `gomodcache_config_reload_failures_total`.
    pub reload_failures: IntCounter,
    /// `gomodcache_config_info{config,credentials}`: 1 for the generation in use.
    pub config_info: IntGaugeVec,
    /// `gomodcache_egress_addresses{host}`: of a proxy whose hosts are pinned.
    pub egress_addresses: IntGaugeVec,
}

impl Metrics {
    /// Makes and registers all of them.
    ///
    /// # Errors
    /// Never in practice: names are fixed and distinct.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(opts!(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let durations = |name: &str, help: &str, buckets: &[f64], label: &str| -> Result<HistogramVec, prometheus::Error> {
            let metric = HistogramVec::new(histogram_opts!(name, help, buckets.to_vec()), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(opts!(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let build_info = gauges("gomodcache_build_info", "The version that runs.", &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        register_process(&registry)?;
        Ok(Self {
            requests: counters("gomodcache_requests_total", "Requests by kind and result.", &["endpoint", "result"])?,
            request_duration: durations(
                "gomodcache_request_duration_seconds",
                "Seconds until the head of the answer.",
                &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0],
                "endpoint",
            )?,
            response_bytes: counters("gomodcache_response_bytes_total", "Bytes of bodies promised to clients.", &["endpoint"])?,
            in_flight: gauge("gomodcache_in_flight_requests", "Requests being answered that memory could not answer.")?,
            credential_success: gauges(
                "gomodcache_credential_last_success_timestamp_seconds",
                "When an upstream last accepted a credential, in seconds since 1970.",
                &["credential", "host"],
            )?,
            credential_expiry: gauges(
                "gomodcache_credential_expiry_timestamp_seconds",
                "When a credential expires, if it says so itself, in seconds since 1970.",
                &["credential", "host"],
            )?,
            look_ahead: counters("gomodcache_look_ahead_total", "Objects fetched before a client asked.", &["endpoint", "result"])?,
            verifications: counters(
                "gomodcache_verifications_total",
                "Downloads, and what a scrub asks about, by the verdict on them.",
                &["verdict"],
            )?,
            cache_bytes: gauge("gomodcache_cache_bytes", "Bytes on disk.")?,
            cache_limit_bytes: gauge("gomodcache_cache_limit_bytes", "Bytes that the cache may hold; 0 if the file system has no size.")?,
            cache_objects: gauge("gomodcache_cache_objects", "Files on disk.")?,
            evictions: counter("gomodcache_evictions_total", "Objects evicted.")?,
            evicted_bytes: counter("gomodcache_evicted_bytes_total", "Bytes evicted.")?,
            evicted_age: gauge("gomodcache_evicted_age_seconds", "Seconds since the last use of what was evicted last.")?,
            scrubbed: counter("gomodcache_scrubbed_objects_total", "Objects read again to see whether they are whole.")?,
            quarantined: counter("gomodcache_quarantined_total", "Objects that were broken on disk and moved away.")?,
            uncached: counter("gomodcache_uncached_total", "Objects served that the volume could not take.")?,
            access_log_dropped: counter("gomodcache_access_log_dropped_total", "Lines of the access log that nobody took in time.")?,
            upstream_requests: counters(
                "gomodcache_upstream_requests_total",
                "Requests to upstreams by host and outcome.",
                &["host", "class"],
            )?,
            upstream_endpoint_requests: counters(
                "gomodcache_upstream_endpoint_requests_total",
                "Requests to upstreams by kind.",
                &["endpoint"],
            )?,
            upstream_duration: durations(
                "gomodcache_upstream_request_duration_seconds",
                "Seconds until the end of an upstream's answer.",
                &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0],
                "host",
            )?,
            upstream_bytes: counters("gomodcache_upstream_bytes_total", "Bytes of bodies received from upstreams.", &["host"])?,
            reload_failures: counter("gomodcache_config_reload_failures_total", "Configurations that were refused.")?,
            config_info: gauges("gomodcache_config_info", "The configuration and credentials in use.", &["config", "credentials"])?,
            egress_addresses: gauges("gomodcache_egress_addresses", "Addresses that may be dialled, by host.", &["host"])?,
            registry,
        })
    }
}
