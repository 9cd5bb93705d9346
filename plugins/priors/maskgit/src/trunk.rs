//! The bidirectional transformers that published masked priors are.

use crate::MaskGitConfig;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::{LayerNorm, Linear};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::attention::attention_qkv;

rqlab_sdk::choice! {
    /// A transformer.
    pub enum TrunkKind {
        /// Post-norm blocks behind a layer norm of the inputs (eps 1e-12).
        Bert = "bert",
        /// Pre-norm blocks and a layer norm behind them (eps 1e-5).
        PreNorm = "pre_norm",
        /// Pre-norm blocks without biases of queries, keys and values: half of `layers`, one in the middle, and half of `layers`
        /// that also read what those of the first half gave, the last one first; a layer norm behind them (Bao et al., "All are
        /// Worth Words", CVPR 2023).
        UVit = "u_vit",
    }
}

/// One block. Parameters: `skip_linear` `[W, 2W]` where it reads a skip, `ln1`, `attn.qkv` (rows of queries, keys and values),
/// `attn.proj`, `ln2`, `mlp.0`, `mlp.2`.
#[derive(Debug)]
struct Block {
    skip: Option<Linear>,
    norms: [LayerNorm; 2],
    qkv: Linear,
    proj: Linear,
    expand: Linear,
    contract: Linear,
    heads: usize,
    post_norm: bool,
    dropout: f32,
}

impl Block {
    fn new(params: &Params, config: &MaskGitConfig, skip: bool) -> Result<Self> {
        let MaskGitConfig { width, init, trunk, .. } = *config;
        let hidden = config.mlp_width.unwrap_or(4 * width);
        let linear = |name: &str, from: usize, to: usize| init.linear(&params.scope(name), from, to);
        let norm = |name: &str| LayerNorm::new(&params.scope(name), width, trunk.eps());
        let qkv = match trunk {
            TrunkKind::UVit => {
                Linear::with_init(&params.scope("attn.qkv"), width, 3 * width, init.weight(width), None)?
            }
            TrunkKind::Bert | TrunkKind::PreNorm => linear("attn.qkv", width, 3 * width)?,
        };
        Ok(Self {
            skip: skip.then(|| linear("skip_linear", 2 * width, width)).transpose()?,
            norms: [norm("ln1")?, norm("ln2")?],
            qkv,
            proj: linear("attn.proj", width, width)?,
            expand: linear("mlp.0", width, hidden)?,
            contract: linear("mlp.2", hidden, width)?,
            heads: config.heads,
            post_norm: trunk == TrunkKind::Bert,
            dropout: config.dropout,
        })
    }

    /// `[B, T, W] -> [B, T, W]`.
    fn forward(&self, x: &Tensor, skip: Option<&Tensor>, mode: &Mode) -> Result<Tensor> {
        let joined = match (&self.skip, skip) {
            (Some(linear), Some(skip)) => Some(linear.forward(&Tensor::concat(&[x, skip], 2)?)?),
            _ => None,
        };
        let x = joined.as_ref().unwrap_or(x);
        let attend = |x: &Tensor| Ok(attention_qkv(&self.qkv.forward(x)?, self.heads, false)?);
        let x = self.half(x, 0, attend, &self.proj, mode)?;
        self.half(&x, 1, |x| self.expand.forward_gelu(x), &self.contract, mode)
    }

    /// `x + out(inner(norm x))`, or `norm(x + out(inner x))`.
    fn half(
        &self,
        x: &Tensor,
        index: usize,
        inner: impl Fn(&Tensor) -> Result<Tensor>,
        out: &Linear,
        mode: &Mode,
    ) -> Result<Tensor> {
        let norm = &self.norms[index];
        let hidden = if self.post_norm { inner(x)? } else { inner(&norm.forward(x)?)? };
        let sum = match mode {
            Mode::Train(_) if self.dropout > 0.0 => {
                x.add(&mode.part("half", index).dropout(&out.forward(&hidden)?, self.dropout, "added")?)?
            }
            _ => out.forward_add(&hidden, x)?,
        };
        if self.post_norm { norm.forward(&sum) } else { Ok(sum) }
    }
}

impl TrunkKind {
    fn eps(self) -> f32 {
        match self {
            Self::Bert => 1e-12,
            Self::PreNorm | Self::UVit => 1e-5,
        }
    }
}

/// Blocks in a row. Parameters: `norm` (of the inputs in a BERT, of the outputs otherwise) and `blocks.0`, `blocks.1`, ..
#[derive(Debug)]
pub(crate) struct Trunk {
    kind: TrunkKind,
    norm: LayerNorm,
    blocks: Vec<Block>,
    dropout: f32,
}

impl Trunk {
    pub(crate) fn new(params: &Params, config: &MaskGitConfig) -> Result<Self> {
        let MaskGitConfig { width, heads, layers, trunk, .. } = *config;
        if !width.is_multiple_of(heads) {
            let message = format!("{heads} heads do not divide a width of {width}");
            return Err(ConfigError::field("heads", message).into());
        }
        let skips = trunk == TrunkKind::UVit;
        if skips && !layers.is_multiple_of(2) {
            let message = format!("a u_vit has half of its layers on either side of the middle, and {layers} are odd");
            return Err(ConfigError::field("layers", message).into());
        }
        let count = layers + usize::from(skips);
        let block = |i: usize| Block::new(&params.scope("blocks").scope(i), config, skips && i > layers / 2);
        Ok(Self {
            kind: trunk,
            norm: LayerNorm::new(&params.scope("norm"), width, trunk.eps())?,
            blocks: (0..count).map(block).collect::<Result<_>>()?,
            dropout: config.dropout,
        })
    }

    /// `[B, T, W] -> [B, T, W]`.
    pub(crate) fn forward(&self, x: &Tensor, mode: &Mode) -> Result<Tensor> {
        let bert = self.kind == TrunkKind::Bert;
        let x = if bert { self.norm.forward(x)? } else { x.clone() };
        let mut x = mode.dropout(&x, self.dropout, "input")?;
        let half = self.blocks.len() / 2;
        let mut skips = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, if i > half { skips.pop() } else { None }.as_ref(), &mode.part("block", i))?;
            if self.kind == TrunkKind::UVit && i < half {
                skips.push(x.clone());
            }
        }
        if bert { Ok(x) } else { self.norm.forward(&x) }
    }
}
