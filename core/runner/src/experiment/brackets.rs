//! Which bracket of a text that cannot be read is not closed.

use crate::experiment::source::{token, trivia};

/// A bracket that is open.
struct Open {
    at: usize,
    bracket: char,
    /// How far the line is set in that it stands in.
    set_in: usize,
}

/// Where a bracket opens that is not closed, and what is to be said of it; none if that cannot be known. Where one is closed
/// by what stands further left than its own line, as that of another one should, its own is probably missing.
pub(super) fn unclosed(text: &str) -> Option<(usize, &'static str)> {
    let mut open: Vec<Open> = Vec::new();
    let mut suspect = None;
    let (mut at, mut set_in, mut begins_line) = (0, 0, true);
    loop {
        let space = &text[at..at + trivia(&text[at..])];
        if let Some(newline) = space.rfind('\n') {
            (set_in, begins_line) = (space.len() - newline - 1, true);
        }
        at += space.len();
        let word = &text[at..at + length(&text[at..])];
        match word.chars().next() {
            None => break,
            Some(bracket @ ('(' | '[' | '{')) => open.push(Open { at, bracket, set_in }),
            Some(bracket @ (')' | ']' | '}')) => {
                let last = open.pop()?;
                if closes(bracket) != last.bracket {
                    let is_of_another = open.iter().any(|other| other.bracket == closes(bracket));
                    return is_of_another.then_some((last.at, CERTAIN));
                }
                if begins_line && set_in < last.set_in {
                    suspect = suspect.or(Some((last.at, PROBABLE)));
                }
            }
            // A text without an end takes the brackets in it along.
            Some('"') if word.len() == 1 || !word.ends_with('"') => return None,
            Some(_) => {}
        }
        begins_line = false;
        at += word.len();
    }
    let last = open.pop()?;
    Some(suspect.unwrap_or((last.at, CERTAIN)))
}

const CERTAIN: &str = "this bracket is not closed";
const PROBABLE: &str = "perhaps this bracket is not closed";

/// The bracket that another one closes.
fn closes(bracket: char) -> char {
    match bracket {
        ')' => '(',
        ']' => '[',
        _ => '{',
    }
}

/// Bytes of the token that `text` starts with; also of a character in quotes, which may be a bracket.
fn length(text: &str) -> usize {
    let mut chars = text.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('\''), Some(one), Some('\'')) if one != '\\' => 2 + one.len_utf8(),
        _ => token(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Option<(&str, &'static str)> {
        unclosed(text).map(|(at, label)| (text[..at].lines().last().unwrap_or_default(), label))
    }

    #[test]
    fn what_is_not_closed_is_named() {
        assert_eq!(named("(a: [1, 2], b: rq(depth: 4)"), Some(("", CERTAIN)));
        assert_eq!(named("[a(1), b(2]"), Some(("[a(1), b", CERTAIN)));
        assert_eq!(named("(a: { \"x\": [1, 2 }"), Some(("(a: { \"x\": ", CERTAIN)));
        assert_eq!(named("rq(depth: 4"), Some(("rq", CERTAIN)));
    }

    /// By brackets alone it is the first one.
    #[test]
    fn lines_that_are_set_in_tell_which() {
        let text = "(\n    a: b(\n        c: 1,\n    ),\n    quantizer: rq(\n        depth: 4,\n    prior: ar(),\n)\n";
        assert_eq!(named(text), Some(("    quantizer: rq", PROBABLE)));
        assert_eq!(named(&text.replace("prior: ar()", "prior: ar(),\n    )")), None);
    }

    #[test]
    fn brackets_in_texts_and_comments_are_none() {
        let text = "(a: \"(\", /* [ */ b: r#\"({\"#, // (\n c: '(', d: [1)";
        assert_eq!(named(text), Some((" c: '(', d: ", CERTAIN)));
        assert_eq!(named("(a: \"b)"), None);
        assert_eq!(named("(a: 1))"), None);
        assert_eq!(named(""), None);
    }
}
