//! What experiments become: trials and jobs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Lab, experiment, listed, plan_of, plan_with, plugins};
use rqlab::id::Id;
use rqlab::plan::estimate::History;
use rqlab::plan::{Plan, codebooks};
use rqlab::store::{Done, Store};
use std::collections::{BTreeSet, HashSet};
use std::fs;

#[track_caller]
fn check(more: &str, expect: &[&str]) -> Plan {
    let plan = plan_of(more);
    assert_eq!(listed(&plan), expect);
    plan
}

#[test]
fn without_axes_there_is_one_trial() {
    let plan = check("", &["seed=0"]);
    assert_eq!(stages(&plan), ["classifier", "reference", "tokenizer", "reconstruction"]);
}

#[test]
fn a_grid_has_every_combination_with_the_last_axis_fastest() {
    check(
        r#"axes: { "quantizer.depth": [1, 2], "quantizer.codebook": [64, 256] }, seeds: [3, 5]"#,
        &[
            "depth=1 codebook=64 seed=3",
            "depth=1 codebook=64 seed=5",
            "depth=1 codebook=256 seed=3",
            "depth=1 codebook=256 seed=5",
            "depth=2 codebook=64 seed=3",
            "depth=2 codebook=64 seed=5",
            "depth=2 codebook=256 seed=3",
            "depth=2 codebook=256 seed=5",
        ],
    );
}

#[test]
fn a_zip_goes_through_its_axes_together() {
    check(
        r#"sweep: [zip({ "quantizer.depth": [1, 4], "quantizer.codebook": [4_096, 8] })]"#,
        &["depth=1 codebook=4096 seed=0", "depth=4 codebook=8 seed=0"],
    );
}

#[test]
fn cases_are_an_axis_of_their_own() {
    let plan = check(
        r#"sweep: [cases({ "small": { "autoencoder.width": 16 }, "large": { "autoencoder.width": 64, "quantizer.depth": 2 } })]"#,
        &["case=small seed=0", "case=large seed=0"],
    );
    assert_eq!(plan.models[&plan.trials[1].id].autoencoder, 64 * 3);
    assert_eq!(plan.models[&plan.trials[1].id].levels[0].depth(), 2);
}

#[test]
fn blocks_are_united_and_equal_trials_count_once() {
    check(
        r#"sweep: [
            grid({ "quantizer.depth": [1, 2] }),
            zip({ "quantizer.depth": [2, 3], "quantizer.codebook": [256, 8] }),
        ]"#,
        // depth 2 with the default codebook of 256 stands in both.
        &["depth=1 codebook=256 seed=0", "depth=2 codebook=256 seed=0", "depth=3 codebook=8 seed=0"],
    );
}

#[test]
fn whole_components_are_swapped_before_fields_are_set() {
    check(
        r#"axes: { "prior.width": [8, 16], "prior": [None, guess, dream(heads: 2)] }"#,
        &[
            "width=– prior=None seed=0",
            "width=8 prior=guess seed=0",
            "width=8 prior=dream seed=0",
            "width=16 prior=guess seed=0",
            "width=16 prior=dream seed=0",
        ],
    );
    check(
        r#"axes: { "prior": [guess(width: 8), guess(width: 16, heads: 2)] }"#,
        &["prior=guess(width: 8) seed=0", "prior=guess(width: 16, heads: 2) seed=0"],
    );
}

#[test]
fn exclusions_compare_values_not_spellings() {
    check(
        r#"axes: { "quantizer.depth": [1, 2], "quantizer.beta": [0.25, 1] },
           exclude: [{ "quantizer.depth": 2, "quantizer.beta": 25e-2 }, { "quantizer.depth": 1, "quantizer.beta": 1.0 }]"#,
        &["depth=1 beta=0.25 seed=0", "depth=2 beta=1 seed=0"],
    );
}

#[test]
fn settings_can_depend_on_the_axes() {
    let plan = check(
        r#"axes: { "quantizer.depth": [1, 2] },
           when: [(at: { "quantizer.depth": 2 }, set: { "prior": guess(width: 8), "prior_training.steps": 7 })]"#,
        &["depth=1 seed=0", "depth=2 seed=0"],
    );
    assert_eq!(plan.models[&plan.trials[0].id].prior, None);
    assert!(plan.models[&plan.trials[1].id].prior.is_some());
    assert!(plan.trials[1].config().unwrap().contains("steps: 7"));
}

#[test]
fn a_quantizer_that_no_step_trains_is_warned_of() {
    let warned = |training: &str| {
        let plan = plan_of(&format!("tokenizer_training: ({training}),"));
        plan.warnings.iter().any(|warning| warning.message.contains("no step trains the quantizer"))
    };
    assert!(warned("steps: 60, quantize_after: 60") && warned("steps: 0"));
    assert!(!warned("steps: 60, quantize_after: 59") && !warned("steps: 60"));
}

