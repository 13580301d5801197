//! What the status of a paused cache says: what holds, and what waits. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::apply::Applied;
use super::conditions::condition;
use crate::api::{GoModuleCache, GoModuleCacheStatus};

/// The condition that only a paused cache has.
pub(crate) const PAUSED: &str = "Paused";

/// The other conditions stay true of what is stored. While something waits they are about the generation that was carried out
/// last, so that neither `kubectl wait` nor kstatus takes a change for done that was held back.
#[must_use]
pub(crate) fn status(cache: &GoModuleCache, applied: &Applied, mut status: GoModuleCacheStatus) -> GoModuleCacheStatus {
    let previous = cache.status.clone().unwrap_or_default();
    let waits = if applied.pending.is_empty() {
        "nothing waits".to_owned()
    } else {
        let carried_out = Some(previous.observed_generation.unwrap_or(0));
        status.observed_generation = carried_out;
        for condition in &mut status.conditions {
            condition.observed_generation = carried_out;
        }
        status.effective = previous.effective.or(status.effective);
        format!("these wait: {}", applied.pending.join(", "))
    };
    let message = format!("spec.paused is true, so nothing of this cache is made, changed or repaired; {waits}; set it to false to go on");
    let generation = cache.metadata.generation;
    let verdict = (true, "PausedBySpec", message);
    status.conditions.push(condition(PAUSED, verdict, generation, &previous.conditions, &Time(Timestamp::now())));
    status
}
