//! What is wrong with an experiment, said the way a compiler says it: the place, the line, and what to do.

use crate::experiment::source::Piece;
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing can run.
    Error,
    /// It can run, and is probably not what was meant.
    Warning,
}

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Where, and what to say there.
    pub at: Option<(Piece, String)>,
    /// Other places that have to do with it.
    pub also: Vec<(Piece, String)>,
    /// What to do, or what would be right.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), at: None, also: vec![], help: vec![] }
    }

    /// A warning without a place.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// Points at the place, with a label (which may be empty).
    #[must_use]
    pub fn at(mut self, piece: &Piece, label: impl Into<String>) -> Self {
        self.at = Some((piece.clone(), label.into()));
        self
    }

    /// Points at another place that has to do with it.
    #[must_use]
    pub fn also(mut self, piece: &Piece, label: impl Into<String>) -> Self {
        self.also.push((piece.clone(), label.into()));
        self
    }

    /// Adds a line of help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// The complaint as the user sees it, without an end of line.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str());
        let mut group = match &self.at {
            None => Group::with_title(title),
            Some((piece, label)) => {
                let mut first = snippet(piece).annotation(annotation(AnnotationKind::Primary, piece, label));
                let mut others = Vec::new();
                for (other, label) in &self.also {
                    if other.source == piece.source {
                        first = first.annotation(annotation(AnnotationKind::Context, other, label));
                    } else {
                        others.push(snippet(other).annotation(annotation(AnnotationKind::Context, other, label)));
                    }
                }
                title.element(first).elements(others)
            }
        };
        for help in &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

fn snippet(piece: &Piece) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    Snippet::source(piece.source.text.as_str()).path(piece.source.name.as_str())
}

fn annotation<'a>(kind: AnnotationKind, piece: &Piece, label: &'a str) -> annotate_snippets::Annotation<'a> {
    // The library counts a span past the end as a bug of its caller.
    let end = piece.range.end.min(piece.source.text.len());
    let annotation = kind.span(piece.range.start.min(end)..end);
    if label.is_empty() { annotation } else { annotation.label(label) }
}

/// One or more errors: why an experiment cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub Vec<Diagnostic>);

impl From<Diagnostic> for Invalid {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|d| d.render(false)).collect();
        f.write_str(&texts.join("\n\n"))
    }
}

impl std::error::Error for Invalid {}

/// Gathers complaints, each once, so that a user sees all of them at a time.
#[derive(Debug, Default)]
pub struct Complaints(Vec<Diagnostic>);

impl Complaints {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if !self.0.contains(&diagnostic) {
            self.0.push(diagnostic);
        }
    }

    /// Takes the value, or notes the error.
    pub fn take<T>(&mut self, result: Result<T, Diagnostic>) -> Option<T> {
        result.map_err(|diagnostic| self.push(diagnostic)).ok()
    }

    /// Adds several.
    pub fn extend(&mut self, list: impl IntoIterator<Item = Diagnostic>) {
        list.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }

    /// The warnings, if nothing is worse.
    ///
    /// # Errors
    /// All complaints, if one of them is an error.
    pub fn finish(self) -> Result<Vec<Diagnostic>, Invalid> {
        if self.has_errors() { Err(Invalid(self.0)) } else { Ok(self.0) }
    }
}

/// The name of `known` that `found` is probably a slip of.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |name: &str| {
        let (a, b) = (found.to_lowercase(), name.to_lowercase());
        let similar = strsim::damerau_levenshtein(&a, &b);
        // A word that the other begins or ends with is close, however long the rest.
        let within = a.len() >= 3 && (b.contains(&a) || a.contains(&b) && b.len() >= 3);
        if similar <= 1 + a.len().max(b.len()) / 4 { Some(similar) } else { within.then_some(100) }
    };
    known.into_iter().filter_map(|name| Some((score(name)?, name))).min_by_key(|(score, _)| *score).map(|(_, n)| n)
}

/// "did you mean" for a name, and the names that there are: all of them, unless they are many and one of them is near.
pub fn suggestion<'a>(found: &str, what: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    const MANY: usize = 20;
    let known: Vec<&str> = known.into_iter().collect();
    let near = nearest(found, known.iter().copied());
    let mut help: Vec<String> = near.iter().map(|name| format!("did you mean `{name}`?")).collect();
    if known.is_empty() {
        help.push(format!("there are no {}", what.trim_start_matches("its ")));
    } else if near.is_none() || known.len() <= MANY {
        let list: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
        help.push(format!("{what}: {}", list.join(", ")));
    }
    help
}
