//! What the contracts make possible, by components of a plugin outside the workspace that knows the public contracts alone: an
//! autoencoder of two levels with a quantizer and a prior each, codes or vectors; an objective with a critic; a quantizer that
//! holds another; guidance.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, Said, csv};
use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;

/// The toys of the test kit as a plugin, and a prior of codes that reads the codes of the level above.
const PLUGIN: &str = r#"//! Toys.

use rqlab_sdk::nn::{CodeSteps, ConditionEmbedding, sample_codes};
use rqlab_sdk::nn::transformer::WeightInit;
use rqlab_sdk::prelude::*;
use rqlab_sdk::testing::toys::*;

config! {
    /// The frequencies of codes, given the class and the first code of the level above at the same place.
    pub struct BelowConfig {}
}

/// See [`BelowConfig`].
pub struct Below {
    level: LevelInfo,
    above: LevelInfo,
    condition: ConditionEmbedding,
    table: Var,
}

impl Below {
    /// Builds it.
    ///
    /// # Errors
    /// Without a level of codes above.
    pub fn new(_: BelowConfig, cx: &PriorContext) -> Result<Self> {
        let level = cx.own()?.clone();
        let Some(above) = cx.above().last().cloned() else {
            return Err(Error::Unsupported("it needs a level above".to_owned()));
        };
        let (codes, given) = (level.codes()?.sizes[0], above.codes()?.sizes[0]);
        let scope = cx.params.scope("condition");
        let condition = ConditionEmbedding::new(&scope, cx.condition, cx.null_condition, codes, WeightInit::Gpt)?;
        let table = cx.params.parameter("table", &[given, codes], Init::ZEROS)?;
        Ok(Self { level, above, condition, table })
    }

    /// Logits `[B, T, K]`.
    fn logits(&self, condition: &Condition, above: &[Tokens]) -> Result<Tensor> {
        let Some(above) = above.last() else {
            return Err(Error::Unsupported("no tokens above".to_owned()));
        };
        let images = condition.images();
        let first = above.codes()?.column(0)?;
        let mut places = Vec::new();
        for image in 0..images {
            for y in 0..self.level.height {
                for x in 0..self.level.width {
                    let (row, column) = (y * self.above.height / self.level.height, x * self.above.width / self.level.width);
                    places.push(first.as_slice()[(image * self.above.height + row) * self.above.width + column]);
                }
            }
        }
        let places = Codes::from_vec(places, &[images, self.level.positions()])?;
        Ok(self.table.get().embedding(&places)?.add(&self.condition.forward(condition)?)?)
    }

    fn nats(&self, batch: &TokenBatch) -> Result<Tensor> {
        let codes = batch.tokens.codes()?.reshape(&[batch.tokens.images(), self.level.positions()])?;
        Ok(self.logits(&batch.condition, &batch.above)?.cross_entropy(&codes)?)
    }
}

impl CodeSteps for Below {
    type State = (Tensor, usize);

    fn level(&self) -> &LevelInfo {
        &self.level
    }

    fn condition(&self) -> ConditionSpace {
        self.condition.space()
    }

    fn begin(&self, condition: &Condition, above: &[Tokens], _: bool) -> Result<Self::State> {
        Ok((self.logits(condition, above)?, 0))
    }

    fn next(&self, (logits, n): &mut Self::State, _: Option<&Codes>) -> Result<Tensor> {
        *n += 1;
        Ok(logits.slice(1, *n - 1..*n)?)
    }
}

impl Prior for Below {
    fn loss(&self, batch: &TokenBatch, _: &Mode) -> Result<PriorLoss> {
        Ok(PriorLoss { loss: self.nats(batch)?.mean_all()?, terms: vec![] })
    }

    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>> {
        Ok(Some(self.nats(batch)?.sum(&[1], false)?.reshape(&[batch.tokens.images(), 1])?))
    }

    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Tokens> {
        sample_codes(self, request, rng)
    }
}

declare_plugin! {
    autoencoder "two_levels": ToyTwoLevelsConfig => ToyTwoLevels::new;
    quantizer "noise": ToyNoiseConfig => ToyNoise::new;
    quantizer "scaled": ToyScaledConfig => ToyScaled::new;
    prior "gaussian": ToyGaussianConfig => ToyGaussian::new;
    prior "below": BelowConfig => Below::new;
    objective "critic": ToyCriticConfig => ToyCritic::new;
}
"#;

