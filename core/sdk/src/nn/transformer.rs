//! The pre-norm transformer of GPT-2 and of the RQ-Transformer, trained on whole sequences and sampled one position at
//! a time.
//!
//! A block is `x += proj(attention(ln1 x))`, `x += mlp.2(gelu(mlp.0(ln2 x)))`: exact GELU, every linear map with bias,
//! layer norm with eps 1e-5, attention scaled by the root of the head size. No normalisation follows the last block.

use super::{LayerNorm, Linear};
use crate::config::ConfigError;
use crate::contracts::Mode;
use crate::params::{Init, Params};
use crate::tensor::ops::attention::attention_qkv;
use crate::tensor::ops::decoder::{BlockWeights, Decoder};
use crate::tensor::{Tensor, Var};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Layer norms divide by the root of the variance plus this.
pub const LAYER_NORM_EPS: f32 = 1e-5;

crate::choice! {
    /// How the parameters of a transformer start.
    pub enum WeightInit {
        /// PyTorch's defaults, as in the published RQ-Transformer: uniform by fan-in, embeddings with deviation 1.
        Published = "published",
        /// Normal with deviation 0.02, biases zero, as in GPT-2: the loss starts at ln K.
        Gpt = "gpt",
    }
}

impl WeightInit {
    /// A linear map with bias that starts this way.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn linear(self, params: &Params, inputs: usize, outputs: usize) -> Result<Linear> {
        match self {
            Self::Published => Linear::new(params, inputs, outputs, true),
            Self::Gpt => Linear::with_init(params, inputs, outputs, Init::Normal(0.02), Some(Init::ZEROS)),
        }
    }

    /// How the weight of a linear map of `inputs` numbers starts.
    pub fn weight(self, inputs: usize) -> Init {
        match self {
            Self::Published => Init::fan_in(inputs),
            Self::Gpt => Init::Normal(0.02),
        }
    }

    /// How the rows of an embedding start.
    pub fn embedding(self) -> Init {
        match self {
            Self::Published => Init::Normal(1.0),
            Self::Gpt => Init::Normal(0.02),
        }
    }
}

/// What all blocks of a stack have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockConfig {
    /// Model width (d_model), W.
    pub width: usize,
    /// Attention heads; they divide the width.
    pub heads: usize,
    /// Whether a position sees only itself and what came before.
    pub causal: bool,
    /// Dropout on what a block adds to the residual stream.
    pub dropout: f32,
    /// Dropout on the attention probabilities. Above zero it costs memory for all of them.
    pub attention_dropout: f32,
    /// First values.
    pub init: WeightInit,
}

/// One block. Parameters: `ln1`, `attn.qkv`, `attn.proj`, `ln2`, `mlp.0`, `mlp.2`, each with `weight` and `bias`.
///
/// `attn.qkv` `[3W, W]` holds the rows of the published `attn.query`, `attn.key` and `attn.value`, in this order, so that
/// they are one matrix product; [`fuse_projections`] and [`split_projections`] translate.
#[derive(Debug, Clone)]
pub struct Block {
    ln1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    ln2: LayerNorm,
    expand: Linear,
    contract: Linear,
    config: BlockConfig,
}

impl Block {
    /// A block under `params`.
    ///
    /// # Errors
    /// [`ConfigError`] of the field `heads` if they do not divide the width; a name that is taken.
    pub fn new(params: &Params, config: &BlockConfig) -> Result<Self> {
        let BlockConfig { width, heads, init, .. } = *config;
        if heads == 0 || !width.is_multiple_of(heads) {
            let message = format!("{heads} heads do not divide a width of {width}");
            return Err(ConfigError::field("heads", message).into());
        }
        Ok(Self {
            ln1: LayerNorm::new(&params.scope("ln1"), width, LAYER_NORM_EPS)?,
            qkv: init.linear(&params.scope("attn.qkv"), width, 3 * width)?,
            proj: init.linear(&params.scope("attn.proj"), width, width)?,
            ln2: LayerNorm::new(&params.scope("ln2"), width, LAYER_NORM_EPS)?,
            expand: init.linear(&params.scope("mlp.0"), width, 4 * width)?,
            contract: init.linear(&params.scope("mlp.2"), 4 * width, width)?,
            config: config.clone(),
        })
    }

