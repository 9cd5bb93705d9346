//! Whether training goes well, and what the curves of every training say.

use super::means::{Mean, UNREAD};
use rqlab_reports::Reading;
use rqlab_sdk::optim::GradientNorm;
use rqlab_sdk::tensor::{Device, Tensor};
use rqlab_sdk::{Error, Result};

/// A step that was taken, with numbers that a GPU may still have to compute.
pub(super) struct Taken {
    pub(super) step: u64,
    pub(super) lr: f64,
    pub(super) loss: Tensor,
    pub(super) norm: GradientNorm,
}

/// The mean loss, and the last learning rate and norm by their bits.
pub(super) type Pending = (Mean, Option<(u64, u64)>);

/// Losses and norms of the steps. On a GPU the host is steps ahead; to look at every loss at once would make it wait for each.
#[derive(Default)]
pub(super) struct Losses {
    unread: Vec<Taken>,
    critics: Vec<(String, Taken)>,
    loss: Mean,
    /// The learning rate and the norm of the gradients at the last step that was read.
    last: Option<(f64, f64)>,
}

impl Losses {
    /// Takes note of a step of the model; where its loss is no finite number, `not_finite` tells what in it is none.
    ///
    /// # Errors
    /// [`Error::Diverged`] where this or an earlier step went wrong: at once on the CPU, within [`UNREAD`] steps on a GPU,
    /// where nothing was changed by a step whose gradients were not finite.
    pub(super) fn add(&mut self, taken: Taken, not_finite: impl Fn() -> Vec<String>) -> Result<()> {
        let there = taken.loss.device() == Device::Cpu;
        self.unread.push(taken);
        if there || self.unread.len() >= UNREAD { self.read(not_finite) } else { Ok(()) }
    }

    /// Watches over a critic's step, which has no curve here: its objective names its terms.
    ///
    /// # Errors
    /// As for [`Losses::add`].
    pub(super) fn watch(&mut self, critic: &str, taken: Taken) -> Result<()> {
        let there = taken.loss.device() == Device::Cpu;
        self.critics.push((critic.to_owned(), taken));
        if there || self.critics.len() >= UNREAD { self.read_critics() } else { Ok(()) }
    }

    fn read(&mut self, not_finite: impl Fn() -> Vec<String>) -> Result<()> {
        for Taken { step, lr, loss, norm } in self.unread.drain(..) {
            let value = loss.item()?;
            if !value.is_finite() {
                let of = match not_finite().as_slice() {
                    [] => String::new(),
                    names => format!(" (that of {})", names.join(", ")),
                };
                return Err(Error::Diverged(format!(
                    "the loss is {value} at step {step}{of}, with the learning rate {lr}; \
                     lower `lr`, lengthen `warmup` or set `max_grad_norm`"
                )));
            }
            self.loss.add(f64::from(value));
            self.last = Some((lr, norm.read()?));
        }
        Ok(())
    }

    fn read_critics(&mut self) -> Result<()> {
        for (critic, Taken { step, lr, loss, norm }) in self.critics.drain(..) {
            let value = loss.item()?;
            if !value.is_finite() {
                return Err(Error::Diverged(format!(
                    "the loss of the critic of `{critic}` is {value} at step {step}, with the learning rate {lr}; lower its \
                     `lr`, let it start later, or weaken its regularisation"
                )));
            }
            norm.read()?;
        }
        Ok(())
    }

    /// What was added since the last call of [`Losses::take`], as a checkpoint keeps it.
    ///
    /// # Errors
    /// As for [`Losses::add`].
    pub(super) fn pending(&mut self) -> Result<Pending> {
        self.read(Vec::new)?;
        self.read_critics()?;
        Ok((self.loss.clone(), self.last.map(|(lr, norm)| (lr.to_bits(), norm.to_bits()))))
    }

    /// Goes on from what [`Losses::pending`] gave.
    pub(super) fn resume(&mut self, (loss, last): Pending) {
        self.loss = loss;
        self.last = last.map(|(lr, norm)| (f64::from_bits(lr), f64::from_bits(norm)));
    }

    /// The points of the curves, over the steps since the last call.
    ///
    /// # Errors
    /// As for [`Losses::add`].
    pub(super) fn take(&mut self) -> Result<Vec<Reading>> {
        self.read(Vec::new)?;
        self.read_critics()?;
        let loss = self.loss.take().map(|loss| ("loss", loss));
        let last = self.last.take().map(|(lr, norm)| [("learning_rate", lr), ("gradient_norm", norm)]);
        let points = loss.into_iter().chain(last.into_iter().flatten());
        Ok(points.map(|(name, value)| Reading::new(name, [], value)).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use rqlab_sdk::optim::{Adam, AdamSettings};
    use rqlab_sdk::tensor::{Tape, Var};

    /// Step 7, whose loss is `value`.
    fn taken(value: f32) -> Taken {
        let weight = Var::parameter(&Tensor::scalar(1.0));
        let mut optimizer = Adam::new(vec![("w".to_owned(), weight.clone())], AdamSettings::default()).unwrap();
        let tape = Tape::start().unwrap();
        let mut gradients = tape.backward(&weight.get().square().unwrap()).unwrap();
        let norm = optimizer.step(&mut gradients, 1e-3, None).unwrap();
        Taken { step: 7, lr: 1e-3, loss: Tensor::scalar(value), norm }
    }

    #[test]
    fn whose_loss_is_no_number_is_said_with_its_step_and_a_remedy() {
        let mut losses = Losses::default();
        losses.add(taken(1.0), Vec::new).unwrap();
        losses.watch("patch_gan", taken(1.0)).unwrap();
        let said = losses.add(taken(f32::NAN), || vec!["perceptual".to_owned()]).unwrap_err().to_string();
        assert!(
            said.contains("the loss is NaN at step 7 (that of perceptual)") && said.contains("lower `lr`"),
            "{said}"
        );
        let said = losses.watch("patch_gan", taken(f32::INFINITY)).unwrap_err().to_string();
        assert!(said.contains("the critic of `patch_gan` is inf at step 7") && said.contains("start later"), "{said}");
    }
}
