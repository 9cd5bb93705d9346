//! Parameter counts of the published configurations, from models that hold no numbers.

use super::case::number;
use super::{Case, Outputs, Result, autoencoder, priors};
use rqlab_autoencoder_resnet::Resnet;
use rqlab_quantizer_rq::{Rq, RqConfig};
use rqlab_sdk::prelude::*;
use serde_json::{Value, json};

pub(super) fn parameter_counts(case: &Case, out: &mut Outputs) -> Result<()> {
    for (name, entry) in case.json["counts"].as_object().ok_or("no counts")? {
        let config = &entry["config"];
        let counts = match name.split('_').next() {
            Some("rqvae") => rqvae(config)?,
            Some("rqtransformer") => rqtransformer(config)?,
            _ => {
                out.not_yet(format!("counts.{name}."), name);
                continue;
            }
        };
        for (part, count) in counts {
            out.number(format!("counts.{name}.params.{part}"), count as f64);
        }
    }
    Ok(())
}

/// The autoencoder and its shared codebook, which the reference counts as a parameter with its padding row.
fn rqvae(config: &Value) -> Result<Vec<(&'static str, usize)>> {
    let given = |key: &str, default: Value| config.get(key).cloned().unwrap_or(default);
    let attention = match given("attn", json!(8)) {
        Value::Array(list) => Value::Array(list),
        one => json!([one]),
    };
    let published = json!({
        "ch": given("ch", json!(128)),
        "ch_mult": given("ch_mult", json!([1, 1, 2, 2, 4, 4])),
        "num_res_blocks": given("num_res_blocks", json!(2)),
        "attn_resolutions": attention,
        "resolution": given("resolution", json!(256)),
        "z_channels": given("z_channels", json!(256)),
    });
    let side = number(&published, "resolution")? as usize;
    let code_channels = given("embed_dim", json!(256)).as_u64().ok_or("embed_dim")? as usize;
    let params = Params::dry();
    let image = MapShape { height: side, width: side, channels: 3 };
    let config = autoencoder::published(&published, code_channels, None)?;
    let resnet = Resnet::new(config, &AutoencoderContext { image, params: params.clone() })?;
    let trained = params.count();

    let codebook = Params::dry();
    let size = given("K", json!(16384)).as_u64().ok_or("K")? as usize;
    let cx = QuantizerContext { latents: resnet.levels()[0], params: codebook.clone() };
    Rq::new(RqConfig { codebook: size, ..RqConfig::parse("rq")? }, &cx)?;
    let numbers = |ending: &str| -> usize {
        let entries = codebook.entries().into_iter().filter(|(name, _)| name.ends_with(ending));
        entries.map(|(_, entry)| entry.shape.iter().product::<usize>()).sum()
    };
    let padded = numbers("weight") + resnet.levels()[0].channels;
    Ok(vec![
        ("total", trained + padded),
        ("encoder", params.scope("encoder").count()),
        ("decoder", params.scope("decoder").count()),
        ("quant_conv", params.scope("quant_conv").count()),
        ("post_quant_conv", params.scope("post_quant_conv").count()),
        ("codebook_with_padding_row", padded),
        ("trainable", trained),
        ("ema_buffers", numbers("_ema")),
    ])
}

fn rqtransformer(config: &Value) -> Result<Vec<(&'static str, usize)>> {
    let params = Params::dry();
    let (vocabulary, length) = (number(config, "vc")? as usize, number(config, "bc")? as usize);
    priors::build(config, &params, Vec::new(), vocabulary, length)?;
    let part = |name: &str| params.scope(name).count();
    Ok(vec![
        ("total", params.count()),
        ("body", part("body_transformer")),
        ("head", part("head_transformer")),
        ("classifier", part("classifier")),
        ("input_mlp", part("input_mlp")),
        ("head_mlp", part("head_mlp")),
        ("cond_emb", part("cond_emb")),
        ("cond_classifier", part("cond_classifier")),
    ])
}
