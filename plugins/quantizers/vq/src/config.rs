//! What an experiment can say about vector quantization.

use rqlab_sdk::choice;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::{self, CodebookInit, EmaRule, Estimator};
use rqlab_sdk::prelude::*;

choice! {
    /// Where latents and codes are divided by their lengths.
    pub enum Normalize {
        /// Nowhere: the nearest code is that of the least distance.
        Never = "never",
        /// Everywhere: what is compared, learned and passed on has length 1 (LlamaGen, vector-quantize-pytorch's cosine
        /// codebook).
        Always = "always",
        /// In the search alone: the code of the largest cosine, at its own length (VAR's `using_znorm`).
        Lookup = "lookup",
    }
}

choice! {
    /// What moves the codebook.
    pub enum CodebookUpdate {
        /// Moving averages of the vectors that each code got.
        Ema = "ema",
        /// The optimizer, by the codebook loss.
        Gradient = "gradient",
    }
}

choice! {
    /// Which of the two losses beta weighs; the other has weight 1.
    pub enum BetaOn {
        /// `|sg(z) - e|² + beta |z - sg(e)|²`: VQ-VAE, equation 3.
        Commitment = "commitment",
        /// `beta |sg(z) - e|² + |z - sg(e)|²`: what VQGAN's code does by default.
        Codebook = "codebook",
    }
}

choice! {
    /// What becomes of codes that few vectors use.
    pub enum DeadCodes {
        /// They stay where they are: VQ-VAE-2, VQGAN.
        Keep = "keep",
        /// Averages restart at random vectors, of which none is taken twice, before the codes are written: RQ-VAE (`ema`).
        Restart = "restart",
        /// Codes and averages are replaced by random vectors after the codes are written: vector-quantize-pytorch (`ema`).
        Threshold = "threshold",
        /// Each code moves to an anchor among the vectors, the further the less it is used: CVQ (`gradient`).
        Anchored = "anchored",
    }
}

choice! {
    /// Which vector of the batch is a code's anchor.
    pub enum Anchor {
        /// The closest: CVQ's default, TiTok.
        Closest = "closest",
        /// Any, none taken twice if there are enough: CVQ's `random`.
        Random = "random",
        /// One drawn by softmax(-d²) over the batch: CVQ's `probrandom`.
        ByDistance = "by_distance",
    }
}

config! {
    /// Vector quantization: the nearest of K codewords at each position.
    ///
    /// LlamaGen's is `vq(codebook: 16384, code_dim: 8, normalize: always, codebook_update: gradient)`, VQGAN's
    /// `vq(codebook: 1024, codebook_update: gradient, beta_on: codebook)`, VQ-VAE-2's `vq(codebook: 512, decay: 0.99,
    /// dead_codes: keep, initial_count: 0.0)`, TiTok's later one `vq(codebook: 8192, code_dim: 64, codebook_update:
    /// gradient, dead_codes: anchored)`.
    pub struct VqConfig {
        /// Codes in the codebook, K.
        codebook: usize = 512, in 2..=1_048_576;
        /// Channels of a code, reached and left by a linear map; if not given, those of the latents, and no map. LlamaGen
        /// has 8, TiTok 12.
        code_dim: Option<usize> = None, in 1..=65536;
        /// Where latents and codes are divided by their lengths.
        normalize: Normalize = Normalize::Never;
        /// What moves the codebook.
        codebook_update: CodebookUpdate = CodebookUpdate::Ema;
        /// How the codebook starts; if not given, `normal` for `ema` and `uniform` for `gradient`.
        init: Option<CodebookInit> = None;
        /// Rounds of k-means in the first batch, where `init` is `kmeans`.
        kmeans_iterations: usize = 10, in 1..=1000;
        /// Weight of the commitment loss, or of the codebook loss if `beta_on` says so.
        beta: f32 = 0.25, in 0.0..=1000.0;
        /// Which loss beta weighs. `codebook` needs `codebook_update: gradient`: there is no codebook loss otherwise.
        beta_on: BetaOn = BetaOn::Commitment;
        /// How gradients pass.
        estimator: Estimator = Estimator::StraightThrough;
        /// Temperature T at which codes are drawn in training, by softmax(-d²/T); if not given, they are the nearest.
        stochastic_codes: Option<f32> = None, in 1e-6..=1e6;
        /// Share of the averages that an update keeps (`ema`). The published models have 0.99; the shorter memory follows an
        /// encoder better that is trained for thousands of steps.
        decay: f64 = 0.97, in 0.0..1.0;
        /// Smoothing of the average counts (`ema`).
        eps: f64 = 1e-5, in 0.0..=1.0;
        /// The average count that codes start with (`ema`); if not given, 0 with `dead_codes: restart` and 1 else. The
        /// published RQ-VAE has 0, and counts on restarts: a code that starts with 0 and gets no vector is divided by
        /// `eps` alone, which throws it far away.
        initial_count: Option<f32> = None, in 0.0..=1e6;
        /// What becomes of codes that few vectors use; if not given, `restart` for `ema` and `keep` for `gradient`. With
        /// `restart`, the first step sets the codebook from data, whatever `init` says.
        dead_codes: Option<DeadCodes> = None;
        /// The average count, in vectors per update, below which a code is dead (`restart`, `threshold`). RQ-VAE has 1;
        /// where a step has about as many vectors as codes, that restarts codes faster than they can settle.
        dead_below: f32 = 0.1, in 0.0..=1e6;
        /// Which vector a code moves to (`anchored`).
        anchor: Anchor = Anchor::Closest;
        /// Share of a code's average use u that an update keeps (`anchored`); a code moves by the share
        /// `exp(-10 K u / (1 - decay) - 0.001)`. CVQ and TiTok have 0.99.
        anchor_decay: f64 = 0.99, in 0.0..1.0;
        /// Weight of the loss that keeps codes orthogonal, the mean squared cosine between two of them (`gradient`).
        /// vector-quantize-pytorch suggests 10.
        orthogonal_weight: f32 = 0.0, in 0.0..=1000.0;
        /// Whether that loss sees only the codes that the batch uses.
        orthogonal_active_only: bool = false;
        /// The most codes that it sees, drawn anew at each step; if not given, all.
        orthogonal_max_codes: Option<usize> = None, in 2..=1_048_576;
        /// Weight of the entropy loss `E H(p) - H(E p)`, p = softmax(-d²/T) over all codes: each vector sure of its code,
        /// all codes in use. LlamaGen's code has it, with weight 0 by default; its memory is a number for each vector and
        /// code.
        entropy_weight: f32 = 0.0, in 0.0..=1000.0;
        /// The temperature T of the entropy loss; LlamaGen has 0.01.
        entropy_temperature: f32 = 0.01, in 1e-6..=1e6;
    }
}

