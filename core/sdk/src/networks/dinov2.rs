//! DINOv2's vision transformer (Oquab et al., "DINOv2: learning robust visual features without supervision", 2023), with or
//! without registers (Darcet et al. 2023).
//!
//! Patches become tokens, a class token stands in front, and positions are added to both; registers, which have none, go
//! between. A block is `x += g1 attention(norm1 x)`, `x += g2 mlp(norm2 x)` with a gain for each channel; the gains are
//! folded into the linear maps before them.

use super::Weights;
use crate::resize::{Beyond, Kernel, Resize, Sampling};
use crate::tensor::ops::attention::attention_qkv;
use crate::tensor::ops::conv::Conv2d as Strides;
use crate::tensor::{Tensor, no_grad};
use crate::{Error, Result};

const EPS: f32 = 1e-6;
/// Pixels of a side of the pictures that features are taken of, as dgm-eval does.
const SIDE: usize = 224;
/// ImageNet's mean and deviation of each channel in [0, 1].
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// What the weights do not tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dinov2Config {
    /// Attention heads.
    pub heads: usize,
    /// Whether the kernel widens where the table of positions shrinks.
    pub antialias: bool,
    /// What is added to the grid's sides before they are divided by the table's: the quotients are then the scale of the
    /// coordinates. With 0 the coordinates are those of the sizes.
    pub offset: f64,
}

impl Dinov2Config {
    /// As the hub builds its networks of this width: heads of 64 channels; an offset of 0.1 without registers, widened
    /// kernels with them.
    pub fn published(width: usize, registers: bool) -> Self {
        Self { heads: width / 64, antialias: registers, offset: if registers { 0.0 } else { 0.1 } }
    }
}

/// What the blocks give, after the last norm.
#[derive(Debug, Clone)]
pub struct Dinov2Tokens {
    /// The class token: `[B, C]`, the features.
    pub class: Tensor,
    /// The registers: `[B, R, C]`.
    pub registers: Tensor,
    /// The patches in reading order: `[B, N, C]`.
    pub patches: Tensor,
}

/// A linear map's weight and bias.
type Map = [Tensor; 2];

#[derive(Debug)]
struct Block {
    norm1: Map,
    qkv: Map,
    proj: Map,
    norm2: Map,
    feed_forward: FeedForward,
}

/// The second half of a block.
#[derive(Debug)]
enum FeedForward {
    /// Two linear maps with an exact GELU between.
    Mlp([Map; 2]),
    /// `w3(silu(a) b)` with `a, b` the halves of `w12(x)`.
    SwiGlu([Map; 2]),
}

/// The network.
#[derive(Debug)]
pub struct Dinov2 {
    patches: Map,
    class: Tensor,
    registers: Option<Tensor>,
    /// The class token's position `[1, C]`, and the square table of the patches' `[1, S, S, C]`.
    positions: [Tensor; 2],
    blocks: Vec<Block>,
    norm: Map,
    config: Dinov2Config,
}

/// Multiplies the outputs of a linear map.
fn scaled([weight, bias]: &Map, gain: &Tensor) -> Result<Map> {
    let outputs = gain.len();
    Ok([weight.mul(&gain.reshape(&[outputs, 1])?)?, bias.mul(gain)?])
}

impl Dinov2 {
    /// A published network, whose configuration follows from its tensors.
    ///
    /// # Errors
    /// As for [`Dinov2::new`].
    pub fn published(weights: Weights) -> Result<Self> {
        let width = weights.shape("norm.weight")?.iter().product();
        let config = Dinov2Config::published(width, weights.has("register_tokens"));
        Self::new(weights, config)
    }

