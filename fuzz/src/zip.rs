//! The zip of a module.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, Crc};
use ring::digest::{SHA256, digest};

use crate::gomod::{MAX_ZIP_BYTES, ModulePath, Version, ZipError, check_file_path, fold, hash_zip};
use crate::input::Input;

pub fn run(data: &[u8]) {
    match data.split_first() {
        // A zip as it stands; its beginning is the P of a signature.
        Some((b'P', _)) => as_it_stands(data),
        Some((_, rest)) => made(&mut Input(rest)),
        None => {}
    }
}

fn hash(reader: impl Read + Seek) -> Result<String, ZipError> {
    hash_zip(reader, &ModulePath::new("a.example/m").unwrap(), &Version::new("v1.0.0").unwrap())
}

fn as_it_stands(zip: &[u8]) {
    let whole = hash(Cursor::new(zip));
    let read_slowly = hash(Fussy { zip: Cursor::new(zip), most: 1 + zip.len() % 7, fails_at: usize::MAX, reads: 0 });
    match (&whole, &read_slowly) {
        (Ok(whole), Ok(slowly)) => assert_eq!(whole, slowly),
        (Err(whole), Err(slowly)) => assert_eq!(whole.to_string(), slowly.to_string(), "the length of reads is no property of a zip"),
        _ => panic!("in one piece {whole:?}, in small ones {read_slowly:?}"),
    }
    a_bad_disk_is_no_verdict(zip);
}

/// Whichever read fails, it says nothing about the zip: a zip is thrown away for a verdict.
fn a_bad_disk_is_no_verdict(zip: &[u8]) {
    let mut count = Fussy { zip: Cursor::new(zip), most: usize::MAX, fails_at: usize::MAX, reads: 0 };
    let _either = hash(&mut count);
    let fails_at = 1 + zip.iter().map(|b| usize::from(*b)).sum::<usize>() % count.reads.max(1);
    let result = hash(Fussy { zip: Cursor::new(zip), most: usize::MAX, fails_at, reads: 0 });
    assert!(matches!(result, Err(ZipError::Io(_))), "read {fails_at} failed, and that is {result:?}");
}

/// A disk that gives a little at a time, and fails once.
struct Fussy<'a> {
    zip: Cursor<&'a [u8]>,
    most: usize,
    fails_at: usize,
    reads: usize,
}

impl Read for Fussy<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.reads == self.fails_at {
            return Err(io::Error::other("a bad disk"));
        }
        let most = buffer.len().min(self.most);
        self.zip.read(&mut buffer[..most])
    }
}

impl Seek for Fussy<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.zip.seek(to)
    }
}

struct File {
    name: String,
    content: Vec<u8>,
    deflated: bool,
}

/// Letters that make collisions, dots, forbidden names and other trouble likely.
const LETTERS: &[u8] = b"aAbgo.mdMODkKsS/~1 -_conLICENSE";

/// A zip of the input's making: whether it is accepted, and as what, is known beforehand.
fn made(input: &mut Input) {
    let (junk, change) = (input.byte(), input.byte());
    let mut files = Vec::new();
    while !input.is_empty() && files.len() < 12 {
        let name: String = (0..1 + input.byte() % 8).map(|_| char::from(LETTERS[input.below(LETTERS.len())])).collect();
        // What a folder would hold.
        let most = if name.ends_with('/') { 0 } else { u8::MAX };
        let (deflated, length) = (input.byte() & 1 != 0, input.byte().min(most));
        files.push(File { name, content: input.take(usize::from(length)).to_vec(), deflated });
    }
    let (zip, contents) = written(&files, if junk & 1 != 0 { b"junk before" } else { b"" });
    // Go, and so we, take a header in a content for the directory's if the bytes before the zip make it stand there.
    if junk & 1 != 0 && contents.windows(4).any(|at| zip[at[0]..].starts_with(b"PK\x01\x02")) {
        return as_it_stands(&zip);
    }
    let found = hash(Cursor::new(&zip));
    if !may_be_a_module(&files) {
        assert!(!matches!(found, Ok(_) | Err(ZipError::Io(_) | ZipError::Corrupt(_) | ZipError::TooLarge)), "{found:?}");
        return;
    }
    let expected = h1(&files);
    assert_eq!(found.as_ref().ok(), Some(&expected), "{found:?}");
    as_it_stands(&zip);
    // One other bit in a content, and it is not this module's any more.
    if let Some(at) = contents.get(usize::from(change) % contents.len().max(1)) {
        let mut changed = zip.clone();
        changed[*at] ^= 1 << (change % 8);
        let found = hash(Cursor::new(&changed));
        let same_content = found.as_ref().is_ok_and(|hash| *hash == expected);
        // The last byte of a deflated stream has bits that mean nothing.
        assert!(!same_content || files.iter().any(|file| file.deflated), "a changed content has the same hash");
    }
    // Cut anywhere, it is another one or none: a content may hold a zip of its own.
    let cut = usize::from(change) % zip.len();
    assert!(hash(Cursor::new(&zip[..cut])).ok() != Some(expected), "cut at {cut} of {}", zip.len());
    assert!(zip.len() as u64 <= MAX_ZIP_BYTES);
}

