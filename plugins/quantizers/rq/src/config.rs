//! What an experiment can say about residual quantization.

use rqlab_sdk::choice;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::{CodebookInit, DeadCodes, DepthDropout, EmaRule, Estimator};
use rqlab_sdk::prelude::*;

choice! {
    /// When the codebook is rewritten.
    pub enum Update {
        /// After every depth: a shared codebook moves D times per step, and each depth sees what the one before it wrote
        /// (RQ-VAE).
        PerDepth = "per_depth",
        /// Once, after all depths; the averages still decay at every depth (vector-quantize-pytorch).
        PerStep = "per_step",
    }
}

choice! {
    /// How the commitment terms of the depths become one.
    pub enum Commitment {
        /// Their mean (the published code of RQ-VAE).
        Mean = "mean",
        /// Their sum (the paper's equation 7; vector-quantize-pytorch).
        Sum = "sum",
    }
}

config! {
    /// Residual quantization: D codes per position, each the nearest codeword to the residual of those before it (Lee et
    /// al. 2022). Codebooks follow their vectors by exponential moving averages, and unused codes are restarted.
    ///
    /// The published models are `rq(depth: 4, codebook: 16384, decay: 0.99, dead_below: 1.0)`; vector-quantize-pytorch's
    /// `ResidualVQ` is `rq(shared: false, update: per_step, commitment: sum, estimator: rotation, estimator_per_depth:
    /// true, beta: 1.0, decay: 0.8, init: kaiming, dead_codes: keep)`.
    pub struct RqConfig {
        /// Codes per position, D.
        depth: usize = 4, in 1..=64;
        /// Codes in a codebook, K.
        codebook: usize = 512, in 2..=1_048_576;
        /// Codes in each depth's codebook, in place of `codebook`; one entry per depth. Needs `shared: false`.
        codebooks: Option<Vec<usize>> = None, in 2..=1_048_576;
        /// Whether all depths share one codebook.
        shared: bool = true;
        /// Channels of a code, reached and left by a linear map; if not given, those of the latents, and no map.
        code_dim: Option<usize> = None, in 1..=65536;
        /// Weight of the commitment loss.
        beta: f32 = 0.25, in 0.0..=1000.0;
        /// How the commitment terms of the depths become one.
        commitment: Commitment = Commitment::Mean;
        /// How gradients pass.
        estimator: Estimator = Estimator::StraightThrough;
        /// Whether they pass each depth on its own, the residual onto its codeword, so that D of them add up
        /// (vector-quantize-pytorch), or once, the latents onto the sum (RQ-VAE).
        estimator_per_depth: bool = false;
        /// Temperature T at which codes are drawn in training, by softmax(-d²/T) at each depth; if not given, they are
        /// the nearest.
        stochastic_codes: Option<f32> = None, in 1e-6..=1e6;
        /// Stacks of codes that are followed from depth to depth outside training, of which the one that leaves least is
        /// taken; 1 takes the nearest code at each depth. More are searched on the CPU, for which a GPU waits.
        eval_beam: usize = 1, in 1..=256;
        /// The same in training, at every step. Looks at all depths before any codebook moves, so that a shared one needs
        /// `update: per_step`.
        train_beam: usize = 1, in 1..=256;
        /// Whether each batch of training keeps only its first depths, a number drawn anew (SoundStream,
        /// vector-quantize-pytorch's `quantize_dropout`). What is dropped adds nothing to latents and losses, and moves
        /// no codebook.
        quantizer_dropout: bool = false;
        /// The first depth, from 0, that may be the last kept one.
        dropout_cutoff: usize = 0, in 0..=63;
        /// The number of kept depths is rounded up to a multiple of this; EnCodec has 4.
        dropout_multiple_of: usize = 1, in 1..=64;
        /// When the codebook is rewritten.
        update: Update = Update::PerDepth;
        /// Share of the averages that an update keeps. The published models have 0.99; the shorter memory follows an encoder
        /// better that is trained for thousands of steps.
        decay: f64 = 0.97, in 0.0..1.0;
        /// The same for each depth, in place of `decay`. Needs `shared: false`.
        decays: Option<Vec<f64>> = None, in 0.0..1.0;
        /// Smoothing of the average counts.
        eps: f64 = 1e-5, in 0.0..=1.0;
        /// What becomes of codes of low average count. With `restart`, the first step sets the codebook from data,
        /// whatever `init` says.
        dead_codes: DeadCodes = DeadCodes::Restart;
        /// The average count, in vectors per update, below which a code is dead. The published models have 1; where a
        /// step has about as many vectors as codes, that restarts codes faster than they can settle.
        dead_below: f32 = 0.1, in 0.0..=1e6;
        /// How codebooks start.
        init: CodebookInit = CodebookInit::Normal;
        /// Rounds of k-means in the first batch, where `init` is `kmeans`.
        kmeans_iterations: usize = 10, in 1..=1000;
        /// The average count that codes start with; if not given, 0 with `dead_codes: restart` and 1 else. The published
        /// RQ-VAE has 0, and counts on restarts: a code that starts with 0 and gets no vector is divided by `eps` alone,
        /// which throws it far away.
        initial_count: Option<f32> = None, in 0.0..=1e6;
    }
}

