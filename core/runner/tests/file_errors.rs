//! What is said about experiment files, their axes and their conditions: the place, the line, and what to do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Lab, assert_same, check, check_file, experiment};

#[test]
fn axes_must_name_something_and_have_values() {
    check(
        "    axes: { \"quantiser.depth\": [1], \"prior.width\": [], \"quantizer.depth\": 4 },",
        "
        error: `quantiser.depth` names nothing of an experiment
         --> x.ron:5:14
          |
        5 |     axes: { \"quantiser.depth\": [1], \"prior.width\": [], \"quantizer.depth\": 4 },
          |              ^^^^^^^^^^^^^^^
          |
          = help: did you mean `quantizer`?
          = help: a path begins with one of: `data`, `autoencoder`, `quantizer`, `prior`, `objective`, `tokenizer_training`, `prior_training`, `evaluation`

        error: the axis `prior.width` has no values
         --> x.ron:5:52
          |
        5 |     axes: { \"quantiser.depth\": [1], \"prior.width\": [], \"quantizer.depth\": 4 },
          |                                                    ^^ an empty list leaves nothing to run

        error: the axis `quantizer.depth` needs a list of values
         --> x.ron:5:75
          |
        5 |     axes: { \"quantiser.depth\": [1], \"prior.width\": [], \"quantizer.depth\": 4 },
          |                                                                           ^ expected `[.., ..]`
        ",
    );
    check(
        "    axes: { \"prior.width\": [1] },",
        "
        error: `prior.width` names nothing: the experiment has no `prior`
         --> x.ron:5:14
          |
        5 |     axes: { \"prior.width\": [1] },
          |              ^^^^^^^^^^^
        ",
    );
}

/// 63 x 63 x 63 x 63 combinations would take all memory before anything is said.
#[test]
fn a_sweep_that_is_too_large_is_refused_with_its_axes() {
    let lab = Lab::new();
    let values: Vec<usize> = (2..=64).collect();
    let axes = ["quantizer.depth", "quantizer.codebook", "autoencoder.width", "evaluation.images"];
    let axes: Vec<String> = axes.iter().map(|path| format!("\n\"{path}\": {values:?}")).collect();
    let path = lab.write("x.ron", experiment(&format!("axes: {{{}}}", axes.join(","))));
    let complaints = lab.complaints(&path, &[]);
    assert!(complaints.starts_with("error: an experiment has at most 100,000 trials, and this one has 15,752,961: combinations 15,752,961, seeds 1"), "{complaints}");
    assert_eq!(complaints.matches("63 values").count(), 4, "{complaints}");
}

#[test]
fn a_zip_needs_equal_lengths() {
    check(
        "    sweep: [\n        zip({ \"quantizer.depth\": [1, 2], \"quantizer.codebook\": [8] }),\n        gird({}),\n    ],",
        "
        error: the axes of a zip must be equally long
         --> x.ron:6:64
          |
        6 |         zip({ \"quantizer.depth\": [1, 2], \"quantizer.codebook\": [8] }),
          |                                  ------ 2 values               ^^^ 1 value

        error: there is no `gird`
         --> x.ron:7:9
          |
        7 |         gird({}),
          |         ^^^^
          |
          = help: did you mean `grid`?
          = help: parts of a sweep: `grid`, `zip`, `cases`
        ",
    );
}

#[test]
fn a_seed_counts_once() {
    check(
        "    seeds: [0, 1, 0],",
        "
        error: the seed 0 is given twice
         --> x.ron:5:19
          |
        5 |     seeds: [0, 1, 0],
          |             -     ^ here again
          |             |
          |             here first
          |
          = help: the same seed gives the same result: it would count as two without being two
        ",
    );
}

#[test]
fn exclusions_must_leave_something_and_should_change_something() {
    check(
        "    axes: { \"quantizer.depth\": [1, 2] }, exclude: [{ \"quantizer.shared\": true }],",
        "
        error: `exclude` leaves nothing to run
         --> x.ron:5:52
          |
        5 |     axes: { \"quantizer.depth\": [1, 2] }, exclude: [{ \"quantizer.shared\": true }],
          |                                                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        ",
    );
    check(
        "    axes: { \"quantizer.depth\": [1, 2] }, exclude: [{ \"quantizer.depth\": 3 }],",
        "
        warning: no combination has these values
         --> x.ron:5:52
          |
        5 |     axes: { \"quantizer.depth\": [1, 2] }, exclude: [{ \"quantizer.depth\": 3 }],
          |                                                    ^^^^^^^^^^^^^^^^^^^^^^^^ this changes nothing
        ",
    );
    check(
        "    axes: { \"quantizer.depth\": [1, 2] }, exclude: [{ \"quantizer.dept\": 3 }],",
        "
        error: `deep` has no field `dept`
         --> x.ron:5:65
          |
        4 |     quantizer: deep,
          |                ---- `deep` is named here
        5 |     axes: { \"quantizer.depth\": [1, 2] }, exclude: [{ \"quantizer.dept\": 3 }],
          |                                                                 ^^^^
          |
          = help: did you mean `depth`?
          = help: its fields: `depth`, `codebook`, `shared`, `beta`
        ",
    );
}

#[test]
fn the_report_can_judge_what_there_is() {
    check(
        "    axes: { \"quantizer.depth\": [1, 2] },\n    report: (headline: \"pnsr\", compare: [(metric: \"mse\", along: \"quantizer.dept\", from: 1, to: 2)]),",
        "
        error: there is no measure `pnsr`
         --> x.ron:6:25
          |
        6 |     report: (headline: \"pnsr\", compare: [(metric: \"mse\", along: \"quantizer.dept\", from: 1, to: 2)]),
          |                         ^^^^
          |
          = help: did you mean `psnr`?

        error: `quantizer.dept` is no axis of this experiment
         --> x.ron:6:66
          |
        6 |     report: (headline: \"pnsr\", compare: [(metric: \"mse\", along: \"quantizer.dept\", from: 1, to: 2)]),
          |                                                                  ^^^^^^^^^^^^^^
          |
          = help: did you mean `quantizer.depth`?
          = help: axes: `quantizer.depth`
        ",
    );
    check(
        "    axes: { \"quantizer.depth\": [1, 2] },\n    report: (compare: [(along: \"quantizer.depth\", from: 1, to: 3)]),",
        "
        error: the axis `quantizer.depth` has no value 3
         --> x.ron:6:64
          |
        6 |     report: (compare: [(along: \"quantizer.depth\", from: 1, to: 3)]),
          |                                                                ^
          |
          = help: its values: `1`, `2`
        ",
    );
}

#[test]
fn what_is_not_ron_is_said_to_be_wrong_where_it_is() {
    check_file(
        "(\n    data: grey,\n    axes: { \"quantizer.depth\": [1, 2 },\n)",
        &[],
        "
        error: expected comma
         --> x.ron:3:38
          |
        3 |     axes: { \"quantizer.depth\": [1, 2 },
          |                                -     ^
          |                                |
          |                                this bracket is not closed
        ",
    );
    check(
        "    quantizer: deep(4),",
        "
        error: expected `name: value`
         --> x.ron:4:21
          |
        4 |     quantizer: deep(4),
          |                     ^
        ",
    );
    check(
        "    quantizer: 7,",
        "
        error: `quantizer` must name a component
         --> x.ron:4:16
          |
        4 |     quantizer: 7,
          |                ^ expected a call such as `name(field: value, ..)`
          |
          = help: `rqlab describe quantizer` lists those that there are
        ",
    );
}

#[test]
fn files_that_are_missing_or_no_text_are_named() {
    let lab = Lab::new();
    assert_same(&lab.complaints(&lab.0.path().join("no.ron"), &[]), "error: no.ron: there is no such file");
    let path = lab.write("bytes.ron", [b'(', 0xff, 0xfe]);
    assert_same(&lab.complaints(&path, &[]), "error: bytes.ron: byte 1 is not UTF-8: an experiment is a text file");
    let path = lab.write("x.ron", "(base: \"gone.ron\")");
    assert_same(
        &lab.complaints(&path, &[]),
        "
        error: gone.ron: there is no such file
         --> x.ron:1:8
          |
        1 | (base: \"gone.ron\")
          |        ^^^^^^^^^^
          |
          = help: `base` names a file that is there to be read again, relative to the file that it stands in
        ",
    );
    lab.write("a.ron", "(base: \"b.ron\")");
    let path = lab.write("b.ron", "(base: \"a.ron\")");
    let found = lab.complaints(&path, &[]);
    assert!(found.starts_with("error: an experiment cannot be based on itself\n --> a.ron:1:8"), "{found}");
}

#[test]
fn a_value_of_an_axis_counts_once() {
    check(
        "    axes: { \"quantizer.depth\": [1, 2, 1] },",
        "
        error: the axis `quantizer.depth` has the value 1 twice
         --> x.ron:5:39
          |
        5 |     axes: { \"quantizer.depth\": [1, 2, 1] },
          |                                       ^ equal trials count once
        ",
    );
}

#[test]
fn fields_are_given_once_and_the_main_ones_at_all() {
    check_file(
        "(data: grey, data: grey)",
        &[],
        "
        error: the field `data` is given twice
         --> x.ron:1:14
          |
        1 | (data: grey, data: grey)
          |  ----        ^^^^ here again
          |  |
          |  here first
        ",
    );
    check_file(
        "(data: grey, autoencoder: half, quantiser: deep)",
        &[],
        "
        error: an experiment has no field `quantiser`
         --> x.ron:1:33
          |
        1 | (data: grey, autoencoder: half, quantiser: deep)
          |                                 ^^^^^^^^^
          |
          = help: did you mean `quantizer`?
          = help: its fields: `question`, `base`, `data`, `autoencoder`, `quantizer`, `prior`, `objective`, `tokenizer_training`, `prior_training`, `evaluation`, `axes`, `sweep`, `exclude`, `when`, `seeds`, `report`

        error: the experiment names no `quantizer`
         --> x.ron:1:1
          |
        1 | (data: grey, autoencoder: half, quantiser: deep)
          | ^
          |
          = help: add a line such as `quantizer: name(..),`; `rqlab describe quantizer` lists the names
        ",
    );
}

#[test]
fn a_long_chain_of_bases_is_refused_before_the_stack_ends() {
    let lab = Lab::new();
    for link in 0..150 {
        lab.write(&format!("{link}.ron"), format!("(base: \"{}.ron\")", link + 1));
    }
    let path = lab.write("150.ron", experiment(""));
    let found = lab.complaints(&path.with_file_name("0.ron"), &[]);
    assert!(found.starts_with("error: more than 100 files are based on each other\n --> 99.ron:1:8"), "{found}");
    assert!(!lab.complaints(&path.with_file_name("60.ron"), &[]).contains("based on each other"));
}
