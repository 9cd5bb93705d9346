//! Priors: their logits, or what a diffusion head says.

use crate::published::{Imported, case, expect, exports_its_bits, import, weights};
use rqlab_prior_ar::{Ar, ArConfig};
use rqlab_prior_mar::{Mar, MarConfig};
use rqlab_prior_pixelsnail::{PixelSnail, PixelSnailConfig};
use rqlab_prior_rq_transformer::{RqTransformer, RqTransformerConfig};
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::nn::Orders;
use rqlab_sdk::prelude::*;
use rqlab_tests::lab::Lab;
use rqlab_tests::parity::{Case, Outputs};
use std::fs;

#[test]
fn rqtransformer() {
    let Some(folder) = case("rqtransformer") else { return };
    let Some(stage1) = case("rqvae") else { return };
    let (case, file, lab) = (Case::read(&folder).unwrap(), weights(&folder, &["pt"]), Lab::new().unwrap());
    import(&lab, &weights(&stage1, &["pt"]), "rqvae", "");
    let tokenizer = Imported::read(&lab, "rqvae");
    let (given, conditions) = (case.codes("in.codes").unwrap(), case.codes("in.cond").unwrap());
    let mut out = Outputs::default();
    for (name, weights) in [("out.logits", "plain"), ("out.ema.logits", "ema")] {
        if !case.wants(name) {
            continue;
        }
        import(&lab, &file, weights, &format!("--weights {weights}"));
        let checkpoint = Checkpoint::load_sealed(&lab.path(&format!("imports/{weights}.safetensors"))).unwrap();
        let params = Params::new(0);
        let rows = checkpoint.tensors["prior.cond_emb.weight"].shape()[0];
        let length = conditions.last_dim();
        let condition = match length {
            1 => ConditionSpace::Classes(rows),
            length => ConditionSpace::Text { vocabulary: rows, length },
        };
        let cx = PriorContext {
            levels: tokenizer.quantizers.iter().map(|quantizer| quantizer.level()).collect(),
            level: 0,
            condition,
            null_condition: false,
            params: params.scope("prior"),
            components: Components::none(),
        };
        let config = RqTransformerConfig::parse(&checkpoint.metadata["prior"]).unwrap();
        let model = RqTransformer::new(config, &cx).unwrap();
        params.load(&checkpoint.tensors).unwrap();
        let images = given.shape()[0];
        let of = match length {
            1 => Given::Classes(conditions.reshape(&[images]).unwrap()),
            _ => Given::Text(conditions.clone()),
        };
        let present = Codes::from_vec(vec![1; images], &[images]).unwrap();
        let hidden = model.forward(&given, &Condition { given: of, present }, &Mode::Eval).unwrap();
        let logits = model.logits(&hidden).unwrap();
        let together = Tensor::stack(&logits.iter().collect::<Vec<_>>(), 1).unwrap();
        let shape: Vec<usize> = given.shape().iter().copied().chain([together.last_dim()]).collect();
        out.tensor(name, &together.reshape(&shape).unwrap());
    }
    expect(&case, &out);
    exports_its_bits(&lab, &file, "plain", &|path| path.strip_prefix("state_dict/").map(str::to_owned));
}

/// Tokens that are known, then those that are masked, each in raster order.
fn orders(mask: &Tensor) -> (Orders, usize) {
    let (length, masked) = (mask.last_dim(), mask.as_slice().chunks(mask.last_dim()).next().unwrap());
    let known = masked.iter().filter(|&&masked| masked == 0.0).count();
    let order = |image: &[f32]| {
        let mut order: Vec<u32> = (0..length as u32).collect();
        order.sort_by_key(|&place| image[place as usize] != 0.0);
        order
    };
    (Orders::new(mask.as_slice().chunks(length).flat_map(order).collect(), length).unwrap(), known)
}

