//! Whose turn it is to get new pods. When the operator's proxy image changes, or another release of the operator makes the pod
//! template differently, caches take that a few at a time, and when one of them does not become ready with it, the others keep
//! what they have. What a user changes waits for nobody. Needs a client.
//!
//! The truth lies in the cluster: the Deployment of a cache that has its turn bears [`ROLLING_SINCE`], from before it gets the
//! image until its pods are proved. Whoever leads finds it there. Memory only bridges the moment until the watch shows a turn.

mod arrival;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use super::apply::{Applied, is_ours};
use super::build::names::Names;
use super::build::{IMAGE_FROM, IMAGE_FROM_OPERATOR, Kept, Marks, PODS_ASKED, PODS_MADE, marks};
use super::metrics::Metrics;
use super::reports::{self, Survey};
use super::unavailable;
use super::validate::Validated;
use super::verdict::{ROLLED_OUT, Verdict};
use super::view::View;
use crate::api::GoModuleCache;

/// Since when a cache has its turn, in seconds of the Unix epoch, and behind a dot for which pods. A label and no annotation, so
/// that an administrator finds all of them by it.
pub(crate) const ROLLING_SINCE: &str = "gomodcache.io/rolling-since";

/// How new pods reach the caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutLimits {
    /// How many have their turn at a time; at least one.
    pub at_once: usize,
    /// How long each has to become ready. After that no other begins.
    pub deadline: Duration,
}

/// What a cache has to do with a roll-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing: it is new, or has what is wanted, or its user wants it so.
    None,
    /// It has its turn since this time, in seconds.
    Rolling(i64),
    /// It had its turn, and now has an image of its own.
    Left,
    /// It keeps the pods that it has. `stopped`: because another did not become ready with the new one.
    Waiting { stopped: bool },
    /// It is paused: it keeps everything that it has.
    Paused,
}

/// Whether a cache has the image and the pods that it should have.
pub(crate) struct RolledOut {
    /// The condition.
    pub verdict: Verdict,
    /// What rolls out is a change by the user, who waits for it by `Ready`.
    pub is_asked: bool,
}

/// Gives turns.
pub(crate) struct Rollouts {
    limits: RolloutLimits,
    memory: Mutex<Memory>,
}

/// By the UIDs of Deployments, and never more than there are.
#[derive(Default)]
struct Memory {
    /// Who was given a turn that the watch does not show yet, and what the watch showed instead.
    given: HashMap<String, Pods>,
    /// Whose turn waits with all the rest of the cache, and holds up nobody.
    paused: HashSet<String>,
}

/// What a Deployment says of its pods: their image, and the label [`PODS_MADE`].
type Pods = (Option<String>, Option<String>);

impl Rollouts {
    /// Has given no turn yet.
    #[must_use]
    pub(crate) fn new(limits: RolloutLimits) -> Self {
        Self { limits, memory: Mutex::default() }
    }

