//! The parts that an experiment is assembled from, field by field, each field with its origin.

use crate::spec::diagnostic::{Diagnostic, suggestion};
use crate::spec::raw::{self, Entry, lower_first};
use crate::spec::source::Piece;
use rqlab_sdk::config::{ConfigError, Description, FieldDoc};
use rqlab_sdk::plugin::Kind;
use std::fmt;

/// A place of an experiment that a component or a group of settings goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The data set.
    Data,
    /// The autoencoder.
    Autoencoder,
    /// The quantizer.
    Quantizer,
    /// The prior; may be empty.
    Prior,
    /// What the tokenizer is trained for.
    Objective,
    /// How the tokenizer is trained.
    TokenizerTraining,
    /// How the prior is trained.
    PriorTraining,
    /// What is measured.
    Evaluation,
}

impl Slot {
    /// All of them, in the order in which an experiment is written.
    pub const ALL: [Self; 8] = [
        Self::Data,
        Self::Autoencoder,
        Self::Quantizer,
        Self::Prior,
        Self::Objective,
        Self::TokenizerTraining,
        Self::PriorTraining,
        Self::Evaluation,
    ];

    /// The field of an experiment file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Autoencoder => "autoencoder",
            Self::Quantizer => "quantizer",
            Self::Prior => "prior",
            Self::Objective => "objective",
            Self::TokenizerTraining => "tokenizer_training",
            Self::PriorTraining => "prior_training",
            Self::Evaluation => "evaluation",
        }
    }

    /// The slot of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|slot| slot.name() == name)
    }

    /// What plugins provide for it; none for settings.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Data => Some(Kind::Dataset),
            Self::Autoencoder => Some(Kind::Autoencoder),
            Self::Quantizer => Some(Kind::Quantizer),
            Self::Prior => Some(Kind::Prior),
            Self::Objective => Some(Kind::Objective),
            Self::TokenizerTraining | Self::PriorTraining | Self::Evaluation => None,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an axis or `--set` names: a slot, or a field of what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// The slot.
    pub slot: Slot,
    /// The field, as written.
    pub field: Option<Piece>,
    /// The path, as written.
    pub piece: Piece,
}

impl Path {
    /// Reads a path.
    pub fn parse(piece: &Piece) -> Result<Self, Diagnostic> {
        let text = piece.text();
        let (slot, field) = match text.split_once('.') {
            Some((slot, field)) => (slot, Some(field)),
            None => (text, None),
        };
        let Some(known) = Slot::named(slot) else {
            let names = Slot::ALL.map(Slot::name);
            let mut error = Diagnostic::error(format!("`{text}` names nothing of an experiment")).at(piece, "");
            error.help = suggestion(slot, "a path begins with one of", names);
            if slot == "seeds" {
                error.help = vec!["give seeds with `--seeds 0,1`".to_owned()];
            }
            return Err(error);
        };
        match field {
            Some(field) if field.is_empty() || field.contains('.') => {
                Err(Diagnostic::error(format!("`{text}` is not a path"))
                    .at(piece, "")
                    .help(format!("write `{known}` for the whole, or `{known}.FIELD` for a field of it")))
            }
            _ => Ok(Self { slot: known, field: field.map(|f| piece.part(f)), piece: piece.clone() }),
        }
    }

    /// The path as text.
    pub fn text(&self) -> &str {
        self.piece.text()
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

/// A component's call, or a group of settings, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// What it is for.
    pub slot: Slot,
    /// The component's name; none for settings.
    pub name: Option<Piece>,
    /// The call as it was written.
    pub whole: Piece,
    /// Its fields, of which some may have been replaced.
    pub fields: Vec<Entry>,
}

impl Component {
    /// Reads what stands in `slot`. `None` is for a prior that is not there.
    pub fn read(slot: Slot, piece: &Piece) -> Result<Option<Self>, Diagnostic> {
        if slot == Slot::Prior && piece.text() == "None" {
            return Ok(None);
        }
        let whole = piece.clone();
        if slot.kind().is_none() {
            return Ok(Some(Self { slot, name: None, fields: raw::fields(piece)?, whole }));
        }
        let Some((name, arguments)) = raw::call(piece) else {
            return Err(Diagnostic::error(format!("`{slot}` must name a component"))
                .at(piece, "expected a call such as `name(field: value, ..)`")
                .help(format!("`rqlab plugins list` shows the components for `{slot}`")));
        };
        let fields = if arguments.text().is_empty() { vec![] } else { raw::fields(&arguments)? };
        Ok(Some(Self { slot, name: Some(name), whole, fields }))
    }

