//! The control plane: from a `GoModuleCache` to its children and back to its status.

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of `/livez`, `/readyz` and `/metrics`.
    pub admin_listen: SocketAddr,
    /// The upstreams of a cache that names none, in GOPROXY's syntax.
    pub goproxy: String,
    /// The checksum database of every cache, in GOSUMDB's syntax; `off` for none.
    pub gosumdb: String,
    /// Hosts to which the default upstreams may redirect.
    pub redirect_hosts: Vec<String>,
    /// The image of the proxies.
    pub proxy_image: String,
    /// Name servers to ask in place of the system's.
    pub name_servers: Vec<SocketAddr>,
    /// Whether a Secret is used only for the hosts that its annotation names.
    pub require_host_annotation: bool,
}

/// Why the operator could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that could not be used.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs the controller until the token is cancelled.
///
/// # Errors
/// The settings can't be used, or there is no API server to talk to.
#[allow(clippy::unused_async)]
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), Error> {
    let _unused = (settings, shutdown);
    Ok(())
}
