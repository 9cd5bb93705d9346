#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::tensor::Tape;

fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(shape.iter().product()), shape).unwrap()
}

fn vq(text: &str) -> (Vq, Params) {
    let params = Params::new(1);
    let latents = MapShape { height: 2, width: 3, channels: 4 };
    let cx = QuantizerContext { latents, params: params.clone(), components: Components::none() };
    (Vq::new(VqConfig::parse(text).unwrap(), &cx).unwrap(), params)
}

fn codes(quantized: &Quantized) -> Codes {
    quantized.tokens.codes().unwrap().clone()
}

fn close(got: &Tensor, wanted: &[f32]) {
    assert_eq!(got.len(), wanted.len());
    for (a, b) in got.as_slice().iter().zip(wanted) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

/// The gradients of `loss = |sg(z) - e|² + beta |z - sg(e)|²`, by hand: `2 beta (z - e) / n` at z, and at each code the sum
/// of `2 (e - z) / n` over its vectors.
#[test]
fn losses_send_their_gradients_where_beta_says() {
    let z = random(&[2, 2, 3, 4], 2).leaf();
    for (text, on_z, on_e) in [
        ("vq(codebook: 5, codebook_update: gradient, beta: 0.3)", 0.3, 1.0),
        ("vq(codebook: 5, codebook_update: gradient, beta: 0.3, beta_on: codebook)", 1.0, 0.3),
        ("vq(codebook: 5, beta: 0.3)", 0.3, 0.0),
    ] {
        let (vq, params) = vq(text);
        let tape = Tape::start().unwrap();
        let quantized = vq.quantize(&z).unwrap();
        let mut gradients = tape.backward(&quantized.loss).unwrap();
        let (codes, e) = (codes(&quantized), vq.book.weight());
        let (mut at_z, mut at_e) = (Vec::new(), vec![0.0; e.len()]);
        for (z, &code) in z.as_slice().chunks(4).zip(codes.as_slice()) {
            let row = code as usize * 4..code as usize * 4 + 4;
            for ((z, e), g) in z.iter().zip(&e.as_slice()[row.clone()]).zip(&mut at_e[row]) {
                at_z.push(on_z * 2.0 * (z - e) / 48.0);
                *g += on_e * 2.0 * (e - z) / 48.0;
            }
        }
        close(&gradients.take(&z).unwrap(), &at_z);
        let trained = params.trained();
        assert_eq!(trained.len(), usize::from(on_e > 0.0));
        for (_, weight) in trained {
            close(&gradients.take(&weight.get()).unwrap(), &at_e);
        }
        let energy = quantized.residual_energy.item().unwrap();
        assert!((quantized.loss.item().unwrap() - energy * (on_z + on_e)).abs() < 1e-6);
    }
}

#[test]
fn the_gradient_of_the_value_passes_straight_through() {
    let (z, g) = (random(&[6, 4], 3).leaf(), random(&[6, 4], 4));
    for text in ["vq(codebook: 5)", "vq(codebook: 5, codebook_update: gradient)"] {
        let (vq, params) = vq(text);
        let tape = Tape::start().unwrap();
        let quantized = vq.quantize(&z).unwrap();
        let mut gradients = tape.backward(&quantized.latents.mul(&g).unwrap().sum_all().unwrap()).unwrap();
        assert_eq!(gradients.take(&z).unwrap().to_vec(), g.to_vec());
        assert!(params.trained().iter().all(|(_, weight)| gradients.take(&weight.get()).is_none()));
        assert_eq!(quantized.latents.to_vec(), vq.embed(&quantized.tokens, None).unwrap().to_vec());
    }
}

#[test]
fn training_moves_an_ema_codebook_and_evaluation_moves_none() {
    let z = random(&[8, 2, 3, 4], 5);
    for (text, moves) in [("vq(codebook: 5)", true), ("vq(codebook: 5, codebook_update: gradient)", false)] {
        let (mut vq, params) = vq(text);
        let numbers = |params: &Params| params.state().values().map(Tensor::to_vec).collect::<Vec<_>>();
        let before = numbers(&params);
        vq.quantize(&z).unwrap();
        let request = TokenRequest { stochastic_codes: Some(1.0), ..TokenRequest::default() };
        vq.tokens(&z, &request, &Rng::new(1, "draw", 0)).unwrap();
        assert_eq!(numbers(&params), before);
        let trained = vq.quantize_train(&z, &Rng::new(1, "step", 0)).unwrap();
        assert_eq!(numbers(&params) != before, moves);
        assert_eq!(trained.events.is_empty(), !moves);
    }
}

/// With decay 0 one step of training is one step of k-means: every code becomes the mean of its vectors.
#[test]
fn without_memory_a_step_is_a_step_of_k_means() {
    let (mut vq, _) = vq("vq(codebook: 3, decay: 0.0, eps: 0.0, dead_codes: keep)");
    let z = random(&[40, 4], 6);
    let codes = codes(&vq.quantize_train(&z, &Rng::new(1, "step", 0)).unwrap());
    let weight = vq.book.weight();
    for code in 0..3 {
        let own = |row: &(&[f32], &u32)| *row.1 == code;
        let rows: Vec<_> = z.as_slice().chunks(4).zip(codes.as_slice()).filter(own).collect();
        for c in 0..4 {
            let mean = rows.iter().map(|(z, _)| z[c]).sum::<f32>() / rows.len() as f32;
            assert!((weight.as_slice()[code as usize * 4 + c] - mean).abs() < 1e-5);
        }
    }
}

/// All vectors are alike, so that most codes never get one.
#[test]
fn codes_without_restarts_are_not_thrown_away() {
    let x = random(&[1, 1, 1, 4], 2).broadcast_to(&[2, 2, 3, 4]).unwrap();
    let (mut vq, _) = vq("vq(codebook: 64, dead_codes: keep)");
    for step in 0..500 {
        vq.quantize_train(&x, &Rng::new(1, "step", step)).unwrap();
        let largest = vq.book.weight().as_slice().iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
        assert!(largest < 5.0, "step {step}: {largest}");
    }
}

#[test]
fn contradictions_are_refused_with_a_remedy() {
    let refused = |text: &str| {
        let latents = MapShape { height: 1, width: 1, channels: 1 };
        let cx = QuantizerContext { latents, params: Params::dry(), components: Components::none() };
        Vq::new(VqConfig::parse(text).unwrap(), &cx).unwrap_err().to_string()
    };
    for text in ["vq(beta_on: codebook)", "vq(orthogonal_weight: 1.0)", "vq(dead_codes: anchored)"] {
        assert!(refused(text).contains("codebook_update: gradient"), "{text}");
    }
    assert!(refused("vq(codebook_update: gradient, dead_codes: restart)").contains("`anchored`"));
    for text in ["vq(codebook: 1)", "vq(stochastic_codes: 0.0)", "vq(entropy_temperature: 0.0)", "vq(code_dim: 0)"] {
        assert!(VqConfig::parse(text).is_err(), "{text}");
    }
}

#[test]
fn normalized_codes_have_length_one_and_a_lookup_keeps_their_own() {
    let z = random(&[40, 4], 8);
    let lengths =
        |x: &Tensor| x.as_slice().chunks(4).map(|x| x.iter().map(|x| x * x).sum::<f32>().sqrt()).collect::<Vec<_>>();
    for update in ["ema", "gradient"] {
        let build = |normalize: &str| {
            vq(&format!("vq(codebook: 6, codebook_update: {update}, init: normal, normalize: {normalize})")).0
        };
        let (always, lookup) = (build("always").quantize(&z).unwrap(), build("lookup").quantize(&z).unwrap());
        assert!(lengths(&always.latents).iter().all(|length| (length - 1.0).abs() < 1e-5));
        assert!(lengths(&lookup.latents).iter().any(|length| (length - 1.0).abs() > 0.1));
        // Both look for the largest cosine, in a codebook that only `ema` has already normalized.
        assert_eq!(codes(&always), codes(&lookup));
    }
}

#[test]
fn a_small_code_dimension_is_reached_and_left_by_linear_maps() {
    let (vq, params) = vq("vq(codebook: 8, code_dim: 2)");
    assert_eq!((params.trained().len(), params.state()["codebooks.0.weight"].shape()), (4, &[8, 2][..]));
    let quantized = vq.quantize(&random(&[2, 2, 3, 4], 9)).unwrap();
    let table = vq.level().codes().unwrap().tables[0].clone();
    assert_eq!(table.shape(), [8, 4]);
    let rows = table.embedding(&codes(&quantized).column(0).unwrap()).unwrap();
    close(&rows, quantized.latents.as_slice());
}

/// A codebook of all the vectors' means: k-means in the first step, and never again.
#[test]
fn a_codebook_starts_from_its_first_batch_and_a_resumed_one_does_not_start_again() {
    let z = random(&[64, 4], 10);
    for update in ["ema", "gradient"] {
        let text = format!("vq(codebook: 8, codebook_update: {update}, init: kmeans, dead_codes: keep, decay: 0.5)");
        let step = |vq: &mut Vq, step| vq.quantize_train(&z, &Rng::new(1, "step", step)).unwrap();
        let (mut unbroken, all) = vq(&text);
        let before = unbroken.quantize(&z).unwrap().residual_energy.item().unwrap();
        let started = step(&mut unbroken, 0).residual_energy.item().unwrap();
        assert!(started < 0.7 * before, "{started} {before}");
        let (mut resumed, state) = vq(&text);
        state.load(&all.state()).unwrap();
        step(&mut unbroken, 1);
        step(&mut resumed, 1);
        let numbers = |params: &Params| params.state().values().map(Tensor::to_vec).collect::<Vec<_>>();
        assert_eq!(numbers(&state), numbers(&all));
    }
}

/// All vectors lie in one corner: codes that get none move all the way to an anchor, used ones stay.
#[test]
fn unused_codes_move_to_their_anchors() {
    let z = random(&[50, 4], 11).add_scalar(20.0).unwrap();
    for anchor in ["closest", "random", "by_distance"] {
        let (mut vq, _) = vq(&format!(
            "vq(codebook: 16, codebook_update: gradient, init: normal, dead_codes: anchored, anchor: {anchor})"
        ));
        let before = vq.book.weight().to_vec();
        let used = codes(&vq.quantize_train(&z, &Rng::new(1, "step", 0)).unwrap());
        let after = vq.book.weight().to_vec();
        for (code, (before, after)) in before.chunks(4).zip(after.chunks(4)).enumerate() {
            let moved = before.iter().zip(after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            if used.as_slice().contains(&(code as u32)) {
                assert!(moved < 1e-3, "{anchor}: {moved}");
            } else {
                let near = z.as_slice().chunks(4).any(|z| z.iter().zip(after).all(|(z, e)| (z - e).abs() < 0.1));
                assert!(near, "{anchor}: {after:?}");
            }
        }
    }
}

#[test]
fn drawn_codes_are_for_training_alone() {
    let z = random(&[300, 4], 12);
    let (mut drawn, _) = vq("vq(codebook: 8, stochastic_codes: 5.0)");
    let (mut cold, _) = vq("vq(codebook: 8, stochastic_codes: 1e-6)");
    let (nearest, _) = vq("vq(codebook: 8)");
    let wanted = codes(&nearest.quantize(&z).unwrap());
    assert_eq!(codes(&drawn.quantize(&z).unwrap()), wanted);
    assert_eq!(codes(&cold.quantize_train(&z, &Rng::new(1, "step", 0)).unwrap()), wanted);
    assert_ne!(codes(&drawn.quantize_train(&z, &Rng::new(1, "step", 0)).unwrap()), wanted);
}

/// `sum cos² / n² - 1/n`, by hand: 0 for orthogonal codes, (n - 1) / n for equal ones.
#[test]
fn the_orthogonal_loss_is_the_mean_squared_cosine_of_pairs() {
    let eye = Tensor::from_vec((0..16).map(|i| if i % 5 == 0 { 3.0 } else { 0.0 }).collect(), &[4, 4]).unwrap();
    let orthogonal = |codes: &Tensor, seen: &[f32]| {
        let seen = Tensor::from_vec(seen.to_vec(), &[seen.len()]).unwrap();
        losses::orthogonal(codes, &seen).unwrap().item().unwrap()
    };
    assert!(orthogonal(&eye, &[1.0; 4]).abs() < 1e-6);
    let equal = Tensor::full(2.0, &[4, 4]);
    assert!((orthogonal(&equal, &[1.0; 4]) - 0.75).abs() < 1e-6);
    // Codes that are not seen count for nothing.
    let some = Tensor::concat(&[&equal, &random(&[2, 4], 5)], 0).unwrap();
    assert!((orthogonal(&some, &[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]) - 0.75).abs() < 1e-6);
    let used = Codes::from_vec(vec![5, 1, 5, 9], &[4]).unwrap();
    let rng = Rng::new(1, "orthogonal", 0);
    let seen = |used: Option<&Codes>, most| {
        let seen = losses::seen_codes(12, used, most, &rng).unwrap().to_vec();
        assert!(seen.iter().all(|&seen| seen == 0.0 || seen == 1.0), "{seen:?}");
        (0..12).filter(|&code| seen[code] == 1.0).collect::<Vec<_>>()
    };
    assert_eq!(seen(Some(&used), None), [1, 5, 9]);
    let drawn = seen(Some(&used), Some(2));
    assert!(drawn.len() == 2 && drawn.iter().all(|code| [1, 5, 9].contains(code)), "{drawn:?}");
    assert_eq!((seen(Some(&used), Some(5)), seen(None, Some(4)).len()), (vec![1, 5, 9], 4));
    assert_eq!(seen(None, None), (0..12).collect::<Vec<_>>());
}

/// By its definition, in f64.
#[test]
fn the_entropy_loss_is_entropy_of_each_less_entropy_of_all() {
    let (z, e) = (random(&[9, 4], 13), random(&[5, 4], 14));
    let (mut sure, mut mean) = (0.0, vec![0.0; 5]);
    for z in z.as_slice().chunks(4) {
        let distance = |e: &[f32]| z.iter().zip(e).map(|(z, e)| f64::from(z - e).powi(2)).sum::<f64>();
        let p: Vec<f64> = e.as_slice().chunks(4).map(|e| (-distance(e) / 0.7).exp()).collect();
        let sum: f64 = p.iter().sum();
        for (p, mean) in p.iter().map(|p| p / sum).zip(&mut mean) {
            sure -= p * p.ln() / 9.0;
            *mean += p / 9.0;
        }
    }
    let spread: f64 = mean.iter().map(|m| -m * (m + 1e-5).ln()).sum();
    let got = losses::entropies(&z, &e, 0.7).unwrap().loss(1.0, 1.0).unwrap().item().unwrap();
    assert!((f64::from(got) - (sure - spread)).abs() < 1e-5, "{got} {}", sure - spread);
    let (vq, _) = vq("vq(codebook: 5, codebook_update: gradient, entropy_weight: 0.5, orthogonal_weight: 2.0)");
    let quantized = vq.quantize(&z).unwrap();
    let term = |name: &str| quantized.terms.iter().find(|(term, _)| *term == name).unwrap().1.item().unwrap();
    let entropy = term("sample_entropy") - term("codebook_entropy");
    let wanted = 0.25 * term("commitment") + term("codebook") + 2.0 * term("orthogonal") + 0.5 * entropy;
    assert!((quantized.loss.item().unwrap() - wanted).abs() < 1e-5);
}

#[test]
fn codes_have_one_depth() {
    let (vq, _) = vq("vq(codebook: 64)");
    assert_eq!(vq.level().nominal_bits(), Some(36.0));
    let x = random(&[2, 2, 3, 4], 7);
    let tokens = vq.quantize(&x).unwrap().tokens;
    assert_eq!(tokens.shape(), vq.level().token_shape(2));
    let soft = TokenRequest { soft_targets: Some(1e-4), ..TokenRequest::default() };
    let (nearest, targets) = vq.tokens(&x, &soft, &Rng::new(1, "draw", 0)).unwrap();
    assert_eq!(nearest.codes().unwrap(), tokens.codes().unwrap());
    assert!(matches!(targets, Targets::Soft(targets) if targets.len() == 1 && targets[0].shape() == [2, 2, 3, 64]));
    assert_eq!(vq.embed(&tokens, Some(1)).unwrap().shape(), x.shape());
    assert!(vq.embed(&tokens, Some(2)).is_err());
}

#[test]
fn every_variant_keeps_the_contract_of_a_quantizer() {
    let latents = MapShape { height: 3, width: 2, channels: 6 };
    for text in [
        "vq(codebook: 8)",
        "vq(codebook: 8, codebook_update: gradient, beta_on: codebook)",
        "vq(codebook: 8, dead_codes: keep)",
        "vq(codebook: 8, code_dim: 3, normalize: always, codebook_update: gradient, entropy_weight: 0.1)",
        "vq(codebook: 8, normalize: always, init: kmeans, dead_codes: threshold, stochastic_codes: 0.5)",
        "vq(codebook: 8, normalize: lookup, estimator: rotation, init: kmeans)",
        "vq(codebook: 8, codebook_update: gradient, dead_codes: anchored, anchor: by_distance, init: kmeans)",
        "vq(codebook: 8, codebook_update: gradient, orthogonal_weight: 1.0, orthogonal_active_only: true, \
         orthogonal_max_codes: 4)",
    ] {
        let config = VqConfig::parse(text).unwrap();
        rqlab_sdk::testing::quantizer(latents, |cx| Vq::new(config.clone(), cx));
    }
}
