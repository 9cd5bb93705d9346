//! MaskGIT's VQGAN (Chang et al., CVPR 2022) as bytedance/1d-tokenizer has it in PyTorch: `modeling/quantizer` and
//! `modeling/modules/maskgit_vqgan.py`.

use super::convolutional::Convolutional;
use super::{Parts, System, codebook};
use crate::import::names::Rule;
use crate::import::published::Published;
use rqlab_sdk::Result;

pub(super) const SYSTEM: System = System {
    name: "maskgit_vqgan",
    about: "MaskGIT's VQGAN, as bytedance/1d-tokenizer has it",
    configuration: None,
    made_of: &["resnet", "vq"],
    recognises: |published| {
        published.has("encoder.down.0.block.0.norm1.weight") && published.has("encoder.mid.0.norm1.weight")
    },
    prepare: |_| (),
    read,
    rule: |ours, _| {
        let name = ours.strip_prefix("autoencoder.").map(theirs);
        name.map(Rule::same).or_else(|| codebook(ours))
    },
    unused: |_| false,
};

fn read(published: &Published) -> Result<Parts> {
    let mut net = Convolutional::of_shapes(published, theirs, 32)?;
    net.further.push("family: maskgit, downsample: average, unit_range: true".to_owned());
    let codes = published.side("quantize.embedding.weight", 0)?;
    let quantizer = format!("vq(codebook: {codes}, codebook_update: gradient, beta: 0.25)");
    Ok(Parts::Tokenizer { image: net.image, autoencoder: net.call(), quantizer })
}

/// Its name of one of `resnet`'s parameters: blocks in the middle are counted from 0.
fn theirs(name: &str) -> String {
    let name = name.replace(".upsample.conv.", ".upsample_conv.");
    match name.split_once(".mid.block_") {
        Some((side, rest)) => match rest.split_once('.') {
            Some((number, rest)) => {
                let number: usize = number.parse().unwrap_or(1);
                format!("{side}.mid.{}.{rest}", number.saturating_sub(1))
            }
            None => name,
        },
        None => name,
    }
}
