//! Residual quantization (Lee et al., "Autoregressive image generation using residual quantization", CVPR 2022,
//! section 3.1), with the variants of vector-quantize-pytorch as switches.
//!
//! Shapes: latents `[.., C]`, usually `[B, h, w, C]`; the vectors that are quantized `[.., c]`, which are the latents unless
//! `code_dim` is given; codes `[.., D]`; depths count from 0.

mod beam;
mod config;
#[cfg(test)]
mod tests;

pub use config::{Commitment, RqConfig, Update};

use rqlab_sdk::nn::{CodebookInit, EmaCodebook, Projection, SoftCodes, code_tokens, soft_codes};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::nearest::Search;
use rqlab_sdk::tensor::ops::residual::{partial_sums, residual_codes};

declare_plugin! {
    quantizer "rq": RqConfig => Rq::new;
}

/// A residual quantizer.
#[derive(Debug)]
pub struct Rq {
    config: RqConfig,
    latents: MapShape,
    sizes: Vec<usize>,
    projection: Projection,
    books: Vec<EmaCodebook>,
    /// Whether no codebook waits for its first batch any more.
    started: bool,
    /// Whether the codebooks hold nothing: only a plan is being made.
    dry: bool,
}

/// Which codewords the depths chose, before any gradient is thought of.
#[derive(Debug, Clone)]
pub struct Assignments {
    /// The codes of each depth `[..]`.
    pub codes: Vec<Codes>,
    /// The codeword that each depth added `[.., c]`, as it was when it was looked up.
    pub codewords: Vec<Tensor>,
    /// How many depths count: all, unless training dropped some.
    pub kept: usize,
}

impl Rq {
    /// A quantizer with the codebooks `codebooks.0`, `codebooks.1`, ...; only the first if it is shared; and the maps
    /// `project_in` and `project_out` if `code_dim` is given.
    ///
    /// # Errors
    /// Lists in the configuration that do not fit `depth` or `shared`, settings that contradict each other.
    pub fn new(config: RqConfig, cx: &QuantizerContext) -> Result<Self> {
        config.check()?;
        let (sizes, rules) = (config.sizes()?, config.rules()?);
        let projection = Projection::new(&cx.params, cx.latents.channels, config.code_dim)?;
        let params = cx.params.scope("codebooks");
        let distinct = if config.shared { 1 } else { config.depth };
        let books = (0..distinct)
            .map(|d| EmaCodebook::new(&params.scope(d), sizes[d], projection.code_dim(), config.init, rules[d]))
            .collect::<Result<_>>()?;
        let started = config.init != CodebookInit::KMeans;
        Ok(Self { config, latents: cx.latents, sizes, projection, books, started, dry: cx.params.is_dry() })
    }

    fn book_index(&self, depth: usize) -> usize {
        if self.config.shared { 0 } else { depth }
    }

    fn book(&self, depth: usize) -> &EmaCodebook {
        &self.books[self.book_index(depth)]
    }

    /// Starts the codebooks that wait for their first batch, each from what those before it leave of the vectors.
    fn start(&mut self, vectors: &Tensor, rng: &Rng) -> Result<()> {
        if self.started {
            return Ok(());
        }
        let mut residual = vectors.detach();
        for depth in 0..self.config.depth {
            let book = self.book(depth);
            book.start(&residual, self.config.kmeans_iterations, &rng.part("kmeans", depth as u64))?;
            residual = residual.sub(&book.weight().embedding(&book.nearest(&residual)?)?)?;
        }
        self.started = true;
        Ok(())
    }

