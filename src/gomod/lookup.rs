//! What a checksum database answers, before anything in it is believed: `golang.org/x/mod/sumdb/tlog`'s formats.

use super::note::{Note, NoteError};
use super::request::SumdbPath;
use super::tile::TileLevel;
use super::tlog::{HASH_BYTES, Hash, MAX_RECORDS, Tree};

/// The longest description of a tree that Go reads, in bytes.
const MAX_TREE_BYTES: usize = 1_000_000;
const TREE_TITLE: &str = "go.sum database tree\n";

/// A text that does not have the form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No title, number of records and hash, a line each.
    #[error("malformed description of a tree")]
    Tree,
    /// No number, lines and blank line.
    #[error("malformed record")]
    Record,
    /// A record of something that was not asked for.
    #[error("the record is of another version")]
    Version,
    /// No note below the record, or one whose tree does not have the record.
    #[error("no note with a tree that has the record")]
    Note,
    /// Other than as many hashes or records as the tile is wide.
    #[error("a tile has another length than its width")]
    Tile,
}

/// The answer to `/lookup/<module>@<version>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup<'a> {
    /// The record's place in the log.
    pub record: u64,
    /// The record: lines as go.sum has them, the last newline included. Its hash is what a tree proves.
    pub text: &'a str,
    /// A signed note, with a tree that has the record.
    pub note: &'a [u8],
}

impl Tree {
    /// Parses the text of a note. Lines after the third are for other readers.
    ///
    /// # Errors
    /// [`FormatError::Tree`]. The number of records must be written as Go writes it.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let parse = || {
            let mut lines = text.strip_prefix(TREE_TITLE)?.splitn(3, '\n');
            let (size, hash, _others) = (parse_number(lines.next()?)?, Hash::parse(lines.next()?)?, lines.next()?);
            Some(Self { size, hash })
        };
        parse().filter(|_| text.len() <= MAX_TREE_BYTES).ok_or(FormatError::Tree)
    }

    /// The text to sign.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{TREE_TITLE}{}\n{}\n", self.size, self.hash)
    }
}

impl<'a> Lookup<'a> {
    /// Parses an answer.
    ///
    /// Go takes `+1`, `01` and `-1` for numbers of records too. No database writes them, and no tree has the last.
    ///
    /// # Errors
    /// [`FormatError::Record`].
    pub fn parse(answer: &'a [u8]) -> Result<Self, FormatError> {
        let parse = || {
            let newline = answer.iter().position(|b| *b == b'\n')?;
            let (number, rest) = answer.split_at_checked(newline)?;
            let rest = rest.strip_prefix(b"\n")?;
            let blank = rest.windows(2).position(|pair| pair == b"\n\n")?;
            let (text, note) = rest.split_at_checked(blank + 1)?;
            let record = parse_number(std::str::from_utf8(number).ok()?)?;
            let text = std::str::from_utf8(text).ok().filter(|text| is_record(text))?;
            Some(Self { record, text, note: note.strip_prefix(b"\n")? })
        };
        parse().ok_or(FormatError::Record)
    }

    /// What the record says of a module's version: the `h1:` hashes of the zip and of the go.mod. Hashes of other kinds, which a future
    /// database may have beside them, are passed over, as a go command does.
    ///
    /// The answer is worth as much as the record: prove it first.
    #[must_use]
    pub fn hashes(&self, module: &str, version: &str) -> (Option<&'a str>, Option<&'a str>) {
        let of = |version: &str| {
            let prefix = format!("{module} {version} ");
            self.text.lines().find_map(|line| line.strip_prefix(&prefix).filter(|hash| hash.starts_with("h1:")))
        };
        (of(version), of(&format!("{version}/go.mod")))
    }

    /// Whether the record says anything of a module's version.
    #[must_use]
    pub fn is_of(&self, module: &str, version: &str) -> bool {
        self.hashes(module, version) != (None, None)
    }
}

impl SumdbPath {
    /// Whether an answer to this has the form of one: what can be said without the database's key.
    ///
    /// # Errors
    /// See [`FormatError`].
    pub fn check_form(&self, answer: &[u8]) -> Result<(), FormatError> {
        match self {
            Self::Lookup(module, version) => {
                let lookup = Lookup::parse(answer)?;
                if !lookup.is_of(module.as_str(), version.as_str()) {
                    return Err(FormatError::Version);
                }
                let tree = match Note::open(lookup.note, &[]) {
                    Ok(note) => Tree::parse(&note.text)?,
                    Err(NoteError::Unverified(note)) => Tree::parse(&note.text)?,
                    Err(_) => return Err(FormatError::Note),
                };
                if lookup.record < tree.size { Ok(()) } else { Err(FormatError::Note) }
            }
            Self::Tile(tile) => {
                let width = usize::try_from(tile.width()).ok();
                let is_whole = match tile.level() {
                    TileLevel::Data => width.is_some_and(|width| count_records(answer) == Some(width)),
                    TileLevel::Hashes(_) => width.and_then(|width| width.checked_mul(HASH_BYTES)) == Some(answer.len()),
                };
                if is_whole { Ok(()) } else { Err(FormatError::Tile) }
            }
            Self::Supported | Self::Latest => Ok(()),
        }
    }
}

