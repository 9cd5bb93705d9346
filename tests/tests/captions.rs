//! Priors that are told captions, from pictures to a page; and guidance that is tuned.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, Said, csv};
use std::collections::BTreeMap;

/// One trial of a small text model.
fn lab(training: &str, evaluation: &str) -> Lab {
    let lab = Lab::new().unwrap();
    let text = format!(
        r#"(
    question: "Do samples obey their captions?",
    data: dead_leaves(size: 16, train: 300, test: 48, classes: 3),
    autoencoder: resnet(width: 8, multipliers: [1], groups: 4, mid_attention: false, latent: 8, patch: 4),
    quantizer: vq(codebook: 32),
    prior: rq_transformer(width: 32, heads: 2, body_layers: 1, head_layers: 1),
    tokenizer_training: (steps: 60, batch: 8, lr: 3e-3, warmup: 5),
    prior_training: (steps: 40, batch: 8, lr: 5e-3, warmup: 5, validation: 16, {training}),
    evaluation: (images: 40, samples: 24, speed: [], pictures: 2, classifier_steps: 60, {evaluation}),
)
"#
    );
    lab.write("one.ron", text).unwrap();
    lab
}

/// The numbers of the only trial, by column.
fn numbers(lab: &Lab) -> BTreeMap<String, f64> {
    let said = lab.run("sweep one.ron --out o --name measured --jobs 2").unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let rows = csv(&lab.read("o/measured/results.csv").unwrap());
    rows[0].iter().zip(&rows[1]).filter_map(|(column, cell)| Some((column.clone(), cell.parse().ok()?))).collect()
}

/// What `rqlab sample` says of a text.
fn sample(lab: &Lab, text: &str) -> Said {
    let mut command = lab.command("sample one.ron --count 2 -o a.png --text").unwrap();
    Said::from(command.arg(text).output().unwrap())
}

#[test]
fn samples_are_drawn_for_captions_and_asked_whether_they_obey() {
    let lab = lab("condition: text, text_length: 6, condition_dropout: 0.1", "guidance: 2.0");
    let row = numbers(&lab);
    for share in ["caption_accuracy", "real_caption_accuracy", "shuffled_caption_accuracy", "attribute_accuracy"] {
        assert!((0.0..=1.0).contains(&row[share]), "{share}: {row:?}");
    }
    assert!(
        row["real_caption_bits"] > row["shuffled_caption_bits"] - 1.0 && row["caption_bits"].is_finite(),
        "{row:?}"
    );
    assert_eq!((row["missing_captions"], row["unknown_captions"]), (0.0, 0.0));
    // Six tokens are fewer than the seven or eight words of a caption.
    assert!(row["cut_captions"] > 0.5 && row["caption_tokens"] > 6.0, "{row:?}");
    let page = lab.read("o/measured/index.html").unwrap();
    assert!(
        page.contains(" colours") && page.contains("caption that it was drawn for"),
        "captions stand under samples"
    );

    let drawn = sample(&lab, "small zebras");
    assert_eq!(drawn.code, Some(0), "{}", drawn.err);
    assert!(drawn.err.contains("no training caption has the words `zebras`"), "{}", drawn.err);
    let long = "large plain shards in autumn colours and nothing else besides them";
    let drawn = sample(&lab, long);
    assert!(drawn.err.contains("are cut"), "{}", drawn.err);
    assert_eq!(sample(&lab, "").code, Some(0));
    let refused = lab.run("sample one.ron --count 2 -o d.png --class 1").unwrap();
    assert!(refused.code != Some(0) && refused.err.contains("--text"), "{}", refused.err);
}

#[test]
fn guidance_is_tuned_on_one_half_and_measured_on_the_other() {
    let lab = lab("condition_dropout: 0.1", "tune_guidance: [1.0, 1.5, 3.0]");
    let row = numbers(&lab);
    let tried = [1.0, 1.5, 3.0].map(|scale| (row[&format!("tuning_frechet_g{scale}")], scale));
    let best = tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert_eq!(row["tuned_guidance"], best.1, "{row:?}");
    assert!(row["sample_frechet"].is_finite() && !row.contains_key("guidance"), "{row:?}");
    let page = lab.read("o/measured/index.html").unwrap();
    assert!(page.contains("Guidance tuned"), "the page shows what was tried");
    assert!(page.contains("the best guidance of 1, 1.5, 3"), "and in the table of settings");
    let refused = sample(&lab, "tiles");
    assert!(refused.code != Some(0) && refused.err.contains("condition: text"), "{}", refused.err);
    assert_eq!(lab.run("sample one.ron --count 2 -o b.png").unwrap().code, Some(0));
}
