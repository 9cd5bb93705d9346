//! The Inception-v3 network of the Fréchet inception distance: the TensorFlow graph of 2015-12-05, as pytorch-fid states it.
//!
//! It differs from torchvision's: average pools divide by the pixels inside the map, the pooling branch of the last block
//! takes maxima, and there are 1008 classes. Batch norms use their running statistics and are folded into the convolutions
//! before them.

use super::Weights;
use super::pool::Pool;
use crate::resize::{Resize, Sampling};
use crate::tensor::ops::conv::Conv2d as Strides;
use crate::tensor::{Tensor, no_grad};
use crate::{Error, Result};

/// Pixels of a side of the pictures that the network sees.
const SIDE: usize = 299;
/// What the batch norms add to the variance.
const EPS: f64 = 1e-3;
/// The classes of the graph's last layer.
const CLASSES: usize = 1008;
/// Channels of a block's first branch that spatial features are made of (Nash et al., "Generating images with sparse
/// representations", 2021).
const SPATIAL: usize = 7;

/// A convolution with its batch norm folded in, and the rectifier after it.
#[derive(Debug)]
struct Conv {
    weight: Tensor,
    bias: Tensor,
    how: Strides,
}

/// How a convolution treats the border.
enum Steps {
    /// Zeros around the map keep its size.
    Same,
    /// Windows inside the map, so far apart.
    Inside(usize),
}

impl Conv {
    fn new(
        weights: &mut Weights,
        name: &str,
        inputs: usize,
        outputs: usize,
        [h, w]: [usize; 2],
        steps: Steps,
    ) -> Result<Self> {
        let shape = [outputs, inputs, h, w];
        let [weight, bias] = weights.folded(&format!("{name}.conv"), &format!("{name}.bn"), shape, EPS)?;
        let how = match steps {
            Steps::Same => Strides::new(1, [h / 2, h / 2, w / 2, w / 2]),
            Steps::Inside(stride) => Strides::new(stride, [0; 4]),
        };
        Ok(Self { weight, bias, how })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.conv2d(&self.weight, Some(&self.bias), self.how)?.relu()?)
    }
}

/// Convolutions one after another.
type Chain = Vec<Conv>;

fn through(chain: &[Conv], x: &Tensor) -> Result<Tensor> {
    chain.iter().try_fold(x.clone(), |x, conv| conv.forward(&x))
}

/// Branches side by side: chains, each of which may end in a fork, and a pool with a chain after it.
#[derive(Debug)]
struct Block {
    branches: Vec<Branch>,
    pool: Pool,
    after_pool: Chain,
}

#[derive(Debug)]
struct Branch {
    chain: Chain,
    /// Convolutions of the chain's result, side by side; none for the result itself.
    fork: Vec<Conv>,
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut parts = Vec::new();
        for Branch { chain, fork } in &self.branches {
            let end = through(chain, x)?;
            if fork.is_empty() {
                parts.push(end);
            } else {
                for conv in fork {
                    parts.push(conv.forward(&end)?);
                }
            }
        }
        parts.push(through(&self.after_pool, &self.pool.forward(x)?)?);
        Ok(Tensor::concat(&parts.iter().collect::<Vec<_>>(), 3)?)
    }
}

/// Takes the convolutions of a block.
struct Builder<'a> {
    weights: &'a mut Weights,
    block: &'a str,
}

/// A convolution's name, its outputs, its kernel.
type Layer<'a> = (&'a str, usize, [usize; 2]);

