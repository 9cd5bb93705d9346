//! Following a path into what is written.

use crate::experiment::diagnostic::{Diagnostic, suggestion};
use crate::experiment::path::Path;
use crate::experiment::raw;
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
    /// A step to a field that a component does not have, or into one that holds no component; a name that several elements
    /// of a list have.
    pub fn reach(
        &mut self,
        path: &Path,
        steps: &[Piece],
        known: &dyn Descriptions,
    ) -> Result<Reached<&mut Self>, Diagnostic> {
        self.follow(path, steps, false, known)
    }

    /// As [`Written::reach`]; `beyond` says whether what is reached is to hold something in turn.
    fn follow(
        &mut self,
        path: &Path,
        steps: &[Piece],
        beyond: bool,
        known: &dyn Descriptions,
    ) -> Result<Reached<&mut Self>, Diagnostic> {
        let Some((step, rest)) = steps.split_first() else { return Ok(Reached::There(self)) };
        let way = match &*self {
            Self::Call(call) => call.step(path, step, known),
            _ => Step::Field,
        };
        let next = match (self, way) {
            (this, Step::Itself) => return this.follow(path, rest, beyond, known),
            (_, Step::Nothing(why)) => Reached::Nothing(Some(why)),
            (Self::Value(value), _) => Reached::Nothing(Some(empty(path, step, value))),
            (Self::Call(call), _) => call.reach(step, beyond || !rest.is_empty(), known)?,
            (Self::List(list), _) => match list.position(path, step)? {
                Reached::There(index) => Reached::There(&mut list.items[index]),
                Reached::Nothing(why) => Reached::Nothing(why),
            },
        };
        match next {
            Reached::There(next) => next.follow(path, rest, beyond, known),
            Reached::Nothing(why) => Ok(Reached::Nothing(why)),
        }
    }

    /// Puts a value where `steps`, the last ones of `path`, lead: there is at least one.
    ///
    /// # Errors
    /// As for [`Written::reach`]; a value for an element of a list that is no call.
    pub fn put(&mut self, path: &Path, steps: &[Piece], value: &Piece, known: &dyn Descriptions) -> Put {
        let Some((last, way)) = steps.split_last() else { return Ok(Reached::Nothing(None)) };
        let holder = match self.follow(path, way, true, known)? {
            Reached::There(holder) => holder,
            Reached::Nothing(why) => return Ok(Reached::Nothing(why)),
        };
        let owner = format!("`{}`", path.text());
        match holder {
            Self::Value(none) => return Ok(Reached::Nothing(Some(empty(path, last, none)))),
            Self::Call(call) => match (call.step(path, last, known), call.role) {
                (Step::Itself, Role::Component(kind)) => *call = WrittenCall::component(kind, value, &owner)?,
                (Step::Nothing(why), _) => return Ok(Reached::Nothing(Some(why))),
                _ => call.set(last, Self::Value(value.clone())),
            },
            Self::List(list) => match list.position(path, last)? {
                Reached::There(index) => {
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

/// What a step names that meets a call.
enum Step {
    /// A field of it.
    Field,
    /// The call itself, by its component's name: it is as good as a list of one.
    Itself,
    /// An element of a list, which it is not.
    Nothing(Diagnostic),
}

impl WrittenCall {
    fn step(&self, path: &Path, step: &Piece, known: &dyn Descriptions) -> Step {
        let text = step.text();
        let names_component = || {
            let own = known.of(self.role, self.name()).is_some_and(|description| description.field(text).is_none());
            own && matches!(self.role, Role::Component(_)) && known.of(self.role, text).is_some()
        };
        if is_number(step) {
            let alone = nothing(path, step, format!("{} is one call, and no list", self.called()));
            Step::Nothing(alone.help(format!("`{}` is a field of the call", without(path, step))))
        } else if !names_component() {
            Step::Field
        } else if text == self.name() {
            Step::Itself
        } else {
            Step::Nothing(nothing(path, step, format!("{} is here, and no `{text}`", self.called())))
        }
    }

    /// A field's value, or its default. If the path goes on, the calls in it are taken apart.
    fn reach(
        &mut self,
        step: &Piece,
        goes_on: bool,
        known: &dyn Descriptions,
    ) -> Result<Reached<&mut Written>, Diagnostic> {
        let Some(description) = known.of(self.role, self.name()) else { return Ok(Reached::Nothing(None)) };
        let Some(field) = description.field(step.text()) else { return Err(self.unknown_field(step, &description)) };
        if goes_on && field.kind.holds().is_none() {
            let what = field.kind.in_words();
            let error = Diagnostic::error(format!("`{}` of {} is {what}", field.name, self.called()));
            return Err(error.at(step, "there is nothing in it that a path could name"));
        }
        if self.field(field.name).is_none() {
            let Some(text) = &field.default else {
                // It must be given, and that is told where the whole call is looked at.
                return Ok(Reached::Nothing(None));
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
}

impl WrittenList {
    /// The element that a step names: by its number from 1, or by the name of its component.
    fn position(&self, path: &Path, step: &Piece) -> Result<Reached<usize>, Diagnostic> {
        let names: Vec<String> = self.items.iter().map(Written::short).collect();
        let text = step.text();
        if is_number(step) {
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
            [first, ..] => {
                Err(Diagnostic::error(format!("`{}` names {} elements of a list", path.text(), found.len()))
                    .at(step, "")
                    .also(&self.whole, "")
                    .help(format!("name one by its number: `{}{}` is the first", before(path, step), first + 1)))
            }
        }
    }
}

fn is_number(step: &Piece) -> bool {
    step.text().starts_with(|c: char| c.is_ascii_digit())
}

/// What stands before a step, with its dot.
fn before<'a>(path: &'a Path, step: &Piece) -> &'a str {
    let length = step.range.start.saturating_sub(path.piece.range.start);
    path.text().get(..length).unwrap_or_default()
}

/// The path without a step.
fn without(path: &Path, step: &Piece) -> String {
    let before = before(path, step);
    let after = path.text().get(before.len() + step.text().len()..).unwrap_or_default();
    format!("{}{after}", before.trim_end_matches('.'))
}

fn nothing(path: &Path, step: &Piece, why: String) -> Diagnostic {
    Diagnostic::error(format!("`{}` names nothing: {why}", path.text())).at(step, "")
}

/// Where a call could be and none is.
fn empty(path: &Path, step: &Piece, value: &Piece) -> Diagnostic {
    let holder = before(path, step).trim_end_matches('.');
    nothing(path, step, format!("`{holder}` is {}", raw::display(value.text())))
}
