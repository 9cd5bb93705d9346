//! What the ids of stages hold, and what they do not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Lab, experiment, plan_with, plugins};
use rqlab::id::Id;
use rqlab::identity;
use rqlab::job::{Call, Called};
use rqlab::plan::{self, Plan};
use rqlab::settings::{Precision, TokenizerTraining};
use rqlab::stages::{Context, Stage, TrainTokenizer};
use rqlab::store::{Done, StageDir};
use rqlab::weights::WeightsFile;
use rqlab_sdk::Result;
use rqlab_sdk::config::Config;
use serde_json::Value;
use std::collections::BTreeMap;

/// The ids of the stages of that name.
fn ids(plan: &Plan, stage: &str) -> Vec<Id> {
    plan.jobs.iter().filter(|job| job.stage.name() == stage).map(|job| job.id.clone()).collect()
}

const PRIOR: &str = "prior: guess,";

#[track_caller]
fn changes(stage: &str, set: &str, expect: bool) {
    let (before, after) = (plan_with(PRIOR, &[]), plan_with(PRIOR, &[set]));
    let (before, after) = (ids(&before, stage), ids(&after, stage));
    assert!(!before.is_empty());
    assert_eq!(before != after, expect, "whether `--set {set}` changes the id of {stage}");
}

#[test]
fn what_determines_a_result_is_in_its_name() {
    changes("tokenizer", "quantizer.depth=2", true);
    changes("tokenizer", "tokenizer_training.lr=2e-3", true);
    changes("tokenizer", "tokenizer_training.precision=bf16", true);
    changes("prior", "prior_training.precision=f32", true);
    changes("prior", "prior_training.condition_dropout=0.1", true);
    changes("generation", "evaluation.temperature=0.5", true);
    changes("reconstruction", "evaluation.images=7", true);
    changes("classifier", "evaluation.classifier_steps=7", true);
}

#[test]
fn what_determines_no_result_is_not() {
    for stage in ["classifier", "reference", "tokenizer", "tokens", "prior", "reconstruction", "generation"] {
        changes(stage, "tokenizer_training.checkpoint=7", false);
        changes(stage, "prior_training.checkpoint=7", false);
    }
}

#[test]
fn sampling_settings_retrain_nothing() {
    for set in ["evaluation.temperature=0.5", "evaluation.samples=7", "evaluation.top_k=3"] {
        changes("prior", set, false);
        changes("tokenizer", set, false);
        changes("reconstruction", set, false);
    }
}

#[test]
fn guidance_is_sampling_alone() {
    let dropout = "prior_training.condition_dropout=0.1";
    let plan = |set: &[&str]| plan_with(PRIOR, set);
    let (before, after) = (plan(&[dropout]), plan(&[dropout, "evaluation.guidance=2.0"]));
    assert_eq!(ids(&before, "prior"), ids(&after, "prior"));
    assert_ne!(ids(&before, "generation"), ids(&after, "generation"));
}

#[test]
fn data_that_have_moved_are_the_same_data() {
    changes("tokenizer", "data.path=\"elsewhere\"", false);
    changes("tokenizer", "data.cache_mib=7", false);
    changes("tokenizer", "data.size=32", true);
}

#[test]
fn another_plugin_makes_other_results() {
    let lab = Lab::new();
    let path = lab.write("x.ron", experiment(PRIOR));
    let of = |digest: &str| {
        let (document, _) = rqlab::experiment::read(&path, &[], None).unwrap_or_else(|wrong| panic!("{wrong}"));
        plan::plan(&document, &plugins(digest)).unwrap_or_else(|wrong| panic!("{wrong}"))
    };
    let (a, b) = (of("a"), of("b"));
    for stage in ["classifier", "tokenizer", "tokens", "prior", "reconstruction", "generation"] {
        assert_ne!(ids(&a, stage), ids(&b, stage), "{stage}");
    }
}

fn call(name: &str) -> Call {
    let config = "()".to_owned();
    let plugins = BTreeMap::from([(format!("quantizer {name}"), "digest".to_owned())]);
    Called { name: name.to_owned(), trained: config.clone(), sampled: config.clone(), config, plugins }.into()
}

fn tokenizer() -> TrainTokenizer {
    TrainTokenizer {
        data: call("data"),
        autoencoder: call("autoencoder"),
        quantizers: vec![call("quantizer")],
        objectives: vec![call("mse")],
        classifier: None,
        training: TokenizerTraining::parse("()").unwrap(),
        from: None,
        seed: 0,
    }
}

/// The same stage of a later revision.
#[derive(Debug)]
struct Revised(TrainTokenizer);

impl Stage for Revised {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn revision(&self) -> u32 {
        self.0.revision() + 1
    }
    fn needs(&self) -> Vec<&str> {
        self.0.needs()
    }
    fn calls(&self) -> Vec<&Call> {
        self.0.calls()
    }
    fn identity(&self) -> Result<Value> {
        self.0.identity()
    }
    fn precision(&self) -> Precision {
        self.0.precision()
    }
    fn work(&self) -> f64 {
        self.0.work()
    }
    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        self.0.run(cx)
    }
    fn report(&self, dir: &StageDir, classes: &[String], out: &mut rqlab_reports::Trial) -> Result<()> {
        self.0.report(dir, classes, out)
    }
    fn describe(&self) -> Result<Value> {
        self.0.describe()
    }
}

#[test]
fn a_stages_revision_the_data_and_each_plugin_are_in_its_name() {
    let id = |stage: &dyn Stage, data: &str| identity::of_stage(stage, data).unwrap();
    let plain = id(&tokenizer(), "pixels");
    assert_eq!(plain, id(&tokenizer(), "pixels"));
    assert_ne!(plain, id(&Revised(tokenizer()), "pixels"));
    assert_ne!(plain, id(&tokenizer(), "other pixels"));
    let mut nested = tokenizer();
    let mut holder = Called::clone(&nested.quantizers[0]);
    holder.plugins.insert("quantizer inner".to_owned(), "digest".to_owned());
    nested.quantizers[0] = holder.into();
    assert_ne!(plain, id(&nested, "pixels"));
    let from = |path: &str, digest: &str| {
        let from = Some(WeightsFile { path: path.into(), digest: digest.to_owned() });
        id(&TrainTokenizer { from, ..tokenizer() }, "pixels")
    };
    assert_ne!(plain, from("a", "1"));
    assert_ne!(from("a", "1"), from("a", "2"));
    assert_eq!(from("a", "1"), from("b", "1"));
    let mut moved = tokenizer();
    moved.data = Called { config: "(path: \"elsewhere\")".to_owned(), ..Called::clone(&moved.data) }.into();
    assert_eq!(plain, id(&moved, "pixels"));
}
