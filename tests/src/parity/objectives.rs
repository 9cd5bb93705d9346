//! Adversarial losses: the adaptive weight, discriminators, regularisers, and whole steps of both players.

use super::outputs::{backward, gradient, inner};
use super::{Case, Outputs, Result, autoencoder, quantizers, residual};
use rqlab_autoencoder_resnet::{Resnet, ResnetConfig};
use rqlab_objective_patch_gan::discriminator::{Blurred, Discriminator, Norm, Statistics};
use rqlab_objective_patch_gan::dual::Dual;
use rqlab_objective_patch_gan::losses::GanLoss;
use rqlab_objective_patch_gan::regularisers::{Lecam, LecamOrder, r1};
use rqlab_objective_patch_gan::{PatchGan, PatchGanConfig};
use rqlab_quantizer_rq::{Rq, RqConfig};
use rqlab_sdk::networks::directions;
use rqlab_sdk::nn::DeadCodes;
use rqlab_sdk::optim::{Adam, AdamSettings, WeightedSum, weighted_sum};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::Tape;
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

/// The small fixed network that stands where LPIPS does in the case of whole steps.
struct FeatureDistance {
    convolutions: [[Tensor; 2]; 2],
    heads: [Tensor; 2],
}

impl FeatureDistance {
    fn new(case: &Case) -> Result<Self> {
        let of = |i: usize| -> Result<[Tensor; 2]> {
            Ok([case.tensor(&format!("w.feat.conv{i}.weight"))?, case.tensor(&format!("w.feat.conv{i}.bias"))?])
        };
        Ok(Self { convolutions: [of(0)?, of(1)?], heads: [case.tensor("w.feat.lin0")?, case.tensor("w.feat.lin1")?] })
    }

    fn maps(&self, x: &Tensor) -> rqlab_sdk::Result<[Tensor; 2]> {
        let constant = |values: [f32; 3]| Tensor::from_vec(values.to_vec(), &[3]);
        let x = x.sub(&constant([-0.030, -0.088, -0.188])?)?.div(&constant([0.458, 0.448, 0.450])?)?;
        let conv = |x: &Tensor, [weight, bias]: &[Tensor; 2]| x.conv2d(weight, Some(bias), Strides::same(3))?.relu();
        let a = conv(&x, &self.convolutions[0])?;
        let b = conv(&a.max_pool(2, 2, 0)?, &self.convolutions[1])?;
        Ok([a, b])
    }

    fn distance(&self, x: &Tensor, y: &Tensor) -> rqlab_sdk::Result<Tensor> {
        let (x, y) = (self.maps(x)?, self.maps(y)?);
        let of = |i: usize| -> rqlab_sdk::Result<Tensor> {
            let square = directions(&x[i])?.sub(&directions(&y[i])?)?.square()?;
            Ok(square.mul(&self.heads[i])?.sum(&[3], false)?.mean_all()?)
        };
        Ok(of(0)?.add(&of(1)?)?)
    }
}

/// What trains in the case of whole steps.
struct Players {
    resnet: Resnet,
    rq: Rq,
    gan: PatchGan,
    features: FeatureDistance,
    model: Params,
    critic: Params,
}

impl Players {
    fn new(case: &Case) -> Result<Self> {
        let depth = case.sizes("code_shape")?[2];
        let side = case.size("resolution")?;
        let image = MapShape { height: side, width: side, channels: 3 };
        let (model, critic) = (Params::new(0), Params::new(0));
        let config = autoencoder::published(&case.config, case.size("embed_dim")?, None)?;
        let config = ResnetConfig { groups: case.size("norm_groups")?, ..config };
        let components = Components::none();
        let resnet =
            Resnet::new(config, &AutoencoderContext { image, params: model.clone(), components: components.clone() })?;
        let shared = case.config["shared_codebook"].as_bool().unwrap_or(true);
        let config = residual::published(case, depth, &case.sizes("n_embed")?, shared)?;
        let config =
            RqConfig { dead_codes: DeadCodes::Restart, beta: case.number("latent_loss_weight")? as f32, ..config };
        let params = model.scope("quantizer");
        let rq = Rq::new(config, &QuantizerContext { latents: resnet.levels()[0], params, components })?;
        let weight = case.number("disc_weight")? as f32;
        let config = PatchGanConfig {
            n_layers: case.size("disc_n_layers")?,
            width: case.size("disc_ndf")?,
            start: case.size("disc_start")? as u64,
            weight,
            critic_weight: weight,
            ..PatchGanConfig::parse("patch_gan")?
        };
        let gan = PatchGan::new(config, &ObjectiveContext::new(image, critic.clone()))?;
        case.load(&model, true, |name| format!("w.model.{name}"))?;
        case.load(&critic, false, |name| format!("w.disc.{name}"))?;
        Ok(Self { resnet, rq, gan, features: FeatureDistance::new(case)?, model, critic })
    }
}

fn adam(case: &Case, params: &Params, betas: &str) -> Result<Adam> {
    let betas = case.numbers(betas)?;
    let settings = AdamSettings { betas: [betas[0], betas[1]], ..AdamSettings::default() };
    Ok(Adam::new(params.trained(), settings)?)
}

