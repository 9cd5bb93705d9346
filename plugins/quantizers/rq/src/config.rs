//! What an experiment can say about residual quantization.

use rqlab_sdk::choice;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::{CodebookInit, EmaRule};
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

choice! {
    /// How gradients pass the bottleneck.
    pub enum StraightThrough {
        /// Unchanged, past the sum over depths (RQ-VAE).
        Once = "once",
        /// Unchanged past each depth, so D times in all (vector-quantize-pytorch without rotation).
        PerDepth = "per_depth",
        /// Rotated and scaled with each depth's residual onto its codeword (vector-quantize-pytorch's default).
        Rotation = "rotation",
    }
}

config! {
    /// Residual quantization: D codes per position, each the nearest codeword to the residual of those before it (Lee et
    /// al. 2022). Codebooks follow their vectors by exponential moving averages, and unused codes are restarted.
    ///
    /// The published models are `rq(depth: 4, codebook: 16384, decay: 0.99, restart_threshold: 1.0)`.
    pub struct RqConfig {
        /// Codes per position, D.
        depth: usize = 4, in 1..=64;
        /// Codes in a codebook, K.
        codebook: usize = 512, in 2..=1_048_576;
        /// Codes in each depth's codebook, in place of `codebook`; one entry per depth. Needs `shared: false`.
        codebooks: Option<Vec<usize>> = None, in 2..=1_048_576;
        /// Whether all depths share one codebook.
        shared: bool = true;
        /// Weight of the commitment loss.
        beta: f32 = 0.25, in 0.0..=1000.0;
        /// How the commitment terms of the depths become one.
        commitment: Commitment = Commitment::Mean;
        /// How gradients pass the bottleneck.
        straight_through: StraightThrough = StraightThrough::Once;
        /// When the codebook is rewritten.
        update: Update = Update::PerDepth;
        /// Share of the averages that an update keeps. The published models have 0.99; the shorter memory follows an encoder
        /// better that is trained for thousands of steps.
        decay: f64 = 0.97, in 0.0..1.0;
        /// The same for each depth, in place of `decay`. Needs `shared: false`.
        decays: Option<Vec<f64>> = None, in 0.0..1.0;
        /// Smoothing of the average counts.
        eps: f64 = 1e-5, in 0.0..=1.0;
        /// Whether codes of low average count restart at random residuals. With it, the first step sets the codebook from
        /// data, whatever `init` says.
        restart: bool = true;
        /// The average count, in vectors per update, below which a code is dead. The published models have 1; where a step has
        /// about as many vectors as codes, that restarts codes faster than they can settle.
        restart_threshold: f32 = 0.1, in 0.0..=1e6;
        /// How codebooks start.
        init: CodebookInit = CodebookInit::Normal;
        /// The average count that codes start with; if not given, 0 with restarts and 1 without. The published RQ-VAE has 0,
        /// and counts on restarts: a code that starts with 0 and gets no vector is divided by `eps` alone, which throws it
        /// far away.
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
            initial_count: EmaRule::initial_count(self.initial_count, self.restart),
            dead_below: self.restart_threshold,
            restart: self.restart,
        };
        Ok(decays.into_iter().map(rule).collect())
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
