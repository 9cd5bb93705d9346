//! What is said about calls within calls, lists of calls, and paths into them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Lab, check, check_file, experiment};

#[test]
fn a_list_has_one_component_per_level() {
    check(
        "    quantizer: [deep, flat(codebook: 4)],",
        "
        error: there are 2 quantizers, and the autoencoder has one level: give one per level, or one for all
         --> x.ron:4:16
          |
        4 |     quantizer: [deep, flat(codebook: 4)],
          |                ^^^^^^^^^^^^^^^^^^^^^^^^^
        ",
    );
    check(
        "    autoencoder: half(levels: 2), prior: [guess, guess, guess],",
        "
        error: there are 3 priors, and the autoencoder has 2 levels: give one per level, or one for all
         --> x.ron:4:42
          |
        4 |     autoencoder: half(levels: 2), prior: [guess, guess, guess],
          |                                          ^^^^^^^^^^^^^^^^^^^^^
        ",
    );
    check(
        "    quantizer: [],",
        "
        error: the list of `quantizer` is empty
         --> x.ron:4:16
          |
        4 |     quantizer: [],
          |                ^^ expected at least one call
        ",
    );
    check(
        "    data: [grey], objective: None,",
        "
        error: `data` is one dataset, and this is a list of them
         --> x.ron:4:11
          |
        4 |     data: [grey], objective: None,
          |           ^^^^^^ expected a call such as `name(field: value, ..)`

        error: `objective` cannot be None
         --> x.ron:4:30
          |
        4 |     data: [grey], objective: None,
          |                              ^^^^ expected a call
        ",
    );
}

#[test]
fn what_is_held_is_checked_where_it_is_written() {
    check(
        "    quantizer: residual(of: flat(codbook: 4), depth: 0),",
        "
        error: `flat` has no field `codbook`
         --> x.ron:4:34
          |
        4 |     quantizer: residual(of: flat(codbook: 4), depth: 0),
          |                                  ^^^^^^^
          |
          = help: did you mean `codebook`?
          = help: its fields: `codebook`

        error: `flat` needs `codebook`
         --> x.ron:4:29
          |
        4 |     quantizer: residual(of: flat(codbook: 4), depth: 0),
          |                             ^^^^
          |
          = help: `codebook` is an integer in 2..: Codes in the codebook.
          = help: write `flat(codebook: ..)`

        error: `depth` of `residual` must lie in 1..=64, found 0
         --> x.ron:4:54
          |
        4 |     quantizer: residual(of: flat(codbook: 4), depth: 0),
          |                                                      ^
          |
          = help: `depth` is an integer in 1..=64, by default 2: Steps.
        ",
    );
    check(
        "    quantizer: residual(of: flt(codebook: 4)),",
        "
        error: no plugin provides the quantizer `flt`
         --> x.ron:4:29
          |
        4 |     quantizer: residual(of: flt(codebook: 4)),
          |                             ^^^
          |
          = help: did you mean `flat`?
          = help: quantizers: `deep`, `endless`, `flat`, `product`, `residual`
          = help: searched:
        ",
    );
    check(
        "    quantizer: residual(of: guess),",
        "
        error: no plugin provides the quantizer `guess`
         --> x.ron:4:29
          |
        4 |     quantizer: residual(of: guess),
          |                             ^^^^^
          |
          = help: there is a prior of that name
          = help: quantizers: `deep`, `endless`, `flat`, `product`, `residual`
          = help: searched:
        ",
    );
    check(
        "    quantizer: product(parts: [flat(codebook: 1), flat]),",
        "
        error: `codebook` of `flat` must lie in 2.., found 1
         --> x.ron:4:47
          |
        4 |     quantizer: product(parts: [flat(codebook: 1), flat]),
          |                                               ^
          |
          = help: `codebook` is an integer in 2..: Codes in the codebook.

        error: `flat` needs `codebook`
         --> x.ron:4:51
          |
        4 |     quantizer: product(parts: [flat(codebook: 1), flat]),
          |                                                   ^^^^
          |
          = help: `codebook` is an integer in 2..: Codes in the codebook.
          = help: write `flat(codebook: ..)`
        ",
    );
}

