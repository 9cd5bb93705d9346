//! What is wrong with an experiment, said the way a compiler says it: the place, the line, and what to do.

use crate::experiment::source::{Piece, floor};
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing can run.
    Error,
    /// It can run, and is probably not what was meant.
    Warning,
}

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    /// Whether nothing is wrong but that a file is not on this machine.
    pub is_lack: bool,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            at: None,
            also: vec![],
            help: vec![],
            is_lack: false,
        }
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
                let mut window = Window::around(piece);
                let mut together = vec![(AnnotationKind::Primary, piece, label)];
                let mut others = Vec::new();
                for (other, label) in &self.also {
                    match window.with(other).filter(|_| other.source == piece.source) {
                        Some(wider) => {
                            window = wider;
                            together.push((AnnotationKind::Context, other, label));
                        }
                        None => others.push((AnnotationKind::Context, other, label)),
                    }
                }
                let others = others.iter().map(|one| Window::around(one.1).snippet(std::slice::from_ref(one)));
                title.element(window.snippet(&together)).elements(others)
            }
        };
        for help in &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// The lines of a source that a complaint shows: the renderer goes through all that it is given, and may be given a file of
/// megabytes to point at one word.
struct Window<'a> {
    piece: &'a Piece,
    bytes: Range<usize>,
}

/// How many bytes a window may be wide before pieces are shown apart, and a longer piece by its beginning.
const WIDEST: usize = 64 << 10;

impl<'a> Window<'a> {
    /// The lines that a piece stands in.
    fn around(piece: &'a Piece) -> Self {
        let text = piece.source.text.as_str();
        let end = floor(text, piece.range.end.min(piece.range.start + WIDEST));
        let start = text[..piece.range.start.min(end)].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[end..].find('\n').map_or(text.len(), |newline| end + newline);
        Self { piece, bytes: start..end }
    }

    /// The lines from this piece to another one of the source, unless they are too many.
    fn with(&self, other: &Piece) -> Option<Self> {
        let other = Window::around(other).bytes;
        let bytes = self.bytes.start.min(other.start)..self.bytes.end.max(other.end);
        (bytes.len() <= WIDEST).then_some(Self { piece: self.piece, bytes })
    }

    fn snippet(&self, pieces: &[(AnnotationKind, &Piece, &'a String)]) -> Snippet<'a, Annotation<'a>> {
        let source = &self.piece.source;
        let line = source.text[..self.bytes.start].matches('\n').count() + 1;
        let snippet = Snippet::source(&source.text[self.bytes.clone()]).path(source.name.as_str()).line_start(line);
        let annotations = pieces.iter().map(|(kind, piece, label)| {
            // The library counts a span past the end as a bug of its caller.
            let within = |at: usize| at.clamp(self.bytes.start, self.bytes.end) - self.bytes.start;
            let annotation = kind.span(within(piece.range.start)..within(piece.range.end));
            if label.is_empty() { annotation } else { annotation.label(label.as_str()) }
        });
        snippet.annotations(annotations.collect::<Vec<_>>())
    }
}

/// One or more errors: why an experiment cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub Vec<Diagnostic>);

impl Invalid {
    /// Whether nothing is wrong but that files are not on this machine.
    pub fn is_lack(&self) -> bool {
        self.0.iter().all(|complaint| complaint.is_lack)
    }

    /// Those that are shown, and what is said of the rest.
    pub fn shown(&self) -> (&[Diagnostic], Option<Diagnostic>) {
        const MOST: usize = 30;
        let (shown, rest) = self.0.split_at(self.0.len().min(MOST));
        let more = format!("there are {} more complaints, like these or not: correct these first", rest.len());
        (shown, (!rest.is_empty()).then(|| Diagnostic::error(more)))
    }
}

impl From<Diagnostic> for Invalid {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, more) = self.shown();
        let texts: Vec<String> = shown.iter().chain(&more).map(|d| d.render(false)).collect();
        f.write_str(&texts.join("\n\n"))
    }
}

impl std::error::Error for Invalid {}

/// Gathers complaints, each once, so that a user sees all of them at a time.
#[derive(Debug, Default)]
pub struct Complaints {
    list: Vec<Diagnostic>,
    known: HashSet<Diagnostic>,
}

impl Complaints {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.known.insert(diagnostic.clone()) {
            self.list.push(diagnostic);
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
        self.list.iter().any(|d| d.severity == Severity::Error)
    }

    /// The warnings, if nothing is worse.
    ///
    /// # Errors
    /// All complaints, if one of them is an error: errors come first, since warnings may follow from them.
    pub fn finish(mut self) -> Result<Vec<Diagnostic>, Invalid> {
        let invalid = self.has_errors();
        self.list.sort_by_key(|complaint| complaint.severity);
        if invalid { Err(Invalid(self.list)) } else { Ok(self.list) }
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