#[test]
fn the_command_line_has_the_last_word() {
    let axes =
        r#"axes: { "quantizer.depth": [1, 2], "quantizer": [deep(codebook: 8), deep(codebook: 16)] }, seeds: [0, 1]"#;
    let plan = plan_with(axes, &["quantizer.depth=3"]);
    let short = |row: &String| row.replace("codebook: ", "");
    assert_eq!(
        listed(&plan).iter().map(short).collect::<Vec<_>>(),
        [
            "depth=3 quantizer=deep(8) seed=0",
            "depth=3 quantizer=deep(8) seed=1",
            "depth=3 quantizer=deep(16) seed=0",
            "depth=3 quantizer=deep(16) seed=1"
        ],
    );
    // A component holds the fields that it names, and no others.
    let axes = r#"axes: { "quantizer.depth": [1, 2], "quantizer.codebook": [8, 16] }"#;
    let plan = plan_with(axes, &["quantizer=deep(depth: 5)"]);
    assert_eq!(listed(&plan), ["depth=5 codebook=8 seed=0", "depth=5 codebook=16 seed=0"]);
    // Text needs no quotes: the shell eats them.
    let plan = plan_with("data: grey(path: \"a\"),", &["data.path=/some where/b"]);
    assert!(plan.trials[0].config().unwrap().contains("path: \"/some where/b\""));
    let lab = Lab::new();
    let path = lab.write("x.ron", experiment("seeds: [0],"));
    assert_eq!(lab.plan(&path, &[], Some(&[4, 2])).unwrap().experiment.seeds, [4, 2]);
}

#[test]
fn a_base_gives_what_the_file_does_not_say() {
    let lab = Lab::new();
    lab.write("base/all.ron", experiment("question: \"Why?\", seeds: [1, 2], axes: { \"quantizer.depth\": [1, 2] },"));
    let path = lab.write("x.ron", "// Short.\n(base: \"base/all.ron\", quantizer: flat(codebook: 4), sweep: [])");
    let plan = lab.plan(&path, &[], None).unwrap();
    assert_eq!(listed(&plan), ["seed=1", "seed=2"]);
    assert_eq!((plan.experiment.question.as_str(), plan.experiment.header.as_str()), ("Why?", "Short."));
    // Relative paths of the data start where the data are named.
    assert_eq!(plan.jobs[0].base, fs::canonicalize(lab.0.path().join("base")).unwrap().into());
}

