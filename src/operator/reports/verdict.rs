//! What the pods' reports mean for the conditions. Pure. What a report says is only believed as far as the spec knows of it, and
//! only the proxy's sentence on a refused configuration is shown as it stands.

use std::collections::BTreeSet;

use super::{AskError, Seen, Survey};
use crate::api::{CredentialState, CredentialStatus};
use crate::config::WhenUnavailable;
use crate::operator::validate::Validated;
use crate::operator::verdict::Verdict;
use crate::report::{ProxyReport, StorageTrouble, sentence};

/// Addresses change often, and the pods follow within seconds: no condition flickers for that.
const FLICKER: std::time::Duration = std::time::Duration::from_secs(10);

/// What is said when all is well.
pub(crate) const APPLIED: &str = "every ready pod runs the newest configuration and credentials";

impl Survey {
    fn reports(&self) -> impl Iterator<Item = (&Seen, &ProxyReport)> {
        self.pods.iter().filter_map(|seen| Some((seen, seen.answer.as_ref().ok()?)))
    }

    fn lagging(&self) -> usize {
        self.pods.len() - self.reports().filter(|(_, report)| self.wanted.is_met_by(report)).count()
    }

    fn lags_in_credentials(&self) -> bool {
        self.pods.iter().any(|seen| seen.answer.as_ref().map_or(true, |report| report.credentials != self.wanted.credentials))
    }
}

/// Whether the pods lag behind by a moment and in nothing but the configuration. Where the spec is the same and all was well,
/// that is a change of addresses, and is not worth a word.
#[must_use]
pub(crate) fn is_known_to_lag(survey: &Survey) -> bool {
    survey.age < FLICKER && configuration(survey).1 == "Pending" && !survey.lags_in_credentials()
}

/// Whether every ready pod runs what is wanted.
#[must_use]
pub(crate) fn configuration(survey: &Survey) -> Verdict {
    if survey.unlisted {
        return (false, "PodsUnknown", "the operator could not list pods: see its log, and whether its role is of its release".to_owned());
    }
    if survey.pods.is_empty() {
        return (false, "NoPodReady", "no pod is ready to say what it runs: see the pods of the Deployment".to_owned());
    }
    let written = &survey.wanted.configs;
    let speaks = |report: &ProxyReport| report.config_versions.iter().any(|version| written.contains_key(version));
    if let Some((seen, _)) = survey.reports().find(|(_, report)| !speaks(report)) {
        let message = format!(
            "the proxy in pod {} reads no version of the configuration that this operator writes ({}): use a proxy image of the operator's release, or of the one before or after it",
            seen.name,
            written.keys().map(u32::to_string).collect::<Vec<_>>().join(", ")
        );
        return (false, "ConfigVersionUnsupported", message);
    }
    let refused = survey.reports().find_map(|(seen, report)| Some((seen, report.refused.as_ref()?)));
    if let Some((seen, refused)) = refused.filter(|(_, refused)| survey.wanted.has_config(&refused.config)) {
        let message = format!("pod {} can't use it and goes on with what it had: {}", seen.name, sentence(&refused.reason));
        return (false, "Rejected", message);
    }
    let silent = survey.pods.iter().find_map(|seen| Some((seen, seen.answer.as_ref().err()?)));
    if let Some((seen, error)) = silent.filter(|(_, error)| !matches!(error, AskError::Unauthorized | AskError::NotYet)) {
        let message =
            format!("pod {} was asked for its report: {error}; its admin port must be reachable from the operator's namespace", seen.name);
        return (false, "PodUnreachable", message);
    }
    match survey.lagging() {
        0 => (true, "Applied", APPLIED.to_owned()),
        count => {
            let message = format!("{count} pod(s) do not run the newest configuration and credentials yet; within two minutes they do");
            (false, "Pending", message)
        }
    }
}

/// What the pods add to whether credentials are in use.
#[must_use]
pub(crate) fn credentials(survey: &Survey, cache: &Validated) -> Option<Verdict> {
    if let Some((secret, host)) = rejected(survey, cache).into_iter().next() {
        let message = format!("{host} does not accept what Secret {secret} holds: change the Secret; the proxy takes it up by itself");
        return Some((false, "CredentialRejected", message));
    }
    let message = "not every ready pod uses the newest credentials yet; within two minutes they do".to_owned();
    survey.lags_in_credentials().then_some((false, "Pending", message))
}

/// The state of each Secret, with what the pods know of it.
#[must_use]
pub(crate) fn states(states: &[CredentialStatus], survey: &Survey, cache: &Validated) -> Vec<CredentialStatus> {
    let rejected = rejected(survey, cache);
    let state_of = |status: &CredentialStatus| match status.state {
        CredentialState::InUse if rejected.iter().any(|(secret, _)| *secret == status.secret_name) => CredentialState::Rejected,
        CredentialState::InUse if survey.lags_in_credentials() => CredentialState::Pending,
        state => state,
    };
    states.iter().map(|status| CredentialStatus { secret_name: status.secret_name.clone(), state: state_of(status) }).collect()
}

