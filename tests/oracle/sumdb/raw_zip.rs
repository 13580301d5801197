//! Writes zips byte by byte, so that every field can lie.

use std::io::Write;

use flate2::Crc;
use flate2::write::DeflateEncoder;

use crate::oracle::Dice;

/// One entry, with what its two headers say.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) local_name: Vec<u8>,
    pub(crate) packed: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) crc: u32,
    pub(crate) packed_size: u64,
    pub(crate) size: u64,
    pub(crate) zip64: bool,
    pub(crate) extra: Vec<u8>,
    pub(crate) comment: Vec<u8>,
    /// What stands behind the data.
    pub(crate) descriptor: Vec<u8>,
    /// Added to the true place of the local header.
    pub(crate) shift: i64,
    pub(crate) local_signature: u32,
    /// Whether data and local header are written at all.
    pub(crate) local: bool,
}

/// What is around the entries.
#[derive(Clone, Default)]
pub(crate) struct Frame {
    pub(crate) before: Vec<u8>,
    pub(crate) between: Vec<u8>,
    pub(crate) comment: Vec<u8>,
    pub(crate) after: Vec<u8>,
    pub(crate) zip64_end: bool,
    /// Whether the old end record says all but the size of the directory, which is 0xffff: to Go a reason to look further.
    pub(crate) slip: bool,
    pub(crate) count_lie: u64,
    pub(crate) size_lie: u64,
    pub(crate) offset_lie: u64,
}

impl Entry {
    pub(crate) fn stored(name: &[u8], content: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(content);
        Self {
            name: name.to_vec(),
            local_name: name.to_vec(),
            packed: content.to_vec(),
            flags: 0,
            method: 0,
            crc: crc.sum(),
            packed_size: content.len() as u64,
            size: content.len() as u64,
            zip64: false,
            extra: Vec::new(),
            comment: Vec::new(),
            descriptor: Vec::new(),
            shift: 0,
            local_signature: 0x0403_4b50,
            local: true,
        }
    }

    pub(crate) fn deflated(name: &[u8], content: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        let packed = encoder.finish().unwrap();
        Self { method: 8, packed_size: packed.len() as u64, packed, ..Self::stored(name, content) }
    }

    /// All the content, and no last block.
    pub(crate) fn unended(name: &[u8], content: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.flush().unwrap();
        let packed = encoder.get_ref().clone();
        Self { method: 8, packed_size: packed.len() as u64, packed, ..Self::stored(name, content) }
    }

    /// As Go's writer does it: sizes and checksum behind the data.
    pub(crate) fn described(mut self, signature: bool) -> Self {
        self.flags |= 8;
        if signature {
            self.descriptor.extend(0x0807_4b50_u32.to_le_bytes());
        }
        for n in [self.crc, low(self.packed_size), low(self.size)] {
            self.descriptor.extend(n.to_le_bytes());
        }
        self
    }
}

fn low(n: u64) -> u32 {
    (n & 0xffff_ffff) as u32
}

/// Appends little-endian numbers: pairs of a value and its length in bytes.
fn put(zip: &mut Vec<u8>, fields: &[(u64, usize)]) {
    for (value, length) in fields {
        zip.extend(&value.to_le_bytes()[..*length]);
    }
}

