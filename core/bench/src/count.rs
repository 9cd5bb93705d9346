//! What a call computes, counted from its sizes.

use crate::adversarial::{FEATURES, PERCEPTUAL};
use crate::workloads::{BATCH, CLASSES, Family, LATENT, Operation, PriorSizes, SIDE, TokenizerSizes, Workload};

impl Workload {
    /// Units that a call works on, and what they are.
    pub fn units(&self) -> (f64, &'static str) {
        let (count, unit) = match self {
            Self::TokenizerStep { batch, .. }
            | Self::Sample { batch, .. }
            | Self::VectorPriorStep { batch, .. }
            | Self::SampleVectors { batch, .. }
            | Self::Network { batch, .. }
            | Self::AdversarialStep { batch, .. } => (*batch, "images"),
            Self::TokenizerStepOf(calls) => (calls.batch, "images"),
            Self::Features => (BATCH, "images"),
            Self::PriorStep { prior, batch } => (batch * prior.positions() * prior.depth, "codes"),
            Self::Encode { vectors, .. } | Self::EmaUpdate { vectors, .. } => (*vectors, "vectors"),
            Self::Operation(operation) => (operation.elements(), "elements"),
            Self::Batch { .. } => (BATCH, "images"),
            Self::StartUp => (1, "starts"),
            Self::Sweep { trials, .. } => (*trials, "trials"),
        };
        (count as f64, unit)
    }

    /// Floating-point operations of a call in matrix products, convolutions, attention and distances: two per multiply-add,
    /// forward and backward, nothing recomputed, no discount for causal attention. `None` where these are not what a call
    /// is made of.
    pub fn flop(&self) -> Option<u64> {
        let flop = match self {
            Self::TokenizerStep { tokenizer, batch } => tokenizer.step_flop(*batch),
            Self::AdversarialStep { tokenizer, batch } => tokenizer.step_flop(*batch) + batch * ADVERSARIAL_FLOP,
            Self::Features => BATCH * (convolved(FEATURES) + 2 * 256 * CLASSES),
            Self::PriorStep { prior, batch } => prior.step_flop(*batch),
            Self::Encode { vectors, channels, codebook, depth } => 2 * vectors * channels * codebook * depth,
            Self::Operation(operation) => operation.flop()?,
            Self::TokenizerStepOf(_)
            | Self::Sample { .. }
            | Self::VectorPriorStep { .. }
            | Self::SampleVectors { .. }
            | Self::EmaUpdate { .. }
            | Self::Network { .. }
            | Self::Batch { .. }
            | Self::StartUp
            | Self::Sweep { .. } => return None,
        };
        Some(flop as u64)
    }

    /// Trained parameters of the model that is worked on.
    pub fn parameters(&self) -> Option<usize> {
        match self {
            Self::TokenizerStep { tokenizer, .. } => Some(tokenizer.parameters()),
            Self::AdversarialStep { tokenizer, .. } => Some(tokenizer.parameters() + DISCRIMINATOR_PARAMETERS),
            Self::Features => Some(CLASSIFIER_PARAMETERS),
            Self::PriorStep { prior, .. } | Self::Sample { prior, .. } => Some(prior.parameters()),
            _ => None,
        }
    }
}

/// Parameters of a discriminator of width 32 with two halvings, and of the classifier.
const DISCRIMINATOR_PARAMETERS: usize = 167_841;
const CLASSIFIER_PARAMETERS: usize = 1_147_978;

/// What an adversarial step adds for an image: the fixed network forward of both and back to the reconstruction; the
/// discriminator forward and back for the tokenizer, then forward, back and into its weights for both, but not into the
/// image; and the gradient of the last layer's weight for both sides of the ratio.
const ADVERSARIAL_FLOP: usize = {
    let first = 2 * 16 * 16 * 3 * 32 * 16;
    let discriminator = first + 2 * 16 * (8 * 8 * 32 * 64 + 7 * 7 * 64 * 128 + 6 * 6 * 128);
    let last_layer = 2 * SIDE * SIDE * 32 * 3 * 9;
    3 * convolved(PERCEPTUAL) + 8 * discriminator - 2 * first + 2 * last_layer
};