/// A folder with the plugin, built once for all tests.
static TOYS: LazyLock<Lab> = LazyLock::new(|| {
    let lab = Lab::new().unwrap();
    ok(&lab, "plugins new toys --kind quantizer");
    lab.write("toys/src/lib.rs", PLUGIN).unwrap();
    ok(&lab, "plugins build toys --out plugins");
    lab
});

fn ok(lab: &Lab, arguments: &str) -> Said {
    let mut command = lab.command(arguments).unwrap();
    // The plugin must not land beside this build's own.
    let said = Said::from(command.env_remove("CARGO_TARGET_DIR").output().unwrap());
    assert_eq!(said.code, Some(0), "rqlab {arguments}\n{}\n{}", said.out, said.err);
    said
}

/// Arguments of a command on the experiment `name`, with the toys.
fn with_toys(command: &str, name: &str) -> String {
    format!("--plugins plugins {command} {name}.ron --runs {name}-runs --out {name}-out")
}

/// Writes an experiment on tiny images, with these lines.
fn write(name: &str, lines: &str) {
    let text = format!(
        "(\n    question: \"Is the wall open?\",\n    data: dead_leaves(size: 16, train: 64, test: 32, classes: 4),\n{lines}
    tokenizer_training: (steps: 20, batch: 4, lr: 1e-3, warmup: 2, checkpoint: 2, log: 2),
    prior_training: (steps: 10, batch: 4, lr: 1e-3, warmup: 2, images: 16, checkpoint: 2, log: 2, condition_dropout: 0.2),
    evaluation: (images: 16, samples: 10, speed: [], pictures: 2, classifier_steps: 5),\n)\n"
    );
    TOYS.write(&format!("{name}.ron"), text).unwrap();
}

/// Sweeps an experiment, and returns the row of its only trial by columns.
fn sweep(name: &str, lines: &str) -> BTreeMap<String, String> {
    write(name, lines);
    ok(&TOYS, &with_toys("sweep", name));
    only_row(name, name)
}

/// The one row of a report of an experiment's.
fn only_row(name: &str, report: &str) -> BTreeMap<String, String> {
    let rows = csv(&TOYS.read(&format!("{name}-out/{report}/results.csv")).unwrap());
    assert_eq!(rows.len(), 2, "{rows:?}");
    rows[0].iter().cloned().zip(rows[1].iter().cloned()).filter(|(_, value)| !value.is_empty()).collect()
}

fn number(row: &BTreeMap<String, String>, column: &str) -> f64 {
    row.get(column).unwrap_or_else(|| panic!("no {column} among {:?}", row.keys())).parse().unwrap()
}

#[test]
fn two_levels_of_codes_have_a_quantizer_and_a_prior_each() {
    let row = sweep(
        "levels",
        "    autoencoder: two_levels(channels: 4),
    quantizer: [rq(depth: 2, codebook: 8), vq(codebook: 16)],
    prior: [ar(width: 16, heads: 2, layers: 1), below()],",
    );
    // 4x4 positions of two codes of 3 bits, 8x8 of one of 4 bits.
    assert_eq!(number(&row, "bits_per_image"), 16.0 * 6.0 + 64.0 * 4.0);
    for column in ["level1_usage_1", "level1_usage_2", "level2_usage_1", "level1_prior_bits_2", "level2_prior_bits_1"] {
        assert!(number(&row, column).is_finite());
    }
    let parts = ["level1_prior_bits_1", "level1_prior_bits_2", "level2_prior_bits_1"].map(|part| number(&row, part));
    assert!((parts.iter().sum::<f64>() - number(&row, "prior_bits_per_image")).abs() < 1e-6);
    let page = TOYS.read("levels-out/levels/index.html").unwrap();
    assert!(page.contains("level 2"), "the page tells the levels apart");
    // Guided samples of both levels come from the same priors.
    let stages = || TOYS.stages("levels-runs", "prior").unwrap();
    assert_eq!(stages().len(), 2);
    let before = stages();
    ok(&TOYS, &(with_toys("sweep", "levels") + " --set evaluation.guidance=3.0 --name levels-guided"));
    assert_eq!(stages(), before, "guidance retrains nothing");
    assert_eq!(number(&only_row("levels", "levels-guided"), "guidance"), 3.0);
    ok(&TOYS, "--plugins plugins sample levels.ron --runs levels-runs --guidance 2.0 --count 4 --output levels.png");
}

