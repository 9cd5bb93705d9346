//! What keeps a discriminator from winning: a pull of its logits to their averages, and a penalty on its gradients.

use crate::dual::Dual;
use rqlab_sdk::choice;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ranks::Step;
use rqlab_sdk::tensor::{Tape, no_grad};

choice! {
    /// What LeCam compares with the moving averages, and when those move: published codes differ.
    pub enum LecamOrder {
        /// The means of a batch, with the averages from before the step: TiTok, MaskBit.
        After = "after",
        /// Every logit, with averages that have seen this batch: SEED-Voken's Open-MAGVIT2.
        Before = "before",
    }
}

/// LeCam (Tseng et al., "Regularizing generative adversarial networks under limited data", CVPR 2021): logits of images are
/// pulled to the moving average of reconstructions' logits, and the other way around. Buffers: `ema_real`, `ema_fake`.
#[derive(Debug)]
pub struct Lecam {
    order: LecamOrder,
    decay: f32,
    real: Var,
    fake: Var,
}

impl Lecam {
    /// Averages that start at zero and keep the share `decay` at each step.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(params: &Params, order: LecamOrder, decay: f32) -> Result<Self> {
        let average = |name| params.buffer(name, &[1], Init::ZEROS);
        Ok(Self { order, decay, real: average("ema_real")?, fake: average("ema_fake")? })
    }

    /// The term (rank 0) of the logits of a step, which moves the averages.
    ///
    /// # Errors
    /// None for logits.
    pub fn term(&self, real: &Tensor, fake: &Tensor) -> Result<Tensor> {
        let means = [real, fake].map(Tensor::mean_all);
        let step = Step::current();
        let [real_mean, fake_mean] = [step.mean(&means[0].clone()?)?, step.mean(&means[1].clone()?)?];
        let averages = [&self.real, &self.fake].map(Var::get);
        for (average, mean) in [(&self.real, &real_mean), (&self.fake, &fake_mean)] {
            let kept = average.get().mul_scalar(self.decay)?;
            average.set(&kept.add(&mean.detach().mul_scalar(1.0 - self.decay)?)?)?;
        }
        let (real, fake, [real_average, fake_average]) = match self.order {
            LecamOrder::After => (&real_mean, &fake_mean, averages),
            LecamOrder::Before => (real, fake, [self.real.get(), self.fake.get()]),
        };
        let above = real.sub(&fake_average)?.relu()?.square()?.mean_all()?;
        Ok(above.add(&real_average.sub(fake)?.relu()?.square()?.mean_all()?)?)
    }
}

/// R1 (Mescheder et al., "Which training methods for GANs do actually converge?", ICML 2018): the squared norm of the
/// gradient of a network's summed logits at each of `images`, averaged over them (rank 0). Its gradient in the parameters is
/// that of `2 v · grad - |v|²` with v the gradient held fixed: of a derivative along v, which one more forward pass gives.
///
/// # Errors
/// Those of the network.
pub fn r1(images: &Tensor, network: impl Fn(&Dual) -> Result<Dual>) -> Result<Tensor> {
    let gradient = no_grad(|| -> Result<_> {
        let leaf = images.detach().leaf();
        let tape = Tape::start()?;
        let logits = network(&Dual::plain(&leaf))?.value.sum_all()?;
        Ok(tape.backward(&logits)?.take(&leaf))
    })?;
    let none = || Error::Unsupported("the discriminator's logits do not depend on the image".to_owned());
    let gradient = gradient.ok_or_else(none)?;
    let derivative = network(&Dual::along(images, &gradient))?.derivative.ok_or_else(none)?.sum_all()?;
    let square = gradient.square()?.sum_all()?;
    Ok(derivative.mul_scalar(2.0)?.sub(&square)?.mul_scalar(1.0 / images.shape()[0].max(1) as f32)?)
}
