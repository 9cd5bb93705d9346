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
    CodeSpace, Components, Condition, ConditionSpace, Guidance, GuidanceSchedule, LevelInfo, Mode, Prior, PriorContext,
    SampleRequest, Scales, Targets, TokenBatch, TokenSpace, Tokens,
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
    // In a bundle they lie where they are looked for without a word.
    let built = Path::new(env!("CARGO_BIN_EXE_rqlab")).parent().filter(|folder| folder.is_dir());
    let plugins = Plugins::load(&Search::usual(built.map(Path::to_owned).into_iter().collect()))
        .unwrap_or_else(|error| panic!("{}", error.message));
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

/// Priors of one map of codes, of several scales and of vectors.
const PRIORS: [(&str, &str, Made); 7] = [
    ("rq_transformer", "(width: 16, heads: 2, body_layers: 1, head_layers: 1)", Made::Codes),
    ("ar", "(width: 16, heads: 2, layers: 1)", Made::Codes),
    ("maskgit", "(width: 16, heads: 2, layers: 1, iterations: 4)", Made::Codes),
    ("maskgit", "(width: 16, heads: 2, layers: 1, iterations: 4, proposals: gumbel)", Made::Codes),
    ("pixelsnail", "(width: 16, heads: 2, blocks: 1, residual_blocks: 1)", Made::SingleCodes),
    ("var", "(width: 16, heads: 2, layers: 1)", Made::Scales),
    (
        "mar",
        "(width: 16, heads: 2, encoder_layers: 1, decoder_layers: 1, iterations: 4, sampling_steps: 10)",
        Made::Vectors,
    ),
];

/// What a tokenizer makes of an image.
#[derive(Clone, Copy, PartialEq)]
enum Made {
    Codes,
    /// One code per position.
    SingleCodes,
    Scales,
    Vectors,
}

const CHANNELS: usize = 8;

fn prior_of(plugins: &Plugins, name: &str, config: &str, made: Made, params: &Params) -> (Box<dyn Prior>, LevelInfo) {
    let table = Tensor::from_vec(Rng::new(1, "codebook", 0).normal(16 * CHANNELS), &[16, CHANNELS]).unwrap();
    let depth = if made == Made::SingleCodes { 1 } else { 2 };
    let codes =
        TokenSpace::Codes(CodeSpace { sizes: vec![16; depth], tables: vec![table.clone(); depth], shared: true });
    let (height, width, space, scales) = match made {
        Made::Codes | Made::SingleCodes => (3, 3, codes, None),
        Made::Vectors => (3, 3, TokenSpace::Vectors { channels: CHANNELS }, None),
        Made::Scales => {
            let first = move |tokens: &Tokens, scales: std::ops::Range<usize>| {
                let codes = tokens.codes()?.slice(2, 0..1)?.column(0)?;
                let seen = |_| Ok(table.embedding(&codes)?.broadcast_to(&[codes.shape()[0], 2, 2, CHANNELS])?);
                scales.map(seen).collect()
            };
            (1, 5, codes, Some(Scales::new(vec![[1, 1], [2, 2]], first)))
        }
    };
    let level = LevelInfo { height, width, channels: CHANNELS, space, scales };
    let context = PriorContext {
        levels: vec![level.clone()],
        level: 0,
        condition: ConditionSpace::Classes(4),
        null_condition: true,
        params: params.scope("prior"),
        components: Components::none(),
    };
    (plugins.prior(&component(plugins, Kind::Prior, name, config), &context).unwrap(), level)
}

#[test]
fn a_step_of_a_prior_reads_nothing_from_a_gpu() {
    let Some((plugins, _alone)) = on_a_gpu() else { return };
    for (name, config, made) in PRIORS {
        let params = Params::new(1);
        let (prior, level) = prior_of(&plugins, name, config, made, &params);
        let mut optimizer = Adam::new(params.trained(), AdamSettings::default()).unwrap();
        for step in 0..3 {
            let rng = Rng::new(1, "step", step);
            let draw = |purpose: &str, shape: &[usize], size: u32| {
                Codes::from_vec(rng.part(purpose, 0).below(shape.iter().product(), size), shape).unwrap()
            };
            let condition = Condition::classes(draw("labels", &[2], 4)).unwrap();
            let shape = level.token_shape(2);
            let tokens = match made {
                Made::Vectors => {
                    let numbers = rng.part("vectors", 0).normal(shape.iter().product());
                    Tokens::Vectors(Tensor::from_vec(numbers, &shape).unwrap())
                }
                _ => Tokens::Codes(draw("codes", &shape, 16)),
            };
            let condition = condition.dropped(0.5, &rng).unwrap();
            let batch = TokenBatch { tokens, targets: Targets::Hard, condition, above: vec![] };
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

/// Nor does the host wait for what is drawn: tokens lie on the GPU until somebody reads them.
#[test]
fn samples_of_a_prior_read_nothing_from_a_gpu() {
    let Some((plugins, _alone)) = on_a_gpu() else { return };
    for (name, config, made) in PRIORS {
        let (prior, level) = prior_of(&plugins, name, config, made, &Params::new(1));
        for scale in [1.0, 2.0] {
            let guidance = Guidance { scale, schedule: GuidanceSchedule::Linear };
            let condition = Condition::classes(Codes::from_vec(vec![1, 2], &[2]).unwrap()).unwrap();
            let request = SampleRequest { guidance, ..SampleRequest::new(condition) };
            let before = host_reads();
            let tokens = prior.sample(&request, &Rng::new(1, "samples", 0)).unwrap();
            assert_eq!(host_reads(), before, "{name}{config}, guidance {scale}");
            assert_eq!(tokens.shape(), level.token_shape(2));
        }
    }
}
