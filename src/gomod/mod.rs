//! What Go says: module paths, versions, their escaping, request paths and `h1:` hashes. Pure: no network, no runtime,
//! no I/O beyond `Read` and `Seek`.

mod dirhash;
mod path;
mod request;

pub use dirhash::{MAX_ZIP_BYTES, ZipError, hash_go_mod, hash_zip};
pub use path::{ModulePath, PathError, Version, unescape};
pub use request::{Request, SumdbPath};