/// Operations of convolutions of a picture, forward.
const fn convolved(convolutions: &[(usize, usize)]) -> usize {
    let (mut side, mut inputs, mut flop, mut i) = (SIDE, 3, 0, 0);
    while i < convolutions.len() {
        let (outputs, stride) = convolutions[i];
        side /= stride;
        flop += 2 * side * side * inputs * outputs * 9;
        inputs = outputs;
        i += 1;
    }
    flop
}

/// One convolution of a tokenizer.
struct Convolution {
    /// Rows and columns of its result.
    side: usize,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    /// Whether the numbers that it reads want a gradient: images do not.
    backward: bool,
}

impl TokenizerSizes {
    /// All convolutions, and the channels of all group norms.
    fn layers(&self) -> (Vec<Convolution>, Vec<usize>) {
        let (mut convolutions, mut norms) = (Vec::new(), Vec::new());
        let mut conv = |side, inputs, outputs, kernel| {
            let backward = inputs != 3;
            convolutions.push(Convolution { side, inputs, outputs, kernel, backward });
        };
        let mut residual = |conv: &mut dyn FnMut(usize, usize, usize, usize), side, inputs, outputs| {
            norms.extend([inputs, outputs]);
            conv(side, inputs, outputs, 3);
            conv(side, outputs, outputs, 3);
            if inputs != outputs {
                conv(side, inputs, outputs, 1);
            }
        };
        let (mut side, mut channels) = (SIDE, self.width);
        let levels: Vec<usize> = self.multipliers.iter().map(|m| m * self.width).collect();
        let coarsest = levels.last().copied().unwrap_or(self.width);

        conv(side, 3, channels, 3);
        for (level, &outputs) in levels.iter().enumerate() {
            for _ in 0..self.blocks {
                residual(&mut conv, side, channels, outputs);
                channels = outputs;
            }
            if level + 1 < levels.len() {
                side /= 2;
                conv(side, channels, channels, 3);
            }
        }
        for _ in 0..2 {
            residual(&mut conv, side, channels, channels);
        }
        conv(side, channels, LATENT, 3);
        for _ in 0..2 {
            conv(side, LATENT, LATENT, 1);
        }
        conv(side, LATENT, coarsest, 3);
        channels = coarsest;
        for _ in 0..2 {
            residual(&mut conv, side, channels, channels);
        }
        for (level, &outputs) in levels.iter().enumerate().rev() {
            for _ in 0..=self.blocks {
                residual(&mut conv, side, channels, outputs);
                channels = outputs;
            }
            if level > 0 {
                side *= 2;
                conv(side, channels, channels, 3);
            }
        }
        conv(side, channels, 3, 3);
        norms.extend([coarsest, channels]);
        (convolutions, norms)
    }

    fn step_flop(&self, batch: usize) -> usize {
        let (convolutions, _) = self.layers();
        let convolved = |c: &Convolution| {
            let forward = 2 * batch * c.side * c.side * c.inputs * c.outputs * c.kernel * c.kernel;
            if c.backward { 3 * forward } else { 2 * forward }
        };
        let coarsest = SIDE >> (self.multipliers.len().max(1) - 1);
        let distances = 2 * batch * coarsest * coarsest * LATENT * self.codebook * self.depth;
        convolutions.iter().map(convolved).sum::<usize>() + distances
    }

    fn parameters(&self) -> usize {
        let (convolutions, norms) = self.layers();
        let of = |c: &Convolution| c.inputs * c.outputs * c.kernel * c.kernel + c.outputs;
        convolutions.iter().map(of).sum::<usize>() + 2 * norms.iter().sum::<usize>()
    }
}

impl PriorSizes {
    /// Positions of the map, T.
    pub fn positions(&self) -> usize {
        self.side * self.side
    }