#[test]
fn mar() {
    let Some(folder) = case("mar") else { return };
    let (case, file, lab) = (Case::read(&folder).unwrap(), weights(&folder, &["pth"]), Lab::new().unwrap());
    lab.write("mar.json", case.config.to_string()).unwrap();
    let (orders, known) = orders(&case.tensor("in.mask").unwrap());
    let labels = Condition::classes(case.codes("in.labels").unwrap()).unwrap();
    let tokens = Tokens::Vectors(case.map("in.latent").unwrap());
    let mut out = Outputs::default();
    for (name, prefix) in [("plain", "out."), ("ema", "out.ema.")] {
        if !case.wants(&format!("{prefix}z")) {
            continue;
        }
        let said = import(&lab, &file, name, &format!("--weights {name} --config mar.json"));
        assert!(said.out.contains("mar"), "{}", said.out);
        let base = lab.read(&format!("imports/{name}.ron")).unwrap();
        assert!(base.contains("condition_dropout: 0.1"), "{base}");
        let checkpoint = Checkpoint::load_sealed(&lab.path(&format!("imports/{name}.safetensors"))).unwrap();
        let params = Params::new(0);
        let &[_, height, width, channels] = tokens.shape() else { panic!("a latent is [B, H, W, C]") };
        let space = TokenSpace::Vectors { channels };
        let cx = PriorContext {
            levels: vec![LevelInfo { height, width, channels, space, scales: None }],
            level: 0,
            condition: ConditionSpace::Classes(checkpoint.tensors["prior.class_emb.weight"].shape()[0] - 1),
            null_condition: true,
            params: params.scope("prior"),
            components: Components::none(),
        };
        let model = Mar::new(MarConfig::parse(&checkpoint.metadata["prior"]).unwrap(), &cx).unwrap();
        params.load(&checkpoint.tensors).unwrap();

        let net = model.masked().unwrap();
        let visible = orders.pick(&model.read(&tokens).unwrap(), 0..known).unwrap();
        let condition = model.embed_condition(&labels).unwrap();
        let encoded = net.encode(&visible, &condition, &orders, &Mode::Eval).unwrap();
        let z = net.decode(&encoded, 0..orders.length(), &orders, &Mode::Eval).unwrap();
        let z = orders.restore(&z).unwrap();
        out.tensor(format!("{prefix}z"), &z);
        let denoiser = &model.diffusion().unwrap().net;
        let rows = z.reshape(&[z.len() / z.last_dim(), z.last_dim()]).unwrap();
        let times = denoiser.embed_times(case.tensor("in.t").unwrap().as_slice()).unwrap();
        let conditions = denoiser.embed_condition(&rows).unwrap();
        let noised = case.tensor("in.x_t").unwrap();
        out.tensor(format!("{prefix}denoiser"), &denoiser.forward(&noised, &times, &conditions).unwrap());
        out.tensor("out.tokens", &model.vectors(&tokens).unwrap());
    }
    expect(&case, &out);
    exports_its_bits(&lab, &file, "plain", &|path| path.strip_prefix("model/").map(str::to_owned));
    let refused = lab.run(&format!("import {} --as mar", file.display())).unwrap();
    assert!(refused.code != Some(0) && refused.err.contains("encoder_num_heads"), "{}", refused.err);
}

/// Builds the imported prior `ar` over codes of `sizes` on a map, and loads its weights.
fn imported_ar(lab: &Lab, name: &str, codes: usize, [height, width]: [usize; 2], cx: (ConditionSpace, bool)) -> Ar {
    let checkpoint = Checkpoint::load_sealed(&lab.path(&format!("imports/{name}.safetensors"))).unwrap();
    let params = Params::new(0);
    let space = TokenSpace::Codes(CodeSpace { sizes: vec![codes], tables: vec![], shared: false });
    let cx = PriorContext {
        levels: vec![LevelInfo { height, width, channels: 1, space, scales: None }],
        level: 0,
        condition: cx.0,
        null_condition: cx.1,
        params: params.scope("prior"),
        components: Components::none(),
    };
    let model = Ar::new(ArConfig::parse(&checkpoint.metadata["prior"]).unwrap(), &cx).unwrap();
    params.load(&checkpoint.tensors).unwrap();
    model
}

/// The sides of a square map of so many codes.
fn square(codes: usize) -> [usize; 2] {
    let side = codes.isqrt();
    assert_eq!(side * side, codes);
    [side, side]
}

#[test]
fn taming_transformer() {
    let Some(folder) = case("taming_transformer") else { return };
    let (case, file, lab) = (Case::read(&folder).unwrap(), weights(&folder, &["ckpt"]), Lab::new().unwrap());
    import(&lab, &file, "gpt", "--system taming_transformer");
    let wanted = case.wanted_shape("out.logits").unwrap().to_vec();
    let sides = square(wanted[1]);
    let given = case.array("out.codes").or_else(|_| case.array("in.codes")).unwrap();
    let codes = given.data.iter().map(|&code| code as u32).collect();
    let codes = Codes::from_vec(codes, &[wanted[0], sides[0], sides[1], 1]).unwrap();
    let (space, condition) = match case.number("cond_stage_config/params/n_classes") {
        Ok(classes) => {
            let labels = Condition::classes(case.codes("in.labels").unwrap()).unwrap();
            (ConditionSpace::Classes(classes as usize), labels)
        }
        Err(_) => (ConditionSpace::None, Condition::none(wanted[0]).unwrap()),
    };
    let model = imported_ar(&lab, "gpt", wanted[2], sides, (space, false));
    let mut out = Outputs::default();
    out.not_yet("out.codes", "the first stage");
    out.not_yet("out.recon", "the first stage");
    out.tensor("out.logits", &model.logits(&codes, &condition).unwrap()[0].reshape(&wanted).unwrap());
    expect(&case, &out);
    let own = |path: &str| {
        let name = path.strip_prefix("state_dict/")?;
        (name.starts_with("transformer.") && !name.ends_with(".attn.mask")).then(|| name.to_owned())
    };
    exports_its_bits(&lab, &file, "gpt", &own);
    let yaml = fs::read_to_string(folder.join("project.yaml")).unwrap();
    for (from, to, told) in [
        ("taming.modules.util.Labelator", "taming.modules.misc.coord.CoordStage", "cond_stage_config.target"),
        ("        n_layer:", "        n_unmasked: 3\n        n_layer:", "n_unmasked"),
    ] {
        lab.write("other.yaml", yaml.replace(from, to)).unwrap();
        if lab.read("other.yaml").unwrap() != yaml {
            let refused = lab
                .run(&format!("import {} --as no --system taming_transformer --config other.yaml", file.display()))
                .unwrap();
            assert!(refused.code != Some(0) && refused.err.contains(told), "{}", refused.err);
        }
    }
}

