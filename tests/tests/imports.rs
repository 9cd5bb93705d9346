//! Published checkpoints: every system's file is imported and computes what its authors' code did, is exported with equal bits,
//! and is what sweeps and pictures stand on. They lie in `shared/checkpoints` beside the workspace or above it, more of them in the
//! folder that `RQLAB_CHECKPOINTS` names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "it says when it skips")]

use rqlab_autoencoder_resnet::{Resnet, ResnetConfig};
use rqlab_autoencoder_vit::{Vit, VitConfig};
use rqlab_autoencoder_vqvae2::{Vqvae2, Vqvae2Config};
use rqlab_objective_patch_gan::discriminator::{Discriminator, Norm, Statistics};
use rqlab_objective_patch_gan::dual::Dual;
use rqlab_prior_ar::{Ar, ArConfig};
use rqlab_prior_mar::{Mar, MarConfig};
use rqlab_prior_pixelsnail::{PixelSnail, PixelSnailConfig};
use rqlab_prior_rq_transformer::{RqTransformer, RqTransformerConfig};
use rqlab_quantizer_kl::{Kl, KlConfig};
use rqlab_quantizer_rq::{Rq, RqConfig};
use rqlab_quantizer_vq::{Vq, VqConfig};
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::nn::Orders;
use rqlab_sdk::prelude::*;
use rqlab_tests::lab::{Lab, Said};
use rqlab_tests::parity::{Case, Outputs, compare};
use safetensors::SafeTensors;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of a case; none where there are no checkpoints.
fn case(name: &str) -> Option<PathBuf> {
    let given = env::var_os("RQLAB_CHECKPOINTS").map(PathBuf::from);
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared/checkpoints"));
    let folder = given.into_iter().chain(above).map(|folder| folder.join(name)).find(|folder| folder.is_dir());
    if folder.is_none() {
        eprintln!("skipped: there is no folder shared/checkpoints/{name}");
    }
    folder
}

/// The file of weights in a case's folder that ends so.
fn weights(folder: &Path, ends: &[&str]) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap() != "data.safetensors");
    files.sort();
    let is_wanted = |path: &PathBuf| ends.iter().any(|end| path.extension().is_some_and(|found| found == *end));
    files.into_iter().find(is_wanted).unwrap_or_else(|| panic!("{}: no file ends in {ends:?}", folder.display()))
}

fn ok(lab: &Lab, arguments: &str) -> Said {
    let said = lab.run(arguments).unwrap();
    assert_eq!(said.code, Some(0), "rqlab {arguments}\n{}\n{}", said.out, said.err);
    said
}

/// A tokenizer, built by its plugins' own code from what `rqlab import` wrote.
struct Imported {
    autoencoder: Box<dyn Autoencoder>,
    quantizers: Vec<Box<dyn Quantizer>>,
}

impl Imported {
    fn read(lab: &Lab, name: &str) -> Self {
        let checkpoint = Checkpoint::load_sealed(&lab.path(&format!("imports/{name}.safetensors"))).unwrap();
        let text = |name: &str| checkpoint.metadata[name].as_str();
        let sides: Vec<usize> = text("image").split(' ').map(|side| side.parse().unwrap()).collect();
        let image = MapShape { height: sides[0], width: sides[1], channels: sides[2] };
        let params = Params::new(0);
        let cx = AutoencoderContext { image, params: params.scope("autoencoder"), components: Components::none() };
        let call = text("autoencoder");
        let autoencoder: Box<dyn Autoencoder> = match call.split('(').next().unwrap() {
            "resnet" => Box::new(Resnet::new(ResnetConfig::parse(call).unwrap(), &cx).unwrap()),
            "vqvae2" => Box::new(Vqvae2::new(Vqvae2Config::parse(call).unwrap(), &cx).unwrap()),
            _ => Box::new(Vit::new(VitConfig::parse(call).unwrap(), &cx).unwrap()),
        };
        let (call, levels) = (text("quantizer"), autoencoder.levels());
        let mut quantizers: Vec<Box<dyn Quantizer>> = Vec::new();
        for (level, latents) in levels.iter().enumerate() {
            let scope = if levels.len() == 1 { "quantizer".to_owned() } else { format!("quantizer.{level}") };
            let cx =
                QuantizerContext { latents: *latents, params: params.scope(scope), components: Components::none() };
            quantizers.push(match call.split('(').next().unwrap() {
                "rq" => Box::new(Rq::new(RqConfig::parse(call).unwrap(), &cx).unwrap()),
                "kl" => Box::new(Kl::new(KlConfig::parse(call).unwrap(), &cx).unwrap()),
                _ => Box::new(Vq::new(VqConfig::parse(call).unwrap(), &cx).unwrap()),
            });
        }
        params.load(&checkpoint.tensors).unwrap();
        Self { autoencoder, quantizers }
    }