    /// Sequences `[B, T, W] -> [B, T, W]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor, mode: &Mode) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.ln1.forward(x)?)?;
        let BlockConfig { heads, causal, attention_dropout, .. } = self.config;
        let attended = match mode {
            Mode::Train(_) if attention_dropout > 0.0 => {
                attention_with_dropout(&qkv, heads, causal, attention_dropout, mode)?
            }
            _ => attention_qkv(&qkv, heads, causal)?,
        };
        let x = &self.onto(x, &self.proj, &attended, mode, "attention")?;
        let hidden = self.expand.forward_gelu(&self.ln2.forward(x)?)?;
        self.onto(x, &self.contract, &hidden, mode, "mlp")
    }

    /// Adds what `linear` makes of `hidden` to the residual stream `x`.
    fn onto(&self, x: &Tensor, linear: &Linear, hidden: &Tensor, mode: &Mode, name: &str) -> Result<Tensor> {
        match mode {
            Mode::Train(_) if self.config.dropout > 0.0 => {
                Ok(x.add(&mode.dropout(&linear.forward(hidden)?, self.config.dropout, name)?)?)
            }
            _ => linear.forward_add(hidden, x),
        }
    }

    fn weights(&self) -> BlockWeights {
        block_weights([&self.ln1, &self.ln2], [&self.qkv, &self.proj, &self.expand, &self.contract])
    }
}

/// What a cached [`Decoder`] reads of a block: its norms before attention and before the maps that follow, and its linear maps
/// to queries, keys and values, out of attention, to the wide state, and back. A map without a bias gets one of zeros.
pub fn block_weights(norms: [&LayerNorm; 2], linears: [&Linear; 4]) -> BlockWeights {
    let [norm1, norm2] = norms.map(|norm| [norm.weight.get(), norm.bias.get()]);
    let [qkv, proj, expand, contract] = linears.map(|linear| {
        let weight = linear.weight.get();
        let bias = linear.bias.as_ref().map_or_else(|| Tensor::zeros(&weight.shape()[..1]), Var::get);
        [weight, bias]
    });
    BlockWeights { norm1, qkv, proj, norm2, gate: None, expand, contract }
}

/// [`attention_qkv`] with dropout of its probabilities, written out, since the fused one keeps none to drop from.
///
/// # Errors
/// Shapes that do not fit.
pub fn attention_with_dropout(qkv: &Tensor, heads: usize, causal: bool, p: f32, mode: &Mode) -> Result<Tensor> {
    let [batch, length, packed] = qkv.dims("attention_with_dropout")?;
    let (width, head) = (packed / 3, packed / 3 / heads);
    let [q, k, v] = [0, 1, 2].map(|third| -> Result<Tensor> {
        let rows = qkv.slice(2, third * width..(third + 1) * width)?;
        Ok(rows.reshape(&[batch, length, heads, head])?.permute(&[0, 2, 1, 3])?)
    });
    let mut scores = q?.matmul_t(&k?)?.mul_scalar(1.0 / (head as f32).sqrt())?;
    if causal {
        let future = |i: usize| if i % length > i / length { f32::NEG_INFINITY } else { 0.0 };
        scores = scores.add(&Tensor::from_vec((0..length * length).map(future).collect(), &[length, length])?)?;
    }
    let probabilities = mode.dropout(&scores.softmax()?, p, "probabilities")?;
    Ok(probabilities.matmul(&v?)?.permute(&[0, 2, 1, 3])?.reshape(&[batch, length, width])?)
}

/// Blocks one after another. Parameters: `blocks.0`, `blocks.1`, ...
#[derive(Debug, Clone)]
pub struct Stack {
    blocks: Vec<Block>,
    causal: bool,
}

impl Stack {
    /// A stack of `layers` blocks under `params`.
    ///
    /// # Errors
    /// As for [`Block::new`].
    pub fn new(params: &Params, layers: usize, config: &BlockConfig) -> Result<Self> {
        let blocks = (0..layers).map(|i| Block::new(&params.scope("blocks").scope(i), config));
        Ok(Self { blocks: blocks.collect::<Result<_>>()?, causal: config.causal })
    }

    /// Sequences `[B, T, W] -> [B, T, W]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor, mode: &Mode) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &mode.part("block", i))?;
        }
        Ok(x)
    }

    /// An empty cache for `batch` sequences of at most `capacity` positions.
    ///
    /// # Errors
    /// Those of [`Decoder::new`].
    pub fn cache(&self, batch: usize, capacity: usize) -> Result<DecodingCache> {
        let blocks: Vec<BlockWeights> = self.blocks.iter().map(Block::weights).collect();
        let heads = self.blocks.first().map_or(1, |block| block.config.heads);
        Ok(DecodingCache { decoder: Decoder::new(&blocks, heads, LAYER_NORM_EPS, batch, capacity)? })
    }

    /// The next positions `[B, n, W] -> [B, n, W]` of sequences whose past is in `cache`: what [`Stack::forward`] gives
    /// at these positions of the whole sequence, without dropout and without gradients.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless the stack is causal; shapes that do not fit the cache.
    pub fn step(&self, x: &Tensor, cache: &mut DecodingCache) -> Result<Tensor> {
        if !self.causal {
            return Err(Error::Unsupported("only a causal transformer can go on from a cache".to_owned()));
        }
        Ok(cache.decoder.step(x)?)
    }
}

