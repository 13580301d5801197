//! The bytes of a file in a zip, checked as Go's `archive/zip` checks them, and no more of them at a time than a buffer.

use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};

use crc32fast::Hasher as Crc;
use flate2::{Decompress, FlushDecompress, Status};
use ring::digest::{Context, SHA256};

use super::zip_directory::{Entry, body_offset};
use super::zip_error::{MAX_ZIP_BYTES, ZipError};
use super::zip_fields::read_at;

const PACKED_BYTES: usize = 64 << 10;
/// With real zips 1 to 13 % faster than 64 KiB; 1 MiB gives no more.
const UNPACKED_BYTES: usize = 256 << 10;
const DESCRIPTOR_SIGNATURE: [u8; 4] = *b"PK\x07\x08";

/// SHA-256 of a content.
pub(super) type Digest = [u8; 32];

/// Hashes one entry after another with the same buffers.
pub(super) struct ContentReader<'a> {
    packed: Vec<u8>,
    unpacked: Vec<u8>,
    inflate: Decompress,
    /// Bytes of the zip that were unpacked, by all its readers. More than a zip may have means that entries share them: a few MiB
    /// of nothing can be unpacked a million times. No writer does that, and Go would be busy for days before it said yes.
    packed_bytes: &'a AtomicU64,
}

/// What is known of the content read so far.
struct Content {
    digest: Context,
    crc: Crc,
    bytes: u64,
    declared: u64,
}

impl Content {
    /// Takes the next bytes; more than were declared are refused at once, so that no bomb is unpacked to its end.
    fn add(&mut self, bytes: &[u8]) -> Option<()> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.digest.update(bytes);
        self.crc.update(bytes);
        (self.bytes <= self.declared).then_some(())
    }
}

impl<'a> ContentReader<'a> {
    pub(super) fn new(packed_bytes: &'a AtomicU64) -> Self {
        Self { packed: vec![0; PACKED_BYTES], unpacked: vec![0; UNPACKED_BYTES], inflate: Decompress::new(false), packed_bytes }
    }

    /// Reads an entry's whole content and returns its digest.
    ///
    /// # Errors
    /// Go would not unpack the entry: an unknown method, another length than declared, a checksum that does not match.
    pub(super) fn digest<R: Read + Seek>(&mut self, zip: &mut R, entry: &Entry) -> Result<Digest, ZipError> {
        let corrupt = |why: &str| ZipError::Corrupt(format!("{:?} {why}", String::from_utf8_lossy(&entry.name)));
        let body = body_offset(zip, entry)?;
        zip.seek(SeekFrom::Start(u64::try_from(body).map_err(|_| corrupt("is nowhere"))?))?;
        let mut content = Content { digest: Context::new(&SHA256), crc: Crc::new(), bytes: 0, declared: entry.size };
        let section = zip.by_ref().take(entry.packed);
        match entry.method {
            0 => self.store(section, &mut content)?,
            8 => self.inflate(section, &mut content)?,
            _ => return Err(corrupt("is compressed by a method that Go does not know")),
        }
        .ok_or_else(|| corrupt("can not be unpacked to its declared size"))?;
        if content.bytes != entry.size {
            return Err(corrupt("is shorter than declared"));
        }
        let crc = content.crc.finalize();
        let crc_matches = if entry.has_descriptor {
            let descriptor_at = body.wrapping_add(entry.packed.cast_signed());
            crc == entry.crc && read_descriptor_crc(zip, descriptor_at)? == Some(entry.crc)
        } else {
            // Go takes 0 for "not set".
            entry.crc == 0 || crc == entry.crc
        };
        if !crc_matches {
            return Err(corrupt("does not match its checksum"));
        }
        content.digest.finish().as_ref().try_into().map_err(|_| corrupt("has no digest"))
    }

    /// Reads the next packed bytes into the buffer and says how many they are.
    fn next(&mut self, section: &mut impl Read) -> Result<usize, ZipError> {
        let read = section.read(&mut self.packed)?;
        let before = self.packed_bytes.fetch_add(read as u64, Ordering::Relaxed);
        if before.saturating_add(read as u64) > MAX_ZIP_BYTES { Err(ZipError::TooLarge) } else { Ok(read) }
    }

    fn store(&mut self, mut section: impl Read, content: &mut Content) -> Result<Option<()>, ZipError> {
        loop {
            let read = self.next(&mut section)?;
            let Some(chunk) = self.packed.get(..read).filter(|chunk| !chunk.is_empty()) else { return Ok(Some(())) };
            if content.add(chunk).is_none() {
                return Ok(None);
            }
        }
    }

