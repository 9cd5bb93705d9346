//! Keys and values of what attention has read, kept for what comes next.

use super::on_cpu;
use crate::cpu::attention::{cached, decoder};
use crate::cpu::memory::LargePages;
use crate::cpu::norm::layer::RowNorm;
use crate::{Error, Result, Tensor};

/// The keys and values that one attention has gathered, for a block that is no [`BlockWeights`](super::decoder::BlockWeights). No
/// gradients flow through it. Its memory is taken once.
#[derive(Debug, Clone)]
pub struct KeyValues {
    cache: Cache,
    heads: usize,
    batch: usize,
    width: usize,
    capacity: usize,
    len: usize,
}

impl KeyValues {
    /// For `batch` sequences of at most `capacity` positions of `width` numbers in `heads` heads, where `beside` is.
    ///
    /// # Errors
    /// [`Error::Shape`] if `heads` does not divide the width.
    pub fn new(beside: &Tensor, [batch, capacity, width]: [usize; 3], heads: usize) -> Result<Self> {
        if heads == 0 || width == 0 || !width.is_multiple_of(heads) {
            return Err(Error::shape("KeyValues", format!("a width of {width} with {heads} heads")));
        }
        Ok(Self { cache: Cache::new(beside, width, heads, batch, capacity)?, heads, batch, width, capacity, len: 0 })
    }

    /// Attention of the next positions, `[B, t, 3W]` with query, key and value beside each other, over all before and each up to
    /// itself: `[B, t, W]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape does not fit or the capacity is exceeded.
    pub fn attend(&mut self, qkv: &Tensor) -> Result<Tensor> {
        let Self { heads, batch, width, capacity, len, .. } = *self;
        let [_, new, _] = qkv.dims("KeyValues")?;
        if qkv.shape() != [batch, new, 3 * width] || len + new > capacity {
            let message = format!("{:?} does not fit {batch} x {width} holding {len} of {capacity}", qkv.shape());
            return Err(Error::shape("KeyValues", message));
        }
        let norm = RowNorm { eps: 0.0, centred: true };
        let sizes = decoder::Sizes { batch, new, past: len, capacity, heads, width, norm, turns: None };
        self.len += new;
        match &mut self.cache {
            Cache::Host { keys, values } => {
                on_cpu("KeyValues", [qkv])?;
                let (mut rows, mut out) = (qkv.to_vec(), vec![0.0; batch * new * width]);
                if !out.is_empty() {
                    decoder::attend(&sizes, [&mut keys[..], &mut values[..]], &mut rows, &mut out);
                }
                Ok(Tensor::output(out, &[batch, new, width], None))
            }
            #[cfg(feature = "cuda")]
            Cache::Gpu(cache) => crate::cuda::attention::decoder::attend(&sizes, cache, qkv),
        }
    }
}

/// The keys and values of what a block has read.
#[derive(Debug, Clone)]
pub(super) enum Cache {
    Host {
        keys: LargePages,
        values: LargePages,
    },
    #[cfg(feature = "cuda")]
    Gpu(crate::cuda::attention::decoder::Cache),
}

impl Cache {
    /// An empty one where `beside` is.
    pub(super) fn new(beside: &Tensor, width: usize, heads: usize, batch: usize, capacity: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Some(cache) = crate::cuda::attention::decoder::Cache::beside(beside, batch * capacity * width)? {
            return Ok(Self::Gpu(cache));
        }
        on_cpu("Decoder", [beside])?;
        let size = batch * heads * cached::size(capacity, width / heads);
        Ok(Self::Host { keys: LargePages::zeros(size), values: LargePages::zeros(size) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::attention::attention_qkv;
    use crate::ops::testing::{assert_close, on_every_device, random};

    #[test]
    fn kept_keys_and_values_give_the_attention_of_the_whole_sequence() {
        on_every_device(|| {
            for (batch, length, heads, head) in [(1, 1, 1, 1), (3, 9, 2, 5), (2, 40, 3, 32)] {
                let qkv = random(&[batch, length, 3 * heads * head], 1);
                let whole = attention_qkv(&qkv, heads, true).unwrap();
                let mut kept = KeyValues::new(&qkv, [batch, length, heads * head], heads).unwrap();
                for from in (0..length).step_by(2) {
                    let to = (from + 2).min(length);
                    let attended = kept.attend(&qkv.slice(1, from..to).unwrap()).unwrap();
                    assert_close(attended.as_slice(), whole.slice(1, from..to).unwrap().as_slice(), 1e-5);
                }
                assert!(kept.attend(&qkv).is_err());
            }
            assert!(KeyValues::new(&Tensor::zeros(&[1]), [1, 2, 6], 4).is_err());
        });
    }
}