#[test]
fn a_field_that_holds_calls_takes_nothing_else() {
    check(
        "    quantizer: residual(of: 3),",
        "
        error: `of` of `residual` must name a component
         --> x.ron:4:29
          |
        4 |     quantizer: residual(of: 3),
          |                             ^ expected a call such as `name(field: value, ..)`
          |
          = help: `rqlab describe quantizer` lists those that there are
        ",
    );
    check(
        "    quantizer: residual(of: None),",
        "
        error: `of` of `residual` must be the call of a quantizer, found `None`
         --> x.ron:4:29
          |
        4 |     quantizer: residual(of: None),
          |                             ^^^^
          |
          = help: `of` is the call of a quantizer: The quantizer of each step.
        ",
    );
    check(
        "    quantizer: residual(of: [deep, deep]),",
        "
        error: `of` of `residual` is one quantizer, and this is a list of them
         --> x.ron:4:29
          |
        4 |     quantizer: residual(of: [deep, deep]),
          |                             ^^^^^^^^^^^^ expected a call such as `name(field: value, ..)`
        ",
    );
    check(
        "    quantizer: product(parts: deep),",
        "
        error: `parts` of `product` is a list of quantizers, and this is one call
         --> x.ron:4:31
          |
        4 |     quantizer: product(parts: deep),
          |                               ^^^^
          |
          = help: write `[deep]`
        ",
    );
    check(
        "    quantizer: residual,",
        "
        error: `residual` needs `of`
         --> x.ron:4:16
          |
        4 |     quantizer: residual,
          |                ^^^^^^^^
          |
          = help: `of` is the call of a quantizer: The quantizer of each step.
          = help: write `residual(of: ..)`
        ",
    );
}

#[test]
fn what_a_constructor_refuses_is_shown_in_the_component_that_refused() {
    check(
        "    quantizer: residual(of: deep(depth: 2, codebook: 9_000_000_000_000)),",
        "
        error: `codebook` of `deep`: 9000000000000 codes are too many
         --> x.ron:4:54
          |
        4 |     quantizer: residual(of: deep(depth: 2, codebook: 9_000_000_000_000)),
          |                                                      ^^^^^^^^^^^^^^^^^
        ",
    );
    check(
        "    autoencoder: half(levels: 2), prior: [guess, guess(width: 10, heads: 3)],",
        "
        error: `heads` of `guess`: 3 heads do not divide 10
         --> x.ron:4:74
          |
        4 |     autoencoder: half(levels: 2), prior: [guess, guess(width: 10, heads: 3)],
          |                                                                          ^
        ",
    );
}

#[test]
fn components_are_nested_only_so_deep() {
    check(
        "    quantizer: endless,",
        "
        error: components are nested more than 8 deep
         --> <default of `of` of `endless`>:1:1
          |
        1 | endless
          | ^^^^^^^
          |
          = help: a component whose default holds itself has no end: give the field
        ",
    );
}

