//! `h1:` hashes, and the checks without which a zip is not a module's.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256, digest};

use super::zip_content::{ContentReader, Digest};
use super::zip_directory::{Entry, body_offset, read_directory};
use super::zip_rules::{MAX_ZIP_BYTES, Rules, ZipError, check_module};
use super::{ModulePath, Version};

/// Reads a whole module zip, checks it as the go command does before it unpacks one, and returns its `h1:` hash.
///
/// The hash is that of `HashZip` of `golang.org/x/mod/sumdb/dirhash`, the rules are those of `CheckZip` of
/// `golang.org/x/mod/zip`, and every byte is read as Go reads it. Memory grows with the number of files only.
///
/// # Errors
/// See [`ZipError`]. All but [`ZipError::Io`] are verdicts on the zip.
pub fn hash_zip<R: Read + Seek>(mut zip: R, module: &ModulePath, version: &Version) -> Result<String, ZipError> {
    check_module(module, version)?;
    let size = zip.seek(SeekFrom::End(0))?;
    if size > MAX_ZIP_BYTES {
        return Err(ZipError::TooLarge);
    }
    let entries = read_directory(&mut zip, size)?;
    check_entries(&entries, module, version)?;
    check_folders(&mut zip, &entries)?;
    let mut reader = ContentReader::new();
    let mut lines = Vec::with_capacity(entries.len());
    for entry in entries {
        let digest = if is_folder(&entry) { empty_digest() } else { reader.digest(&mut zip, &entry)? };
        lines.push((entry.name, digest));
    }
    Ok(h1(lines))
}

fn check_entries(entries: &[Entry], module: &ModulePath, version: &Version) -> Result<(), ZipError> {
    let mut rules = Rules::new(module, version);
    entries.iter().try_for_each(|entry| rules.check(&entry.name, entry.size))
}

/// Checks the entries of folders as far as hashing opens them: of those that have one name, Go opens the last. By name, as Go
/// does, so that of several faults the same one is named each time.
fn check_folders<R: Read + Seek>(zip: &mut R, entries: &[Entry]) -> Result<(), ZipError> {
    let last: BTreeMap<&[u8], &Entry> = entries.iter().filter(|e| is_folder(e)).map(|e| (e.name.as_slice(), e)).collect();
    for entry in last.into_values() {
        body_offset(zip, entry)?;
        if entry.size != 0 {
            return Err(ZipError::Corrupt(format!("{:?} is a folder with content", String::from_utf8_lossy(&entry.name))));
        }
    }
    Ok(())
}

fn is_folder(entry: &Entry) -> bool {
    entry.name.ends_with(b"/")
}

fn empty_digest() -> Digest {
    sha256(&[])
}

fn sha256(content: &[u8]) -> Digest {
    let mut bytes = Digest::default();
    bytes.iter_mut().zip(digest(&SHA256, content).as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

/// The `h1:` hash that go.sum has for a go.mod file.
#[must_use]
pub fn hash_go_mod(content: &[u8]) -> String {
    h1(vec![(b"go.mod".to_vec(), sha256(content))])
}

fn h1(mut lines: Vec<(Vec<u8>, Digest)>) -> String {
    lines.sort_unstable();
    let mut hash = Context::new(&SHA256);
    for (name, digest) in lines {
        hash.update(hex(&digest).as_bytes());
        hash.update(b"  ");
        hash.update(&name);
        hash.update(b"\n");
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

    #[test]
    fn the_hash_is_that_of_sha256sum() {
        // printf 'module corp.example/a\n' | sha256sum, its line with this name, again through sha256sum, in base64.
        let line = format!("{}  corp.example/a@v1.0.0/go.mod\n", hex(&sha256(b"module corp.example/a\n")));
        let wanted = format!("h1:{}", STANDARD.encode(sha256(line.as_bytes())));
        assert_eq!(hash(zip(&["corp.example/a@v1.0.0/go.mod"])).unwrap(), wanted);
    }

    #[test]
    fn folders_count_in_the_hash() {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer.add_directory("corp.example/a@v1.0.0/d/", SimpleFileOptions::default()).unwrap();
        let folder = writer.finish().unwrap().into_inner();
        assert_ne!(hash(folder).unwrap(), hash(zip(&[])).unwrap());
    }

    #[test]
    fn of_several_bad_folders_the_first_by_name_is_the_one_that_is_named() {
        let names: Vec<String> = (10..30).rev().map(|i| format!("corp.example/a@v1.0.0/d{i}/")).collect();
        let bad = zip(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for _ in 0..5 {
            let error = hash(bad.clone()).unwrap_err().to_string();
            assert!(error.contains("v1.0.0/d10/"), "{error}");
        }
    }

    #[test]
    fn a_zip_that_no_version_can_have_is_not_read() {
        let version =
            |version: &str| hash_zip(Cursor::new([]), &ModulePath::new("corp.example/a").unwrap(), &Version::new(version).unwrap());
        assert!(matches!(version("v2.0.0"), Err(ZipError::Module(..))));
        assert!(matches!(version("main"), Err(ZipError::Module(..))));
        assert!(matches!(version("v1.0.0"), Err(ZipError::Corrupt(_))));
    }
}
