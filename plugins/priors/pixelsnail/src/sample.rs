//! Sampling: one code after another. With the cache every layer is computed once for each position: convolutions and attention
//! read what was kept of earlier ones.

use crate::PixelSnail;
use crate::block::{BACKGROUND, End};
use crate::condition::Conditioning;
use crate::layers::{GatedBlock, Sight, WeightNorm};
use rqlab_sdk::nn::CodeSteps;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::raster::{RasterDecoder, Register};

/// Maps of which [`PixelSnail`] has drawn some codes.
#[derive(Debug)]
pub struct PixelSnailState {
    /// The codes so far, each `[B]`, in raster order.
    drawn: Vec<Codes>,
    /// The position that is predicted next.
    position: usize,
    how: How,
}

#[derive(Debug)]
enum How {
    Cached(Box<Cached>),
    /// All of it for every position.
    Anew {
        condition: Condition,
        above: Vec<Tokens>,
    },
}

/// The network with the weights of the moment when sampling began.
#[derive(Debug)]
struct Cached {
    /// What a code adds to the stem, `[K, C]`, for each place that the stem looks at.
    tables: Vec<Tensor>,
    /// `[H W, C]`.
    biases: Tensor,
    conditioning: Option<Conditioning>,
    network: RasterDecoder,
    stem: Register,
    background: Register,
    condition: Option<Register>,
    logits: Register,
}

impl PixelSnail {
    fn cached(&self, images: usize, conditioning: Option<Conditioning>) -> Result<Cached> {
        let (table, biases) = (self.stem.table()?, self.stem.biases()?);
        let (size, width) = (self.level.sizes()[0], biases.last_dim());
        let mut net = RasterDecoder::new(images, [self.level.height, self.level.width]);
        let (stem, background) = (net.input(width), net.input(BACKGROUND));
        let condition = conditioning.as_ref().map(|conditioning| net.input(conditioning.channels()));
        let mut x = stem;
        for block in &self.blocks {
            let mut out = x;
            for gated in &block.residual {
                let gates = match (&gated.condition, condition) {
                    (Some(weight), Some(condition)) => Some(weight.append(&mut net, condition, Sight::Point)?),
                    _ => None,
                };
                out = gated.append(&mut net, out, None, gates)?;
            }
            x = match &block.end {
                End::Attention { key, query, attention, out: end } => {
                    let keys = net.concat(&[x, out, background]);
                    let keys = key.append(&mut net, keys, None, None)?;
                    let queries = net.concat(&[out, background]);
                    let queries = query.append(&mut net, queries, None, None)?;
                    let mut linear = |weight: &WeightNorm, from: Register| weight.append(&mut net, from, Sight::Point);
                    let [q, k, v] = [
                        linear(&attention.query, queries)?,
                        linear(&attention.key, keys)?,
                        linear(&attention.value, keys)?,
                    ];
                    let seen = net.attend(q, k, v, attention.heads)?;
                    end.append(&mut net, out, Some(seen), None)?
                }
                End::Linear(linear) => {
                    let both = net.concat(&[out, background]);
                    linear.append(&mut net, both, Sight::Point)?
                }
            };
        }
        for block in &self.output_blocks {
            x = block.append(&mut net, x, None, None)?;
        }
        let activated = net.elu(x);
        let logits = self.classifier.append(&mut net, activated, Sight::Point)?;
        let tables = (0..self.stem.taps.len()).map(|tap| Ok(table.slice(0, tap * size..(tap + 1) * size)?));
        let tables = tables.collect::<Result<_>>()?;
        Ok(Cached { tables, biases, conditioning, network: net, stem, background, condition, logits })
    }
}

impl WeightNorm {
    /// Appends the map to a network that reads one position at a time.
    fn append(&self, net: &mut RasterDecoder, x: Register, sight: Sight) -> Result<Register> {
        let bias = self.bias();
        Ok(match sight {
            Sight::Before(_) => net.causal_conv(x, &self.weight()?, bias.as_ref())?,
            Sight::Point | Sight::Around(_) => net.linear(x, &self.matrix()?, bias.as_ref())?,
        })
    }
}

