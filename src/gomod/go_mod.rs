//! go.mod files, read as the go command reads those of dependencies (`modfile.ParseLax`): what it does not know there
//! is no error, so that old caches can hold the files of newer Go versions.
//!
//! Only what a cache acts on is kept. `exclude`, `replace` and `retract` work in other places than a cache.

use super::ModulePath;
use super::go_mod_lines::{GoModError, Line, lines};
use super::go_version::go_version_at_least;
use super::major::{check_path_major, split_path_version};
use super::semver::{canonical_version, number};

/// What a go.mod file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoMod {
    /// The path of the `module` line, unquoted. Go does not check it here, so neither do we: see [`ModulePath::new`].
    pub module: Option<String>,
    /// The version of the `go` line, such as `1.21` or `1.21.3`.
    pub go: Option<String>,
    /// The name on the `toolchain` line, such as `go1.22.1` or `default`. It counts in main modules only; a line that Go
    /// would refuse there, and any after the first, is left out.
    pub toolchain: Option<String>,
    /// The `require` lines, in their order; a module may appear twice.
    pub requires: Vec<Requirement>,
}

/// A line of `require`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The module's path, unquoted; its major version fits the version's.
    pub path: String,
    /// The version in its canonical form: `v1.2.0` where the file has `v1.2`.
    pub version: String,
    /// Whether the comment `// indirect` marks it as not imported by the module itself.
    pub indirect: bool,
}

impl GoMod {
    /// Reads a file. Bytes that are not UTF-8 stand for U+FFFD, one each, as in Go.
    ///
    /// # Errors
    /// What the go command refuses even in a dependency's file; the error has the line.
    pub fn parse(file: &[u8]) -> Result<Self, GoModError> {
        let text = decode(file);
        let mut read = Self::default();
        for line in lines(&text)? {
            read.add(&line).map_err(|problem| GoModError { line: line.number, problem })?;
        }
        Ok(read)
    }

    /// Whether the `go` line, or [its default](super::GO_VERSION_IF_ABSENT), is at least this version.
    #[must_use]
    pub fn go_at_least(&self, minimum: &str) -> bool {
        go_version_at_least(self.go.as_deref(), minimum)
    }