    /// The image that this cache runs for now, the pods that it keeps where they would change, and its turn, which is noted in the
    /// cluster before it counts. `None`: by what was seen its turn has come, and that is for a live view to note.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn begin(
        &self,
        view: View<'_>,
        metrics: &Metrics,
        valid: &Validated,
    ) -> Result<Option<(String, Option<Kept>, Turn)>, kube::Error> {
        let Validated { cache, namespace, names, image: wanted, .. } = valid;
        let at_once = |turn: Turn| Ok(Some((wanted.clone(), None, turn)));
        let cache_uid = cache.meta().uid.as_deref().unwrap_or_default();
        let owned = |deployment: &Deployment| is_ours(&deployment.metadata, cache_uid);
        let deployments = &view.memory.watched.deployments.seen;
        let shown = deployments.get(&ObjectRef::new(&names.proxy).within(namespace)).filter(|shown| owned(shown));
        let Some(shown) = shown else { return at_once(Turn::None) };
        self.note_pause(&shown, cache.spec.paused);
        // What it runs is kept by writing it again, so for a live view it must not be what a late watch shows.
        let stored = view.child::<Deployment>(namespace, &names.proxy).await?.filter(owned);
        let Some(stored) = stored else { return at_once(Turn::None) };
        let marks = marks(valid);
        let due = match due(&stored, cache, wanted, &marks) {
            Ok(due) => due,
            Err(turn) => return at_once(turn),
        };
        if cache.spec.paused {
            return at_once(Turn::Paused);
        }
        let (now, to) = (Timestamp::now().as_second(), marks.with_image(wanted));
        // One that has its turn keeps it when a better image comes, and has all its time for that. None for pods that the API server
        // has refused since: their time goes on.
        if let Some(since) = rolling_since(&stored) {
            if rolling_to(&stored) == Some(&to) {
                return at_once(Turn::Rolling(since));
            }
        } else {
            if let Some(turn) = self.queue(deployments, &stored, now, view.live) {
                let kept = stored.spec.as_ref().filter(|_| due == Due::Template).map(|spec| spec.template.clone());
                let kept = kept.map(|template| Kept { template, made: label(&stored, PODS_MADE) });
                return Ok(Some((image(&stored).unwrap_or(wanted).to_owned(), kept, turn)));
            }
            // It serves nobody, so that it can lose nothing and prove nothing.
            if !is_available(&stored) {
                return at_once(Turn::None);
            }
        }
        if !view.live {
            return Ok(None);
        }
        note(&Api::namespaced(view.client.clone(), namespace), metrics, &stored, json!(format!("{now}.{to}"))).await?;
        tracing::info!(image = wanted, ?due, "rolls out");
        at_once(Turn::Rolling(now))
    }

    /// Why this one has to wait, or `None`, and then, if it is to begin now, it is counted among those that have their turn.
    fn queue(&self, deployments: &Store<Deployment>, own: &Deployment, now: i64, begins: bool) -> Option<Turn> {
        let own_uid = own.uid().unwrap_or_default();
        let all = deployments.state();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let Memory { given, paused } = &mut *memory;
        let is_unseen = |uid: &String, before: &mut Pods| {
            let shown = all.iter().find(|deployment| deployment.metadata.uid.as_ref() == Some(uid));
            shown.is_some_and(|shown| rolling_since(shown).is_none() && pods(shown) == *before)
        };
        given.retain(is_unseen);
        paused.retain(|uid| all.iter().any(|deployment| deployment.metadata.uid.as_ref() == Some(uid)));
        let rolling = all.iter().filter_map(|deployment| Some((deployment.uid()?, rolling_since(deployment)?)));
        let rolling: Vec<_> = rolling.filter(|(uid, _)| *uid != own_uid && !paused.contains(uid)).collect();
        if rolling.iter().any(|(_, since)| self.is_late(*since, now)) {
            return Some(Turn::Waiting { stopped: true });
        }
        let unseen = given.keys().filter(|uid| **uid != own_uid && !paused.contains(*uid)).count();
        if rolling.len() + unseen >= self.limits.at_once {
            return Some(Turn::Waiting { stopped: false });
        }
        if begins && is_available(own) {
            given.insert(own_uid, pods(own));
        }
        None
    }

    fn note_pause(&self, deployment: &Deployment, is_paused: bool) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = deployment.uid().unwrap_or_default();
        if is_paused && rolling_since(deployment).is_some() {
            memory.paused.insert(uid);
        } else {
            memory.paused.remove(&uid);
        }
    }

    fn is_late(&self, since: i64, now: i64) -> bool {
        now.saturating_sub(since) > i64::try_from(self.limits.deadline.as_secs()).unwrap_or(i64::MAX)
    }

    /// Ends the turn of a cache whose pods are proved. Says how far the image and the pods have come. `None`: by what was seen the
    /// turn is over, and that is for a live view to note.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn end(
        &self,
        view: View<'_>,
        metrics: &Metrics,
        valid: &Validated,
        turn: &Turn,
        applied: &Applied,
        survey: &Survey,
    ) -> Result<Option<RolledOut>, kube::Error> {
        let Validated { image, namespace, .. } = valid;
        let unproved = match turn {
            Turn::Rolling(_) => unproved(image, applied, survey),
            Turn::None | Turn::Left | Turn::Waiting { .. } | Turn::Paused => None,
        };
        let is_over = *turn == Turn::Left || matches!(turn, Turn::Rolling(_)) && unproved.is_none();
        if let Some(deployment) = applied.deployment.as_ref().filter(|_| is_over && !applied.paused) {
            if !view.live {
                return Ok(None);
            }
            note(&Api::namespaced(view.client.clone(), namespace), metrics, deployment, Value::Null).await?;
        }
        // Who waits keeps the image and gets all else that was asked for.
        let asked = if matches!(turn, Turn::Rolling(_) | Turn::Paused) { None } else { lacking(valid, applied, survey) };
        let is_asked = asked.is_some();
        let meanwhile = asked.as_ref().map(|why| format!(". Of the pods that its spec asks for: {why}")).unwrap_or_default();
        let verdict = match (turn, unproved.or(asked)) {
            (Turn::Waiting { stopped: false }, _) => (
                false,
                "WaitingForTurn",
                format!(
                    "a new proxy image or pod template rolls out, to {} cache(s) at a time; until it is this one's turn it keeps {image}{meanwhile}",
                    self.limits.at_once
                ),
            ),
            (Turn::Waiting { stopped: true }, _) => {
                let message = format!(
                    "another cache did not become ready with the new proxy image or pod template, so this one keeps {image}; `kubectl get deployments -A -l {ROLLING_SINCE}` shows which: mend it, or give the operator another proxy image{meanwhile}"
                );
                (false, "RolloutStopped", message)
            }
            (Turn::Paused, _) => {
                (false, "Paused", "spec.paused is true, so the new proxy image or pod template is held back with all else".to_owned())
            }
            (Turn::Rolling(since), Some(why)) if self.is_late(*since, Timestamp::now().as_second()) => {
                let message = format!(
                    "not ready with {image} within {} s: {why}. No other cache begins until this one is ready; give the operator another proxy image, or this cache its own with spec.image",
                    self.limits.deadline.as_secs()
                );
                (false, "RolloutFailed", message)
            }
            (Turn::Rolling(_), Some(_)) => (false, "RollingOut", format!("its pods are replaced by such as run {image}")),
            (Turn::None | Turn::Left, Some(why)) => (false, "RollingOut", format!("the pods that were asked for are not all there: {why}")),
            (Turn::Rolling(_) | Turn::None | Turn::Left, None) => (true, "Current", format!("the image is {image}")),
        };
        Ok(Some(RolledOut { verdict, is_asked }))
    }
}