#[test]
fn a_path_into_what_is_not_there_is_told_of() {
    check(
        "    quantizer: residual(of: deep), axes: { \"quantizer.in.depth\": [1] },",
        "
        error: `residual` has no field `in`
         --> x.ron:4:55
          |
        4 |     quantizer: residual(of: deep), axes: { \"quantizer.in.depth\": [1] },
          |                -------- `residual` is named here      ^^
          |
          = help: its fields: `of`, `depth`, `check`, `rounds`
        ",
    );
    check(
        "    axes: { \"quantizer.depth.of\": [1] },",
        "
        error: `depth` of `deep` is an integer
         --> x.ron:5:24
          |
        5 |     axes: { \"quantizer.depth.of\": [1] },
          |                        ^^^^^ there is nothing in it that a path could name
        ",
    );
    check(
        "    axes: { \"quantizer.1.depth\": [1] },",
        "
        error: `quantizer.1.depth` names nothing: `deep` is one call, and no list
         --> x.ron:5:24
          |
        5 |     axes: { \"quantizer.1.depth\": [1] },
          |                        ^
          |
          = help: `quantizer.depth` is a field of the call
        ",
    );
    check(
        "    objective: [mse, patch_gan], axes: { \"objective.3.start\": [1], \"objective.patch_gun.start\": [1] },",
        "
        error: `objective.3.start` names nothing: the list has 2 elements, which count from 1
         --> x.ron:5:53
          |
        5 |     objective: [mse, patch_gan], axes: { \"objective.3.start\": [1], \"objective.patch_gun.start\": [1] },
          |                ----------------                     ^

        error: `objective.patch_gun.start` names nothing: the list has no `patch_gun`
         --> x.ron:5:79
          |
        5 |     objective: [mse, patch_gan], axes: { \"objective.3.start\": [1], \"objective.patch_gun.start\": [1] },
          |                ----------------                                               ^^^^^^^^^
          |
          = help: did you mean `patch_gan`?
          = help: its elements: `mse`, `patch_gan`
        ",
    );
    check(
        "    objective: [mse, patch_gan, patch_gan], axes: { \"objective.patch_gan.start\": [1] },",
        "
        error: `objective.patch_gan.start` names 2 elements of a list
         --> x.ron:5:64
          |
        5 |     objective: [mse, patch_gan, patch_gan], axes: { \"objective.patch_gan.start\": [1] },
          |                ---------------------------                     ^^^^^^^^^
          |
          = help: name one by its number: `objective.2` is the first
        ",
    );
    check(
        "    quantizer: product, axes: { \"quantizer.after.depth\": [1] },",
        "
        error: `quantizer.after.depth` names nothing: `quantizer.after` is None
         --> x.ron:4:50
          |
        4 |     quantizer: product, axes: { \"quantizer.after.depth\": [1] },
          |                                                  ^^^^^
        ",
    );
    check(
        "    axes: { \"quantizer..depth\": [1] },",
        "
        error: `quantizer..depth` is not a path
         --> x.ron:5:14
          |
        5 |     axes: { \"quantizer..depth\": [1] },
          |              ^^^^^^^^^^^^^^^^
          |
          = help: write `quantizer` for the whole, `quantizer.FIELD` for a field of it, or `quantizer.FIELD.FIELD` for one of a component in it
        ",
    );
}

#[test]
fn the_command_line_points_at_the_step() {
    check_file(
        &experiment("quantizer: residual(of: deep)"),
        &["quantizer.of.dept=3"],
        "
        error: `deep` has no field `dept`
         --> <command line>:1:20
          |
        1 | --set quantizer.of.dept=3
          |                    ^^^^
          |
         ::: x.ron:4:25
          |
        4 | quantizer: residual(of: deep)
          |                         ---- `deep` is named here
          |
          = help: did you mean `depth`?
          = help: its fields: `depth`, `codebook`, `shared`, `beta`
        ",
    );
    check_file(
        &experiment("quantizer: residual(of: deep)"),
        &["quantizer.of=deep(depth: 99)"],
        "
        error: `depth` of `deep` must lie in 1..=64, found 99
         --> <command line>:1:32
          |
        1 | --set quantizer.of=deep(depth: 99)
          |                                ^^
          |
          = help: `depth` is an integer in 1..=64, by default 4: Codes per position.
        ",
    );
}

#[test]
fn a_condition_about_what_no_component_has_is_told_of() {
    check(
        "    quantizer: residual(of: deep), exclude: [{ \"quantizer.of.dept\": 3 }],",
        "
        error: `deep` has no field `dept`
         --> x.ron:4:62
          |
        4 |     quantizer: residual(of: deep), exclude: [{ \"quantizer.of.dept\": 3 }],
          |                             ---- `deep` is named here        ^^^^
          |
          = help: did you mean `depth`?
          = help: its fields: `depth`, `codebook`, `shared`, `beta`
        ",
    );
    check(
        "    objective: [mse, patch_gan], exclude: [{ \"objective.3.start\": 3 }],",
        "
        warning: no combination has these values
         --> x.ron:5:44
          |
        5 |     objective: [mse, patch_gan], exclude: [{ \"objective.3.start\": 3 }],
          |                                            ^^^^^^^^^^^^^^^^^^^^^^^^^^ this changes nothing
        ",
    );
}

#[test]
fn settings_that_are_gone_name_the_new_way() {
    check(
        "    tokenizer_training: (reconstruction: l1, clip: 2.0),",
        "
        error: `tokenizer_training` has no field `reconstruction`
         --> x.ron:5:26
          |
        5 |     tokenizer_training: (reconstruction: l1, clip: 2.0),
          |                          ^^^^^^^^^^^^^^
          |
          = help: what a tokenizer is trained for is a component now: `objective: l1()`

        error: `tokenizer_training` has no field `clip`
         --> x.ron:5:46
          |
        5 |     tokenizer_training: (reconstruction: l1, clip: 2.0),
          |                                              ^^^^
          |
          = help: it is called `max_grad_norm` now
        ",
    );
}

#[test]
fn what_is_nested_without_end_is_refused_in_our_words() {
    let lab = Lab::new();
    for (opening, closing) in [("residual(of: ", ")"), ("[", "]")] {
        let deep = format!("    quantizer: {}deep{},", opening.repeat(10_000), closing.repeat(10_000));
        let path = lab.write("x.ron", experiment(&deep));
        let said = lab.complaints(&path, &[]);
        assert!(said.starts_with("error: calls, lists and brackets are nested too deep\n --> x.ron:4:"), "{said}");
    }
}

#[test]
fn an_interval_of_guidance_does_not_end_before_it_begins() {
    check(
        "    evaluation: (guidance_schedule: interval, guidance_from: 0.9, guidance_to: 0.5),",
        "
        error: `guidance_from` of `evaluation`: the interval begins at 0.9 and ends before that, at 0.5
         --> x.ron:5:62
          |
        5 |     evaluation: (guidance_schedule: interval, guidance_from: 0.9, guidance_to: 0.5),
          |                                                              ^^^
        ",
    );
}

#[test]
fn two_axes_do_not_name_one_field() {
    let lab = Lab::new();
    let one = r#"    axes: { "quantizer.deep.depth": [1, 2], "quantizer.depth": [4, 8] },"#;
    let said = lab.complaints(&lab.write("x.ron", experiment(one)), &[]);
    assert!(said.starts_with("error: `quantizer.de") && said.contains(" name the same field\n"), "{said}");
    assert!(said.contains("here first"), "{said}");
    let two = r#"    axes: { "quantizer.deep.depth": [1, 2], "quantizer.codebook": [4, 8] },"#;
    assert_eq!(lab.complaints(&lab.write("x.ron", experiment(two)), &[]), "");
}
