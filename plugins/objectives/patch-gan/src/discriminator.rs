//! Networks that tell patches of images from those of reconstructions: images `[B, H, W, C]` become logits `[B, h, w, 1]`.

use crate::dual::Dual;
use rqlab_sdk::choice;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::{BatchNorm, GroupNorm};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::conv::Conv2d as Strides;
use rqlab_sdk::tensor::ops::filter::Filter;
use rqlab_sdk::tensor::ranks::Step;

choice! {
    /// What normalises the maps of `patch`.
    pub enum Norm {
        /// By the statistics of the batch, always those of the pass itself: VQGAN, RQ-VAE.
        Batch = "batch",
        /// Each image by itself.
        Group = "group",
        /// Nothing.
        None = "none",
    }
}

/// Added to variances.
const EPS: f32 = BatchNorm::EPS;

/// The layers of a discriminator, in their order.
#[derive(Debug)]
pub struct Discriminator {
    layers: Vec<Layer>,
}

#[derive(Debug)]
enum Layer {
    Conv { weight: Var, bias: Option<Var>, how: Strides },
    Batch(BatchNorm),
    Group(GroupNorm, usize),
    Leaky(f32),
    Blur(usize),
    Pool(usize),
}

/// Whether a pass moves running statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// It does: a pass of training.
    Move,
    /// It does not.
    Keep,
    /// It normalises by them: evaluation.
    Use,
}

/// What a convolution and the scale of a batch norm of [`Discriminator::patch`] start with, as published.
const PATCH_INIT: Init = Init::Normal(0.02);
const SCALE_INIT: Init = Init::Around(1.0, 0.02);

impl Discriminator {
    /// The discriminator of pix2pix (Isola et al., CVPR 2017) as VQGAN has it: `n_layers` convolutions 4x4 of stride 2, one
    /// of stride 1, and one to a logit, with `width`, 2 `width`, .. at most 8 `width` channels. Parameters and buffers:
    /// `main.0.weight`, .., under the names of the published code, whose sequence counts activations, too.
    ///
    /// # Errors
    /// [`ConfigError`] if no logit is left of images of that shape, or groups do not divide the channels.
    pub fn patch(
        params: &Params,
        image: MapShape,
        n_layers: usize,
        width: usize,
        (norm, groups): (Norm, usize),
    ) -> Result<Self> {
        let side = image.height.min(image.width);
        if side >> n_layers < 3 {
            let fits = (1..n_layers).rev().find(|n| side >> n >= 3);
            let remedy = fits.map_or("no number of layers fits".to_owned(), |n| format!("`n_layers: {n}` fits"));
            let message = format!(
                "a discriminator of {n_layers} halvings and two more convolutions is larger than images of {} x {}: {remedy}",
                image.height, image.width
            );
            return Err(ConfigError::field("n_layers", message).into());
        }
        let mut layers = Vec::new();
        let mut inputs = image.channels;
        for i in 0..=n_layers {
            let outputs = width << i.min(3);
            let scope = params.scope("main").scope(if i == 0 { 0 } else { 3 * i - 1 });
            let stride = if i < n_layers { 2 } else { 1 };
            let bias = i == 0 || norm != Norm::Batch;
            layers.push(conv(&scope, [inputs, outputs, 4], bias, Strides::new(stride, [1; 4]), PATCH_INIT)?);
            if i > 0 {
                let scope = params.scope("main").scope(3 * i);
                match norm {
                    Norm::Batch => layers.push(Layer::Batch(BatchNorm::new(&scope, outputs, SCALE_INIT)?)),
                    Norm::Group => layers.push(Layer::Group(GroupNorm::new(&scope, groups, outputs, EPS)?, groups)),
                    Norm::None => {}
                }
            }
            layers.push(Layer::Leaky(0.2));
            inputs = outputs;
        }
        let scope = params.scope("main").scope(3 * n_layers + 2);
        layers.push(conv(&scope, [inputs, 1, 4], true, Strides::new(1, [1; 4]), PATCH_INIT)?);
        Ok(Self { layers })
    }

