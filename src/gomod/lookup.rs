//! What a checksum database answers, before anything in it is believed: `golang.org/x/mod/sumdb/tlog`'s formats.

use super::tlog::{Hash, MAX_RECORDS, Tree};

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

    /// What the record says of a module's version: the `h1:` hashes of the zip and of the go.mod.
    ///
    /// The answer is worth as much as the record: prove it first.
    #[must_use]
    pub fn hashes(&self, module: &str, version: &str) -> (Option<&'a str>, Option<&'a str>) {
        let of = |version: &str| {
            let prefix = format!("{module} {version} ");
            self.text.lines().find_map(|line| line.strip_prefix(&prefix))
        };
        (of(version), of(&format!("{version}/go.mod")))
    }
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
    }

    #[test]
    fn other_answers_are_refused() {
        let bad: [&[u8]; 9] =
            [b"", b"12", b"12\n", b"12\nx\n", b"x\nx\n\n", b"-1\nx\n\n", b"012\nx\n\n", b"12\nx\ty\n\n", b"12\nx\xff\n\n"];
        for bad in bad {
            assert_eq!(Lookup::parse(bad), Err(FormatError::Record), "{}", String::from_utf8_lossy(bad));
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
