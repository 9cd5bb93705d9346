//! Following a path into what is written.

use crate::experiment::diagnostic::{Diagnostic, suggestion};
use crate::experiment::path::Path;
use crate::experiment::source::Piece;
use crate::experiment::written::{Field, Role, Shape, Written, WrittenCall, WrittenList, default_piece};
use rqlab_sdk::config::{Description, FieldDoc};
use std::rc::Rc;

/// What components and settings accept.
pub trait Descriptions {
    /// The fields that may stand in a call; none if no plugin provides its component.
    fn of(&self, role: Role, name: &str) -> Option<Rc<Description>>;
}

/// Where a path led.
pub enum Reached<T> {
    /// There.
    There(T),
    /// To nothing here: a slot that is empty, an element that a list does not have. Other combinations of an experiment may
    /// have it. Why, unless something else is wrong that is told anyway.
    Nothing(Option<Diagnostic>),
}

impl Written {
    /// What `steps`, the last ones of `path`, lead to. Calls on the way are taken apart; of fields that are not given the
    /// defaults are written down.
    ///
    /// # Errors
    /// A step to a field that a component does not have, or into one that holds no component.
    pub fn reach(
        &mut self,
        path: &Path,
        steps: &[Piece],
        known: &dyn Descriptions,
    ) -> Result<Reached<&mut Self>, Diagnostic> {
        let Some((step, rest)) = steps.split_first() else { return Ok(Reached::There(self)) };
        let next = match self {
            Self::Value(piece) => Reached::Nothing(Some(nothing(path, step, format!("`{}` is there", piece.text())))),
            Self::Call(call) => call.reach(path, step, !rest.is_empty(), known)?,
            Self::List(list) => match list.position(path, step)? {
                Reached::There(index) => Reached::There(&mut list.items[index]),
                Reached::Nothing(why) => Reached::Nothing(why),
            },
        };
        match next {
            Reached::There(next) => next.reach(path, rest, known),
            Reached::Nothing(why) => Ok(Reached::Nothing(why)),
        }
    }

    /// Puts a value where `steps`, the last ones of `path`, lead: there is at least one.
    ///
    /// # Errors
    /// As for [`Written::reach`]; a value for an element of a list that is no call.
    pub fn put(&mut self, path: &Path, steps: &[Piece], value: &Piece, known: &dyn Descriptions) -> Put {
        let Some((last, way)) = steps.split_last() else { return Ok(Reached::Nothing(None)) };
        let holder = match self.reach(path, way, known)? {
            Reached::There(holder) => holder,
            Reached::Nothing(why) => return Ok(Reached::Nothing(why)),
        };
        match holder {
            Self::Value(piece) => {
                return Ok(Reached::Nothing(Some(nothing(path, last, format!("`{}` is there", piece.text())))));
            }
            Self::Call(call) => match call.no_list(path, last) {
                Some(why) => return Ok(Reached::Nothing(Some(why))),
                None => call.set(last, Self::Value(value.clone())),
            },
            Self::List(list) => match list.position(path, last)? {
                Reached::There(index) => {
                    let owner = format!("`{}`", path.text());
                    list.items[index] = Self::Call(WrittenCall::component(list.kind, value, &owner)?);
                }
                Reached::Nothing(why) => return Ok(Reached::Nothing(why)),
            },
        }
        Ok(Reached::There(()))
    }
}

/// What came of putting a value somewhere.
pub type Put = Result<Reached<()>, Diagnostic>;

impl WrittenCall {
    /// A field's value, or its default. If the path goes on, the calls in it are taken apart.
    fn reach(
        &mut self,
        path: &Path,
        step: &Piece,
        goes_on: bool,
        known: &dyn Descriptions,
    ) -> Result<Reached<&mut Written>, Diagnostic> {
        if let Some(why) = self.no_list(path, step) {
            return Ok(Reached::Nothing(Some(why)));
        }
        let Some(description) = known.of(self.role, self.name()) else { return Ok(Reached::Nothing(None)) };
        let Some(field) = description.field(step.text()) else { return Err(self.unknown_field(step, &description)) };
        if goes_on && field.kind.holds().is_none() {
            let what = field.kind.in_words();
            let error = Diagnostic::error(format!("`{}` of {} is {what}", field.name, self.called()));
            return Err(error.at(step, "there is nothing in it that a path could name"));
        }
        if self.field(field.name).is_none() {
            let Some(text) = &field.default else {
                let why = format!("`{}` of {} is not given", field.name, self.called());
                return Ok(Reached::Nothing(Some(nothing(path, step, why))));
            };
            let owner = format!("`{}` of {}", field.name, self.called());
            let value = Written::Value(default_piece(&owner, text));
            self.fields.push(Field { key: step.clone(), value });
        }
        self.open(field)?;
        let found = self.fields.iter_mut().find(|given| given.key.text() == field.name);
        Ok(found.map_or(Reached::Nothing(None), |given| Reached::There(&mut given.value)))
    }

    /// Takes apart the calls that a given field holds.
    ///
    /// # Errors
    /// What is no call or list of calls, where the field holds these.
    pub fn open(&mut self, field: &FieldDoc) -> Result<(), Diagnostic> {
        let Some(kind) = field.kind.holds() else { return Ok(()) };
        let owner = format!("`{}` of {}", field.name, self.called());
        if let Some(given) = self.fields.iter_mut().find(|given| given.key.text() == field.name)
            && let Written::Value(piece) = &given.value
        {
            given.value = Written::calls(kind, Shape::of(&field.kind), piece, &owner)?;
        }
        Ok(())
    }

    /// Why a step that names an element of a list leads to nothing here.
    fn no_list(&self, path: &Path, step: &Piece) -> Option<Diagnostic> {
        step.text().starts_with(|c: char| c.is_ascii_digit()).then(|| {
            nothing(path, step, format!("{} is one call, and no list", self.called()))
                .help(format!("leave `{}.` out for a field of the call", step.text()))
        })
    }
}

impl WrittenList {
    /// The element that a step names: by its number from 1, or by the name of its component.
    fn position(&self, path: &Path, step: &Piece) -> Result<Reached<usize>, Diagnostic> {
        let names: Vec<String> = self.items.iter().map(Written::short).collect();
        let text = step.text();
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let index = text.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            if let Some(index) = index.filter(|index| *index < names.len()) {
                return Ok(Reached::There(index));
            }
            let count = match names.len() {
                1 => "one element".to_owned(),
                count => format!("{count} elements"),
            };
            let why = nothing(path, step, format!("the list has {count}, which count from 1"));
            return Ok(Reached::Nothing(Some(why.also(&self.whole, ""))));
        }
        let found: Vec<usize> = (0..names.len()).filter(|&index| names[index] == text).collect();
        match found[..] {
            [index] => Ok(Reached::There(index)),
            [] => {
                let mut why = nothing(path, step, format!("the list has no `{text}`")).also(&self.whole, "");
                why.help = suggestion(text, "its elements", names.iter().map(String::as_str));
                Ok(Reached::Nothing(Some(why)))
            }
            [first, ..] => Err(Diagnostic::error(format!("`{}` could be {} elements", path.text(), found.len()))
                .at(step, "")
                .also(&self.whole, "")
                .help(format!("name one by its number, from 1: `{}` for the first `{text}`", first + 1))),
        }
    }
}

fn nothing(path: &Path, step: &Piece, why: String) -> Diagnostic {
    Diagnostic::error(format!("`{}` names nothing: {why}", path.text())).at(step, "")
}
