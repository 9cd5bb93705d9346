#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::tensor::Tape;
use rqlab_sdk::tensor::ops::conv::Conv2d as Strides;

const IMAGE: MapShape = MapShape { height: 13, width: 12, channels: 3 };

fn build(text: &str) -> impl Fn(&ObjectiveContext) -> Result<PatchGan> {
    let config = PatchGanConfig::parse(text).unwrap();
    move |cx| PatchGan::new(config.clone(), cx)
}

fn complaint(text: &str, image: MapShape) -> String {
    build(text)(&ObjectiveContext::new(image, Params::dry())).unwrap_err().to_string()
}

fn pictures(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "pictures", 0).normal(shape.iter().product()), shape).unwrap()
}

/// LeCam's averages rest here: finite differences ask for the same loss again and again.
#[test]
fn every_kind_keeps_the_contract_of_an_objective() {
    for text in [
        "patch_gan(n_layers: 2, width: 4)",
        "patch_gan(n_layers: 1, width: 4, norm: group, groups: 2, loss: vanilla, lecam: 0.1, lecam_decay: 1.0)",
        "patch_gan(n_layers: 1, width: 4, norm: none, loss: non_saturating, image_mean: true, lecam: 0.1, lecam_decay: 1.0, lecam_order: before)",
        "patch_gan(discriminator: blur_patch, n_layers: 2, width: 4, groups: 2, pool: Some(5), blur: 3)",
        "patch_gan(discriminator: blur_patch, n_layers: 1, width: 4, groups: 4, pool: None, adaptive: false)",
    ] {
        rqlab_sdk::testing::objective(IMAGE, build(text));
    }
}

/// Isola et al. 2017, section 6.1.2; names as in VQGAN's checkpoints.
#[test]
fn a_patch_discriminator_is_the_published_one() {
    let cx = ObjectiveContext::new(MapShape { height: 32, width: 32, channels: 3 }, Params::new(0));
    let gan = build("patch_gan(n_layers: 2, width: 32)")(&cx).unwrap();
    assert_eq!(cx.params.count(), 167_841);
    let weight = |name: &str| cx.params.state()[name].clone();
    assert_eq!(weight("main.5.weight").shape(), [128, 64, 4, 4]);
    assert_eq!(weight("main.6.running_var").to_vec(), [1.0; 128]);
    assert!(!cx.params.state().contains_key("main.2.bias"));
    let spread = |name: &str, mean: f32| {
        let x = weight(name).to_vec();
        (x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / x.len() as f32).sqrt()
    };
    assert!((spread("main.5.weight", 0.0) - 0.02).abs() < 1e-3 && (spread("main.6.weight", 1.0) - 0.02).abs() < 5e-3);
    assert_eq!(gan.logits(&pictures(1, &[2, 32, 32, 3])).unwrap().shape(), [2, 6, 6, 1]);
}

#[test]
fn it_waits_for_its_start_and_has_its_weight() {
    let cx = ObjectiveContext::new(IMAGE, Params::new(0));
    let mut gan = build("patch_gan(n_layers: 1, width: 2, start: 7, weight: 0.5, limit: 9.0)")(&cx).unwrap();
    assert_eq!(gan.weight(6), Weight::Fixed(0.0));
    assert_eq!(gan.weight(7), Weight::Adaptive { scale: 0.5, limit: 9.0 });
    let images = pictures(1, &[2, 13, 12, 3]);
    let rng = Rng::new(0, "objective", 0);
    for (step, learns) in [(6, false), (7, true)] {
        let asked = Reconstruction { images: &images, output: &images, step, rng: &rng };
        assert_eq!(gan.critic(&asked).unwrap().is_some(), learns);
    }
    let fixed =
        build("patch_gan(n_layers: 1, width: 2, adaptive: false)")(&ObjectiveContext::new(IMAGE, Params::new(0)));
    assert_eq!(fixed.unwrap().weight(0), Weight::Fixed(0.8));
}

#[test]
fn a_discriminator_larger_than_its_image_is_refused() {
    let message = complaint("patch_gan(n_layers: 3)", IMAGE);
    assert!(
        message.contains("`n_layers`") && message.contains("13 x 12") && message.contains("n_layers: 2"),
        "{message}"
    );
    let message = complaint("patch_gan(discriminator: blur_patch, n_layers: 5, width: 32)", IMAGE);
    assert!(message.contains("n_layers: 4"), "{message}");
    assert!(complaint("patch_gan(n_layers: 1, norm: group, width: 8)", IMAGE).contains("`groups`"));
    assert!(complaint("patch_gan(n_layers: 1)", MapShape { height: 5, ..IMAGE }).contains("no number of layers"));
}