/// Writes or removes the note of a turn on this very Deployment.
async fn note(api: &Api<Deployment>, metrics: &Metrics, deployment: &Deployment, since: Value) -> Result<(), kube::Error> {
    let patch = json!({"metadata": {"uid": deployment.metadata.uid, "labels": {ROLLING_SINCE: since}}});
    api.patch_metadata(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    metrics.write("patch", &Deployment::kind(&()));
    Ok(())
}

/// What a cache has to wait with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The image of the operator's setting, and nothing else.
    Image,
    /// The whole pod template, its image included.
    Template,
}

/// What another image of the operator's setting or another release of it changes, or the turn of a cache that needs none.
fn due(stored: &Deployment, cache: &GoModuleCache, image_wanted: &str, wanted: &Marks) -> Result<Due, Turn> {
    let since = rolling_since(stored);
    let is_from_operator = label(stored, IMAGE_FROM).is_some_and(|from| from == IMAGE_FROM_OPERATOR);
    if cache.spec.image.is_some() && is_from_operator {
        return Err(if since.is_some() { Turn::Left } else { Turn::None });
    }
    // What a user asks for comes with all that this release makes of it: the pods are replaced anyway.
    let is_asked_anew = label(stored, PODS_ASKED).is_some_and(|asked| asked != wanted.asked);
    if !is_asked_anew && label(stored, PODS_MADE).as_ref() != Some(&wanted.made) {
        return Ok(Due::Template);
    }
    // Whoever takes back an image of his own waits for nobody.
    if is_from_operator && image(stored) != Some(image_wanted) {
        return Ok(Due::Image);
    }
    Err(since.map_or(Turn::None, Turn::Rolling))
}

fn label(deployment: &Deployment, key: &str) -> Option<String> {
    deployment.labels().get(key).cloned()
}

fn pods(deployment: &Deployment) -> Pods {
    (image(deployment).map(str::to_owned), label(deployment, PODS_MADE))
}

/// Labels are no identity: this much at least only the owner of a cache can forge, since the garbage collector removes what
/// names an owner that does not exist.
fn rolling_since(deployment: &Deployment) -> Option<i64> {
    let since = deployment.labels().get(ROLLING_SINCE)?;
    let owner = deployment.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let is_a_caches = owner.kind == GoModuleCache::kind(&()) && deployment.name_any() == Names::new(&owner.name).proxy;
    is_a_caches.then(|| since.split('.').next().and_then(|since| since.parse().ok()).unwrap_or(0))
}

/// Which pods the turn was given for: [`Marks::with_image`].
fn rolling_to(deployment: &Deployment) -> Option<&str> {
    deployment.labels().get(ROLLING_SINCE)?.split_once('.').map(|(_, to)| to)
}

fn image(deployment: &Deployment) -> Option<&str> {
    deployment.spec.as_ref()?.template.spec.as_ref()?.containers.first()?.image.as_deref()
}

fn is_available(deployment: &Deployment) -> bool {
    deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0) > 0
}

/// What is still lacking until the image is proved: all pods have it and are available, and run the newest configuration.
fn unproved(image_wanted: &str, applied: &Applied, survey: &Survey) -> Option<String> {
    let Some(deployment) = &applied.deployment else { return Some("there is no Deployment".to_owned()) };
    let status = deployment.status.clone().unwrap_or_default();
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let is_seen = status.observed_generation == deployment.metadata.generation && image(deployment) == Some(image_wanted);
    let has_all = |count: Option<i32>| count.unwrap_or(0) == replicas;
    if !is_seen || !has_all(status.replicas) || !has_all(status.updated_replicas) || !has_all(status.available_replicas) {
        return Some("not every pod is available: see the pods of the Deployment".to_owned());
    }
    let (is_applied, _, why) = reports::configuration(survey);
    (!is_applied).then_some(why)
}

/// What is still lacking of the pods that a user asked for. Without a Deployment another condition says why there is none.
fn lacking(valid: &Validated, applied: &Applied, survey: &Survey) -> Option<String> {
    let deployment = applied.deployment.as_ref()?;
    let (generation, status) = (valid.cache.meta().generation, valid.cache.status.as_ref());
    let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
    // A cache that waits for its turn has not rolled out, and is ready when all is there but for that.
    let is_complete = |condition: &Condition| [ROLLED_OUT, "Ready"].contains(&condition.type_.as_str()) && condition.status == "True";
    let was_complete = conditions.any(|condition| is_complete(condition) && condition.observed_generation == generation);
    arrival::lacking(deployment, was_complete, &unavailable::why(applied, &survey.made))
}

#[cfg(test)]
mod tests;
