//! What Go says: module paths, versions, their escaping, request paths, `h1:` hashes, what a module zip must be, and the
//! proofs of a checksum database. Pure: no network, no runtime, no I/O beyond `Read` and `Seek`.

mod base64;
mod dirhash;
mod file_path;
mod lookup;
mod note;
mod path;
mod request;
mod tile;
mod tile_plan;
mod tlog;
mod unicode_tables;
mod zip_content;
mod zip_directory;
mod zip_fields;
mod zip_rules;

pub use dirhash::{hash_go_mod, hash_zip};
pub use file_path::{FilePathError, check_file_path, fold};
pub use lookup::{FormatError, Lookup};
pub use note::{KeyError, MAX_NOTE_BYTES, MAX_SIGNATURES, Note, NoteError, Signature, Verifier};
pub use path::{ModulePath, PathError, Version, unescape};
pub use request::{Request, SumdbPath};
pub use tile::{GO_TILE_HEIGHT, MAX_TILE_HEIGHT, Tile, TileLevel, TilePathError};
pub use tile_plan::{PrefixPlan, RecordPlan, TileError};
pub use tlog::{HASH_BYTES, Hash, MAX_RECORDS, Node, ProofError, Tree, check_record, check_tree, tree_hash, tree_nodes};
pub use zip_rules::{MAX_GO_MOD_BYTES, MAX_ZIP_BYTES, ZipError, check_module};