impl RqConfig {
    /// Codebook size of each depth.
    ///
    /// # Errors
    /// A list that does not fit `depth` or `shared`.
    pub fn sizes(&self) -> Result<Vec<usize>, ConfigError> {
        self.per_depth("codebooks", self.codebooks.as_deref(), self.codebook)
    }

    /// How the codebook of each depth moves.
    ///
    /// # Errors
    /// A list that does not fit `depth` or `shared`.
    pub fn rules(&self) -> Result<Vec<EmaRule>, ConfigError> {
        let decays = self.per_depth("decays", self.decays.as_deref(), self.decay)?;
        let rule = |decay| EmaRule {
            decay,
            eps: self.eps,
            initial_count: EmaRule::initial_count(self.initial_count, self.dead_codes),
            dead_below: self.dead_below,
            dead_codes: self.dead_codes,
            unit_length: false,
        };
        Ok(decays.into_iter().map(rule).collect())
    }

    /// Refuses settings that contradict each other.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |field: &str, message: String| Err(ConfigError::field(field, message));
        if self.train_beam > 1 && self.stochastic_codes.is_some() {
            let message = "a beam takes the best codes, and `stochastic_codes` draws them; leave one of them out";
            return refuse("train_beam", message.to_owned());
        }
        if self.train_beam > 1 && self.shared && self.update == Update::PerDepth {
            let message = "a beam looks at all depths with one codebook, and a shared one moves between them; add \
                           `update: per_step` or `shared: false`";
            return refuse("train_beam", message.to_owned());
        }
        if self.quantizer_dropout { self.dropout().check(self.depth, "depth") } else { Ok(()) }
    }

    fn dropout(&self) -> DepthDropout {
        DepthDropout { cutoff: self.dropout_cutoff, multiple_of: self.dropout_multiple_of }
    }

    /// How many depths a batch of training keeps.
    pub(crate) fn kept(&self, rng: &Rng) -> usize {
        if self.quantizer_dropout { self.dropout().kept(self.depth, rng) } else { self.depth }
    }

    fn per_depth<T: Copy + PartialEq>(&self, field: &str, list: Option<&[T]>, one: T) -> Result<Vec<T>, ConfigError> {
        let Some(list) = list else { return Ok(vec![one; self.depth]) };
        if list.len() != self.depth {
            let message = format!("`{field}` has {} entries for depth {}; give one for each", list.len(), self.depth);
            return Err(ConfigError::field(field, message));
        }
        if self.shared && list.iter().any(|x| *x != list[0]) {
            let message =
                format!("a shared codebook cannot differ by depth; add `shared: false`, or leave out `{field}`");
            return Err(ConfigError::field(field, message));
        }
        Ok(list.to_vec())
    }
}