    /// The component's name; empty for settings.
    pub fn name(&self) -> &str {
        self.name.as_ref().map_or("", Piece::text)
    }

    /// What errors about the whole point at: the name, or all of the settings.
    pub fn head(&self) -> &Piece {
        self.name.as_ref().unwrap_or(&self.whole)
    }

    /// A field's entry.
    pub fn field(&self, name: &str) -> Option<&Entry> {
        self.fields.iter().find(|entry| entry.key.text() == name)
    }

    /// Replaces a field, or adds it.
    pub fn set(&mut self, key: &Piece, value: &Piece) {
        let entry = Entry { key: key.clone(), value: value.clone() };
        match self.fields.iter_mut().find(|e| e.key.text() == key.text()) {
            Some(old) => *old = entry,
            None => self.fields.push(entry),
        }
    }

    /// Fills in the defaults, and checks names, types and ranges.
    ///
    /// # Errors
    /// Everything that is wrong with the names of fields; else everything that is wrong with their values.
    pub fn resolve(
        &self,
        description: &Description,
        resolve: impl Fn(&str) -> Result<String, ConfigError>,
    ) -> Result<String, Vec<Diagnostic>> {
        let mut wrong = Vec::new();
        let what = self.called();
        for entry in &self.fields {
            let name = entry.key.text();
            if !description.fields.iter().any(|field| field.name == name) {
                let mut error = Diagnostic::error(format!("{what} has no field `{name}`")).at(&entry.key, "");
                if entry.key.source != self.whole.source || !within(&entry.key, &self.whole) {
                    error = error.also(self.head(), format!("{what} is named here"));
                }
                error.help = suggestion(name, "its fields", description.fields.iter().map(|field| field.name));
                wrong.push(error);
            }
        }
        let given = |field: &&FieldDoc| field.default.is_some() || self.field(field.name).is_some();
        for field in description.fields.iter().filter(|field| !given(field)) {
            wrong.push(
                Diagnostic::error(format!("{what} needs `{}`", field.name))
                    .at(self.head(), "")
                    .help(help_of(field))
                    .help(format!(
                        "write `{name}: ..` here, or give it with `--set {}.{name}=..`",
                        self.slot,
                        name = field.name
                    )),
            );
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let error = match resolve(&self.compose(&self.fields, description)) {
            Ok(text) => return Ok(text),
            Err(error) => error,
        };
        // Places in errors come late (a wrong type is noticed behind the value) and there is only one of them. Asked about
        // one field at a time, the parser says of each value what is wrong with it.
        for entry in &self.fields {
            let Err(error) = resolve(&self.compose(std::slice::from_ref(entry), description)) else { continue };
            if !error.message.contains("missing field") {
                wrong.push(self.mismatch(entry, &error.message, description));
            }
        }
        if wrong.is_empty() {
            let named = error.field.as_deref().or_else(|| error.message.strip_prefix('`')?.split('`').next());
            wrong.push(match named.and_then(|name| self.field(name)) {
                Some(entry) => self.about(entry, &error.message, description),
                None => Diagnostic::error(format!("{what}: {}", lower_first(&error.message))).at(self.head(), ""),
            });
        }
        Err(wrong)
    }

    /// A call with some of the fields.
    fn compose(&self, fields: &[Entry], description: &Description) -> String {
        let mut text = format!("{}(\n", self.name());
        for entry in fields {
            let is_text = |kind: &str| kind == "text" || kind.starts_with("text |");
            let wants_text = description.fields.iter().any(|f| f.name == entry.key.text() && is_text(&f.kind));
            let value = entry.value.text();
            // The shell eats quotes.
            let bare = entry.value.source.is_argument && !value.starts_with('"') && value != "None";
            let value = if wants_text && bare { format!("{value:?}") } else { value.to_owned() };
            text += &format!("{}: {value},\n", entry.key.text());
        }
        text + ")"
    }

    /// A complaint about a value that does not parse. The parser's own words are kept if they name the field, as those
    /// about ranges do; else they say what it stumbled over (`expected comma` of 2.5 for an integer), not what is wanted.
    fn mismatch(&self, entry: &Entry, message: &str, description: &Description) -> Diagnostic {
        let (name, value) = (entry.key.text(), entry.value.text());
        // Of 0.5 for an integer, 0 is read and found to be out of range.
        let cut = |field: &FieldDoc| field.kind.starts_with("integer") && value.contains('.');
        match description.fields.iter().find(|field| field.name == name) {
            Some(field) if cut(field) || !message.contains(&format!("`{name}`")) => {
                let found = raw::quoted(value);
                let message = format!("`{name}` of {} must be {}, found {found}", self.called(), wanted(field));
                Diagnostic::error(message).at(&entry.value, "").help(help_of(field))
            }
            _ => self.about(entry, message, description),
        }
    }

    /// A complaint about the value of a field.
    fn about(&self, entry: &Entry, message: &str, description: &Description) -> Diagnostic {
        let name = entry.key.text();
        let message = if message.contains(&format!("`{name}`")) {
            message.to_owned()
        } else {
            format!("`{name}` of {}: {}", self.called(), lower_first(message))
        };
        let diagnostic = Diagnostic::error(message).at(&entry.value, "");
        match description.fields.iter().find(|field| field.name == name) {
            Some(field) => diagnostic.help(help_of(field)),
            None => diagnostic,
        }
    }

    /// An error of the component's constructor, at the field that it is about.
    pub fn complaint(&self, field: Option<&str>, message: &str) -> Diagnostic {
        match field.and_then(|name| Some((name, self.field(name)?))) {
            Some((name, entry)) => {
                Diagnostic::error(format!("`{name}` of {}: {message}", self.called())).at(&entry.value, "")
            }
            None => {
                let about = field.map(|name| format!("`{name}` of ")).unwrap_or_default();
                Diagnostic::error(format!("{about}{}: {message}", self.called())).at(self.head(), "")
            }
        }
    }

    fn called(&self) -> String {
        match &self.name {
            Some(name) => format!("`{}`", name.text()),
            None => format!("`{}`", self.slot),
        }
    }
}

/// What a field is, in a line.
pub fn help_of(field: &FieldDoc) -> String {
    let mut text = format!("`{}` is {}", field.name, article(&field.kind));
    if let Some(range) = field.range {
        text += &format!(" in {range}");
    }
    if let Some(default) = &field.default {
        text += &format!(", by default {}", raw::display(default));
    }
    let doc = field.doc.lines().collect::<Vec<_>>().join(" ");
    if doc.is_empty() { text } else { format!("{text}: {doc}") }
}

/// What a field wants, in words: `an integer in 1..=64`, `a number in 0.0.. or None`.
fn wanted(field: &FieldDoc) -> String {
    let range = field.range.map_or(String::new(), |range| format!(" in {range}"));
    let words = |kind: &str| match kind {
        "None" | "true" | "false" => kind.to_owned(),
        "text" => format!("text in quotes{range}"),
        kind => format!("{}{range}", article(kind)),
    };
    field.kind.split(" | ").map(words).collect::<Vec<_>>().join(" or ")
}

fn article(kind: &str) -> String {
    match kind {
        "integer" => "an integer".to_owned(),
        "number" => "a number".to_owned(),
        _ => kind.to_owned(),
    }
}

fn within(inner: &Piece, outer: &Piece) -> bool {
    outer.range.start <= inner.range.start && inner.range.end <= outer.range.end
}

/// What all slots hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Setup(std::collections::BTreeMap<Slot, Component>);

impl Setup {
    /// What is in a slot.
    pub fn get(&self, slot: Slot) -> Option<&Component> {
        self.0.get(&slot)
    }

    /// Puts a value where the path says. Returns whether it could be put there: a field of an empty slot cannot.
    pub fn set(&mut self, assignment: &Assignment) -> Result<bool, Diagnostic> {
        let Assignment { path, value } = assignment;
        match (&path.field, self.0.get_mut(&path.slot)) {
            (Some(field), Some(component)) => component.set(field, value),
            (Some(field), None) if path.slot.kind().is_none() => {
                let mut component =
                    Component { slot: path.slot, name: None, whole: path.piece.clone(), fields: vec![] };
                component.set(field, value);
                self.0.insert(path.slot, component);
            }
            (Some(_), None) => return Ok(false),
            (None, _) => match Component::read(path.slot, value)? {
                Some(component) => drop(self.0.insert(path.slot, component)),
                None => drop(self.0.remove(&path.slot)),
            },
        }
        Ok(true)
    }
}
