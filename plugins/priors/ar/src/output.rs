//! From hidden states to distributions over codes, without a norm.

use rqlab_sdk::nn::Linear;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::packed::PackedLinear;

/// Logits from hidden states: a linear map for all depths where their codebooks have one size, and one per depth where they
/// have not. Parameters: `weight`, or `0.weight`, `1.weight`, .., and `bias` likewise, if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    linears: Vec<Linear>,
    depth: usize,
}

impl Output {
    /// To codebooks of `sizes`, with these first values; no bias if its own are `None`.
    pub(crate) fn new(
        params: &Params,
        width: usize,
        sizes: &[usize],
        weight: Init,
        bias: Option<Init>,
    ) -> Result<Self> {
        let linear = |params: &Params, size: usize| Linear::with_init(params, width, size, weight, bias);
        let linears = match sizes {
            [first, rest @ ..] if rest.iter().all(|size| size == first) => vec![linear(params, *first)?],
            _ => sizes.iter().enumerate().map(|(d, &size)| linear(&params.scope(d), size)).collect::<Result<_>>()?,
        };
        Ok(Self { linears, depth: sizes.len() })
    }

    /// Logits `[.., K]` of depth `d` from hidden states `[.., W]`.
    fn logits(&self, hidden: &Tensor, d: usize) -> Result<Tensor> {
        of_depth(&self.linears, d)?.forward(hidden)
    }

    /// The maps as they are now, to draw codes of `images` at a time.
    pub(crate) fn packed(&self, images: usize) -> Result<PackedOutput> {
        Ok(PackedOutput(self.linears.iter().map(|linear| linear.packed(images)).collect::<Result<_>>()?))
    }

    /// Logits `[N, K_d]` of every depth from hidden states `[N, D, W]`.
    pub(crate) fn by_depth(&self, hidden: &Tensor) -> Result<Vec<Tensor>> {
        let [rows, _, width] = hidden.dims("logits")?;
        let at = |d: usize| self.logits(&hidden.slice(1, d..d + 1)?.reshape(&[rows, width])?, d);
        (0..self.depth).map(at).collect()
    }

    /// Cross entropy in nats of every code, `[N, D]`, from hidden states of N positions of D codes.
    pub(crate) fn losses(&self, hidden: &Tensor, codes: &Codes, targets: &Targets) -> Result<Tensor> {
        let positions = codes.len() / self.depth.max(1);
        let codes = codes.reshape(&[positions, self.depth])?;
        let logits = self.by_depth(&hidden.reshape(&[positions, self.depth, hidden.last_dim()])?)?;
        let loss = |(d, logits): (usize, &Tensor)| -> Result<Tensor> {
            let Targets::Soft(targets) = targets else { return Ok(logits.cross_entropy(&codes.column(d)?)?) };
            let missing =
                || Error::Unsupported(format!("soft targets for {} depths, codes of {}", targets.len(), self.depth));
            let target = targets.get(d).ok_or_else(missing)?;
            Ok(logits.soft_cross_entropy(&target.reshape(&[positions, target.last_dim()])?)?)
        };
        let losses = logits.iter().enumerate().map(loss).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&losses.iter().collect::<Vec<_>>(), 1)?)
    }
}

/// An [`Output`] laid out for sampling.
#[derive(Debug)]
pub(crate) struct PackedOutput(Vec<PackedLinear>);

impl PackedOutput {
    /// Logits `[.., K]` of depth `d` from hidden states `[.., W]`.
    pub(crate) fn logits(&self, hidden: &Tensor, d: usize) -> Result<Tensor> {
        Ok(of_depth(&self.0, d)?.forward(hidden)?)
    }
}

/// The map of a depth, where one may serve all.
fn of_depth<L>(linears: &[L], d: usize) -> Result<&L> {
    let index = if linears.len() == 1 { 0 } else { d };
    linears.get(index).ok_or_else(|| Error::Unsupported(format!("there is no depth {}", d + 1)))
}