/// The rules in the slow way: each pair of names.
fn may_be_a_module(files: &[File]) -> bool {
    let lower = |name: &str| name.split('/').map(|element| fold(element).into_owned()).collect::<Vec<_>>();
    let legal = |file: &File| {
        let name = file.name.strip_suffix('/').unwrap_or(&file.name);
        let base = name.rsplit('/').next().unwrap_or(name);
        let is_folder = file.name.ends_with('/');
        let go_mod_ok = is_folder || !base.eq_ignore_ascii_case("go.mod") || name == "go.mod";
        check_file_path(name).is_ok() && go_mod_ok
    };
    let collide = |a: &File, b: &File| {
        let (a_path, b_path) = (a.name.trim_end_matches('/'), b.name.trim_end_matches('/'));
        let (a_folded, b_folded) = (lower(a_path), lower(b_path));
        let common = a_folded.iter().zip(&b_folded).take_while(|(a, b)| a == b).count();
        // Two spellings of one folder, or of one name.
        let (a_names, b_names): (Vec<_>, Vec<_>) = (a_path.split('/').collect(), b_path.split('/').collect());
        if a_names[..common] != b_names[..common] {
            return true;
        }
        let a_is_all = common == a_names.len();
        let b_is_all = common == b_names.len();
        let (a_folder, b_folder) = (a.name.ends_with('/'), b.name.ends_with('/'));
        match (a_is_all, b_is_all) {
            (true, true) => !(a_folder && b_folder),
            (true, false) => !a_folder,
            (false, true) => !b_folder,
            (false, false) => false,
        }
    };
    files.iter().all(legal) && files.iter().enumerate().all(|(i, a)| files[..i].iter().all(|b| !collide(a, b)))
}

fn h1(files: &[File]) -> String {
    let mut lines: Vec<_> =
        files.iter().map(|file| (format!("a.example/m@v1.0.0/{}", file.name), digest(&SHA256, &file.content))).collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    let hex = |digest: &[u8]| digest.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let text: String = lines.iter().map(|(name, digest)| format!("{}  {name}\n", hex(digest.as_ref()))).collect();
    format!("h1:{}", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// The zip, and where the bytes of its contents are.
fn written(files: &[File], before: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut zip, mut directory, mut contents) = (before.to_vec(), Vec::new(), Vec::new());
    for file in files {
        let name = format!("a.example/m@v1.0.0/{}", file.name);
        let packed = if file.deflated {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&file.content).unwrap();
            encoder.finish().unwrap()
        } else {
            file.content.clone()
        };
        let mut crc = Crc::new();
        crc.update(&file.content);
        let mut fields = vec![20, 0, 0, 0, if file.deflated { 8 } else { 0 }, 0, 0, 0, 0, 0];
        for number in [crc.sum(), packed.len() as u32, file.content.len() as u32] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        fields.extend_from_slice(&(name.len() as u16).to_le_bytes());
        fields.extend_from_slice(&[0, 0]);
        let offset = (zip.len() - before.len()) as u32;
        zip.extend_from_slice(b"PK\x03\x04");
        zip.extend_from_slice(&fields);
        zip.extend_from_slice(name.as_bytes());
        contents.extend(zip.len()..zip.len() + packed.len());
        zip.extend_from_slice(&packed);
        directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&fields);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let offset = (zip.len() - before.len()) as u32;
    zip.extend_from_slice(&directory);
    zip.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    for _ in 0..2 {
        zip.extend_from_slice(&(files.len() as u16).to_le_bytes());
    }
    zip.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    zip.extend_from_slice(&offset.to_le_bytes());
    zip.extend_from_slice(&[0, 0]);
    (zip, contents)
}