    /// The discriminator of MaskBit and TiTok: a convolution 5x5, `stages` of a convolution 3x3, a blur of stride 2 and group
    /// norm, with `width`, 2 `width`, .. channels, the largest numbers of `pool` x `pool` shares, and two convolutions to a
    /// logit. Parameters: `block_in.0`, `blocks.N.0`, `blocks.N.2`, `to_logits.0`, `to_logits.2`.
    ///
    /// # Errors
    /// [`ConfigError`] if images of that shape cannot be halved so often, or groups do not divide the channels.
    pub fn blur_patch(
        params: &Params,
        image: MapShape,
        stages: usize,
        width: usize,
        Blurred { groups, kernel, pool }: Blurred,
    ) -> Result<Self> {
        let (mut side, mut fits) = (image.height.min(image.width), 0);
        while let Some(next) = blurred_size(side, kernel).filter(|next| *next < side) {
            (side, fits) = (next, fits + 1);
        }
        if stages > fits {
            let message = format!(
                "a discriminator of {stages} halvings is larger than images of {} x {}: `n_layers: {fits}` fits",
                image.height, image.width
            );
            return Err(ConfigError::field("n_layers", message).into());
        }
        let same = |scope: &Params, inputs: usize, outputs: usize, side: usize| {
            conv(scope, [inputs, outputs, side], true, Strides::same(side), Init::fan_in(inputs * side * side))
        };
        let leaky = || Layer::Leaky(0.1);
        let mut layers = vec![same(&params.scope("block_in.0"), image.channels, width, 5)?, leaky()];
        let mut inputs = width;
        for i in 0..stages {
            let (scope, outputs) = (params.scope("blocks").scope(i), width << i);
            layers.push(same(&scope.scope(0), inputs, outputs, 3)?);
            layers.push(Layer::Blur(kernel));
            layers.push(Layer::Group(GroupNorm::new(&scope.scope(2), groups, outputs, EPS)?, groups));
            layers.push(leaky());
            inputs = outputs;
        }
        layers.extend(pool.map(Layer::Pool));
        let scope = params.scope("to_logits");
        layers.extend([same(&scope.scope(0), inputs, inputs, 1)?, leaky(), same(&scope.scope(2), inputs, 1, 5)?]);
        Ok(Self { layers })
    }

    /// The logits of images, and their derivative where the images have one.
    ///
    /// # Errors
    /// Images of another shape.
    pub fn forward(&self, images: &Dual, statistics: Statistics) -> Result<Dual> {
        self.layers.iter().try_fold(images.clone(), |x, layer| layer.forward(&x, statistics))
    }

    /// What is left after each blur with its norm and activation, and the logits.
    ///
    /// # Errors
    /// As for [`Discriminator::forward`].
    pub fn stages(&self, images: &Tensor) -> Result<(Vec<Tensor>, Tensor)> {
        let (mut x, mut stages) = (Dual::plain(images), Vec::new());
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, Statistics::Keep)?;
            if i >= 2 && matches!(self.layers[i - 2], Layer::Blur(_)) {
                stages.push(x.value.clone());
            }
        }
        Ok((stages, x.value))
    }
}

/// What [`Discriminator::blur_patch`] is made of beside its stages.
#[derive(Debug, Clone, Copy)]
pub struct Blurred {
    /// Groups of its norms: 32 as published.
    pub groups: usize,
    /// Numbers of the binomial row that blurs: 4 as published.
    pub kernel: usize,
    /// Rows and columns of logits: 16 in TiTok, those of the map where there is none.
    pub pool: Option<usize>,
}

fn conv(params: &Params, [inputs, outputs, side]: [usize; 3], bias: bool, how: Strides, init: Init) -> Result<Layer> {
    let weight = params.parameter("weight", &[outputs, inputs, side, side], init)?;
    // Published codes leave biases as PyTorch starts them.
    let start = || params.parameter("bias", &[outputs], Init::fan_in(inputs * side * side));
    Ok(Layer::Conv { weight, bias: bias.then(start).transpose()?, how })
}

