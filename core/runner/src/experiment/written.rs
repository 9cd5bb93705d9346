//! What stands in a slot or a field as it was written: plain values, calls of components, lists of calls.

use crate::experiment::diagnostic::Diagnostic;
use crate::experiment::raw;
use crate::experiment::slot::Slot;
use crate::experiment::source::{Piece, Source};
use rqlab_sdk::config::ValueKind;
use rqlab_sdk::plugin::Kind;
use std::path::PathBuf;
use std::sync::Arc;

/// A value of a slot or a field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Written {
    /// A plain value; or one that nobody has looked into yet.
    Value(Piece),
    /// A component's call, or a group of settings.
    Call(WrittenCall),
    /// A list of calls.
    List(WrittenList),
}

/// What a call is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A component.
    Component(Kind),
    /// The settings of a slot.
    Settings(Slot),
}

/// A component's call, or a group of settings, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WrittenCall {
    /// What it is of.
    pub role: Role,
    /// The component's name; none for settings.
    pub name: Option<Piece>,
    /// The call as it was written.
    pub whole: Piece,
    /// Its fields, of which some may have been replaced.
    pub fields: Vec<Field>,
}

/// A field and its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Field {
    /// Its name.
    pub key: Piece,
    /// Its value.
    pub value: Written,
}

/// A list of calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WrittenList {
    /// What is called.
    pub kind: Kind,
    /// Its elements, calls of which some may have been replaced.
    pub items: Vec<Written>,
    /// The list as it was written.
    pub whole: Piece,
}

/// Whether calls stand alone or in lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One call.
    One,
    /// A list of calls.
    List,
    /// Either.
    Either,
}

impl Shape {
    /// Of the calls that a field of that kind holds.
    pub fn of(kind: &ValueKind) -> Self {
        if matches!(kind.required(), ValueKind::List(_)) { Self::List } else { Self::One }
    }
}

impl Written {
    /// Takes apart the calls of a kind of component. `None` stays a plain value. `owner` is what messages call the place:
    /// a slot, or a field of something.
    ///
    /// # Errors
    /// What is no call or list of calls, or the other of the two.
    pub fn calls(kind: Kind, shape: Shape, piece: &Piece, owner: &str) -> Result<Self, Diagnostic> {
        if piece.text() == "None" {
            return Ok(Self::Value(piece.clone()));
        }
        let piece = &without_some(piece);
        if piece.text().starts_with('[') {
            if shape == Shape::One {
                let error = Diagnostic::error(format!("{owner} is one {kind}, and this is a list of them"));
                return Err(error.at(piece, "expected a call such as `name(field: value, ..)`"));
            }
            let items = raw::list(piece)?;
            let call = |item: &Piece| WrittenCall::component(kind, item, owner).map(Self::Call);
            let items: Result<_, _> = items.iter().map(call).collect();
            return Ok(Self::List(WrittenList { kind, items: items?, whole: piece.clone() }));
        }
        let call = WrittenCall::component(kind, piece, owner)?;
        if shape == Shape::List {
            let error = Diagnostic::error(format!("{owner} is a list of {kind}s, and this is one call"));
            return Err(error.at(piece, "").help(format!("write `[{}]`", raw::display(piece.text()))));
        }
        Ok(Self::Call(call))
    }

    /// The text that it was read from.
    pub fn whole(&self) -> &Piece {
        match self {
            Self::Value(piece) => piece,
            Self::Call(call) => &call.whole,
            Self::List(list) => &list.whole,
        }
    }

    /// Its calls: none of a plain value.
    pub fn items(&self) -> Vec<&WrittenCall> {
        match self {
            Self::Value(_) => vec![],
            Self::Call(call) => vec![call],
            Self::List(list) => list.items.iter().flat_map(Self::items).collect(),
        }
    }

    /// It as one shows it where names tell values apart: `rq`, `[rq, vq]`; the whole of a plain value.
    pub fn short(&self) -> String {
        match self {
            Self::Value(piece) => raw::display(piece.text()),
            Self::Call(call) => call.name().to_owned(),
            Self::List(list) => {
                format!("[{}]", list.items.iter().map(Self::short).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl WrittenCall {
    /// Reads a component's call.
    ///
    /// # Errors
    /// What is no call.
    pub fn component(kind: Kind, piece: &Piece, owner: &str) -> Result<Self, Diagnostic> {
        let named = raw::call(piece).filter(|(name, _)| !matches!(name.text(), "None" | "true" | "false"));
        let Some((name, arguments)) = named else {
            return Err(Diagnostic::error(format!("{owner} must name a component"))
                .at(piece, "expected a call such as `name(field: value, ..)`")
                .help(format!("`rqlab describe {}` lists those that there are", Slot::of(kind))));
        };
        let fields = if arguments.text().is_empty() { vec![] } else { fields(&arguments)? };
        Ok(Self { role: Role::Component(kind), name: Some(name), whole: piece.clone(), fields })
    }

    /// Reads settings.
    ///
    /// # Errors
    /// What is no group of named fields.
    pub fn settings(slot: Slot, piece: &Piece) -> Result<Self, Diagnostic> {
        Ok(Self { role: Role::Settings(slot), name: None, fields: fields(piece)?, whole: piece.clone() })
    }

    /// Settings of which nothing is said; errors about them point at `piece`.
    pub fn no_settings(slot: Slot, piece: &Piece) -> Self {
        Self { role: Role::Settings(slot), name: None, fields: vec![], whole: piece.clone() }
    }

    /// The component's name; the slot's of settings.
    pub fn name(&self) -> &str {
        match (&self.name, self.role) {
            (Some(name), _) => name.text(),
            (None, Role::Settings(slot)) => slot.name(),
            (None, Role::Component(kind)) => kind.name(),
        }
    }

    /// What errors about the whole point at: the name, or all of the settings.
    pub fn head(&self) -> &Piece {
        self.name.as_ref().unwrap_or(&self.whole)
    }

    /// A field that is given.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.key.text() == name)
    }

    /// Replaces a field, or adds it.
    pub fn set(&mut self, key: &Piece, value: Written) {
        let field = Field { key: key.clone(), value };
        match self.fields.iter_mut().find(|old| old.key.text() == key.text()) {
            Some(old) => *old = field,
            None => self.fields.push(field),
        }
    }
}

fn fields(piece: &Piece) -> Result<Vec<Field>, Diagnostic> {
    let entries = raw::fields(piece)?;
    Ok(entries.into_iter().map(|entry| Field { key: entry.key, value: Written::Value(entry.value) }).collect())
}

/// What stands in `Some(..)`, which may be left out.
fn without_some(piece: &Piece) -> Piece {
    let inner = raw::call(piece).filter(|(name, _)| name.text() == "Some").and_then(|(_, arguments)| {
        let text = arguments.text().strip_prefix('(')?.strip_suffix(')')?;
        Some(arguments.part(text).trimmed())
    });
    inner.unwrap_or_else(|| piece.clone())
}

/// A default as a piece of text that errors can point at.
pub fn default_piece(owner: &str, text: &str) -> Piece {
    let name = format!("<default of {owner}>");
    Piece::whole(&Arc::new(Source { name, text: text.to_owned(), dir: PathBuf::new(), is_argument: false }))
}
