//! Adversarial losses: the adaptive weight, discriminators, regularisers.

use super::outputs::{backward, gradient, inner};
use super::{Case, Outputs, Result};
use rqlab_objective_patch_gan::discriminator::{Blurred, Discriminator, Norm, Statistics};
use rqlab_objective_patch_gan::dual::Dual;
use rqlab_objective_patch_gan::losses::GanLoss;
use rqlab_objective_patch_gan::regularisers::{Lecam, LecamOrder, r1};
use rqlab_sdk::optim::weighted_sum;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::conv::Conv2d as Strides;

/// A decoder that is its last layer alone.
struct LastLayer(Var);

impl Autoencoder for LastLayer {
    fn levels(&self) -> Vec<MapShape> {
        Vec::new()
    }

    fn encode(&self, _: &Tensor, _: &mut Bottleneck<'_>, _: &Mode) -> rqlab_sdk::Result<()> {
        Ok(())
    }

    fn decode_features(&self, levels: &[Tensor], _: &Mode) -> rqlab_sdk::Result<Tensor> {
        Ok(levels[0].clone())
    }

    fn decode_output(&self, features: &Tensor) -> rqlab_sdk::Result<Tensor> {
        Ok(features.conv2d(&self.0.get(), None, Strides::same(3))?)
    }

    fn last_layer(&self) -> Var {
        self.0.clone()
    }
}

pub(super) fn adaptive_weight_hinge(case: &Case, out: &mut Outputs) -> Result<()> {
    const SCALE: f32 = 0.75;
    let (h, x) = (case.map("in.h")?, case.map("in.x")?);
    for sub in case.sub_cases("w.", "V") {
        let decoder = LastLayer(Var::parameter(&case.tensor("w.W")?));
        let critic = case.tensor(&format!("w.{sub}V"))?;
        let (mut reconstruction, mut generator) = (None, None);
        let weights = [Weight::Fixed(1.0), Weight::Adaptive { scale: SCALE, limit: 1e4 }];
        let mut lambda = None;
        let mut found = backward(|| {
            let sum = weighted_sum(&decoder, &h, &weights, |i, output| {
                let loss = if i == 0 {
                    output.mse(&x)?.add(&output.sub(&x)?.abs()?.mean_all()?)?
                } else {
                    GanLoss::Hinge.generator(&output.conv2d(&critic, None, Strides::same(3))?)?
                };
                *(if i == 0 { &mut reconstruction } else { &mut generator }) = Some(loss.detach());
                Ok(loss)
            })?;
            lambda = sum.adaptive[1].clone();
            out.tensor(format!("out.{sub}total"), &sum.loss);
            Ok(sum.loss)
        })?;
        out.tensor(format!("out.{sub}L_rec"), &reconstruction.ok_or("no reconstruction loss")?);
        out.tensor(format!("out.{sub}L_gen"), &generator.ok_or("no generator's loss")?);
        out.tensor(format!("out.{sub}lambda"), &lambda.ok_or("no weight")?.mul_scalar(1.0 / SCALE)?);
        out.tensor(format!("grad.{sub}w.W"), &gradient(&mut found, &decoder.0.get()));
    }
    put_losses(out, "hinge.", "d_loss", ["in.hinge.real", "in.hinge.fake"], case, |real, fake| {
        GanLoss::Hinge.critic(real, fake)
    })?;
    let (real, fake) = (case.tensor("in.hinge.real")?, case.tensor("in.hinge.fake")?);
    out.tensor("out.hinge.g_loss", &GanLoss::Hinge.generator(&fake)?);
    out.tensor("out.hinge.vanilla_d", &GanLoss::Vanilla.critic(&real, &fake)?);
    for of in ["real", "fake"] {
        let value = out.get(&format!("grad.hinge.d_loss.in.{of}")).cloned().ok_or("no gradient")?;
        out.array(format!("grad.hinge.in.{of}"), &value.shape, value.data);
    }
    Ok(())
}

