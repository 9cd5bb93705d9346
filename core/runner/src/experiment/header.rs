//! The comment at the head of an experiment's file, by its parts.

/// What a file says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// What is asked, and why; paragraphs are set apart by an empty line.
    pub about: String,
    /// What came of a run.
    pub finding: Option<String>,
    /// When that was, where the file says so: `Finding (2026-11-28): ..`.
    pub date: Option<String>,
}

/// The part that a label begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    About,
    /// How it is run, and how long that takes: the page knows both better.
    Run,
    Finding,
}

/// The labels of parts, in small letters.
const LABELS: [(&str, Part); 8] = [
    ("command", Part::Run),
    ("commands", Part::Run),
    ("takes", Part::Run),
    ("time", Part::Run),
    ("finding", Part::Finding),
    ("findings", Part::Finding),
    ("result", Part::Finding),
    ("results", Part::Finding),
];

impl Header {
    /// Takes a comment apart. A part goes on until the next label.
    pub fn parse(comment: &str) -> Self {
        let (mut header, mut part) = (Self::default(), Part::About);
        let (mut about, mut finding) = (Vec::new(), Vec::new());
        for line in comment.lines() {
            let mut line = line.trim();
            if let Some((begins, date, rest)) = label(line) {
                (part, line) = (begins, rest);
                if begins == Part::Finding {
                    header.date = header.date.or(date);
                }
            }
            match part {
                Part::About => about.push(line),
                Part::Run => {}
                Part::Finding => finding.push(line),
            }
        }
        header.about = about.join("\n").trim().to_owned();
        header.finding = Some(finding.join("\n").trim().to_owned()).filter(|finding| !finding.is_empty());
        header
    }
}

/// The part that a line begins, the date in its label, and the rest of the line.
fn label(line: &str) -> Option<(Part, Option<String>, &str)> {
    let (label, rest) = line.split_once(':')?;
    let (word, date) = match label.split_once('(') {
        Some((word, date)) => (word, Some(date.trim_end().strip_suffix(')')?.trim().to_owned())),
        None => (label, None),
    };
    let word = word.trim().to_lowercase();
    let (_, part) = LABELS.iter().find(|(known, _)| *known == word)?;
    Some((*part, date, rest.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_falls_into_its_parts() {
        let header = Header::parse(
            "Is it so?\n\nAnd why: because.\n\nCommand:  just sweep x\n          --seeds 1\n\nTakes:    3 s.\n\n\
             Finding (2026-11-02):  one seed:\nit is.\n\nMore of it.",
        );
        assert_eq!(header.about, "Is it so?\n\nAnd why: because.");
        assert_eq!(header.finding.as_deref(), Some("one seed:\nit is.\n\nMore of it."));
        assert_eq!(header.date.as_deref(), Some("2026-11-02"));
    }

    #[test]
    fn what_has_no_labels_is_about_the_question() {
        assert_eq!(
            Header::parse("A sweep in seconds."),
            Header { about: "A sweep in seconds.".to_owned(), ..Header::default() }
        );
        assert_eq!(Header::parse("FINDING: none"), Header { finding: Some("none".to_owned()), ..Header::default() });
        assert_eq!(Header::parse(""), Header::default());
    }
}
