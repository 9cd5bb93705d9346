//! Plans of priors that are told captions, and of guidance that is tuned.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Lab, check, experiment, plan_of, plan_with};
use rqlab::id::Id;
use rqlab::plan::Plan;

fn ids(plan: &Plan, stage: &str) -> Vec<Id> {
    plan.jobs.iter().filter(|job| job.stage.name() == stage).map(|job| job.id.clone()).collect()
}

const TEXT: &str = "data: grey(uncaptioned: 0), prior: guess, prior_training: (condition: text),";

/// The complaint about lines beside a prior.
#[track_caller]
fn refused(lines: &str, words: &[&str]) {
    let lab = Lab::new();
    let path = lab.write("x.ron", experiment(lines));
    let complaint = lab.complaints(&path, &[]);
    assert!(complaint.starts_with("error") && words.iter().all(|word| complaint.contains(word)), "{complaint}");
}

#[test]
fn captions_are_read_by_priors_that_are_told_them_alone() {
    let plan = plan_of(TEXT);
    assert_eq!(ids(&plan, "captions").len(), 1);
    assert!(ids(&plan_of("prior: guess,"), "captions").is_empty());
    // What captions name is not listed by this data set.
    assert!(ids(&plan, "attributes").is_empty());
    assert!(plan.left_out.iter().any(|reason| reason.contains("obey")), "{:?}", plan.left_out);
}

#[test]
fn settings_of_captions_train_priors_again_only_where_they_are_told() {
    let changed =
        |lines: &str, set: &str, stage: &str| ids(&plan_of(lines), stage) != ids(&plan_with(lines, &[set]), stage);
    for set in ["prior_training.text_length=8", "prior_training.text_vocabulary=300"] {
        assert!(changed(TEXT, set, "captions") && changed(TEXT, set, "prior"), "{set}");
        assert!(!changed(TEXT, set, "tokenizer") && !changed(TEXT, set, "tokens"), "{set}");
        assert!(!changed("prior: guess,", set, "prior"), "{set}");
    }
    assert!(changed("prior: guess,", "prior_training.condition=none", "prior"));
}

#[test]
fn a_data_set_without_captions_is_named_and_the_remedy() {
    check(
        "    prior: guess,\n    prior_training: (condition: text),",
        "
        error: `condition` of `prior_training`: the images of `grey` have no captions that a prior could be told: take a data set that has some, such as `dead_leaves`
         --> x.ron:6:33
          |
        6 |     prior_training: (condition: text),
          |                                 ^^^^
        ",
    );
}

#[test]
fn missing_captions_are_refused_where_they_must_not_be() {
    let missing = "data: grey(uncaptioned: 3), prior: guess,";
    refused(
        &format!("{missing} prior_training: (condition: text, missing_captions: refuse),"),
        &["3 training and 0 test images have no caption", "missing_captions: allow"],
    );
    plan_of(&format!("{missing} prior_training: (condition: text),"));
    // The null condition is then known, and can be guided by.
    plan_of(&format!("{missing} prior_training: (condition: text), evaluation: (guidance: 2.0),"));
    refused(&format!("{TEXT} evaluation: (guidance: 2.0),"), &["condition_dropout: 0.1"]);
}

#[test]
fn a_tokenizer_that_is_none_is_named() {
    let lab = Lab::new();
    lab.write("tokenizer.json", "{}");
    for (file, words) in [("tokenizer.json", "no tokenizer.json"), ("none.json", "none.json")] {
        let lines = format!(
            "data: grey(uncaptioned: 0), prior: guess, prior_training: (condition: text, text_tokenizer: \"{file}\"),"
        );
        let path = lab.write("x.ron", experiment(&lines));
        let complaint = lab.complaints(&path, &[]);
        assert!(complaint.contains(words) && complaint.contains("text_tokenizer"), "{complaint}");
    }
}

#[test]
fn an_unconditional_prior_is_not_guided() {
    refused(
        "prior: guess, prior_training: (condition: none, condition_dropout: 0.1), evaluation: (guidance: 2.0),",
        &["as `prior_training` has it", "nothing to guide it by"],
    );
}

const GUIDED: &str = "prior: guess, prior_training: (condition_dropout: 0.1),";

#[test]
fn tuning_guidance_trains_nothing() {
    let plan = |more: &str| plan_of(&format!("{GUIDED} {more}"));
    let (plain, tuned) = (plan(""), plan("evaluation: (tune_guidance: [1.0, 2.0]),"));
    for stage in ["tokenizer", "prior", "reconstruction", "classifier", "reference"] {
        assert_eq!(ids(&plain, stage), ids(&tuned, stage), "{stage}");
    }
    assert_ne!(ids(&plain, "generation"), ids(&tuned, "generation"));
}

#[test]
fn a_choice_of_guidance_that_is_none_is_refused() {
    let refused = |evaluation: &str, words: &[&str]| refused(&format!("{GUIDED} evaluation: ({evaluation}),"), words);
    refused("tune_guidance: [2.0]", &["nothing to choose from", "`guidance: 2`"]);
    refused("tune_guidance: [1.0, 2.0, 1.0]", &["stands here twice"]);
    refused("tune_guidance: [1.0, 2.0], guidance: 3.0", &["`guidance: 3`", "leave that out"]);
    refused("tune_guidance: [1.0, -1.0]", &["tune_guidance"]);
    let lines = "data: grey(test: 4), prior: guess, prior_training: (condition_dropout: 0.1),";
    plan_of(&format!("{lines} evaluation: (tune_guidance: [1.0, 2.0]),"));
}

#[test]
fn tuning_needs_images_and_the_null_condition() {
    let tuned = "evaluation: (tune_guidance: [1.0, 2.0]),";
    let lines = "data: grey(test: 3), prior: guess, prior_training: (condition_dropout: 0.1),";
    refused(&format!("{lines} {tuned}"), &["too few", "raise `images`"]);
    refused(&format!("prior: guess, {tuned}"), &["condition_dropout: 0.1"]);
}
