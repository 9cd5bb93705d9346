//! Facts of conditions of several tokens, such as texts.

use super::*;
use crate::condition::Start;

const TEXT: ConditionSpace = ConditionSpace::Text { vocabulary: 9, length: 4 };

/// Every way to wire it that reads texts.
const WIRINGS: [&str; 8] = [
    "",
    "position: factored, order: random",
    "order: spiral, embedding: codebook",
    "block: llama, mlp_multiple: 8",
    "block: llama, mlp_multiple: 8, start_rotation: identity, order: zigzag",
    "block: llama, mlp_multiple: 8, order: random",
    "block: rar, mlp_width: 20",
    "block: rar, order: random, embedding: codebook",
];

fn told(config: &str, sizes: &[usize]) -> (Ar, Params) {
    let params = Params::new(3);
    let cx = PriorContext { condition: TEXT, ..context(params.clone(), level([2, 3], sizes, false)) };
    let config = format!("ar(width: 12, heads: 3, layers: 2, init: published, {config})");
    let model = Ar::new(ArConfig::parse(&config).unwrap(), &cx).unwrap();
    move_modulations(&params);
    (model, params)
}

/// Texts of the tokens 0, 1, 2, .. in turn, and from image to image.
fn texts(images: usize) -> Condition {
    let ids = (0..images * 4).map(|i| (i % 9) as u32).collect();
    let present = Codes::from_vec(vec![1; images], &[images]).unwrap();
    Condition { given: Given::Text(Codes::from_vec(ids, &[images, 4]).unwrap()), present }
}

/// The same but for one token of the first image.
fn another(images: usize, token: usize) -> Condition {
    let Condition { given: Given::Text(ids), present } = texts(images) else { panic!("no texts") };
    let mut data = ids.as_slice().to_vec();
    data[token] = 8;
    Condition { given: Given::Text(Codes::from_vec(data, ids.shape()).unwrap()), present }
}

#[test]
fn every_token_of_a_text_tells_on_its_image_alone() {
    for config in WIRINGS {
        let (model, params) = told(config, &[7, 5]);
        // Of the tokens before the last; rar's table has rows for the start token, all of the text, and the codes.
        let (table, rows) = if config.contains("rar") { ("transformer.pos_embed", 17) } else { ("pos_emb_cond", 3) };
        let positions = params.trained().into_iter().find(|(name, _)| name == table).unwrap().1;
        assert_eq!(positions.get().shape(), [1, rows, 12]);
        let nats = |condition: Condition| {
            let batch = TokenBatch { condition, ..batch(&[7, 5], 2, 1) };
            assert!(model.loss(&batch, &Mode::Eval).unwrap().loss.item().unwrap().is_finite());
            model.likelihood(&batch).unwrap().unwrap().to_vec()
        };
        let before = nats(texts(2));
        for token in 0..4 {
            let after = nats(another(2, token));
            assert_ne!(after[..2], before[..2], "{config}: token {token}");
            assert_eq!(after[2..], before[2..], "{config}: token {token}");
        }
        assert_ne!(nats(texts(2).null().unwrap()), before);
    }
}

/// The first code is predicted from the whole text at once.
#[test]
fn samples_under_texts_are_equal_with_cache_and_without() {
    for config in WIRINGS {
        let (model, _) = told(config, &[7, 5]);
        let drawn = |cache, condition| sampled(&model, &SampleRequest { condition, ..request(9, cache) }, 5);
        let cached = drawn(true, texts(9));
        assert_eq!(cached.shape(), [9, 2, 3, 2]);
        assert_eq!(cached, drawn(false, texts(9)));
        assert_ne!(cached, drawn(true, texts(9).null().unwrap()));
        assert!(drawn(true, texts(0)).is_empty() && drawn(false, texts(0)).is_empty());
    }
}

#[test]
fn guidance_mixes_predictions_with_and_without_the_text() {
    for config in WIRINGS {
        let (model, _) = told(config, &[7, 5]);
        assert!(model.can_be_guided());
        let guided = |scale, condition| {
            let guidance = Guidance { scale, schedule: GuidanceSchedule::Constant };
            sampled(&model, &SampleRequest { guidance, draw: vec![], condition, ..request(12, true) }, 5)
        };
        assert_ne!(guided(6.0, texts(12)), guided(1.0, texts(12)));
        assert_eq!(guided(0.0, texts(12)), guided(1.0, texts(12).null().unwrap()));
    }
}

#[test]
fn a_text_moves_no_rotation_of_a_code() {
    let table = |model: &Ar| model.rotary().unwrap().table().unwrap();
    let shared = "block: llama, mlp_multiple: 8";
    let (class, text) = (table(&model(shared, &[7, 5], false).0), table(&told(shared, &[7, 5]).0));
    assert_eq!((class.shape(), text.shape()), ([13, 2, 2].as_slice(), [16, 2, 2].as_slice()));
    assert!(text.as_slice()[..4 * 4].iter().all(|&x| x == 0.0));
    assert_eq!(class.as_slice()[4..], text.as_slice()[4 * 4..]);
}

#[test]
fn codes_cannot_stand_for_texts() {
    let cx = PriorContext { condition: TEXT, ..context(Params::dry(), level([2, 3], &[7; 2], true)) };
    let refused = Ar::new(ArConfig::parse("ar(condition_rows: codes)").unwrap(), &cx).unwrap_err().to_string();
    assert!(refused.contains("`own`"), "{refused}");
}

/// A text of equal tokens modulates as one of them does.
#[test]
fn a_text_modulates_rar_blocks_by_its_mean() {
    let (model, params) = told("block: rar", &[7]);
    let Start::Own { embedding, .. } = &model.condition else { panic!("codes stand for the condition") };
    let equal = Codes::from_vec(vec![2; 4], &[1, 4]).unwrap();
    let text = Condition { given: Given::Text(equal), present: Codes::from_vec(vec![1], &[1]).unwrap() };
    let tokens = embedding.forward(&text).unwrap();
    let pooled = crate::rar::pooled(&tokens).unwrap();
    assert_eq!(pooled.shape(), [1, 1, 12]);
    let row = params.trained().into_iter().find(|(name, _)| name == "cond_emb.weight").unwrap().1.get().to_vec();
    assert!(pooled.as_slice().iter().zip(&row[2 * 12..]).all(|(a, b)| (a - b).abs() < 1e-6));
}
