//! Which of several operators works: leader election on a Lease, and the gate that it opens.
//!
//! [`elector`] decides and knows neither time nor network; [`hold`] feeds it; [`Leadership`] is its word, and [`Gate`] what
//! that word opens. Nothing fences a leader whose process stood still between the gate and the wire, so every write is
//! idempotent or carries a UID as well.

mod clock;
mod elector;
mod gate;
mod hold;
mod leadership;
#[cfg(test)]
mod model;

pub use elector::Timing;
pub(crate) use gate::Gate;
pub(crate) use hold::Candidate;
pub(crate) use leadership::{Leadership, Word};
