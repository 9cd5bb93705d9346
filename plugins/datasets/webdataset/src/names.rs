//! Names of shards: braces as shells and WebDataset expand them, `*` and `?` as globs.

use rqlab_sdk::config::ConfigError;
use rqlab_sdk::{Error, Result};
use std::path::{Path, PathBuf};

/// More names than this are a slip of the pen.
const MOST: usize = 1_000_000;

/// The files that the pattern of a field names.
#[derive(Debug)]
pub(crate) struct Shards {
    field: &'static str,
    pattern: String,
    /// In the order in which it names them.
    files: Vec<PathBuf>,
    /// The first part of it that is a glob and finds nothing.
    nothing: Option<PathBuf>,
}

impl Shards {
    /// From `base` on.
    ///
    /// # Errors
    /// Braces that are not closed, addresses of other machines, folders that cannot be read.
    pub(crate) fn named(base: &Path, field: &'static str, pattern: &str) -> Result<Self> {
        let wrong = |message: String| Error::from(ConfigError::field(field, message));
        if pattern.contains("://") || pattern.starts_with("pipe:") {
            return Err(wrong("shards are read from files of this machine: fetch them first".to_owned()));
        }
        let mut shards = Self { field, pattern: pattern.to_owned(), files: Vec::new(), nothing: None };
        for name in braces(pattern).map_err(wrong)? {
            let path = base.join(&name);
            if !name.contains(['*', '?']) {
                shards.files.push(path);
                continue;
            }
            // What stands before the pattern is a folder's name, whatever is in it.
            let glob = Path::new(&glob::Pattern::escape(&base.to_string_lossy())).join(&name);
            let found = glob::glob(&glob.to_string_lossy()).map_err(|e| wrong(e.to_string()))?;
            let found = found.collect::<std::result::Result<Vec<_>, _>>();
            let found = found.map_err(|e| Error::Data(format!("{}: {}", e.path().display(), e.error())))?;
            if found.is_empty() {
                shards.nothing.get_or_insert(path);
            }
            shards.files.extend(found);
        }
        Ok(shards)
    }

    /// Whether none of them is there.
    pub(crate) fn are_absent(&self) -> bool {
        !self.files.iter().any(|file| file.exists())
    }

    /// The first of them, or the pattern if that finds none.
    pub(crate) fn first(&self) -> String {
        self.nothing
            .as_ref()
            .or(self.files.first())
            .map_or_else(|| self.pattern.clone(), |path| path.display().to_string())
    }

    /// They, which must all be there.
    ///
    /// # Errors
    /// A glob that finds nothing, folders, files that are missing or named twice.
    pub(crate) fn present(self) -> Result<Vec<PathBuf>> {
        let Self { field, pattern, files, nothing } = self;
        if let Some(nothing) = nothing {
            return Err(Error::Data(format!("{}: no file has such a name", nothing.display())));
        }
        if let Some(folder) = files.iter().find(|file| file.is_dir()) {
            return Err(Error::Data(format!(
                "{}: this is a folder; name the shards in it, such as `{}/*.tar`",
                folder.display(),
                pattern.trim_end_matches('/')
            )));
        }
        if let Some(other) = files.iter().find(|file| file.exists() && !file.is_file()) {
            return Err(Error::Data(format!("{}: this is no plain file", other.display())));
        }
        let missing: Vec<&PathBuf> = files.iter().filter(|file| !file.is_file()).collect();
        if let [first, ..] = missing[..] {
            let (missing, all) = (missing.len(), files.len());
            return Err(Error::Data(format!(
                "{}: there is no such file ({missing} of {all} shards are missing)",
                first.display()
            )));
        }
        let mut sorted: Vec<&PathBuf> = files.iter().collect();
        sorted.sort();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Data(format!("{}: `{field}` names this shard twice", pair[0].display())));
        }
        Ok(files)
    }
}

