//! The part of YAML that published configurations are written in: blocks of `key: value` and `- item`, lists in brackets, plain
//! and quoted scalars. Anchors, tags, texts of several lines and the like are refused by name, with the line.

use serde_json::{Map, Value};

/// The deepest nesting that is read.
const DEEPEST: usize = 64;

/// A line that says something.
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

/// Reads a configuration.
///
/// # Errors
/// The line that is not understood, and why.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let lines = text.lines().enumerate().filter_map(|(i, line)| {
        let text = without_comment(line).trim_end();
        let indent = text.len() - text.trim_start_matches(' ').len();
        let text = &text[indent..];
        (!text.is_empty() && text != "---").then_some(Line { number: i + 1, indent, text })
    });
    let lines: Vec<Line> = lines.collect();
    let mut rest = &lines[..];
    let value = block(&mut rest, 0)?;
    match rest.first() {
        Some(line) => Err(format!("line {}: it is not indented as the lines before it", line.number)),
        None => Ok(value),
    }
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, character) in line.char_indices() {
        match (character, quote) {
            ('"' | '\'', None) => quote = Some(character),
            (mark, Some(open)) if mark == open => quote = None,
            ('#', None) if line[..at].chars().next_back().is_none_or(char::is_whitespace) => return &line[..at],
            _ => {}
        }
    }
    line
}

/// A mapping or a list, of all lines that are indented as the first.
fn block(lines: &mut &[Line<'_>], depth: usize) -> Result<Value, String> {
    let Some(first) = lines.first() else { return Ok(Value::Null) };
    if depth > DEEPEST {
        return Err(format!("line {}: it is nested more than {DEEPEST} levels deep", first.number));
    }
    let (indent, is_list) = (first.indent, is_item(first.text));
    let (mut list, mut map) = (Vec::new(), Map::new());
    while let Some(line) = lines.first().filter(|line| line.indent == indent && is_item(line.text) == is_list) {
        if is_list {
            let text = line.text[1..].trim_start();
            if text.is_empty() || key(text).is_none() {
                *lines = &lines[1..];
                list.push(if text.is_empty() {
                    nested(lines, indent, false, depth)?
                } else {
                    scalar(text, line.number)?
                });
                continue;
            }
            // A mapping that begins behind the dash: its further lines stand below its first key.
            let inner = Line { number: line.number, indent: indent + line.text.len() - text.len(), text };
            let further = lines[1..].iter().take_while(|below| below.indent >= inner.indent).count();
            let below = lines[1..=further].iter().map(|line| Line { ..*line });
            let item: Vec<Line> = std::iter::once(inner).chain(below).collect();
            *lines = &lines[1 + further..];
            let mut rest = &item[..];
            list.push(block(&mut rest, depth + 1)?);
            if let Some(odd) = rest.first() {
                return Err(format!("line {}: it is not indented as the lines before it", odd.number));
            }
            continue;
        }
        let Some((name, text)) = key(line.text) else {
            return Err(format!("line {}: `{}` is no `key: value`", line.number, line.text));
        };
        let number = line.number;
        *lines = &lines[1..];
        let value = if text.is_empty() { nested(lines, indent, true, depth)? } else { scalar(text, number)? };
        if map.insert(name.to_owned(), value).is_some() {
            return Err(format!("line {number}: `{name}` is given twice"));
        }
    }
    Ok(if is_list { Value::Array(list) } else { Value::Object(map) })
}

/// What stands below a key or a dash; nothing if no line does. A list may stand as far left as its key.
fn nested(lines: &mut &[Line<'_>], indent: usize, of_key: bool, depth: usize) -> Result<Value, String> {
    match lines.first() {
        Some(line) if line.indent > indent || (of_key && line.indent == indent && is_item(line.text)) => {
            block(lines, depth + 1)
        }
        _ => Ok(Value::Null),
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// A key and what stands behind it.
fn key(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['[', '{']) {
        return None;
    }
    let (key, value) = text.split_once(": ").or_else(|| Some((text.strip_suffix(':')?, "")))?;
    Some((key.trim().trim_matches(['"', '\'']), value.trim()))
}

fn scalar(text: &str, line: usize) -> Result<Value, String> {
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or_else(|| format!("line {line}: a list does not end in its line"))?;
        if inner.contains(['[', '{']) {
            return Err(format!("line {line}: lists in lists are not read in one line"));
        }
        let items = inner.split(',').map(str::trim).filter(|item| !item.is_empty());
        return items.map(|item| scalar(item, line)).collect();
    }
    if text == "{}" {
        return Ok(Value::Object(Map::new()));
    }
    for quote in ['"', '\''] {
        if let Some(quoted) = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote)) {
            return Ok(Value::from(quoted));
        }
    }
    if text.starts_with(['&', '*', '!', '|', '>', '{', '%', '@', '`', '"', '\'']) {
        return Err(format!(
            "line {line}: `{text}` is more than plain YAML (anchor, tag, block of text): write the value out"
        ));
    }
    Ok(match text {
        "~" | "null" | "Null" | "None" => Value::Null,
        "true" | "True" => Value::Bool(true),
        "false" | "False" => Value::Bool(false),
        _ => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => Value::from(number),
            (_, Ok(number)) if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
                Value::from(number)
            }
            _ => Value::from(text),
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use serde_json::json;

    #[test]
    fn what_omegaconf_writes_is_read() {
        let text = "# made by hand\narch:\n  type: rq-vae\n  shape:\n  - 8\n  - 4 # last\n  decay: 4.0e-05\n  flags: [1, 2]\n  \
                    none: null\n  name: 'a # b: c'\n  off: false\nlist:\n- a: 1\n  b: x\n-\n  a: 2\nempty:\nlast: {}\n";
        let wanted = json!({
            "arch": {"type": "rq-vae", "shape": [8, 4], "decay": 4.0e-5, "flags": [1, 2], "none": null, "name": "a # b: c",
                     "off": false},
            "list": [{"a": 1, "b": "x"}, {"a": 2}], "empty": null, "last": {},
        });
        assert_eq!(parse(text).unwrap(), wanted);
        assert_eq!(parse("").unwrap(), Value::Null);
    }

    #[test]
    fn what_is_more_than_plain_is_refused_with_its_line() {
        assert!(parse("a: 1\nb: &x 2\n").unwrap_err().starts_with("line 2: `&x 2` is more than plain YAML"));
        assert!(parse("a: 1\na: 2\n").unwrap_err().contains("line 2: `a` is given twice"));
        assert!(parse("a:\n    b: 1\n  c: 2\n").unwrap_err().contains("line 3: it is not indented"));
        assert!(parse("words\n").unwrap_err().contains("line 1: `words` is no"));
        let deep: String = (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(parse(&deep).unwrap_err().contains("64 levels"));
    }
}
