//! Logging, the admin server and shutdown: what both commands need and neither owns.

mod admin;
mod logging;
mod metrics;
mod process;
mod shutdown;

pub use admin::{Health, serve_admin};
pub use logging::init_logging;
pub use metrics::Metrics;
pub use process::register_process;
pub use shutdown::on_signal;
