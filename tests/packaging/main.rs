//! What a user installs: the Helm chart, the Grafana dashboard and the Prometheus rules, read by their own tools.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod chart;
mod chart_values;
mod rules;
mod schemas;
mod tools;