    fn step_flop(&self, batch: usize) -> usize {
        let (positions, depth, width) = (self.positions(), self.depth, self.width);
        // Four linear maps of 12 width^2 weights per position, and attention's two products of length^2 width.
        let block = |sequences: usize, length: usize| {
            3 * (2 * sequences * length * width * 12 * width + 4 * sequences * length * length * width)
        };
        let logits = 3 * 2 * batch * positions * depth * width * self.codebook;
        logits
            + match self.family {
                Family::Ar { layers } => layers * block(batch, positions * depth),
                Family::MaskGit { layers } => layers * block(batch, 1 + positions),
                Family::Llama { layers } => {
                    // Three maps of SwiGLU have one width^2 more than two of four times the width.
                    let wider = 3 * 2 * batch * positions * depth * width * (swiglu(width) * 3 - 8 * width);
                    layers * (block(batch, positions * depth) + wider)
                }
                Family::RqTransformer { body, head } => {
                    // The codebook's vectors enter by two linear maps and want no gradient.
                    let read = (positions - 1) + positions * (depth - 1);
                    body * block(batch, positions)
                        + head * block(batch * positions, depth)
                        + 2 * 2 * batch * read * LATENT * width
                }
                Family::PixelSnail { blocks, residual_blocks } => {
                    // What it reads is a sum of rows.
                    let products = snail_maps(width, residual_blocks).iter().map(Map::weights).sum::<usize>();
                    3 * batch * positions * blocks * (2 * products + 4 * positions * (width / 2))
                }
            }
    }

    fn parameters(&self) -> usize {
        let (positions, depth, width) = (self.positions(), self.depth, self.width);
        let block = 12 * width * width + 13 * width;
        let transformer = CLASSES * width + 2 * width + width * self.codebook + self.codebook;
        match self.family {
            Family::Ar { layers } => transformer + layers * block + self.codebook * width + positions * depth * width,
            Family::MaskGit { layers } => {
                transformer + layers * block + (self.codebook + 1) * width + (1 + positions) * width
            }
            Family::Llama { layers } => {
                // No biases, one class more, a last norm, and as many rows of codes as columns of logits.
                let block = 4 * width * width + 3 * width * swiglu(width) + 2 * width;
                (CLASSES + 1) * width + layers * block + width + 2 * self.codebook * width
            }
            Family::RqTransformer { body, head } => {
                let reading = LATENT * width + width;
                let readings = if depth > 1 { 2 } else { 1 };
                transformer + (body + head) * block + readings * reading + (positions + depth) * width
            }
            Family::PixelSnail { blocks, residual_blocks } => {
                // It begins with 2 x 5 places above and 3 x 2 to the left.
                let [above, left] = [10, 6].map(|taps| Map(self.codebook, width, taps));
                let own = snail_maps(width, residual_blocks).iter().map(Map::normalised).sum::<usize>();
                blocks * own + [above, left, Map(width, self.codebook, 1)].iter().map(Map::normalised).sum::<usize>()
            }
        }
    }
}

/// A linear map or convolution: inputs, outputs, taps of the kernel.
struct Map(usize, usize, usize);

impl Map {
    fn weights(&self) -> usize {
        self.0 * self.1 * self.2
    }

    /// Its weights with a length and a bias for each output.
    fn normalised(&self) -> usize {
        self.weights() + 2 * self.1
    }
}

/// The maps of a block of PixelSNAIL.
fn snail_maps(width: usize, residual_blocks: usize) -> Vec<Map> {
    let (key, query, half) = (2 * width + 2, width + 2, width / 2);
    let mut maps = Vec::new();
    for _ in 0..residual_blocks {
        maps.extend([Map(width, width, 25), Map(width, 2 * width, 25)]);
    }
    for inputs in [key, query] {
        maps.extend([Map(inputs, width, 1), Map(width, 2 * inputs, 1)]);
    }
    maps.extend([Map(query, half, 1), Map(key, half, 1), Map(key, half, 1)]);
    maps.extend([Map(width, width, 1), Map(half, width, 1), Map(width, 2 * width, 1)]);
    maps
}

/// The hidden width of LlamaGen's SwiGLU.
fn swiglu(width: usize) -> usize {
    (8 * width / 3).next_multiple_of(256)
}

impl Operation {
    /// Elements of the first operand.
    fn elements(&self) -> usize {
        match *self {
            Self::Conv3x3 { batch, side, channels }
            | Self::GroupNorm { batch, side, channels }
            | Self::BatchNorm { batch, side, channels }
            | Self::Resize { batch, side, channels, .. } => batch * side * side * channels,
            Self::Linear { rows, inputs, .. } => rows * inputs,
            Self::Attention { batch, heads, length, head } => batch * heads * length * head,
            Self::LayerNorm { rows, width } => rows * width,
            Self::Gelu { elements } => elements,
            Self::CrossEntropy { rows, codes } => rows * codes,
        }
    }