impl GatedBlock {
    /// Appends the block to a network that reads one position at a time.
    fn append(
        &self,
        net: &mut RasterDecoder,
        x: Register,
        auxiliary: Option<Register>,
        gates: Option<Register>,
    ) -> Result<Register> {
        let activated = net.elu(x);
        let mut hidden = self.conv1.append(net, activated, self.sight)?;
        if let (Some(aux), Some(auxiliary)) = (&self.aux, auxiliary) {
            let activated = net.elu(auxiliary);
            let added = aux.append(net, activated, Sight::Point)?;
            hidden = net.add(hidden, added)?;
        }
        let activated = net.elu(hidden);
        let mut out = self.conv2.append(net, activated, self.sight)?;
        if let Some(gates) = gates {
            out = net.add(out, gates)?;
        }
        Ok(net.add_glu(x, out)?)
    }
}

impl Cached {
    /// Logits `[B, K]` at a position, given the codes before it.
    fn next(&mut self, drawn: &[Codes], position: usize, prior: &PixelSnail) -> Result<Tensor> {
        let columns = prior.level.width;
        let images = self.network.images();
        let [i, j] = [position / columns, position % columns];
        let width = self.biases.last_dim();
        let mut x = self.biases.slice(0, position..position + 1)?.broadcast_to(&[images, width])?;
        for ([down, right], table) in prior.stem.taps.iter().zip(&self.tables) {
            let at = [i.checked_add_signed(*down), j.checked_add_signed(*right)];
            if let [Some(row), Some(column)] = at
                && column < columns
            {
                x = x.add(&table.embedding(&drawn[row * columns + column])?)?;
            }
        }
        let background = prior.background.reshape(&[prior.level.positions(), BACKGROUND])?;
        let background = background.slice(0, position..position + 1)?.broadcast_to(&[images, BACKGROUND])?;
        let mut inputs = vec![(self.stem, &x), (self.background, &background)];
        let condition = self.conditioning.as_ref().map(|conditioning| conditioning.at(i, j)).transpose()?;
        if let (Some(register), Some(rows)) = (self.condition, &condition) {
            inputs.push((register, rows));
        }
        Ok(self.network.step(&inputs, self.logits)?)
    }
}

impl CodeSteps for PixelSnail {
    type State = PixelSnailState;

    fn level(&self) -> &LevelInfo {
        &self.level
    }

    fn condition(&self) -> ConditionSpace {
        self.conditions.class.as_ref().map_or(ConditionSpace::None, |class| class.space())
    }

    fn begin(&self, condition: &Condition, above: &[Tokens], cache: bool) -> Result<PixelSnailState> {
        let how = if cache {
            let conditioning = self.conditions.forward(condition, above, &Mode::Eval)?;
            How::Cached(Box::new(self.cached(condition.images(), conditioning)?))
        } else {
            How::Anew { condition: condition.clone(), above: above.to_vec() }
        };
        Ok(PixelSnailState { drawn: Vec::with_capacity(self.level.positions()), position: 0, how })
    }

    fn next(&self, state: &mut PixelSnailState, last: Option<&Codes>) -> Result<Tensor> {
        state.drawn.extend(last.cloned());
        let position = state.position;
        state.position += 1;
        match &mut state.how {
            How::Cached(cached) => cached.next(&state.drawn, position, self),
            How::Anew { condition, above } => {
                // Codes that are not drawn yet are not seen.
                let mut map = state.drawn.clone();
                map.resize(
                    self.level.positions(),
                    Codes::from_vec(vec![0; condition.images()], &[condition.images()])?,
                );
                let codes = Codes::stack(&map)?.reshape(&self.level.token_shape(condition.images()))?;
                let logits = self.logits(&codes, condition, above, &Mode::Eval)?;
                let logits = logits.reshape(&[condition.images(), map.len(), logits.last_dim()])?;
                Ok(logits.slice(1, position..position + 1)?)
            }
        }
    }
}
