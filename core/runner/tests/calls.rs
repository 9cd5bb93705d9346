//! Components that hold others, lists of components, and paths that reach inside.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Lab, listed, plan_of, plan_with};
use rqlab::job::Call;
use rqlab::plan::Plan;
use rqlab::stages::TrainTokenizer;

/// The tokenizers' stages, in the order of the trials.
fn tokenizers(plan: &Plan) -> Vec<TrainTokenizer> {
    plan.jobs.iter().filter_map(|job| job.stage.is::<TrainTokenizer>().cloned()).collect()
}

/// The quantizer of the only tokenizer.
fn quantizer(more: &str) -> Call {
    tokenizers(&plan_of(more))[0].quantizers[0].clone()
}

/// The sizes of the codebooks of each trial's only level.
fn sizes(plan: &Plan) -> Vec<Vec<usize>> {
    plan.trials.iter().map(|trial| plan.models[&trial.id].levels[0].sizes().to_vec()).collect()
}

#[test]
fn a_component_is_built_with_those_that_it_holds() {
    assert_eq!(sizes(&plan_of("quantizer: residual(of: flat(codebook: 8), depth: 3)")), [[8, 8, 8]]);
    assert_eq!(
        sizes(&plan_of(
            "quantizer: product(parts: [flat(codebook: 4), deep(depth: 2, codebook: 8)], after: flat(codebook: 2))"
        )),
        [[4, 8, 8, 2]]
    );
    assert_eq!(
        sizes(&plan_of("quantizer: product(parts: [deep(depth: 1)], after: Some(flat(codebook: 2)))")),
        [[256, 2]]
    );
    // A default holds components, too.
    assert_eq!(sizes(&plan_of("quantizer: residual(of: product, depth: 1)")), [[16, 256, 256, 256, 256]]);
}

#[test]
fn what_is_held_is_resolved_with_its_defaults() {
    let call = quantizer("quantizer: residual(of: residual(of: deep, depth: 1))");
    assert_eq!(
        call.config,
        "(of:residual(of:deep(depth:4,codebook:256,shared:true,beta:0.25),depth:1,check:100,rounds:1),\
         depth:2,check:100,rounds:1)"
    );
    assert_eq!(call.plugins.keys().collect::<Vec<_>>(), ["quantizer deep", "quantizer residual"]);
}

#[test]
fn marks_count_at_every_depth() {
    let call = quantizer("quantizer: residual(of: residual(of: flat(codebook: 8)), check: 7)");
    assert_eq!(call.trained, "(of:residual(of:flat(codebook:8),depth:2),depth:2)");
    assert_eq!(call.sampled, "(of:residual(of:flat(codebook:8),depth:2,rounds:1),depth:2,rounds:1)");
    let ids = |more: &str| plan_of(more).trials[0].id.clone();
    let plain = ids("quantizer: residual(of: residual(of: flat(codebook: 8)))");
    assert_eq!(ids("quantizer: residual(of: residual(of: flat(codebook: 8), check: 7))"), plain);
    assert_ne!(ids("quantizer: residual(of: residual(of: flat(codebook: 9)))"), plain);
}

#[test]
fn axes_reach_into_fields() {
    let plan = plan_of(
        r#"quantizer: residual(of: flat(codebook: 8)),
           axes: { "quantizer.of.codebook": [4, 16], "quantizer.depth": [1, 2] }"#,
    );
    assert_eq!(sizes(&plan), [vec![4], vec![4, 4], vec![16], vec![16, 16]]);
    // What holds others is put in place before what is in it.
    let plan = plan_of(
        r#"quantizer: residual(of: flat(codebook: 8)),
           axes: { "quantizer.of.depth": [1, 2], "quantizer.of": [deep(codebook: 4), deep(codebook: 8)] }"#,
    );
    assert_eq!(
        listed(&plan).iter().map(|row| row.replace("(codebook: ", "(")).collect::<Vec<_>>(),
        [
            "depth=1 of=deep(4) seed=0",
            "depth=1 of=deep(8) seed=0",
            "depth=2 of=deep(4) seed=0",
            "depth=2 of=deep(8) seed=0"
        ]
    );
}