/// The value of a loss of two stored logits as `out.{sub}{name}`, and its gradients as `grad.{sub}{name}.in.real` and `.fake`.
fn put_losses(
    out: &mut Outputs,
    sub: &str,
    name: &str,
    stored: [&str; 2],
    case: &Case,
    loss: impl Fn(&Tensor, &Tensor) -> rqlab_sdk::Result<Tensor>,
) -> Result<()> {
    let (real, fake) = (case.tensor(stored[0])?.leaf(), case.tensor(stored[1])?.leaf());
    let mut found = backward(|| {
        let loss = loss(&real, &fake)?;
        out.tensor(format!("out.{sub}{name}"), &loss);
        Ok(loss)
    })?;
    out.tensor(format!("grad.{sub}{name}.in.real"), &gradient(&mut found, &real));
    out.tensor(format!("grad.{sub}{name}.in.fake"), &gradient(&mut found, &fake));
    Ok(())
}

/// The shape of the stored images `name`.
fn image(case: &Case, name: &str) -> Result<MapShape> {
    let [_, height, width, channels] = case.map(name)?.dims("images")?;
    Ok(MapShape { height, width, channels })
}

pub(super) fn patch_discriminator(case: &Case, out: &mut Outputs) -> Result<()> {
    let params = Params::new(0);
    let discriminator = Discriminator::patch(
        &params,
        image(case, "in.fake")?,
        case.size("n_layers")?,
        case.size("ndf")?,
        (Norm::Batch, 1),
    )?;
    case.load(&params, false, |name| format!("w.{name}"))?;
    let (fake, real) = (case.map("in.fake")?.leaf(), case.map("in.real")?);
    let logits =
        |x: &Tensor, how: Statistics| -> Result<Tensor> { Ok(discriminator.forward(&Dual::plain(x), how)?.value) };
    out.map("out.eval.fake", &logits(&fake, Statistics::Use)?)?;
    out.map("out.eval.real", &logits(&real, Statistics::Use)?)?;
    let mut found = backward(|| {
        let fake = logits(&fake, Statistics::Move)?;
        let real = logits(&real, Statistics::Move)?;
        out.map("out.train.fake", &fake)?;
        out.map("out.train.real", &real)?;
        let loss = GanLoss::Hinge.critic(&real, &fake)?;
        out.tensor("out.train.hinge", &loss);
        Ok(loss)
    })?;
    out.map("grad.train.in.fake", &gradient(&mut found, &fake))?;
    out.parameter_gradients(&params, &mut found, |name| format!("grad.train.w.{name}"));
    params.state().iter().for_each(|(name, value)| out.tensor(format!("out.train.{name}"), value));
    Ok(())
}

pub(super) fn regularisers(case: &Case, out: &mut Outputs) -> Result<()> {
    for (sub, order) in [("titok", LecamOrder::After), ("seed", LecamOrder::Before)] {
        let params = Params::new(0);
        let lecam = Lecam::new(&params, order, case.number(&format!("decay_{sub}"))? as f32)?;
        for step in 0..case.size("steps")? {
            let stored = [format!("in.real.{step}"), format!("in.fake.{step}")];
            put_losses(out, &format!("{sub}.{step}."), "lecam", [&stored[0], &stored[1]], case, |real, fake| {
                lecam.term(real, fake)
            })?;
            for of in ["real", "fake"] {
                let name = format!("out.{sub}.{step}.ema_{of}");
                let value = params.state()[&format!("ema_{of}")].clone();
                out.tensor(&name, &value.reshape(case.wanted_shape(&name).unwrap_or(&[1]))?);
                let value = out.get(&format!("grad.{sub}.{step}.lecam.in.{of}")).cloned().ok_or("no gradient")?;
                out.array(format!("grad.{sub}.{step}.in.{of}"), &value.shape, value.data);
            }
        }
    }
    let stored = ["in.real.0", "in.fake.0"];
    for (sub, loss) in [("hinge.", GanLoss::Hinge), ("softplus.", GanLoss::NonSaturating)] {
        put_losses(out, sub, "d", stored, case, |real, fake| loss.critic(real, fake))?;
        put_losses(out, sub, "g", stored, case, |_, fake| loss.generator(fake))?;
    }
    let mean = |logits: &Tensor| logits.mean(&[1, 2, 3], false);
    put_losses(out, "image_mean_ns.", "d", stored, case, |real, fake| {
        Ok(GanLoss::NonSaturating.critic(&mean(real)?, &mean(fake)?)?.mul_scalar(2.0)?)
    })?;
    put_losses(out, "image_mean_ns.", "g", stored, case, |_, fake| GanLoss::NonSaturating.generator(&mean(fake)?))?;
    put_r1(case, out)?;
    put_blur(case, out)
}

