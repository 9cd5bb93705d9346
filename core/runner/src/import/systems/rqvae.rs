//! RQ-VAE of kakaobrain/rq-vae-transformer (Lee et al., CVPR 2022): `rqvae/models/rqvae`. Codebooks have a row of zeros for
//! padding behind their codes; a shared one stands under the name of every depth.

use super::convolutional::Convolutional;
use super::{Facts, Parts, System, list};
use crate::import::names::{How, Rule};
use crate::import::published::Published;
use rqlab_sdk::Result;

pub(super) const SYSTEM: System = System {
    name: "rqvae",
    about: "RQ-VAE of kakaobrain/rq-vae-transformer",
    configuration: Some("config.yaml"),
    made_of: &["resnet", "rq"],
    recognises: |published| {
        published.has("quantizer.codebooks.0.weight") && published.has("encoder.down.0.block.0.norm1.weight")
    },
    prepare: |_| (),
    read,
    rule,
    unused: |_| false,
};

const HPARAMS: &str = "arch/hparams";

fn read(published: &Published) -> Result<Parts> {
    let hparams = |name: &str| format!("{HPARAMS}/{name}");
    if published.text(&hparams("bottleneck_type")).is_some_and(|kind| kind != "rq") {
        return Err(published.unsupported(&hparams("bottleneck_type"), "only the bottleneck `rq` is known"));
    }
    let latent_channels = published.size_of(&hparams("embed_dim"))?;
    let mut net = Convolutional::of_ddconfig(published, "arch/ddconfig", latent_channels)?;
    let (latent, code) = (published.sizes_of(&hparams("latent_shape"))?, published.sizes_of(&hparams("code_shape"))?);
    let (&[height, width, _], &[rows, columns, depth]) = (latent.as_slice(), code.as_slice()) else {
        return Err(published.unsupported(&hparams("code_shape"), "height, width and depth are wanted"));
    };
    let cell = |latent: usize, code: usize| (code > 0 && latent.is_multiple_of(code)).then(|| latent / code);
    let (Some(high), Some(wide)) = (cell(height, rows), cell(width, columns)) else {
        return Err(published.unsupported(&hparams("code_shape"), "it does not divide `latent_shape`"));
    };
    // Of images of another size, too, that many latents are folded into a code.
    if [high, wide] != [1, 1] {
        let [rows, columns] = [(net.image[0] >> net.halvings()) / high, (net.image[1] >> net.halvings()) / wide];
        net.further.push(format!("code_map: ({rows}, {columns})"));
    }

    let shared = published.flag(&hparams("shared_codebook"), false);
    let sizes = published.sizes_of(&hparams("n_embed"))?;
    let mut fields = vec![format!("depth: {depth}")];
    match sizes.as_slice() {
        [first, rest @ ..] if rest.iter().all(|size| size == first) => fields.push(format!("codebook: {first}")),
        sizes => fields.push(format!("codebooks: {}", list(sizes))),
    }
    fields.push(format!("shared: {shared}"));
    match published.setting(&hparams("decay")) {
        Some(decay) if decay.is_array() => fields.push(format!("decays: {decay}")),
        Some(decay) => fields.push(format!("decay: {decay}")),
        None => fields.push("decay: 0.99".to_owned()),
    }
    fields.push(format!("beta: {}", published.number(&hparams("latent_loss_weight")).unwrap_or(0.25)));
    if published.flag(&hparams("restart_unused_codes"), true) {
        fields.push("dead_codes: restart, dead_below: 1.0".to_owned());
    } else {
        fields.push("dead_codes: keep, initial_count: 0.0".to_owned());
    }
    let quantizer = format!("rq({})", fields.join(", "));
    Ok(Parts::Tokenizer { image: net.image, autoencoder: net.call(), quantizer })
}

fn rule(ours: &str, facts: &Facts) -> Option<Rule> {
    if let Some(name) = ours.strip_prefix("autoencoder.") {
        return Some(Rule::same(name));
    }
    let (book, name) = ours.strip_prefix("quantizer.codebooks.")?.split_once('.')?;
    // The only book of several depths is that of all of them.
    let books =
        if facts.shared { (0..facts.depth).map(|depth| depth.to_string()).collect() } else { vec![book.to_owned()] };
    let names = books.iter().map(|book| format!("quantizer.codebooks.{book}.{name}")).collect();
    Some(Rule { names, how: if name == "weight" { How::Padded(1) } else { How::Same } })
}
