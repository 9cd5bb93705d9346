//! The settings, and the cells of Table 1.

use rqlab_sdk::config;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::ConditionKind;
use rqlab_sdk::nn::diffusion::{NoiseSchedule, TokenLoss};

rqlab_sdk::choice! {
    /// In which order the tokens of an image are predicted.
    pub enum Order {
        /// Row by row.
        Raster = "raster",
        /// Another random one for each image.
        Random = "random",
    }
}

rqlab_sdk::choice! {
    /// What a token sees.
    pub enum Attention {
        /// Those that were predicted before it.
        Causal = "causal",
        /// All that is known, in both directions, as a masked autoencoder does (He et al., CVPR 2022).
        Bidirectional = "bidirectional",
    }
}

rqlab_sdk::choice! {
    /// How many tokens a step of sampling predicts.
    pub enum TokensPerStep {
        /// One.
        One = "one",
        /// More and more of them, by a cosine schedule over `iterations` steps.
        Many = "many",
    }
}

rqlab_sdk::choice! {
    /// A cell of Table 1 of the paper.
    pub enum Preset {
        /// AR: raster, causal, one token; cross entropy.
        ArCrossEnt = "ar_crossent",
        /// AR: raster, causal, one token; diffusion.
        ArDiffLoss = "ar_diffloss",
        /// Random order, causal, one token; cross entropy.
        RandomCausalCrossEnt = "random_causal_crossent",
        /// Random order, causal, one token; diffusion.
        RandomCausalDiffLoss = "random_causal_diffloss",
        /// Random order, bidirectional, one token; cross entropy.
        MarOneCrossEnt = "mar_one_crossent",
        /// Random order, bidirectional, one token; diffusion.
        MarOneDiffLoss = "mar_one_diffloss",
        /// MAR: random order, bidirectional, many tokens; cross entropy.
        MarCrossEnt = "mar_crossent",
        /// MAR: random order, bidirectional, many tokens; diffusion.
        MarDiffLoss = "mar_diffloss",
    }
}

rqlab_sdk::choice! {
    /// How a causal transformer knows the condition.
    pub enum CausalCondition {
        /// As its first token, as in GPT and in the paper.
        Start = "start",
        /// It modulates every layer norm, as in the code of DeTok (Yang et al. 2025), whose ARDiff is such a model.
        Modulation = "modulation",
    }
}

config! {
    /// Autoregression in raster or random order, causal or masked, of codes by cross entropy or of vectors by diffusion (MAR).
    /// Over codes a diffusion models their embeddings, and a sample is the nearest code.
    pub struct MarConfig {
        /// A cell of Table 1 of the paper; each of the next four settings overrides its part.
        preset: Preset = Preset::MarDiffLoss;
        /// In which order tokens are predicted.
        order: Option<Order> = None;
        /// What a token sees. Causal is a decoder, of as many blocks as encoder and decoder together.
        attention: Option<Attention> = None;
        /// How many tokens a step of sampling predicts; causal attention predicts one.
        tokens_per_step: Option<TokensPerStep> = None;
        /// How a token is predicted. By cross entropy a position has one code.
        loss: Option<TokenLoss> = None;
        /// Side of the squares of vectors that are one token. Published: 1, and 2 over maps of twice the side.
        patch: usize = 1, in 1..=64;
        /// Model width (d_model). MAR-B, L and H have 768, 1024 and 1280.
        width: usize = 128, in 1..=16384;
        /// Attention heads; they divide the width. The published models have 12, 16 and 16.
        heads: usize = 4, in 1..=256;
        /// Attention heads of the decoder, where it has others.
        decoder_heads: Option<usize> = None, in 1..=256;
        /// Width of the decoder and of what tokens are predicted from, where it has another.
        decoder_width: Option<usize> = None, in 1..=16384;
        /// Blocks of the encoder, which sees known tokens alone. The published models have 12, 16 and 20.
        encoder_layers: usize = 3, in 0..=256;
        /// Blocks of the decoder, which sees all positions. The published models have 12, 16 and 20.
        decoder_layers: usize = 3, in 0..=256;
        /// Tokens that hold the condition before those of a masked image. A condition of several tokens is held by as many, and
        /// this does not count. The published models have 64.
        buffer: usize = 16, in 1..=4096;
        /// Whether it is told the class of the image, or its text.
        condition: ConditionKind = ConditionKind::Class;
        /// How a causal transformer knows the condition.
        causal_condition: CausalCondition = CausalCondition::Start;
        /// The least share of tokens that is masked in training: shares are drawn from a normal distribution around 1 with
        /// deviation 0.25, cut to this and 1, one for all images of a batch. Published: 0.7.
        least_masked: f32 = 0.7, in 0.0..=1.0;
        /// Masks just this share of the tokens instead of a drawn one.
        masked: Option<f32> = None, in 0.001..=1.0;
        /// Dropout on what each block adds. The published models have 0.1.
        dropout: f32 = 0.0, in 0.0..=0.9;
        /// Model width of the diffusion's network. The published models have 1024, 1280 and 1536.
        head_width: usize = 128, in 1..=16384;
        /// Blocks of the diffusion's network. The published models have 6, 8 and 12.
        head_layers: usize = 3, in 1..=256;
        /// Draws of noise per token in training. Published: 4.
        noise_draws: usize = 4, in 1..=1024;
        /// How noise grows with the steps of the diffusion. Published: cosine, whose last steps take all of the signal: sampling
        /// begins there, and multiplies what a network of short training still gets wrong.
        noise_schedule: NoiseSchedule = NoiseSchedule::Linear;
        /// Steps of the diffusion in training. Published: 1000.
        noise_steps: usize = 1000, in 2..=100000;
        /// Steps of the diffusion in sampling, evenly spaced among those of training; or of the flow. Published: 100.
        sampling_steps: usize = 100, in 1..=100000, sampling;
        /// Steps of sampling in which many tokens are predicted: at most as many as there are tokens. By default a quarter of
        /// them, as the published 64 of 256.
        iterations: Option<usize> = None, in 1..=1048576, sampling;
    }
}