    /// The latents of each level, and what its quantizer makes of them.
    fn encode(&self, images: &Tensor) -> Vec<(Tensor, Quantized)> {
        let mut levels = Vec::new();
        let mut bottleneck = |level: usize, latents: &Tensor| {
            let quantized = self.quantizers[level].quantize(latents)?;
            let out = quantized.latents.clone();
            levels.push((latents.clone(), quantized));
            Ok(out)
        };
        self.autoencoder.encode(images, &mut bottleneck, &Mode::Eval).unwrap();
        levels
    }

    fn decode(&self, levels: &[(Tensor, Quantized)]) -> Tensor {
        let latents: Vec<Tensor> = levels.iter().map(|(_, quantized)| quantized.latents.clone()).collect();
        self.autoencoder.decode(&latents).unwrap()
    }

    fn decode_tokens(&self, levels: &[(Tensor, Quantized)]) -> Tensor {
        let pairs = self.quantizers.iter().zip(levels);
        let latents: Vec<Tensor> =
            pairs.map(|(quantizer, (_, level))| quantizer.embed(&level.tokens, None).unwrap()).collect();
        self.autoencoder.decode(&latents).unwrap()
    }
}

/// The codes of a level in a shape.
fn codes(level: &(Tensor, Quantized), shape: &[usize]) -> Codes {
    level.1.tokens.codes().unwrap().reshape(shape).unwrap()
}

/// All expected results of a case hold.
fn expect(case: &Case, outputs: &Outputs) {
    let outcome = compare(&case.expect, outputs);
    assert_eq!(outcome.passed(), Some(true), "{}: {outcome}", case.name);
    eprintln!("{}: {outcome}", case.name);
}

/// Imports a case's file.
fn import(lab: &Lab, file: &Path, name: &str, further: &str) -> Said {
    ok(lab, &format!("import {} --as {name} {further}", file.display()))
}

/// The weights that were imported come out again with the bits of the file, under its names.
fn exports_its_bits(lab: &Lab, file: &Path, name: &str, of: &dyn Fn(&str) -> Option<String>) {
    ok(lab, &format!("export {name} -o out.safetensors"));
    let bytes = fs::read(lab.path("out.safetensors")).unwrap();
    let exported = SafeTensors::deserialize(&bytes).unwrap();
    let published = rqlab_weights::Checkpoint::open(file).unwrap();
    let mut compared = 0;
    for (path, tensor) in published.tensors() {
        let Some(name) = of(path) else { continue };
        let view = exported.tensor(&name).unwrap_or_else(|_| panic!("{name} is not exported"));
        let numbers = published.read_f32(tensor).unwrap();
        let bits: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert!(view.data() == bits, "{name} has other bits");
        compared += 1;
    }
    assert_eq!(compared, exported.names().len(), "what is exported and what is published");
}

