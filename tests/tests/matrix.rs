//! Every quantizer of codes with every prior of codes, and every quantizer with every prior of vectors, which take codes as their
//! embeddings: each trained for two steps, measured and sampled; and what does not go together is refused in the plan.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, csv};

/// Quantizers of codes that have soft targets and drawn codes, for latents of 8 x 8 x 8.
const PLAIN: &[&str] = &[
    "vq(codebook: 16)",
    "rq(depth: 2, codebook: 16)",
    "fsq(levels: [5, 4, 3], projection: true)",
    "fsq(levels: [3, 3, 3, 3, 2, 2, 2, 2], sub_tokens: [4, 4])",
    "lfq(bits: 8)",
    "lfq(bits: 6, sub_tokens: [2, 4], projection: true)",
    "bsq(bits: 8, entropy_group: 4)",
    "simvq(codebook: 16, code_dim: 4)",
    "ibq(codebook: 16, stochastic_codes: 1.0)",
];

/// More of them, and those that hold others.
const OTHERS: &[&str] = &[
    "vq(codebook: 16, code_dim: 4, normalize: always, codebook_update: gradient, init: kmeans, dead_codes: anchored)",
    "rq(depth: 2, codebook: 16, shared: false, code_dim: 4, train_beam: 2, eval_beam: 2, quantizer_dropout: true)",
    "residual(of: fsq(levels: [4, 4, 3]), depth: 2, code_dim: 3, soft_clamp: 1.0)",
    "residual(of: lfq(bits: 8, entropy_annealing_factor: 2.0), depth: 2, quantizer_dropout: true)",
    "residual(of: simvq(codebook: 16), depth: 2, shared: true)",
    "product(of: vq(codebook: 16), parts: 2)",
    "product(of: residual(of: vq(codebook: 16), depth: 2), parts: 2)",
    "multi_scale(of: vq(codebook: 16, codebook_update: gradient), scales: [1, 2, 4, 8])",
    "multi_scale(of: bsq(bits: 8, entropy_group: 4), scales: [1, 3, 8], losses: both, quantizer_dropout: true)",
];

/// Priors of codes that have a likelihood.
const PRIORS: &[&str] = &[
    "ar(width: 16, heads: 2, layers: 1)",
    "ar(width: 16, heads: 2, layers: 1, block: llama, order: random)",
    "ar(width: 16, heads: 2, layers: 1, order: zigzag)",
    "ar(width: 16, heads: 2, layers: 1, block: rar, order: annealed)",
    "rq_transformer(width: 16, heads: 2, body_layers: 1, head_layers: 1)",
];

/// A prior of the codes of several scales, with the quantizers that make them.
const NEXT_SCALE: &str = "var(width: 16, heads: 2, layers: 1)";

/// What is said in a quantizer that makes several codes per position.
const SEVERAL: [&str; 4] = ["rq(", "sub_tokens", "residual(", "product("];

/// One of maps of one code per position.
const SNAIL: &str = "pixelsnail(width: 16, heads: 2, blocks: 1, residual_blocks: 1, kernel: 3)";

/// A prior of codes without a likelihood.
const MASKED: &str = "maskgit(width: 16, heads: 2, layers: 1)";

/// Priors of vectors, and of codes as the sums of their embeddings.
const OF_VECTORS: &[&str] = &[
    "mar(width: 16, heads: 2, encoder_layers: 1, decoder_layers: 1, buffer: 2, head_width: 16, head_layers: 1, iterations: 4, \
     sampling_steps: 2)",
    "ar(width: 16, heads: 2, layers: 1, loss: diffusion, head_width: 16, head_layers: 1, sampling_steps: 2)",
    "ar(width: 16, heads: 2, layers: 1, block: llama, order: zigzag, loss: diffusion, head_width: 16, head_layers: 1, \
     sampling_steps: 2)",
    "ar(width: 16, heads: 2, layers: 1, block: rar, order: annealed, loss: diffusion, head_width: 16, head_layers: 1, \
     sampling_steps: 2)",
];

