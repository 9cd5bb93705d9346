//! Tokenizers: their latents, codes and reconstructions.

use crate::published::{Imported, case, codes, expect, exports_its_bits, import, size, weights};
use rqlab_objective_patch_gan::discriminator::{Discriminator, Norm, Statistics};
use rqlab_objective_patch_gan::dual::Dual;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::prelude::*;
use rqlab_tests::lab::Lab;
use rqlab_tests::parity::{Case, Outputs};
use std::fs;
use std::path::Path;

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
