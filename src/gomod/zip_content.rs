//! The bytes of a file in a zip, checked as Go's `archive/zip` checks them, and no more of them at a time than a buffer.

use std::io::{Read, Seek, SeekFrom};

use flate2::{Crc, Decompress, FlushDecompress, Status};
use ring::digest::{Context, SHA256};

use super::zip_directory::{Entry, body_offset, read_at};
use super::zip_rules::ZipError;

const BUFFER_BYTES: usize = 64 << 10;
const DESCRIPTOR_SIGNATURE: [u8; 4] = *b"PK\x07\x08";

/// SHA-256 of a content.
pub(super) type Digest = [u8; 32];

/// Hashes one entry after another with the same buffers.
pub(super) struct ContentReader {
    packed: Vec<u8>,
    unpacked: Vec<u8>,
    inflate: Decompress,
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

impl ContentReader {
    pub(super) fn new() -> Self {
        Self { packed: vec![0; BUFFER_BYTES], unpacked: vec![0; BUFFER_BYTES], inflate: Decompress::new(false) }
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
        let crc = content.crc.sum();
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

    fn store(&mut self, mut section: impl Read, content: &mut Content) -> Result<Option<()>, ZipError> {
        loop {
            let read = section.read(&mut self.packed)?;
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
                pending = 0..section.read(&mut self.packed)?;
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