    fn flop(&self) -> Option<usize> {
        match *self {
            Self::Conv3x3 { batch, side, channels } => Some(3 * 2 * batch * side * side * channels * channels * 9),
            Self::Linear { rows, inputs, outputs } => Some(3 * 2 * rows * inputs * outputs),
            Self::Attention { batch, heads, length, head } => Some(3 * 2 * 2 * batch * heads * length * length * head),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::workloads::workloads;

    /// What PyTorch's counters say of the same workloads: operations of a call, parameters of the model; none where sizes are
    /// not counted here.
    const PYTORCH: [(&str, Option<u64>, Option<usize>); 49] = [
        ("tokenizer_train_small", Some(77_179_387_904), Some(1_292_323)),
        ("tokenizer_train_base", Some(452_171_137_024), Some(5_129_347)),
        ("fsq_train_small", None, None),
        ("lfq_train_small", None, None),
        ("kl_train_small", None, None),
        ("vqvae2_train", None, None),
        ("gan_train_small", Some(91_377_106_944), Some(1_460_164)),
        ("rq_encode_64x1024", Some(8_589_934_592), None),
        ("rq_encode_256x16384", Some(549_755_813_888), None),
        ("codebook_ema_64x1024", None, None),
        ("prior_train_small", Some(15_583_936_512), Some(1_243_392)),
        ("prior_train_base", Some(144_885_940_224), Some(6_503_424)),
        ("ar_train_base", Some(91_804_925_952), Some(6_649_344)),
        ("rq_sample_b1", None, Some(6_503_424)),
        ("rq_sample_b16", None, Some(6_503_424)),
        ("rq_sample_b100", None, Some(6_503_424)),
        ("ar_sample_b1", None, Some(6_649_344)),
        ("ar_sample_b16", None, Some(6_649_344)),
        ("ar_sample_b100", None, Some(6_649_344)),
        ("llama_ar_train", Some(98_247_376_896), Some(7_085_056)),
        ("llama_ar_sample_b16", None, Some(7_085_056)),
        ("pixelsnail_train", Some(17_136_353_280), Some(1_916_960)),
        ("pixelsnail_sample_b1", None, Some(1_916_960)),
        ("pixelsnail_sample_b16", None, Some(1_916_960)),
        ("mar_train_small", None, None),
        ("mar_train_base", None, None),
        ("mar_sample_b1", None, None),
        ("mar_sample_b16", None, None),
        ("mar_sample_b64", None, None),
        ("ar_diffusion_sample_b16", None, None),
        ("maskgit_train_small", Some(83_450_658_816), Some(6_600_704)),
        ("maskgit_sample_b16", None, Some(6_600_704)),
        ("conv3x3_64x32", Some(14_495_514_624), None),
        ("linear_2048x256x1024", Some(3_221_225_472), None),
        ("attention_causal_32x8x64x32", Some(402_653_184), None),
        ("layernorm_2048x256", None, None),
        ("groupnorm_64x128x8x8", None, None),
        ("discriminator_batchnorm_64x128x16x16", None, None),
        ("bilinear_resize_64x3x64x64_224", None, None),
        ("bilinear_resize_forward_64x3x64x64_224", None, None),
        ("gelu_1m", None, None),
        ("softmax_ce_8192x512", None, None),
        ("features", Some(19_554_172_928), Some(1_147_978)),
        ("inception_b8", None, None),
        ("dinov2_vits14_b8", None, None),
        ("lpips_b8", None, None),
        ("data_jpeg_64", None, None),
        ("data_jpeg_256", None, None),
        ("data_png_64", None, None),
    ];

    #[test]
    fn operations_and_parameters_are_those_that_pytorch_counts() {
        let ours: Vec<_> = workloads().into_iter().map(|(name, work)| (name, work.flop(), work.parameters())).collect();
        assert_eq!(ours.split_last().map(|(_, rest)| rest), Some(PYTORCH.as_slice()));
    }

    #[test]
    fn units_are_what_throughput_is_counted_in() {
        let of = |wanted| workloads().into_iter().find(|(name, _)| *name == wanted).map(|(_, work)| work.units());
        assert_eq!(of("prior_train_base"), Some((8192.0, "codes")));
        assert_eq!(of("ar_train_base"), Some((2048.0, "codes")));
        assert_eq!(of("conv3x3_64x32"), Some((4_194_304.0, "elements")));
        assert_eq!(of("rq_sample_b16"), Some((16.0, "images")));
    }
}