/// Every text that a pattern stands for: `{a,b}` for each in turn, `{000..127}` for numbers of equal width, `{0..10..5}` for
/// every fifth.
fn braces(pattern: &str) -> std::result::Result<Vec<String>, String> {
    let Some(open) = pattern.find('{') else {
        return match pattern.contains('}') {
            true => Err(format!("`{pattern}` closes a brace that it did not open")),
            false => Ok(vec![pattern.to_owned()]),
        };
    };
    let (mut depth, mut close, mut commas) = (0, None, vec![open]);
    for (at, character) in pattern.char_indices().skip_while(|(at, _)| *at < open) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => commas.push(at),
            _ => {}
        }
        if depth == 0 {
            close = Some(at);
            break;
        }
    }
    let close = close.ok_or_else(|| format!("`{pattern}` does not close its brace"))?;
    commas.push(close);
    let choices = match commas[..] {
        [_, _] => range(&pattern[open + 1..close])?,
        _ => commas.windows(2).map(|pair| pattern[pair[0] + 1..pair[1]].to_owned()).collect(),
    };
    let rest = braces(&pattern[close + 1..])?;
    let mut names = Vec::new();
    for choice in choices {
        for choice in braces(&choice)? {
            names.extend(rest.iter().map(|rest| format!("{}{choice}{rest}", &pattern[..open])));
        }
        if names.len() > MOST {
            return Err(format!("`{pattern}` stands for more than {MOST} names"));
        }
    }
    Ok(names)
}

/// The numbers from the first to the last; in as many digits as the longer of them has, if one begins with a zero.
fn range(text: &str) -> std::result::Result<Vec<String>, String> {
    let wrong = || format!("`{{{text}}}` is neither a list `{{a,b}}` nor a range of numbers `{{000..127}}`");
    let parts: Vec<&str> = text.split("..").collect();
    let (first, last, step) = match parts[..] {
        [first, last] => (first, last, "1"),
        [first, last, step] => (first, last, step),
        _ => return Err(wrong()),
    };
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (from, to, step) = (number(first)?, number(last)?, number(step)?);
    let padded = [first, last].iter().any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if padded { first.len().max(last.len()) } else { 0 };
    let count = from.abs_diff(to).checked_div(step).ok_or_else(wrong)?;
    if count >= MOST as u64 {
        return Err(format!("`{{{text}}}` stands for more than {MOST} names"));
    }
    let value = |n: u64| if from <= to { from + n * step } else { from - n * step };
    Ok((0..=count).map(|n| format!("{:0width$}", value(n))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str) -> Vec<String> {
        braces(pattern).unwrap_or_else(|error| vec![error])
    }

    #[test]
    fn braces_expand_as_in_a_shell() {
        assert_eq!(names("a.tar"), ["a.tar"]);
        assert_eq!(names("x-{008..011}.tar"), ["x-008.tar", "x-009.tar", "x-010.tar", "x-011.tar"]);
        assert_eq!(names("{8..10}"), ["8", "9", "10"]);
        assert_eq!(names("{8..010}"), ["008", "009", "010"]);
        assert_eq!(names("{2..0}"), ["2", "1", "0"]);
        assert_eq!(names("{00..10..5}"), ["00", "05", "10"]);
        assert_eq!(names("{train,extra}/{0..1}"), ["train/0", "train/1", "extra/0", "extra/1"]);
        assert_eq!(names("{a{0..1},b}.tar"), ["a0.tar", "a1.tar", "b.tar"]);
        assert_eq!(names("{000..127}").len(), 128);
    }

    #[test]
    fn what_no_shell_would_expand_is_an_error() {
        for pattern in ["{0..3", "0..3}", "{a..c}", "{only}", "{0..3..0}", "{0..99999999999}", "{0..9999}{0..9999}"] {
            assert!(braces(pattern).is_err(), "{pattern}: {:?}", braces(pattern));
        }
    }
}
