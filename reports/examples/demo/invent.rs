//! Results that nobody measured, shaped like those of `depth-vs-codebook`: three depths, three codebooks, separate
//! codebooks at the largest depth, two levels at one of them, two seeds, a prior for some, one failed and one missing
//! trial. What has the largest depth was computed on another machine, and of one trial nobody knows where.

#[path = "pictures.rs"]
mod pictures;

use std::collections::BTreeMap;

use pictures::{Noise, degraded, examples, leaves};
use rqlab_reports::{
    Axis, CodeSizes, Comparison, Curve, Definition, Environment, Fact, FileNote, Index, Origin, Provenance, Quantity,
    Reading, Results, Sample, Sizes, Status, Trial, Value,
};

const DEPTHS: [usize; 3] = [1, 2, 4];
const CODEBOOKS: [usize; 3] = [64, 256, 1024];

/// A falling curve from `start` towards `end`.
fn curve(stage: &str, of: Quantity, start: f64, end: f64, noise: &mut Noise) -> Curve {
    let steps: Vec<u64> = (0..=100).map(|at| at * 20).collect();
    let values = steps
        .iter()
        .map(|&step| {
            let left = (-(step as f64) / 350.0).exp();
            (end + (start - end) * left) * (1.0 + 0.015 * noise.normal())
        })
        .collect();
    Curve { stage: stage.into(), measure: of.measure, at: of.at, steps, values }
}

/// What is varied.
#[derive(Clone, Copy)]
struct Setting {
    levels: usize,
    depth: usize,
    codebook: usize,
    shared: bool,
}

/// A trial while it is made up.
struct Invented {
    setting: Setting,
    noise: Noise,
    readings: Vec<Reading>,
    curves: Vec<Curve>,
}

impl Invented {
    fn put(&mut self, measure: &str, at: &[Index], value: f64) {
        self.readings.push(Reading::new(measure, at.iter().cloned(), value));
    }

    fn curve(&mut self, stage: &str, of: Quantity, start: f64, end: f64) {
        self.curves.push(curve(stage, of, start, end, &mut self.noise));
    }

    /// Distortion, rate and cost; returns the PSNR.
    fn whole(&mut self) -> f64 {
        let Setting { levels, depth, codebook, shared } = self.setting;
        let (depth, bits) = (depth as f64, (codebook as f64).log2());
        let psnr = 18.4
            + 2.6 * depth.log2()
            + 0.28 * (bits - 6.0)
            + 0.5 * (levels - 1) as f64
            + 0.12 * self.noise.normal()
            + if shared { 0.1 } else { 0.0 };
        let mse = 4.0 / 10_f64.powf(psnr / 10.0);
        // The upper level has a quarter of the positions.
        let positions = if levels > 1 { 80.0 } else { 64.0 };
        for (name, value) in [
            ("mse", mse),
            ("psnr", psnr),
            ("ssim", 1.0 - 1.9 * mse.sqrt().min(0.4)),
            ("commitment", 0.4 * mse),
            ("recon_frechet", 900.0 * mse.powf(1.2)),
            ("bits_per_image", positions * depth * bits),
            ("parameters", 412_355.0 + if shared { 1.0 } else { depth } * codebook as f64 * 64.0),
            ("train_seconds", 31.0 + 9.0 * depth + codebook as f64 / 60.0 + self.noise.uniform()),
            ("peak_memory_mib", 212.0 + 11.0 * depth),
            ("flops", 2.4e12 * (1.0 + 0.08 * depth)),
        ] {
            self.put(name, &[], value);
        }
        self.curve("tokenizer", Quantity::plain("loss"), 1.1, 1.3 * mse);
        self.curve("tokenizer", Quantity::plain("mse"), 0.9, mse);
        psnr
    }