    /// Unpacks up to the end that the stream itself has: bytes behind it are ignored, as Go ignores them.
    fn inflate(&mut self, mut section: impl Read, content: &mut Content) -> Result<Option<()>, ZipError> {
        self.inflate.reset(false);
        let mut pending = 0..0;
        loop {
            if pending.is_empty() {
                pending = 0..self.next(&mut section)?;
            }
            let input = self.packed.get(pending.clone()).unwrap_or_default();
            let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
            let Ok(status) = self.inflate.decompress(input, &mut self.unpacked, FlushDecompress::None) else { return Ok(None) };
            let consumed = usize::try_from(self.inflate.total_in() - in_before).unwrap_or_default();
            let produced = usize::try_from(self.inflate.total_out() - out_before).unwrap_or_default();
            let stuck = consumed == 0 && produced == 0;
            pending.start += consumed;
            if content.add(self.unpacked.get(..produced).unwrap_or_default()).is_none() {
                return Ok(None);
            }
            match status {
                Status::StreamEnd => return Ok(Some(())),
                // No more input, and the last block has not ended.
                Status::Ok | Status::BufError if stuck => return Ok(None),
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

/// The copy of the checksum behind the data, which may or may not begin with a signature.
fn read_descriptor_crc<R: Read + Seek>(zip: &mut R, at: i64) -> Result<Option<u32>, ZipError> {
    let mut descriptor = [0; 16];
    let read = read_at(zip, at, &mut descriptor)?;
    let descriptor = descriptor.get(..read).unwrap_or_default();
    let fields = descriptor.strip_prefix(&DESCRIPTOR_SIGNATURE).unwrap_or(descriptor);
    // The checksum and two sizes. The sizes may have 32 or 64 bits, and nobody looks at them.
    let crc = fields.first_chunk::<12>().and_then(|fields| fields.first_chunk::<4>());
    Ok(crc.copied().map(u32::from_le_bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    const CONTENT: &[u8] = b"package a // a a a a a a a a a\n";

    /// A local header with nothing in it, then the data, then a descriptor.
    fn zip(data: &[u8], descriptor: &[u8]) -> Vec<u8> {
        [b"PK\x03\x04".as_slice(), &[0; 26], data, descriptor].concat()
    }

    fn crc(content: &[u8]) -> u32 {
        crc32fast::hash(content)
    }

    fn deflated(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn entry(method: u16, data: &[u8]) -> Entry {
        let (packed, size) = (data.len() as u64, CONTENT.len() as u64);
        Entry { name: b"a".to_vec(), method, has_descriptor: false, crc: crc(CONTENT), packed, size, header: 0 }
    }

    fn read(zip: &[u8], entry: &Entry) -> Result<Digest, ZipError> {
        ContentReader::new(&AtomicU64::new(0)).digest(&mut Cursor::new(zip), entry)
    }

    #[test]
    fn stored_and_deflated_are_one_content() {
        let packed = deflated(CONTENT);
        let digest = read(&zip(CONTENT, b""), &entry(0, CONTENT)).unwrap();
        assert_eq!(read(&zip(&packed, b""), &entry(8, &packed)).unwrap(), digest);
        // Whatever stands behind the end of the stream is not content.
        let longer = [&packed[..], b"junk"].concat();
        assert_eq!(read(&zip(&longer, b""), &entry(8, &longer)).unwrap(), digest);
        assert_eq!(digest.as_slice(), ring::digest::digest(&SHA256, CONTENT).as_ref());
    }

    #[test]
    fn a_stream_that_does_not_end_is_refused_though_all_its_content_is_there() {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(CONTENT).unwrap();
        encoder.flush().unwrap();
        let packed = encoder.get_ref().clone();
        assert!(matches!(read(&zip(&packed, b""), &entry(8, &packed)), Err(ZipError::Corrupt(_))));
    }

    #[test]
    fn other_lengths_checksums_and_methods_are_refused() {
        let (packed, good) = (deflated(CONTENT), entry(0, CONTENT));
        let (one_less, one_more) = (good.size - 1, good.size + 1);
        for bad in [
            Entry { size: one_less, ..good.clone() },
            Entry { size: one_more, ..good.clone() },
            Entry { packed: one_less, ..good.clone() },
            Entry { crc: good.crc ^ 1, ..good.clone() },
            Entry { method: 9, ..good.clone() },
            Entry { method: 8, ..good.clone() },
            Entry { header: 1, ..good.clone() },
            Entry { header: -1, ..good.clone() },
            Entry { header: i64::MAX, ..good.clone() },
            Entry { has_descriptor: true, ..good.clone() },
        ] {
            assert!(matches!(read(&zip(CONTENT, b""), &bad), Err(ZipError::Corrupt(_))), "{bad:?}");
        }
        for length in 0..packed.len() {
            let cut = &packed[..length];
            assert!(read(&zip(cut, b""), &entry(8, cut)).is_err(), "{length}");
        }
        // Go takes a checksum of 0 for none.
        assert!(read(&zip(CONTENT, b""), &Entry { crc: 0, ..good }).is_ok());
    }

    #[test]
    fn a_descriptor_must_repeat_the_checksum() {
        let entry = Entry { has_descriptor: true, ..entry(0, CONTENT) };
        let bare = [&entry.crc.to_le_bytes()[..], &[0; 8]].concat();
        let signed = [&DESCRIPTOR_SIGNATURE[..], &bare].concat();
        let wrong = [&DESCRIPTOR_SIGNATURE[..], &[0; 12]].concat();
        for (descriptor, good) in [(&bare[..], true), (&signed, true), (&wrong, false), (&bare[..11], false), (&signed[..15], false)] {
            assert_eq!(read(&zip(CONTENT, descriptor), &entry).is_ok(), good, "{descriptor:?}");
        }
    }

    #[test]
    fn bytes_that_many_entries_share_are_not_unpacked_for_ever() {
        let packed_bytes = AtomicU64::new(MAX_ZIP_BYTES - CONTENT.len() as u64);
        let mut reader = ContentReader::new(&packed_bytes);
        let (zip, entry) = (zip(CONTENT, b""), entry(0, CONTENT));
        assert!(reader.digest(&mut Cursor::new(&zip), &entry).is_ok());
        assert!(matches!(reader.digest(&mut Cursor::new(&zip), &entry), Err(ZipError::TooLarge)));
    }
}
