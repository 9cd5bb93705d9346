//! What all slots hold.

use crate::experiment::diagnostic::Diagnostic;
use crate::experiment::path::{Assignment, Path};
use crate::experiment::reach::{Descriptions, Put, Reached};
use crate::experiment::slot::Slot;
use crate::experiment::source::Piece;
use crate::experiment::written::{Shape, Written, WrittenCall, default_piece};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What all slots hold. Cheap to clone: combinations of axes share the slots in which they agree.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup(BTreeMap<Slot, Arc<Written>>);

impl Default for Setup {
    /// What an experiment starts from that says nothing.
    fn default() -> Self {
        let written = |slot: Slot| {
            let piece = default_piece(&format!("`{slot}`"), slot.default()?);
            let written = Written::calls(slot.kind()?, Shape::Either, &piece, &format!("`{slot}`")).ok()?;
            Some((slot, Arc::new(written)))
        };
        Self(Slot::ALL.into_iter().filter_map(written).collect())
    }
}

impl Setup {
    /// What is in a slot; none if nothing is.
    pub fn get(&self, slot: Slot) -> Option<&Written> {
        self.shared(slot).map(|written| &**written)
    }

    /// What is in a slot, as combinations share it; none if nothing is.
    pub fn shared(&self, slot: Slot) -> Option<&Arc<Written>> {
        self.0.get(&slot)
    }

    /// The one call or the settings that are in a slot; none if nothing is, or a list.
    pub fn call(&self, slot: Slot) -> Option<&WrittenCall> {
        match self.get(slot)? {
            Written::Call(call) => Some(call),
            _ => None,
        }
    }

    /// Fills a slot.
    ///
    /// # Errors
    /// A value that the slot does not take.
    pub fn fill(&mut self, slot: Slot, piece: &Piece) -> Result<(), Diagnostic> {
        let written = match slot.kind() {
            None => Written::Call(WrittenCall::settings(slot, piece)?),
            Some(kind) => {
                let shape = if slot.takes_list() { Shape::Either } else { Shape::One };
                Written::calls(kind, shape, piece, &format!("`{slot}`"))?
            }
        };
        match written {
            Written::Value(_) if slot == Slot::Prior => drop(self.0.remove(&slot)),
            Written::Value(none) => {
                return Err(Diagnostic::error(format!("`{slot}` cannot be None")).at(&none, "expected a call"));
            }
            Written::List(list) if list.items.is_empty() => {
                return Err(
                    Diagnostic::error(format!("the list of `{slot}` is empty")).at(piece, "expected at least one call")
                );
            }
            written => drop(self.0.insert(slot, Arc::new(written))),
        }
        Ok(())
    }

    /// Puts a value where its path says.
    ///
    /// # Errors
    /// A value that the slot does not take; a path to a field that a component does not have.
    pub fn set(&mut self, assignment: &Assignment, known: &dyn Descriptions) -> Put {
        let Assignment { path, value } = assignment;
        if path.is_whole() {
            return self.fill(path.slot, value).map(Reached::There);
        }
        if path.slot.kind().is_none() {
            let none = || Arc::new(Written::Call(WrittenCall::no_settings(path.slot, &path.piece)));
            self.0.entry(path.slot).or_insert_with(none);
        }
        match self.0.get_mut(&path.slot) {
            Some(written) => Arc::make_mut(written).put(path, &path.steps, value, known),
            None => Ok(Reached::Nothing(Some(no_slot(path)))),
        }
    }

    /// What a path leads to, defaults included.
    ///
    /// # Errors
    /// A path to a field that a component does not have.
    pub fn find(&self, path: &Path, known: &dyn Descriptions) -> Result<Reached<Written>, Diagnostic> {
        let mut written = match self.get(path.slot) {
            Some(written) => written.clone(),
            None if path.slot.kind().is_none() => Written::Call(WrittenCall::no_settings(path.slot, &path.piece)),
            None => return Ok(Reached::Nothing(Some(no_slot(path)))),
        };
        Ok(match written.reach(path, &path.steps, known)? {
            Reached::There(found) => Reached::There(found.clone()),
            Reached::Nothing(why) => Reached::Nothing(why),
        })
    }

    /// A complaint about what is in a slot: about its whole, be it a call or a list.
    pub fn complaint(&self, slot: Slot, message: &str) -> Diagnostic {
        let error = Diagnostic::error(message);
        match self.get(slot) {
            Some(Written::Call(call)) => error.at(call.head(), ""),
            Some(written) => error.at(written.whole(), ""),
            None => error,
        }
    }

    /// A call in a slot: the one that counts for all levels, or that of this place in the list.
    pub fn item(&self, slot: Slot, index: usize) -> Option<&WrittenCall> {
        match self.get(slot)? {
            Written::Call(call) => Some(call),
            list => list.items().get(index).copied(),
        }
    }
}

fn no_slot(path: &Path) -> Diagnostic {
    let message = format!("`{}` names nothing: the experiment has no `{}`", path.text(), path.slot);
    Diagnostic::error(message).at(&path.piece, "")
}
