//! The networks that images are measured with, forward.

use crate::Prepared;
use crate::models::normal;
use crate::workloads::Network;
use rqlab_sdk::Result;
use rqlab_sdk::networks::{Dinov2, Inception, Lpips, Weights};
use rqlab_sdk::tensor::{Tensor, no_grad};
use std::collections::BTreeMap;

/// Makes a network ready, with drawn weights and images.
///
/// # Errors
/// Sizes that do not fit.
pub(crate) fn prepare(network: Network, batch: usize, side: usize) -> Result<Prepared> {
    let images = |purpose: &str| -> Result<Tensor> {
        Ok(normal(&[batch, side, side, 3], purpose)?.mul_scalar(0.3)?.clamp(-1.0, 1.0)?)
    };
    let first = images("images")?;
    Ok(match network {
        Network::Inception => {
            let net = Inception::new(Weights::drawn(BTreeMap::new()))?;
            Prepared::new(None, move || net.forward(&first).map(drop))
        }
        Network::Dinov2 { width, blocks } => {
            let net = Dinov2::published(Weights::drawn(dinov2(width, blocks, side / 14)?))?;
            Prepared::new(None, move || net.forward(&first).map(drop))
        }
        Network::Lpips => {
            let net = Lpips::new(Weights::drawn(BTreeMap::new()))?;
            let second = images("others")?;
            Prepared::new(None, move || no_grad(|| net.distance(&first, &second)).map(drop))
        }
    })
}

/// The tensors that say how large the network is.
fn dinov2(width: usize, blocks: usize, cells: usize) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::from([
        ("norm.weight".to_owned(), Tensor::full(1.0, &[width])),
        ("patch_embed.proj.weight".to_owned(), normal(&[width, 3, 14, 14], "patches")?.mul_scalar(0.05)?),
        ("pos_embed".to_owned(), normal(&[1, 1 + cells * cells, width], "positions")?.mul_scalar(0.02)?),
    ]);
    for block in 0..blocks {
        tensors.insert(format!("blocks.{block}.norm1.weight"), Tensor::full(1.0, &[width]));
        let first = normal(&[4 * width, width], "mlp")?.mul_scalar((width as f32).sqrt().recip())?;
        tensors.insert(format!("blocks.{block}.mlp.fc1.weight"), first);
    }
    Ok(tensors)
}
