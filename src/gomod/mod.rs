//! What Go says: module paths, versions, their escaping, request paths, `h1:` hashes, what a module zip must be, and the
//! proofs of a checksum database. Pure: no network, no runtime, no I/O beyond `Read` and `Seek`.

mod dirhash;
mod file_path;
mod path;
mod request;
mod unicode_tables;
mod zip_content;
mod zip_directory;
mod zip_rules;

pub use dirhash::{hash_go_mod, hash_zip};
pub use file_path::{FilePathError, check_file_path, fold};
pub use path::{ModulePath, PathError, Version, unescape};
pub use request::{Request, SumdbPath};
pub use zip_rules::{MAX_GO_MOD_BYTES, MAX_ZIP_BYTES, ZipError, check_module};