    /// The network, from the tensors of a file such as `dinov2_vitl14_pretrain.pth`.
    ///
    /// # Errors
    /// Tensors that are missing, have another shape, or are no part of it; heads that do not divide the width.
    pub fn new(mut weights: Weights, config: Dinov2Config) -> Result<Self> {
        let w = &mut weights;
        w.leave_out(|name| name == "mask_token");
        let width: usize = w.shape("norm.weight")?.iter().product();
        if config.heads == 0 || !width.is_multiple_of(config.heads) {
            let message = format!("{} heads do not divide a width of {width}", config.heads);
            return Err(Error::Checkpoint(message));
        }
        let map = |w: &mut Weights, name: &str, shape: &[usize]| -> Result<Map> {
            Ok([w.take(&format!("{name}.weight"), shape)?, w.take(&format!("{name}.bias"), &shape[..1])?])
        };
        let side = w.shape("patch_embed.proj.weight")?.last().copied().unwrap_or(0);
        let patches = map(w, "patch_embed.proj", &[width, 3, side, side])?;
        let cells = w.shape("pos_embed")?.iter().product::<usize>() / width.max(1) - 1;
        let table = cells.isqrt();
        let positions = w.take("pos_embed", &[1, 1 + table * table, width])?.reshape(&[1 + table * table, width])?;
        let of_class = positions.slice(0, 0..1)?;
        let of_patches = positions.slice(0, 1..1 + table * table)?.reshape(&[1, table, table, width])?;
        let class = w.take("cls_token", &[1, 1, width])?.reshape(&[1, width])?;
        let registers = if w.has("register_tokens") {
            let count = w.shape("register_tokens")?.get(1).copied().unwrap_or(0);
            Some(w.take("register_tokens", &[1, count, width])?)
        } else {
            None
        };
        let mut blocks = Vec::new();
        while w.has(&format!("blocks.{}.norm1.weight", blocks.len())) {
            let of = format!("blocks.{}", blocks.len());
            let gain1 = w.take(&format!("{of}.ls1.gamma"), &[width])?;
            let gain2 = w.take(&format!("{of}.ls2.gamma"), &[width])?;
            let proj = map(w, &format!("{of}.attn.proj"), &[width, width])?;
            let gated = w.has(&format!("{of}.mlp.w12.weight"));
            let [first, second] =
                if gated { ["w12", "w3"] } else { ["fc1", "fc2"] }.map(|name| format!("{of}.mlp.{name}"));
            let hidden = w.shape(&format!("{first}.weight"))?.first().copied().unwrap_or(0);
            let inner = if gated { hidden / 2 } else { hidden };
            let maps = [map(w, &first, &[hidden, width])?, scaled(&map(w, &second, &[width, inner])?, &gain2)?];
            blocks.push(Block {
                norm1: map(w, &format!("{of}.norm1"), &[width])?,
                qkv: map(w, &format!("{of}.attn.qkv"), &[3 * width, width])?,
                proj: scaled(&proj, &gain1)?,
                norm2: map(w, &format!("{of}.norm2"), &[width])?,
                feed_forward: if gated { FeedForward::SwiGlu(maps) } else { FeedForward::Mlp(maps) },
            });
        }
        let norm = map(w, "norm", &[width])?;
        weights.finish()?;
        Ok(Self { patches, class, registers, positions: [of_class, of_patches], blocks, norm, config })
    }

    /// Images as dgm-eval shows them to the network: bicubic to 224 x 224 with a widened kernel, clamped, and each channel
    /// scaled by ImageNet's mean and deviation.
    ///
    /// # Errors
    /// Images without pixels, or not of three channels.
    pub fn prepare(images: &Tensor) -> Result<Tensor> {
        if images.last_dim() != 3 {
            return Err(Error::Data(format!("DINOv2 sees images of 3 channels, not of {}", images.last_dim())));
        }
        let resized = Resize::to([SIDE; 2], Sampling::SMOOTH_CUBIC).of(images)?;
        let unit = resized.clamp(-1.0, 1.0)?.add_scalar(1.0)?.mul_scalar(0.5)?;
        let [mean, deviation] = [MEAN, DEVIATION].map(|values| Tensor::from_vec(values.to_vec(), &[3]));
        Ok(unit.sub(&mean?)?.div(&deviation?)?)
    }

