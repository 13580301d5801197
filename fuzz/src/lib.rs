//! What must hold of `src/gomod` whatever bytes it is given, beyond that it returns: a module a target.
//!
//! Nothing here asks Go: `tests/gomod_differential/` and `tests/sumdb_differential.rs` do. Here two ways of ours must agree,
//! what is read must come back when it is written, and what is forged must be found.

#[path = "../../src/gomod/mod.rs"]
pub mod gomod;

mod input;

pub mod go_mod;
pub mod note;
pub mod path;
pub mod tiles;
pub mod zip;
