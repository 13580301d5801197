//! The real proxy binary between a real `go` client and an upstream that the tests control, all on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod explain;
mod faults;
mod go_client;
mod hits;
mod http2;
mod http_proxy;
mod look_ahead;
mod metrics;
mod policy;
mod report;
mod stage;
mod tls;
mod traps;
mod upstream;
mod wire;