/// A cell of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The order of tokens.
    pub order: Order,
    /// What a token sees.
    pub attention: Attention,
    /// How many tokens a step predicts.
    pub tokens_per_step: TokensPerStep,
    /// How a token is predicted.
    pub loss: TokenLoss,
}

impl Preset {
    /// What it stands for.
    pub fn cell(self) -> Cell {
        use {Attention::*, Order::*, TokenLoss::*, TokensPerStep::*};
        let (order, attention, tokens_per_step, loss) = match self {
            Self::ArCrossEnt => (Raster, Causal, One, CrossEntropy),
            Self::ArDiffLoss => (Raster, Causal, One, Diffusion),
            Self::RandomCausalCrossEnt => (Random, Causal, One, CrossEntropy),
            Self::RandomCausalDiffLoss => (Random, Causal, One, Diffusion),
            Self::MarOneCrossEnt => (Random, Bidirectional, One, CrossEntropy),
            Self::MarOneDiffLoss => (Random, Bidirectional, One, Diffusion),
            Self::MarCrossEnt => (Random, Bidirectional, Many, CrossEntropy),
            Self::MarDiffLoss => (Random, Bidirectional, Many, Diffusion),
        };
        Cell { order, attention, tokens_per_step, loss }
    }
}

impl MarConfig {
    /// The width of what a token is predicted from: a causal transformer has no decoder.
    ///
    /// # Errors
    /// [`ConfigError`] of the cell.
    pub fn output_width(&self) -> Result<usize, ConfigError> {
        let causal = self.cell()?.attention == Attention::Causal;
        Ok(if causal { self.width } else { self.decoder_width.unwrap_or(self.width) })
    }

    /// The preset with what overrides it.
    ///
    /// # Errors
    /// [`ConfigError`] of the field `tokens_per_step`: causal attention predicts one token after another.
    pub fn cell(&self) -> Result<Cell, ConfigError> {
        let preset = self.preset.cell();
        let attention = self.attention.unwrap_or(preset.attention);
        // What a preset says of steps was not said of another attention.
        let causal = attention == Attention::Causal;
        let steps = if causal { TokensPerStep::One } else { preset.tokens_per_step };
        let cell = Cell {
            order: self.order.unwrap_or(preset.order),
            attention,
            tokens_per_step: self.tokens_per_step.unwrap_or(steps),
            loss: self.loss.unwrap_or(preset.loss),
        };
        if causal && cell.tokens_per_step == TokensPerStep::Many {
            let message =
                "causal attention predicts one token from those before it: take `attention: bidirectional`, or `one`";
            return Err(ConfigError::field("tokens_per_step", message));
        }
        Ok(cell)
    }
}
