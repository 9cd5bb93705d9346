//! Results that nobody measured, shaped like those of `depth-vs-codebook`: three depths, three codebooks, separate
//! codebooks at the largest depth, two seeds, a prior for some, one failed and one missing trial.

use std::collections::BTreeMap;

use rqlab_reports::{
    Axis, CodeMap, Comparison, Curve, Definition, Example, Image, Provenance, Results, Sample, Status, Trial, Value,
};

const SIDE: u32 = 32;
const DEPTHS: [usize; 3] = [1, 2, 4];
const CODEBOOKS: [usize; 3] = [64, 256, 1024];

/// Splitmix64: enough for pictures, and the same everywhere.
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// Overlapping discs or squares of many sizes.
fn leaves(noise: &mut Noise, class: usize) -> Image {
    let mut rgb = vec![0_u8; (SIDE * SIDE * 3) as usize];
    for _ in 0..40 {
        let (x, y) = (noise.uniform() * f64::from(SIDE), noise.uniform() * f64::from(SIDE));
        let radius = 2.0 / (0.08 + noise.uniform());
        let colour: [f64; 3] =
            std::array::from_fn(|c| 255.0 * (0.25 + 0.7 * noise.uniform()) * if c == class % 3 { 1.0 } else { 0.6 });
        for row in 0..SIDE {
            for column in 0..SIDE {
                let (dx, dy) = (f64::from(column) - x, f64::from(row) - y);
                let inside =
                    if class.is_multiple_of(2) { dx.hypot(dy) < radius } else { dx.abs().max(dy.abs()) < radius };
                if inside {
                    let at = ((row * SIDE + column) * 3) as usize;
                    for c in 0..3 {
                        rgb[at + c] = colour[c] as u8;
                    }
                }
            }
        }
    }
    Image { width: SIDE, height: SIDE, rgb }
}

/// A blurred, noisy copy; `quality` from 0 to 1.
fn degraded(image: &Image, quality: f64, noise: &mut Noise) -> Image {
    let side = SIDE as i64;
    let reach = ((1.0 - quality) * 4.0).round() as i64;
    let mut rgb = Vec::with_capacity(image.rgb.len());
    for row in 0..side {
        for column in 0..side {
            for c in 0..3 {
                let (mut sum, mut count) = (0.0, 0.0);
                for y in (row - reach).max(0)..=(row + reach).min(side - 1) {
                    for x in (column - reach).max(0)..=(column + reach).min(side - 1) {
                        sum += f64::from(image.rgb[((y * side + x) * 3 + c) as usize]);
                        count += 1.0;
                    }
                }
                rgb.push((sum / count + noise.normal() * 14.0 * (1.0 - quality)).clamp(0.0, 255.0) as u8);
            }
        }
    }
    Image { width: SIDE, height: SIDE, rgb }
}

/// A falling curve from `start` towards `end`.
fn curve(stage: &str, name: &str, start: f64, end: f64, noise: &mut Noise) -> Curve {
    let steps: Vec<u64> = (0..=100).map(|at| at * 20).collect();
    let values = steps
        .iter()
        .map(|&step| {
            let left = (-(step as f64) / 350.0).exp();
            (end + (start - end) * left) * (1.0 + 0.015 * noise.normal())
        })
        .collect();
    Curve { stage: stage.into(), name: name.into(), steps, values }
}

fn examples(depth: usize, quality: f64, codebook: usize, noise: &mut Noise) -> Vec<Example> {
    (0..6_usize)
        .map(|number| {
            let original = leaves(&mut Noise(1000 + number as u64), number % 4);
            let reconstructions = (1..=depth)
                .map(|level| degraded(&original, quality * (0.45 + 0.55 * level as f64 / depth as f64), noise))
                .collect();
            let codes = (0..64 * depth).map(|_| (noise.bits() % codebook as u64) as u32).collect();
            Example {
                label: format!("test {number}, class {}", number % 4),
                original,
                reconstructions,
                codes: Some(CodeMap { height: 8, width: 8, depth, codes }),
            }
        })
        .collect()
}

