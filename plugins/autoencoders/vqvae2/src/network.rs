//! What a level is built of. Numbers in the names of parameters are the places in the published sequences, which count the
//! activations between.

use rqlab_sdk::Result;
use rqlab_sdk::nn::Conv2d;
use rqlab_sdk::params::{Init, Params};
use rqlab_sdk::tensor::ops::conv::Conv2d as Walk;
use rqlab_sdk::tensor::{Tensor, Var};

/// Convolutions that halve a map, and those that they are mirrored by, have kernels of 4x4.
const KERNEL: usize = 4;
const HALVING: Walk = Walk::new(2, [1; 4]);

/// Sizes that all parts have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Channels of the maps.
    pub(crate) width: usize,
    /// Residual blocks of each stack.
    pub(crate) blocks: usize,
    /// Channels inside of a residual block.
    pub(crate) residual_width: usize,
}

/// A transposed convolution that doubles a map. Parameters: `weight` `[I, O, 4, 4]`, `bias` `[O]`.
pub(crate) struct Doubling {
    pub(crate) weight: Var,
    bias: Var,
}

impl Doubling {
    pub(crate) fn new(params: &Params, inputs: usize, outputs: usize) -> Result<Self> {
        // PyTorch takes a transposed convolution's outputs for its inputs here.
        let init = Init::fan_in(outputs * KERNEL * KERNEL);
        Ok(Self {
            weight: params.parameter("weight", &[inputs, outputs, KERNEL, KERNEL], init)?,
            bias: params.parameter("bias", &[outputs], init)?,
        })
    }

    /// `[B, H, W, I] -> [B, 2H, 2W, O]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.conv_transpose2d(&self.weight.get(), Some(&self.bias.get()), HALVING)?)
    }
}

/// `x + conv1x1(relu(conv3x3(relu(x))))`. Parameters: `conv.1`, `conv.3`.
struct ResidualBlock {
    conv3x3: Conv2d,
    conv1x1: Conv2d,
}

impl ResidualBlock {
    fn new(params: &Params, sizes: Sizes) -> Result<Self> {
        let params = params.scope("conv");
        Ok(Self {
            conv3x3: Conv2d::new(&params.scope(1), sizes.width, sizes.residual_width, 3)?,
            conv1x1: Conv2d::new(&params.scope(3), sizes.residual_width, sizes.width, 1)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.conv3x3.forward(&x.relu()?)?.relu()?;
        Ok(x.add(&self.conv1x1.forward(&hidden)?)?)
    }
}

/// A 3x3 convolution to `width` channels, residual blocks, and ReLU.
struct Trunk {
    conv: Conv2d,
    blocks: Vec<ResidualBlock>,
}

impl Trunk {
    /// Its parameters are numbered from `first` on.
    fn new(params: &Params, first: usize, inputs: usize, sizes: Sizes) -> Result<Self> {
        let block = |i| ResidualBlock::new(&params.scope(first + 1 + i), sizes);
        Ok(Self {
            conv: Conv2d::new(&params.scope(first), inputs, sizes.width, 3)?,
            blocks: (0..sizes.blocks).map(block).collect::<Result<_>>()?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.conv.forward(x)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(x.relu()?)
    }
}

/// Halves a map `halvings` times, and looks at what is left. Parameters: `blocks.*`.
pub(crate) struct Encoder {
    halving: Vec<Conv2d>,
    trunk: Trunk,
}

impl Encoder {
    pub(crate) fn new(params: &Params, inputs: usize, halvings: usize, sizes: Sizes) -> Result<Self> {
        let params = params.scope("blocks");
        let mut channels = inputs;
        let mut halving = Vec::new();
        for i in 0..halvings {
            let outputs = if i == 0 { sizes.width / 2 } else { sizes.width };
            halving.push(Conv2d::with_walk(&params.scope(2 * i), channels, outputs, KERNEL, HALVING)?);
            channels = outputs;
        }
        Ok(Self { halving, trunk: Trunk::new(&params, 2 * halvings, channels, sizes)? })
    }

    /// `[B, H, W, I] -> [B, h, w, width]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for conv in &self.halving {
            x = conv.forward(&x)?.relu()?;
        }
        self.trunk.forward(&x)
    }
}

/// Looks at a map, and doubles it `halvings` times. Parameters: `blocks.*`.
pub(crate) struct Decoder {
    trunk: Trunk,
    /// All doublings but the last.
    doubling: Vec<Doubling>,
    pub(crate) last: Doubling,
}

impl Decoder {
    pub(crate) fn new(params: &Params, inputs: usize, outputs: usize, halvings: usize, sizes: Sizes) -> Result<Self> {
        let params = params.scope("blocks");
        let place = |i: usize| params.scope(sizes.blocks + 2 + 2 * i);
        let mut channels = sizes.width;
        let mut doubling = Vec::new();
        for i in 1..halvings {
            let outputs = if i + 1 == halvings { sizes.width / 2 } else { sizes.width };
            doubling.push(Doubling::new(&place(i - 1), channels, outputs)?);
            channels = outputs;
        }
        Ok(Self {
            trunk: Trunk::new(&params, 0, inputs, sizes)?,
            doubling,
            last: Doubling::new(&place(halvings - 1), channels, outputs)?,
        })
    }

    /// What the last doubling reads.
    pub(crate) fn features(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.trunk.forward(x)?;
        for doubling in &self.doubling {
            x = doubling.forward(&x)?.relu()?;
        }
        Ok(x)
    }

    /// `[B, h, w, I] -> [B, H, W, O]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.last.forward(&self.features(x)?)
    }
}
