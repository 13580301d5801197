//! The syntax of go.mod files, below the meaning of any directive: tokens, lines, and blocks in parentheses.
//!
//! The rules are those of `golang.org/x/mod/modfile`; the grammar is <https://go.dev/ref/mod#go-mod-file-grammar>.

/// A file that the go command would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("go.mod line {line}: {problem}")]
pub struct GoModError {
    /// The line of the first problem, from 1.
    pub line: u32,
    /// What is wrong there.
    pub problem: String,
}

/// A directive: a line of its own, or one line of a block.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u32,
    /// The first token of the line, or the one in front of the block's parenthesis.
    pub(super) verb: &'a str,
    /// The other tokens as they are written, quoted strings with their quotes.
    pub(super) args: Vec<&'a str>,
    /// Whether it stands in a block.
    pub(super) in_block: bool,
    /// The comment at the end of the line with its slashes; empty if there is none.
    pub(super) comment: &'a str,
}

/// Splits a file into its directives. Blocks with more than a verb in front of the parenthesis are left out: no
/// directive has such, and Go skips them in the files of dependencies.
pub(super) fn lines(text: &str) -> Result<Vec<Line<'_>>, GoModError> {
    let mut lexer = Lexer::new(text)?;
    let mut lines = Vec::new();
    loop {
        match lexer.peek() {
            Kind::End => return Ok(lines),
            Kind::Newline | Kind::Comment => {
                lexer.take()?;
            }
            Kind::LineComment | Kind::Word => statement(&mut lexer, &mut lines)?,
        }
    }
}

fn statement<'a>(lexer: &mut Lexer<'a>, lines: &mut Vec<Line<'a>>) -> Result<(), GoModError> {
    let first = lexer.take()?;
    let mut args = Vec::new();
    loop {
        let token = lexer.take()?;
        if token.kind.ends_line() {
            lines.push(Line { number: first.line, verb: first.text, args, in_block: false, comment: token.comment() });
            return Ok(());
        }
        // Only at the end of a line does a parenthesis open a block.
        if token.text == "(" && lexer.peek().ends_line() {
            let known = args.is_empty();
            return block(lexer, &first, |line| lines.extend(known.then_some(line)));
        }
        args.push(token.text);
        if token.text == "(" && lexer.peek_text() == ")" {
            let closing = lexer.take()?;
            if lexer.peek().ends_line() {
                lexer.take()?;
                return Ok(());
            }
            args.push(closing.text);
        }
    }
}

fn block<'a>(lexer: &mut Lexer<'a>, opened: &Token<'a>, mut add: impl FnMut(Line<'a>)) -> Result<(), GoModError> {
    loop {
        match lexer.peek() {
            Kind::End => return Err(lexer.error(format!("the block of line {} is not closed", opened.line))),
            Kind::Newline | Kind::Comment | Kind::LineComment => {
                lexer.take()?;
            }
            Kind::Word if lexer.peek_text() == ")" => {
                lexer.take()?;
                if !lexer.peek().ends_line() {
                    return Err(lexer.error("a new line must follow the closing parenthesis"));
                }
                lexer.take()?;
                return Ok(());
            }
            Kind::Word => {
                let first = lexer.take()?;
                let mut args = vec![first.text];
                let end = loop {
                    let token = lexer.take()?;
                    if token.kind.ends_line() {
                        break token;
                    }
                    args.push(token.text);
                };
                add(Line { number: first.line, verb: opened.text, args, in_block: true, comment: end.comment() });
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    End,
    Newline,
    /// A comment after something else, with the end of its line.
    LineComment,
    /// A comment that has its line for itself.
    Comment,
    /// A word, a quoted string or a bracket.
    Word,
}

impl Kind {
    fn ends_line(self) -> bool {
        matches!(self, Self::End | Self::Newline | Self::LineComment)
    }
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    line: u32,
}

impl<'a> Token<'a> {
    fn comment(&self) -> &'a str {
        if self.kind == Kind::LineComment { self.text } else { "" }
    }
}

/// Reads one token ahead, as Go does: so both find the same one of two errors.
struct Lexer<'a> {
    rest: &'a str,
    line: u32,
    /// Nothing but spaces since the last end of a line.
    at_line_start: bool,
    next: Token<'a>,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Result<Self, GoModError> {
        let next = Token { kind: Kind::End, text: "", line: 1 };
        let mut lexer = Self { rest: text, line: 1, at_line_start: true, next };
        lexer.take()?;
        Ok(lexer)
    }

    fn peek(&self) -> Kind {
        self.next.kind
    }

    fn peek_text(&self) -> &'a str {
        self.next.text
    }

    fn take(&mut self) -> Result<Token<'a>, GoModError> {
        let next = self.read()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn error(&self, problem: impl Into<String>) -> GoModError {
        GoModError { line: self.line, problem: problem.into() }
    }

    fn read(&mut self) -> Result<Token<'a>, GoModError> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r']);
        let Some(first) = self.rest.chars().next() else { return Ok(self.cut(Kind::End, 0)) };
        if self.rest.starts_with("//") {
            let kind = if self.at_line_start { Kind::Comment } else { Kind::LineComment };
            return Ok(self.cut(kind, self.rest.find('\n').map_or(self.rest.len(), |end| end + 1)));
        }
        match first {
            '\n' => Ok(self.cut(Kind::Newline, 1)),
            '(' | ')' | '[' | ']' | '{' | '}' | ',' => Ok(self.cut(Kind::Word, 1)),
            '"' | '`' => {
                let length = self.string_length(first)?;
                Ok(self.cut(Kind::Word, length))
            }
            _ => {
                let length = self.word_length()?;
                Ok(self.cut(Kind::Word, length))
            }
        }
    }

    /// Cuts a token off the rest.
    fn cut(&mut self, kind: Kind, length: usize) -> Token<'a> {
        let (text, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        let token = Token { kind, text, line: self.line };
        self.rest = rest;
        self.at_line_start = text.ends_with('\n') || kind == Kind::End;
        // A backslash hides the end of a line in a string.
        self.line = self.line.saturating_add(u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX));
        token
    }

    fn string_length(&self, quote: char) -> Result<usize, GoModError> {
        let mut chars = self.rest.char_indices().skip(1);
        let mut hidden_lines = 0;
        loop {
            match chars.next() {
                None => return Err(self.error("a quoted string is not closed")),
                Some((_, '\n')) => {
                    let error = self.error("a quoted string ends at the end of its line");
                    return Err(GoModError { line: error.line.saturating_add(hidden_lines), ..error });
                }
                Some((end, c)) if c == quote => return Ok(end + quote.len_utf8()),
                Some((_, '\\')) if quote == '"' => {
                    hidden_lines += u32::from(chars.next().is_some_and(|(_, c)| c == '\n'));
                }
                Some(_) => {}
            }
        }
    }

    fn word_length(&self) -> Result<usize, GoModError> {
        for (length, c) in self.rest.char_indices() {
            let rest = self.rest.get(length..).unwrap_or_default();
            if rest.starts_with("/*") {
                return Err(self.error("comments begin with // and not with /*"));
            }
            if rest.starts_with("//") || !is_word_char(c) {
                return if length > 0 { Ok(length) } else { Err(self.error(format!("unexpected character {c:?}"))) };
            }
        }
        Ok(self.rest.len())
    }
}

