//! Which files a zip holds, read as Go's `archive/zip` reads it.
//!
//! A zip says most things twice, and two readers that believe different copies see different files. Clients unpack with
//! Go's reader, so this one takes the same copy each time: the last end record that fits, the central directory and never
//! the local headers' names, sizes or checksums, zip64 fields only where the old ones are full. What it hands out is what
//! a go command would unpack; a general reader of zips (which merges entries of one name, decodes names from code page
//! 437 and believes other copies) could hash other bytes than the client gets.

use std::io::{self, Read, Seek, SeekFrom};

use super::zip_error::{MAX_DIRECTORY_BYTES, ZipError};
use super::zip_fields::{Fields, read_at, read_full};

const HEADER: usize = 46;
const LOCAL_HEADER: usize = 30;
const END: usize = 22;
const END_64: usize = 56;
const LOCATOR_64: i64 = 20;
const FULL: u32 = u32::MAX;

/// One file or directory of a zip, as the central directory has it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The raw name: not checked, not necessarily UTF-8.
    pub(super) name: Vec<u8>,
    /// 0 is stored, 8 is deflate; Go knows no other.
    pub(super) method: u16,
    /// Whether a copy of the checksum follows the data.
    pub(super) has_descriptor: bool,
    /// The CRC-32 of the content; 0 is "not set" where no descriptor follows.
    pub(super) crc: u32,
    /// Bytes in the zip.
    pub(super) packed: u64,
    /// Bytes of the content, as declared.
    pub(super) size: u64,
    /// Where the local header begins; may be negative or beyond the end.
    pub(super) header: i64,
}

/// The end record: where the central directory is.
struct End {
    records: u64,
    size: u64,
    offset: u64,
}

/// What came of one header.
enum Header {
    Entry(Entry),
    /// Something else, or half a header: Go takes it for the end of the directory.
    Other,
}

/// Reads the central directory of a zip of `size` bytes.
///
/// # Errors
/// Go would refuse to open the zip, or its directory takes more than [`MAX_DIRECTORY_BYTES`].
pub(super) fn read_directory<R: Read + Seek>(zip: &mut R, size: u64) -> Result<Vec<Entry>, ZipError> {
    let corrupt = |why: &str| ZipError::Corrupt(why.to_owned());
    let size = i64::try_from(size).map_err(|_| ZipError::TooLarge)?;
    let (end, base) = read_end(zip, size)?;
    let offset = i64::try_from(end.offset).map_err(|_| corrupt("its directory is nowhere"))?;
    let start = u64::try_from(base.wrapping_add(offset)).map_err(|_| corrupt("its directory is nowhere"))?;
    zip.seek(SeekFrom::Start(start))?;
    let mut source = io::BufReader::with_capacity(64 << 10, &mut *zip);
    let mut entries = Vec::new();
    let mut directory_bytes = 0_u64;
    while let Header::Entry(mut entry) = read_header(&mut source, &mut directory_bytes)? {
        entry.header = entry.header.wrapping_add(base);
        entries.push(entry);
        if directory_bytes > MAX_DIRECTORY_BYTES {
            return Err(ZipError::Directory);
        }
    }
    // The record's count has 16 bits, so that is all there is to compare.
    let counts_match = (entries.len() as u64) & 0xffff == end.records & 0xffff;
    if counts_match { Ok(entries) } else { Err(corrupt("its directory is cut short")) }
}