#[test]
fn a_path_reaches_into_a_default() {
    let plan = plan_of(r#"quantizer: product, axes: { "quantizer.parts.flat.codebook": [2, 4] }"#);
    assert_eq!(sizes(&plan), [[2, 256, 256, 256, 256], [4, 256, 256, 256, 256]]);
    let plan = plan_of(
        r#"axes: { "objective": [mse, [mse, patch_gan]] }, when: [(at: { "objective": mse }, set: { "prior": guess })]"#,
    );
    assert_eq!(listed(&plan), ["objective=mse seed=0", "objective=[mse, patch_gan] seed=0"]);
    assert!(plan.models[&plan.trials[0].id].prior.is_some() && plan.models[&plan.trials[1].id].prior.is_none());
}

#[test]
fn elements_of_lists_have_numbers_and_names() {
    let levels = "autoencoder: half(levels: 2), quantizer: [flat(codebook: 8), deep(depth: 2, codebook: 4)],";
    let sizes = |set: &[&str]| {
        let plan = plan_with(levels, set);
        let levels = &plan.models[&plan.trials[0].id].levels;
        levels.iter().map(|level| level.sizes().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&[]), [vec![8], vec![4, 4]]);
    assert_eq!(sizes(&["quantizer.1.codebook=2", "quantizer.deep.depth=1"]), [vec![2], vec![4]]);
    assert_eq!(sizes(&["quantizer.2=flat(codebook: 3)"]), [vec![8], vec![3]]);
    assert_eq!(sizes(&["quantizer=deep(depth: 1)"]), [vec![256], vec![256]]);
    let plan = plan_of(
        r#"objective: [mse(), patch_gan(start: 500)], axes: { "objective.patch_gan.start": [0, 9], "objective.2.width": [4, 8] }"#,
    );
    let configs: Vec<String> = tokenizers(&plan).iter().map(|stage| stage.objectives[1].config.clone()).collect();
    assert_eq!(configs, ["(start:0,width:4)", "(start:0,width:8)", "(start:9,width:4)", "(start:9,width:8)"]);
}

#[test]
fn levels_have_quantizers_and_priors_of_their_own_or_share_one() {
    let plan = plan_of(
        "autoencoder: half(levels: 2), quantizer: [flat(codebook: 8), deep], prior: [guess(width: 8), guess(width: 16)],",
    );
    let count = |plan: &Plan, name: &str| plan.jobs.iter().filter(|job| job.stage.name() == name).count();
    assert_eq!((tokenizers(&plan)[0].quantizers.len(), count(&plan, "prior")), (2, 2));
    let plan = plan_of("autoencoder: half(levels: 2), prior: guess(width: 8),");
    assert_eq!((tokenizers(&plan)[0].quantizers.len(), count(&plan, "prior")), (1, 2));
    let plan = plan_of(r#"autoencoder: half(levels: 2), prior: [guess, guess], axes: { "prior.1.width": [8, 16] }"#);
    assert_eq!((listed(&plan), count(&plan, "prior")), (vec!["width=8 seed=0".into(), "width=16 seed=0".into()], 3));
}

#[test]
fn an_axis_of_lists_is_shown_by_names_and_means_nothing_where_there_is_no_such_element() {
    let plan = plan_of(
        r#"axes: { "objective": [mse, [mse, patch_gan(start: 5)]], "objective.patch_gan.width": [4, 8] },
           report: (compare: [(along: "objective", from: mse, to: [mse, patch_gan(start: 5)])])"#,
    );
    assert_eq!(
        listed(&plan),
        [
            "objective=mse width=– seed=0",
            "objective=[mse, patch_gan] width=4 seed=0",
            "objective=[mse, patch_gan] width=8 seed=0"
        ]
    );
    let comparison = &plan.experiment.comparisons[0];
    assert_eq!((comparison.from.as_str(), comparison.to.as_str()), ("mse", "[mse, patch_gan]"));
}

#[test]
fn conditions_look_inside() {
    let axes = r#"quantizer: residual(of: flat(codebook: 8)), axes: { "quantizer.of.codebook": [4, 8, 16] },"#;
    let listed = |more: &str| listed(&plan_of(&format!("{axes} {more}")));
    assert_eq!(listed(r#"exclude: [{ "quantizer.of.codebook": 8.0 }]"#), ["codebook=4 seed=0", "codebook=16 seed=0"]);
    assert_eq!(listed(r#"exclude: [{ "quantizer": residual(of: flat(codebook: 4)) }]"#).len(), 2);
    assert_eq!(listed(r#"exclude: [{ "quantizer": residual(of: flat(codebook: 4), depth: 2) }]"#).len(), 2);
    assert_eq!(listed(r#"exclude: [{ "quantizer.of": deep }, { "quantizer": residual(depth: 3) }]"#).len(), 3);
}

#[test]
fn the_command_line_has_the_last_word_inside_too() {
    let axes = r#"quantizer: residual(of: flat(codebook: 8)), axes: { "quantizer.of.codebook": [4, 16], "quantizer.depth": [1, 2] }"#;
    assert_eq!(sizes(&plan_with(axes, &["quantizer.of.codebook=3"])), [vec![3], vec![3, 3]]);
    assert_eq!(sizes(&plan_with(axes, &["quantizer.of=flat(codebook: 3)"])), [vec![3], vec![3, 3]]);
    assert_eq!(sizes(&plan_with(axes, &["quantizer=residual(of: flat(codebook: 3))"])), [vec![3], vec![3, 3]]);
    // A field that it does not name is still the axis'.
    let axes = r#"quantizer: residual(of: deep), axes: { "quantizer.of.codebook": [4, 16] }"#;
    assert_eq!(sizes(&plan_with(axes, &["quantizer.of=deep(depth: 1)", "quantizer.depth=1"])), [[4], [16]]);
}

#[test]
fn a_trial_of_lists_and_nested_calls_written_out_is_the_same_trial() {
    let plan = plan_of(
        r#"autoencoder: half(levels: 2), quantizer: [residual(of: flat(codebook: 8)), product], prior: [guess, dream],
           objective: [mse, patch_gan(start: 5)], data: grey(path: "a \"b\"")"#,
    );
    let lab = Lab::new();
    let path = lab.write("one.ron", plan.trials[0].config().unwrap());
    let again = lab.plan(&path, &[], None).unwrap_or_else(|invalid| panic!("{invalid}"));
    assert_eq!(again.trials[0].id, plan.trials[0].id);
    assert_eq!(again.trials[0].config().unwrap(), plan.trials[0].config().unwrap());
}