#[test]
fn llamagen_gpt() {
    let Some(folder) = case("llamagen_gpt") else { return };
    let (case, file, lab) = (Case::read(&folder).unwrap(), weights(&folder, &["pt"]), Lab::new().unwrap());
    lab.write("gpt.json", case.config.to_string()).unwrap();
    import(&lab, &file, "gpt", "--config gpt.json");
    let base = lab.read("imports/gpt.ron").unwrap();
    assert!(base.contains("condition_dropout: 0.1"), "{base}");
    let wanted = case.wanted_shape("out.logits").unwrap().to_vec();
    let (sides, classes) = (square(wanted[1]), case.size("num_classes").unwrap());
    let model = imported_ar(&lab, "gpt", wanted[2], sides, (ConditionSpace::Classes(classes), true));
    let codes = case.codes("in.codes").unwrap().reshape(&[wanted[0], sides[0], sides[1], 1]).unwrap();
    // The class after the last is none.
    let labels = case.codes("in.labels").unwrap();
    let present = labels.as_slice().iter().map(|&label| u32::from((label as usize) < classes)).collect();
    let known = labels.as_slice().iter().map(|&label| label.min(classes as u32 - 1)).collect();
    let condition = Condition {
        given: Given::Classes(Codes::from_vec(known, &[wanted[0]]).unwrap()),
        present: Codes::from_vec(present, &[wanted[0]]).unwrap(),
    };
    let mut out = Outputs::default();
    out.tensor("out.logits", &model.logits(&codes, &condition).unwrap()[0].reshape(&wanted).unwrap());
    expect(&case, &out);
    exports_its_bits(&lab, &file, "gpt", &|path| {
        Some(path.strip_prefix("model/").unwrap_or(path).to_owned()).filter(|name| !name.contains('/'))
    });
    let refused = lab.run(&format!("import {} --as no", file.display())).unwrap();
    assert!(refused.code != Some(0) && refused.err.contains("n_head"), "{}", refused.err);
}

/// A prior of VQ-VAE-2's top or bottom level, whose condition is the map above.
fn pixelsnail(name: &str) {
    let Some(folder) = case(name) else { return };
    let (case, file, lab) = (Case::read(&folder).unwrap(), weights(&folder, &["pt"]), Lab::new().unwrap());
    let said = import(&lab, &file, "prior", "");
    assert!(said.out.contains("pixelsnail"), "{}", said.out);
    let checkpoint = Checkpoint::load_sealed(&lab.path("imports/prior.safetensors")).unwrap();
    let config = PixelSnailConfig::parse(&checkpoint.metadata["prior"]).unwrap();
    let tokens = |name: &str| {
        let codes = case.codes(name).unwrap();
        codes.reshape(&[codes.shape(), &[1]].concat()).unwrap()
    };
    let size = case.size("n_class").unwrap();
    let level = |codes: &Codes| {
        let space = TokenSpace::Codes(CodeSpace { sizes: vec![size], tables: vec![], shared: false });
        LevelInfo { height: codes.shape()[1], width: codes.shape()[2], channels: 1, space, scales: None }
    };
    let above: Vec<Codes> = if case.has("in.condition") { vec![tokens("in.condition")] } else { vec![] };
    let codes = tokens("in.codes");
    let params = Params::new(0);
    let cx = PriorContext {
        levels: above.iter().chain([&codes]).map(level).collect(),
        level: above.len(),
        condition: ConditionSpace::None,
        null_condition: false,
        params: params.scope("prior"),
        components: Components::none(),
    };
    let model = PixelSnail::new(config, &cx).unwrap();
    params.load(&checkpoint.tensors).unwrap();
    let above: Vec<Tokens> = above.into_iter().map(Tokens::Codes).collect();
    let condition = Condition::none(codes.shape()[0]).unwrap();
    let mut out = Outputs::default();
    out.map("out.logits", &model.logits(&codes, &condition, &above, &Mode::Eval).unwrap()).unwrap();
    expect(&case, &out);
    let own = |path: &str| path.strip_prefix("model/").filter(|name| *name != "background").map(str::to_owned);
    exports_its_bits(&lab, &file, "prior", &own);
}

#[test]
fn pixelsnail_top() {
    pixelsnail("pixelsnail_top");
}

#[test]
fn pixelsnail_bottom() {
    pixelsnail("pixelsnail_bottom");
}
