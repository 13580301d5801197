//! The PodDisruptionBudget: only for several pods. For a single one it would either mean nothing or hold up every drain.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Validated, owned, selector};
use crate::api::AccessMode;

/// What is to be of the budget.
pub(crate) enum Budget {
    /// It never was: with this access mode, which can't change, there is one pod.
    Impossible,
    /// It may be there from a time of more pods.
    Unwanted {
        /// Where.
        namespace: String,
        /// Under which name.
        name: String,
    },
    /// It is to be.
    Wanted(Box<PodDisruptionBudget>),
}

pub(super) fn build(cache: &Validated) -> Budget {
    // By the mode of the spec: with a claim that has another, a budget of more pods may still be there.
    match (cache.cache.spec.storage.access_mode, cache.sharing.replicas) {
        (AccessMode::ReadWriteOnce | AccessMode::ReadWriteOncePod, _) => Budget::Impossible,
        (AccessMode::ReadWriteMany, ..=1) => Budget::Unwanted { namespace: cache.namespace.clone(), name: cache.names.proxy.clone() },
        (AccessMode::ReadWriteMany, _) => Budget::Wanted(Box::new(PodDisruptionBudget {
            metadata: owned(cache, &cache.names.proxy),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(LabelSelector { match_labels: Some(selector(cache)), ..LabelSelector::default() }),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        })),
    }
}
