//! Help texts as paragraphs: the lines that the source breaks are joined, so that only the reader's terminal breaks them.

use clap::Command;

/// A command and all its subcommands with such texts at their ends. What documents arguments has been joined by clap already.
pub fn flowing(command: Command) -> Command {
    let end = command.get_after_help().map(|text| joined(&text.to_string()));
    let command = command.mut_subcommands(flowing);
    match end {
        Some(text) => command.after_help(text),
        None => command,
    }
}

/// Joins lines that follow each other, but for empty ones and those that are set in, such as examples.
fn joined(text: &str) -> String {
    let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
    let mut out = String::new();
    let mut after_prose = false;
    for (index, line) in text.lines().enumerate() {
        if index > 0 {
            out.push(if after_prose && is_prose(line) { ' ' } else { '\n' });
        }
        out.push_str(line);
        after_prose = is_prose(line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    #[test]
    fn examples_and_empty_lines_stay() {
        let text = "One\ntwo.\n\nExamples:\n  rqlab a\n  rqlab b\n\nThree\nfour.";
        assert_eq!(joined(text), "One two.\n\nExamples:\n  rqlab a\n  rqlab b\n\nThree four.");
    }

    /// Examples and what they do stand beside each other.
    #[test]
    fn examples_with_words_beside_them_fit_into_a_terminal() {
        fn look(command: &Command) {
            command.get_subcommands().for_each(look);
            let end = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in end.lines().filter(|line| line.trim_start().contains("   ")) {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
        }
        look(&Cli::command());
    }

    /// The first word of a line of prose would not have fitted into the line before.
    #[test]
    fn prose_fills_the_lines_of_a_terminal() {
        fn look(command: Command, width: usize) {
            command.get_subcommands().for_each(|one| look(one.clone(), width));
            let name = command.get_name().to_owned();
            let help = command.term_width(width).render_long_help().to_string();
            for pair in help.lines().collect::<Vec<_>>().windows(2) {
                let [line, next] = pair else { continue };
                let set_in = |line: &str| line.len() - line.trim_start().len();
                // Options stand between commands and examples, and beside their names.
                if line.is_empty() || set_in(line) > 0 || set_in(next) > 0 {
                    continue;
                }
                let first = next.split_whitespace().next().unwrap_or_default();
                let together = line.chars().count() + 1 + first.chars().count();
                assert!(first.is_empty() || together > width, "{name} at {width}: `{line}`, `{next}`");
            }
        }
        [80, 100].into_iter().for_each(|width| look(flowing(Cli::command()), width));
    }
}