/// The penalty of a network of three convolutions.
fn put_r1(case: &Case, out: &mut Outputs) -> Result<()> {
    let convolution = |i: usize| -> Result<[Var; 2]> {
        let of = |what: &str| -> Result<Var> { Ok(Var::parameter(&case.tensor(&format!("w.r1.conv{i}.{what}"))?)) };
        Ok([of("weight")?, of("bias")?])
    };
    let layers = [convolution(0)?, convolution(1)?, convolution(2)?];
    let swish = case.config["r1"]["swish"].as_bool().unwrap_or(false);
    let network = |x: &Dual| -> rqlab_sdk::Result<Dual> {
        let conv = |x: &Dual, i: usize, how| x.conv(&layers[i][0].get(), Some(&layers[i][1].get()), how);
        let halved = Strides::new(2, [1; 4]);
        let mut x = conv(x, 0, halved)?.leaky_relu(0.2)?;
        if swish {
            x = silu(&x)?;
        }
        conv(&conv(&x, 1, halved)?.leaky_relu(0.2)?, 2, Strides::same(3))
    };
    let x = case.map("in.r1.x")?;
    let leaf = x.leaf();
    let mut found = backward(|| {
        let logits = network(&Dual::plain(&leaf))?.value;
        out.map("out.r1.logits", &logits)?;
        Ok(logits.sum_all()?)
    })?;
    let slope = gradient(&mut found, &leaf);
    out.map("out.r1.input_gradient", &slope)?;
    out.tensor("out.r1.per_image", &slope.square()?.sum(&[1, 2, 3], false)?);
    let mut value = 0.0;
    let mut found = backward(|| {
        let penalty = r1(&x, network)?;
        value = f64::from(penalty.item()?);
        Ok(penalty)
    })?;
    out.number("out.r1.penalty", value);
    let weight = case.number("r1/weight")?;
    out.number("out.r1.every_step_term", weight * value);
    out.number("out.r1.lazy_term", weight / 2.0 * value * case.number("r1/every")?);
    for (i, [weight, bias]) in layers.iter().enumerate() {
        out.tensor(format!("grad.r1.w.conv{i}.weight"), &gradient(&mut found, &weight.get()));
        out.tensor(format!("grad.r1.w.conv{i}.bias"), &gradient(&mut found, &bias.get()));
    }
    Ok(())
}

/// `x sigmoid(x)`, whose slope is `s (1 + x (1 - s))`.
fn silu(x: &Dual) -> rqlab_sdk::Result<Dual> {
    let slope = || -> rqlab_sdk::Result<Tensor> {
        let s = x.value.sigmoid()?;
        Ok(s.mul(&x.value.mul(&s.neg()?.add_scalar(1.0)?)?.add_scalar(1.0)?)?)
    };
    let derivative = x.derivative.as_ref().map(|d| Ok::<_, Error>(d.mul(&slope()?)?)).transpose()?;
    Ok(Dual { value: x.value.silu()?, derivative })
}

fn put_blur(case: &Case, out: &mut Outputs) -> Result<()> {
    let params = Params::new(0);
    let blurred = Blurred { groups: 32, kernel: case.size("blur/blur_kernel_size")?, pool: Some(16) };
    let discriminator = Discriminator::blur_patch(
        &params,
        image(case, "in.blur.x")?,
        case.size("blur/num_stages")?,
        case.size("blur/hidden_channels")?,
        blurred,
    )?;
    case.load(&params, false, |name| format!("w.blur.{name}"))?;
    let (x, g) = (case.map("in.blur.x")?.leaf(), case.map("in.blur.g")?);
    let mut found = backward(|| {
        let (stages, logits) = discriminator.stages(&x)?;
        for (i, stage) in stages.iter().enumerate() {
            out.map(format!("out.blur.stage.{i}"), stage)?;
        }
        out.map("out.blur.logits", &logits)?;
        inner(&logits, &g)
    })?;
    out.map("grad.blur.in.x", &gradient(&mut found, &x))?;
    out.parameter_gradients(&params, &mut found, |name| format!("grad.blur.w.{name}"));
    Ok(())
}
