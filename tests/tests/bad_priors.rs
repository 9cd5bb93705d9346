//! What a prior cannot do is said in the plan: once, with the field and what to do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::Lab;

const AR: &str = "ar(width: 16, heads: 2, layers: 1)";
const MAR: &str = "width: 16, heads: 2, encoder_layers: 1, decoder_layers: 1, head_width: 16, head_layers: 1";

/// One trial over tokens of 4 x 4.
fn experiment(quantizer: &str, prior: &str, training: &str, evaluation: &str) -> String {
    format!(
        r#"(
    question: "Can it be?",
    data: dead_leaves(size: 16, train: 32, test: 16, classes: 2),
    autoencoder: resnet(width: 8, multipliers: [1, 2, 2], groups: 4, mid_attention: false, latent: 8),
    quantizer: {quantizer},
    prior: {prior},
    tokenizer_training: (steps: 2, batch: 8, warmup: 1),
    prior_training: (steps: 2, batch: 8, warmup: 1, images: 16, {training}),
    evaluation: (images: 8, samples: 6, speed: [], pictures: 2, classifier_steps: 2, {evaluation}),
    seeds: [0],
)
"#
    )
}

/// What the plan says against it, as one line of words.
fn refused(lab: &Lab, text: &str) -> String {
    lab.write("x.ron", text).unwrap();
    let said = lab.run("plan x.ron").unwrap();
    assert_eq!(said.code, Some(2), "{text}\n{}", said.out);
    assert_eq!(said.err.lines().filter(|line| line.starts_with("error")).count(), 1, "{}", said.err);
    let words = said.err.split(|c: char| c.is_whitespace() || c == '│').filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Logits over codes at each position of a batch, distances to all codes: said before anything is allocated.
#[test]
fn what_no_memory_holds_is_refused_before_any_work() {
    let lab = Lab::new().unwrap();
    for set in [
        "quantizer.codebook=1048576 --set prior_training.batch=1048576",
        "quantizer.codebook=1048576 --set quantizer.stochastic_codes=1.0 --set tokenizer_training.batch=1048576",
    ] {
        let said = lab.run(&format!("sweep tiny.ron --set {set}")).unwrap();
        assert!(said.code == Some(2) && said.err.contains("of memory"), "{set}: {}", said.err);
    }
    for (set, word) in [
        ("evaluation.speed=[4,1,4]", "the batch size 4 stands here twice"),
        ("tokenizer_training.freeze=[\"*\"]", "`freeze` names all parameters"),
    ] {
        let said = lab.run(&format!("plan tiny.ron --set {set}")).unwrap();
        assert!(said.code == Some(2) && said.err.contains(word), "{set}: {}", said.err);
    }
    assert!(!lab.path("runs").exists());
}

#[test]
fn what_sampling_cannot_do_is_refused() {
    let lab = Lab::new().unwrap();
    let (vq, of_vectors) = ("vq(codebook: 16)", format!("mar({MAR})"));
    for (quantizer, prior, evaluation, parts) in [
        ("none", of_vectors.clone(), "top_k: 5", ["`top_k` cuts distributions over codes", "leave it out"]),
        (vq, of_vectors.clone(), "top_p: 0.9", ["`top_p` cuts distributions over codes", "leave it out"]),
        (
            "none",
            format!("mar({MAR}, iterations: 17)"),
            "",
            ["17 steps for 16 tokens", "each step predicts one at least"],
        ),
        ("none", format!("mar({MAR}, iterations: 0)"), "", ["`iterations`", "found 0"]),
        ("none", format!("mar({MAR}, sampling_steps: 1001)"), "", ["`sampling_steps`", "1001"]),
        ("none", format!("mar({MAR}, noise_steps: 7, sampling_steps: 8)"), "", ["`sampling_steps`", "8"]),
        ("none", "ar(loss: diffusion, sampling_steps: 1001)".to_owned(), "", ["`sampling_steps`", "1001"]),
        ("none", "ar(loss: flow)".to_owned(), "top_k: 5", ["`top_k` cuts distributions over codes", "leave it out"]),
        (vq, "ar(loss: diffusion, targets: soft)".to_owned(), "", ["`targets`", "not distributions over codes"]),
        (vq, "maskgit(width: 16, heads: 2, layers: 1, iterations: 17)".to_owned(), "", ["17 steps", "16 or fewer"]),
        (vq, "maskgit(width: 16, heads: 2, layers: 1, iterations: 0)".to_owned(), "", ["`iterations`", "found 0"]),
        (vq, AR.to_owned(), "guidance: 2.0", ["never learns", "condition_dropout: 0.1"]),
    ] {
        let said = refused(&lab, &experiment(quantizer, &prior, "", evaluation));
        for part in parts {
            assert!(said.contains(part), "no {part:?} in: {said}");
        }
    }
}

#[test]
fn tokens_of_the_other_kind_are_refused() {
    let lab = Lab::new().unwrap();
    for (quantizer, prior, part) in [
        ("none", AR.to_owned(), "take `loss: diffusion`, or a quantizer that makes codes"),
        ("none", "rq_transformer(width: 16, heads: 2)".to_owned(), "is the prior `ar(loss: diffusion)`"),
        (
            "none",
            format!("mar({MAR}, preset: mar_crossent)"),
            "take `loss: diffusion`, or a quantizer that makes codes",
        ),
        ("rq(depth: 2, codebook: 16)", format!("mar({MAR}, preset: mar_crossent)"), "or the prior `rq_transformer`"),
    ] {
        let said = refused(&lab, &experiment(quantizer, &prior, "", ""));
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
}

#[test]
fn weights_say_whether_they_know_the_null_condition() {
    let lab = Lab::new().unwrap();
    let stage = |training: &str, runs: &str| {
        lab.write("first.ron", experiment("vq(codebook: 16)", AR, training, "")).unwrap();
        let said = lab.run(&format!("sweep first.ron --runs {runs} --out o --jobs 1")).unwrap();
        assert_eq!(said.code, Some(0), "{}", said.err);
        lab.stages(runs, "prior").unwrap().remove(0)
    };
    let (without, with) = (stage("", "without"), stage("condition_dropout: 0.5", "with"));
    let from = |folder: &std::path::Path, training: &str, evaluation: &str| {
        let training = format!("from: {:?}, {training}", folder.display().to_string());
        refused(&lab, &experiment("vq(codebook: 16)", AR, &training, evaluation))
    };
    let said = from(&without, "condition_dropout: 0.1", "guidance: 2.0");
    assert!(said.contains("have no null condition") && said.contains("`condition_dropout: 0.0`"), "{said}");
    let said = from(&without, "", "guidance: 2.0");
    assert!(said.contains("have learnt none") && said.contains("leave it at 1"), "{said}");
    let said = from(&with, "", "guidance: 2.0");
    assert!(said.contains("have a null condition") && said.contains("`condition_dropout: 0.1`"), "{said}");
}