/// Finds the end record and the number of bytes that stand before the zip proper.
fn read_end<R: Read + Seek>(zip: &mut R, size: i64) -> Result<(End, i64), ZipError> {
    let corrupt = |why: &str| ZipError::Corrupt(why.to_owned());
    // A comment has at most 65535 bytes. Go looks at the last KiB first; a hit there is a hit here.
    let tail_bytes = size.min(65 << 10);
    let mut tail = vec![0; usize::try_from(tail_bytes).unwrap_or_default()];
    let read = read_at(zip, size - tail_bytes, &mut tail)?;
    tail.truncate(read);
    let near = tail.len().saturating_sub(1 << 10);
    let position = match find_end(tail.get(near..).unwrap_or_default()) {
        Some(position) => Some(near + position),
        None => find_end(&tail),
    };
    let position = position.ok_or_else(|| corrupt("it has no end record"))?;
    let mut end = tail.get(position..).and_then(parse_end).ok_or_else(|| corrupt("its end record is cut short"))?;
    let mut end_at = size - tail_bytes + i64::try_from(position).unwrap_or_default();
    // The middle one is a slip of Go's (0xffff for 32 bits). A reader that doesn't make it reads other zips.
    if (end.records == 0xffff || end.size == 0xffff || end.offset == u64::from(FULL))
        && let Some(at) = find_end_64(zip, end_at)?
    {
        end_at = at;
        end = read_end_64(zip, at)?;
    }
    let (Ok(directory_bytes), Ok(offset)) = (i64::try_from(end.size), i64::try_from(end.offset)) else {
        return Err(corrupt("its directory is nowhere"));
    };
    let mut base = end_at.wrapping_sub(directory_bytes).wrapping_sub(offset);
    if !(0..size).contains(&base.wrapping_add(offset)) {
        return Err(corrupt("its directory is nowhere"));
    }
    if base > 0 && offset < size {
        zip.seek(SeekFrom::Start(end.offset))?;
        // Some writers count wrong: if a header stands where none of the bytes before the zip are counted, they don't count.
        match read_header(&mut *zip, &mut 0) {
            Ok(Header::Entry(_)) => base = 0,
            Err(error @ ZipError::Io(_)) => return Err(error),
            Ok(Header::Other) | Err(_) => {}
        }
    }
    Ok((end, base))
}

/// The last end record in `block` whose comment is all there. One with a cut comment hides all before it.
fn find_end(block: &[u8]) -> Option<usize> {
    let position = block.windows(END).rposition(|record| record.starts_with(b"PK\x05\x06"))?;
    let mut comment = Fields(block.get(position..)?);
    comment.take(END - 2)?;
    let length = usize::from(comment.u16()?);
    comment.take(length)?;
    Some(position)
}

fn parse_end(record: &[u8]) -> Option<End> {
    let mut fields = Fields(record);
    // Signature, three counts of disks.
    fields.take(10)?;
    Some(End { records: u64::from(fields.u16()?), size: u64::from(fields.u32()?), offset: u64::from(fields.u32()?) })
}

/// Where the zip64 end record is, if a locator for one stands before the old end record.
fn find_end_64<R: Read + Seek>(zip: &mut R, end_at: i64) -> Result<Option<i64>, ZipError> {
    let at = end_at - LOCATOR_64;
    if at < 0 {
        return Ok(None);
    }
    let mut locator = [0; 20];
    read_at(zip, at, &mut locator)?;
    let mut fields = Fields(&locator);
    let found = fields.take(4) == Some(b"PK\x06\x07") && fields.u32() == Some(0);
    let position = fields.u64().map(u64::cast_signed);
    let one_disk = fields.u32() == Some(1);
    Ok(position.filter(|position| found && one_disk && *position >= 0))
}

fn read_end_64<R: Read + Seek>(zip: &mut R, at: i64) -> Result<End, ZipError> {
    let mut record = [0; END_64];
    let read = read_at(zip, at, &mut record)?;
    let mut fields = Fields(record.get(..read).unwrap_or_default());
    let signed = fields.take(4) == Some(b"PK\x06\x06");
    // Its size, two versions, two disks, the records on this disk.
    let skipped = fields.take(28).is_some();
    match (fields.u64(), fields.u64(), fields.u64()) {
        (Some(records), Some(size), Some(offset)) if signed && skipped => Ok(End { records, size, offset }),
        _ => Err(ZipError::Corrupt("its zip64 end record is bad".to_owned())),
    }
}

