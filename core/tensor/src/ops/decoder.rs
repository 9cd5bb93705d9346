//! A causal transformer that goes on from what it has read: one operation per step, for sampling.

use super::key_values::Cache;
use super::packed::PackedLinear;
use super::{common_device, on_cpu};
use crate::cpu::attention::decoder;
use crate::cpu::norm::layer::RowNorm;
use crate::{Error, Result, Tensor};

/// A pre-norm block, `x += proj(attention(norm1 x))`, `x += contract(gelu(expand(norm2 x)))`, or with a gate `x +=
/// contract(silu(gate(norm2 x)) expand(norm2 x))`: weights `[O, I]` and biases `[O]` of its linear maps, `qkv` with the rows of
/// query, key and value in this order; scale and shift `[W]` of its norms.
#[derive(Debug, Clone)]
pub struct BlockWeights {
    /// Before the attention.
    pub norm1: [Tensor; 2],
    /// `[3W, W]`.
    pub qkv: [Tensor; 2],
    /// `[W, W]`.
    pub proj: [Tensor; 2],
    /// Before the two maps that follow.
    pub norm2: [Tensor; 2],
    /// `[H, W]`, if there is one.
    pub gate: Option<[Tensor; 2]>,
    /// `[H, W]`.
    pub expand: [Tensor; 2],
    /// `[W, H]`.
    pub contract: [Tensor; 2],
}

/// Blocks one after another, with the keys and values of what they have read. Weights are those of the moment when it
/// was made; no gradients flow through it. Its memory is taken once.
#[derive(Debug, Clone)]
pub struct Decoder {
    blocks: Vec<Block>,
    heads: usize,
    width: usize,
    norm: RowNorm,
    /// Rotations of all positions, `[capacity, 2, h]`.
    turns: Option<Tensor>,
    batch: usize,
    capacity: usize,
    len: usize,
}

#[derive(Debug, Clone)]
struct Block {
    norm1: [Tensor; 2],
    qkv: PackedLinear,
    proj: PackedLinear,
    norm2: [Tensor; 2],
    gate: Option<PackedLinear>,
    expand: PackedLinear,
    contract: PackedLinear,
    cache: Cache,
}

impl Decoder {
    /// Blocks with `heads` attention heads whose layer norms add `eps` to the variance, for `batch` sequences of at most
    /// `capacity` positions.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are no blocks, sizes do not fit, or `heads` does not divide W.
    pub fn new(blocks: &[BlockWeights], heads: usize, eps: f32, batch: usize, capacity: usize) -> Result<Self> {
        let width = blocks.first().map_or(0, |block| block.norm1[0].len());
        if heads == 0 || width == 0 || !width.is_multiple_of(heads) {
            let message = format!("{} blocks of width {width} with {heads} heads", blocks.len());
            return Err(Error::shape("Decoder", message));
        }
        let blocks = blocks.iter().map(|block| Block::new(block, heads, batch, capacity)).collect::<Result<_>>()?;
        let norm = RowNorm { eps, centred: true };
        Ok(Self { blocks, heads, width, norm, turns: None, batch, capacity, len: 0 })
    }

    /// The same with RMS norms, which add `eps` to the mean square, and with queries and keys turned by `turns` `[capacity, 2,
    /// h]`: see [`rotate_qk`](super::rotary::rotate_qk).
    ///
    /// # Errors
    /// As for [`Decoder::new`]; rotations of another size.
    pub fn rotary(blocks: &[BlockWeights], heads: usize, eps: f32, batch: usize, turns: &Tensor) -> Result<Self> {
        let [capacity, two, head] = turns.dims("Decoder")?;
        let decoder = Self::new(blocks, heads, eps, batch, capacity)?;
        if two != 2 || head * heads != decoder.width || !head.is_multiple_of(2) {
            let message = format!("rotations {:?} for {heads} heads of a width of {}", turns.shape(), decoder.width);
            return Err(Error::shape("Decoder", message));
        }
        Ok(Self { norm: RowNorm { eps, centred: false }, turns: Some(turns.detach()), ..decoder })
    }