    /// Quantizes depth by depth in training: `choose` gives the codes of a depth's residuals in a codebook. `found` is
    /// told each kept depth's residuals and codes; what it writes to the codebook is seen from the next depth on.
    fn assign(
        &self,
        vectors: &Tensor,
        kept: usize,
        choose: impl Fn(usize, &Tensor, &EmaCodebook) -> Result<Codes>,
        mut found: impl FnMut(usize, &Tensor, &Codes) -> Result<()>,
    ) -> Result<Assignments> {
        let mut residual = vectors.detach();
        let mut assigned = Assignments { codes: Vec::new(), codewords: Vec::new(), kept };
        for depth in 0..self.config.depth {
            let weight = self.book(depth).weight();
            let codes = choose(depth, &residual, self.book(depth))?;
            if depth < kept {
                found(depth, &residual, &codes)?;
            }
            let codeword = weight.embedding(&codes)?;
            if depth + 1 < self.config.depth {
                residual = residual.sub(&codeword)?;
            }
            assigned.codes.push(codes);
            assigned.codewords.push(codeword);
        }
        Ok(assigned)
    }

    /// One training step's codes and codebook updates for vectors `[.., c]`. `candidates(depth, residuals, K)` gives what
    /// dead codes restart from, `[K, c]`; it is called only where there are any.
    ///
    /// # Errors
    /// Shapes that do not fit, and those of `candidates`.
    pub fn update(
        &mut self,
        vectors: &Tensor,
        rng: &Rng,
        candidates: impl Fn(usize, &Tensor, usize) -> Result<Tensor>,
    ) -> Result<(Assignments, Vec<(&'static str, Tensor)>)> {
        self.start(vectors, rng)?;
        let kept = self.config.kept(&rng.part("dropout", 0));
        let path =
            (self.config.train_beam > 1).then(|| self.beam_codes(vectors, self.config.train_beam)).transpose()?;
        let choose = |depth: usize, residual: &Tensor, book: &EmaCodebook| match (&path, self.config.stochastic_codes) {
            (Some(path), _) => Ok(path.column(depth)?),
            (None, Some(temperature)) => {
                let positions = residual.len() / residual.last_dim().max(1);
                let uniforms = rng.part("code", depth as u64).uniform(positions);
                Ok(soft_codes(residual, &book.weight(), temperature, Some(&uniforms))?.0)
            }
            (None, None) => book.nearest(residual),
        };
        let mut restarts = Tensor::scalar(0.0);
        let mut dead = vec![Tensor::scalar(0.0); self.books.len()];
        let mut settle = |depth: usize, residual: &Tensor| -> Result<()> {
            let book = self.book(depth);
            let settled = book.settle(|| candidates(depth, residual, book.size()))?;
            dead[self.book_index(depth)] = settled.dead;
            restarts = restarts.add(&settled.restarted)?;
            Ok(())
        };
        let assigned = match self.config.update {
            Update::PerDepth => self.assign(vectors, kept, choose, |depth, residual, codes| {
                self.book(depth).accumulate(residual, codes)?;
                settle(depth, residual)
            })?,
            Update::PerStep => {
                let mut residuals = Vec::with_capacity(kept);
                let assigned = self.assign(vectors, kept, choose, |depth, residual, codes| {
                    residuals.push(residual.clone());
                    self.book(depth).accumulate(residual, codes)
                })?;
                if self.config.shared {
                    settle(0, &Tensor::concat(&residuals.iter().collect::<Vec<_>>(), 0)?)?;
                } else {
                    residuals.iter().enumerate().try_for_each(|(depth, residual)| settle(depth, residual))?;
                }
                assigned
            }
        };
        let dead = dead.iter().try_fold(Tensor::scalar(0.0), |sum, dead| sum.add(dead))?;
        Ok((assigned, vec![("restarted_codes", restarts), ("dead_codes", dead)]))
    }

    /// The value, loss and gradients of what vectors `[.., c]` were assigned: commitment is `|x - sg(z_d)|²` for each
    /// partial sum `z_d`, averaged over elements.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn assemble(&self, vectors: &Tensor, assigned: &Assignments) -> Result<Quantized> {
        let kept = &assigned.codewords[..assigned.kept];
        let sums = partial_sums(vectors, kept)?;
        let mut commitment = sums.total;
        if self.config.commitment == Commitment::Mean {
            commitment = commitment.mul_scalar(1.0 / kept.len() as f32)?;
        }
        // Dropped depths tell what they would leave, too.
        let all = assigned.kept == assigned.codewords.len();
        let energies = if all { sums.mse } else { partial_sums(&vectors.detach(), &assigned.codewords)?.mse };
        Ok(Quantized {
            latents: self.projection.project_out(&self.estimate(vectors, kept, &sums.sum)?)?,
            tokens: Tokens::Codes(Codes::stack(&assigned.codes)?),
            terms: vec![("commitment", commitment.detach())],
            loss: commitment.mul_scalar(self.config.beta)?,
            bits: None,
            residual_energy: energies,
            events: Vec::new(),
        })
    }

