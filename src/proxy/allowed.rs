//! Answers within the policy: what is too young or denied is left out, or refused with its rule.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::answer::Answer;
use super::cache::{Cache, OnMiss};
use super::labels::Outcome;
use super::policy::Policy;
use crate::gomod::{ModulePath, Request, Version, semver, synthesized_go_mod};
use crate::source::{Class, Fault, FetchError};

/// How many versions' times are asked for at once.
const AT_ONCE: usize = 32;

impl Cache {
    /// Answers a request within the policy.
    pub(super) async fn answer_allowed(
        self: &Arc<Self>,
        policy: &Policy,
        request: &Arc<Request>,
        on_miss: OnMiss<'_>,
    ) -> (Answer, Outcome) {
        let Some(module) = request.module() else { return self.look_up(request, on_miss).await };
        let minimum = policy.minimum_age(module);
        if let (Request::Zip(_, version), Some(minimum)) = (&**request, minimum)
            && let Err(error) = self.judge_age(policy, module, version, minimum).await
        {
            return Answer::error(error);
        }
        let (answer, outcome) = self.look_up(request, on_miss).await;
        let Some(bytes) = answer.bytes() else {
            let is_info = matches!(**request, Request::Info(..) | Request::Latest(_));
            return match (&answer, minimum) {
                (Answer::File(..), Some(_)) if is_info => Answer::error(too_long()),
                _ => (answer, outcome),
            };
        };
        let refused = match &**request {
            Request::List(_) if policy.filters(module) => {
                let is_old = matches!(answer, Answer::Stale(..));
                return match self.allowed_versions(policy, module, &bytes, is_old).await {
                    Ok(versions) => (answer.with_bytes(lines(&versions)), outcome),
                    Err(error) => Answer::error(error),
                };
            }
            Request::Info(..) | Request::Latest(_) => policy.judge_answer(module, &bytes, minimum).err(),
            _ => None,
        };
        let Some(refusal) = refused else { return (answer, outcome) };
        // The newest version that clients may have takes the place of one that they may not.
        if matches!(**request, Request::Latest(_))
            && let Some(info) = self.latest_allowed(policy, module).await
        {
            return (answer.with_bytes(info), outcome);
        }
        Answer::error(refusal)
    }

    /// Whether a version is old enough to be fetched.
    pub(super) async fn judge_age(
        self: &Arc<Self>,
        policy: &Policy,
        module: &ModulePath,
        version: &Version,
        minimum: Duration,
    ) -> Result<(), FetchError> {
        match policy.judge_name(version, minimum) {
            Some(verdict) => verdict,
            None => policy.judge_info(&self.info(module, version).await?, minimum),
        }
    }

    /// What is against a version for its age by what is here: nobody is asked.
    pub(super) async fn known_too_young(&self, module: &ModulePath, version: &Version) -> Option<FetchError> {
        let policy = self.live.policy();
        let minimum = policy.minimum_age(module)?;
        let verdict = match policy.judge_name(version, minimum) {
            Some(verdict) => verdict,
            None => {
                let info = Request::Info(module.clone(), version.clone());
                let (bytes, _) = self.read_state(self.store.path(&info)).await?;
                policy.judge_info(&bytes, minimum)
            }
        };
        verdict.err()
    }

    async fn info(self: &Arc<Self>, module: &ModulePath, version: &Version) -> Result<Bytes, FetchError> {
        let request = Arc::new(Request::Info(module.clone(), version.clone()));
        let (answer, _) = self.look_up(&request, &|| ()).await;
        match answer {
            Answer::Error(error) => Err(error),
            answer => answer.bytes().ok_or_else(too_long),
        }
    }

    /// What of a list clients may have, in its order. `is_old`: the list is shown for want of a newer one. What was judged before is
    /// here, so a version that can't be judged in an outage is one that was left out then; it does not keep the others from being
    /// listed, unless they all are.
    async fn allowed_versions(
        self: &Arc<Self>,
        policy: &Policy,
        module: &ModulePath,
        list: &[u8],
        is_old: bool,
    ) -> Result<Vec<String>, FetchError> {
        let candidates = policy.listed(module, &String::from_utf8_lossy(list)).await;
        let Some(minimum) = policy.minimum_age(module) else { return Ok(candidates.iter().map(ToString::to_string).collect()) };
        let judge = |version: Version| async move {
            let verdict = self.judge_age(policy, module, &version, minimum).await;
            (version, verdict)
        };
        let mut judged = futures::stream::iter(candidates).map(judge).buffered(AT_ONCE);
        let (mut allowed, mut unknown) = (Vec::new(), None);
        while let Some((version, verdict)) = judged.next().await {
            match verdict {
                Ok(()) => allowed.push(version.to_string()),
                // Too young, or listed and not there, or wrong: it does not keep the others from being listed.
                Err(
                    FetchError::Denied(_)
                    | FetchError::NotFound { .. }
                    | FetchError::Fault(Fault { class: Class::ClientError | Class::Verification, .. }),
                ) => {}
                Err(error) if is_old || matches!(error, FetchError::Offline) => unknown = Some(error),
                Err(error) => return Err(error),
            }
        }
        unknown.filter(|_| allowed.is_empty()).map_or(Ok(allowed), Err)
    }

    /// The newest of the versions that clients may have, chosen as a go command chooses.
    async fn latest_allowed(self: &Arc<Self>, policy: &Policy, module: &ModulePath) -> Option<Bytes> {
        let request = Arc::new(Request::List(module.clone()));
        let (answer, _) = self.look_up(&request, &|| ()).await;
        let allowed = self.allowed_versions(policy, module, &answer.bytes()?, matches!(answer, Answer::Stale(..))).await.ok()?;
        let highest = |versions: &[&str]| versions.iter().copied().max_by(|a, b| semver::compare(a, b)).map(str::to_owned);
        let is_incompatible = |version: &&str| version.ends_with(semver::INCOMPATIBLE);
        let (incompatible, mut versions): (Vec<&str>, Vec<&str>) = allowed.iter().map(String::as_str).partition(is_incompatible);
        // Only where the newest of the others has no go.mod file: https://go.dev/issue/34165
        let has_go_mod = match highest(&versions) {
            Some(newest) if !incompatible.is_empty() => self.has_go_mod(module, &newest).await,
            newest => newest.is_some(),
        };
        if !has_go_mod {
            versions.extend(incompatible);
        }
        let is_release = |version: &&str| semver::Semver::parse(version).is_some_and(|v| v.prerelease().is_empty());
        let releases: Vec<&str> = versions.iter().copied().filter(is_release).collect();
        let latest = highest(&releases).or_else(|| highest(&versions))?;
        self.info(module, &Version::new(&latest).ok()?).await.ok()
    }

    /// Whether a version has a go.mod file of its own, and not the one that is made up where there is none.
    async fn has_go_mod(self: &Arc<Self>, module: &ModulePath, version: &str) -> bool {
        let Ok(version) = Version::new(version) else { return false };
        let request = Arc::new(Request::Mod(module.clone(), version));
        let (answer, _) = self.look_up(&request, &|| ()).await;
        // One that can't be had now leads nobody to another major version.
        answer.bytes().is_none_or(|bytes| bytes != synthesized_go_mod(module))
    }
}

fn too_long() -> FetchError {
    FetchError::Denied("its .info is too long to be judged by".to_owned())
}

fn lines(versions: &[String]) -> Bytes {
    Bytes::from(versions.iter().fold(String::new(), |text, version| text + version + "\n"))
}
