//! What Go says: module paths, versions and their order, escaping, request paths, go.mod and go.sum files, `h1:` hashes, what
//! a module zip must be, and the proofs of a checksum database. Pure: no network, no runtime, no I/O beyond `Read` and
//! `Seek`. `tests/gomod_differential/` and `tests/sumdb_differential.rs` hold it equal to Go's own code.

mod base64;
mod dirhash;
mod file_path;
mod go_mod;
mod go_mod_lines;
mod go_sum;
mod go_version;
mod info;
mod lookup;
mod major;
mod note;
mod path;
mod pattern;
mod pseudo;
mod request;
pub mod semver;
mod tile;
mod tile_plan;
mod tlog;
mod unicode_tables;
mod zip_content;
mod zip_directory;
mod zip_error;
mod zip_fields;
mod zip_package;
mod zip_rules;

pub use dirhash::{hash_go_mod, hash_zip, hash_zip_with};
pub use file_path::{FilePathError, check_file_path, fold};
pub use go_mod::{GoMod, Requirement, synthesized_go_mod};
pub use go_mod_lines::GoModError;
pub use go_sum::{GoSumError, Sum, SummedFile, parse_go_sum};
pub use go_version::{GO_VERSION_IF_ABSENT, compare_go_versions, go_version_at_least};
pub use info::VersionInfo;
pub use lookup::{FormatError, Lookup};
pub use major::{MajorMismatch, check_path_major, split_path_version};
pub use note::{KeyError, MAX_NOTE_BYTES, MAX_SIGNATURES, Note, NoteError, Signature, Verifier};
pub use path::{ModulePath, PathError, Version, unescape};
pub use pattern::{PatternError, Patterns};
pub use pseudo::{NoBase, PseudoVersion, is_pseudo};
pub use request::{Request, SumdbPath};
pub use tile::{GO_TILE_HEIGHT, MAX_TILE_HEIGHT, Tile, TileLevel, TilePathError};
pub use tile_plan::{PrefixPlan, RecordPlan, TileError, TilePlan};
pub use tlog::{HASH_BYTES, Hash, MAX_RECORDS, Node, ProofError, Tree, check_record, check_tree, tree_hash, tree_nodes};
pub use zip_error::{MAX_GO_MOD_BYTES, MAX_ZIP_BYTES, ZipError};
pub use zip_package::{modules_above, zip_has_folder};
pub use zip_rules::check_module;