    /// The quantized vectors with the gradient of the chosen estimator.
    fn estimate(&self, vectors: &Tensor, codewords: &[Tensor], sum: &Tensor) -> Result<Tensor> {
        let estimator = self.config.estimator;
        if !self.config.estimator_per_depth {
            return estimator.pass(vectors, sum);
        }
        // The residual keeps its gradient to the vectors; the codewords taken from it have none.
        let mut residual = vectors.clone();
        let mut out: Option<Tensor> = None;
        for codeword in codewords {
            out = Some(plus(out, &estimator.pass(&residual, codeword)?)?);
            residual = residual.sub(codeword)?;
        }
        Ok(out.unwrap_or_else(|| vectors.clone()))
    }

    /// The codes `[.., D]` that vectors `[.., c]` get outside training.
    fn codes(&self, vectors: &Tensor) -> Result<Codes> {
        if self.config.eval_beam > 1 {
            return self.beam_codes(vectors, self.config.eval_beam);
        }
        // The codebooks stay as they are, so each is prepared once.
        let searches = self.books.iter().map(EmaCodebook::search).collect::<Result<Vec<_>>>()?;
        let depths: Vec<&Search> = (0..self.config.depth).map(|depth| &searches[self.book_index(depth)]).collect();
        Ok(residual_codes(vectors, &depths)?)
    }

    fn beam_codes(&self, vectors: &Tensor, beam: usize) -> Result<Codes> {
        let books: Vec<Tensor> = (0..self.config.depth).map(|depth| self.book(depth).weight()).collect();
        beam::codes(&vectors.detach(), &books, beam)
    }

    /// What each code of each depth adds to the latents `[K_d, C]`; the same of all depths that share a codebook.
    fn tables(&self) -> Result<Vec<Tensor>> {
        let depth = self.config.depth;
        let weights: Vec<Tensor> = (0..depth).map(|depth| self.book(depth).weight()).collect();
        let tables = self.projection.tables(&weights)?;
        // The first has the bias of the map back, which is none of the codebook's.
        Ok(if self.config.shared && depth > 1 { vec![tables[1].clone(); depth] } else { tables })
    }

    /// The codeword of each depth side by side: codes `[.., D]` to `[.., D, c]`.
    ///
    /// # Errors
    /// Codes out of range or not D of them.
    pub fn embed_by_depth(&self, codes: &Codes) -> Result<Tensor> {
        let rows = (0..self.config.depth).map(|depth| self.select(codes, depth)).collect::<Result<Vec<_>>>()?;
        let axis = codes.shape().len().saturating_sub(1);
        Ok(Tensor::stack(&rows.iter().collect::<Vec<_>>(), axis)?)
    }

    /// The codeword of one depth alone: codes `[.., D]` to `[.., c]`.
    ///
    /// # Errors
    /// Codes out of range, or no such depth.
    pub fn select(&self, codes: &Codes, depth: usize) -> Result<Tensor> {
        if depth >= self.config.depth || codes.last_dim() != self.config.depth {
            return Err(Error::Unsupported(format!(
                "depth index {depth} of codes {:?}, which should have depth {}",
                codes.shape(),
                self.config.depth
            )));
        }
        Ok(self.book(depth).weight().embedding(&codes.column(depth)?)?)
    }

