//! What the components and the settings accept, asked once each.

use crate::job::Call;
use crate::plugins::{Plugins, Provided};
use crate::settings::{Evaluation, PriorTraining, TokenizerTraining};
use crate::spec::component::{Component, Setup, Slot};
use crate::spec::diagnostic::{Complaints, Diagnostic};
use crate::spec::source::{Piece, Source};
use rqlab_sdk::config::{Config, Description, Scope};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// A call with its origin, or what is wrong with it.
type Answer = Result<Call, Vec<Diagnostic>>;

pub(super) struct Catalog<'a> {
    plugins: &'a Plugins,
    descriptions: RefCell<HashMap<(Slot, String), Rc<Description>>>,
    calls: RefCell<Vec<(Slot, Component, Answer)>>,
}

impl<'a> Catalog<'a> {
    pub(super) fn new(plugins: &'a Plugins) -> Self {
        Self { plugins, descriptions: RefCell::default(), calls: RefCell::default() }
    }

    fn provided(&self, slot: Slot, component: &Component) -> Result<&'a Provided, Diagnostic> {
        match slot.kind() {
            Some(kind) => self.plugins.find(kind, component.name()).map_err(|error| error.at(component.head(), "")),
            None => Err(Diagnostic::error(format!("`{slot}` is no component")).at(component.head(), "")),
        }
    }

    /// What may stand in a slot's component; none if no plugin provides it.
    pub(super) fn description(&self, slot: Slot, component: Option<&Component>) -> Option<Rc<Description>> {
        let name = component.map_or("", Component::name);
        let key = (slot, name.to_owned());
        if let Some(known) = self.descriptions.borrow().get(&key) {
            return Some(known.clone());
        }
        let description = match slot {
            Slot::TokenizerTraining => TokenizerTraining::describe(),
            Slot::PriorTraining => PriorTraining::describe(),
            Slot::Evaluation => Evaluation::describe(),
            _ => (self.provided(slot, component?).ok()?.component.describe)(),
        };
        let description = Rc::new(description);
        self.descriptions.borrow_mut().insert(key, description.clone());
        Some(description)
    }

    /// The slot's component, resolved.
    pub(super) fn call(&self, setup: &Setup, slot: Slot, complaints: &mut Complaints) -> Option<Call> {
        let default = default_of(slot);
        let component = setup.get(slot).or(default.as_ref())?;
        let known = self.calls.borrow().iter().find(|(s, c, _)| *s == slot && c == component).map(|(.., a)| a.clone());
        let answer = known.unwrap_or_else(|| {
            let answer = self.resolve(slot, component);
            self.calls.borrow_mut().push((slot, component.clone(), answer.clone()));
            answer
        });
        answer.map_err(|list| list.into_iter().for_each(|d| complaints.push(d))).ok()
    }

    fn resolve(&self, slot: Slot, component: &Component) -> Answer {
        let provided = self.provided(slot, component).map_err(|error| vec![error])?;
        let description =
            self.description(slot, Some(component)).unwrap_or_else(|| Rc::new((provided.component.describe)()));
        let config = component.resolve(&description, provided.component.resolve)?;
        let name = provided.component.name.to_owned();
        let digest = provided.origin.digest.clone();
        let plugins = BTreeMap::from([(crate::plugins::key(provided.component.build.kind(), &name), digest)]);
        let identity = |scope| {
            let text = format!("{name}{config}");
            (provided.component.identity)(&text, scope).map_err(|e| vec![Diagnostic::error(e.to_string())])
        };
        Ok(Call { trained: identity(Scope::Training)?, sampled: identity(Scope::Sampling)?, name, config, plugins })
    }

    /// The slot's settings; the defaults if nothing is said.
    pub(super) fn settings<C: Config>(&self, setup: &Setup, slot: Slot, complaints: &mut Complaints) -> Option<C> {
        let defaults = || C::parse("()").map_err(|error| Diagnostic::error(error.to_string()));
        let Some(component) = setup.get(slot) else { return complaints.take(defaults()) };
        let resolved = component.resolve(&C::describe(), |text| C::parse(text)?.resolved());
        match resolved {
            Ok(text) => {
                complaints.take(C::parse(&text).map_err(|e| component.complaint(e.field.as_deref(), &e.message)))
            }
            Err(list) => {
                list.into_iter().for_each(|d| complaints.push(d));
                None
            }
        }
    }
}

/// What a slot holds where the experiment says nothing.
fn default_of(slot: Slot) -> Option<Component> {
    let text = match slot {
        Slot::Objective => "mse()",
        _ => return None,
    };
    let source = Source { name: "default".to_owned(), text: text.to_owned(), dir: "".into(), is_argument: false };
    Component::read(slot, &Piece::whole(&Arc::new(source))).ok().flatten()
}