/// A batch norm's running statistics move with every pass of training, and with no pass that a penalty needs.
#[test]
fn running_statistics_move_three_times_in_a_step() {
    let moved = |text: &str| {
        let cx = ObjectiveContext::new(IMAGE, Params::new(0));
        let mut gan = build(text)(&cx).unwrap();
        let images = pictures(1, &[2, 13, 12, 3]);
        let rng = Rng::new(0, "objective", 0);
        let asked = Reconstruction { images: &images, output: &images, step: 0, rng: &rng };
        let tape = Tape::start().unwrap();
        gan.loss(&asked).unwrap();
        gan.critic(&asked).unwrap();
        drop(tape);
        cx.params.state()["main.3.running_mean"].to_vec()
    };
    let (plain, penalised) =
        (moved("patch_gan(n_layers: 1, width: 2)"), moved("patch_gan(n_layers: 1, width: 2, r1: 5.0)"));
    assert_eq!(plain, penalised);
    // The same images thrice: the mean keeps 0.9³ of its start, which is 0.
    let cx = ObjectiveContext::new(IMAGE, Params::new(0));
    let gan = build("patch_gan(n_layers: 1, width: 2)")(&cx).unwrap();
    gan.logits(&pictures(1, &[2, 13, 12, 3])).unwrap();
    let once = cx.params.state()["main.3.running_mean"].to_vec();
    for (thrice, once) in plain.iter().zip(once) {
        let wanted = once / 0.1 * (1.0 - 0.9f32.powi(3));
        assert!((thrice - wanted).abs() < 1e-5, "{thrice}, wanted {wanted}");
    }
}

/// The gradient of R1 in a weight is that of finite differences of R1 itself; of networks without kinks, where R1 jumps.
#[test]
fn r1_has_the_gradients_of_its_definition() {
    let weights = [Var::parameter(&pictures(1, &[4, 3, 3, 3])), Var::parameter(&pictures(2, &[1, 4, 3, 3]))];
    let scale = pictures(3, &[4]).add_scalar(3.0).unwrap();
    let square = |x: &Dual| -> Result<Dual> {
        let derivative =
            x.derivative.as_ref().map(|d| Ok::<_, Error>(d.mul(&x.value)?.mul_scalar(2.0)?)).transpose()?;
        Ok(Dual { value: x.value.square()?, derivative })
    };
    let shift = Tensor::zeros(&[4]);
    type Middle<'a> = Box<dyn Fn(&Dual) -> Result<Dual> + 'a>;
    let middles: [Middle<'_>; 4] = [
        Box::new(|x| square(x)),
        Box::new(|x| square(&x.norm(2, &scale, 1e-5, |x| Ok(x.group_norm(2, &scale, &shift, 1e-5)?))?)),
        Box::new(|x| {
            let all = x.map(|x| Ok(x.reshape(&[1, x.len() / 4, 4])?))?;
            let normal = all.norm(4, &scale, 1e-5, |x| Ok(x.batch_norm(&scale, &shift, 1e-5)?.0))?;
            square(&normal.map(|x| Ok(x.reshape(&[2, 5, 4, 4])?))?)
        }),
        Box::new(|x| square(&x.map(|x| discriminator::blur(x, 4))?.adaptive_max_pool([2, 2])?)),
    ];
    let images = pictures(4, &[2, 5, 4, 3]);
    for (i, middle) in middles.iter().enumerate() {
        let network = |x: &Dual| {
            let hidden = middle(&x.conv(&weights[0].get(), None, Strides::same(3))?)?;
            hidden.conv(&weights[1].get(), None, Strides::same(3))
        };
        let tape = Tape::start().unwrap();
        let found = r1(&images, network).unwrap();
        let mut gradients = tape.backward(&found).unwrap();
        // Its value: the squared norm of the gradient of the summed logits.
        let leaf = images.leaf();
        let tape = Tape::start().unwrap();
        let logits = network(&Dual::plain(&leaf)).unwrap().value.sum_all().unwrap();
        let slope = tape.backward(&logits).unwrap().take(&leaf).unwrap();
        let wanted = slope.square().unwrap().sum_all().unwrap().item().unwrap() / 2.0;
        assert!((found.item().unwrap() - wanted).abs() < 1e-4 * wanted, "{i}: {found:?}, wanted {wanted}");
        for var in &weights {
            let gradient = gradients.take(&var.get()).unwrap().to_vec();
            // Along the gradient itself, where differences are largest.
            let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
            let (start, step) = (var.get().to_vec(), 1e-2);
            let at = |by: f32| {
                let moved = start.iter().zip(&gradient).map(|(x, g)| x + by * g / norm).collect();
                var.set(&Tensor::from_vec(moved, var.get().shape()).unwrap()).unwrap();
                r1(&images, network).unwrap().item().unwrap()
            };
            let difference = (at(step) - at(-step)) / (2.0 * step);
            at(0.0);
            assert!((difference - norm).abs() < 0.01 * norm, "{i}: {norm}, by differences {difference}");
        }
    }
}