    /// The positions read so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all positions and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Reads the next positions `[B, t, W]`; each sees everything up to itself. Gives what the blocks make of them,
    /// `[B, t, W]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape does not fit or the capacity is exceeded.
    pub fn step(&mut self, x: &Tensor) -> Result<Tensor> {
        let Self { heads, width, norm, batch, capacity, len, .. } = *self;
        let [_, new, _] = x.dims("Decoder")?;
        if x.shape() != [batch, new, width] || len + new > capacity {
            let message =
                format!("{:?} does not fit a decoder of {batch} x {width} holding {len} of {capacity}", x.shape());
            return Err(Error::shape("Decoder", message));
        }
        let sizes = decoder::Sizes { batch, new, past: len, capacity, heads, width, norm, turns: None };
        common_device("Decoder", self.blocks.iter().map(|block| &block.norm1[0]).chain([x]).chain(&self.turns))?;
        #[cfg(feature = "cuda")]
        {
            let mut blocks: Vec<_> = self.blocks.iter_mut().filter_map(Block::on_gpu).collect();
            let turns = self.turns.as_ref().and_then(Tensor::gpu_buffer);
            if let Some(out) = crate::cuda::attention::decoder::step(&sizes, turns, &mut blocks, x)? {
                self.len += new;
                return Ok(out);
            }
        }
        on_cpu("Decoder", [x])?;
        let mut out = x.to_vec();
        let mut blocks: Vec<decoder::Block<'_>> = self.blocks.iter_mut().filter_map(Block::operands).collect();
        if !out.is_empty() {
            let each = 2 * width / heads;
            let turns = self.turns.as_ref().map(|turns| &turns.as_slice()[len * each..(len + new) * each]);
            decoder::step(&decoder::Sizes { turns, ..sizes }, &mut blocks, &mut out);
        }
        self.len += new;
        Ok(Tensor::output(out, x.shape(), None))
    }
}

impl Block {
    fn new(weights: &BlockWeights, heads: usize, batch: usize, capacity: usize) -> Result<Self> {
        let BlockWeights { norm1, qkv, proj, norm2, gate, expand, contract } = weights;
        let all = [norm1, qkv, proj, norm2, expand, contract];
        common_device("Decoder", all.into_iter().chain(gate).flatten())?;
        let width = norm1[0].len();
        let linear = |[weight, bias]: &[Tensor; 2]| PackedLinear::new(weight, Some(bias), batch);
        let block = Self {
            norm1: norm1.clone().map(|t| t.detach()),
            qkv: linear(qkv)?,
            proj: linear(proj)?,
            norm2: norm2.clone().map(|t| t.detach()),
            gate: gate.as_ref().map(linear).transpose()?,
            expand: linear(expand)?,
            contract: linear(contract)?,
            cache: Cache::new(&norm1[0], width, heads, batch, capacity)?,
        };
        let hidden = block.expand.sizes()[0];
        let sizes = [&block.qkv, &block.proj, &block.expand, &block.contract].map(PackedLinear::sizes);
        let fits = sizes == [[3 * width, width], [width, width], [hidden, width], [width, hidden]]
            && block.gate.as_ref().is_none_or(|gate| gate.sizes() == [hidden, width]);
        if !fits || block.norm1.iter().chain(&block.norm2).any(|t| t.shape() != [width]) {
            let message = format!("weights of sizes {sizes:?} in a block of width {width}");
            return Err(Error::shape("Decoder", message));
        }
        Ok(block)
    }

