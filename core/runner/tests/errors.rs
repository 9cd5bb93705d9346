//! What is said about components and their values: the place, the line, and what to do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Lab, assert_same, check, check_file, experiment};

#[test]
fn an_unknown_field_names_the_nearest() {
    check(
        "    quantizer: deep(depht: 2),",
        "
        error: `deep` has no field `depht`
         --> x.ron:4:21
          |
        4 |     quantizer: deep(depht: 2),
          |                     ^^^^^
          |
          = help: did you mean `depth`?
          = help: its fields: `depth`, `codebook`, `shared`, `beta`
        ",
    );
}

#[test]
fn an_unknown_plugin_names_the_nearest_and_where_was_searched() {
    check(
        "    prior: gues(width: 8),",
        "
        error: no plugin provides the prior `gues`
         --> x.ron:5:12
          |
        5 |     prior: gues(width: 8),
          |            ^^^^
          |
          = help: did you mean `guess`?
          = help: priors: `dream`, `guess`
          = help: searched:
        ",
    );
    check(
        "    prior: deep,",
        "
        error: no plugin provides the prior `deep`
         --> x.ron:5:12
          |
        5 |     prior: deep,
          |            ^^^^
          |
          = help: there is a quantizer of that name
          = help: priors: `dream`, `guess`
          = help: searched:
        ",
    );
}