fn is_word_char(c: char) -> bool {
    !matches!(c, ' ' | '(' | ')' | '[' | ']' | '{' | '}' | ',') && is_printable(c)
}

/// Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols and the plain space.
///
/// `Debug` of a string escapes what is not printable, by the same categories; the letter in front keeps it from
/// escaping marks, which it does at the beginning of a string. Newer tables of Rust know newer characters.
pub(super) fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return c == ' ' || c.is_ascii_graphic();
    }
    let mut buffer = [b'a', 0, 0, 0, 0];
    let Some((_, end)) = buffer.split_first_mut() else { return false };
    let length = 1 + c.encode_utf8(end).len();
    buffer.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()).is_some_and(|text| text.escape_debug().nth(1) == Some(c))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_file_is_read_or_has_an_error_in_it(text in "([a-z\"`\\\\ ()/*,\r\n]|//|\\(\n|\n\\)){0,40}") {
            let total = u32::try_from(text.matches('\n').count()).unwrap() + 1;
            match lines(&text) {
                Ok(lines) => prop_assert!(lines.iter().all(|line| (1..=total).contains(&line.number))),
                Err(error) => prop_assert!((1..=total).contains(&error.line), "{}", error),
            }
        }

        #[test]
        fn tokens_come_back(tokens in prop::collection::vec("[a-z=>./]{1,3}[a-z]|\"[a-z ]{0,4}\"|\\[|,", 1..6)) {
            prop_assume!(!tokens.concat().contains("//"));
            let text = tokens.join(" ");
            let parsed = lines(&text).unwrap();
            prop_assert_eq!(parsed[0].verb, &tokens[0]);
            prop_assert_eq!(&parsed[0].args, &tokens[1..].iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    #[test]
    fn lines_and_blocks_are_told_apart() {
        let parsed = lines("// c\r\na b \"c d\" // e\r\nx (\r\n\tp q\r\n\n// f\n\tr(s // g\n) // h\ny ()\nz ( ) w\nu v (\nn\n)\n").unwrap();
        let short: Vec<_> = parsed.iter().map(|l| (l.number, l.verb, l.args.join("|"), l.in_block, l.comment.trim_end())).collect();
        assert_eq!(
            short,
            [
                (2, "a", "b|\"c d\"".to_owned(), false, "// e"),
                (4, "x", "p|q".to_owned(), true, ""),
                (7, "x", "r|(|s".to_owned(), true, "// g"),
                (10, "z", "(|)|w".to_owned(), false, ""),
            ]
        );
    }

    #[test]
    fn an_error_names_its_line() {
        for (text, line, part) in [
            ("a\nb \"c\n", 2, "quoted"),
            ("a\nb \"c", 2, "closed"),
            ("a\n\nb /* c */", 3, "/*"),
            ("x (\na\n", 3, "line 1"),
            ("x (\na\n) b\n", 3, "parenthesis"),
            ("a\u{7}", 1, "'\\u{7}'"),
            ("\u{feff}module x", 1, "unexpected"),
        ] {
            let error = lines(text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}");
            assert!(error.problem.contains(part), "{error}");
        }
    }

    #[test]
    fn printable_is_what_a_reader_can_see() {
        for c in ['a', '~', ' ', 'é', '語', '\u{301}', '😀', '\u{fffd}'] {
            assert!(is_printable(c), "{c:?}");
        }
        for c in ['\0', '\n', '\u{7f}', '\u{a0}', '\u{ad}', '\u{200b}', '\u{2028}', '\u{feff}', '\u{e000}', '\u{10ffff}'] {
            assert!(!is_printable(c), "{c:?}");
        }
    }
}