/// Reads one header of the central directory, and adds its length to `directory_bytes`.
fn read_header<R: Read>(source: &mut R, directory_bytes: &mut u64) -> Result<Header, ZipError> {
    // A directory has an end record behind it. Go makes a difference between half a header and none at all.
    let nothing = || ZipError::Corrupt("its directory has no end".to_owned());
    let mut fixed = [0; HEADER];
    match read_full(source, &mut fixed)? {
        0 => return Err(nothing()),
        HEADER => {}
        _ => return Ok(Header::Other),
    }
    let Some((mut entry, lengths)) = parse_header(&fixed) else { return Ok(Header::Other) };
    let variable_bytes: usize = lengths.iter().sum();
    let mut variable = vec![0; variable_bytes];
    match read_full(source, &mut variable)? {
        0 if variable_bytes > 0 => return Err(nothing()),
        read if read < variable_bytes => return Ok(Header::Other),
        _ => {}
    }
    *directory_bytes += (HEADER + variable_bytes) as u64;
    let [name_bytes, extra_bytes, _] = lengths;
    let mut fields = Fields(&variable);
    let (Some(name), Some(extra)) = (fields.take(name_bytes), fields.take(extra_bytes)) else { return Ok(Header::Other) };
    entry.name = name.to_vec();
    Ok(if read_extra(&mut entry, extra).is_some() { Header::Entry(entry) } else { Header::Other })
}

/// The fixed part of a header, and the lengths of name, extra fields and comment.
fn parse_header(fixed: &[u8; HEADER]) -> Option<(Entry, [usize; 3])> {
    let mut fields = Fields(fixed);
    if fields.take(4)? != b"PK\x01\x02" {
        return None;
    }
    // The versions of writer and reader.
    fields.take(4)?;
    let has_descriptor = fields.u16()? & 0x8 != 0;
    let method = fields.u16()?;
    // Time and date.
    fields.take(4)?;
    let (crc, packed, size) = (fields.u32()?, u64::from(fields.u32()?), u64::from(fields.u32()?));
    let lengths = [usize::from(fields.u16()?), usize::from(fields.u16()?), usize::from(fields.u16()?)];
    // Disk, and two sets of attributes: modes are not looked at.
    fields.take(8)?;
    let header = i64::from(fields.u32()?);
    Some((Entry { name: Vec::new(), method, has_descriptor, crc, packed, size, header }, lengths))
}

/// Takes what does not fit into 32 bits from the zip64 field. `None` is a header that Go refuses.
fn read_extra(entry: &mut Entry, extra: &[u8]) -> Option<()> {
    let full = |n: u64| n == u64::from(FULL);
    let (mut size_full, mut packed_full, mut header_full) = (full(entry.size), full(entry.packed), entry.header == i64::from(FULL));
    let mut fields = Fields(extra);
    while let (Some(tag), Some(length)) = (fields.u16(), fields.u16()) {
        // A field that is longer than what is left ends the search, and is no error.
        let Some(mut field) = fields.take(usize::from(length)).map(Fields) else { break };
        if tag != 1 {
            continue;
        }
        if std::mem::take(&mut size_full) {
            entry.size = field.u64()?;
        }
        if std::mem::take(&mut packed_full) {
            entry.packed = field.u64()?;
        }
        if std::mem::take(&mut header_full) {
            entry.header = field.u64()?.cast_signed();
        }
    }
    // A size of 2^32-1 without a zip64 field is taken at its word, the other two are not.
    (!packed_full && !header_full).then_some(())
}

