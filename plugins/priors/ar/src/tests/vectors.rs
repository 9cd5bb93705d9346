//! Facts of a diffusion at each position: of vectors, and of codes as their embeddings.

use super::*;
use crate::input::Input;
use rqlab_sdk::nn::diffusion::HeadRequest;
use rqlab_sdk::nn::is_guided;
use rqlab_sdk::optim::{Adam, AdamSettings};
use rqlab_sdk::testing::prior;

const SMALL: &str = "width: 12, heads: 3, layers: 2, head_width: 12, head_layers: 1";

/// Every way to wire it.
const WIRINGS: [&str; 5] = [
    "order: raster",
    "order: spiral, position: factored",
    "block: llama, mlp_multiple: 8, order: random",
    "block: llama, mlp_multiple: 8, order: zigzag",
    "block: rar, order: annealed",
];

fn of_vectors(channels: usize) -> LevelInfo {
    LevelInfo { height: 2, width: 3, channels, space: TokenSpace::Vectors { channels }, scales: None }
}

/// With all parameters away from zero, where the published starts have many.
fn built(config: &str, cx: &PriorContext) -> Result<Ar> {
    let model = Ar::new(ArConfig::parse(&format!("ar({SMALL}, {config})"))?, cx)?;
    for (name, var) in cx.params.trained() {
        let shape = var.get().shape().to_vec();
        let noise = Tensor::from_vec(Rng::new(5, &name, 0).normal(shape.iter().product()), &shape)?;
        var.set(&var.get().detach().add(&noise.mul_scalar(0.1)?)?)?;
    }
    Ok(model)
}

/// The gradients of a flow are those of finite differences; a diffusion's bound trains its variances alone, as published.
#[test]
fn it_keeps_the_contract_of_a_prior() {
    for wiring in WIRINGS {
        let build = |cx: &PriorContext| built(&format!("{wiring}, loss: flow, sampling_steps: 3"), cx);
        prior(&PriorCase::vectors(3), build);
        prior(&PriorCase::vectors(2).under(ConditionSpace::None), build);
        // Also as the sums of codes' embeddings.
        prior(&PriorCase::codes(&[3, 2]), build);
        prior(&PriorCase::vectors(2).under(ConditionSpace::Text { vocabulary: 7, length: 3 }), build);
    }
}

/// The whole network anew for every position, of which all but what it is asked for is thrown away.
fn twin(model: &Ar, request: &SampleRequest, rng: &Rng) -> Tensor {
    let (Input::Vectors { tokens, .. }, Some(head)) = (&model.input, model.head.diffusion()) else { panic!("no head") };
    let (images, order) = (request.images(), model.order().unwrap());
    let (length, channels) = (order.len(), tokens.channels());
    let guided = is_guided(&request.guidance, model.condition()).unwrap();
    let mut known = vec![0.0; images * length * channels];
    for (n, &position) in order.iter().enumerate() {
        let hidden = |condition: &Condition| {
            let map = Tokens::Vectors(Tensor::from_vec(known.clone(), &[images, 2, 3, channels]).unwrap());
            let orders = model.reading.orders(images, &Mode::Eval).unwrap();
            let all = model.forward(&map, condition, &orders, &Mode::Eval).unwrap();
            let at = position as usize;
            model.head.conditions(&all.slice(1, at..at + 1).unwrap()).unwrap()
        };
        let with = hidden(&request.condition);
        let z = if guided {
            Tensor::stack(&[&with, &hidden(&request.condition.null().unwrap())], 1).unwrap()
        } else {
            with
        };
        let how = HeadRequest {
            guidance: request.guidance.at_progress(n as f32 / length as f32),
            temperature: request.draw_at(0).temperature,
        };
        let noise = head.noise(images, &rng.part("noise", n as u64)).unwrap();
        let drawn = head.sampler(2 * images).unwrap().sample(&z, &how, &noise).unwrap();
        for (image, vector) in drawn.as_slice().chunks(channels).enumerate() {
            known[(image * length + position as usize) * channels..][..channels].copy_from_slice(vector);
        }
    }
    Tensor::from_vec(known, &[images, 2, 3, channels]).unwrap()
}

#[test]
fn samples_are_those_of_the_whole_network_anew_for_every_position() {
    for wiring in WIRINGS {
        for (loss, scale) in [("diffusion", 1.0), ("diffusion", 2.0), ("flow", 2.0)] {
            let cx = context(Params::new(3), of_vectors(4));
            let config = format!("loss: {loss}, sampling_steps: 4, {wiring}");
            let model = built(&config, &cx).unwrap();
            let guidance = Guidance { scale, schedule: GuidanceSchedule::Linear };
            let draw = vec![Draw { temperature: 0.8, ..Draw::default() }];
            let request =
                |cache| SampleRequest { cache, guidance, draw: draw.clone(), ..SampleRequest::new(classes(3)) };
            let rng = Rng::new(0, "sample", 0);
            let wanted = twin(&model, &request(true), &rng);
            let size = wanted.as_slice().iter().fold(1.0f32, |m, x| m.max(x.abs()));
            for cache in [true, false] {
                let found = model.sample(&request(cache), &rng).unwrap().vectors().unwrap().to_vec();
                let worst = found.iter().zip(wanted.as_slice()).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(worst < 1e-3 * size, "{wiring} {loss} {scale} {cache}: {worst} of {size}");
            }
        }
    }
}