impl VqConfig {
    /// What becomes of dead codes, given or not.
    ///
    /// # Errors
    /// A policy that does not go with what moves the codebook.
    pub fn dead_codes(&self) -> Result<DeadCodes, ConfigError> {
        match (self.codebook_update, self.dead_codes) {
            (CodebookUpdate::Ema, None) => Ok(DeadCodes::Restart),
            (CodebookUpdate::Gradient, None) => Ok(DeadCodes::Keep),
            (CodebookUpdate::Ema, Some(DeadCodes::Anchored)) => Err(ConfigError::field(
                "dead_codes",
                "`anchored` moves a codebook that gradients train, and this one follows averages; add \
                 `codebook_update: gradient`, or take `restart` or `threshold`",
            )),
            (CodebookUpdate::Gradient, Some(DeadCodes::Restart | DeadCodes::Threshold)) => Err(ConfigError::field(
                "dead_codes",
                "`restart` and `threshold` go by the average counts of an `ema` codebook, and gradients train this \
                 one; take `anchored` or `keep`",
            )),
            (_, Some(asked)) => Ok(asked),
        }
    }

    /// How an `ema` codebook moves.
    pub(crate) fn rule(&self, dead_codes: DeadCodes) -> EmaRule {
        let dead_codes = match dead_codes {
            DeadCodes::Restart => nn::DeadCodes::Restart,
            DeadCodes::Threshold => nn::DeadCodes::Threshold,
            DeadCodes::Keep | DeadCodes::Anchored => nn::DeadCodes::Keep,
        };
        EmaRule {
            decay: self.decay,
            eps: self.eps,
            initial_count: EmaRule::initial_count(self.initial_count, dead_codes),
            dead_below: self.dead_below,
            dead_codes,
            unit_length: self.normalize == Normalize::Always,
        }
    }

    /// Refuses losses of a codebook that no loss reaches.
    pub(crate) fn check_losses(&self) -> Result<(), ConfigError> {
        let needs_gradient = |field: &str, loss: &str| {
            let message = format!("an `ema` codebook has no {loss}; add `codebook_update: gradient`");
            Err(ConfigError::field(field, message))
        };
        match self.codebook_update {
            CodebookUpdate::Ema if self.beta_on == BetaOn::Codebook => {
                needs_gradient("beta_on", "codebook loss to weigh")
            }
            CodebookUpdate::Ema if self.orthogonal_weight > 0.0 => {
                needs_gradient("orthogonal_weight", "gradients that could make codes orthogonal")
            }
            _ => Ok(()),
        }
    }
}