/// Where an entry's data begin: what its local header says of its own length, and nothing else of it, counts.
pub(super) fn body_offset<R: Read + Seek>(zip: &mut R, entry: &Entry) -> Result<i64, ZipError> {
    let mut local = [0; LOCAL_HEADER];
    let read = read_at(zip, entry.header, &mut local)?;
    let mut fields = Fields(local.get(..read).unwrap_or_default());
    let signed = fields.take(4) == Some(b"PK\x03\x04");
    let skipped = fields.take(22).is_some();
    match (fields.u16(), fields.u16()) {
        (Some(name), Some(extra)) if signed && skipped => {
            let length = i64::from(name) + i64::from(extra) + 30;
            Ok(entry.header.wrapping_add(length))
        }
        _ => Err(ZipError::Corrupt(format!("{:?} has no local header", String::from_utf8_lossy(&entry.name)))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io::{Cursor, Write};

    use proptest::prelude::*;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn zip(names: &[&str]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for name in names {
            writer.start_file(*name, SimpleFileOptions::default().large_file(name.len() % 2 == 0)).unwrap();
            writer.write_all(name.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn read(zip: &[u8]) -> Result<Vec<Entry>, ZipError> {
        read_directory(&mut Cursor::new(zip), zip.len() as u64)
    }

    fn names(zip: &[u8]) -> Vec<String> {
        read(zip).unwrap().into_iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect()
    }

    #[test]
    fn entries_of_one_name_are_all_there() {
        let mut zip = zip(&["aa", "ab"]);
        let second = zip.windows(2).rposition(|name| name == b"ab").unwrap();
        zip[second + 1] = b'a';
        assert_eq!(names(&zip), ["aa", "aa"]);
    }

    #[test]
    fn names_are_those_of_the_central_directory() {
        let mut zip = zip(&["aa"]);
        let first = zip.windows(2).position(|name| name == b"aa").unwrap();
        zip[first] = b'x';
        assert_eq!(names(&zip), ["aa"]);
    }

    #[test]
    fn names_that_are_no_text_stay_bytes() {
        let mut zip = zip(&["aa"]);
        let last = zip.windows(2).rposition(|name| name == b"aa").unwrap();
        zip[last] = 0x81;
        assert_eq!(read(&zip).unwrap()[0].name, b"\x81a");
    }

    #[test]
    fn a_script_before_the_zip_does_not_count() {
        let zip = [b"#!/bin/sh\n".as_slice(), &zip(&["a", "bb"])].concat();
        let entries = read(&zip).unwrap();
        assert_eq!(entries[0].header, 10);
        let body = usize::try_from(body_offset(&mut Cursor::new(&zip), &entries[1]).unwrap()).unwrap();
        assert_eq!(entries[1].size, 2);
        assert!(body < zip.len());
    }

    /// Fails at one read.
    struct BadDisk<'a>(Cursor<&'a [u8]>, usize);

    impl Read for BadDisk<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = self.1.wrapping_sub(1);
            if self.1 == 0 { Err(io::Error::other("a bad disk")) } else { self.0.read(buffer) }
        }
    }

    impl Seek for BadDisk<'_> {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    /// Found by fuzzing: it was taken for a sign that the bytes before the zip count.
    #[test]
    fn a_read_that_fails_is_no_verdict_on_the_zip() {
        let zip = [b"#!/bin/sh\n".as_slice(), &zip(&["a", "bb"])].concat();
        let read_but = |bad| read_directory(&mut BadDisk(Cursor::new(&zip), bad), zip.len() as u64);
        let reads = (1..).find(|bad| read_but(*bad).is_ok()).unwrap();
        assert!(reads > 2);
        for bad in 1..100 {
            assert!(matches!(read_but(bad), Ok(_) | Err(ZipError::Io(_))), "{bad}");
            assert_eq!(read_but(bad).is_ok(), bad >= reads, "{bad}");
        }
    }

    #[test]
    fn a_directory_of_nothing_but_names_is_too_large() {
        let name = "n".repeat(60_000);
        let one = zip(&[&name]);
        let header = one.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        let end = one.len() - END;
        let count = 600;
        let mut zip = one[..header].to_vec();
        (0..count).for_each(|_| zip.extend(&one[header..end]));
        zip.extend(b"PK\x05\x06\0\0\0\0");
        zip.extend(u16::try_from(count).unwrap().to_le_bytes().repeat(2));
        zip.extend(u32::try_from(count * (end - header)).unwrap().to_le_bytes());
        zip.extend(u32::try_from(header).unwrap().to_le_bytes());
        zip.extend([0, 0]);
        assert!(matches!(read(&zip), Err(ZipError::Directory)));
    }

    proptest! {
        #[test]
        fn no_change_of_bytes_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut: prop::sample::Index) {
            let mut zip = zip(&["a", "bb", "d/"]);
            for (at, byte) in changes {
                let at = at.index(zip.len());
                zip[at] = byte;
            }
            for zip in [&zip[..], &zip[..cut.index(zip.len())]] {
                for entry in read(zip).unwrap_or_default() {
                    let _either = body_offset(&mut Cursor::new(zip), &entry);
                }
            }
        }
    }
}
