//! Names that a file inside of a module can have, and when two of them are one file on some disk.

use std::borrow::Cow;

use super::path::is_file_element;
use super::unicode_tables::{FOLDS, LETTER_EDGES};

/// Why no file inside of a module can have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilePathError {
    /// Nothing at all, a slash at either end, or two in a row.
    #[error("an empty element")]
    Empty,
    /// `.`, `..`, or a name that Windows would shorten.
    #[error("an element that ends in a dot")]
    Dot,
    /// Neither a letter, nor a digit, nor one of the allowed punctuation characters.
    #[error("the character {0:?}")]
    Character(char),
    /// `con`, `com1` and their like, with or without an extension.
    #[error("the name of a device on Windows")]
    Device,
}

/// Checks a slash-separated path below a module's root: `CheckFilePath` of `golang.org/x/mod/module`.
///
/// Letters are those of the Unicode version that Go's own tables have, which is not the version of this compiler.
///
/// # Errors
/// The first thing in `path` that the go command would refuse.
pub fn check_file_path(path: &str) -> Result<(), FilePathError> {
    path.split('/').try_for_each(check_element)
}

fn check_element(element: &str) -> Result<(), FilePathError> {
    if element.is_empty() {
        return Err(FilePathError::Empty);
    }
    if element.ends_with('.') {
        return Err(FilePathError::Dot);
    }
    if let Some(c) = element.chars().find(|c| !is_file_character(*c)) {
        return Err(FilePathError::Character(c));
    }
    // What else an element must not be was dealt with above, so only the device is left.
    if is_file_element(element) { Ok(()) } else { Err(FilePathError::Device) }
}

fn is_file_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&()+,-.=@[]^_{}~ ".contains(c) || (!c.is_ascii() && is_letter(c))
}

/// Whether a character beyond ASCII is a letter (general category L), as Go knows letters.
fn is_letter(c: char) -> bool {
    let edges_before = LETTER_EDGES.partition_point(|edge| *edge <= u32::from(c));
    edges_before % 2 == 1
}

/// Gives two names the same text exactly if they are equal under Unicode's simple case folding.
///
/// Compare two names by this, and never store a file under it: it is not what anybody calls the file.
#[must_use]
pub fn fold(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(fold_character).collect())
}

fn fold_character(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let Ok(code) = i32::try_from(u32::from(c)) else { return c };
    let (runs, _) = FOLDS.as_chunks::<4>();
    let run = runs.partition_point(|[_, last, ..]| *last < code);
    let folded = runs.get(run).and_then(|[first, _, step, shift]| {
        let inside = *first <= code && (code - first) % step == 0;
        inside.then_some(code + shift)
    });
    folded.and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32).unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_some_disk_can_not_hold_are_refused() {
        for (path, why) in [
            ("", FilePathError::Empty),
            ("/a", FilePathError::Empty),
            ("a/", FilePathError::Empty),
            ("a//b", FilePathError::Empty),
            ("a/../b", FilePathError::Dot),
            (".", FilePathError::Dot),
            ("a./b", FilePathError::Dot),
            ("a\\b", FilePathError::Character('\\')),
            ("a:b", FilePathError::Character(':')),
            ("a\u{0}b", FilePathError::Character('\u{0}')),
            ("a\nb", FilePathError::Character('\n')),
            ("it's", FilePathError::Character('\'')),
            ("x\u{301}", FilePathError::Character('\u{301}')),
            ("\u{2028}", FilePathError::Character('\u{2028}')),
            ("a/NuL", FilePathError::Device),
            ("com1.tar.gz", FilePathError::Device),
        ] {
            assert_eq!(check_file_path(path), Err(why), "{path:?}");
        }
    }

    #[test]
    fn names_that_go_accepts_are_accepted() {
        for path in ["a.go", ".gitignore", "-x", "a b/c", "日本語/ü.go", "com0", "com10", "console", "x~1", "[id]/{a}", "ſ"] {
            assert_eq!(check_file_path(path), Ok(()), "{path:?}");
        }
    }

    #[test]
    fn folding_is_unicodes_and_not_only_asciis() {
        for (one, other) in [("Go.Mod", "go.mod"), ("K", "\u{212a}"), ("s", "ſ"), ("Σ", "ς"), ("σ", "ς"), ("É", "é"), ("ǅ", "ǆ")] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        // Full folding, which Go does not do, would make these equal.
        assert_ne!(fold("ß"), fold("ss"));
        assert_ne!(fold("İ"), fold("i"));
    }

    #[test]
    fn the_tables_are_in_order() {
        assert!(LETTER_EDGES.is_sorted_by(|a, b| a < b));
        let (runs, rest) = FOLDS.as_chunks::<4>();
        assert!(rest.is_empty());
        assert!(runs.is_sorted_by(|[_, last, ..], [first, ..]| last < first));
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing(name in "\\PC{0,12}") {
            let once = fold(&name).into_owned();
            prop_assert_eq!(fold(&once).into_owned(), once);
        }

        #[test]
        fn an_accepted_path_stays_in_its_folder(path in "[a./ -]{0,12}") {
            if check_file_path(&path).is_ok() {
                prop_assert!(path.split('/').all(|e| !e.is_empty() && e != "." && e != ".."));
            }
        }
    }
}