#[test]
fn a_list_of_another_length_than_the_levels_is_refused_where_it_stands() {
    write(
        "length",
        "    autoencoder: two_levels(channels: 4),
    quantizer: [rq(depth: 2, codebook: 8), vq(codebook: 16), vq(codebook: 4)],",
    );
    let said = TOYS.run("--plugins plugins plan length.ron").unwrap();
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(said.err.contains("3 quantizers") && said.err.contains("2 levels"), "{}", said.err);
    assert!(said.err.contains("length.ron:5:16"), "{}", said.err);
}

#[test]
fn vectors_pass_from_a_continuous_bottleneck_through_a_prior_to_images() {
    let row = sweep(
        "vectors",
        "    autoencoder: two_levels(channels: 4),
    quantizer: [noise(std: 0.2), noise(std: 0.1)],
    prior: gaussian(),",
    );
    assert!(number(&row, "kl_bits_per_image") > 0.0);
    assert!(!row.contains_key("bits_per_image"), "vectors have no nominal bits");
    assert!(!row.contains_key("prior_bits_per_image"), "a density is no number of bits");
    assert!(number(&row, "sample_frechet") > 0.0);
}

#[test]
fn a_quantizer_holds_another_and_paths_reach_inside() {
    write(
        "held",
        "    autoencoder: two_levels(channels: 4),
    quantizer: scaled(of: rq(depth: 1, codebook: 8), scale: 2.0),
    axes: { \"quantizer.of.depth\": [1, 2] },",
    );
    ok(&TOYS, &(with_toys("sweep", "held") + " --set quantizer.of.codebook=4 --name narrow"));
    let rows = csv(&TOYS.read("held-out/narrow/results.csv").unwrap());
    let column = rows[0].iter().position(|name| name == "bits_per_image").unwrap();
    // 4x4 and 8x8 positions of D codes of 2 bits.
    assert_eq!(rows[1..].iter().map(|row| row[column].as_str()).collect::<Vec<_>>(), ["160.0", "320.0"]);
}

#[test]
fn a_critic_is_trained_beside_the_tokenizer_and_a_kill_changes_nothing() {
    let lines = "    autoencoder: two_levels(channels: 4),
    quantizer: rq(depth: 2, codebook: 8),
    objective: [mse(), critic(start: 3)],";
    sweep("critic", lines);
    let stage = |runs: &str| TOYS.stages(runs, "tokenizer").unwrap().remove(0);
    let whole = stage("critic-runs");
    let done: serde_json::Value = serde_json::from_slice(&fs::read(whole.join("done.json")).unwrap()).unwrap();
    let curves = done["curves"].to_string();
    assert!(curves.contains("critic"), "the critic's terms are curves: {curves}");
    // The same again, killed at its first checkpoint and at each later one that is met.
    write("killed", lines);
    let mut kills = 0;
    loop {
        let known = |lab: &Lab| {
            let stages = lab.stages("killed-runs", "tokenizer").ok()?;
            fs::metadata(stages.first()?.join("state.safetensors")).and_then(|about| about.modified()).ok()
        };
        let before = known(&TOYS);
        let arguments = with_toys("sweep", "killed") + " --quiet";
        match TOYS.kill_when(&arguments, |lab| known(lab).is_some_and(|now| Some(now) != before)).unwrap() {
            true => kills += 1,
            false => break,
        }
    }
    assert!(kills > 0, "no checkpoint was seen");
    let again = stage("killed-runs");
    assert_eq!(whole.file_name(), again.file_name());
    assert!(fs::read(whole.join("result.safetensors")).unwrap() == fs::read(again.join("result.safetensors")).unwrap());
    let killed: serde_json::Value = serde_json::from_slice(&fs::read(again.join("done.json")).unwrap()).unwrap();
    assert_eq!((&done["readings"], &done["curves"]), (&killed["readings"], &killed["curves"]));
}
