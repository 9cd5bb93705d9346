//! The blocks of the convolutional autoencoder, and the whole.

use super::outputs::{backward, gradient, inner};
use super::{Case, Outputs, Result};
use rqlab_sdk::nn::{Downsample, Downsampling, ResidualBlock, SpatialAttention, Upsample};
use rqlab_sdk::prelude::*;

/// Groups of the published group norms.
const GROUPS: usize = 32;

/// Runs a block on `in.{sub}x` with the weights `w.{sub}`, and puts its output and the gradients of `sum(g * y)`.
fn put_block(
    case: &Case,
    out: &mut Outputs,
    sub: &str,
    params: &Params,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    case.load(params, false, |name| format!("w.{sub}{name}"))?;
    let (x, g) = (case.map(&format!("in.{sub}x"))?.leaf(), case.map(&format!("in.{sub}g"))?);
    let mut gradients = backward(|| {
        let y = forward(&x)?;
        out.map(format!("out.{sub}y"), &y)?;
        inner(&y, &g)
    })?;
    out.map(format!("grad.{sub}in.x"), &gradient(&mut gradients, &x))?;
    out.parameter_gradients(params, &mut gradients, |name| format!("grad.{sub}w.{name}"));
    Ok(())
}

/// Channels of the stored map `name`, `[B, C, H, W]`.
fn channels(case: &Case, name: &str) -> Result<usize> {
    case.array(name)?.shape.get(1).copied().ok_or_else(|| format!("`{name}` is not a map").into())
}

pub(super) fn resnet_block(case: &Case, out: &mut Outputs) -> Result<()> {
    for sub in case.sub_cases("in.", "x") {
        let (inputs, outputs) = (channels(case, &format!("in.{sub}x"))?, channels(case, &format!("in.{sub}g"))?);
        let params = Params::new(0);
        let block = ResidualBlock::new(&params, inputs, outputs, GROUPS, 0.0)?;
        put_block(case, out, &sub, &params, |x| Ok(block.forward(x, &Mode::Eval)?))?;
    }
    Ok(())
}

pub(super) fn attn_block(case: &Case, out: &mut Outputs) -> Result<()> {
    for sub in case.sub_cases("in.", "x") {
        let params = Params::new(0);
        let block = SpatialAttention::new(&params, channels(case, &format!("in.{sub}x"))?, GROUPS)?;
        put_block(case, out, &sub, &params, |x| Ok(block.forward(x)?))?;
    }
    Ok(())
}

pub(super) fn downsample(case: &Case, out: &mut Outputs) -> Result<()> {
    for (sub, how) in [("conv.", Downsampling::Published), ("avg.", Downsampling::Average)] {
        let params = Params::new(0);
        let block = Downsample::new(&params, channels(case, &format!("in.{sub}x"))?, how)?;
        put_block(case, out, sub, &params, |x| Ok(block.forward(x)?))?;
    }
    Ok(())
}

pub(super) fn upsample(case: &Case, out: &mut Outputs) -> Result<()> {
    let params = Params::new(0);
    let block = Upsample::new(&params, channels(case, "in.conv.x")?)?;
    put_block(case, out, "conv.", &params, |x| Ok(block.forward(x)?))?;
    put_block(case, out, "plain.", &Params::new(0), |x| Ok(x.upsample_nearest(2)?))
}

pub(super) fn code_folding(case: &Case, out: &mut Outputs) -> Result<()> {
    let (latent, code) = (case.sizes("latent_shape")?, case.sizes("code_shape")?);
    let cell = [latent[0] / code[0], latent[1] / code[1]];
    let folded = case.tensor("in.x")?.space_to_depth(cell[0], cell[1])?;
    out.tensor("out.folded", &folded);
    out.tensor("out.unfolded", &folded.depth_to_space(cell[0], cell[1])?);
    Ok(())
}