#[test]
fn jobs_are_shared_and_stand_after_what_they_need() {
    let plan = plan_of(r#"prior: guess, axes: { "prior.width": [8, 16], "quantizer.depth": [1, 2] }, seeds: [0, 1]"#);
    let count = |name: &str| plan.jobs.iter().filter(|job| job.stage.name() == name).count();
    // Two widths of the prior stand on one tokenizer; classifier and reference depend on the data alone.
    assert_eq!(
        ["classifier", "reference", "tokenizer", "tokens", "prior", "reconstruction", "generation"].map(count),
        [1, 1, 4, 4, 8, 4, 8]
    );
    assert_eq!(plan.trials.len(), 8);
    let mut known = HashSet::new();
    for job in &plan.jobs {
        assert!(job.stage.needs().iter().all(|id| known.contains(*id)), "{} comes too early", job.stage.name());
        assert!(known.insert(job.id.as_str()), "{} comes twice", job.stage.name());
    }
    for trial in &plan.trials {
        assert!(trial.jobs.iter().all(|id| known.contains(id.as_str())));
    }
}

#[test]
fn an_id_is_of_what_determines_the_result() {
    let ids = |more: &str| -> BTreeSet<Id> { plan_of(more).jobs.into_iter().map(|job| job.id).collect() };
    let plain = ids("prior: guess(width: 8),");
    // Spelling out a default, another order, a comment, a question: nothing changes.
    assert_eq!(ids("prior: guess(heads: 4, /* small */ width: 8), question: \"?\", quantizer: deep(depth: 4),"), plain);
    // More samples measure the prior again, and nothing else.
    assert_eq!(ids("prior: guess(width: 8), evaluation: (samples: 77),").difference(&plain).count(), 1);
    // Another prior is trained and measured on the same codes.
    assert_eq!(ids("prior: guess(width: 16),").difference(&plain).count(), 2);
    // Another seed shares the classifier and what it describes of test and training images alone.
    assert_eq!(ids("prior: guess(width: 8), seeds: [1],").intersection(&plain).count(), 3);
    assert_eq!(ids("prior: guess(width: 8), data: grey(size: 32),").intersection(&plain).count(), 0);
}

#[test]
fn a_rebuilt_plugin_makes_new_results() {
    let lab = Lab::new();
    let path = lab.write("x.ron", experiment(""));
    let (document, _) = rqlab::experiment::read(&path, &[], None).unwrap();
    let ids = |digest: &str| rqlab::plan::plan(&document, &plugins(digest)).unwrap().trials[0].id.clone();
    assert_eq!(ids("a"), ids("a"));
    assert_ne!(ids("a"), ids("b"));
}

#[test]
fn data_without_classes_have_no_classifier() {
    assert_eq!(stages(&plan_of("data: grey(classes: 0),")), ["tokenizer", "reconstruction"]);
}

#[test]
fn a_trial_written_out_is_the_same_trial() {
    let plan =
        plan_of(r#"question: "A \"quoted\" one?", prior: guess, axes: { "quantizer.depth": [1, 2] }, seeds: [7]"#);
    let lab = Lab::new();
    for trial in &plan.trials {
        let path = lab.write("one.ron", trial.config().unwrap());
        let again = lab.plan(&path, &[], None).unwrap_or_else(|invalid| panic!("{invalid}"));
        assert_eq!(again.trials.len(), 1);
        assert_eq!(again.trials[0].id, trial.id);
    }
}

#[test]
fn models_of_any_size_are_counted_without_memory() {
    let plan = plan_of("prior: guess(width: 64),");
    let model = &plan.models[&plan.trials[0].id];
    assert_eq!(model.prior, Some(1 << 46));
    assert_eq!((model.autoencoder, model.quantizer), (8 * 3, 256 * 8));
    assert_eq!(model.nominal_bits(), Some(4.0 * 4.0 * 4.0 * 8.0));
}

#[test]
fn memory_is_told_from_shapes_and_refused_where_no_machine_has_it() {
    let memory = |more: &str| {
        let plan = plan_of(more);
        plan.models[&plan.trials[0].id].memory.bytes(1)
    };
    let (one, two) = (memory("tokenizer_training: (batch: 1),"), memory("tokenizer_training: (batch: 2),"));
    let plan = plan_of("");
    let image: usize = plan.data()[0].info.image.iter().product();
    let level = &plan.models[&plan.trials[0].id].levels[0];
    let latents = level.height * level.width * level.channels;
    assert_eq!(two - one, 4.0 * 2.0 * (image + latents) as f64);
    // Pictures that are sampled to time that, of trials with a prior.
    let of_speed = memory("prior: guess, evaluation: (speed: [65536, 1]),");
    assert!(of_speed >= 4.0 * 65_536.0 * (image + latents) as f64, "{of_speed}");
    assert!(memory("evaluation: (speed: [65536]),") < of_speed);
    // Value, gradient, two moments; an average is another number.
    let averaged = memory("tokenizer_training: (batch: 1, ema_decay: Some(0.9)),");
    assert_eq!(averaged - one, 4.0 * 24.0);
    // Logits of a step come on top, which are few.
    let large = memory("prior: guess(width: 64),") - 16.0 * (1_u64 << 46) as f64;
    assert!((0.0..1e8).contains(&large), "{large}");
    let lab = Lab::new();
    let said = lab.complaints(&lab.write("x.ron", experiment("prior: guess(width: 4096),")), &[]);
    assert!(said.contains("which no machine has") && said.contains("--> x.ron:"), "{said}");
}

#[test]
fn jobs_are_named_by_their_trials() {
    let plan = plan_of(r#"axes: { "tokenizer_training.steps": [100, 400] }, seeds: [3]"#);
    let owners = plan.owners();
    let of = |name: &str| {
        let jobs = plan.jobs.iter().filter(|job| job.stage.name() == name);
        jobs.map(|job| owners[&job.id].as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of("tokenizer"), ["steps=100 seed 3", "steps=400 seed 3"]);
    assert_eq!(of("classifier"), ["2 trials"]);
}

#[test]
fn comparisons_use_the_words_of_the_axes() {
    let plan = plan_of(
        r#"prior: guess, axes: { "quantizer.depth": [1, 2], "prior": [guess, dream] },
           report: (headline: "ssim", compare: [(along: "prior", from: guess, to: dream, at: { "quantizer.depth": 2 })])"#,
    );
    let comparison = &plan.experiment.comparisons[0];
    assert_eq!(
        (comparison.metric.as_str(), comparison.from.as_str(), comparison.to.as_str()),
        ("ssim", "guess", "dream")
    );
    assert_eq!(comparison.at["quantizer.depth"], "2");
}

#[test]
fn what_is_judged_by_default_is_what_the_axes_can_change() {
    let headline = |more: &str| plan_of(more).experiment.headline;
    assert_eq!(headline("prior: guess,"), "psnr");
    assert_eq!(headline(r#"prior: guess, axes: { "prior": [guess, dream] }"#), "sample_frechet");
    let guided = r#"prior: guess, axes: { "prior_training.steps": [1, 2], "evaluation.temperature": [0.5, 1.0] }"#;
    assert_eq!(headline(guided), "sample_frechet");
    assert_eq!(headline(r#"prior: guess, axes: { "prior": [guess, dream], "quantizer.depth": [1, 2] }"#), "psnr");
    assert_eq!(headline(r#"prior: guess, axes: { "evaluation.images": [8, 16] }"#), "psnr");
    // Where tokenizers and priors vary, both are judged, unless the file says what is.
    let also = |more: &str| plan_of(more).experiment.judged_also;
    let both = r#"prior: guess, axes: { "prior": [guess, dream], "quantizer.depth": [1, 2] }"#;
    assert_eq!(also(both), ["sample_frechet"]);
    assert_eq!(also(&format!(r#"{both}, report: (headline: "psnr")"#)), [""; 0]);
    assert_eq!(also(r#"prior: guess, axes: { "prior": [guess, dream] }"#), [""; 0]);
    assert_eq!(also(r#"prior: guess, axes: { "quantizer.depth": [1, 2] }"#), [""; 0]);
    // No prior draws anything.
    assert_eq!(headline(r#"axes: { "prior_training.steps": [1, 2] }"#), "psnr");
    let named = r#"prior: guess, axes: { "prior": [guess, dream] }, report: (headline: "ssim")"#;
    assert_eq!(headline(named), "ssim");
}

#[test]
fn time_is_foretold_from_what_was_done_before() {
    let plan = plan_of(r#"axes: { "tokenizer_training.steps": [100, 400] }"#);
    let tokenizers: Vec<_> = plan.jobs.iter().filter(|job| job.stage.name() == "tokenizer").collect();
    let runs = tempfile::tempdir().unwrap();
    let stage = Store::open(runs.path()).unwrap().stage(&tokenizers[0].id);
    stage.prepare(tokenizers[0]).unwrap();
    fs::write(stage.result(), "weights").unwrap();
    assert!(!History::read(runs.path()).is_done(tokenizers[0]));
    stage.finish(Done { seconds: 30.0, ..Done::default() }).unwrap();
    let history = History::read(runs.path());
    let forecast = history.forecast(&plan);
    assert!(history.is_done(tokenizers[0]));
    // Four times the steps take four times as long; of the other stages nothing is known.
    assert_eq!(forecast.seconds(tokenizers[1]), Some(120.0));
    let estimate = forecast.estimate(&plan.jobs);
    assert_eq!((estimate.seconds, estimate.unknown), (120.0, plan.jobs.len() - 2));
}

fn stages(plan: &Plan) -> Vec<&'static str> {
    plan.jobs.iter().map(|job| job.stage.name()).collect()
}

#[test]
fn every_published_protocol_is_a_stage_of_its_own() {
    let plan = plan_of("evaluation: (protocols: [llamagen, lab, rqvae, llamagen], missing_weights: leave_out)");
    let found = stages(&plan);
    assert_eq!(found[3..], ["reconstruction", "protocol", "protocol"], "{found:?}");
    let warned: Vec<String> = plan.warnings.iter().map(|warning| warning.render(false)).collect();
    assert!(warned[0].contains("left out of the protocols llamagen, rqvae"), "{warned:?}");
    // What a protocol looks with is no part of the lab's own measures.
    let lab = plan_of("");
    assert!(lab.jobs.iter().all(|job| plan.jobs.iter().any(|other| other.id == job.id)));
}

/// Of a codebook that all depths share, each depth's tokens count.
#[test]
fn a_codebook_that_a_batch_cannot_fill_is_told_with_its_sizes() {
    let said = |codes: usize| {
        let more = format!("quantizer: deep(depth: 2, codebook: {codes}), tokenizer_training: (batch: 3)");
        let plan = plan_of(&more);
        let positions = plan.models.values().next().unwrap().levels[0].positions();
        (codebooks::of_trials(&plan), 3 * 2 * positions)
    };
    let (none, tokens) = said(2);
    assert!(none.is_empty());
    assert!(said(tokens).0.is_empty());
    let (sentences, _) = said(2 * tokens);
    assert_eq!(sentences.len(), 1);
    for part in ["a batch of 3 images", "50% at most", "`tokenizer_training.batch`"] {
        assert!(sentences[0].contains(part), "{part}: {sentences:?}");
    }
}