    /// How the codes of a level are used; returns the sum of the entropies.
    fn codes(&mut self, level: &[Index]) -> f64 {
        let Setting { depth: depths, codebook, shared, .. } = self.setting;
        let bits = (codebook as f64).log2();
        let mut entropies = 0.0;
        for depth in 1..=depths {
            let at = [level, &[Index::Depth(depth)]].concat();
            let of = |measure: &str| Quantity::new(measure, at.iter().cloned());
            let share = if shared { 0.985 } else { 0.93 - 0.12 * depth as f64 } - 0.04 * level.len() as f64;
            let usage = (share - (bits - 6.0) * 0.02 * depth as f64 + 0.01 * self.noise.normal()).clamp(0.1, 1.0);
            let entropy = bits * (0.94 - 0.03 * depth as f64);
            let energy = 0.42_f64.powi(depth as i32);
            entropies += entropy;
            for (measure, start, end) in
                [("usage", 0.15, usage), ("perplexity", 4.0, entropy.exp2()), ("residual_energy", 1.0, energy)]
            {
                self.put(measure, &at, end);
                self.curve("tokenizer", of(measure), start, end);
            }
            self.put("entropy", &at, entropy);
            self.curve("tokenizer", of("restarted_codes"), codebook as f64 * 0.4, 0.4);
            for other in depth + 1..=depths {
                let at = [level, &[Index::Depth(depth), Index::Depth(other)]].concat();
                self.put("code_overlap", &at, 0.8 / (other - depth + 1) as f64);
            }
        }
        entropies
    }

    /// What a prior on every level gives: its fit, its samples and its speed.
    fn prior(&mut self, levels: &[Vec<Index>], entropies: f64) -> Vec<Sample> {
        let Setting { depth, codebook, .. } = self.setting;
        let (depths, bits) = (depth as f64, (codebook as f64).log2());
        for level in levels {
            for depth in 1..=depth {
                let share = 52.0 * entropies / depths / levels.len() as f64;
                let at = [level.as_slice(), &[Index::Depth(depth)]].concat();
                self.put("prior_bits", &at, share * (0.8 + 0.08 * depth as f64));
            }
        }
        let normal = self.noise.normal();
        for (name, value) in [
            ("prior_bits_per_image", 52.0 * entropies + normal),
            ("sample_frechet", 21.0 - 2.0 * depths + 0.4 * normal),
            ("shuffled_frechet", 88.0 + 0.8 * normal),
            ("precision", 0.61 + 0.02 * depths),
            ("recall", 0.48 + 0.02 * depths),
            ("inception_style", 3.1 + 0.1 * depths),
            ("guidance", 2.0),
        ] {
            self.put(name, &[], value);
        }
        for (batch, speed) in [(1, 14.0), (16, 130.0), (64, 320.0)] {
            let at = |cache: bool| [Index::Batch(batch), Index::Cache(cache)];
            self.put("images_per_second", &at(true), speed / depths.sqrt());
            self.put("images_per_second", &at(false), speed / depths / 4.0);
            self.put("decode_images_per_second", &[Index::Batch(batch)], 900.0 + 4.0 * batch as f64);
        }
        self.curve("prior", Quantity::plain("loss"), bits * 0.69, 0.6 * bits * 0.69);
        let mut samples = Vec::new();
        for class in 0..4 {
            for _ in 0..8 {
                let image = leaves(&mut self.noise, class);
                let (label, image) = (format!("class {class}"), degraded(&image, 0.7, &mut self.noise));
                samples.push(Sample { label, image, ..Sample::default() });
            }
        }
        samples
    }
}

fn trial(setting: Setting, seed: u64) -> Trial {
    let Setting { levels, depth, codebook, shared } = setting;
    let number = levels * 10_000_000 + depth * 1_000_000 + codebook * 100 + seed as usize * 2 + usize::from(shared);
    let mut invented = Invented { setting, noise: Noise(number as u64), readings: Vec::new(), curves: Vec::new() };
    let psnr = invented.whole();
    let indices: Vec<Vec<Index>> =
        (1..=levels).map(|level| if levels > 1 { vec![Index::Level(level)] } else { Vec::new() }).collect();
    let entropies: f64 = indices.iter().map(|level| invented.codes(level)).sum();
    invented.put("entropy_bits_per_image", &[], 64.0 * entropies);
    let has_prior = codebook == 256 && shared;
    let samples = if has_prior { invented.prior(&indices, entropies) } else { Vec::new() };
    let name = format!("levels={levels} depth={depth} codebook={codebook} shared={shared} seed={seed}");
    let id = format!("{:08x}", Noise(number as u64).bits() as u32);
    let machine = if depth == 4 { desktop() } else { server() };
    let stages = if has_prior {
        &["tokenizer", "reconstruction", "prior", "generation"][..]
    } else {
        &["tokenizer", "reconstruction"]
    };
    Trial {
        command: format!("rqlab run depth-vs-codebook --trial {id}"),
        config: format!(
            "quantizer: rq(\n    depth: {depth},\n    codebook: {codebook},\n    shared: {shared},\n),\nseed: {seed},"
        ),
        axes: BTreeMap::from([
            ("autoencoder.levels".into(), Value::Number(levels as f64)),
            ("quantizer.depth".into(), Value::Number(depth as f64)),
            ("quantizer.codebook".into(), Value::Number(codebook as f64)),
            ("quantizer.shared".into(), shared.into()),
        ]),
        parts: BTreeMap::from([("dataset".into(), "9c1e07aa".into()), ("tokenizer".into(), id.clone())]),
        id,
        name,
        setup: setup(setting, has_prior),
        sizes: sizes(setting),
        seed: Some(seed),
        status: Status::Done,
        origins: stages.iter().map(|stage| Origin { stage: (*stage).into(), environment: machine.clone() }).collect(),
        readings: invented.readings,
        curves: invented.curves,
        examples: examples(levels, depth, (psnr - 10.0) / 20.0, codebook, &mut invented.noise),
        samples,
        ..Trial::default()
    }
}

