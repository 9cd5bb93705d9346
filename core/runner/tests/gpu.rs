//! What only a GPU can show; skipped, with a message, where there is none.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, or says why it is skipped"
)]

use rqlab::job::{Call, Called};
use rqlab::plugins::{Plugins, Search, key};
use rqlab::stages::Tokenizer;
use rqlab_sdk::contracts::{
    CodeSpace, Components, Condition, ConditionSpace, LevelInfo, Mode, PriorContext, Targets, TokenBatch, TokenSpace,
    Tokens,
};
use rqlab_sdk::optim::{Adam, AdamSettings, WeightAverage};
use rqlab_sdk::params::Params;
use rqlab_sdk::plugin::Kind;
use rqlab_sdk::tensor::{Codes, Device, Rng, Tape, Tensor, host_reads};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The plugins, if there is a GPU, on which tensors are placed from now on; and the right to be the only test that reads from
/// it, since reads are counted over the process.
fn on_a_gpu() -> Option<(Plugins, MutexGuard<'static, ()>)> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = Device::Cuda(0).make_default() {
        eprintln!("skipped: {error}");
        return None;
    }
    let beside = Path::new(env!("CARGO_BIN_EXE_rqlab")).parent().unwrap().to_owned();
    let plugins = Plugins::load(&Search::usual(vec![beside])).unwrap_or_else(|error| panic!("{}", error.message));
    Some((plugins, alone))
}

fn component(plugins: &Plugins, kind: Kind, name: &str, config: &str) -> Call {
    let plugin = plugins.find(kind, name).unwrap_or_else(|error| panic!("{}", error.message)).origin.digest.clone();
    let [config, trained, sampled] = [config; 3].map(str::to_owned);
    Called { name: name.to_owned(), config, trained, sampled, plugins: [(key(kind, name), plugin)].into() }.into()
}

/// The host runs ahead: from the images to the average of the weights nothing is read back, codebooks and their restarts
/// included.
#[test]
fn a_step_of_a_tokenizer_reads_nothing_from_a_gpu() {
    let Some((plugins, _alone)) = on_a_gpu() else { return };
    let autoencoder = "(width: 8, multipliers: [1, 1], blocks: 1, groups: 2, latent: 8, downsample: symmetric)";
    let autoencoder = component(&plugins, Kind::Autoencoder, "resnet", autoencoder);
    for (name, config) in [
        ("rq", "(depth: 2, codebook: 16)"),
        (
            "rq",
            "(depth: 2, codebook: 300, shared: false, update: per_step, estimator: rotation, estimator_per_depth: true)",
        ),
        ("vq", "(codebook: 16)"),
        ("vq", "(codebook: 16, codebook_update: gradient)"),
    ] {
        let quantizer = component(&plugins, Kind::Quantizer, name, config);
        let params = Params::new(1);
        let mut model = Tokenizer::build(&plugins, &autoencoder, &[quantizer], [16, 16, 3], params.clone()).unwrap();
        let mut optimizer = Adam::new(params.trained(), AdamSettings::default()).unwrap();
        let mut average = WeightAverage::new(params.trained(), 0.99).unwrap();
        let pixels = Rng::new(1, "images", 0).normal(3 * 16 * 16 * 3);
        let images = Tensor::from_vec(pixels, &[3, 16, 16, 3]).unwrap();
        let mut seen = Vec::new();
        for step in 0..3 {
            let before = host_reads();
            let rng = Rng::new(1, "step", step);
            let tape = Tape::start().unwrap();
            let mut auxiliary = None;
            let mut bottleneck = |level: usize, latents: &Tensor| {
                let quantized = model.quantizers[level].quantize_train(latents, &rng)?;
                auxiliary = Some(quantized.loss);
                seen.extend(quantized.terms.into_iter().chain(quantized.events));
                Ok(quantized.latents)
            };
            let out = model.autoencoder.forward(&images, &mut bottleneck, &Mode::Train(rng)).unwrap();
            let loss = out.mse(&images).unwrap().add(&auxiliary.unwrap()).unwrap();
            let mut gradients = tape.backward(&loss).unwrap();
            let norm = optimizer.step(&mut gradients, 1e-3, Some(1.0)).unwrap();
            average.update().unwrap();
            assert_eq!(host_reads(), before, "{name}{config}, step {step}");
            assert!(norm.read().unwrap() > 0.0 && host_reads() > before);
        }
        for (name, value) in seen {
            assert!(value.item().unwrap() >= 0.0, "{name}");
        }
    }
}

#[test]
fn a_step_of_a_prior_reads_nothing_from_a_gpu() {
    let Some((plugins, _alone)) = on_a_gpu() else { return };
    for (name, config) in [
        ("rq_transformer", "(width: 16, heads: 2, body_layers: 1, head_layers: 1)"),
        ("ar", "(width: 16, heads: 2, layers: 1)"),
    ] {
        let table = Tensor::from_vec(Rng::new(1, "codebook", 0).normal(16 * 8), &[16, 8]).unwrap();
        let space = CodeSpace { sizes: vec![16; 2], tables: vec![table; 2], shared: true };
        let params = Params::new(1);
        let context = PriorContext {
            levels: vec![LevelInfo { height: 3, width: 3, channels: 8, space: TokenSpace::Codes(space), scales: None }],
            level: 0,
            condition: ConditionSpace::Classes(4),
            null_condition: true,
            params: params.scope("prior"),
            components: Components::none(),
        };
        let prior = plugins.prior(&component(&plugins, Kind::Prior, name, config), &context).unwrap();
        let mut optimizer = Adam::new(params.trained(), AdamSettings::default()).unwrap();
        for step in 0..3 {
            let rng = Rng::new(1, "step", step);
            let draw = |purpose: &str, shape: &[usize], size: u32| {
                Codes::from_vec(rng.part(purpose, 0).below(shape.iter().product(), size), shape).unwrap()
            };
            let condition = Condition::classes(draw("labels", &[2], 4)).unwrap();
            let batch = TokenBatch {
                tokens: Tokens::Codes(draw("codes", &[2, 3, 3, 2], 16)),
                targets: Targets::Hard,
                condition: condition.dropped(0.5, &rng).unwrap(),
                above: vec![],
            };
            let before = host_reads();
            let tape = Tape::start().unwrap();
            let loss = prior.loss(&batch, &Mode::Train(rng)).unwrap().loss;
            let mut gradients = tape.backward(&loss).unwrap();
            let norm = optimizer.step(&mut gradients, 1e-3, Some(1.0)).unwrap();
            assert_eq!(host_reads(), before, "{name}, step {step}");
            assert!(norm.read().unwrap() > 0.0 && host_reads() > before);
        }
    }
}
