//! The bounded names of what was asked and of what became of it, and their counters, looked up once.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use crate::gomod::Request;
use crate::telemetry::Metrics;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Info,
    Mod,
    Zip,
    List,
    Latest,
    Sumdb,
    /// Not a request of a go command.
    Other,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// From the cache.
    Hit,
    /// This request started the download.
    Miss,
    /// It joined a download that another had started.
    Coalesced,
    /// From the cache and too old, because the upstream is away or is being asked.
    Stale,
    /// An absence that an upstream stated a moment ago.
    Negative,
    /// An absence that an upstream stated now.
    NotFound,
    /// Against a rule of the policy.
    Denied,
    /// Neither an answer nor an absence.
    Error,
    /// Its client had gone before the head of the answer.
    Left,
}

impl Endpoint {
    const ALL: [Self; 7] = [Self::Info, Self::Mod, Self::Zip, Self::List, Self::Latest, Self::Sumdb, Self::Other];

    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::Info(..) => Self::Info,
            Request::Mod(..) => Self::Mod,
            Request::Zip(..) => Self::Zip,
            Request::List(_) => Self::List,
            Request::Latest(_) => Self::Latest,
            Request::Sumdb(_) => Self::Sumdb,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Mod => "mod",
            Self::Zip => "zip",
            Self::List => "list",
            Self::Latest => "latest",
            Self::Sumdb => "sumdb",
            Self::Other => "other",
        }
    }
}

impl Outcome {
    const ALL: [Self; 9] =
        [Self::Hit, Self::Miss, Self::Coalesced, Self::Stale, Self::Negative, Self::NotFound, Self::Denied, Self::Error, Self::Left];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::Stale => "stale",
            Self::Negative => "negative",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Error => "error",
            Self::Left => "left",
        }
    }
}

/// The counters of requests: a look-up by labels takes as long as the rest of a hit.
pub(super) struct Counters(Vec<OfEndpoint>);

struct OfEndpoint {
    requests: Vec<IntCounter>,
    duration: Histogram,
    bytes: IntCounter,
}

impl Counters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let of = |endpoint: Endpoint| OfEndpoint {
            requests: Outcome::ALL.map(|o| metrics.requests.with_label_values(&[endpoint.as_str(), o.as_str()])).into(),
            duration: metrics.request_duration.with_label_values(&[endpoint.as_str()]),
            bytes: metrics.response_bytes.with_label_values(&[endpoint.as_str()]),
        };
        Self(Endpoint::ALL.map(of).into())
    }

    pub(super) fn count(&self, endpoint: Endpoint, outcome: Outcome, elapsed: Duration, bytes: u64) {
        let Some(counters) = self.0.get(endpoint as usize) else { return };
        if let Some(requests) = counters.requests.get(outcome as usize) {
            requests.inc();
        }
        counters.duration.observe(elapsed.as_secs_f64());
        counters.bytes.inc_by(bytes);
    }

    /// One whose client had gone. The time until a head that never came says nothing.
    pub(super) fn count_left(&self, endpoint: Endpoint) {
        if let Some(left) = self.0.get(endpoint as usize).and_then(|counters| counters.requests.get(Outcome::Left as usize)) {
            left.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_has_its_place() {
        assert!(Endpoint::ALL.iter().enumerate().all(|(i, endpoint)| *endpoint as usize == i));
        assert!(Outcome::ALL.iter().enumerate().all(|(i, outcome)| *outcome as usize == i));
    }
}