/// What a trial was set to.
fn setup(setting: Setting, has_prior: bool) -> Vec<Fact> {
    let Setting { levels, depth, codebook, .. } = setting;
    let mut facts = vec![
        Fact::new("data", "dead_leaves: 4 classes, 4000 training and 1000 test images of 32 x 32 x 3"),
        Fact::new(
            "tokens",
            format!("8 x 8 x {depth} of {codebook}{}", if levels > 1 { " and 4 x 4 above" } else { "" }),
        ),
        Fact::new("tokenizer's training", "1500 steps of 16 images, Adam, learning rate 0.003, cosine after 30 steps"),
        Fact::new("measured", "500 of 1000 test images"),
    ];
    if has_prior {
        facts.push(Fact::new("prior's training", "400 steps of 16 images, AdamW, learning rate 0.002"));
        facts.push(Fact::new("samples", "300, labels in the mixture of the data, temperature 1"));
    }
    facts
}

fn sizes(Setting { levels, depth, codebook, shared }: Setting) -> Sizes {
    let level = |positions| CodeSizes { positions, codebooks: vec![codebook; depth], shared };
    Sizes {
        classes: Some(4),
        test_images: Some(1000),
        measured_images: Some(500),
        steps: Some(1500),
        levels: [64, 16].into_iter().take(levels).map(level).collect(),
        ..Sizes::default()
    }
}

/// The machine of most trials.
fn server() -> Environment {
    let plugins =
        [("dead_leaves", "9c1e07aa"), ("resnet", "51f02b3d"), ("rq", "77ab90c4"), ("rq_transformer", "1d00fe52")];
    Environment {
        program: "rqlab 0.1.0".into(),
        commit: Some("0123456789abcdef".into()),
        compiler: "rustc 1.95.0".into(),
        target: "x86_64-unknown-linux-gnu".into(),
        processor: "Xeon Platinum 8481C, 8 cores".into(),
        instructions: "AVX-512".into(),
        device: "cpu".into(),
        precision: "f32".into(),
        threads: 8,
        plugins: plugins.into_iter().map(|(name, digest)| (name.into(), digest.into())).collect(),
        ..Environment::default()
    }
}

/// The machine of the largest depth.
fn desktop() -> Environment {
    let mut environment = server();
    environment.processor = "Ryzen 5 5600X, 6 cores".into();
    environment.instructions = "AVX2".into();
    environment.threads = 6;
    environment.plugins.insert("rq".into(), "e4018c2b".into());
    environment
}

fn comparison(metric: Quantity, axis: &str, from: Value, to: Value, fixed: &[(&str, Value)]) -> Comparison {
    Comparison {
        metric: Some(metric),
        axis: axis.into(),
        from,
        to,
        fixed: fixed.iter().map(|(path, value)| ((*path).into(), value.clone())).collect(),
    }
}