/// Keys and values of every layer of a [`Stack`], and its weights of the moment when the cache was made, laid out for
/// steps. Its memory is taken once.
#[derive(Debug, Clone)]
pub struct DecodingCache {
    decoder: Decoder,
}

impl DecodingCache {
    /// Forgets all positions and keeps the memory.
    pub fn clear(&mut self) {
        self.decoder.clear();
    }
}

/// Sequences that are decoded one position after another: inputs are appended, and the output at the newest is asked for.
/// With a cache, keys and values of the past are kept; without, the whole sequence is run through the stack each time. The
/// numbers are the same.
#[derive(Debug, Clone)]
pub struct Decoding {
    stack: Stack,
    cache: Option<DecodingCache>,
    /// Without cache, every input so far; with it, those that the stack has not seen.
    inputs: Vec<Tensor>,
    /// With cache, the newest output.
    output: Option<Tensor>,
}

impl Decoding {
    /// `batch` sequences of at most `capacity` positions, still empty, through `stack` as it is now.
    ///
    /// # Errors
    /// Those of [`Stack::cache`].
    pub fn new(stack: &Stack, batch: usize, capacity: usize, cached: bool) -> Result<Self> {
        let cache = cached.then(|| stack.cache(batch, capacity)).transpose()?;
        Ok(Self { stack: stack.clone(), cache, inputs: Vec::new(), output: None })
    }

    /// Starts over; memory is kept.
    pub fn clear(&mut self) {
        self.inputs.clear();
        self.output = None;
        if let Some(cache) = &mut self.cache {
            cache.clear();
        }
    }

    /// Appends inputs `[B, n, W]`.
    pub fn push(&mut self, input: Tensor) {
        self.inputs.push(input);
    }

    /// The output at the newest input, `[B, 1, W]`. Without cache, each call runs the whole sequence.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if nothing was appended; shapes that do not fit.
    pub fn output(&mut self) -> Result<Tensor> {
        if let (true, Some(output)) = (self.inputs.is_empty(), &self.output) {
            return Ok(output.clone());
        }
        let joined = match self.inputs.as_slice() {
            [] => return Err(Error::Unsupported("a sequence without inputs has no output".to_owned())),
            [one] => one.clone(),
            many => Tensor::concat(&many.iter().collect::<Vec<_>>(), 1)?,
        };
        match &mut self.cache {
            None => last_position(&self.stack.forward(&joined, &Mode::Eval)?),
            Some(cache) => {
                let output = last_position(&self.stack.step(&joined, cache)?)?;
                self.inputs.clear();
                self.output = Some(output.clone());
                Ok(output)
            }
        }
    }
}

fn last_position(x: &Tensor) -> Result<Tensor> {
    match x.shape()[1] {
        1 => Ok(x.clone()),
        length => Ok(x.slice(1, length - 1..length)?),
    }
}

const PUBLISHED: [&str; 3] = ["query", "key", "value"];

/// Replaces each `attn.query`, `attn.key`, `attn.value` of a published state by the `attn.qkv` that [`Block`] holds.
///
/// # Errors
/// [`Error::Checkpoint`] names a part that is missing.
pub fn fuse_projections(state: &mut BTreeMap<String, Tensor>) -> Result<()> {
    for kind in ["weight", "bias"] {
        let ending = format!("attn.query.{kind}");
        let prefixes: Vec<String> = state.keys().filter_map(|k| k.strip_suffix(&ending)).map(str::to_owned).collect();
        for prefix in prefixes {
            let mut parts = Vec::new();
            for part in PUBLISHED {
                let name = format!("{prefix}attn.{part}.{kind}");
                parts.push(state.remove(&name).ok_or_else(|| Error::Checkpoint(format!("the state lacks `{name}`")))?);
            }
            let fused = Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)?;
            state.insert(format!("{prefix}attn.qkv.{kind}"), fused);
        }
    }
    Ok(())
}

