//! RON taken apart without being understood: each part keeps its place.

use crate::experiment::brackets;
use crate::experiment::diagnostic::Diagnostic;
use crate::experiment::source::{Piece, offset, token, trivia};
use ron::value::RawValue;
use rqlab_sdk::config::{ConfigError, Fault, dialect};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::HashMap;
use std::fmt;

/// `(name: value, ..)` or an entry of `{ "name": value, .. }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The name; of a map's key the text within the quotes.
    pub key: Piece,
    /// The value.
    pub value: Piece,
}

/// The fields of `(a: .., b: ..)`.
pub fn fields(piece: &Piece) -> Result<Vec<Entry>, Diagnostic> {
    starts_with('(', "named fields in parentheses, `(name: value, ..)`", &piece.trimmed())?;
    let Fields(list) = read(piece)?;
    let entries: Vec<Entry> =
        list.into_iter().map(|(k, v)| Entry { key: piece.part(k), value: piece.part(v.get_ron()).trimmed() }).collect();
    unique(entries, "field")
}

/// The entries of `{ "a": .., "b": .. }`.
pub fn map(piece: &Piece) -> Result<Vec<Entry>, Diagnostic> {
    starts_with('{', "a map `{ \"name\": value, .. }`", piece)?;
    let Map(list) = read(piece)?;
    let mut entries = Vec::new();
    for (key, value) in list {
        let key = piece.part(key.get_ron()).trimmed();
        let Some(inner) = key.text().strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
            return Err(Diagnostic::error("a key must be text in quotes").at(&key, ""));
        };
        entries.push(Entry { key: key.part(inner), value: piece.part(value.get_ron()).trimmed() });
    }
    unique(entries, "key")
}

/// The elements of `[.., ..]`.
pub fn list(piece: &Piece) -> Result<Vec<Piece>, Diagnostic> {
    starts_with('[', "a list `[.., ..]`", piece)?;
    let List(list) = read(piece)?;
    Ok(list.into_iter().map(|value| piece.part(value.get_ron()).trimmed()).collect())
}

/// A call taken apart: `name(..)` or `name`. The second part is empty for a bare name.
pub fn call(piece: &Piece) -> Option<(Piece, Piece)> {
    let text = piece.text();
    let end = token(text);
    let name = &text[..end];
    let named = name.starts_with(|c: char| c.is_alphabetic() || c == '_') && !name.contains(['.', '+', '-', '"', '#']);
    let arguments = &text[end + trivia(&text[end..])..];
    (named && (arguments.is_empty() || arguments.starts_with('('))).then(|| (piece.part(name), piece.part(arguments)))
}

/// A typed value; `wanted` says in words what it is.
pub fn typed<T: serde::de::DeserializeOwned>(piece: &Piece, wanted: &str) -> Result<T, Diagnostic> {
    // What the parser says of another value is what it stumbled over.
    dialect().from_str(piece.text()).map_err(|_| unexpected(piece, wanted))
}

/// The parser says of anything else only that a bracket is missing.
fn starts_with(bracket: char, wanted: &str, piece: &Piece) -> Result<(), Diagnostic> {
    if piece.text().starts_with(bracket) { Ok(()) } else { Err(unexpected(piece, wanted)) }
}

fn unexpected(piece: &Piece, wanted: &str) -> Diagnostic {
    Diagnostic::error(format!("expected {wanted}, found {}", quoted(piece.text()))).at(piece, "")
}

/// A value as it is told of in a sentence: the whole of a short one.
pub fn quoted(text: &str) -> String {
    const MOST: usize = 40;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        None => format!("`{line}`"),
        Some((end, _)) => format!("`{}…`", &line[..end]),
    }
}

/// What a user sees of a value: no comments, one space after commas and colons, no quotes around text, numbers in
/// one way of writing.
pub fn display(text: &str) -> String {
    let mut out = String::new();
    let mut at = trivia(text);
    while at < text.len() {
        let len = token(&text[at..]);
        let word = &text[at..at + len];
        match number(word) {
            Some(number) => out += &number,
            None => out += word,
        }
        at += len;
        at += trivia(&text[at..]);
        if matches!(word, "," | ":") && at < text.len() {
            out.push(' ');
        }
    }
    // `Some` may be left out, and a comma may stand after the last element.
    let out = out.replace(", )", ")").replace(", ]", "]");
    let mut shown = out.as_str();
    while let Some(inner) = shown.strip_prefix("Some(").and_then(|rest| rest.strip_suffix(')')) {
        shown = inner;
    }
    ron::from_str::<String>(shown).unwrap_or_else(|_| shown.to_owned())
}

