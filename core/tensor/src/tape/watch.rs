//! Gradients that are handed over while the backward pass goes on, so that they can be summed over ranks meanwhile.

use super::{FAILURE, Flow, GradKey, RECORDING, Recording, Tape};
use crate::{Result, Var};
use dfdx::prelude::{CpuError, Tape as _};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Variables whose gradients are handed over as soon as they are whole.
pub(super) struct Watch {
    /// Those that nothing has used yet, by their addresses, and which each is.
    unused: HashMap<usize, usize>,
    ready: Rc<RefCell<Ready>>,
}

/// Is given the gradient of the variable of an index.
type Ready = dyn FnMut(usize, Vec<f32>) -> Result<()>;

/// Takes note that a variable is about to be used. If it is a watched one's first use, what is recorded here runs backward after
/// all its uses, and its gradient is whole then.
pub(crate) fn used(address: usize, key: &GradKey) {
    RECORDING.with_borrow_mut(|recording| {
        let Some(Recording { cpu, watch: Some(watch), .. }) = recording else { return };
        // Those on a GPU are left where they are.
        let Ok(name) = key.on_cpu().cloned() else { return };
        let Some(index) = watch.unused.remove(&address) else { return };
        let ready = watch.ready.clone();
        cpu.add_backward_op(move |gradients| {
            let gradient = Flow(gradients).take(&GradKey::Cpu(name))?;
            if gradient.is_empty() {
                return Ok(());
            }
            ready.borrow_mut()(index, gradient).map_err(|error| {
                FAILURE.set(Some(error));
                CpuError::WrongNumElements
            })
        });
    });
}

impl Tape {
    /// The same, and during the backward pass `ready` is given the gradients of `watched` variables on the CPU, each by its
    /// index, as soon as it is whole: while those of variables that were used before it are still to come.
    /// [`Gradients`](super::Gradients) then lack them. A variable must be used by what [`Var::get`] gives after this call.
    ///
    /// # Errors
    /// As for [`Tape::start`].
    pub fn start_watching(watched: &[Var], ready: impl FnMut(usize, Vec<f32>) -> Result<()> + 'static) -> Result<Self> {
        let tape = Self::start()?;
        let unused = watched.iter().enumerate().map(|(index, var)| (var.address(), index)).collect();
        let watch = Watch { unused, ready: Rc::new(RefCell::new(ready)) };
        RECORDING.with_borrow_mut(|recording| {
            if let Some(recording) = recording {
                recording.watch = Some(watch);
            }
        });
        Ok(tape)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::Tensor;

    /// w is used by two operations, and its gradient is whole when both have run; that of v, which is used later, comes first.
    #[test]
    fn watched_gradients_come_when_they_are_whole() {
        let [v, w, unused] = [2.0, 3.0, 4.0].map(|value| Var::parameter(&Tensor::full(value, &[2])));
        let seen = Rc::new(RefCell::new(Vec::new()));
        let ready = {
            let seen = seen.clone();
            move |index, gradient| {
                seen.borrow_mut().push((index, gradient));
                Ok(())
            }
        };
        let tape = Tape::start_watching(&[v.clone(), w.clone(), unused], ready).unwrap();
        let first = w.get().square().unwrap();
        let loss = first.mul(&v.get()).unwrap().mul(&w.get()).unwrap().sum_all().unwrap();
        let mut gradients = tape.backward(&loss).unwrap();
        // v w³: the derivatives are w³ and 3 v w².
        assert_eq!(*seen.borrow(), [(0, vec![27.0; 2]), (1, vec![54.0; 2])]);
        assert!(gradients.take(&w.get()).is_none());
    }
}