pub(crate) fn write(entries: &[Entry], frame: &Frame) -> Vec<u8> {
    let mut zip = frame.before.clone();
    let mut directory = Vec::new();
    for entry in entries {
        let header = (zip.len() - frame.before.len()) as u64;
        if entry.local {
            put(&mut zip, &[(u64::from(entry.local_signature), 4), (20, 2), (u64::from(entry.flags), 2), (u64::from(entry.method), 2)]);
            put(&mut zip, &[(0, 4), (u64::from(entry.crc), 4), (entry.packed_size, 4), (entry.size, 4)]);
            put(&mut zip, &[(entry.local_name.len() as u64, 2), (0, 2)]);
            zip.extend(&entry.local_name);
            zip.extend(&entry.packed);
            zip.extend(&entry.descriptor);
        }
        let header = header.wrapping_add_signed(entry.shift);
        let mut extra = entry.extra.clone();
        let full = u64::from(u32::MAX);
        let (mut packed_size, mut size, mut offset) = (entry.packed_size, entry.size, header);
        if entry.zip64 {
            put(&mut extra, &[(1, 2), (24, 2), (size, 8), (packed_size, 8), (offset, 8)]);
            (packed_size, size, offset) = (full, full, full);
        }
        put(&mut directory, &[(0x0201_4b50, 4), (20, 2), (20, 2), (u64::from(entry.flags), 2), (u64::from(entry.method), 2), (0, 4)]);
        put(&mut directory, &[(u64::from(entry.crc), 4), (packed_size, 4), (size, 4), (entry.name.len() as u64, 2)]);
        put(&mut directory, &[(extra.len() as u64, 2), (entry.comment.len() as u64, 2), (0, 2), (0, 2), (0, 4), (offset, 4)]);
        directory.extend(&entry.name);
        directory.extend(extra);
        directory.extend(&entry.comment);
    }
    let offset = ((zip.len() - frame.before.len()) as u64).wrapping_add(frame.offset_lie);
    let size = (directory.len() as u64).wrapping_add(frame.size_lie);
    let count = (entries.len() as u64).wrapping_add(frame.count_lie);
    zip.extend(directory);
    zip.extend(&frame.between);
    if frame.zip64_end {
        let end = zip.len() as u64;
        put(&mut zip, &[(0x0606_4b50, 4), (44, 8), (45, 2), (45, 2), (0, 4), (0, 4), (count, 8), (count, 8), (size, 8), (offset, 8)]);
        put(&mut zip, &[(0x0706_4b50, 4), (0, 4), (end, 8), (1, 4)]);
        let old = if frame.slip { [count, 0xffff, offset] } else { [0xffff, u64::MAX, u64::MAX] };
        put(&mut zip, &[(0x0605_4b50, 4), (0, 4), (old[0], 2), (old[0], 2), (old[1], 4), (old[2], 4)]);
    } else {
        put(&mut zip, &[(0x0605_4b50, 4), (0, 4), (count, 2), (count, 2), (size, 4), (offset, 4)]);
    }
    put(&mut zip, &[(frame.comment.len() as u64, 2)]);
    zip.extend(&frame.comment);
    zip.extend(&frame.after);
    zip
}

/// What may stand below the prefix; the first ones are legal and do not collide.
const NAMES: &[&str] = &[
    "go.mod",
    "LICENSE",
    "a.go",
    "d/b.go",
    "d/e/c.go",
    "d/",
    "",
    "日本/ü.go",
    "x y.txt",
    "Go.mod",
    "d/go.mod",
    "A.go",
    "a.go/x",
    "D/z.go",
    "ſ.go",
    "s.go",
    "a.go",
    "con",
    "d/../x",
    "/abs",
    "d//x",
    "back\\slash",
    "c:d",
    "x.",
    "ctl\u{1}",
    "nl\n.go",
    "'",
    "d",
    "e/",
    "e/",
];

/// A zip that is mostly good, with one or two things wrong with it.
pub(crate) fn nasty(dice: &mut Dice, prefix: &str) -> Vec<u8> {
    let reach = if dice.one_in(3) { NAMES.len() } else { 9 };
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..dice.below(6) {
        let name = dice.pick(&NAMES[..reach]);
        if entries.iter().any(|e| e.name.ends_with(name.as_bytes())) && !name.ends_with('/') && !dice.one_in(8) {
            continue;
        }
        let folder = name.is_empty() || name.ends_with('/');
        let length = if folder { 0 } else { dice.below(80) };
        let content: Vec<u8> = (0..length).map(|_| dice.pick(b"abc\n")).collect();
        let name = format!("{prefix}{name}").into_bytes();
        let mut entry = if dice.one_in(2) { Entry::deflated(&name, &content) } else { Entry::stored(&name, &content) };
        if folder {
            entry = Entry::stored(&name, &[]);
        } else if dice.one_in(2) {
            let signature = dice.one_in(2);
            entry = entry.described(signature);
        }
        if !folder && dice.one_in(40) {
            entry = Entry::unended(&name, &content);
        }
        entry.zip64 = dice.one_in(5);
        entries.push(entry);
    }
    let mut frame = Frame { zip64_end: dice.one_in(6), slip: dice.one_in(3), ..Frame::default() };
    if dice.one_in(6) {
        frame.before = b"#!/bin/sh\n".to_vec();
    }
    for _ in 0..dice.below(3) {
        lie(dice, &mut entries, &mut frame);
    }
    let mut zip = write(&entries, &frame);
    if dice.one_in(4) {
        let place = dice.below(zip.len());
        zip[place] ^= 1 << dice.below(8);
    }
    if dice.one_in(40) {
        zip.truncate(dice.below(zip.len()));
    }
    zip
}

