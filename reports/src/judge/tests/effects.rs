//! Main effects, interactions, and the verdicts that nobody asked for.

use super::*;

#[test]
fn a_main_effect_averages_complete_blocks() {
    // Seed 1 lacks depth 4 of the larger codebook, so that only the smaller one makes blocks in all seeds.
    let results = psnrs(&[
        (1, 64, 0, 10.0),
        (4, 64, 0, 14.0),
        (1, 256, 0, 50.0),
        (4, 256, 0, 90.0),
        (1, 64, 1, 20.0),
        (4, 64, 1, 26.0),
        (1, 256, 1, 50.0),
        (1, 64, 2, 30.0),
        (4, 64, 2, 38.0),
        (1, 256, 2, 50.0),
        (4, 256, 2, 90.0),
    ]);
    let study = Study::new(&results);
    let effect = effect(&study, 0).unwrap();
    assert_eq!(effect.blocks, 1);
    // Means 20 and 26; deviations from the block's mean are -2, -3, -4 and 2, 3, 4: standard error 1 / sqrt 3.
    for (level, mean) in effect.levels.iter().zip([20.0, 26.0]) {
        interval_is(level, mean, T[1] / 3_f64.sqrt());
    }
}

#[test]
fn effects_that_add_up_have_no_interaction() {
    let additive = psnrs(&[(1, 64, 0, 10.0), (4, 64, 0, 14.0), (1, 256, 0, 11.0), (4, 256, 0, 15.0)]);
    let study = Study::new(&additive);
    let found = interaction(&study, 0, 1);
    assert_eq!(found.contrast.unwrap().mean, 0.0);
    let cells: Vec<f64> = found.cells.iter().flatten().map(|cell| cell.unwrap().mean).collect();
    assert_eq!(cells, [10.0, 14.0, 11.0, 15.0]);
    // Four times the depth buys 4 dB at the smaller codebook and 9 dB at the larger one.
    let together = psnrs(&[(1, 64, 0, 10.0), (4, 64, 0, 14.0), (1, 256, 0, 11.0), (4, 256, 0, 20.0)]);
    assert_eq!(interaction(&Study::new(&together), 0, 1).contrast.unwrap().mean, 5.0);
}

#[test]
fn samples_are_set_against_shuffled_codes_of_the_same_trial() {
    let frechets = |sample: f64| [("sample_frechet", sample), ("shuffled_frechet", 60.0)];
    let drawn = [10.0, 11.0, 12.0].iter().zip(0..).map(|(&sample, seed)| trial(1, 64, seed, &frechets(sample)));
    let results = results(drawn.collect());
    let all = verdicts(&Study::new(&results));
    let verdict = all.iter().find(|verdict| verdict.subject.starts_with("shuffled codes")).unwrap();
    interval_is(&verdict.estimate.unwrap(), -49.0, T[1] / 3_f64.sqrt());
    assert_eq!((verdict.finding, verdict.sides), (Finding::Better, Some((60.0, 11.0))));
}

#[test]
fn without_a_question_each_axis_is_judged_from_its_first_value_to_its_last() {
    let results = psnrs(&[(1, 64, 0, 10.0), (4, 64, 0, 14.0), (1, 256, 0, 11.0), (4, 256, 0, 15.0)]);
    let found: Vec<(String, f64)> =
        verdicts(&Study::new(&results)).into_iter().map(|v| (v.subject, v.estimate.unwrap().mean)).collect();
    assert_eq!(found, [("depth 1 → 4".to_owned(), 4.0), ("codebook 64 → 256".to_owned(), 1.0)]);
}