#[test]
fn rqvae() {
    let Some(folder) = case("rqvae") else { return };
    let (case, file, lab) = (Case::read(&folder).unwrap(), weights(&folder, &["pt"]), Lab::new().unwrap());
    let mut out = Outputs::default();
    for (name, prefix) in [("plain", "out."), ("ema", "out.ema.")] {
        if !case.wants(&format!("{prefix}recon")) {
            continue;
        }
        let said = import(&lab, &file, name, &format!("--weights {name}"));
        assert!(said.out.contains("rqvae"), "{}", said.out);
        let model = Imported::read(&lab, name);
        let levels = model.encode(&case.map("in.x").unwrap());
        out.map(format!("{prefix}recon"), &model.decode(&levels)).unwrap();
        out.codes(format!("{prefix}codes"), levels[0].1.tokens.codes().unwrap());
        out.tensor(format!("{prefix}commitment"), &levels[0].1.terms[0].1);
        let wanted = case.wanted_shape(&format!("{prefix}z_e")).unwrap();
        let cell = [wanted[1] / levels[0].0.shape()[1], wanted[2] / levels[0].0.shape()[2]];
        out.tensor(format!("{prefix}z_e"), &levels[0].0.depth_to_space(cell[0], cell[1]).unwrap());
    }
    expect(&case, &out);
    exports_its_bits(&lab, &file, "plain", &|path| path.strip_prefix("state_dict/").map(str::to_owned));
}

/// Without its configuration a file is read by a trial that has its components.
#[test]
fn a_trial_stands_in_for_a_configuration() {
    let Some(folder) = case("rqvae") else { return };
    let (file, lab) = (weights(&folder, &["pt"]), Lab::new().unwrap());
    import(&lab, &file, "told", "");
    fs::copy(&file, lab.path("alone.pt")).unwrap();
    let said = lab.run("import alone.pt --as alone").unwrap();
    assert!(said.code == Some(2) && said.err.contains("name it with --config"), "{}", said.err);

    let told = Checkpoint::load_sealed(&lab.path("imports/told.safetensors")).unwrap();
    let side = told.metadata["image"].split(' ').next().unwrap();
    let experiment = format!(
        "(base: \"imports/told.ron\", question: \"Is it the same?\", data: dead_leaves(size: {side}), seeds: [0])"
    );
    lab.write("told.ron", experiment).unwrap();
    import(&lab, &lab.path("alone.pt"), "alone", "--trial told.ron");
    let alone = Checkpoint::load_sealed(&lab.path("imports/alone.safetensors")).unwrap();
    assert_eq!(alone.tensors.len(), told.tensors.len());
    assert!(told.tensors.iter().all(|(name, tensor)| tensor.to_vec() == alone.tensors[name].to_vec()));
}

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

/// What the discriminator in a file of VQGAN says of a case's images: import passes it over, and it is the published one, too.
fn critics_logits(case: &Case, file: &Path) -> Tensor {
    let (params, images) = (Params::new(0), case.map("in.x").unwrap());
    let &[_, height, width, channels] = images.shape() else { panic!("images are [B, H, W, C]") };
    let size =
        |name: &str, published: u64| case.config["lossconfig"]["params"][name].as_u64().unwrap_or(published) as usize;
    let (layers, first) = (size("disc_num_layers", 3), size("disc_ndf", 64));
    let image = MapShape { height, width, channels };
    let critic = Discriminator::patch(&params, image, layers, first, (Norm::Batch, 1)).unwrap();
    let published = rqlab_weights::Checkpoint::open(file).unwrap();
    let own = published.tensors().into_iter().filter_map(|(path, tensor)| {
        let name = path.strip_prefix("state_dict/loss.discriminator.")?;
        let shape: Vec<usize> = tensor.shape.iter().map(|&side| side as usize).collect();
        Some((name.to_owned(), Tensor::from_vec(published.read_f32(tensor).unwrap(), &shape).unwrap()))
    });
    params.load(&own.collect()).unwrap();
    critic.forward(&Dual::plain(&images), Statistics::Use).unwrap().value
}

#[test]
fn taming_vqgan() {
    let Some(folder) = case("taming_vqgan") else { return };
    let (case, file, lab) = (Case::read(&folder).unwrap(), weights(&folder, &["ckpt"]), Lab::new().unwrap());
    import(&lab, &file, "vqgan", "");
    let model = Imported::read(&lab, "vqgan");
    let levels = model.encode(&case.map("in.x").unwrap());
    let mut out = Outputs::default();
    out.map("out.disc_logits", &critics_logits(&case, &file)).unwrap();
    out.map("out.z_e", &levels[0].0).unwrap();
    out.codes("out.codes", &codes(&levels[0], case.wanted_shape("out.codes").unwrap()));
    out.map("out.recon", &model.decode(&levels)).unwrap();
    out.tensor("out.codebook_loss", &levels[0].1.loss);
    expect(&case, &out);
    let own =
        |path: &str| path.strip_prefix("state_dict/").filter(|name| !name.starts_with("loss.")).map(str::to_owned);
    exports_its_bits(&lab, &file, "vqgan", &own);
}