fn trial(depth: usize, codebook: usize, shared: bool, seed: u64) -> Trial {
    let mut noise = Noise((depth * 1_000_000 + codebook * 100 + seed as usize * 2 + usize::from(shared)) as u64);
    let (levels, bits) = (depth as f64, (codebook as f64).log2());
    let psnr =
        18.4 + 2.6 * levels.log2() + 0.28 * (bits - 6.0) + 0.12 * noise.normal() + 0.1 * f64::from(u8::from(shared));
    let mse = 4.0 / 10_f64.powf(psnr / 10.0);
    let nominal = 64.0 * levels * bits;
    let has_prior = codebook == 256 && shared;
    let mut measures = BTreeMap::new();
    let mut put = |name: &str, value: f64| {
        measures.insert(name.to_owned(), value);
    };
    put("mse", mse);
    put("psnr", psnr);
    put("ssim", 1.0 - 1.9 * mse.sqrt().min(0.4));
    put("commitment", 0.4 * mse);
    put("recon_frechet", 900.0 * mse.powf(1.2));
    put("bits_per_image", nominal);
    put("parameters", 412_355.0 + if shared { 1.0 } else { levels } * codebook as f64 * 64.0);
    put("train_seconds", 31.0 + 9.0 * levels + codebook as f64 / 60.0 + noise.uniform());
    put("peak_memory_mib", 212.0 + 11.0 * levels);
    put("flops", 2.4e12 * (1.0 + 0.08 * levels));
    let (mut entropies, mut curves) = (0.0, Vec::new());
    curves.push(curve("tokenizer", "loss", 1.1, 1.3 * mse, &mut noise));
    curves.push(curve("tokenizer", "mse", 0.9, mse, &mut noise));
    for level in 1..=depth {
        let share = if shared { 0.985 } else { 0.93 - 0.12 * level as f64 };
        let usage = (share - (bits - 6.0) * 0.02 * level as f64 + 0.01 * noise.normal()).clamp(0.1, 1.0);
        let entropy = bits * (0.94 - 0.03 * level as f64);
        let energy = 0.42_f64.powi(level as i32);
        entropies += entropy;
        put(&format!("usage_{level}"), usage);
        put(&format!("perplexity_{level}"), entropy.exp2());
        put(&format!("entropy_{level}"), entropy);
        put(&format!("residual_energy_{level}"), energy);
        for other in level + 1..=depth {
            put(&format!("code_overlap_{level}_{other}"), 0.8 / (other - level + 1) as f64);
        }
        curves.push(curve("tokenizer", &format!("usage_{level}"), 0.15, usage, &mut noise));
        curves.push(curve("tokenizer", &format!("perplexity_{level}"), 4.0, entropy.exp2(), &mut noise));
        curves.push(curve("tokenizer", &format!("restarted_codes_{level}"), codebook as f64 * 0.4, 0.4, &mut noise));
        curves.push(curve("tokenizer", &format!("residual_energy_{level}"), 1.0, energy, &mut noise));
    }
    put("entropy_bits_per_image", 64.0 * entropies);
    let mut samples = Vec::new();
    if has_prior {
        put("prior_bits_per_image", 52.0 * entropies + noise.normal());
        for level in 1..=depth {
            put(&format!("prior_bits_{level}"), 52.0 * entropies / levels * (1.0 + 0.08 * level as f64 - 0.2));
        }
        put("sample_frechet", 21.0 - 2.0 * levels + 0.4 * noise.normal());
        put("shuffled_frechet", 88.0 + 0.8 * noise.normal());
        put("precision", 0.61 + 0.02 * levels);
        put("recall", 0.48 + 0.02 * levels);
        put("inception_style", 3.1 + 0.1 * levels);
        for (batch, speed) in [(1, 14.0), (16, 130.0), (64, 320.0)] {
            put(&format!("images_per_second_b{batch}_cache"), speed / levels.sqrt());
            put(&format!("images_per_second_b{batch}_nocache"), speed / levels / 4.0);
            put(&format!("decode_images_per_second_b{batch}"), 900.0 + 4.0 * f64::from(batch));
        }
        curves.push(curve("prior", "loss", bits * 0.69, 0.6 * bits * 0.69, &mut noise));
        for class in 0..4 {
            for _ in 0..8 {
                let image = leaves(&mut noise, class);
                samples.push(Sample { label: format!("class {class}"), image: degraded(&image, 0.7, &mut noise) });
            }
        }
    }
    let name = format!("depth={depth} codebook={codebook} shared={shared} seed={seed}");
    let id = format!("{:08x}", Noise(nominal as u64 + seed * 7 + u64::from(shared)).bits() as u32);
    Trial {
        command: format!("rqlab run depth-vs-codebook --trial {id}"),
        config: format!(
            "quantizer: rq(\n    depth: {depth},\n    codebook: {codebook},\n    shared: {shared},\n),\nseed: {seed},"
        ),
        axes: BTreeMap::from([
            ("quantizer.depth".into(), Value::Number(levels)),
            ("quantizer.codebook".into(), Value::Number(codebook as f64)),
            ("quantizer.shared".into(), shared.into()),
        ]),
        id,
        name,
        seed: Some(seed),
        status: Status::Done,
        measures,
        curves,
        examples: examples(depth, 0.55 + 0.05 * levels + 0.02 * bits, codebook, &mut noise),
        samples,
        ..Trial::default()
    }
}