    fn add(&mut self, line: &Line<'_>) -> Result<(), String> {
        // A block of a verb that has none is skipped, whatever is in it.
        match (line.verb, line.in_block) {
            ("module", _) => {
                if self.module.is_some() {
                    return Err("a second module line".to_owned());
                }
                self.module = Some(unquote(one_arg(line)?)?);
            }
            ("go", false) => {
                if self.go.is_some() {
                    return Err("a second go line".to_owned());
                }
                let version = one_arg(line)?;
                let go = lax_go_version(version).ok_or_else(|| format!("{version:?} is not a Go version such as 1.23 or 1.23.0"))?;
                self.go = Some(go.to_owned());
            }
            ("toolchain", false) => {
                let named = one_arg(line).ok().filter(|name| *name == "default" || *name == "go1" || name.starts_with("go1."));
                self.toolchain = self.toolchain.take().or(named.map(str::to_owned));
            }
            ("require", _) => self.requires.push(requirement(line)?),
            // Nothing to keep, but Go refuses a file where it is wrong.
            ("ignore", _) => {
                unquote(one_arg(line)?)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// What the go command takes for the go.mod of a module that has none.
///
/// No path that [`ModulePath`] lets pass needs quotes.
#[must_use]
pub fn synthesized_go_mod(module: &ModulePath) -> String {
    format!("module {module}\n")
}

fn one_arg<'a>(line: &Line<'a>) -> Result<&'a str, String> {
    match line.args.as_slice() {
        [arg] => Ok(arg),
        _ => Err(format!("{} wants one argument and not {}", line.verb, line.args.len())),
    }
}

fn requirement(line: &Line<'_>) -> Result<Requirement, String> {
    let [path, version] = line.args.as_slice() else {
        return Err("require wants a module path and a version".to_owned());
    };
    let (path, version) = (unquote(path)?, unquote(version)?);
    let version = canonical_version(&version).ok_or_else(|| format!("version {version:?} must be of the form v1.2.3"))?;
    let (_, major) = split_path_version(&path).ok_or_else(|| format!("{path:?} is not a module path"))?;
    check_path_major(&version, major).map_err(|e| e.to_string())?;
    Ok(Requirement { path, version, indirect: is_indirect(line.comment) })
}

/// `// indirect` alone, or `// indirect; why`.
fn is_indirect(comment: &str) -> bool {
    let mut words = comment.strip_prefix("//").unwrap_or_default().split_whitespace();
    matches!((words.next(), words.next()), (Some("indirect"), None) | (Some("indirect;"), Some(_)))
}

/// `1.21`, `1.21.3` and `1.21rc1` stay; a dependency's `v1.21` with anything after it counts as `1.21`.
fn lax_go_version(text: &str) -> Option<&str> {
    let plain = text.strip_prefix('v').unwrap_or(text);
    let (major, rest) = number(plain).filter(|(major, _)| *major != "0")?;
    let (minor, rest) = number(rest.strip_prefix('.')?)?;
    let language = plain.get(..major.len() + 1 + minor.len())?;
    if plain.len() == text.len() && is_end_of_go_version(rest) {
        return Some(text);
    }
    (!rest.is_empty() && !rest.contains('\n')).then_some(language)
}

/// Nothing, `.3`, `rc1`, or both.
fn is_end_of_go_version(rest: &str) -> bool {
    let rest = match rest.strip_prefix('.').map(number) {
        Some(Some((_, rest))) => rest,
        Some(None) => return false,
        None => rest,
    };
    let digits = rest.trim_start_matches(|c: char| c.is_ascii_lowercase());
    rest.is_empty() || (digits.len() < rest.len() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The value of a token. Other quotes than `"` are reserved: Go reads back quotes as a token but accepts them nowhere.
fn unquote(token: &str) -> Result<String, String> {
    if let Some(quoted) = token.strip_prefix('"') {
        let bad = || format!("the quoted string {token} is malformed");
        return quoted.strip_suffix('"').and_then(unescape_string).ok_or_else(bad);
    }
    if token.contains(['"', '\'', '`']) {
        return Err(format!("{token} has a quote in it; quoted strings begin and end with \""));
    }
    Ok(token.to_owned())
}

/// The escapes of Go's interpreted string literals.
fn unescape_string(quoted: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let kind = escape.chars().next()?;
        let (digits, radix) = match kind {
            'x' => (escape.get(1..3)?, 16),
            'u' => (escape.get(1..5)?, 16),
            'U' => (escape.get(1..9)?, 16),
            '0'..='7' => (escape.get(..3)?, 8),
            _ => ("", 0),
        };
        if digits.is_empty() {
            bytes.push(simple_escape(kind)?);
        } else if !digits.chars().all(|c| c.is_digit(radix)) {
            return None;
        } else if matches!(kind, 'u' | 'U') {
            let c = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            bytes.push(u8::from_str_radix(digits, radix).ok()?);
        }
        let length = digits.len() + usize::from(radix != 8);
        rest = escape.get(length..)?;
    }
    // A bare quote can't be here: it would have ended the token.
    bytes.extend_from_slice(rest.as_bytes());
    Some(decode(&bytes))
}

fn simple_escape(kind: char) -> Option<u8> {
    Some(match kind {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '"' => u8::try_from(kind).ok()?,
        _ => return None,
    })
}

/// UTF-8 with a U+FFFD for each byte that is none, as Go decodes it.
fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_at_a_line_of_theirs(file in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Err(error) = GoMod::parse(&file) {
                prop_assert!(error.line as usize <= 1 + file.iter().filter(|b| **b == b'\n').count());
            }
        }

        #[test]
        fn requirements_come_back(versions in prop::collection::vec((0_u8..2, 0_u16.., any::<bool>()), 0..6), crlf in any::<bool>(), block in any::<bool>()) {
            let wanted: Vec<_> = versions.iter().enumerate().map(|(i, (major, minor, indirect))| Requirement {
                path: format!("corp.example/Mod{i}"), version: format!("v{major}.{minor}.0"), indirect: *indirect,
            }).collect();
            let mut text = "module corp.example/m\n".to_owned();
            text += if block { "require (\n" } else { "" };
            for r in &wanted {
                text += &format!("{}{} \"{}\"{}\n", if block { "\t" } else { "require " }, r.path, r.version, if r.indirect { " // indirect" } else { "" });
            }
            text += if block { ")\n" } else { "" };
            let text = if crlf { text.replace('\n', "\r\n") } else { text };
            prop_assert_eq!(GoMod::parse(text.as_bytes()).unwrap().requires, wanted);
        }

        #[test]
        fn what_we_synthesize_can_be_read(path in "[a-z]{1,3}\\.example(/[A-Za-z0-9~_.-]{1,6}){0,3}") {
            if let Ok(module) = ModulePath::new(&path) {
                let read = GoMod::parse(synthesized_go_mod(&module).as_bytes()).unwrap();
                prop_assert_eq!(read, GoMod { module: Some(path), ..GoMod::default() });
            }
        }
    }

    fn problem(text: &str) -> (u32, String) {
        let error = GoMod::parse(text.as_bytes()).unwrap_err();
        (error.line, error.problem)
    }

    #[test]
    fn the_parts_of_a_file_are_found() {
        let text = "// Deprecated: use v2.\nmodule \"corp.example/\\x6d\"\n\ngo 1.21.3\ntoolchain go1.22.1\nnovelty x (\n y\n)\n\
            require corp.example/a v1.2 // indirect; why\nrequire (\n corp.example/b/v2 v2.0.0 // indirect\n gopkg.in/c.v1 v1.0.0 // indirect not\n)\n\
            exclude corp.example/a v1.0.0\nreplace corp.example/a => ../a\nretract [v1.0.0, v1.1.0]\n";
        let read = GoMod::parse(text.as_bytes()).unwrap();
        assert_eq!(read.module.as_deref(), Some("corp.example/m"));
        assert_eq!((read.go.as_deref(), read.toolchain.as_deref()), (Some("1.21.3"), Some("go1.22.1")));
        let requires: Vec<_> = read.requires.iter().map(|r| (r.path.as_str(), r.version.as_str(), r.indirect)).collect();
        assert_eq!(
            requires,
            [("corp.example/a", "v1.2.0", true), ("corp.example/b/v2", "v2.0.0", true), ("gopkg.in/c.v1", "v1.0.0", false),]
        );
        assert!(read.go_at_least("1.17") && !GoMod::default().go_at_least("1.17"));
    }

    #[test]
    fn what_go_refuses_is_refused_with_its_line() {
        for (text, line, part) in [
            ("module a\nmodule b", 2, "second"),
            ("module", 1, "one argument"),
            ("module 'a'", 1, "quote"),
            ("module `a`", 1, "quote"),
            ("module \"\\q\"", 1, "malformed"),
            ("\n\ngo 1.5x.\ngo 1.5", 4, "second"),
            ("go v1.5", 1, "v1.5"),
            ("go 1", 1, "Go version"),
            ("require a.example v2.0.0", 1, "v0 or v1"),
            ("require (\na.example master\n)", 2, "v1.2.3"),
            ("require a.example/v1 v1.0.0", 1, "module path"),
            ("require a.example", 1, "wants"),
            ("ignore a b", 1, "one argument"),
            ("x\ny (\nz", 3, "not closed"),
        ] {
            let (at, problem) = problem(text);
            assert_eq!(at, line, "{text:?}: {problem}");
            assert!(problem.contains(part), "{text:?}: {problem}");
        }
    }

    #[test]
    fn a_dependency_may_hold_what_we_do_not_know() {
        for text in ["", "go (\n1\n)", "toolchain 1 2", "retract (\nx\n)", "retract x y z", "tool 'x", "exclude", "require x (\n1\n)"] {
            assert_eq!(GoMod::parse(text.as_bytes()), Ok(GoMod::default()), "{text}");
        }
        for (text, go) in
            [("go 1.20", "1.20"), ("go 1.21rc1", "1.21rc1"), ("go v1.20.x", "1.20"), ("go 1.20.x", "1.20"), ("go 1.2-3", "1.2")]
        {
            assert_eq!(GoMod::parse(text.as_bytes()).unwrap().go.as_deref(), Some(go), "{text}");
        }
    }

    #[test]
    fn strings_are_unquoted_as_go_does() {
        for (quoted, plain) in [
            (r#""a\tb""#, Some("a\tb")),
            (r#""\u00e9\U0001F600\101\xc3\xa9""#, Some("é😀Aé")),
            (r#""\xff""#, Some("\u{fffd}")),
            (r#""\ud800""#, None),
            (r#""\400""#, None),
            (r#""\x+1""#, None),
            (r#""\'""#, None),
            (r#""a"#, None),
            ("plain", Some("plain")),
        ] {
            assert_eq!(unquote(quoted).ok().as_deref(), plain, "{quoted}");
        }
    }
}