/// The inverse of [`fuse_projections`]; it serves gradients as well.
///
/// # Errors
/// [`Error::Checkpoint`] names an `attn.qkv` whose rows are not three times a width.
pub fn split_projections(state: &mut BTreeMap<String, Tensor>) -> Result<()> {
    for kind in ["weight", "bias"] {
        let ending = format!("attn.qkv.{kind}");
        let prefixes: Vec<String> = state.keys().filter_map(|k| k.strip_suffix(&ending)).map(str::to_owned).collect();
        for prefix in prefixes {
            let name = format!("{prefix}{ending}");
            let Some(fused) = state.remove(&name) else { continue };
            let rows = fused.shape().first().copied().unwrap_or(0);
            if !rows.is_multiple_of(3) {
                let message = format!("`{name}` has shape {:?}: its rows are not three of a kind", fused.shape());
                return Err(Error::Checkpoint(message));
            }
            for (i, part) in PUBLISHED.iter().enumerate() {
                let value = fused.slice(0, i * rows / 3..(i + 1) * rows / 3)?;
                state.insert(format!("{prefix}attn.{part}.{kind}"), value);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::testing::{every_parameter_learns, random};
    use crate::tensor::Rng;

    fn config(causal: bool) -> BlockConfig {
        BlockConfig { width: 12, heads: 3, causal, dropout: 0.0, attention_dropout: 0.0, init: WeightInit::Published }
    }

    fn close(a: &Tensor, b: &Tensor) {
        assert_eq!(a.shape(), b.shape());
        let worst = a.as_slice().iter().zip(b.as_slice()).fold(0.0f32, |m, (x, y)| m.max((x - y).abs()));
        assert!(worst < 1e-5, "differ by {worst}");
    }

    #[test]
    fn a_block_of_width_w_has_12_w_squared_and_13_w_parameters() {
        let params = Params::dry();
        Block::new(&params, &config(true)).unwrap();
        assert_eq!(params.count(), 12 * 12 * 12 + 13 * 12);
    }

    #[test]
    fn gradients_reach_every_parameter() {
        for (causal, init) in [(true, WeightInit::Published), (false, WeightInit::Gpt)] {
            let params = Params::new(1);
            let stack = Stack::new(&params, 2, &BlockConfig { init, ..config(causal) }).unwrap();
            every_parameter_learns(&params, &[2, 5, 12], |x| stack.forward(x, &Mode::Eval));
        }
    }

    #[test]
    fn stepping_gives_what_the_whole_sequence_gives() {
        let stack = Stack::new(&Params::new(2), 3, &config(true)).unwrap();
        let x = random(&[3, 7, 12], 1);
        let whole = stack.forward(&x, &Mode::Eval).unwrap();
        let mut cache = stack.cache(3, 7).unwrap();
        for _ in 0..2 {
            for (from, to) in [(0, 3), (3, 4), (4, 5), (5, 7)] {
                let step = stack.step(&x.slice(1, from..to).unwrap(), &mut cache).unwrap();
                close(&step, &whole.slice(1, from..to).unwrap());
            }
            cache.clear();
        }
        for cached in [true, false] {
            let mut decoding = Decoding::new(&stack, 3, 7, cached).unwrap();
            assert!(decoding.output().is_err());
            for (from, to) in [(0, 2), (2, 3), (3, 7)] {
                decoding.push(x.slice(1, from..to).unwrap());
                for _ in 0..2 {
                    close(&decoding.output().unwrap(), &whole.slice(1, to - 1..to).unwrap());
                }
            }
        }
        let full = Stack::new(&Params::new(2), 1, &config(false)).unwrap();
        assert!(full.step(&x, &mut full.cache(3, 7).unwrap()).is_err());
    }

    #[test]
    fn attention_dropout_only_drops() {
        for causal in [true, false] {
            let qkv = random(&[2, 5, 36], 3);
            let plain = attention_qkv(&qkv, 3, causal).unwrap();
            close(&attention_with_dropout(&qkv, 3, causal, 0.5, &Mode::Eval).unwrap(), &plain);
            let train = Mode::Train(Rng::new(0, "test", 0));
            let dropped = attention_with_dropout(&qkv, 3, causal, 0.5, &train).unwrap();
            assert!(dropped.to_vec() != plain.to_vec() && dropped.as_slice().iter().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn published_projections_survive_the_round_trip() {
        let mut state: BTreeMap<String, Tensor> = BTreeMap::new();
        for (i, part) in PUBLISHED.iter().enumerate() {
            state.insert(format!("body.blocks.0.attn.{part}.weight"), random(&[4, 4], i as u64));
            state.insert(format!("body.blocks.0.attn.{part}.bias"), random(&[4], 10 + i as u64));
        }
        let before: Vec<_> = state.iter().map(|(name, t)| (name.clone(), t.to_vec())).collect();
        fuse_projections(&mut state).unwrap();
        assert_eq!(state["body.blocks.0.attn.qkv.weight"].shape(), [12, 4]);
        assert_eq!(state.len(), 2);
        split_projections(&mut state).unwrap();
        assert_eq!(before, state.iter().map(|(name, t)| (name.clone(), t.to_vec())).collect::<Vec<_>>());
        state.remove("body.blocks.0.attn.key.bias");
        assert!(fuse_projections(&mut state).unwrap_err().to_string().contains("attn.key.bias"));
    }

    #[test]
    fn heads_divide_the_width() {
        let complaint = Block::new(&Params::dry(), &BlockConfig { heads: 5, ..config(true) }).unwrap_err().to_string();
        assert!(complaint.contains("`heads`") && complaint.contains("5 heads"), "{complaint}");
    }
}
