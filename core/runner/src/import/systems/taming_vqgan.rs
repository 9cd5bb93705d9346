//! VQGAN of CompVis/taming-transformers (Esser et al., CVPR 2021): `taming/models/vqgan.py`, as PyTorch Lightning saves it. Its
//! file holds the loss as well: LPIPS and the discriminator.

use super::convolutional::Convolutional;
use super::{Parts, System, codebook};
use crate::import::names::Rule;
use crate::import::published::Published;
use rqlab_sdk::Result;

pub(super) const SYSTEM: System = System {
    name: "taming_vqgan",
    about: "VQGAN of CompVis/taming-transformers",
    configuration: Some("project.yaml"),
    made_of: &["resnet", "vq"],
    recognises: |published| {
        published.has("quantize.embedding.weight") && published.has("encoder.down.0.block.0.norm1.weight")
    },
    prepare: |_| (),
    read,
    rule: |ours, _| rule(ours),
    unused: |theirs| theirs.starts_with("loss."),
};

/// The same within a file of Net2NetTransformer, which holds its first stage.
pub(super) const FIRST_STAGE: System = System {
    name: "taming_first_stage",
    about: "the VQGAN in a transformer's file of CompVis/taming-transformers (`--system taming_transformer` takes the transformer)",
    configuration: Some("project.yaml"),
    made_of: &["resnet", "vq"],
    recognises: |published| published.has(&format!("{WITHIN}quantize.embedding.weight")),
    prepare: |published| {
        published.rename(|name| match name.strip_prefix(WITHIN) {
            Some(own) => own.to_owned(),
            None => format!("{OTHER}{name}"),
        });
    },
    read: |published| read_at(published, "model/params/first_stage_config/params"),
    rule: |ours, _| rule(ours),
    unused: |theirs| theirs.starts_with("loss.") || theirs.starts_with(OTHER),
};

/// What the names of the first stage begin with, and what those of the rest of its file are made to.
const WITHIN: &str = "first_stage_model.";
const OTHER: &str = "beside the first stage: ";

fn read(published: &Published) -> Result<Parts> {
    read_at(published, "model/params")
}

fn read_at(published: &Published, params: &str) -> Result<Parts> {
    let code_channels = published.size_of(&format!("{params}/embed_dim"))?;
    let net = Convolutional::of_ddconfig(published, &format!("{params}/ddconfig"), code_channels)?;
    let codes = published.size_of(&format!("{params}/n_embed"))?;
    // Its quantizer weighs the codebook loss with beta, which its authors left so for the published models.
    let quantizer = format!("vq(codebook: {codes}, codebook_update: gradient, beta: 0.25, beta_on: codebook)");
    Ok(Parts::Tokenizer { image: net.image, autoencoder: net.call(), quantizer })
}

/// The names are those of `resnet`; the codebook is `quantize.embedding`.
fn rule(ours: &str) -> Option<Rule> {
    ours.strip_prefix("autoencoder.").map(Rule::same).or_else(|| codebook(ours))
}