/// How many records a tile of them holds: each is its text and a blank line.
fn count_records(tile: &[u8]) -> Option<usize> {
    let mut rest = std::str::from_utf8(tile).ok()?;
    let mut count = 0;
    while !rest.is_empty() {
        let (record, behind) = rest.split_at_checked(rest.find("\n\n")? + 1)?;
        rest = behind.strip_prefix('\n').filter(|_| is_record(record))?;
        count += 1;
    }
    Some(count)
}

/// Printable lines, none of them empty. The first and only blank line was found by the caller.
fn is_record(text: &str) -> bool {
    text.ends_with('\n') && !text.contains("\n\n") && !text.bytes().any(|b| b < 0x20 && b != b'\n')
}

fn parse_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|n: &u64| *n <= MAX_RECORDS && n.to_string() == text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tree_may_have_more_lines_but_not_fewer() {
        let tree = Tree { size: 7, hash: Hash::of_nothing() };
        assert_eq!(Tree::parse(&tree.text()), Ok(tree));
        assert_eq!(Tree::parse(&format!("{}more\nlines", tree.text())), Ok(tree));
        let text = tree.text();
        let bad = [text.trim_end(), &text.replace('7', "07"), &text.replace('7', "-7"), &text.replace('7', "9223372036854775808")];
        for bad in bad.into_iter().chain(["", TREE_TITLE, &text.replace("tree", "tree v2"), &text.replace('=', "")]) {
            assert_eq!(Tree::parse(bad), Err(FormatError::Tree), "{bad}");
        }
        let long = format!("{text}{}", "x".repeat(MAX_TREE_BYTES));
        assert_eq!(Tree::parse(&long), Err(FormatError::Tree));
    }

    #[test]
    fn an_answer_is_a_record_and_a_note() {
        let lookup = Lookup::parse(b"12\na.example/b v1.0.0 h1:zip=\na.example/b v1.0.0/go.mod h1:mod=\n\nthe note\n\nmore").unwrap();
        assert_eq!((lookup.record, lookup.note), (12, &b"the note\n\nmore"[..]));
        assert_eq!(lookup.hashes("a.example/b", "v1.0.0"), (Some("h1:zip="), Some("h1:mod=")));
        assert_eq!(lookup.hashes("a.example/b", "v1.0.1"), (None, None));
        assert_eq!(lookup.hashes("example/b", "v1.0.0"), (None, None));
        let lookup =
            Lookup::parse(b"12\na.example/b v1.0.0 h9:zip=\na.example/b v1.0.0 h1:zip=\na.example/b v1.0.0/go.mod h9:mod=\n\n").unwrap();
        assert_eq!(lookup.hashes("a.example/b", "v1.0.0"), (Some("h1:zip="), None));
    }

    #[test]
    fn other_answers_are_refused() {
        let bad: [&[u8]; 9] =
            [b"", b"12", b"12\n", b"12\nx\n", b"x\nx\n\n", b"-1\nx\n\n", b"012\nx\n\n", b"12\nx\ty\n\n", b"12\nx\xff\n\n"];
        for bad in bad {
            assert_eq!(Lookup::parse(bad), Err(FormatError::Record), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn an_answer_has_a_form_that_can_be_told_without_a_key() {
        let check = |path: &str, answer: &str| SumdbPath::parse(path).unwrap().check_form(answer.as_bytes());
        let (asked, tree) = ("lookup/a.example/!b@v1.0.0", Tree { size: 13, hash: Hash::of_nothing() }.text());
        let good = format!("12\na.example/B v1.0.0 h1:zip=\n\n{tree}\n— sum.example/db AAAAAAAA\n");
        assert_eq!(check(asked, &good), Ok(()));
        for (bad, why) in [
            (String::new(), FormatError::Record),
            ("try later\n".to_owned(), FormatError::Record),
            (good.replace("v1.0.0", "v1.0.1"), FormatError::Version),
            (good.replace("12\n", "13\n"), FormatError::Note),
            (good.replace(" AAAAAAAA", ""), FormatError::Note),
            (good.trim_end().to_owned(), FormatError::Note),
            (good.replace("\n13\n", "\n"), FormatError::Tree),
        ] {
            assert_eq!(check(asked, &bad), Err(why), "{bad}");
        }
        let hashes = "x".repeat(7 * HASH_BYTES);
        assert_eq!(check("tile/8/1/000.p/7", &hashes), Ok(()));
        for bad in ["", "try later\n", &hashes[1..], &format!("{hashes}x"), &"x".repeat(256 * HASH_BYTES)] {
            assert_eq!(check("tile/8/1/000.p/7", bad), Err(FormatError::Tile));
        }
        let records = "a.example/b v1.0.0 h1:zip=\na.example/b v1.0.0/go.mod h1:mod=\n\n".repeat(3);
        assert_eq!(check("tile/8/data/000.p/3", &records), Ok(()));
        for bad in ["", "try later\n", &records[..records.len() - 1], &records.repeat(2), &records.replace('=', "\t"), &hashes] {
            assert_eq!(check("tile/8/data/000.p/3", bad), Err(FormatError::Tile), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_taken_apart_without_loss(answer in "[0-9]{1,2}\n[ -~\n]{0,20}") {
            if let Ok(lookup) = Lookup::parse(answer.as_bytes()) {
                let again = format!("{}\n{}\n{}", lookup.record, lookup.text, String::from_utf8_lossy(lookup.note));
                prop_assert_eq!(again, answer);
            }
        }
    }
}
