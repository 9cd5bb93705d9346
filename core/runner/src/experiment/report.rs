//! What an experiment asks its report for.

use crate::experiment::condition::{Condition, Subject, condition, subject, unknown};
use crate::experiment::diagnostic::{Complaints, Diagnostic};
use crate::experiment::raw;
use crate::experiment::source::Piece;

/// A comparison that the report is to judge.
#[derive(Debug, Clone, PartialEq)]
pub struct Compare {
    /// The measure; the headline if it is left out.
    pub metric: Option<Piece>,
    /// The axis.
    pub along: Subject,
    /// From this value of it.
    pub from: Piece,
    /// To this one.
    pub to: Piece,
    /// Other axes at fixed values.
    pub at: Condition,
}

pub(super) fn compare(piece: &Piece, complaints: &mut Complaints) -> Option<Compare> {
    let (mut metric, mut along, mut from, mut to) = (None, None, None, None);
    let mut at = Condition { at: vec![], piece: piece.clone() };
    for entry in complaints.take(raw::fields(piece))? {
        let value = entry.value;
        match entry.key.text() {
            "metric" => metric = Some(complaints.take(quoted(&value))?),
            "along" => along = Some(complaints.take(quoted(&value).and_then(|inner| subject(&inner)))?),
            "from" => from = Some(value),
            "to" => to = Some(value),
            "at" if value.text().trim_matches(['{', '}', ' ']).is_empty() => {}
            "at" => at = condition(&value, complaints)?,
            other => unknown(other, &entry.key, "a comparison", &["metric", "along", "from", "to", "at"], complaints),
        }
    }
    match (along, from, to) {
        (Some(along), Some(from), Some(to)) => Some(Compare { metric, along, from, to, at }),
        _ => {
            let error = Diagnostic::error("a comparison needs `along`, `from` and `to`").at(piece, "");
            complaints.push(error.help("`(metric: \"psnr\", along: \"quantizer.depth\", from: 1, to: 4)`"));
            None
        }
    }
}

/// The text within quotes.
pub(super) fn quoted(piece: &Piece) -> Result<Piece, Diagnostic> {
    match piece.text().strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inner) => Ok(piece.part(inner)),
        None => Err(Diagnostic::error("expected text in quotes").at(piece, "")),
    }
}
