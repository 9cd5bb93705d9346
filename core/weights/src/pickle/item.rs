//! What a pickle's machine works on: small copyable items. What has members lies in one of the machine's lists and is named by
//! its place there, so that shared members stay shared, circles are harmless, and nothing is dropped by recursion.

use super::globals::Global;

/// A part of one of the machine's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) length: usize,
}

/// One value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Item {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number beyond 64 bits: its little-endian bytes among the texts.
    Big(Span),
    Float(f64),
    /// UTF-8 among the texts.
    Text(Span),
    /// An object of a class that means nothing here.
    Opaque(&'static str),
    /// A name of the list of names.
    Global(Global),
    /// A part of the machine's tuples.
    Tuple(Span),
    /// Place among the lists.
    List(usize),
    /// Place among the dictionaries.
    Dict(usize),
    /// An object with named values: its place among the namespaces.
    Namespace(usize),
    /// Place among the storages.
    Storage(usize),
    /// Place among the tensors.
    Tensor(usize),
}

impl Item {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) | Self::Big(_) => "a whole number",
            Self::Float(_) => "a float",
            Self::Text(_) => "a text",
            Self::Opaque(name) => name,
            Self::Global(_) => "a class or function",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Namespace(_) => "an object",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}
