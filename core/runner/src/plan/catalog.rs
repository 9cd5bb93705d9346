//! What the components and the settings accept, asked once each.

use crate::experiment::Slot;
use crate::experiment::diagnostic::Diagnostic;
use crate::experiment::reach::Descriptions;
use crate::experiment::written::{Role, WrittenCall};
use crate::plugins::{Plugins, Provided};
use crate::settings::{Evaluation, PriorTraining, TokenizerTraining};
use rqlab_sdk::config::{Config, Description};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The plugins, and their answers.
pub(super) struct Catalog<'a> {
    plugins: &'a Plugins,
    descriptions: RefCell<HashMap<(Role, String), Rc<Description>>>,
}

impl<'a> Catalog<'a> {
    pub(super) fn new(plugins: &'a Plugins) -> Self {
        Self { plugins, descriptions: RefCell::default() }
    }

    /// The component that is called.
    pub(super) fn provided(&self, call: &WrittenCall) -> Result<&'a Provided, Diagnostic> {
        match call.role {
            Role::Component(kind) => self.plugins.find(kind, call.name()).map_err(|error| error.at(call.head(), "")),
            Role::Settings(slot) => Err(Diagnostic::error(format!("`{slot}` is no component")).at(call.head(), "")),
        }
    }
}

impl Descriptions for Catalog<'_> {
    fn of(&self, role: Role, name: &str) -> Option<Rc<Description>> {
        let key = (role, name.to_owned());
        if let Some(known) = self.descriptions.borrow().get(&key) {
            return Some(known.clone());
        }
        let description = match role {
            Role::Component(kind) => (self.plugins.find(kind, name).ok()?.component.describe)(),
            Role::Settings(slot) => of_settings(slot)?,
        };
        let description = Rc::new(description);
        self.descriptions.borrow_mut().insert(key, description.clone());
        Some(description)
    }
}

/// The settings that go into a slot; none of a component's.
pub fn of_settings(slot: Slot) -> Option<Description> {
    match slot {
        Slot::TokenizerTraining => Some(TokenizerTraining::describe()),
        Slot::PriorTraining => Some(PriorTraining::describe()),
        Slot::Evaluation => Some(Evaluation::describe()),
        _ => None,
    }
}
