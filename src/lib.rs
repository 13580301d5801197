//! gomodcache: in-cluster Go module caches for Kubernetes.
//!
//! [`operator`] reconciles `GoModuleCache` objects into proxies; [`proxy`] is the proxy: a GOPROXY and checksum-database
//! proxy with a disk cache. They meet in [`config`], in [`report`] and on the wire.

pub mod api;
mod budget;
pub mod config;
mod connections;
pub mod gomod;
pub mod operator;
pub mod proxy;
pub mod quantity;
pub mod report;
pub mod source;
pub mod store;
pub mod sumdb;
pub mod telemetry;
pub mod verify;
