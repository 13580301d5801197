//! The patterns of `GOPRIVATE`, `GONOSUMDB` and the like: globs that match a module path, or the beginning of one.

/// A list of globs, as Go's variables have them, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    /// Globs of elements of tokens.
    globs: Vec<Vec<Vec<Token>>>,
    ignore_case: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `[a-z]` and `[^a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A glob that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pattern: a [class] is not closed, is empty, or ends with a backslash")]
pub struct PatternError(String);

impl Patterns {
    /// Parses globs. Empty ones are skipped.
    ///
    /// # Errors
    /// The first glob that `path.Match` would refuse.
    pub fn parse<'a>(globs: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        let globs = globs.into_iter().map(|glob| glob.trim().trim_end_matches('/')).filter(|glob| !glob.is_empty());
        let elements = |glob: &str| glob.split('/').map(tokens).collect::<Option<Vec<_>>>();
        let globs = globs.map(|glob| elements(glob).ok_or_else(|| PatternError(glob.to_owned()))).collect::<Result<_, _>>()?;
        Ok(Self { globs, ignore_case: false })
    }

    /// The same globs, for which upper and lower case of ASCII are one. Go tells them apart; where a rule is a fence, another
    /// spelling of the same place must not get round it.
    #[must_use]
    pub fn ignoring_case(self) -> Self {
        Self { ignore_case: true, ..self }
    }

    /// Whether there is no glob.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    /// Whether a glob matches the path or its first elements, as `module.MatchPrefixPatterns` says.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.globs.iter().any(|glob| {
            let mut elements = path.split('/');
            glob.iter().all(|tokens| elements.next().is_some_and(|element| is_match(tokens, element, self.ignore_case)))
        })
    }
}

fn tokens(element: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = element.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::Char(chars.next()?),
            '[' => class(&mut chars)?,
            c => Token::Char(c),
        });
    }
    Some(tokens)
}

fn class(chars: &mut std::str::Chars<'_>) -> Option<Token> {
    let mut rest = chars.clone();
    let negated = rest.next()? == '^';
    if negated {
        chars.next();
    }
    let one = |chars: &mut std::str::Chars<'_>| match chars.next()? {
        '\\' => chars.next(),
        '-' | ']' => None,
        c => Some(c),
    };
    let mut ranges = Vec::new();
    loop {
        let mut rest = chars.clone();
        if rest.next()? == ']' && !ranges.is_empty() {
            chars.next();
            return Some(Token::Class { negated, ranges });
        }
        let low = one(chars)?;
        let mut rest = chars.clone();
        let high = if rest.next()? == '-' {
            chars.next();
            one(chars)?
        } else {
            low
        };
        ranges.push((low, high));
    }
}

/// Linear in practice: after a star, only the last star is ever tried again.
fn is_match(tokens: &[Token], element: &str, ignore_case: bool) -> bool {
    let chars: Vec<char> = element.chars().collect();
    let (mut t, mut c, mut star) = (0, 0, None);
    loop {
        match (tokens.get(t), chars.get(c)) {
            (Some(Token::Star), _) => {
                star = Some((t + 1, c));
                t += 1;
                continue;
            }
            (Some(token), Some(char)) if token.is_match(*char) || (ignore_case && token.is_match(swap_case(*char))) => {
                t += 1;
                c += 1;
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        match star {
            Some((after, at)) if at < chars.len() => {
                (t, c) = (after, at + 1);
                star = Some((after, at + 1));
            }
            _ => return false,
        }
    }
}

fn swap_case(c: char) -> char {
    if c.is_ascii_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() }
}

impl Token {
    fn is_match(&self, char: char) -> bool {
        match self {
            Self::Char(wanted) => *wanted == char,
            Self::Any => true,
            Self::Star => false,
            Self::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&char)) != *negated,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn matches(glob: &str, path: &str) -> bool {
        Patterns::parse(glob.split(',')).unwrap().matches(path)
    }

    #[test]
    fn a_glob_matches_whole_elements_from_the_beginning() {
        for (glob, path) in [
            ("corp.example", "corp.example/a/b"),
            ("*.corp.example", "git.corp.example/a"),
            ("corp.example/*", "corp.example/a"),
            ("corp.example/*/x", "corp.example/a/x/y"),
            ("a.example,corp.example/", "corp.example"),
            ("corp.example/[a-c]?", "corp.example/bz"),
            ("corp.example/[^a-c]*", "corp.example/x"),
            ("corp.example/a*c*e", "corp.example/abcde"),
            ("corp.example/\\*", "corp.example/*"),
        ] {
            assert!(matches(glob, path), "{glob} {path}");
        }
        for (glob, path) in [
            ("corp.example", "corp.example.evil/a"),
            ("*.corp.example", "corp.example/a"),
            ("corp.example/*", "corp.example"),
            ("corp.example/*", "x/corp.example/a"),
            ("corp.example/a*c*e", "corp.example/abcd"),
            ("corp.example/[^a-c]*", "corp.example/b"),
            ("", "corp.example"),
        ] {
            assert!(!matches(glob, path), "{glob} {path}");
        }
    }

    #[test]
    fn case_counts_unless_it_is_ignored() {
        let patterns = Patterns::parse(["corp.example/Te[a-c]"]).unwrap();
        assert!(!patterns.matches("corp.example/tea"));
        let folded = patterns.ignoring_case();
        assert!(folded.matches("corp.example/tea") && folded.matches("CORP.example/TEB/x") && !folded.matches("corp.example/ted"));
    }

    #[test]
    fn a_broken_glob_is_an_error() {
        for glob in ["a[", "a[]", "a[b", "a\\", "a[b-]", "a[-b]"] {
            assert!(Patterns::parse([glob]).is_err(), "{glob}");
        }
    }
}
