//! Whole steps of a tokenizer and its discriminator.

use super::{Case, Outputs, Result, autoencoder, quantizers, residual};
use rqlab_autoencoder_resnet::{Resnet, ResnetConfig};
use rqlab_objective_patch_gan::{PatchGan, PatchGanConfig};
use rqlab_quantizer_rq::{Rq, RqConfig};
use rqlab_sdk::networks::directions;
use rqlab_sdk::nn::DeadCodes;
use rqlab_sdk::optim::{Adam, AdamSettings, WeightedSum, weighted_sum};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::Tape;
use rqlab_sdk::tensor::ops::conv::Conv2d as Strides;

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
