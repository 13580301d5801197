//! Whether the API server serves our kind to us: what readiness means, and what the controller waits for.

use std::time::Duration;

use kube::api::ListParams;
use kube::core::{ObjectList, PartialObjectMeta};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::scope::Scope;
use crate::api::GoModuleCache;
use crate::telemetry::Health;

const PERIOD: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(5);
/// While something is wrong.
const SOON: Duration = Duration::from_secs(2);

/// What the API server said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// Nothing that tells: it can't be reached, or refuses.
    Unknown,
    /// It serves the kind.
    Yes,
    /// It knows no such kind.
    NoCrd,
}

/// Asks again and again, and tells of each change once, in the log as well. A standby is ready as a leader is. Not "the
/// first list is in the store": with no cache in the cluster that is never reported.
pub(crate) async fn probe(
    client: Client,
    scope: Scope,
    health: Health,
    told: watch::Sender<Served>,
    pace: Pace,
    shutdown: CancellationToken,
) {
    let caches: Api<GoModuleCache> = scope.api(&client);
    let mut before = None;
    loop {
        let parameters = ListParams::default().limit(1);
        let answer = tokio::time::timeout(PATIENCE, caches.list_metadata(&parameters)).await;
        let (served, why) = match answer {
            Ok(answer) => read(answer),
            Err(_elapsed) => (Served::Unknown, format!("no answer in {PATIENCE:?}")),
        };
        if before != Some(served) {
            match served {
                Served::Yes => tracing::info!("the API server serves GoModuleCache objects"),
                Served::NoCrd => tracing::warn!(
                    "the CustomResourceDefinition gomodulecaches.gomodcache.io is not installed: apply the files of crds/; until then there is nothing to do"
                ),
                Served::Unknown => tracing::warn!(error = why, "can't list GoModuleCache objects: the API server is away or refuses"),
            }
            before = Some(served);
            health.set_ready(served == Served::Yes);
            told.send_replace(served);
        }
        let pause = pace.of(if served == Served::Yes { PERIOD } else { SOON });
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

fn read(answer: Result<ObjectList<PartialObjectMeta<GoModuleCache>>, kube::Error>) -> (Served, String) {
    match answer {
        Ok(_) => (Served::Yes, String::new()),
        Err(kube::Error::Api(status)) if status.code == 404 => (Served::NoCrd, String::new()),
        Err(error) => (Served::Unknown, error.to_string()),
    }
}