impl Builder<'_> {
    fn chain(&mut self, inputs: usize, layers: &[Layer<'_>]) -> Result<Chain> {
        let mut inputs = inputs;
        let mut chain = Vec::new();
        for &(name, outputs, kernel) in layers {
            // A name that ends in `/2` halves the map.
            let (name, steps) = name.strip_suffix("/2").map_or((name, Steps::Same), |name| (name, Steps::Inside(2)));
            chain.push(Conv::new(self.weights, &format!("{}.{name}", self.block), inputs, outputs, kernel, steps)?);
            inputs = outputs;
        }
        Ok(chain)
    }

    fn block(
        &mut self,
        inputs: usize,
        branches: &[&[Layer<'_>]],
        pool: Pool,
        after_pool: &[Layer<'_>],
    ) -> Result<Block> {
        let branch = |layers: &&[Layer<'_>]| Ok(Branch { chain: self.chain(inputs, layers)?, fork: Vec::new() });
        let branches = branches.iter().map(branch).collect::<Result<_>>()?;
        Ok(Block { branches, pool, after_pool: self.chain(inputs, after_pool)? })
    }
}

const ONE: [usize; 2] = [1, 1];
const THREE: [usize; 2] = [3, 3];

/// Blocks `Mixed_5b` to `Mixed_5d`, 35 x 35 pixels.
fn block_a(weights: &mut Weights, block: &str, inputs: usize, pooled: usize) -> Result<Block> {
    Builder { weights, block }.block(
        inputs,
        &[
            &[("branch1x1", 64, ONE)],
            &[("branch5x5_1", 48, ONE), ("branch5x5_2", 64, [5, 5])],
            &[("branch3x3dbl_1", 64, ONE), ("branch3x3dbl_2", 96, THREE), ("branch3x3dbl_3", 96, THREE)],
        ],
        Pool::Mean,
        &[("branch_pool", pooled, ONE)],
    )
}

/// `Mixed_6a`, from 35 x 35 to 17 x 17 pixels.
fn block_b(weights: &mut Weights, block: &str) -> Result<Block> {
    let double = [("branch3x3dbl_1", 64, ONE), ("branch3x3dbl_2", 96, THREE), ("branch3x3dbl_3/2", 96, THREE)];
    Builder { weights, block }.block(288, &[&[("branch3x3/2", 384, THREE)], &double], Pool::Halving, &[])
}

/// Blocks `Mixed_6b` to `Mixed_6e`, whose kernels of 7 x 7 are a row and a column each.
fn block_c(weights: &mut Weights, block: &str, middle: usize) -> Result<Block> {
    const ROW: [usize; 2] = [1, 7];
    const COLUMN: [usize; 2] = [7, 1];
    Builder { weights, block }.block(
        768,
        &[
            &[("branch1x1", 192, ONE)],
            &[("branch7x7_1", middle, ONE), ("branch7x7_2", middle, ROW), ("branch7x7_3", 192, COLUMN)],
            &[
                ("branch7x7dbl_1", middle, ONE),
                ("branch7x7dbl_2", middle, COLUMN),
                ("branch7x7dbl_3", middle, ROW),
                ("branch7x7dbl_4", middle, COLUMN),
                ("branch7x7dbl_5", 192, ROW),
            ],
        ],
        Pool::Mean,
        &[("branch_pool", 192, ONE)],
    )
}

/// `Mixed_7a`, from 17 x 17 to 8 x 8 pixels.
fn block_d(weights: &mut Weights, block: &str) -> Result<Block> {
    Builder { weights, block }.block(
        768,
        &[
            &[("branch3x3_1", 192, ONE), ("branch3x3_2/2", 320, THREE)],
            &[
                ("branch7x7x3_1", 192, ONE),
                ("branch7x7x3_2", 192, [1, 7]),
                ("branch7x7x3_3", 192, [7, 1]),
                ("branch7x7x3_4/2", 192, THREE),
            ],
        ],
        Pool::Halving,
        &[],
    )
}

/// `Mixed_7b` and `Mixed_7c`, two of whose branches fork into a row and a column.
fn block_e(weights: &mut Weights, block: &str, inputs: usize, pool: Pool) -> Result<Block> {
    let mut builder = Builder { weights, block };
    let single = builder.chain(inputs, &[("branch1x1", 320, ONE)])?;
    let mut branches = vec![Branch { chain: single, fork: Vec::new() }];
    for (name, forks, layers) in [
        ("branch3x3", "2", &[("branch3x3_1", 384, ONE)][..]),
        ("branch3x3dbl", "3", &[("branch3x3dbl_1", 448, ONE), ("branch3x3dbl_2", 384, THREE)][..]),
    ] {
        let chain = builder.chain(inputs, layers)?;
        let fork = |(end, kernel)| {
            let name = format!("{block}.{name}_{forks}{end}");
            Conv::new(builder.weights, &name, 384, 384, kernel, Steps::Same)
        };
        let fork = [("a", [1, 3]), ("b", [3, 1])].into_iter().map(fork).collect::<Result<_>>()?;
        branches.push(Branch { chain, fork });
    }
    Ok(Block { branches, pool, after_pool: builder.chain(inputs, &[("branch_pool", 192, ONE)])? })
}

/// The network.
#[derive(Debug)]
pub struct Inception {
    /// Up to the first pool, and up to the second.
    stem: [Chain; 2],
    blocks: [Block; 11],
    /// The classes' weights; a file may lack them.
    classes: Option<Tensor>,
    /// Their biases, which only some inception scores add.
    bias: Option<Tensor>,
}

/// What the network makes of a batch of images.
#[derive(Debug, Clone)]
pub struct InceptionMaps {
    /// After the first pool: `[B, 73, 73, 64]`.
    pub first: Tensor,
    /// After the second pool: `[B, 35, 35, 192]`.
    pub second: Tensor,
    /// After the last block of 17 x 17 pixels: `[B, 17, 17, 768]`.
    pub third: Tensor,
    /// The first 7 channels of the fourth 17 x 17 block's first branch, `mixed_6/conv` in the graph: `[B, 2023]`, what
    /// sFID is taken on.
    pub spatial: Tensor,
    /// The mean over the last map: `[B, 2048]`, what FID is taken on.
    pub pool: Tensor,
}

impl Inception {
    /// The network, from the tensors of `pt_inception-2015-12-05-6726825d.pth`.
    ///
    /// # Errors
    /// Tensors that are missing, have another shape, or are no part of it.
    pub fn new(mut weights: Weights) -> Result<Self> {
        let w = &mut weights;
        w.leave_out(|name| name.ends_with("num_batches_tracked"));
        let stem = [
            vec![
                Conv::new(w, "Conv2d_1a_3x3", 3, 32, THREE, Steps::Inside(2))?,
                Conv::new(w, "Conv2d_2a_3x3", 32, 32, THREE, Steps::Inside(1))?,
                Conv::new(w, "Conv2d_2b_3x3", 32, 64, THREE, Steps::Same)?,
            ],
            vec![
                Conv::new(w, "Conv2d_3b_1x1", 64, 80, ONE, Steps::Same)?,
                Conv::new(w, "Conv2d_4a_3x3", 80, 192, THREE, Steps::Inside(1))?,
            ],
        ];
        let blocks = [
            block_a(w, "Mixed_5b", 192, 32)?,
            block_a(w, "Mixed_5c", 256, 64)?,
            block_a(w, "Mixed_5d", 288, 64)?,
            block_b(w, "Mixed_6a")?,
            block_c(w, "Mixed_6b", 128)?,
            block_c(w, "Mixed_6c", 160)?,
            block_c(w, "Mixed_6d", 160)?,
            block_c(w, "Mixed_6e", 192)?,
            block_d(w, "Mixed_7a")?,
            block_e(w, "Mixed_7b", 1280, Pool::Mean)?,
            block_e(w, "Mixed_7c", 2048, Pool::Largest)?,
        ];
        let classes = if w.has("fc.weight") { Some(w.take("fc.weight", &[CLASSES, 2048])?) } else { None };
        let bias = if w.has("fc.bias") { Some(w.take("fc.bias", &[CLASSES])?) } else { None };
        weights.finish()?;
        Ok(Self { stem, blocks, classes, bias })
    }

    /// Images as pytorch-fid shows them to the network: bilinear to 299 x 299, in [-1, 1].
    ///
    /// # Errors
    /// Images without pixels, or not of three channels.
    pub fn prepare(images: &Tensor) -> Result<Tensor> {
        if images.last_dim() != 3 {
            return Err(Error::Data(format!("Inception sees images of 3 channels, not of {}", images.last_dim())));
        }
        Resize::to([SIDE; 2], Sampling::LINEAR).of(images)
    }

    /// Features of images `[B, 299, 299, 3]` in [-1, 1], without gradients.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, images: &Tensor) -> Result<InceptionMaps> {
        no_grad(|| {
            let first = through(&self.stem[0], images)?.max_pool(3, 2, 0)?;
            let second = through(&self.stem[1], &first)?.max_pool(3, 2, 0)?;
            let (mut x, mut third, mut spatial) = (second.clone(), None, None);
            for (i, block) in self.blocks.iter().enumerate() {
                let next = block.forward(&x)?;
                match i {
                    6 => spatial = Some(next.slice(3, 0..SPATIAL)?),
                    7 => third = Some(next.clone()),
                    _ => {}
                }
                x = next;
            }
            let missing = || Error::Unsupported("Inception has eleven blocks".to_owned());
            let spatial = spatial.ok_or_else(missing)?;
            let cells = spatial.len() / spatial.shape()[0].max(1);
            Ok(InceptionMaps {
                first,
                second,
                third: third.ok_or_else(missing)?,
                spatial: spatial.reshape(&[spatial.shape()[0], cells])?,
                pool: x.mean(&[1, 2], false)?,
            })
        })
    }

    /// Whether the file held the classes' layer.
    pub fn has_classes(&self) -> bool {
        self.classes.is_some()
    }

    /// The probabilities of the 1008 classes by pooled features `[B, 2048]`, without the layer's bias, as most inception
    /// scores take them.
    ///
    /// # Errors
    /// The file held no `fc.weight`.
    pub fn probabilities(&self, pool: &Tensor) -> Result<Tensor> {
        self.classified(pool, None)
    }

    /// The same with the layer's bias, if the file held one.
    ///
    /// # Errors
    /// As for [`Inception::probabilities`].
    pub fn biased_probabilities(&self, pool: &Tensor) -> Result<Tensor> {
        self.classified(pool, self.bias.as_ref())
    }

    fn classified(&self, pool: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let classes = self.classes.as_ref().ok_or_else(|| {
            Error::Unsupported("the inception score needs `fc.weight`, which this file of weights lacks".to_owned())
        })?;
        Ok(no_grad(|| pool.linear(classes, bias)?.softmax())?)
    }
}
