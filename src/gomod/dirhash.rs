//! `h1:` hashes, and the checks without which a zip is not a module's.

use std::io::{Read, Seek};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256};

use super::{ModulePath, Version};

/// Go's limit for a module zip, and for what it unpacks to.
pub const MAX_ZIP_BYTES: u64 = 500 << 20;

/// Why a zip is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    /// Truncated, corrupt, or no zip at all.
    #[error("not a complete zip: {0}")]
    Corrupt(String),
    /// Another module's files.
    #[error("entry {0:?} does not begin with the module's path and version")]
    Prefix(String),
    /// Larger than Go allows.
    #[error("unpacks to more than {MAX_ZIP_BYTES} bytes")]
    TooLarge,
}

/// Reads a whole module zip and returns its `h1:` hash.
///
/// # Errors
/// See [`ZipError`]; a checksum of an entry that does not match is [`ZipError::Corrupt`].
pub fn hash_zip<R: Read + Seek>(zip: R, module: &ModulePath, version: &Version) -> Result<String, ZipError> {
    let corrupt = |e: &dyn std::fmt::Display| ZipError::Corrupt(e.to_string());
    let prefix = format!("{module}@{version}/");
    let mut archive = zip::ZipArchive::new(zip).map_err(|e| corrupt(&e))?;
    let mut lines = Vec::with_capacity(archive.len());
    let mut buffer = vec![0_u8; 64 << 10];
    let mut total = 0_u64;
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| corrupt(&e))?;
        let name = entry.name().map_err(|e| corrupt(&e))?.into_owned();
        if !name.starts_with(&prefix) || name.contains('\n') {
            return Err(ZipError::Prefix(name));
        }
        let mut hash = Context::new(&SHA256);
        loop {
            let n = entry.read(&mut buffer).map_err(|e| corrupt(&e))?;
            let Some(chunk) = buffer.get(..n).filter(|chunk| !chunk.is_empty()) else { break };
            total += chunk.len() as u64;
            if total > MAX_ZIP_BYTES {
                return Err(ZipError::TooLarge);
            }
            hash.update(chunk);
        }
        lines.push((name, hex(hash.finish().as_ref())));
    }
    if lines.is_empty() {
        return Err(ZipError::Corrupt("it has no entries".to_owned()));
    }
    Ok(h1(lines))
}

/// The `h1:` hash that go.sum has for a go.mod file.
#[must_use]
pub fn hash_go_mod(content: &[u8]) -> String {
    h1(vec![("go.mod".to_owned(), hex(ring::digest::digest(&SHA256, content).as_ref()))])
}

fn h1(mut lines: Vec<(String, String)>) -> String {
    lines.sort();
    let mut hash = Context::new(&SHA256);
    for (name, digest) in lines {
        hash.update(format!("{digest}  {name}\n").as_bytes());
    }
    format!("h1:{}", STANDARD.encode(hash.finish()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        // Writing to a String can't fail.
        let _infallible = write!(text, "{b:02x}");
        text
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::write::SimpleFileOptions;

    use super::*;

    fn zip(names: &[&str]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for name in names {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(b"module corp.example/a\n").unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn hash(bytes: Vec<u8>) -> Result<String, ZipError> {
        hash_zip(Cursor::new(bytes), &ModulePath::new("corp.example/a").unwrap(), &Version::new("v1.0.0").unwrap())
    }

    #[test]
    fn the_order_of_entries_does_not_matter() {
        let (a, b) = ("corp.example/a@v1.0.0/a.go", "corp.example/a@v1.0.0/go.mod");
        assert_eq!(hash(zip(&[a, b])).unwrap(), hash(zip(&[b, a])).unwrap());
    }

    #[test]
    fn a_foreign_entry_is_refused() {
        assert!(matches!(hash(zip(&["corp.example/b@v1.0.0/go.mod"])), Err(ZipError::Prefix(_))));
    }

    #[test]
    fn a_flipped_byte_and_a_short_file_are_refused() {
        let good = zip(&["corp.example/a@v1.0.0/go.mod"]);
        let mut flipped = good.clone();
        let data = 30 + "corp.example/a@v1.0.0/go.mod".len() + 3;
        flipped[data] ^= 0x55;
        assert!(hash(flipped).is_err());
        assert!(hash(good[..good.len() - 5].to_vec()).is_err());
        assert!(hash(Vec::new()).is_err());
    }
}
