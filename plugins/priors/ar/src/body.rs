//! The transformer and what makes logits of its outputs, of either kind.

use crate::llama::{Llama, LlamaDecoding, Output};
use crate::{ArConfig, BlockKind, Position};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::codes::{CodeClassifier, PackedClassifier};
use rqlab_sdk::nn::transformer::{BlockConfig, Decoding, Stack};
use rqlab_sdk::prelude::*;

/// Parameters: `transformer`, and `classifier` with gpt, `output` with llama.
#[derive(Debug)]
pub(crate) enum Body {
    Gpt { stack: Stack, classifier: CodeClassifier },
    Llama { model: Llama, output: Output },
}

impl Body {
    pub(crate) fn new(params: &Params, config: &ArConfig, level: &LevelInfo) -> Result<Self> {
        let ArConfig { width, heads, layers, dropout, attention_dropout, init, .. } = *config;
        let scope = params.scope("transformer");
        if config.block == BlockKind::Llama {
            if attention_dropout > 0.0 {
                let message =
                    "llama blocks keep all attention probabilities; leave it at 0, or take `block: gpt`".to_owned();
                return Err(ConfigError::field("attention_dropout", message).into());
            }
            if config.position != Position::Flat {
                let message = "llama blocks have rotary positions; leave it out, or take `block: gpt`".to_owned();
                return Err(ConfigError::field("position", message).into());
            }
            return Ok(Self::Llama {
                model: Llama::new(&scope, config, level)?,
                output: Output::new(&params.scope("output"), width, level.sizes(), init)?,
            });
        }
        let block = BlockConfig { width, heads, causal: true, dropout, attention_dropout, init };
        Ok(Self::Gpt {
            stack: Stack::new(&scope, layers, &block)?,
            classifier: CodeClassifier::new(&params.scope("classifier"), width, level.sizes(), init)?,
        })
    }

    /// Sequences `[B, T, W] -> [B, T, W]`.
    pub(crate) fn forward(&self, x: &Tensor, mode: &Mode) -> Result<Tensor> {
        match self {
            Self::Gpt { stack, .. } => stack.forward(x, mode),
            Self::Llama { model, .. } => model.forward(x, mode),
        }
    }

    /// Logits `[N, K_d]` of every depth from hidden states `[N, D, W]`.
    pub(crate) fn by_depth(&self, hidden: &Tensor) -> Result<Vec<Tensor>> {
        match self {
            Self::Gpt { classifier, .. } => classifier.by_depth(hidden),
            Self::Llama { output, .. } => output.by_depth(hidden),
        }
    }

    /// Cross entropy in nats of every code, `[N, D]`.
    pub(crate) fn losses(&self, hidden: &Tensor, codes: &Codes, targets: &Targets) -> Result<Tensor> {
        match self {
            Self::Gpt { classifier, .. } => classifier.losses(hidden, codes, targets),
            Self::Llama { output, .. } => output.losses(hidden, codes, targets),
        }
    }

    /// `images` sequences of at most `length` tokens, still empty.
    pub(crate) fn decoding(&self, images: usize, length: usize, cache: bool) -> Result<BodyDecoding> {
        Ok(match self {
            Self::Gpt { stack, classifier } => BodyDecoding::Gpt {
                decoding: Decoding::new(stack, images, length, cache)?,
                classifier: classifier.packed(images)?,
            },
            Self::Llama { model, output } => {
                BodyDecoding::Llama { decoding: LlamaDecoding::new(model, cache), output: output.clone() }
            }
        })
    }
}

/// Sequences that are decoded a token at a time.
#[derive(Debug)]
pub(crate) enum BodyDecoding {
    Gpt { decoding: Decoding, classifier: PackedClassifier },
    Llama { decoding: LlamaDecoding, output: Output },
}

impl BodyDecoding {
    /// Logits `[B, 1, K]` of a code of `depth` from the next input `[B, 1, W]`.
    pub(crate) fn next(&mut self, input: Tensor, depth: usize) -> Result<Tensor> {
        match self {
            Self::Gpt { decoding, classifier } => {
                decoding.push(input);
                classifier.logits(&decoding.output()?, depth)
            }
            Self::Llama { decoding, output } => output.logits(&decoding.next(input)?, depth),
        }
    }
}