/// Changes one thing.
fn lie(dice: &mut Dice, entries: &mut Vec<Entry>, frame: &mut Frame) {
    let odd = dice.pick(&[1, 2, 3, 10, 65535, 65536, 1 << 32, 0_u64.wrapping_sub(1), 0_u64.wrapping_sub(7), 1 << 63, i64::MAX as u64]);
    match dice.below(12) {
        0 => frame.count_lie = odd,
        1 => frame.size_lie = odd,
        2 => frame.offset_lie = odd,
        3 => {
            frame.comment =
                dice.pick(&[b"x".to_vec(), b"PK\x05\x06".to_vec(), [b"PK\x05\x06".as_slice(), &[0; 18]].concat(), vec![b'y'; 1500]])
        }
        4 => frame.after = dice.pick(&[b"x".to_vec(), vec![0; 30], vec![b'z'; 1100]]),
        5 => frame.between = dice.pick(&[b"PK\x01\x02".to_vec(), vec![0; 50], b"PK\x05\x06".to_vec()]),
        // A size of the directory that a reader with 16 bits in mind takes for "see zip64".
        6 => frame.size_lie = 0xffff,
        _ if entries.is_empty() => {}
        7 => {
            let again = dice.pick(entries);
            entries.push(again);
        }
        _ => {
            let i = dice.below(entries.len());
            lie_about(dice, &mut entries[i], odd);
        }
    }
}

fn lie_about(dice: &mut Dice, entry: &mut Entry, odd: u64) {
    match dice.below(16) {
        0 => entry.local_name = b"other".to_vec(),
        1 => entry.size = entry.size.wrapping_add(odd),
        2 => entry.packed_size = entry.packed_size.wrapping_add(odd),
        3 => entry.crc ^= 1,
        4 => entry.crc = 0,
        5 => entry.method = dice.pick(&[0, 8, 9, 12, 93]),
        6 => entry.flags ^= dice.pick(&[1, 8, 0x800, 0x2000]),
        7 => entry.shift = odd.cast_signed(),
        8 => entry.local_signature ^= 1,
        9 => entry.local = false,
        // Names that another reader takes for code page 437, or finds in an Info-ZIP field instead.
        10 => entry.name.push(dice.pick(b"\xff\x81\xe9")),
        11 => {
            entry.extra = dice.pick(&[
                vec![0; 3],
                vec![1, 0, 8, 0, 5, 0, 0, 0, 0, 0, 0, 0],
                vec![1, 0, 9, 0, 1],
                vec![1, 0, 0, 0],
                unicode_path_field(),
            ])
        }
        12 => entry.comment = b"comment".to_vec(),
        13 => {
            // Bytes behind the end of the deflate stream, or of the data.
            entry.packed.extend(b"junk");
            entry.packed_size += 4;
        }
        14 => {
            let cut = dice.below(entry.packed.len() + 1);
            entry.packed.truncate(cut);
            entry.packed_size = cut as u64;
        }
        _ => {
            entry.size = dice.pick(&[500 << 20, (500 << 20) + 1, (16 << 20) + 1, u64::from(u32::MAX)]);
        }
    }
}

/// The field that renames an entry for readers that know it. Go doesn't.
fn unicode_path_field() -> Vec<u8> {
    let mut field = Vec::new();
    put(&mut field, &[(0x7075, 2), (9, 2), (1, 1), (0, 4)]);
    field.extend(b"evil");
    field
}