    /// What kernels of the CPU work with, if the cache is there.
    fn operands(&mut self) -> Option<decoder::Block<'_>> {
        #[allow(irrefutable_let_patterns, reason = "without CUDA there is one kind")]
        let Cache::Host { keys, values } = &mut self.cache else {
            return None;
        };
        Some(decoder::Block {
            norm1: [0, 1].map(|i| self.norm1[i].as_slice()),
            qkv: self.qkv.operand()?,
            proj: self.proj.operand()?,
            norm2: [0, 1].map(|i| self.norm2[i].as_slice()),
            gate: match &self.gate {
                Some(gate) => Some(gate.operand()?),
                None => None,
            },
            expand: self.expand.operand()?,
            contract: self.contract.operand()?,
            keys,
            values,
        })
    }

    /// What kernels of a GPU work with, if the cache is there.
    #[cfg(feature = "cuda")]
    fn on_gpu(&mut self) -> Option<crate::cuda::attention::decoder::Block<'_>> {
        let Cache::Gpu(cache) = &mut self.cache else {
            return None;
        };
        let [norm1, norm2] =
            [&self.norm1, &self.norm2].map(|[scale, shift]| Some([scale.gpu_buffer()?, shift.gpu_buffer()?]));
        Some(crate::cuda::attention::decoder::Block {
            norm1: norm1?,
            qkv: self.qkv.on_gpu()?,
            proj: self.proj.on_gpu()?,
            norm2: norm2?,
            gate: match &self.gate {
                Some(gate) => Some(gate.on_gpu()?),
                None => None,
            },
            expand: self.expand.on_gpu()?,
            contract: self.contract.on_gpu()?,
            cache,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::attention::attention_qkv;
    use crate::ops::rotary::rotate_qk;
    use crate::ops::testing::{assert_close, on_every_device, random};

    const EPS: f32 = 1e-5;

    fn weights(width: usize, hidden: usize, seed: u64) -> BlockWeights {
        let tensor = |shape: &[usize], part: u64| {
            let scale = 1.0 / (shape.last().copied().unwrap_or(1) as f32).sqrt();
            random(shape, 16 * seed + part).mul_scalar(scale).unwrap()
        };
        let pair =
            |outputs: usize, inputs: usize, part| [tensor(&[outputs, inputs], part), tensor(&[outputs], part + 1)];
        BlockWeights {
            norm1: [tensor(&[width], 0), tensor(&[width], 1)],
            qkv: pair(3 * width, width, 2),
            proj: pair(width, width, 4),
            norm2: [tensor(&[width], 6), tensor(&[width], 7)],
            gate: None,
            expand: pair(hidden, width, 8),
            contract: pair(width, hidden, 10),
        }
    }

    /// One operation after another, over the whole sequence.
    fn twin(x: &Tensor, blocks: &[BlockWeights], heads: usize) -> Result<Tensor> {
        let mut x = x.clone();
        for b in blocks {
            let linear = |x: &Tensor, [weight, bias]: &[Tensor; 2]| x.linear(weight, Some(bias));
            let qkv = linear(&x.layer_norm(&b.norm1[0], &b.norm1[1], EPS)?, &b.qkv)?;
            x = x.add(&linear(&attention_qkv(&qkv, heads, true)?, &b.proj)?)?;
            let hidden = linear(&x.layer_norm(&b.norm2[0], &b.norm2[1], EPS)?, &b.expand)?.gelu()?;
            x = x.add(&linear(&hidden, &b.contract)?)?;
        }
        Ok(x)
    }

    #[test]
    fn steps_give_what_one_operation_after_another_gives_on_the_whole_sequence() {
        on_every_device(|| {
            for (batch, length, heads, head, hidden) in
                [(1, 1, 1, 1, 1), (1, 9, 2, 3, 7), (2, 20, 3, 16, 31), (5, 18, 4, 32, 300), (17, 6, 2, 40, 64)]
            {
                let width = heads * head;
                let blocks: Vec<BlockWeights> = (0..2).map(|i| weights(width, hidden, i)).collect();
                let x = random(&[batch, length, width], 99);
                let wanted = twin(&x, &blocks, heads).unwrap();
                let mut decoder = Decoder::new(&blocks, heads, EPS, batch, length).unwrap();
                for steps in [1, 3, length] {
                    for from in (0..length).step_by(steps) {
                        let to = (from + steps).min(length);
                        let y = decoder.step(&x.slice(1, from..to).unwrap()).unwrap();
                        assert_close(y.as_slice(), wanted.slice(1, from..to).unwrap().as_slice(), 2e-5);
                        assert_eq!(decoder.len(), to);
                    }
                    assert!(decoder.step(&x.slice(1, 0..1).unwrap()).is_err());
                    decoder.clear();
                }
            }
        });
    }

    /// The blocks of [`weights`] without biases, with gates.
    fn gated(width: usize, hidden: usize, seed: u64) -> BlockWeights {
        let plain = |[weight, bias]: [Tensor; 2]| [weight, Tensor::zeros(bias.shape())];
        let w = weights(width, hidden, seed);
        let gate = weights(width, hidden, seed + 50).expand;
        BlockWeights {
            norm1: plain(w.norm1),
            qkv: plain(w.qkv),
            proj: plain(w.proj),
            norm2: plain(w.norm2),
            gate: Some(plain(gate)),
            expand: plain(w.expand),
            contract: plain(w.contract),
        }
    }

    #[test]
    fn rotary_steps_give_what_one_operation_after_another_gives() {
        on_every_device(|| {
            for (batch, length, heads, head, hidden) in
                [(1, 1, 1, 2, 1), (2, 20, 3, 16, 31), (5, 18, 4, 36, 300), (17, 6, 2, 32, 64)]
            {
                let width = heads * head;
                let blocks: Vec<BlockWeights> = (0..2).map(|i| gated(width, hidden, i)).collect();
                let angles = random(&[length * head / 2], 7).to_vec();
                let mut turns = Vec::new();
                for row in angles.chunks(head / 2) {
                    turns.extend(row.iter().flat_map(|a| [a.cos(); 2]));
                    turns.extend(row.iter().flat_map(|a| [-a.sin(), a.sin()]));
                }
                let turns = Tensor::from_vec(turns, &[length, 2, head]).unwrap();
                let x = random(&[batch, length, width], 99);
                let mut wanted = x.clone();
                for b in &blocks {
                    let qkv = wanted.rms_norm(&b.norm1[0], EPS).unwrap().linear(&b.qkv[0], None).unwrap();
                    let qkv = rotate_qk(&qkv, &turns.reshape(&[1, length, 2, head]).unwrap()).unwrap();
                    let attended = attention_qkv(&qkv, heads, true).unwrap();
                    wanted = wanted.add(&attended.linear(&b.proj[0], None).unwrap()).unwrap();
                    let y = wanted.rms_norm(&b.norm2[0], EPS).unwrap();
                    let gate = y.linear(&b.gate.as_ref().unwrap()[0], None).unwrap();
                    let hidden = gate.silu_mul(&y.linear(&b.expand[0], None).unwrap()).unwrap();
                    wanted = wanted.add(&hidden.linear(&b.contract[0], None).unwrap()).unwrap();
                }
                let mut decoder = Decoder::rotary(&blocks, heads, EPS, batch, &turns).unwrap();
                for steps in [1, 3] {
                    for from in (0..length).step_by(steps) {
                        let to = (from + steps).min(length);
                        let y = decoder.step(&x.slice(1, from..to).unwrap()).unwrap();
                        assert_close(y.as_slice(), wanted.slice(1, from..to).unwrap().as_slice(), 2e-5);
                    }
                    decoder.clear();
                }
            }
            let blocks = [gated(6, 8, 1)];
            for shape in [[4, 2, 2], [4, 1, 6], [4, 2, 3]] {
                assert!(Decoder::rotary(&blocks, 2, EPS, 1, &Tensor::zeros(&shape)).is_err());
            }
        });
    }

    #[test]
    fn a_clone_goes_on_by_itself() {
        on_every_device(|| {
            let blocks = [weights(6, 8, 1)];
            let mut decoder = Decoder::new(&blocks, 2, EPS, 2, 4).unwrap();
            let [a, b, c] = [1, 2, 3].map(|seed| random(&[2, 1, 6], seed));
            decoder.step(&a).unwrap();
            let mut other = decoder.clone();
            let first = decoder.step(&b).unwrap();
            other.step(&c).unwrap();
            assert_eq!(other.len(), 2);
            let (mine, theirs) = (decoder.step(&a).unwrap(), other.step(&a).unwrap());
            assert!(mine.to_vec() != theirs.to_vec());
            decoder.clear();
            decoder.step(&a).unwrap();
            assert_eq!(decoder.step(&b).unwrap().to_vec(), first.to_vec());
            assert_eq!(decoder.step(&a).unwrap().to_vec(), mine.to_vec());
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let good = weights(6, 8, 1);
            assert!(Decoder::new(&[], 1, EPS, 1, 4).is_err());
            assert!(Decoder::new(std::slice::from_ref(&good), 4, EPS, 1, 4).is_err());
            let odd = BlockWeights { proj: good.qkv.clone(), ..good.clone() };
            assert!(Decoder::new(&[odd], 2, EPS, 1, 4).is_err());
            let mut decoder = Decoder::new(&[good], 2, EPS, 2, 4).unwrap();
            for shape in [[1, 1, 6], [2, 1, 5], [2, 5, 6]] {
                assert!(decoder.step(&Tensor::zeros(&shape)).is_err());
            }
            assert!(decoder.step(&Tensor::zeros(&[2, 0, 6])).unwrap().is_empty() && decoder.is_empty());
        });
    }
}
