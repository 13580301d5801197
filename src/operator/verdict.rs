//! What a condition says, before it stands in a status.

/// One verdict: whether it is true, a CamelCase reason from a fixed set, and a sentence.
pub(crate) type Verdict = (bool, &'static str, String);

/// The condition that says whether a cache has the image and the pods that it should have.
pub(crate) const ROLLED_OUT: &str = "RolledOut";
/// The reasons for which it has not.
pub(crate) const ROLLOUT_REASONS: [&str; 5] = ["RollingOut", "WaitingForTurn", "RolloutFailed", "RolloutStopped", "Paused"];
