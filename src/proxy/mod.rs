//! The data plane: one request, from the path to the answer.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of the module endpoints.
    pub listen: SocketAddr,
    /// The address of `/livez`, `/readyz` and `/metrics`.
    pub admin_listen: SocketAddr,
    /// The cache's folder; created when it is missing.
    pub cache_dir: PathBuf,
    /// A [`crate::config::ProxyConfig`] file. Absent: the environment's `GOPROXY` and `GOSUMDB`, else `go env`.
    pub config: Option<PathBuf>,
}

/// Why the proxy could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address or file that could not be used.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs the proxy until the token is cancelled, then drains.
///
/// # Errors
/// The settings or the configuration can't be used.
#[allow(clippy::unused_async)]
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), Error> {
    let _unused = (settings, shutdown);
    Ok(())
}
