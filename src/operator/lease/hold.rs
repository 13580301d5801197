//! Drives an elector with the real Lease object.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::elector::{Answer, Elector, Step, Timing, View};
use super::{Word, clock};

/// The name of the Lease, in the operator's namespace.
const NAME: &str = "gomodcache-operator";

/// A candidate and its way to the API server, which must not be behind the gate that the lease opens.
pub(crate) struct Candidate {
    api: Api<Lease>,
    elector: Elector,
    identity: String,
    timing: Timing,
    /// The object as it was last seen, which a write replaces.
    last: Lease,
    word: Word,
}

impl Candidate {
    /// A candidate that has not begun. `identity` must be new for each process.
    #[must_use]
    pub(crate) fn new(client: Client, namespace: &str, identity: String, timing: Timing, word: Word) -> Self {
        let elector = Elector::new(identity.clone(), timing);
        Self { api: Api::namespaced(client, namespace), elector, identity, timing, last: Lease::default(), word }
    }

    /// Runs for the lead, and keeps it, until the token is cancelled; then gives it back at once, so that whoever cancels
    /// it must have ended all writes before.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            self.go_on(&shutdown).await;
        }
        if self.elector.resign(clock::now()) {
            self.word.send_replace(None);
            let released = tokio::time::timeout(self.patience(), self.put(String::new(), Duration::from_secs(1))).await;
            tracing::info!(released = matches!(released, Ok(Answer::Stored(_))), "gave back the lead");
        }
    }

    async fn go_on(&mut self, shutdown: &CancellationToken) {
        let sent = clock::now();
        let step = self.elector.step(sent);
        if let Step::Wait(until) = step {
            let _woken_early = shutdown.run_until_cancelled(tokio::time::sleep(until.saturating_sub(sent))).await;
            return;
        }
        let answer = tokio::time::timeout(self.patience(), self.take(step)).await.unwrap_or(Answer::Failed);
        let led = self.elector.leads_until();
        self.elector.answered(sent, clock::now(), answer);
        let leads = self.elector.leads_until();
        if led.is_some() != leads.is_some() {
            tracing::info!(identity = self.identity, leads = leads.is_some(), "the lead changed");
        }
        self.word.send_replace(leads);
    }

    /// For one request: short enough for a second attempt before the leader must step down.
    fn patience(&self) -> Duration {
        self.timing.renew / 2
    }

    async fn take(&mut self, step: Step) -> Answer {
        match step {
            Step::Wait(_) => Answer::Failed,
            Step::Read => match self.api.get_opt(NAME).await {
                Ok(Some(lease)) => Answer::Found(self.see(lease)),
                Ok(None) => Answer::Absent,
                Err(error) => failed(&error),
            },
            Step::Create => {
                let meta = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
                let lease = Lease { metadata: meta, spec: Some(self.spec(None, self.identity.clone(), self.timing.lease)) };
                let answer = self.api.create(&PostParams::default(), &lease).await;
                self.stored(answer)
            }
            Step::Write => self.put(self.identity.clone(), self.timing.lease).await,
        }
    }

    async fn put(&mut self, holder: String, duration: Duration) -> Answer {
        let mut lease = self.last.clone();
        lease.spec = Some(self.spec(self.last.spec.as_ref(), holder, duration));
        // It carries the version that was seen.
        let answer = self.api.replace(NAME, &PostParams::default(), &lease).await;
        self.stored(answer)
    }

    fn stored(&mut self, answer: Result<Lease, kube::Error>) -> Answer {
        match answer {
            Ok(lease) => Answer::Stored(self.see(lease)),
            Err(kube::Error::Api(status)) if status.code == 409 => Answer::Conflict,
            // Deleted meanwhile; but where none can be made, the namespace is missing, and asking again at once is no use.
            Err(kube::Error::Api(status)) if status.code == 404 && self.last.metadata.name.is_some() => {
                self.last = Lease::default();
                Answer::Absent
            }
            Err(error) => failed(&error),
        }
    }

    fn see(&mut self, lease: Lease) -> View {
        let spec = lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let view = View {
            stamp: format!("{:?} {:?}", spec.and_then(|spec| spec.renew_time.as_ref()), spec.and_then(|spec| spec.lease_transitions)),
            holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
            duration: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        };
        tracing::trace!(version = lease.resource_version(), holder = view.holder, "saw the lease");
        self.last = lease;
        view
    }

    fn spec(&self, before: Option<&LeaseSpec>, holder: String, duration: Duration) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let before = before.cloned().unwrap_or_default();
        let same = before.holder_identity.as_ref() == Some(&holder);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            acquire_time: before.acquire_time.filter(|_| same || holder.is_empty()).or_else(|| Some(now.clone())),
            // As client-go counts: a release is none.
            lease_transitions: Some(if same || holder.is_empty() { transitions } else { transitions.saturating_add(1) }),
            lease_duration_seconds: Some(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)),
            renew_time: Some(now),
            holder_identity: Some(holder),
            ..LeaseSpec::default()
        }
    }
}

fn failed(error: &kube::Error) -> Answer {
    tracing::warn!(%error, lease = NAME, "can't reach or renew the lease");
    Answer::Failed
}

#[cfg(test)]
mod tests;
