//! `h1:` hashes, and the checks without which a zip is not a module's.

use std::collections::BTreeMap;
use std::io::{Error, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256, digest};

use super::zip_content::{ContentReader, Digest};
use super::zip_directory::{Entry, body_offset, read_directory};
use super::zip_error::{MAX_ZIP_BYTES, ZipError};
use super::zip_rules::{Rules, check_module};
use super::{ModulePath, Version};

/// About so many bytes of contents are one thread's work, before it takes the next.
const PART_BYTES: u64 = 1 << 20;

/// Reads a whole module zip, checks it as the go command does before it unpacks one, and returns its `h1:` hash.
///
/// The hash is that of `HashZip` of `golang.org/x/mod/sumdb/dirhash`, the rules are those of `CheckZip` of
/// `golang.org/x/mod/zip`, and every byte is read as Go reads it. Memory grows with the number of files only.
///
/// # Errors
/// See [`ZipError`]. All but [`ZipError::Io`] are verdicts on the zip.
pub fn hash_zip<R: Read + Seek>(mut zip: R, module: &ModulePath, version: &Version) -> Result<String, ZipError> {
    let entries = entries_of(&mut zip, module, version)?;
    let packed = AtomicU64::new(0);
    let digests = hash_entries(&mut zip, &entries, &mut ContentReader::new(&packed))?;
    Ok(h1(named(entries, digests)))
}

/// The same with several threads, this one included. Each reads a clone of the zip, and does `between` before each part of its
/// work, which may wait.
///
/// # Errors
/// The same. Of several faults the first in the zip is told.
pub fn hash_zip_with<R>(
    mut zip: R,
    module: &ModulePath,
    version: &Version,
    threads: usize,
    between: impl Fn() + Sync,
) -> Result<String, ZipError>
where
    R: Read + Seek + Clone + Sync,
{
    let entries = entries_of(&mut zip, module, version)?;
    let parts = parts(&entries);
    let (next, packed) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || {
        let (mut zip, mut reader, mut done) = (zip.clone(), ContentReader::new(&packed), Vec::new());
        loop {
            between();
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(at) else { return done };
            let digests = hash_entries(&mut zip, part, &mut reader);
            if digests.is_err() {
                // What comes before is being hashed already, and what comes after is of no use.
                next.fetch_max(parts.len(), Ordering::Relaxed);
            }
            done.push((at, digests));
        }
    };
    let mut done = thread::scope(|scope| {
        // A machine that has no thread left has this one.
        let start = |_| thread::Builder::new().name("zip".to_owned()).spawn_scoped(scope, work).ok();
        let helpers: Vec<_> = (1..threads.min(parts.len())).filter_map(start).collect();
        let mut done = work();
        for helper in helpers {
            done.extend(helper.join().map_err(|_| Error::other("a thread that hashed a zip failed"))?);
        }
        Ok::<_, ZipError>(done)
    })?;
    done.sort_unstable_by_key(|(at, _)| *at);
    let mut digests = Vec::with_capacity(entries.len());
    for (_, part) in done {
        digests.append(&mut part?);
    }
    Ok(h1(named(entries, digests)))
}

/// What a zip holds, after all checks for which no content is read.
fn entries_of<R: Read + Seek>(zip: &mut R, module: &ModulePath, version: &Version) -> Result<Vec<Entry>, ZipError> {
    check_module(module, version)?;
    let size = zip.seek(SeekFrom::End(0))?;
    if size > MAX_ZIP_BYTES {
        return Err(ZipError::TooLarge);
    }
    let entries = read_directory(zip, size)?;
    check_entries(&entries, module, version)?;
    check_folders(zip, &entries)?;
    Ok(entries)
}

/// Neighbours stay together, since they are read together.
fn parts(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut room = PART_BYTES;
    entries
        .chunk_by(|_, next| {
            let fits = room.checked_sub(next.size);
            room = fits.unwrap_or(PART_BYTES);
            fits.is_some()
        })
        .collect()
}

fn hash_entries<R: Read + Seek>(zip: &mut R, entries: &[Entry], reader: &mut ContentReader<'_>) -> Result<Vec<Digest>, ZipError> {
    entries.iter().map(|entry| if is_folder(entry) { Ok(empty_digest()) } else { reader.digest(zip, entry) }).collect()
}

fn named(entries: Vec<Entry>, digests: Vec<Digest>) -> Vec<(Vec<u8>, Digest)> {
    entries.into_iter().map(|entry| entry.name).zip(digests).collect()
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
    fn however_many_threads_hash_a_zip_they_say_the_same() {
        let (module, version) = (ModulePath::new("corp.example/a").unwrap(), Version::new("v1.0.0").unwrap());
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for i in 0..100_u32 {
            writer.start_file(format!("corp.example/a@v1.0.0/{i}"), SimpleFileOptions::default()).unwrap();
            // 12 MB in all, some larger than a part.
            let content: Vec<u8> = (0..if i % 33 == 0 { 500_000 } else { 10_000 }).flat_map(|j: u32| (i * j).to_le_bytes()).collect();
            writer.write_all(&content).unwrap();
        }
        let mut zip = writer.finish().unwrap().into_inner();
        let hash = |zip: &[u8], threads| hash_zip_with(Cursor::new(zip), &module, &version, threads, || ()).map_err(|e| e.to_string());
        let alone = |zip: &[u8]| hash_zip(Cursor::new(zip), &module, &version).map_err(|e| e.to_string());
        assert_eq!((hash(&zip, 1), hash(&zip, 4)), (alone(&zip), alone(&zip)));
        assert!(hash(&zip, 4).is_ok());
        // Several faults, the first of them not in the first part.
        for at in [zip.len() * 3 / 4, zip.len() / 2, zip.len() / 3] {
            zip[at] ^= 0x55;
            assert_eq!(hash(&zip, 4), alone(&zip));
            assert!(hash(&zip, 4).is_err());
        }
    }

    #[test]
    fn parts_are_neighbours_and_none_is_forgotten() {
        let entry = |size| Entry { name: Vec::new(), method: 0, has_descriptor: false, crc: 0, packed: 0, size, header: 0 };
        let sizes = [3, PART_BYTES, 1, 1, PART_BYTES - 1, 2 * PART_BYTES, u64::MAX, 0, 5];
        let entries = sizes.map(entry);
        let parts: Vec<Vec<u64>> = parts(&entries).iter().map(|part| part.iter().map(|entry| entry.size).collect()).collect();
        assert_eq!(parts.concat(), sizes);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [2, 3, 1, 3]);
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
