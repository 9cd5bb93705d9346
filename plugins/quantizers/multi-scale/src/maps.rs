//! Maps of other sizes, and what the codes of one add to the latents.

use rqlab_sdk::nn::Conv2d;
use rqlab_sdk::prelude::*;
use rqlab_sdk::resize::{Resize, Sampling};
use rqlab_sdk::tensor::ops::conv::Conv2d as Convolution;
use std::ops::Range;

/// The convolution of scale `scale` of `scales`, of `phis` that they share: that whose tick lies nearest to `scale /
/// (scales - 1)`, of equals the first. Ticks go evenly from `1 / (3 K)` to `1 - 1 / (3 K)` for K = 4, else from `1 / (2
/// K)`. Where two lie equally near, rounding decides, as in the published code: in f64, and in this order of operations.
pub fn phi_of(scale: usize, scales: usize, phis: usize) -> usize {
    let count = phis as f64;
    let from = if phis == 4 { (1.0 / 3.0) / count } else { (1.0 / 2.0) / count };
    let to = 1.0 - from;
    let step = (to - from) / (count - 1.0).max(1.0);
    let at = scale as f64 / (scales as f64 - 1.0).max(1.0);
    let distance = |n: usize| {
        let tick = if n > 0 && n == phis - 1 { to } else { from + n as f64 * step };
        (tick - at).abs()
    };
    (0..phis).min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
}

/// Sides of the maps, and the convolutions that smooth what is enlarged.
#[derive(Debug)]
pub(crate) struct Maps<Phi = Conv2d> {
    pub(crate) sides: Vec<usize>,
    pub(crate) phis: Vec<Phi>,
    pub(crate) ratio: f32,
}

/// A convolution that is there, trained or not.
pub(crate) trait Smooth {
    fn smooth(&self, map: &Tensor) -> Result<Tensor>;
}

impl Smooth for Conv2d {
    fn smooth(&self, map: &Tensor) -> Result<Tensor> {
        self.forward(map)
    }
}

/// Weight and bias as they were.
#[derive(Debug)]
pub(crate) struct Frozen(Tensor, Option<Tensor>);

impl Smooth for Frozen {
    fn smooth(&self, map: &Tensor) -> Result<Tensor> {
        Ok(map.conv2d(&self.0, self.1.as_ref(), Convolution::same(3))?)
    }
}

impl Maps {
    /// The maps as they are now.
    pub(crate) fn frozen(&self) -> Result<Maps<Frozen>> {
        let now = |var: &Var| var.get().detach();
        let phis = self.phis.iter().map(|phi| Frozen(now(&phi.weight), phi.bias.as_ref().map(now))).collect();
        Ok(Maps { sides: self.sides.clone(), phis, ratio: self.ratio })
    }
}

impl<Phi: Smooth> Maps<Phi> {
    fn side(&self) -> usize {
        self.sides.last().copied().unwrap_or(1)
    }

    /// A map of the latents' size `[B, S, S, C]` averaged to a scale.
    pub(crate) fn averaged(&self, map: &Tensor, scale: usize) -> Result<Tensor> {
        let side = self.sides[scale];
        if side == self.side() {
            return Ok(map.clone());
        }
        Resize::to([side; 2], Sampling::Area).differentiable(map)
    }

    /// What the codewords of a scale `[B, p, p, C]` add to the latents `[B, S, S, C]`.
    pub(crate) fn enlarged(&self, words: &Tensor, scale: usize) -> Result<Tensor> {
        let side = self.side();
        let large = match self.sides[scale] == side {
            true => words.clone(),
            false => Resize::to([side; 2], Sampling::CUBIC).differentiable(words)?,
        };
        if self.phis.is_empty() {
            return Ok(large);
        }
        let smooth = self.phis[phi_of(scale, self.sides.len(), self.phis.len())].smooth(&large)?;
        Ok(large.mul_scalar(1.0 - self.ratio)?.add(&smooth.mul_scalar(self.ratio)?)?)
    }

    /// The latents after each of the first `scales` scales of codes `[B, 1, T, D]`, whose codewords `embed` knows.
    pub(crate) fn sums(
        &self,
        codes: &Codes,
        scales: usize,
        embed: impl Fn(Codes) -> Result<Tensor>,
    ) -> Result<Vec<Tensor>> {
        let &[images, 1, count, depth] = codes.shape() else {
            return Err(Error::Unsupported(format!("expected codes [B, 1, T, D], found {:?}", codes.shape())));
        };
        let wanted: usize = self.sides[..scales].iter().map(|side| side * side).sum();
        if count < wanted {
            return Err(Error::Unsupported(format!("{scales} scales have {wanted} positions, found {count}")));
        }
        let mut sums = Vec::<Tensor>::new();
        let mut from = 0;
        for (scale, side) in self.sides[..scales].iter().enumerate() {
            let own = from..from + side * side;
            let picked = codes.slice(2, own.clone())?.reshape(&[images, *side, *side, depth])?;
            let added = self.enlarged(&embed(picked)?, scale)?;
            sums.push(match sums.last() {
                Some(sum) => sum.add(&added)?,
                None => added,
            });
            from = own.end;
        }
        Ok(sums)
    }

    /// The latents of the scales before each of `scales`, none of which is the first, in the size of that.
    pub(crate) fn before(
        &self,
        codes: &Codes,
        scales: Range<usize>,
        embed: impl Fn(Codes) -> Result<Tensor>,
    ) -> Result<Vec<Tensor>> {
        let sums = self.sums(codes, scales.end.saturating_sub(1), embed)?;
        scales.map(|scale| self.averaged(&sums[scale - 1], scale)).collect()
    }
}

/// A map `[B, p, p, K]` as a row `[B, 1, p p, K]`.
pub(crate) fn positions(map: &Tensor) -> Result<Tensor> {
    let [images, height, width, last] = map.dims("positions")?;
    Ok(map.reshape(&[images, 1, height * width, last])?)
}

/// The codes of several maps `[B, p, p, D]` as one row `[B, 1, T, D]`.
pub(crate) fn concat_positions(maps: &[Codes]) -> Result<Codes> {
    let row = |map: &Codes| {
        let (images, depth) = (map.shape()[0], map.last_dim());
        map.reshape(&[images, 1, map.len() / (images * depth).max(1), depth])
    };
    let rows = maps.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    Ok(Codes::concat(&rows.iter().collect::<Vec<_>>(), 2)?)
}
