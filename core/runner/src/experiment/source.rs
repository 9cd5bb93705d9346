//! Texts that an experiment is made of, and pieces of them that know where they stand.

use rqlab_sdk::config::Place;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A text that values come from: an experiment file, or an argument of the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// What errors call it: the path as the user gave it, or `<command line>`.
    pub name: String,
    /// The text.
    pub text: String,
    /// Where relative paths in it are taken from.
    pub dir: PathBuf,
    /// Whether it is an argument, where quotes around text may be left out: the shell eats them.
    pub is_argument: bool,
}

/// A part of a [`Source`].
#[derive(Clone, PartialEq, Eq)]
pub struct Piece {
    /// The source.
    pub source: Arc<Source>,
    /// The bytes of it.
    pub range: Range<usize>,
}

impl Piece {
    /// All of a source.
    pub fn whole(source: &Arc<Source>) -> Self {
        Self { source: source.clone(), range: 0..source.text.len() }
    }

    /// The text itself.
    pub fn text(&self) -> &str {
        &self.source.text[self.range.clone()]
    }

    /// The part of this piece that `slice`, a slice of [`Piece::text`], covers.
    pub fn part(&self, slice: &str) -> Self {
        let start = (slice.as_ptr() as usize).wrapping_sub(self.source.text.as_ptr() as usize);
        debug_assert!(self.range.start <= start && start + slice.len() <= self.range.end);
        Self { source: self.source.clone(), range: start..start + slice.len() }
    }

    /// The part of this piece between two offsets in its text, at least one character wide where there is one.
    pub fn between(&self, range: Range<usize>) -> Self {
        let text = self.text();
        let start = floor(text, range.start);
        let end = floor(text, range.end.max(start));
        let end = if end == start { start + text[start..].chars().next().map_or(0, char::len_utf8) } else { end };
        Self { source: self.source.clone(), range: self.range.start + start..self.range.start + end }
    }

    /// Its text without white space and comments at both ends.
    pub fn trimmed(&self) -> Self {
        let text = self.text();
        let start = trivia(text);
        let mut end = start;
        // The end of the last thing that is neither space nor comment: step over the text piece by piece.
        let mut at = start;
        while at < text.len() {
            at += token(&text[at..]);
            end = at;
            at += trivia(&text[at..]);
        }
        Self { source: self.source.clone(), range: self.range.start + start..self.range.start + end }
    }

    /// Where it is written: tells equal texts in different places apart.
    pub fn origin(&self) -> (usize, usize) {
        (Arc::as_ptr(&self.source) as usize, self.range.start)
    }

    /// Line and column of its start, from 1.
    pub fn place(&self) -> Place {
        let before = &self.source.text[..self.range.start];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place { line, column }
    }
}

/// By the name of the source: texts are long, and few are of one name.
impl Hash for Piece {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.name.hash(state);
        self.range.hash(state);
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}:{}", self.source.name, self.range, self.text())
    }
}

/// The byte offset of a place in `text`; places beyond it give its end.
pub fn offset(text: &str, place: Place) -> usize {
    let mut start = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if index + 1 == place.line {
            let column = place.column.saturating_sub(1);
            return start + line.char_indices().nth(column).map_or(line.len(), |(i, _)| i);
        }
        start += line.len();
    }
    text.len()
}

/// The end of the last whole character that lies before a byte of `text`.
pub(super) fn floor(text: &str, mut index: usize) -> usize {
    index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// Bytes of white space and comments at the start of `text`.
pub fn trivia(text: &str) -> usize {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let spaces = rest.len() - rest.trim_start().len();
        let rest = &rest[spaces..];
        at += spaces;
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += block_comment(rest);
        } else {
            return at;
        }
    }
}

/// Bytes of the (nested) block comment that `text` starts with.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Bytes of the token that `text` starts with: a string, a word, or one character.
pub fn token(text: &str) -> usize {
    let first = text.chars().next();
    let raw = text.strip_prefix('r').map(|rest| (rest, rest.len() - rest.trim_start_matches('#').len()));
    match (first, raw) {
        (_, Some((rest, hashes))) if rest[hashes..].starts_with('"') => {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = 1 + hashes + 1;
            text[body..].find(&close).map_or(text.len(), |end| body + end + close.len())
        }
        (Some('"'), _) => {
            let mut escaped = false;
            let end = text[1..].char_indices().find(|&(_, c)| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(text.len(), |(i, _)| i + 2)
        }
        (Some(c), _) if is_word(c) => text.find(|c| !is_word(c)).unwrap_or(text.len()),
        (Some(c), _) => c.len_utf8(),
        (None, _) => 0,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '-' | '#')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source { name: "x.ron".into(), text: text.into(), dir: PathBuf::new(), is_argument: false })
    }

    #[test]
    fn trimming_leaves_comments_out() {
        let check = |text: &str, expect: &str| assert_eq!(Piece::whole(&source(text)).trimmed().text(), expect);
        check("  3 ", "3");
        check("/* a /* b */ */ rq(depth: 4) // why\n", "rq(depth: 4)");
        check("\"a // b\" // c", "\"a // b\"");
        check(r##"r#"a " // b"# /* c */"##, r##"r#"a " // b"#"##);
        check("// nothing", "");
        check("1e-3 ", "1e-3");
    }

    #[test]
    fn places_count_characters_from_one() {
        let source = source("é(\n  äb: 1)");
        let whole = Piece::whole(&source);
        let b = whole.part(&whole.text()[whole.text().find('b').unwrap()..]);
        assert_eq!(b.place(), Place { line: 2, column: 4 });
        assert_eq!(offset(&source.text, Place { line: 2, column: 4 }), b.range.start);
    }
}