#[test]
fn a_vector_changes_what_is_predicted_after_it_and_nothing_else() {
    for wiring in WIRINGS {
        let model = built(&format!("loss: flow, {wiring}"), &context(Params::new(3), of_vectors(4))).unwrap();
        let places = places(&model, 1);
        let hidden = |numbers: Vec<f32>| {
            let map = Tokens::Vectors(Tensor::from_vec(numbers, &[1, 2, 3, 4]).unwrap());
            let orders = model.reading.orders(1, &Mode::Eval).unwrap();
            model.forward(&map, &classes(1), &orders, &Mode::Eval).unwrap().to_vec()
        };
        let numbers = Rng::new(0, "vectors", 0).normal(24);
        let before = hidden(numbers.clone());
        for position in 0..6 {
            let mut moved = numbers.clone();
            moved[4 * position] += 1.0;
            for (other, (a, b)) in before.chunks(12).zip(hidden(moved).chunks(12)).enumerate() {
                assert_eq!(a != b, places[other] > places[position], "{wiring}: {position} and {other}");
            }
        }
    }
}

/// Each class has a map of its own: after training, samples of a class are near its map, and the bound has fallen.
#[test]
fn training_on_one_map_per_class_makes_samples_of_it() {
    let maps = Tensor::from_vec(Rng::new(9, "maps", 0).normal(CLASSES * 24), &[CLASSES, 2, 3, 4]).unwrap();
    let sizes = "width: 32, heads: 2, layers: 2, head_width: 64, head_layers: 2, noise_draws: 16";
    for text in ["loss: flow, sampling_steps: 10", "loss: diffusion, sampling_steps: 50, order: random"] {
        let params = Params::new(3);
        let config = ArConfig::parse(&format!("ar({sizes}, {text})")).unwrap();
        let model = Ar::new(config, &context(params.clone(), of_vectors(4))).unwrap();
        let tokens = Tokens::Vectors(maps.clone());
        let batch = TokenBatch { tokens, targets: Targets::Hard, condition: classes(CLASSES), above: vec![] };
        let bound = || {
            model
                .bound(&batch, &Rng::new(0, "bound", 0))
                .unwrap()
                .map(|bound| bound.nats().mean_all().unwrap().item().unwrap())
        };
        let before = bound();
        let mut optimizer = Adam::new(params.trained(), AdamSettings::default()).unwrap();
        for step in 0..300 {
            let tape = Tape::start().unwrap();
            let loss = model.loss(&batch, &Mode::Train(Rng::new(0, "train", step))).unwrap();
            let names = loss.terms.iter().map(|(name, _)| *name).collect::<Vec<_>>();
            assert_eq!(names, if text.contains("flow") { vec!["mse"] } else { vec!["mse", "bound"] });
            optimizer.step(&mut tape.backward(&loss.loss).unwrap(), 3e-3, Some(3.0)).unwrap();
        }
        assert_eq!(before.is_none(), text.contains("flow"));
        assert!(before.zip(bound()).is_none_or(|(before, after)| after < before));
        assert!(model.likelihood(&batch).unwrap().is_none());
        let samples = model.sample(&SampleRequest::new(classes(CLASSES)), &Rng::new(0, "sample", 0)).unwrap();
        let error = samples.vectors().unwrap().mse(&maps).unwrap().item().unwrap();
        // Of another class's map it would be 2.
        assert!(error < 0.3, "{text}: {error}");
    }
}

#[test]
fn what_it_wants_follows_from_the_tokens() {
    let of = |level| built("loss: diffusion", &context(Params::new(3), level)).unwrap();
    let vectors = of(of_vectors(4));
    assert_eq!(vectors.wants(), TokenRequest { posterior_draws: true, ..TokenRequest::default() });
    assert!(!vectors.draws_codes());
    assert!(!vectors.decays("diffloss.net.input_proj.weight", &[12, 4]) && vectors.decays("z_proj.weight", &[12, 4]));
    let codes = of(level([2, 3], &[7, 5], false));
    assert_eq!(codes.wants(), TokenRequest::default());
    for (model, shape) in [(vectors, [0, 2, 3, 4]), (codes, [0, 2, 3, 2])] {
        let none = model.sample(&SampleRequest::new(classes(0)), &Rng::new(0, "s", 0)).unwrap();
        assert_eq!(none.shape(), shape);
    }
}

#[test]
fn what_a_diffusion_cannot_do_is_refused() {
    for (text, part) in [
        ("loss: diffusion, sampling_steps: 1001", "`sampling_steps`"),
        ("loss: diffusion, noise_steps: 7, sampling_steps: 8", "`sampling_steps`"),
        ("loss: diffusion, targets: soft", "`targets`"),
        ("loss: flow, codes: stochastic", "`codes`"),
        ("loss: flow, classifier_bias: false", "`classifier_bias`"),
        ("loss: flow, condition_rows: codes", "`condition_rows`"),
        ("loss: cross_entropy", "take `loss: diffusion`"),
    ] {
        let refused = built(text, &context(Params::dry(), of_vectors(4))).unwrap_err().to_string();
        assert!(refused.contains(part), "{text}: {refused}");
    }
    let model = built("loss: flow", &context(Params::new(3), of_vectors(4))).unwrap();
    for draw in [Draw { top_k: Some(3), ..Draw::default() }, Draw { top_p: Some(0.9), ..Draw::default() }] {
        let request = SampleRequest { draw: vec![draw], ..SampleRequest::new(classes(2)) };
        assert!(model.sample(&request, &Rng::new(0, "s", 0)).unwrap_err().to_string().contains("`top_k` and `top_p`"));
    }
    let bare = TokenSpace::Codes(CodeSpace { sizes: vec![7], tables: vec![], shared: false });
    let bare = built("loss: flow", &context(Params::new(3), LevelInfo { space: bare, ..of_vectors(5) })).unwrap();
    let refused = bare.loss(&batch(&[7], 2, 1), &Mode::Eval).unwrap_err().to_string();
    assert!(refused.contains("`loss: cross_entropy`"), "{refused}");
}