/// Priors that begin with the codebooks, or are fed soft targets and drawn codes.
const DEMANDING: &[&str] = &[
    "ar(width: 16, heads: 2, layers: 1, embedding: codebook)",
    "rq_transformer(width: 16, heads: 2, body_layers: 1, head_layers: 1, targets: soft, codes: stochastic)",
];

fn experiment(quantizers: &[&str], priors: &[&str]) -> String {
    format!(
        r#"// Everything with everything.
(
    question: "Does every quantizer train with every prior?",
    data: dead_leaves(size: 16, train: 32, test: 16, classes: 2),
    autoencoder: resnet(width: 8, multipliers: [1, 2], groups: 4, mid_attention: false, latent: 8),
    quantizer: {},
    prior: {},
    tokenizer_training: (steps: 2, batch: 8, lr: 1e-3, warmup: 1, log: 1),
    prior_training: (steps: 2, batch: 4, lr: 1e-3, warmup: 1, images: 8, log: 1),
    evaluation: (images: 8, samples: 6, speed: [], pictures: 2, classifier_steps: 2),
    axes: {{ "quantizer": [{}], "prior": [{}] }},
    seeds: [0],
)
"#,
        quantizers[0],
        priors[0],
        quantizers.join(", "),
        priors.join(", ")
    )
}

/// Trains each pair; gives a column of the results, a number or nothing for each.
fn swept(quantizers: &[&str], priors: &[&str], measure: &str) -> Vec<Option<f64>> {
    swept_of(&experiment(quantizers, priors), quantizers.len() * priors.len(), measure)
}

/// The same of an experiment of so many pairs.
fn swept_of(experiment: &str, pairs: usize, measure: &str) -> Vec<Option<f64>> {
    let lab = Lab::new().unwrap();
    lab.write("all.ron", experiment).unwrap();
    let said = lab.run("sweep all.ron --runs runs --out out --jobs 2").unwrap();
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    assert_eq!(lab.stages("runs", "prior").unwrap().len(), pairs);
    let rows = csv(&lab.read("out/all/results.csv").unwrap());
    let column = rows[0].iter().position(|name| name == measure).unwrap();
    assert_eq!(rows.len(), 1 + pairs);
    rows[1..].iter().map(|row| row[column].parse().ok()).collect()
}

fn assert_bits(bits: &[Option<f64>]) {
    assert!(bits.iter().all(|bits| bits.is_some_and(|bits| bits.is_finite() && bits > 0.0)), "{bits:?}");
}

#[test]
fn every_quantizer_of_codes_trains_with_every_prior_of_codes() {
    let all = [PLAIN, OTHERS].concat();
    assert_bits(&swept(&all, PRIORS, "prior_bits_per_image"));
    let of_scales: Vec<&str> = OTHERS.iter().copied().filter(|call| call.starts_with("multi_scale")).collect();
    assert_bits(&swept(&of_scales, &[NEXT_SCALE], "prior_bits_per_image"));
    let (single, several): (Vec<&str>, Vec<&str>) =
        all.iter().copied().partition(|quantizer| !SEVERAL.iter().any(|word| quantizer.contains(word)));
    assert_bits(&swept(&single, &[SNAIL], "prior_bits_per_image"));
    for quantizer in several {
        let said = refused(quantizer, SNAIL);
        assert!(words(&said).contains("one code per position"), "{quantizer}: {said}");
    }
    let distances = swept(&all, &[MASKED], "sample_frechet");
    assert!(distances.iter().all(|d| d.is_some_and(|d| d.is_finite() && d >= 0.0)), "{distances:?}");
}

#[test]
fn codebooks_soft_targets_and_drawn_codes_are_had_of_every_plain_quantizer() {
    assert_bits(&swept(PLAIN, DEMANDING, "prior_bits_per_image"));
    let of_scales: Vec<&str> = OTHERS.iter().copied().filter(|call| call.starts_with("multi_scale")).collect();
    let soft = format!("{}, targets: soft, codes: stochastic)", NEXT_SCALE.trim_end_matches(')'));
    assert_bits(&swept(&of_scales, &[&soft], "prior_bits_per_image"));
}