/// The made-up results.
///
/// # Errors
/// Never in practice; images are checked as any other's.
pub(crate) fn results() -> rqlab_reports::Result<Results> {
    let mut trials = Vec::new();
    for depth in DEPTHS {
        for codebook in CODEBOOKS {
            for shared in [true, false] {
                if shared || depth == 4 {
                    let setting = Setting { levels: 1, depth, codebook, shared };
                    trials.extend([0, 1].map(|seed| trial(setting, seed)));
                }
            }
        }
    }
    let two = Setting { levels: 2, depth: 2, codebook: 256, shared: true };
    trials.extend([0, 1].map(|seed| trial(two, seed)));
    trials[0].origins.clear();
    let count = trials.len() - 2;
    let failed = &mut trials[7];
    failed.status = Status::Failed;
    failed.error = Some("loss is not finite at step 812 (tokenizer): NaN after a value of 3.2e4".into());
    failed.log_tail =
        "step 810  loss 1.2e3\nstep 811  loss 3.2e4\nstep 812  loss NaN\n<stopped & kept the checkpoint of step 800>"
            .into();
    failed.readings.clear();
    failed.examples.clear();
    let missing = &mut trials[count - 1];
    missing.status = Status::Missing;
    missing.readings.clear();
    missing.examples.clear();
    missing.curves.clear();
    missing.origins.clear();
    let provenance =
        [("commit of the experiment's folder", vec!["fedcba9876543210"]), ("data digests", vec!["9c1e07aa51f02b3d"])];
    let number = |value: f64| Value::Number(value);
    let cached = Quantity::new("images_per_second", [Index::Batch(16), Index::Cache(true)]);
    let depth = |measure: &str, depth| Quantity::new(measure, [Index::Depth(depth)]);
    Ok(Results {
        case_paths: Vec::new(),
        judged_also: Vec::new(),
        name: "demo".into(),
        question: "Does depth beat codebook size at equal bits?".into(),
        file: FileNote {
            path: "experiments/demo.ron".into(),
            about: "Made-up numbers in the shape of the depth-vs-codebook sweep: residual quantization with depth D and K \
                    codes, shared over depths, on 32 x 32 dead leaves.\n\nSeparate codebooks are tried at the largest depth \
                    only, and two levels at depth 2."
                .into(),
            finding: Some("two seeds: depth 1 -> 4 bought 9 dB of PSNR.".into()),
            date: Some("2026-11-02".into()),
        },
        changed: Vec::new(),
        folder: Some("/home/lab".into()),
        command: "just sweep depth-vs-codebook".into(),
        created: None,
        provenance: provenance
            .into_iter()
            .map(|(key, values)| Provenance { key: key.into(), values: values.into_iter().map(Into::into).collect() })
            .collect(),
        axes: vec![
            Axis {
                path: "quantizer.depth".into(),
                label: "depth".into(),
                values: DEPTHS.iter().map(|&depth| number(depth as f64)).collect(),
            },
            Axis {
                path: "quantizer.codebook".into(),
                label: "codebook".into(),
                values: CODEBOOKS.iter().map(|&codebook| number(codebook as f64)).collect(),
            },
            Axis { path: "quantizer.shared".into(), label: "shared".into(), values: vec![true.into(), false.into()] },
            Axis { path: "autoencoder.levels".into(), label: "levels".into(), values: vec![number(1.0), number(2.0)] },
        ],
        headline: Some(Quantity::plain("psnr")),
        rendered: Some(Environment { processor: "Core i7-1260P, 12 cores".into(), ..server() }),
        comparisons: vec![
            comparison(Quantity::plain("psnr"), "quantizer.depth", number(1.0), number(4.0), &[
                ("quantizer.codebook", number(256.0)),
                ("quantizer.shared", true.into()),
            ]),
            comparison(Quantity::plain("psnr"), "quantizer.codebook", number(64.0), number(1024.0), &[
                ("quantizer.depth", number(1.0)),
                ("quantizer.shared", true.into()),
            ]),
            comparison(Quantity::plain("recon_frechet"), "quantizer.depth", number(1.0), number(4.0), &[("quantizer.shared", true.into())]),
            comparison(
                cached,
                "quantizer.depth",
                number(1.0),
                number(4.0),
                &[("quantizer.codebook", number(256.0)), ("quantizer.shared", true.into())],
            ),
            comparison(depth("usage", 4), "quantizer.shared", false.into(), true.into(), &[("quantizer.depth", number(4.0))]),
            comparison(depth("perplexity", 1), "quantizer.shared", false.into(), true.into(), &[
                ("quantizer.codebook", number(1024.0)),
                ("quantizer.depth", number(4.0)),
            ]),
        ],
        trials,
        definitions: vec![Definition { name: "commitment".into(), text: "Commitment loss, the mean over depths.".into() }],
    })
}