impl Layer {
    fn forward(&self, x: &Dual, statistics: Statistics) -> Result<Dual> {
        match self {
            Self::Conv { weight, bias, how } => x.conv(&weight.get(), bias.as_ref().map(Var::get).as_ref(), *how),
            Self::Leaky(below) => x.leaky_relu(*below),
            Self::Group(norm, groups) => x.norm(*groups, &norm.weight.get(), EPS, |x| norm.forward(x)),
            Self::Batch(norm) => batch_norm(norm, x, statistics),
            Self::Blur(kernel) => x.map(|x| blur(x, *kernel)),
            Self::Pool(side) => x.adaptive_max_pool([*side; 2]),
        }
    }
}

fn batch_norm(norm: &BatchNorm, x: &Dual, statistics: Statistics) -> Result<Dual> {
    let (weight, bias) = (norm.weight.get(), norm.bias.get());
    match statistics {
        Statistics::Use => Ok(Dual::plain(&norm.forward(&x.value)?)),
        Statistics::Move => Ok(Dual::plain(&norm.forward_train(&x.value)?)),
        Statistics::Keep if x.derivative.is_none() => Ok(Dual::plain(&norm.normalize(&x.value)?.0)),
        Statistics::Keep if Step::current().ranks() > 1 => Err(Error::Unsupported(
            "a penalty on the gradients of a discriminator with batch norm looks across the ranks' images: train on one rank, or \
             take `norm: group`"
                .to_owned(),
        )),
        Statistics::Keep => {
            // A batch is one map whose groups are channels.
            let (shape, channels) = (x.value.shape(), x.value.last_dim());
            let all = x.map(|x| Ok(x.reshape(&[1, x.len() / channels, channels])?))?;
            let normal = all.norm(channels, &weight, EPS, |x| Ok(x.batch_norm(&weight, &bias, EPS)?.0))?;
            normal.map(|x| Ok(x.reshape(shape)?))
        }
    }
}

/// A binomial blur of every second pixel (Zhang, "Making convolutional networks shift-invariant again", ICML 2019). Zeros
/// stand around the map as a kernel of 4 wants them, whatever the kernel: `[B, H, W, C] -> [B, h, w, C]`.
pub(crate) fn blur(x: &Tensor, kernel: usize) -> Result<Tensor> {
    let [_, height, width, _] = x.dims("blur")?;
    Ok(x.filter_map(&blurred(height, kernel)?, &blurred(width, kernel)?)?)
}

/// Zeros that stand around an axis.
fn padding(size: usize) -> usize {
    (2 * size.div_ceil(2) + 2).saturating_sub(size)
}

/// Positions of a blurred axis; none if the kernel is longer than the axis with its zeros.
fn blurred_size(size: usize, kernel: usize) -> Option<usize> {
    Some((size + padding(size)).checked_sub(kernel)? / 2 + 1)
}

fn blurred(size: usize, kernel: usize) -> Result<Filter> {
    let mut row = vec![1.0f32];
    for _ in 1..kernel {
        row = [row.as_slice(), &[0.0]]
            .concat()
            .iter()
            .zip([&[0.0], row.as_slice()].concat())
            .map(|(a, b)| a + b)
            .collect();
    }
    let sum: f32 = row.iter().sum();
    let before = padding(size) / 2;
    let taps = (0..blurred_size(size, kernel).unwrap_or(0)).map(|i| {
        let inside = |k: usize| (before..before + size).contains(&(2 * i + k));
        let weights: Vec<f32> = (0..kernel).filter(|&k| inside(k)).map(|k| row[k] / sum).collect();
        ((2 * i).saturating_sub(before), weights)
    });
    Ok(Filter::new(size, taps.collect())?)
}
