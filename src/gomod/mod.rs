//! What Go says: module paths, versions and their order, escaping, request paths, go.mod and go.sum files, `h1:` hashes.
//! Pure: no network, no runtime, no I/O beyond `Read` and `Seek`. `tests/gomod_differential/` holds it equal to Go's
//! own code.

mod dirhash;
mod go_mod;
mod go_mod_lines;
mod go_sum;
mod go_version;
mod major;
mod path;
mod pseudo;
mod request;
pub mod semver;

pub use dirhash::{MAX_ZIP_BYTES, ZipError, hash_go_mod, hash_zip};
pub use go_mod::{GoMod, GoModError, Requirement, synthesized_go_mod};
pub use go_sum::{GoSumError, Sum, SummedFile, parse_go_sum};
pub use go_version::{GO_VERSION_IF_ABSENT, compare_go_versions, go_version_at_least};
pub use major::{MajorMismatch, check_path_major, split_path_version};
pub use path::{ModulePath, PathError, Version, unescape};
pub use pseudo::{NoBase, PseudoVersion, is_pseudo};
pub use request::{Request, SumdbPath};