#[test]
fn taming_first_stage() {
    let Some(folder) = case("taming_transformer") else { return };
    let (case, file, lab) = (Case::read(&folder).unwrap(), weights(&folder, &["ckpt"]), Lab::new().unwrap());
    let images = case.map("in.x").unwrap();
    import(&lab, &file, "vqgan", &format!("--size {}x{}", images.shape()[1], images.shape()[2]));
    let model = Imported::read(&lab, "vqgan");
    let levels = model.encode(&images);
    let mut out = Outputs::default();
    out.not_yet("out.logits", "the transformer, whose test is `taming_transformer`");
    out.codes("out.codes", &codes(&levels[0], case.wanted_shape("out.codes").unwrap()));
    out.map("out.recon", &model.decode(&levels)).unwrap();
    expect(&case, &out);
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

/// The argument that tells the size of a case's images, where no configuration lies beside its file.
fn size(case: &Case) -> String {
    let images = case.map("in.x").unwrap();
    format!("--size {}x{}", images.shape()[1], images.shape()[2])
}

#[test]
fn llamagen_vq() {
    let Some(folder) = case("llamagen_vq") else { return };
    let (case, file, lab) = (Case::read(&folder).unwrap(), weights(&folder, &["pt"]), Lab::new().unwrap());
    import(&lab, &file, "vq", &size(&case));
    let model = Imported::read(&lab, "vq");
    let levels = model.encode(&case.map("in.x").unwrap());
    let mut out = Outputs::default();
    out.codes("out.codes", &codes(&levels[0], case.wanted_shape("out.codes").unwrap()));
    out.map("out.recon", &model.decode(&levels)).unwrap();
    out.map("out.recon_from_codes", &model.decode_tokens(&levels)).unwrap();
    expect(&case, &out);
    let own =
        |path: &str| path.strip_prefix("model/").filter(|name| !name.ends_with("codebook_used")).map(str::to_owned);
    exports_its_bits(&lab, &file, "vq", &own);
}

/// Means, log-variances, and what the means decode to.
fn posterior(case: &Case, lab: &Lab, name: &str) {
    let model = Imported::read(lab, name);
    let levels = model.encode(&case.map("in.x").unwrap());
    let moments = &levels[0].0;
    let channels = moments.last_dim() / 2;
    let mut out = Outputs::default();
    out.map("out.mean", &moments.slice(3, 0..channels).unwrap()).unwrap();
    let log_variances = moments.slice(3, channels..2 * channels).unwrap().clamp(-30.0, 20.0).unwrap();
    out.map("out.logvar", &log_variances).unwrap();
    out.map("out.recon_of_mean", &model.decode(&levels)).unwrap();
    expect(case, &out);
}

#[test]
fn mar_kl16() {
    let Some(folder) = case("mar_kl16") else { return };
    let (case, file, lab) = (Case::read(&folder).unwrap(), weights(&folder, &["ckpt"]), Lab::new().unwrap());
    import(&lab, &file, "kl16", &size(&case));
    posterior(&case, &lab, "kl16");
    exports_its_bits(&lab, &file, "kl16", &|path| path.strip_prefix("model/").map(str::to_owned));
}

#[test]
fn diffusers_kl() {
    let Some(folder) = case("diffusers_kl") else { return };
    let (case, lab) = (Case::read(&folder).unwrap(), Lab::new().unwrap());
    for (name, end) in [("new", "safetensors"), ("old", "bin")] {
        if fs::read_dir(&folder).unwrap().flatten().any(|entry| {
            let path = entry.path();
            path.extension().is_some_and(|found| found == end) && path.file_name().unwrap() != "data.safetensors"
        }) {
            import(&lab, &weights(&folder, &[end]), name, &size(&case));
            posterior(&case, &lab, name);
        }
    }
}

#[test]
fn diffusers_vq() {
    let Some(folder) = case("diffusers_vq") else { return };
    let (case, lab) = (Case::read(&folder).unwrap(), Lab::new().unwrap());
    let file = weights(&folder, &["safetensors", "bin"]);
    import(&lab, &file, "vq", &size(&case));
    let model = Imported::read(&lab, "vq");
    let levels = model.encode(&case.map("in.x").unwrap());
    let mut out = Outputs::default();
    out.map("out.z_e", &levels[0].0).unwrap();
    out.codes("out.codes", &codes(&levels[0], case.wanted_shape("out.codes").unwrap()));
    out.map("out.recon", &model.decode(&levels)).unwrap();
    expect(&case, &out);
}

#[test]
fn vqvae2() {
    let Some(folder) = case("vqvae2") else { return };
    let (case, file, lab) = (Case::read(&folder).unwrap(), weights(&folder, &["pt"]), Lab::new().unwrap());
    import(&lab, &file, "vqvae2", &size(&case));
    let model = Imported::read(&lab, "vqvae2");
    let levels = model.encode(&case.map("in.x").unwrap());
    let mut out = Outputs::default();
    out.map("out.recon", &model.decode(&levels)).unwrap();
    let commitment = levels[0].1.terms[0].1.add(&levels[1].1.terms[0].1).unwrap();
    out.tensor("out.diff", &commitment.reshape(&[1]).unwrap());
    out.codes("out.codes_top", &codes(&levels[0], case.wanted_shape("out.codes_top").unwrap()));
    out.codes("out.codes_bottom", &codes(&levels[1], case.wanted_shape("out.codes_bottom").unwrap()));
    out.map("out.recon_from_codes", &model.decode_tokens(&levels)).unwrap();
    expect(&case, &out);
    let own = |path: &str| Some(path.trim_start_matches("module.").to_owned());
    exports_its_bits(&lab, &file, "vqvae2", &own);
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

/// Images of [0, 1] as this laboratory has them, and back.
fn signed(images: &Tensor) -> Tensor {
    images.mul_scalar(2.0).unwrap().add_scalar(-1.0).unwrap()
}

fn unsigned(images: &Tensor) -> Tensor {
    images.add_scalar(1.0).unwrap().mul_scalar(0.5).unwrap()
}

#[test]
fn maskgit_vqgan() {
    let Some(folder) = case("maskgit_vqgan") else { return };
    let (case, file, lab) = (Case::read(&folder).unwrap(), weights(&folder, &["bin"]), Lab::new().unwrap());
    import(&lab, &file, "maskgit", &size(&case));
    let model = Imported::read(&lab, "maskgit");
    let levels = model.encode(&signed(&case.map("in.x").unwrap()));
    let mut out = Outputs::default();
    out.map("out.z_e", &levels[0].0).unwrap();
    out.codes("out.codes", &codes(&levels[0], case.wanted_shape("out.codes").unwrap()));
    let decoded = unsigned(&model.decode(&levels));
    out.map("out.recon_unclamped", &decoded).unwrap();
    out.map("out.recon", &decoded.clamp(0.0, 1.0).unwrap()).unwrap();
    expect(&case, &out);
    exports_its_bits(&lab, &file, "maskgit", &|path| Some(path.to_owned()));
}

#[test]
fn titok() {
    let Some(folder) = case("titok") else { return };
    let (case, lab) = (Case::read(&folder).unwrap(), Lab::new().unwrap());
    let file = weights(&folder, &["safetensors", "bin"]);
    import(&lab, &file, "titok", &size(&case));
    let model = Imported::read(&lab, "titok");
    let levels = model.encode(&signed(&case.map("in.x").unwrap()));
    let mut out = Outputs::default();
    out.map("out.z", &levels[0].0).unwrap();
    out.map("out.z_q", &levels[0].1.latents).unwrap();
    out.codes("out.codes", &codes(&levels[0], case.wanted_shape("out.codes").unwrap()));
    out.map("out.recon", &unsigned(&model.decode(&levels))).unwrap();
    out.map("out.recon_from_codes", &unsigned(&model.decode_tokens(&levels))).unwrap();
    expect(&case, &out);
    exports_its_bits(&lab, &file, "titok", &|path| Some(path.to_owned()));
}