/// A number in one way of writing; a whole one keeps all its digits, which an f64 would not.
fn number(text: &str) -> Option<String> {
    let digits = text.replace('_', "");
    let whole = digits.parse::<i128>().map(|number| number.to_string());
    // Adding zero takes the sign from it.
    whole.or_else(|_| digits.parse::<f64>().map(|number| (number + 0.0).to_string())).ok()
}

/// An error of a parser as a complaint about a part of `piece`.
pub fn complaint(piece: &Piece, error: &ConfigError) -> Diagnostic {
    let at = match &error.span {
        Some((start, end)) => {
            let (start, end) = (offset(piece.text(), *start), offset(piece.text(), *end));
            piece.between(start..end)
        }
        None => piece.clone(),
    };
    let message = match error.fault {
        Fault::Unnamed => "expected `name: value`".to_owned(),
        _ => lower_first(&error.message),
    };
    Diagnostic::error(message).at(&at, "")
}

/// A parser's sentence as part of one.
pub fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

fn read<'a, T: Deserialize<'a>>(piece: &'a Piece) -> Result<T, Diagnostic> {
    dialect().from_str(piece.text()).map_err(|error| {
        let help = match error.code {
            ron::Error::ExceededRecursionLimit => {
                Some("no setting and no component needs brackets in brackets 100 deep")
            }
            ron::Error::Eof => Some("the text ends here, and a bracket before it is not closed"),
            _ => None,
        };
        let error = complaint(piece, &ConfigError::from(error));
        let error = match brackets::unclosed(piece.text()) {
            Some((at, label)) => error.also(&piece.between(at..at + 1), label),
            None => error,
        };
        help.into_iter().fold(error, Diagnostic::help)
    })
}

fn unique(entries: Vec<Entry>, what: &str) -> Result<Vec<Entry>, Diagnostic> {
    let mut seen: HashMap<&str, &Entry> = HashMap::new();
    for entry in &entries {
        if let Some(first) = seen.insert(entry.key.text(), entry) {
            return Err(Diagnostic::error(format!("the {what} `{}` is given twice", entry.key.text()))
                .at(&entry.key, "here again")
                .also(&first.key, "here first"));
        }
    }
    Ok(entries)
}

struct Fields<'de>(Vec<(&'de str, &'de RawValue)>);
struct Map<'de>(Vec<(&'de RawValue, &'de RawValue)>);
struct List<'de>(Vec<&'de RawValue>);

/// A field's name, borrowed from the text.
struct Name<'de>(&'de str);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(name))
            }
        }
        deserializer.deserialize_identifier(Borrowed)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(&'de str, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("named fields in parentheses: `(name: value, ..)`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(Name(key)) = map.next_key()? {
                    pairs.push((key, map.next_value()?));
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_struct("", &[], Pairs).map(Fields)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Map<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(&'de RawValue, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map in braces: `{ \"path\": value, .. }`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(key) = map.next_key()? {
                    pairs.push((key, map.next_value()?));
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Pairs).map(Map)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for List<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = Vec<&'de RawValue>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list in brackets: `[.., ..]`")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(items)
            }
        }
        deserializer.deserialize_seq(Items).map(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_in_one_way() {
        let check = |text: &str, expect: &str| assert_eq!(display(text), expect);
        check("16_384", "16384");
        check("1e-3", "0.001");
        check("4.0", "4");
        check("-0.0", "0");
        check("18446744073709551615", "18446744073709551615");
        check("\"a, b\"", "a, b");
        check("Some(3)", "3");
        check("[ 1,2 , /* two */ 3, ]", "[1, 2, 3]");
        check("ar( width:64, heads: 1_6 )", "ar(width: 64, heads: 16)");
        check("per_step", "per_step");
    }
}
