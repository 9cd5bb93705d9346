//! The KL-regularised tokenizer of LTH14/mar (Li et al., NeurIPS 2024), after latent diffusion's: `models/vae.py`. Its names are
//! `resnet`'s own.

use super::convolutional::Convolutional;
use super::{Parts, System};
use crate::import::names::Rule;
use crate::import::published::Published;
use rqlab_sdk::Result;

pub(super) const SYSTEM: System = System {
    name: "mar_kl16",
    about: "the KL-16 tokenizer of LTH14/mar",
    configuration: None,
    made_of: &["resnet", "kl"],
    recognises: |published| {
        published.has("post_quant_conv.weight")
            && published.has("encoder.down.0.block.0.norm1.weight")
            && !published.tensors().keys().any(|name| name.starts_with("quantize"))
    },
    prepare: |_| (),
    read,
    rule: |ours, _| ours.strip_prefix("autoencoder.").map(Rule::same),
    unused: |theirs| theirs.starts_with("loss."),
};

fn read(published: &Published) -> Result<Parts> {
    let mut net = Convolutional::of_shapes(published, str::to_owned, 32)?;
    net.further.push("double_z: true".to_owned());
    Ok(Parts::Tokenizer { image: net.image, autoencoder: net.call(), quantizer: "kl(weight: 1e-6)".to_owned() })
}