/// Secrets of the spec that a host of the spec did not accept, in the generation that is wanted.
fn rejected<'a>(survey: &'a Survey, cache: &'a Validated) -> BTreeSet<(&'a str, &'a str)> {
    let current = survey.reports().filter(|(_, report)| report.credentials == survey.wanted.credentials);
    let verdicts = current.flat_map(|(_, report)| &report.verdicts).filter(|verdict| !verdict.accepted);
    verdicts
        .filter_map(|verdict| {
            let (secret, hosts) = cache.wanted.get_key_value(&verdict.secret)?;
            Some((secret.as_str(), hosts.get(&verdict.upstream)?.as_str()))
        })
        .collect()
}

/// What the pods add to whether the volume is of use.
#[must_use]
pub(crate) fn storage(survey: &Survey) -> Option<Verdict> {
    let (seen, trouble) = survey.reports().find_map(|(seen, report)| Some((seen, report.storage?)))?;
    let (reason, what) = match trouble {
        StorageTrouble::Full => ("VolumeFull", "is full: let spec.storage.size grow, or lower spec.storage.evictAbovePercent"),
        StorageTrouble::ReadOnly => ("VolumeReadOnly", "is read-only: see the node's log, and delete the pod when the volume is well"),
        StorageTrouble::Failing => (
            "VolumeFailing",
            "answers writes with errors, or is there no more: see the pod's log and the node's, and delete the pod when the volume is well",
        ),
        StorageTrouble::Limit => (
            "LimitReached",
            "has no room below the cache's limit, and nothing more may be evicted: let spec.storage.size grow, or raise spec.storage.evictAbovePercent",
        ),
        StorageTrouble::Unknown => ("VolumeTrouble", "takes nothing new: see the pod's log"),
    };
    Some((false, reason, format!("the volume of pod {} {what}. What is cached is served, and the rest passes through", seen.name)))
}

/// What the pods add to whether upstreams can be used.
#[must_use]
pub(crate) fn egress(survey: &Survey, cache: &Validated) -> Option<Verdict> {
    let redirects: BTreeSet<String> = survey
        .reports()
        .flat_map(|(_, report)| &report.redirects)
        .filter(|redirect| is_host_name(&redirect.host))
        .filter_map(|redirect| line_to_add(cache, &redirect.upstream, &redirect.host))
        .collect();
    if let Some(first) = redirects.first() {
        let more = if redirects.len() > 1 { format!(" ({} more)", redirects.len() - 1) } else { String::new() };
        return Some((false, "RedirectHostUndeclared", format!("{first}{more}")));
    }
    let database = cache.checksum_database.as_ref()?;
    survey.reports().any(|(_, report)| report.checksum_database.is_some()).then(|| {
        // Without the proxy's own words: they change with every try.
        let message = format!(
            "the checksum database {} can't be asked: what it has no verdict on is {}; the proxy's log tells why{}",
            database.name,
            match database.when_unavailable {
                WhenUnavailable::Serve => "served and not kept",
                WhenUnavailable::Refuse => "refused",
            },
            // Its own host is open only where it is named.
            if database.url.is_none() { "; where no upstream relays it, the operator's GOSUMDB must have its URL" } else { "" }
        );
        (false, "ChecksumDatabaseUnavailable", message)
    })
}

/// What to write where, unless it stands there already and the pod has not read it yet.
fn line_to_add(cache: &Validated, upstream: &str, host: &str) -> Option<String> {
    let is_it = |entry: &crate::config::Upstream| entry.url.host_str().is_some_and(|name| name.eq_ignore_ascii_case(upstream));
    let (i, entry) = cache.upstreams.iter().enumerate().find(|(_, entry)| is_it(entry))?;
    if entry.redirect_hosts.iter().any(|declared| declared == host) {
        return None;
    }
    let all: Vec<&str> = entry.redirect_hosts.iter().map(String::as_str).chain([host]).collect();
    let name = entry.url.host_str().unwrap_or_default();
    Some(if cache.cache.spec.upstreams.is_empty() {
        format!("{name} redirects to {host}, which is not declared: the operator's setting GOMODCACHE_REDIRECT_HOSTS must have it")
    } else {
        format!("{name} redirects to {host}, which is not declared: write in spec.upstreams[{i}]: redirectHosts: [{}]", all.join(", "))
    })
}

/// As the schema has it.
fn is_host_name(host: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    host.len() <= 253 && !host.is_empty() && host.bytes().all(inner) && !host.starts_with(['-', '.']) && !host.ends_with(['-', '.'])
}

#[cfg(test)]
mod tests;