    /// The distributions over codes of vectors `[.., c]` at a temperature, along their codes, or along codes drawn with
    /// `uniforms`: for each depth one number per position, in their order.
    ///
    /// # Errors
    /// A temperature not above 0, or shapes that do not fit.
    pub fn soft_codes_with(
        &self,
        vectors: &Tensor,
        temperature: f32,
        uniforms: Option<&[Vec<f32>]>,
    ) -> Result<SoftCodes> {
        let by_beam = uniforms.is_none() && self.config.eval_beam > 1;
        let path = by_beam.then(|| self.codes(vectors)).transpose()?;
        let mut residual = vectors.detach();
        let (mut codes, mut targets) = (Vec::new(), Vec::new());
        for depth in 0..self.config.depth {
            let weight = self.book(depth).weight();
            let draws = uniforms.map(|all| all.get(depth).map_or(&[][..], Vec::as_slice));
            let (mut code, target) = soft_codes(&residual, &weight, temperature, draws)?;
            if let Some(path) = &path {
                code = path.column(depth)?;
            }
            residual = residual.sub(&weight.embedding(&code)?)?;
            codes.push(code);
            targets.push(target);
        }
        Ok(SoftCodes { codes: Codes::stack(&codes)?, targets })
    }
}

impl Quantizer for Rq {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.latents;
        let tables = if self.dry { vec![] } else { self.tables().unwrap_or_default() };
        let space = CodeSpace { sizes: self.sizes.clone(), tables, shared: self.config.shared };
        LevelInfo { height, width, channels, space: TokenSpace::Codes(space), scales: None }
    }

    /// Where codes are drawn, the distances to all codes of a depth and their softmax.
    fn activations(&self) -> usize {
        let draws = self.config.stochastic_codes.is_some();
        let most = self.sizes.iter().max().filter(|_| draws).copied().unwrap_or(0);
        2 * self.level().positions() * most
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        let vectors = self.projection.project_in(latents)?;
        let all = self.codes(&vectors)?;
        let mut assigned = Assignments { codes: Vec::new(), codewords: Vec::new(), kept: self.config.depth };
        for depth in 0..self.config.depth {
            let codes = all.column(depth)?;
            assigned.codewords.push(self.book(depth).weight().embedding(&codes)?);
            assigned.codes.push(codes);
        }
        self.assemble(&vectors, &assigned)
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        let vectors = self.projection.project_in(latents)?;
        let dead_codes = self.config.dead_codes;
        let (assigned, events) = self.update(&vectors, rng, |depth, residuals, size| {
            dead_codes.candidates(residuals, size, &rng.part("restart", depth as u64))
        })?;
        Ok(Quantized { events, ..self.assemble(&vectors, &assigned)? })
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let positions = latents.len() / latents.last_dim().max(1);
        let nearest = || Ok(self.quantize(latents)?.tokens.codes()?.clone());
        code_tokens(request, rng, nearest, |temperature, draw| {
            let uniforms = draw.map(|rng| {
                let of_depth = |depth| rng.part("code", depth as u64).uniform(positions);
                (0..self.config.depth).map(of_depth).collect::<Vec<_>>()
            });
            self.soft_codes_with(&self.projection.project_in(latents)?, temperature, uniforms.as_deref())
        })
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        let codes = tokens.codes()?;
        let mut sum = None;
        for d in 0..depth.unwrap_or(self.config.depth) {
            sum = Some(plus(sum, &self.select(codes, d)?)?);
        }
        let nothing = || Error::Unsupported("latents of depth 0 hold nothing; ask for depth 1 or more".to_owned());
        self.projection.project_out(&sum.ok_or_else(nothing)?)
    }
}

/// `sum + term`, or `term` if there is no sum yet.
fn plus(sum: Option<Tensor>, term: &Tensor) -> Result<Tensor> {
    Ok(match sum {
        None => term.clone(),
        Some(sum) => sum.add(term)?,
    })
}