pub(super) fn vqgan_steps(case: &Case, out: &mut Outputs) -> Result<()> {
    let mut players = Players::new(case)?;
    let (mut model, mut critic) = (adam(case, &players.model, "betas")?, adam(case, &players.critic, "disc_betas")?);
    for step in 0..case.size("steps")? {
        let images = case.map(&format!("in.x.{step}"))?;
        let reconstruction = model_step(case, out, &mut players, &mut model, &images, step)?;
        critic_step(case, out, &mut players, &mut critic, [&images, &reconstruction], step)?;
        for (name, value) in players.model.state() {
            let name = format!("out.{step}.model.{name}");
            if name.contains("codebooks") && name.ends_with("weight") {
                quantizers::put_codebook(case, out, &name, &value)?;
            } else {
                out.tensor(name, &value);
            }
        }
        players.critic.state().iter().for_each(|(name, value)| out.tensor(format!("out.{step}.disc.{name}"), value));
    }
    Ok(())
}

/// A step of the autoencoder, and the reconstruction from before it.
fn model_step(
    case: &Case,
    out: &mut Outputs,
    players: &mut Players,
    optimizer: &mut Adam,
    images: &Tensor,
    step: usize,
) -> Result<Tensor> {
    let Players { resnet, rq, gan, features, critic, .. } = players;
    let rng = Rng::new(0, "step", step as u64);
    let (latent_weight, perceptual_weight) = (case.number("latent_loss_weight")?, case.number("perceptual_weight")?);
    let absolute = case.config["loss_type"].as_str() == Some("l1");
    let tape = Tape::start()?;
    let mut seen = None;
    let mut bottleneck = |_: usize, latents: &Tensor| {
        let (assigned, _) = rq.update(latents, &rng, |depth, vectors, size| {
            let order = case.indices(&format!("rand.perm.{step}.{depth}"));
            let order = order.map_err(|error| Error::Data(error.to_string()))?;
            let channels = vectors.last_dim();
            let rows = vectors.reshape(&[vectors.len() / channels, channels])?;
            let rows: Vec<Tensor> =
                order.iter().take(size).map(|&row| rows.slice(0, row..row + 1)).collect::<Result<_, _>>()?;
            Ok(Tensor::concat(&rows.iter().collect::<Vec<_>>(), 0)?)
        })?;
        let quantized = rq.assemble(latents, &assigned)?;
        Ok(seen.insert(quantized).latents.clone())
    };
    let levels = resnet.quantized_levels(images, &mut bottleneck, &Mode::Eval)?;
    let decoded = resnet.decode_features(&levels, &Mode::Eval)?;
    let quantized = seen.ok_or("the bottleneck was not called")?;
    out.codes(format!("out.{step}.codes"), quantized.tokens.codes()?);
    let weights = [Weight::Fixed(1.0), Weight::Fixed(perceptual_weight as f32), gan.weight(step as u64)];
    let frozen: Vec<Var> = critic.trained().into_iter().map(|(_, var)| var).collect();
    let mut losses = [0.0; 3];
    let WeightedSum { loss, output, adaptive } = weighted_sum(&*resnet, &decoded, &weights, |i, output| {
        let loss = match i {
            0 if absolute => output.sub(images)?.abs()?.mean_all()?,
            0 => output.mse(images)?,
            1 => features.distance(output, images)?,
            _ => {
                let asked = Reconstruction { images, output, step: step as u64, rng: &rng };
                Var::frozen(&frozen, || gan.loss(&asked))?.loss
            }
        };
        losses[i] = f64::from(loss.item()?);
        Ok(loss)
    })?;
    let total = loss.add(&quantized.loss)?;
    let norm = optimizer.step(&mut tape.backward(&total)?, case.number("lr")?, None)?.read()?;
    let latent = f64::from(quantized.loss.item()?) / latent_weight;
    let g_weight = match &adaptive[2] {
        Some(weight) => f64::from(weight.item()?) / case.number("disc_weight")?,
        None => 0.0,
    };
    for (name, value) in [
        ("loss_recon", losses[0]),
        ("loss_pcpt", losses[1]),
        ("loss_gen", losses[2]),
        ("loss_latent", latent),
        ("loss_total", losses[0] + latent_weight * latent + perceptual_weight * losses[1]),
        ("g_weight", g_weight),
        ("grad_norm_model", norm),
    ] {
        out.number(format!("out.{step}.{name}"), value);
    }
    Ok(output)
}

fn critic_step(
    case: &Case,
    out: &mut Outputs,
    players: &mut Players,
    optimizer: &mut Adam,
    [images, output]: [&Tensor; 2],
    step: usize,
) -> Result<()> {
    let rng = Rng::new(0, "step", step as u64);
    let tape = Tape::start()?;
    let Some(Loss { loss, terms }) =
        players.gan.critic(&Reconstruction { images, output, step: step as u64, rng: &rng })?
    else {
        out.number(format!("out.{step}.loss_disc"), 0.0);
        return Ok(());
    };
    let norm = optimizer.step(&mut tape.backward(&loss)?, case.number("disc_lr")?, None)?.read()?;
    out.number(format!("out.{step}.grad_norm_disc"), norm);
    for (term, value) in terms {
        let name = match term {
            "critic_loss" => "loss_disc",
            "real_logits" => "logits_real",
            _ => "logits_fake",
        };
        out.tensor(format!("out.{step}.{name}"), &value);
    }
    Ok(())
}
