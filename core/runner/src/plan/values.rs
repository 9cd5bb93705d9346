//! What a combination has under a path, and whether that is what a condition asks for.

use crate::experiment::condition::{Condition, Subject};
use crate::experiment::diagnostic::Diagnostic;
use crate::experiment::path::Path;
use crate::experiment::raw;
use crate::experiment::reach::Reached;
use crate::experiment::source::Piece;
use crate::experiment::{Setup, Written};
use crate::plan::catalog::Catalog;

/// What a path leads to in a combination; nothing if it leads nowhere, whatever the reason.
pub(super) fn at(path: &Path, setup: &Setup, catalog: &Catalog<'_>) -> Option<Written> {
    match setup.find(path, catalog) {
        Ok(Reached::There(written)) => Some(written),
        _ => None,
    }
}

/// Whether a combination has all values of a condition.
pub(super) fn holds(condition: &Condition, setup: &Setup, case: Option<&Piece>, catalog: &Catalog<'_>) -> bool {
    condition.at.iter().all(|(subject, wanted)| match subject {
        Subject::Case(_) => case.is_some_and(|case| case.text() == raw::display(wanted.text())),
        Subject::Path(path) => match at(path, setup, catalog) {
            Some(found) => fits(&found, wanted, path, catalog),
            None => path.is_whole() && setup.get(path.slot).is_none() && wanted.text() == "None",
        },
    })
}

/// Whether a value is the one that is wanted, however the two are spelled. A call fits if the name is the same and all
/// fields that the wanted one gives are.
fn fits(found: &Written, wanted: &Piece, path: &Path, catalog: &Catalog<'_>) -> bool {
    match found {
        Written::Value(value) => raw::display(value.text()) == raw::display(wanted.text()),
        Written::Call(call) => {
            let Some((name, arguments)) = raw::call(wanted) else { return false };
            let fields = if arguments.text().is_empty() { Ok(vec![]) } else { raw::fields(&arguments) };
            name.text() == call.name()
                && fields.is_ok_and(|fields| {
                    fields.iter().all(|field| {
                        let mut call = found.clone();
                        match call.reach(path, std::slice::from_ref(&field.key), catalog) {
                            Ok(Reached::There(inner)) => fits(inner, &field.value, path, catalog),
                            _ => false,
                        }
                    })
                })
        }
        Written::List(list) => raw::list(wanted).is_ok_and(|wanted| {
            wanted.len() == list.items.len()
                && list.items.iter().zip(&wanted).all(|(found, wanted)| fits(found, wanted, path, catalog))
        }),
    }
}

/// A complaint if a condition is about something that no combination has, because a component does not know it or there are
/// no cases.
pub(super) fn unknown(
    subject: &Subject,
    combinations: &[(Option<Piece>, Setup)],
    catalog: &Catalog<'_>,
) -> Option<Diagnostic> {
    match subject {
        Subject::Case(piece) => {
            let none = combinations.iter().all(|(case, _)| case.is_none());
            none.then(|| Diagnostic::error("the experiment has no cases").at(piece, ""))
        }
        Subject::Path(path) => {
            let mut error = None;
            for (_, setup) in combinations {
                match setup.find(path, catalog) {
                    Ok(Reached::There(_)) => return None,
                    Ok(Reached::Nothing(_)) => {}
                    Err(unknown) => error = error.or(Some(unknown)),
                }
            }
            error
        }
    }
}
