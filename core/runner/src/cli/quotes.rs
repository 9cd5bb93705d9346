//! What is said where the shell made several words of a value of `--set`.

use std::iter::once;

/// What to do about arguments among which a value of `--set` stands in several words; none if none does.
pub(crate) fn wanted(arguments: &[String]) -> Option<String> {
    let of_set = |index: usize| match arguments[index].strip_prefix("--set") {
        Some("") => Some((arguments.get(index + 1)?.as_str(), index + 2)),
        Some(rest) => Some((rest.strip_prefix('=')?, index + 1)),
        None => None,
    };
    let mut given = (0..arguments.len()).filter_map(of_set);
    given.find_map(|(value, next)| hint(value, arguments.get(next..).unwrap_or_default()))
}

/// What is said of a value and of the words after it.
fn hint(value: &str, after: &[String]) -> Option<String> {
    let words: Vec<&str> = after.iter().map(String::as_str).take_while(|word| !word.starts_with("--")).collect();
    let next = words.first()?;
    if let Some((path, first)) = value.split_once('=').filter(|(_, first)| !first.is_empty()) {
        let others: Vec<&str> = words.iter().map_while(|word| word.strip_prefix(path)?.strip_prefix('=')).collect();
        if !others.is_empty() {
            let values: Vec<&str> = once(first).chain(others).collect();
            return Some(format!(
                "the shell makes several words of braces that stand in no quotes, and `--set` takes one value; several are an \
                 axis in the file, axes: {{ \"{path}\": [{}] }}",
                values.join(", ")
            ));
        }
    }
    // As many words as it takes until there is a value, and its brackets are closed.
    let taken = match value.split_once('=') {
        Some((_, "")) => 1,
        Some(_) => 0,
        None if *next == "=" => 2,
        None if next.starts_with('=') => 1,
        None => return None,
    };
    let joined = |count: usize| once(value).chain(words.iter().take(count).copied()).collect::<Vec<_>>().join(" ");
    let whole = (taken..=words.len()).find(|&count| open(&joined(count)) == 0).unwrap_or(taken);
    let one = joined(whole);
    let quoted = if one.contains('\'') { format!("\"{one}\"") } else { format!("'{one}'") };
    (whole > 0).then(|| format!("a value with spaces in it wants quotes: --set {quoted}"))
}

/// How many brackets are open at the end of a text.
fn open(text: &str) -> i64 {
    let count = |brackets: [char; 3]| text.matches(brackets).count() as i64;
    count(['(', '[', '{']) - count([')', ']', '}'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<String> {
        wanted(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_that_belong_together_are_quoted_together() {
        let check = |line: &str, example: &str| {
            let said = of(line).unwrap_or_default();
            assert!(said.ends_with(&format!(": --set {example}")), "{line}: {said}");
        };
        check("plan quickstart --set a = b", "'a = b'");
        check("plan quickstart --set a =b --seeds 0", "'a =b'");
        check("plan --set a= b quickstart", "'a= b'");
        check("plan x --set=quantizer.codebooks=[256, 512] more", "'quantizer.codebooks=[256, 512]'");
        check("plan x --set prior_training={steps: 3, batch: 2}", "'prior_training={steps: 3, batch: 2}'");
        assert_eq!(of("plan quickstart more --set a=1"), None);
        assert_eq!(of("plan --set a=1 quickstart more"), None);
        assert_eq!(of("plan quickstart --set"), None);
    }

    #[test]
    fn braces_that_the_shell_took_are_an_axis() {
        let said = of("plan x --set quantizer.depth=1 quantizer.depth=2 --seeds 0").unwrap_or_default();
        assert!(said.ends_with("axes: { \"quantizer.depth\": [1, 2] }"), "{said}");
        assert_eq!(of("plan x --set quantizer.depth=1 --set quantizer.depth=2"), None);
    }
}