fn comparison(metric: &str, axis: &str, from: Value, to: Value, fixed: &[(&str, Value)]) -> Comparison {
    Comparison {
        metric: metric.into(),
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
                    trials.extend([0, 1].map(|seed| trial(depth, codebook, shared, seed)));
                }
            }
        }
    }
    let count = trials.len();
    let failed = &mut trials[7];
    failed.status = Status::Failed;
    failed.error = Some("loss is not finite at step 812 (tokenizer): NaN after a value of 3.2e4".into());
    failed.log_tail =
        "step 810  loss 1.2e3\nstep 811  loss 3.2e4\nstep 812  loss NaN\n<stopped & kept the checkpoint of step 800>"
            .into();
    failed.measures.clear();
    failed.examples.clear();
    let missing = &mut trials[count - 1];
    missing.status = Status::Missing;
    missing.measures.clear();
    missing.examples.clear();
    missing.curves.clear();
    let provenance = [
        ("rqlab", vec!["0.1.0"]),
        ("git commit", vec!["0123456789abcdef (clean)"]),
        ("compiler", vec!["rustc 1.95.0"]),
        ("device", vec!["CPU, 2 threads, AVX2"]),
        ("plugins", vec!["dead_leaves 9c1e07aa", "resnet 51f02b3d", "rq 77ab90c4", "rq_transformer 1d00fe52"]),
    ];
    let number = |value: f64| Value::Number(value);
    Ok(Results {
        name: "demo".into(),
        question: "Does depth beat codebook size at equal bits?".into(),
        description: "Made-up numbers in the shape of the depth-vs-codebook sweep: residual quantization with depth D and \
                      K codes, shared over depths, on 32 x 32 dead leaves.\n\nSeparate codebooks are tried at the largest \
                      depth only."
            .into(),
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
        ],
        headline: "psnr".into(),
        comparisons: vec![
            comparison("psnr", "quantizer.depth", number(1.0), number(4.0), &[
                ("quantizer.codebook", number(256.0)),
                ("quantizer.shared", true.into()),
            ]),
            comparison("psnr", "quantizer.codebook", number(64.0), number(1024.0), &[
                ("quantizer.depth", number(1.0)),
                ("quantizer.shared", true.into()),
            ]),
            comparison("recon_frechet", "quantizer.depth", number(1.0), number(4.0), &[("quantizer.shared", true.into())]),
            comparison("usage_4", "quantizer.shared", false.into(), true.into(), &[("quantizer.depth", number(4.0))]),
            comparison("perplexity_1", "quantizer.shared", false.into(), true.into(), &[
                ("quantizer.codebook", number(1024.0)),
                ("quantizer.depth", number(4.0)),
            ]),
        ],
        trials,
        definitions: vec![Definition { name: "commitment".into(), text: "Commitment loss, the mean over depths.".into() }],
    })
}