/// Where a discriminator with kinks is looked at, R1 is the norm of its gradient, too.
#[test]
fn r1_of_every_discriminator_is_the_norm_of_its_gradient() {
    for text in [
        "patch_gan(n_layers: 1, width: 4, norm: none)",
        "patch_gan(n_layers: 1, width: 4, norm: group, groups: 2)",
        "patch_gan(n_layers: 1, width: 4)",
        "patch_gan(discriminator: blur_patch, n_layers: 1, width: 4, groups: 2, pool: Some(5))",
    ] {
        let gan = build(text)(&ObjectiveContext::new(IMAGE, Params::new(2))).unwrap();
        let images = pictures(1, &[2, 13, 12, 3]);
        let network = |x: &Dual| gan.discriminator.forward(x, Statistics::Keep);
        let found = r1(&images, network).unwrap().item().unwrap();
        let leaf = images.leaf();
        let tape = Tape::start().unwrap();
        let logits = network(&Dual::plain(&leaf)).unwrap().value.sum_all().unwrap();
        let slope = tape.backward(&logits).unwrap().take(&leaf).unwrap();
        let wanted = slope.square().unwrap().sum_all().unwrap().item().unwrap() / 2.0;
        assert!((found - wanted).abs() < 1e-4 * wanted, "{text}: {found}, wanted {wanted}");
    }
}

/// Of a linear network the gradient is its weight everywhere: R1 is known in closed form.
#[test]
fn r1_of_a_linear_network_is_the_square_of_its_weight() {
    let weight = Var::parameter(&pictures(5, &[1, 3, 1, 1]));
    let images = pictures(6, &[2, 4, 4, 3]);
    let tape = Tape::start().unwrap();
    let found = r1(&images, |images| images.conv(&weight.get(), None, Strides::same(1))).unwrap();
    let gradient = tape.backward(&found).unwrap().take(&weight.get()).unwrap();
    let square: f32 = weight.get().as_slice().iter().map(|w| w * w).sum();
    assert!((found.item().unwrap() - 16.0 * square).abs() < 1e-3);
    for (found, w) in gradient.as_slice().iter().zip(weight.get().as_slice()) {
        assert!((found - 32.0 * w).abs() < 1e-3, "{found}, wanted {}", 32.0 * w);
    }
}

#[test]
fn a_critic_that_is_no_number_stays_visible() {
    let cx = ObjectiveContext::new(IMAGE, Params::new(0));
    let mut gan = build("patch_gan(n_layers: 1, width: 2)")(&cx).unwrap();
    let images = Tensor::full(f32::NAN, &[2, 13, 12, 3]);
    let rng = Rng::new(0, "objective", 0);
    let asked = Reconstruction { images: &images, output: &images, step: 0, rng: &rng };
    assert!(gan.critic(&asked).unwrap().unwrap().loss.item().unwrap().is_nan());
}

/// Parameters and buffers are all that a critic is: it goes on from them as if it had not been interrupted.
#[test]
fn a_resumed_critic_is_the_unbroken_one() {
    let text = "patch_gan(n_layers: 1, width: 4, lecam: 0.1, r1: 1.0, r1_every: 2)";
    let steps = |gan: &mut PatchGan, params: &Params, range: std::ops::Range<u64>| {
        for step in range {
            let (images, output) = (pictures(step, &[2, 13, 12, 3]), pictures(100 + step, &[2, 13, 12, 3]));
            let rng = Rng::new(0, "objective", step);
            let asked = Reconstruction { images: &images, output: &output, step, rng: &rng };
            gan.loss(&asked).unwrap();
            let tape = Tape::start().unwrap();
            let loss = gan.critic(&asked).unwrap().unwrap().loss;
            let mut gradients = tape.backward(&loss).unwrap();
            for (_, var) in params.trained() {
                if let Some(gradient) = gradients.take(&var.get()) {
                    var.set(&var.get().sub(&gradient.mul_scalar(0.01).unwrap()).unwrap()).unwrap();
                }
            }
        }
    };
    let new = || {
        let cx = ObjectiveContext::new(IMAGE, Params::new(1));
        (build(text)(&cx).unwrap(), cx.params)
    };
    let (mut whole, params) = new();
    steps(&mut whole, &params, 0..6);
    let (mut first, kept) = new();
    steps(&mut first, &kept, 0..3);
    let (mut second, resumed) = new();
    resumed.load(&kept.state()).unwrap();
    steps(&mut second, &resumed, 3..6);
    for (name, wanted) in params.state() {
        assert_eq!(resumed.state()[&name].to_vec(), wanted.to_vec(), "{name}");
    }
    assert!(params.state().contains_key("ema_real") && params.state().contains_key("main.3.running_var"));
}
