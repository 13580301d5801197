//! go.sum files: a line `<path> <version> <hash>` for a zip, `<path> <version>/go.mod <hash>` for a go.mod file.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{ModulePath, Version};

/// The hash of an empty go.mod file. Go 1.11 wrote it for what was no module; the go command passes over it since.
const OLD_BUG: &str = "h1:G7mAYYxgmS0lVkHyy2hEOLQCFB0DlQFTMLWggykrydY=";

/// A line of a go.sum file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The module.
    pub module: ModulePath,
    /// Its version.
    pub version: Version,
    /// What the hash is of.
    pub file: SummedFile,
    /// `h1:` and the base64 of a SHA-256.
    pub hash: String,
}

/// A file that has a hash in go.sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SummedFile {
    /// The module's files.
    Zip,
    /// The go.mod alone.
    GoMod,
}

/// A line that is no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("go.sum line {line}: {problem}")]
pub struct GoSumError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: &'static str,
}

/// Reads a file. Empty lines are skipped, and so are hashes of kinds other than `h1:`, which a future Go may write.
/// Doubles are kept.
///
/// Stricter than the go command, which never looks at a line that nobody needs: every path, version and hash is checked.
///
/// # Errors
/// The first line that has not three fields, or one that is impossible.
pub fn parse_go_sum(file: &str) -> Result<Vec<Sum>, GoSumError> {
    let mut sums = Vec::new();
    for (text, line) in file.split('\n').zip(1..) {
        match parse_line(text) {
            Ok(sum) => sums.extend(sum),
            Err(problem) => return Err(GoSumError { line, problem }),
        }
    }
    Ok(sums)
}

fn parse_line(text: &str) -> Result<Option<Sum>, &'static str> {
    let mut fields = text.split_whitespace();
    let (path, version, hash) = match (fields.next(), fields.next(), fields.next(), fields.next()) {
        (None, ..) => return Ok(None),
        (Some(path), Some(version), Some(hash), None) => (path, version, hash),
        _ => return Err("it must have a path, a version and a hash"),
    };
    let Some(digest) = hash.strip_prefix("h1:").filter(|_| hash != OLD_BUG) else { return Ok(None) };
    if !STANDARD.decode(digest).is_ok_and(|bytes| bytes.len() == 32) {
        return Err("the hash is not the base64 of a SHA-256");
    }
    let (version, file) = version.strip_suffix("/go.mod").map_or((version, SummedFile::Zip), |version| (version, SummedFile::GoMod));
    let module = ModulePath::new(path).map_err(|_| "the first field is not a module path")?;
    let version = Version::new(version).map_err(|_| "the second field is not a version")?;
    Ok(Some(Sum { module, version, file, hash: hash.to_owned() }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gomod::hash_go_mod;

    proptest! {
        #[test]
        // Three letters may be the name of a device, such as prn, which is no path.
        fn lines_come_back(names in prop::collection::vec(("[a-z]{1,2}\\.example/[B-Z]{1,3}x", "v[0-9]\\.[0-9]\\.0", any::<bool>()), 0..5), end in "\r?\n") {
            let mut text = String::new();
            for (path, version, go_mod) in &names {
                let hash = hash_go_mod(path.as_bytes());
                text += &format!("{path} {version}{} {hash}{end}", if *go_mod { "/go.mod" } else { "" });
            }
            let sums = parse_go_sum(&text).unwrap();
            prop_assert_eq!(sums.len(), names.len());
            for (sum, (path, version, go_mod)) in sums.iter().zip(&names) {
                prop_assert_eq!((sum.module.as_str(), sum.version.as_str()), (path.as_str(), version.as_str()));
                prop_assert_eq!(sum.file == SummedFile::GoMod, *go_mod);
                prop_assert_eq!(&sum.hash, &hash_go_mod(path.as_bytes()));
            }
        }
    }

    #[test]
    fn an_error_names_its_line() {
        let good = format!("a.example/m v1.0.0 {}", hash_go_mod(b"x"));
        for (bad, part) in [
            ("a.example/m v1.0.0", "must have"),
            ("a.example/m v1.0.0 h1:x y", "must have"),
            ("a.example/m v1.0.0 h1:AAAA", "SHA-256"),
            (&good.replace("a.example/m", "m"), "module path"),
            (&good.replace("v1.0.0", "v1.0.0/zip"), "version"),
        ] {
            let error = parse_go_sum(&format!("\n{good}\n{bad}\n{good}\n")).unwrap_err();
            assert_eq!(error.line, 3, "{bad}");
            assert!(error.problem.contains(part), "{error}");
        }
    }

    #[test]
    fn what_go_passes_over_is_passed_over() {
        let text = format!(
            "\n  \na.example/m v1.0.0 {OLD_BUG}\na.example/m v1.0.0 h9:x\n\ta.example/m\u{2003}v1.0.0/go.mod {}",
            hash_go_mod(b"x")
        );
        let sums = parse_go_sum(&text).unwrap();
        assert_eq!(sums.len(), 1);
        assert_eq!(sums[0].file, SummedFile::GoMod);
        assert_eq!(parse_go_sum(""), Ok(Vec::new()));
    }
}
