//! Paths: what an axis, a condition or `--set` names.

use crate::experiment::diagnostic::{Diagnostic, suggestion};
use crate::experiment::slot::Slot;
use crate::experiment::source::Piece;

/// A slot, or something in it: `quantizer`, `quantizer.depth`, `quantizer.of.levels`, `prior.1.width`,
/// `objective.patch_gan.start`. A step within a call is a field's name; within a list it is the number of an element, from
/// 1 as levels are counted, or the name of its component if no other element has that.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// The slot.
    pub slot: Slot,
    /// The steps that lead from it.
    pub steps: Vec<Piece>,
    /// The path, as written.
    pub piece: Piece,
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// A path that begins with no slot, or has an empty step.
    pub fn parse(piece: &Piece) -> Result<Self, Diagnostic> {
        let text = piece.text();
        let mut steps = text.split('.');
        let first = steps.next().unwrap_or_default();
        let Some(slot) = Slot::named(first) else {
            let mut error = Diagnostic::error(format!("`{text}` names nothing of an experiment")).at(piece, "");
            error.help = suggestion(first, "a path begins with one of", Slot::ALL.map(Slot::name));
            if first == "seeds" {
                error.help = vec!["give seeds with `--seeds 0,1`".to_owned()];
            }
            return Err(error);
        };
        let steps: Vec<Piece> = steps.map(|step| piece.part(step)).collect();
        if steps.iter().any(|step| step.text().is_empty()) {
            return Err(Diagnostic::error(format!("`{text}` is not a path")).at(piece, "").help(format!(
                "write `{slot}` for the whole, `{slot}.FIELD` for a field of it, or `{slot}.FIELD.FIELD` for one of a component \
                 in it"
            )));
        }
        Ok(Self { slot, steps, piece: piece.clone() })
    }

    /// The path of a whole slot.
    pub fn whole(slot: Slot, piece: &Piece) -> Self {
        Self { slot, steps: vec![], piece: piece.clone() }
    }

    /// The path as text.
    pub fn text(&self) -> &str {
        self.piece.text()
    }

    /// Whether it names all that a slot holds.
    pub fn is_whole(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether it names something of priors, their training, or how they are drawn from: nothing that changes a tokenizer or
    /// what is measured of it.
    pub fn concerns_samples_alone(&self) -> bool {
        const DRAWING: [&str; 9] = [
            "samples",
            "temperature",
            "top_k",
            "top_p",
            "guidance",
            "guidance_schedule",
            "guidance_power",
            "guidance_from",
            "guidance_to",
        ];
        match self.slot {
            Slot::Prior | Slot::PriorTraining => true,
            Slot::Evaluation => self.steps.first().is_some_and(|step| DRAWING.contains(&step.text())),
            _ => false,
        }
    }

    /// The steps that lead from here to `other`; none if it does not lie within.
    pub fn rest<'a>(&self, other: &'a Self) -> Option<&'a [Piece]> {
        let within = self.slot == other.slot
            && self.steps.len() <= other.steps.len()
            && self.steps.iter().zip(&other.steps).all(|(a, b)| a.text() == b.text());
        within.then(|| &other.steps[self.steps.len()..])
    }
}

/// A value for a path.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// What is set.
    pub path: Path,
    /// To what.
    pub value: Piece,
}
