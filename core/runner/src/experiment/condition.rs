//! Conditions: which combinations are meant.

use crate::experiment::diagnostic::{Complaints, Diagnostic, suggestion};
use crate::experiment::path::{Assignment, Path};
use crate::experiment::raw;
use crate::experiment::source::Piece;
use crate::experiment::sweep::assignments;

/// What a condition compares: a path, or the name of the case.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// A slot or a field.
    Path(Path),
    /// The case's name.
    Case(Piece),
}

impl Subject {
    /// It as text.
    pub fn text(&self) -> &str {
        match self {
            Self::Path(path) => path.text(),
            Self::Case(piece) => piece.text(),
        }
    }

    /// Where it is written.
    pub fn piece(&self) -> &Piece {
        match self {
            Self::Path(path) => &path.piece,
            Self::Case(piece) => piece,
        }
    }
}

/// Values that a combination must have.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What must have which value.
    pub at: Vec<(Subject, Piece)>,
    /// The whole condition.
    pub piece: Piece,
}

/// Fields that are set only where a condition holds.
#[derive(Debug, Clone, PartialEq)]
pub struct When {
    /// Where.
    pub at: Condition,
    /// What is set.
    pub set: Vec<Assignment>,
}

pub(super) fn subject(piece: &Piece) -> Result<Subject, Diagnostic> {
    if piece.text() == "case" { Ok(Subject::Case(piece.clone())) } else { Path::parse(piece).map(Subject::Path) }
}

pub(super) fn condition(piece: &Piece, complaints: &mut Complaints) -> Option<Condition> {
    let entries = complaints.take(raw::map(piece))?;
    let mut at = Vec::new();
    for entry in entries {
        at.push((complaints.take(subject(&entry.key))?, entry.value));
    }
    if at.is_empty() {
        complaints.push(Diagnostic::error("a condition without a path holds everywhere").at(piece, ""));
        return None;
    }
    Some(Condition { at, piece: piece.clone() })
}

pub(super) fn when(piece: &Piece, complaints: &mut Complaints) -> Option<When> {
    let (mut at, mut set) = (None, None);
    for entry in complaints.take(raw::fields(piece))? {
        match entry.key.text() {
            "at" => at = Some(condition(&entry.value, complaints)?),
            "set" => set = Some(assignments(complaints.take(raw::map(&entry.value))?, complaints)),
            other => unknown(other, &entry.key, "`when`", &["at", "set"], complaints),
        }
    }
    match (at, set) {
        (Some(at), Some(set)) => Some(When { at, set }),
        _ => {
            let error = Diagnostic::error("a `when` needs `at` and `set`").at(piece, "");
            complaints.push(error.help("`(at: { \"path\": value }, set: { \"path\": value })`"));
            None
        }
    }
}

pub(super) fn unknown(found: &str, at: &Piece, whose: &str, known: &[&str], complaints: &mut Complaints) {
    let mut error = Diagnostic::error(format!("{whose} has no field `{found}`")).at(at, "");
    error.help = suggestion(found, "its fields", known.iter().copied());
    complaints.push(error);
}
