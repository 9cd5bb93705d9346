//! Facts of the published models: sizes, and what is theirs alone.

use super::*;

/// The peer benchmark's size, as counted by its own implementation.
#[test]
fn the_parameter_count_is_that_of_the_other_implementation() {
    let count = |config: &str| {
        let params = Params::dry();
        let space = CodeSpace { sizes: vec![512; 4], tables: vec![], shared: true };
        let level = LevelInfo { height: 8, width: 8, channels: 64, space: TokenSpace::Codes(space), scales: None };
        let condition = ConditionSpace::Classes(10);
        let cx = PriorContext { condition, null_condition: false, ..context(params.clone(), level) };
        Ar::new(ArConfig::parse(config).unwrap(), &cx).unwrap();
        params.count()
    };
    assert_eq!(count("ar(width: 256, heads: 8, layers: 8)"), 6_649_344);
    // 64 + 4 position vectors instead of 256.
    assert_eq!(count("ar(width: 256, heads: 8, layers: 8, position: factored)"), 6_649_344 - 188 * 256);
}

/// LlamaGen-B and RAR-B, as their papers and codes count them. RAR's tables have rows that nothing reads: one for masks, 1022 in
/// each of two tables of positions, 98 of steps.
#[test]
fn published_models_have_their_parameters() {
    let count = |config: &str, codes: usize| {
        let params = Params::dry();
        let space = CodeSpace { sizes: vec![codes], tables: vec![], shared: false };
        let level = LevelInfo { height: 16, width: 16, channels: 8, space: TokenSpace::Codes(space), scales: None };
        let cx = PriorContext { condition: ConditionSpace::Classes(1000), ..context(params.clone(), level) };
        Ar::new(ArConfig::parse(config).unwrap(), &cx).unwrap();
        params.count()
    };
    assert_eq!(count("ar(block: llama, width: 768, heads: 12, layers: 12)", 16384), 110_888_448);
    let unused = (1 + 2 * 1022 + 98) * 768;
    assert_eq!(count("ar(block: rar, width: 768, heads: 16, layers: 24)", 1024) + unused, 260_923_648);
}

/// The published widths of LlamaGen-B, -L, -XL and -XXL.
#[test]
fn a_swiglu_is_as_wide_as_published() {
    let widths = [768, 1024, 1280, 1536].map(|width| crate::swiglu_width(width, 256));
    assert_eq!(widths, [2048, 2816, 3584, 4096]);
}

/// With its rotation zero the condition's query and key vanish: every score of the first code's row, and every score for
/// the condition, is 0. In a row of one key nothing changes; in a later one it does.
#[test]
fn the_rotation_of_the_condition_matters_after_the_first_code_alone() {
    let shared = "layers: 2, block: llama, mlp_multiple: 8";
    let of = |rotation: &str| {
        let (model, _) = model(&format!("{shared}, start_rotation: {rotation}"), &[7], true);
        logits(&model, &batch(&[7], 1, 3)).remove(0).to_vec()
    };
    let (zero, identity) = (of("zero"), of("identity"));
    assert_eq!(zero[..7], identity[..7]);
    assert_ne!(zero[7..14], identity[7..14]);
}

/// As in minGPT: class c begins with the vector of code c.
#[test]
fn codes_can_stand_for_classes() {
    let params = Params::new(3);
    let cx = PriorContext { null_condition: false, ..context(params.clone(), level([2, 3], &[7], true)) };
    let text = "ar(width: 12, heads: 3, layers: 2, condition_rows: codes, classifier_bias: false, position_rows: 9)";
    let model = Ar::new(ArConfig::parse(text).unwrap(), &cx).unwrap();
    let names: Vec<String> = params.trained().into_iter().map(|(name, _)| name).collect();
    assert!(names.iter().all(|name| !name.contains("cond_emb") && name != "classifier.linear.bias"), "{names:?}");
    assert!(params.trained().iter().any(|(name, var)| name == "pos_emb" && var.get().shape() == [1, 9, 12]));
    let start = model.start(&classes(3)).unwrap();
    let rows = model.input.at(0, &Codes::from_vec(vec![0, 1, 2], &[3, 1]).unwrap()).unwrap();
    assert_eq!(start.to_vec(), rows.to_vec());
    assert!(model.start(&classes(3).null().unwrap()).is_err());
    let few = PriorContext { levels: vec![level([2, 3], &[2], true)], params: Params::dry(), ..cx };
    let refused = Ar::new(ArConfig::parse(text).unwrap(), &few).unwrap_err().to_string();
    assert!(refused.contains("`condition_rows`"), "{refused}");
}

/// RAR's blocks start as the identity: what is predicted then depends on the last code alone.
#[test]
fn a_modulated_block_starts_as_the_identity() {
    let params = Params::new(3);
    let config = ArConfig::parse("ar(width: 12, heads: 3, layers: 2, block: rar)").unwrap();
    let model = Ar::new(config, &context(params, level([2, 3], &[7], true))).unwrap();
    let mut one = batch(&[7], 1, 3);
    let before = logits(&model, &one).remove(0).to_vec();
    let mut data = codes(&one).as_slice().to_vec();
    data[0] = (data[0] + 1) % 7;
    one.tokens = Tokens::Codes(Codes::from_vec(data, &[1, 2, 3, 1]).unwrap());
    let after = logits(&model, &one).remove(0).to_vec();
    let changed: Vec<usize> = (0..6).filter(|t| before[t * 7..][..7] != after[t * 7..][..7]).collect();
    assert_eq!(changed, [1]);
}