/// Vectors have a bound of their likelihood.
#[test]
fn every_quantizer_trains_with_every_prior_of_vectors() {
    assert_bits(&swept(&[PLAIN, OTHERS, &["none"]].concat(), OF_VECTORS, "prior_vector_bound_bits"));
    let of_posteriors = experiment(&["kl"], OF_VECTORS).replace("latent: 8", "latent: 8, double_z: true");
    assert_bits(&swept_of(&of_posteriors, OF_VECTORS.len(), "prior_vector_bound_bits"));
}

/// A text without its line breaks and frames.
fn words(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c == '│').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What a plan says of a quantizer with a prior.
fn refused(quantizer: &str, prior: &str) -> String {
    let lab = Lab::new().unwrap();
    lab.write("one.ron", experiment(&[quantizer], &[prior])).unwrap();
    let said = lab.run("plan one.ron").unwrap();
    assert_eq!(said.code, Some(2), "{quantizer} with {prior}\n{}", said.out);
    said.err
}

/// A batch of 8 images has 512 tokens of each depth, and those of all depths for a codebook that these share.
#[test]
fn the_plan_says_which_codebooks_a_batch_cannot_fill() {
    let lab = Lab::new().unwrap();
    for (quantizer, tokens, codes) in [
        ("vq(codebook: 1024)", "512", "1,024"),
        ("vq(codebook: 1024, codebook_update: gradient)", "512", "1,024"),
        ("rq(depth: 4, codebook: 4096)", "2,048", "4,096"),
        ("rq(depth: 4, codebook: 1024, shared: false)", "512", "1,024"),
        ("simvq(codebook: 1024)", "512", "1,024"),
        ("ibq(codebook: 1024)", "512", "1,024"),
        ("residual(of: vq(codebook: 1024), depth: 2)", "512", "1,024"),
        ("residual(of: vq(codebook: 2048), depth: 2, shared: true)", "1,024", "2,048"),
        ("product(of: vq(codebook: 1024), parts: 2)", "512", "1,024"),
        ("multi_scale(of: vq(codebook: 1024), scales: [1, 2, 4, 8])", "680", "1,024"),
    ] {
        lab.write("one.ron", experiment(&[quantizer], &PRIORS[..1])).unwrap();
        let said = lab.run("plan one.ron").unwrap();
        assert_eq!(said.code, Some(0), "{quantizer}\n{}", said.err);
        let sentence = format!("Codebooks: a batch of 8 images has {tokens} tokens for {codes} codes");
        assert!(said.out.contains(&sentence), "{quantizer}: no `{sentence}` in\n{}", said.out);
    }
}

#[test]
fn what_does_not_go_together_is_refused_in_the_plan() {
    for quantizer in ["vq(codebook: 16)", "multi_scale(of: vq(codebook: 16), scales: [8])"] {
        let said = refused(quantizer, NEXT_SCALE);
        assert!(said.contains("of one"), "{quantizer} with {NEXT_SCALE}: {said}");
    }
    for prior in PRIORS.iter().chain(&[SNAIL, MASKED, NEXT_SCALE]) {
        let said = refused("none", prior);
        assert!(said.contains("codes"), "none with {prior}: {said}");
        let said = refused("kl", prior);
        assert!(said.contains("double_z"), "kl with {prior}: {said}");
    }
    for (quantizer, reason) in [
        ("residual(of: none, depth: 2)", "`none` makes vectors"),
        ("product(of: vq, parts: 3)", "8 channels of the latents cannot be cut in 3 equal parts"),
        ("multi_scale(of: vq, scales: [1, 2, 4])", "the last scale must be the side of the latents, which are 8 x 8"),
        ("residual(of: multi_scale(of: vq, scales: [1, 8]), depth: 2)", "makes codes of several scales"),
        ("residual(of: vq(dead_codes: anchored), depth: 2)", "add `codebook_update: gradient`"),
        ("rq(train_beam: 2)", "add `update: per_step`"),
        ("lfq(bits: 9)", "9 channels, and the latents have 8"),
    ] {
        let said = refused(quantizer, PRIORS[0]);
        assert!(words(&said).contains(reason), "{quantizer}: {said}");
    }
}