    /// The positions of the class token and of `rows` x `columns` patches: `[1 + rows columns, C]`.
    ///
    /// # Errors
    /// No patches.
    pub fn positions(&self, rows: usize, columns: usize) -> Result<Tensor> {
        let [of_class, table] = &self.positions;
        let side = table.shape()[1];
        let width = table.last_dim();
        let fitting = if (rows, columns) == (side, side) {
            table.clone()
        } else {
            let (a, border) = if self.config.antialias { (-0.5, Beyond::Nothing) } else { (-0.75, Beyond::Edge) };
            let kernel = Kernel::Cubic { a };
            let resize =
                Resize::to([rows, columns], Sampling::Kernel { kernel, antialias: self.config.antialias, border });
            let step = |count: usize| side as f64 / (count as f64 + self.config.offset);
            let steps = [step(rows), step(columns)];
            if self.config.offset == 0.0 { resize.of(table)? } else { resize.with_steps(steps).of(table)? }
        };
        Ok(Tensor::concat(&[of_class, &fitting.reshape(&[rows * columns, width])?], 0)?)
    }

    /// The tokens of prepared images `[B, H, W, 3]`, without gradients.
    ///
    /// # Errors
    /// Sides that patches do not divide.
    pub fn forward(&self, images: &Tensor) -> Result<Dinov2Tokens> {
        no_grad(|| self.tokens(images))
    }

    fn tokens(&self, images: &Tensor) -> Result<Dinov2Tokens> {
        let [batch, height, width, _] = images.dims("dinov2")?;
        let [weight, bias] = &self.patches;
        let (channels, side) = (weight.shape()[0], weight.shape()[2]);
        if height % side != 0 || width % side != 0 {
            return Err(Error::Data(format!("{height} x {width} pixels are not patches of {side} x {side}")));
        }
        let [rows, columns] = [height / side, width / side];
        let patches = images.conv2d(weight, Some(bias), Strides::new(side, [0; 4]))?;
        let patches = patches.reshape(&[batch, rows * columns, channels])?;
        let class = self.class.reshape(&[1, 1, channels])?.broadcast_to(&[batch, 1, channels])?;
        let positions = self.positions(rows, columns)?;
        let placed = Tensor::concat(&[&class, &patches], 1)?.add(&positions)?;
        let registers = self.registers.as_ref().map_or(0, |registers| registers.shape()[1]);
        let mut x = match &self.registers {
            None => placed,
            Some(tokens) => {
                let tokens = tokens.broadcast_to(&[batch, registers, channels])?;
                let (class, patches) = (placed.slice(1, 0..1)?, placed.slice(1, 1..1 + rows * columns)?);
                Tensor::concat(&[&class, &tokens, &patches], 1)?
            }
        };
        for block in &self.blocks {
            let attended = attention_qkv(
                &block.normed(&block.norm1, &x)?.linear(&block.qkv[0], Some(&block.qkv[1]))?,
                self.config.heads,
                false,
            )?;
            x = attended.linear_add(&block.proj[0], Some(&block.proj[1]), &x)?;
            x = block.feed_forward.forward(&block.normed(&block.norm2, &x)?, &x)?;
        }
        let x = x.layer_norm(&self.norm[0], &self.norm[1], EPS)?;
        let first = 1 + registers;
        Ok(Dinov2Tokens {
            class: x.slice(1, 0..1)?.reshape(&[batch, channels])?,
            registers: x.slice(1, 1..first)?,
            patches: x.slice(1, first..first + rows * columns)?,
        })
    }
}

impl Block {
    fn normed(&self, [weight, bias]: &Map, x: &Tensor) -> Result<Tensor> {
        Ok(x.layer_norm(weight, bias, EPS)?)
    }
}

impl FeedForward {
    /// What it makes of `x`, added to `residual`.
    fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let (hidden, [weight, bias]) = match self {
            Self::Mlp([first, second]) => (x.linear_gelu(&first[0], Some(&first[1]))?, second),
            Self::SwiGlu([first, second]) => {
                let both = x.linear(&first[0], Some(&first[1]))?;
                let (axis, half) = (both.rank() - 1, both.last_dim() / 2);
                (both.slice(axis, 0..half)?.silu()?.mul(&both.slice(axis, half..2 * half)?)?, second)
            }
        };
        Ok(hidden.linear_add(weight, Some(bias), residual)?)
    }
}
