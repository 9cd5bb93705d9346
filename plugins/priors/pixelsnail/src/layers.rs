//! Weight-normalised maps, and the gated block.

use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::conv::Conv2d;

/// A weight as lengths and directions, `W = g v / |v|` for each output, with a bias or none. Parameters: `weight_v` `[O, ..]`,
/// `weight_g` `[O, 1, ..]` and `bias` `[O]`.
#[derive(Debug, Clone)]
pub(crate) struct WeightNorm {
    v: Var,
    g: Var,
    bias: Option<Var>,
    /// 0 where a weight counts as 0.
    mask: Option<Tensor>,
}

impl WeightNorm {
    /// A weight of `shape`, the outputs first.
    ///
    /// # Errors
    /// A name that is taken.
    pub(crate) fn new(params: &Params, shape: &[usize], bias: bool) -> Result<Self> {
        let init = Init::fan_in(shape[1..].iter().product());
        let v = params.parameter("weight_v", shape, init)?;
        let lengths: Vec<usize> = (0..shape.len()).map(|axis| if axis == 0 { shape[0] } else { 1 }).collect();
        let g = params.parameter("weight_g", &lengths, Init::ONES)?;
        if !params.is_dry() {
            // The first weight is v itself.
            let inputs: Vec<usize> = (1..shape.len()).collect();
            g.set(&v.get().square()?.sum(&inputs, true)?.sqrt()?)?;
        }
        let bias = bias.then(|| params.parameter("bias", &shape[..1], init)).transpose()?;
        Ok(Self { v, g, bias, mask: None })
    }

    /// The same without what a causal convolution must not see: in the last row of the kernel the place itself, and those to its
    /// right. Lengths are those of the rest.
    ///
    /// # Errors
    /// None in practice: the mask has its numbers.
    pub(crate) fn causal(self, kernel: usize) -> Result<Self> {
        let seen = kernel * (kernel - 1) + kernel / 2;
        let mask = (0..kernel * kernel).map(|tap| if tap < seen { 1.0 } else { 0.0 }).collect();
        Ok(Self { mask: Some(Tensor::from_vec(mask, &[1, 1, kernel, kernel])?), ..self })
    }

    /// The weight.
    pub(crate) fn weight(&self) -> Result<Tensor> {
        let v = self.v.get();
        let v = match &self.mask {
            Some(mask) => v.mul(mask)?,
            None => v,
        };
        Ok(v.weight_norm(&self.g.get())?)
    }

    pub(crate) fn bias(&self) -> Option<Tensor> {
        self.bias.as_ref().map(Var::get)
    }

    /// The weight `[O, I]` of one that treats every position for itself.
    pub(crate) fn matrix(&self) -> Result<Tensor> {
        let weight = self.weight()?;
        let rows = weight.shape()[0];
        Ok(weight.reshape(&[rows, weight.len() / rows])?)
    }

    /// `[.., I] -> [.., O]`.
    pub(crate) fn linear(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.linear(&self.matrix()?, self.bias().as_ref())?)
    }

    /// `[B, H, W, I] -> [B, H, W, O]`.
    pub(crate) fn conv(&self, x: &Tensor, how: Conv2d) -> Result<Tensor> {
        Ok(x.conv2d(&self.weight()?, self.bias().as_ref(), how)?)
    }
}

/// What the two convolutions of a gated block see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// The position itself.
    Point,
    /// A square of so many rows and columns around it.
    Around(usize),
    /// The rows of the square above the position, and what is left of it in its own.
    Before(usize),
}

/// Channels of a gated block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Channels {
    pub(crate) width: usize,
    /// Between the two convolutions.
    pub(crate) hidden: usize,
    /// Of a second input of the first convolution; 0 for none.
    pub(crate) auxiliary: usize,
    /// Of what is added to the gates; 0 for nothing.
    pub(crate) condition: usize,
}

/// `x + a sigmoid(b)`, with a and b the halves of `conv2(elu(conv1(elu x) + aux_conv(elu auxiliary))) + condition(c)`.
/// Parameters: `conv1`, `conv2` and, where there is something to read, `aux_conv` and `condition`.
#[derive(Debug, Clone)]
pub(crate) struct GatedBlock {
    pub(crate) conv1: WeightNorm,
    pub(crate) conv2: WeightNorm,
    pub(crate) aux: Option<WeightNorm>,
    pub(crate) condition: Option<WeightNorm>,
    pub(crate) sight: Sight,
    dropout: f32,
}

impl GatedBlock {
    /// # Errors
    /// A name that is taken.
    pub(crate) fn new(params: &Params, channels: Channels, sight: Sight, dropout: f32) -> Result<Self> {
        let Channels { width, hidden, auxiliary, condition } = channels;
        let conv = |name: &str, from: usize, to: usize| match sight {
            Sight::Point => WeightNorm::new(&params.scope(name).scope("conv"), &[to, from, 1, 1], true),
            Sight::Around(k) => WeightNorm::new(&params.scope(name).scope("conv"), &[to, from, k, k], true),
            Sight::Before(k) => {
                WeightNorm::new(&params.scope(name).scope("conv.conv"), &[to, from, k, k], true)?.causal(k)
            }
        };
        let point = |name: &str, from: usize, to: usize, bias: bool| -> Result<Option<WeightNorm>> {
            let new = || WeightNorm::new(&params.scope(name).scope("conv"), &[to, from, 1, 1], bias);
            (from > 0).then(new).transpose()
        };
        Ok(Self {
            conv1: conv("conv1", width, hidden)?,
            conv2: conv("conv2", hidden, 2 * width)?,
            aux: point("aux_conv", auxiliary, hidden, true)?,
            condition: point("condition", condition, 2 * width, false)?,
            sight,
            dropout,
        })
    }

    /// Maps `[B, H, W, C]`, with an auxiliary map of as many positions, and what is added to the gates, `[B, H, W, 2C]` or
    /// what stretches to that.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        auxiliary: Option<&Tensor>,
        gates: Option<&Tensor>,
        mode: &Mode,
    ) -> Result<Tensor> {
        let conv = |weight: &WeightNorm, x: &Tensor| match self.sight {
            Sight::Point => weight.linear(x),
            Sight::Around(k) => weight.conv(x, Conv2d::same(k)),
            Sight::Before(k) => weight.conv(x, Conv2d::causal(k)),
        };
        let mut hidden = conv(&self.conv1, &x.elu()?)?;
        if let (Some(aux), Some(auxiliary)) = (&self.aux, auxiliary) {
            hidden = hidden.add(&aux.linear(&auxiliary.elu()?)?)?;
        }
        let hidden = mode.dropout(&hidden.elu()?, self.dropout, "gated")?;
        let mut out = conv(&self.conv2, &hidden)?;
        if let Some(gates) = gates {
            out = out.add(gates)?;
        }
        Ok(x.add_glu(&out)?)
    }
}
