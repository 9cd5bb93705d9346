//! What is said about calls and their fields.

use crate::experiment::diagnostic::{Diagnostic, suggestion};
use crate::experiment::raw::{self, lower_first};
use crate::experiment::source::Piece;
use crate::experiment::written::{Field, Role, Written, WrittenCall};
use rqlab_sdk::config::{ConfigError, Description, Fault, FieldDoc};

/// Fields that settings had once: their names, and what says the same now (`{}` stands for the value).
const GONE: &[(&str, &str)] = &[
    ("reconstruction", "what a tokenizer is trained for is a component now: `objective: {}()`"),
    ("final_lr", "it is called `final_lr_ratio` now"),
    ("clip", "it is called `max_grad_norm` now"),
    ("average", "it is called `ema_decay` now"),
];

impl WrittenCall {
    /// What messages call it.
    pub fn called(&self) -> String {
        format!("`{}`", self.name())
    }

    /// A field that its component does not have.
    pub fn unknown_field(&self, key: &Piece, description: &Description) -> Diagnostic {
        let name = key.text();
        let mut error = Diagnostic::error(format!("{} has no field `{name}`", self.called())).at(key, "");
        if key.source != self.whole.source || !within(key, &self.whole) {
            error = error.also(self.head(), format!("{} is named here", self.called()));
        }
        let is_settings = matches!(self.role, Role::Settings(_));
        let gone = GONE.iter().find(|(gone, _)| is_settings && *gone == name);
        error.help = match gone {
            Some((_, now)) => {
                let value = self.field(name).map_or("..", |field| field.value.whole().text());
                vec![now.replace("{}", value)]
            }
            None => suggestion(name, "its fields", description.fields.iter().map(|field| field.name)),
        };
        error
    }

    /// A field that must be given.
    pub fn missing_field(&self, field: &FieldDoc) -> Diagnostic {
        let (name, help) = (field.name, help_of(field));
        let error = Diagnostic::error(format!("{} needs `{name}`", self.called())).at(self.head(), "").help(help);
        error.help(format!("write `{}({name}: ..)`", self.name()))
    }

    /// A parser's complaint about a field's value. What it stumbled over (`expected comma` of 2.5 for an integer) says
    /// little: what the field wants is told instead.
    pub fn wrong_value(&self, given: &Field, error: &ConfigError, description: &Description) -> Diagnostic {
        let (name, value) = (given.key.text(), given.value.whole());
        let whose = format!("`{name}` of {}", self.called());
        let Some(field) = description.field(name) else {
            return Diagnostic::error(format!("{whose}: {}", lower_first(&error.message))).at(value, "");
        };
        let message = match error.fault {
            Fault::Range => format!("{whose} {}", error.message),
            Fault::Refused | Fault::Unwritable => format!("{whose}: {}", lower_first(&error.message)),
            _ => {
                let wanted = field.kind.in_words_within(field.range.unwrap_or_default());
                format!("{whose} must be {wanted}, found {}", raw::quoted(value.text()))
            }
        };
        Diagnostic::error(message).at(value, "").help(help_of(field))
    }

    /// An error of the component's constructor, at the field that it is about, be it its own or that of a component within.
    pub fn refusal(&self, error: &ConfigError) -> Diagnostic {
        let inner = error.component.as_deref().and_then(|name| self.inner(name));
        inner.as_ref().unwrap_or(self).complaint(error.field.as_deref(), &error.message)
    }

    /// A complaint about a field, or about the whole.
    pub fn complaint(&self, field: Option<&str>, message: &str) -> Diagnostic {
        match field.and_then(|name| self.field(name)) {
            Some(given) => {
                let message = format!("`{}` of {}: {message}", given.key.text(), self.called());
                Diagnostic::error(message).at(given.value.whole(), "")
            }
            None => {
                let about = field.map(|name| format!("`{name}` of ")).unwrap_or_default();
                Diagnostic::error(format!("{about}{}: {message}", self.called())).at(self.head(), "")
            }
        }
    }

    /// The first component of that name within, however deep.
    fn inner(&self, name: &str) -> Option<WrittenCall> {
        let calls = self.fields.iter().flat_map(|field| match &field.value {
            Written::Value(piece) => calls_in(piece),
            written => written.items().into_iter().cloned().collect(),
        });
        let mut calls: Vec<WrittenCall> = calls.collect();
        while !calls.is_empty() {
            if let Some(found) = calls.iter().find(|call| call.name() == name) {
                return Some(found.clone());
            }
            calls = calls.iter().flat_map(|call| call.fields.iter().flat_map(|f| calls_in(f.value.whole()))).collect();
        }
        None
    }
}

/// The calls that a value looks like.
fn calls_in(piece: &Piece) -> Vec<WrittenCall> {
    // Only names are looked at: the kind that is said does not matter.
    let kind = rqlab_sdk::plugin::Kind::Quantizer;
    let pieces = raw::list(piece).unwrap_or_else(|_| vec![piece.clone()]);
    pieces.iter().filter_map(|piece| WrittenCall::component(kind, piece, "").ok()).collect()
}

/// What a field is, in a line.
pub fn help_of(field: &FieldDoc) -> String {
    let mut text = format!("`{}` is {}", field.name, field.kind.in_words_within(field.range.unwrap_or_default()));
    if let Some(default) = &field.default {
        text += &format!(", by default {}", raw::display(default));
    }
    let doc = field.doc.lines().collect::<Vec<_>>().join(" ");
    if doc.is_empty() { text } else { format!("{text}: {doc}") }
}

fn within(inner: &Piece, outer: &Piece) -> bool {
    outer.range.start <= inner.range.start && inner.range.end <= outer.range.end
}