#[test]
fn all_wrong_values_are_said_at_once() {
    check(
        "    quantizer: deep(depth: 0, codebook: 1, shared: \"no\"),\n    evaluation: (imags: 1),",
        "
        error: `depth` of `deep` must lie in 1..=64, found 0
         --> x.ron:4:28
          |
        4 |     quantizer: deep(depth: 0, codebook: 1, shared: \"no\"),
          |                            ^
          |
          = help: `depth` is an integer in 1..=64, by default 4: Codes per position.

        error: `codebook` of `deep` must lie in 2.., found 1
         --> x.ron:4:41
          |
        4 |     quantizer: deep(depth: 0, codebook: 1, shared: \"no\"),
          |                                         ^
          |
          = help: `codebook` is an integer in 2.., by default 256: Codes in a codebook.

        error: `shared` of `deep` must be true or false, found `\"no\"`
         --> x.ron:4:52
          |
        4 |     quantizer: deep(depth: 0, codebook: 1, shared: \"no\"),
          |                                                    ^^^^
          |
          = help: `shared` is true or false, by default true: Whether the depths share one.

        error: `evaluation` has no field `imags`
         --> x.ron:5:18
          |
        5 |     evaluation: (imags: 1),
          |                  ^^^^^
          |
          = help: did you mean `images`?
        ",
    );
}

#[test]
fn a_value_of_another_kind_is_shown_with_the_kind_that_is_wanted() {
    check(
        "    quantizer: deep(depth: 2.5),\n    evaluation: (images: -1, top_k: 0.5, speed: 1),",
        "
        error: `depth` of `deep` must be an integer in 1..=64, found `2.5`
         --> x.ron:4:28
          |
        4 |     quantizer: deep(depth: 2.5),
          |                            ^^^
          |
          = help: `depth` is an integer in 1..=64, by default 4: Codes per position.

        error: `images` of `evaluation` must be an integer in 4.., found `-1`
         --> x.ron:5:26
          |
        5 |     evaluation: (images: -1, top_k: 0.5, speed: 1),
          |                          ^^
          |
          = help: `images` is an integer in 4.., by default 1000: Test images for distortion and codebook statistics; all of them if there are fewer.

        error: `top_k` of `evaluation` must be an integer in 1.. or None, found `0.5`
         --> x.ron:5:37
          |
        5 |     evaluation: (images: -1, top_k: 0.5, speed: 1),
          |                                     ^^^
          |
          = help: `top_k` is an integer in 1.. or None, by default None: The k most probable codes are drawn from; none for all.

        error: `speed` of `evaluation` must be a list [integer, ..] in 1..=65_536, found `1`
         --> x.ron:5:49
          |
        5 |     evaluation: (images: -1, top_k: 0.5, speed: 1),
          |                                                 ^
          |
          = help: `speed` is a list [integer, ..] in 1..=65_536, by default [1, 16]: Batch sizes at which sampling speed is measured, with and without cache; empty for none.
        ",
    );
    check(
        "    question: 3, seeds: \"a\", axes: [1],",
        "
        error: expected text in quotes, found `3`
         --> x.ron:5:15
          |
        5 |     question: 3, seeds: \"a\", axes: [1],
          |               ^

        error: expected a list `[.., ..]`, found `\"a\"`
         --> x.ron:5:25
          |
        5 |     question: 3, seeds: \"a\", axes: [1],
          |                         ^^^
          |
          = help: for example `seeds: [0, 1, 2]`

        error: expected a map `{ \"name\": value, .. }`, found `[1]`
         --> x.ron:5:36
          |
        5 |     question: 3, seeds: \"a\", axes: [1],
          |                                    ^^^
        ",
    );
    check(
        "    seeds: [0, 1.5],",
        "
        error: expected a whole number, 0 or more, found `1.5`
         --> x.ron:5:16
          |
        5 |     seeds: [0, 1.5],
          |                ^^^
        ",
    );
}

#[test]
fn a_wrong_value_of_an_axis_is_shown_in_the_axis() {
    check(
        "    axes: { \"quantizer.depth\": [1, 99] },",
        "
        error: `depth` of `deep` must lie in 1..=64, found 99
         --> x.ron:5:36
          |
        5 |     axes: { \"quantizer.depth\": [1, 99] },
          |                                    ^^
          |
          = help: `depth` is an integer in 1..=64, by default 4: Codes per position.
        ",
    );
    check(
        "    axes: { \"quantizer.depth\": [1, 2], \"quantizer\": [flat(codebook: 4)] },",
        "
        error: `flat` has no field `depth`
         --> x.ron:5:24
          |
        5 |     axes: { \"quantizer.depth\": [1, 2], \"quantizer\": [flat(codebook: 4)] },
          |                        ^^^^^                         ---- `flat` is named here
          |
          = help: its fields: `codebook`
        ",
    );
}

#[test]
fn a_wrong_value_of_the_command_line_is_shown_there() {
    check_file(
        &experiment(""),
        &["quantizer.depth=many", "prior.width=3", "color=red"],
        "
        error: `color` names nothing of an experiment
         --> <command line>:1:7
          |
        1 | --set color=red
          |       ^^^^^
          |
          = help: a path begins with one of: `data`, `autoencoder`, `quantizer`, `prior`, `objective`, `tokenizer_training`, `prior_training`, `evaluation`
        ",
    );
    check_file(
        &experiment(""),
        &["quantizer.depth=many", "prior.width=3"],
        "
        error: `prior.width` names nothing: the experiment has no `prior`
         --> <command line>:1:7
          |
        1 | --set prior.width=3
          |       ^^^^^^^^^^^

        error: `depth` of `deep` must be an integer in 1..=64, found `many`
         --> <command line>:1:23
          |
        1 | --set quantizer.depth=many
          |                       ^^^^
          |
          = help: `depth` is an integer in 1..=64, by default 4: Codes per position.
        ",
    );
}

#[test]
fn a_wrong_value_of_a_base_is_shown_in_the_base() {
    let lab = Lab::new();
    lab.write("base.ron", experiment("    prior: guess(width: 10),"));
    let path = lab.write("x.ron", "(base: \"base.ron\", axes: { \"prior.heads\": [5, 3] })");
    assert_same(
        &lab.complaints(&path, &[]),
        "
        error: `heads` of `guess`: 3 heads do not divide 10
         --> x.ron:1:47
          |
        1 | (base: \"base.ron\", axes: { \"prior.heads\": [5, 3] })
          |                                               ^
        ",
    );
    let path = lab.write("y.ron", "(base: \"base.ron\", data: grey(size: 6))");
    assert_same(
        &lab.complaints(&path, &[]),
        "
        error: `halvings` of `half`: 4 does not divide 6
         --> base.ron:3:18
          |
        3 |     autoencoder: half,
          |                  ^^^^
        ",
    );
}

#[test]
fn required_fields_are_asked_for() {
    check(
        "    quantizer: flat,",
        "
        error: `flat` needs `codebook`
         --> x.ron:4:16
          |
        4 |     quantizer: flat,
          |                ^^^^
          |
          = help: `codebook` is an integer in 2..: Codes in the codebook.
          = help: write `flat(codebook: ..)`
        ",
    );
}

#[test]
fn what_the_data_set_says_points_at_its_path() {
    check(
        "    data: grey(size: 16, path: \"nowhere\"),",
        "
        error: `path` of `grey`: nowhere: there is no such directory
         --> x.ron:4:32
          |
        4 |     data: grey(size: 16, path: \"nowhere\"),
          |                                ^^^^^^^^^
        ",
    );
    check(
        "    data: grey(test: 0),",
        "
        error: `grey`: there are no test images
         --> x.ron:4:11
          |
        4 |     data: grey(test: 0),
          |           ^^^^
        ",
    );
}

#[test]
fn a_plugin_that_panics_is_an_error_of_its_call() {
    check(
        "    prior: guess(panic: true),",
        "
        error: `guess`: the plugin toys panicked while it built `guess`: as it was told to
         --> x.ron:5:12
          |
        5 |     prior: guess(panic: true),
          |            ^^^^^
        ",
    );
}

#[test]
fn a_protocol_names_the_weights_that_it_lacks() {
    check(
        "    evaluation: (protocols: [lab, adm]),",
        "
        error: `protocols` of `evaluation`: the protocol `adm` looks with weights that `inception` must name: docs/weights.md tells where they are and how to convert them; with `missing_weights: leave_out` its distances are left out
         --> x.ron:5:29
          |
        5 |     evaluation: (protocols: [lab, adm]),
          |                             ^^^^^^^^^^
        ",
    );
}

/// A file that is not the one it is said to be, one that is not there, and digests that are not stated.
#[test]
fn weights_are_those_that_they_are_said_to_be() {
    for (settings, parts) in [
        (
            r#"protocols: [adm], inception: "w.safetensors""#,
            &["ba7816bf8f01cfea", "b7a528bf4051f62c", "another file"][..],
        ),
        (r#"protocols: [rqvae], inception: "none.safetensors""#, &["none.safetensors"]),
        (r#"protocols: [dgm], dinov2: "w.safetensors""#, &["the SHA-256 of `dinov2` is not given"]),
        (
            r#"protocols: [rqvae], missing_weights: leave_out, lpips: "w.safetensors""#,
            &["the SHA-256 of `lpips` is not given"],
        ),
        (
            r#"lpips: "w.safetensors", lpips_digest: "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD""#,
            &["of which `protocols` names none"],
        ),
        (
            r#"protocols: [dgm], dinov2: "w.safetensors", dinov2_digest: "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD""#,
            &["w.safetensors: this file cannot be used: it ends after 3 of 8 bytes"],
        ),
    ] {
        let lab = Lab::new();
        lab.write("w.safetensors", "abc");
        let path = lab.write("x.ron", experiment(&format!("    evaluation: ({settings}),")));
        let said = lab.complaints(&path, &[]);
        assert!(said.contains(" --> x.ron:5:") && parts.iter().all(|part| said.contains(part)), "{settings}: {said}");
    }
}
