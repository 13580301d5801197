//! One question to one pod. The answer is the word of a stranger: it has two seconds and 64 KiB, no redirect is followed, and
//! no name in it is ever looked up.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::{Client, StatusCode};

use crate::config::ADMIN_PORT;
use crate::report::{MAX_REPORT, ProxyReport, REPORT_PATH};

/// How long an answer may take, its body included.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no report. From a fixed set, so that a pod can't write into a status as often as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// Nothing within [`PATIENCE`].
    #[error("no answer within 2 s")]
    Timeout,
    /// Too many other pods were being asked.
    #[error("it was not asked yet")]
    NotYet,
    /// No connection, or it broke.
    #[error("no connection")]
    Connect,
    /// It does not take our token, or not yet.
    #[error("it does not know the admin token yet")]
    Unauthorized,
    /// A proxy without the endpoint.
    #[error("it has no report to give: its image is older than this operator")]
    TooOld,
    /// Any other status.
    #[error("it answered {0} in place of a report")]
    Status(u16),
    /// More than [`MAX_REPORT`].
    #[error("its answer is longer than 64 KiB")]
    TooLong,
    /// Not a report.
    #[error("its answer is not a report")]
    Malformed,
}

/// Asks pods.
pub(super) struct Asker(Client);

impl Asker {
    /// # Errors
    /// No HTTP client can be made.
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        // No certificates: pods are asked in plain http, and the system's would have to be installed.
        let builder = Client::builder().no_proxy().tls_certs_only([]).redirect(reqwest::redirect::Policy::none());
        // No connection is kept: thousands of pods are asked once a minute.
        builder.timeout(PATIENCE).pool_max_idle_per_host(0).http1_only().build().map(Self)
    }

    /// Asks the pod at this address for its report.
    ///
    /// # Errors
    /// See [`AskError`].
    pub(super) async fn ask(&self, address: IpAddr, token: &str) -> Result<ProxyReport, AskError> {
        let url = format!("http://{}{REPORT_PATH}", SocketAddr::new(address, ADMIN_PORT));
        let mut response = self.0.get(url).bearer_auth(token).send().await.map_err(|error| transport(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(AskError::Unauthorized),
            StatusCode::NOT_FOUND => return Err(AskError::TooOld),
            status => return Err(AskError::Status(status.as_u16())),
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| transport(&error))? {
            if body.len() + piece.len() > MAX_REPORT {
                return Err(AskError::TooLong);
            }
            body.extend_from_slice(&piece);
        }
        serde_json::from_slice(&body).map_err(|_| AskError::Malformed)
    }
}

fn transport(error: &reqwest::Error) -> AskError {
    tracing::debug!(error = error.source().map(ToString::to_string), "a pod could not be asked");
    if error.is_timeout() { AskError::Timeout } else { AskError::Connect }
}
