//! The settings of an experiment that are not a component's: training, evaluation, the question's own statistics.
//! They are written as tuples of named fields: `tokenizer_training: (steps: 2000, batch: 32)`.

use crate::weights::{FilesByLevel, WeightsFile};
use rqlab_sdk::config::{Value, ValueKind};
use rqlab_sdk::contracts::{Guidance, GuidanceSchedule};
use rqlab_sdk::{choice, config};
use serde::{Deserialize, Serialize};
use std::path::Path;

choice! {
    /// How the learning rate moves after the warm-up.
    pub enum Schedule {
        /// It stays.
        Constant = "constant",
        /// Half a cosine down to `final_lr_ratio` times its peak at the last step.
        Cosine = "cosine",
    }
}

choice! {
    /// How numbers are multiplied on a device that can choose; a CPU always computes in f32. All else is f32.
    pub enum Precision {
        /// In f32.
        F32 = "f32",
        /// Operands of products, convolutions and attention rounded to tf32, sums in f32.
        Tf32 = "tf32",
        /// Operands of products and convolutions rounded to bf16, sums in f32.
        Bf16 = "bf16",
    }
}

choice! {
    /// How the guidance scale moves with the progress of a sample, the share of its positions that are known: t / T at position
    /// t of T, as published for RAR. `var` reaches 1 at its last scale; MAR's masked models count what a step predicts, too.
    pub enum GuidanceShape {
        /// It is the same at all.
        Constant = "constant",
        /// From 1 to the scale, linearly.
        Linear = "linear",
        /// From 1 to the scale along half a cosine of progress to the power of `guidance_power`.
        PowerCosine = "power_cosine",
        /// The scale between the progress `guidance_from` and `guidance_to`, 1 elsewhere.
        Interval = "interval",
    }
}

/// Which classes samples are drawn of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// In the proportions of the test images that samples are compared with.
    Data,
    /// All equally often.
    Uniform,
    /// This one, by its name.
    Class(String),
}

impl Value for Labels {
    fn kind() -> ValueKind {
        ValueKind::Choice(&["data", "uniform", "class(\"NAME\")"])
    }
}

/// Whether, and how, a prior sees the augmentation of its data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augmentation {
    /// It does not: images are encoded as they are.
    None,
    /// All fixed variants of an image that the data set lists are encoded once; 4 random ones where it lists none.
    Variants,
    /// That many random variants of each image are encoded once.
    Draws(usize),
    /// Images are augmented and encoded anew at each step.
    OnTheWay,
}

impl Value for Augmentation {
    fn kind() -> ValueKind {
        ValueKind::Choice(&["none", "variants", "draws(N)", "on_the_way"])
    }
}

choice! {
    /// What priors are told of an image.
    pub enum Conditioning {
        /// Its class, where the data have classes.
        Class = "class",
        /// Its caption.
        Text = "text",
        /// Nothing.
        None = "none",
    }
}

choice! {
    /// What becomes of an image without a caption, where priors are told captions.
    pub enum MissingCaptions {
        /// It has the null condition.
        Allow = "allow",
        /// The experiment is refused.
        Refuse = "refuse",
    }
}

choice! {
    /// Whose practice measures of reconstructions follow.
    pub enum Protocol {
        /// The lab's: float pictures, clamped; PSNR per image; SSIM with an 11 x 11 Gaussian window; its own classifier.
        Lab = "lab",
        /// guided-diffusion's (ADM): rounded to 8 bits, Inception on pictures resized as TensorFlow 1 does.
        Adm = "adm",
        /// clean-fid's: rounded to 8 bits, Inception on pictures resized as Pillow does.
        Clean = "clean",
        /// TiTok's: cut down to 8 bits, Inception on pictures resized as TensorFlow 1 does.
        Titok = "titok",
        /// LlamaGen's: decoded pictures rounded to 8 bits, its PSNR and SSIM, Inception as ADM has it.
        Llamagen = "llamagen",
        /// RQ-VAE-Transformer's: float pictures, Inception on pictures resized as PyTorch does.
        Rqvae = "rqvae",
        /// dgm-eval's: rounded to 8 bits, DINOv2.
        Dgm = "dgm",
    }
}

choice! {
    /// What becomes of a measure whose network's weights are not given.
    pub enum MissingWeights {
        /// The experiment is refused.
        Refuse = "refuse",
        /// The measure is left out, with a warning.
        LeaveOut = "leave_out",
    }
}

/// The SHA-256 of a published conversion of the Inception network to safetensors: see docs/weights.md.
const INCEPTION_DIGEST: &str = "b7a528bf4051f62c057bc14657865abf180a23eb1748d00ff0933d84698202ed";

/// Defaults of settings of captions.
const TEXT_LENGTH: usize = 32;
const TEXT_VOCABULARY: usize = 512;

config! {
    /// How the tokenizer (autoencoder and quantizer) is trained: Adam, or AdamW where `weight_decay` is not 0.
    pub struct TokenizerTraining {
        /// Optimizer steps; with 0 it stays as it starts, such as `from` a file.
        steps: u64 = 1000, in 0..;
        /// A file of weights to start from, in place of the seed's: what `rqlab import` made of a published checkpoint, the
        /// `result.safetensors` of a finished stage, or the directory of that (runs/stages/ID). Relative to the file that this
        /// stands in. Its digest is part of the result's identity.
        from: Option<String> = None, local;
        /// Parameters that stay as they are, by their names, with `*` for any letters: `["encoder.*", "quantizer.*"]` trains the
        /// decoder alone.
        freeze: Vec<String> = vec![];
        /// Images per step.
        batch: usize = 32, in 1..=1_048_576;
        /// Parts that a step's batch is cut into, one after another, so that a large batch fits into memory; their gradients are
        /// averaged. The result is that of the whole batch to rounding, but for what looks across a batch: batch norms, entropies
        /// of codes and adaptive weights see a part, dead codes restart from the last part's vectors. Codebooks' averages take
        /// the sums of all parts, with the last of them; one that depths share and that moves between them does so in the last
        /// part.
        gradient_accumulation: usize = 1, in 1..=1_048_576;
        /// Peak learning rate.
        lr: f32 = 1e-3, in 0.0..=1e30;
        /// Steps over which the rate rises linearly from 0.
        warmup: u64 = 50;
        /// What the rate does then.
        schedule: Schedule = Schedule::Cosine;
        /// Where a cosine ends, as a fraction of the peak.
        final_lr_ratio: f32 = 0.0, in 0.0..=1.0;
        /// Decay rates of the two moments.
        betas: [f32; 2] = [0.9, 0.99], in 0.0..1.0;
        /// Decoupled weight decay.
        weight_decay: f32 = 0.0, in 0.0..=1e3;
        /// Gradients are scaled down to this norm; none for no clipping.
        max_grad_norm: Option<f32> = Some(1.0), in 1e-9..=1e9;
        /// Decay of an exponential average of the weights, which is then what is evaluated; none for the weights themselves.
        ema_decay: Option<f32> = None, in 0.0..1.0;
        /// Steps before latents are quantized: until then they pass as they are. From small random weights the latents
        /// hardly vary, and a codebook that follows them from the start can hold them there; it starts from data when its
        /// turn comes. 0 where the quantizer changes the number of channels, as `kl` does.
        quantize_after: u64 = 0;
        /// Whether the data set's augmentation is on.
        augment: bool = true;
        /// How numbers are multiplied on a GPU.
        precision: Precision = Precision::Tf32;
        /// Steps between checkpoints; a killed run loses at most these.
        checkpoint: u64 = 200, in 1.., local;
        /// Steps between points of the curves.
        log: u64 = 20, in 1..;
    }
}

config! {
    /// How the prior is trained: AdamW.
    pub struct PriorTraining {
        /// Optimizer steps; with 0 it stays as it starts, such as `from` a file.
        steps: u64 = 1000, in 0..;
        /// A file of weights to start from, as in `tokenizer_training`; where there are several levels a list of files, one for
        /// each, in the order in which they are sampled: `from: ["top.safetensors", "bottom.safetensors"]`.
        from: Option<FilesByLevel> = None, local;
        /// Parameters that stay as they are, by their names, with `*` for any letters.
        freeze: Vec<String> = vec![];
        /// Images per step.
        batch: usize = 32, in 1..=1_048_576;
        /// Parts that a step's batch is cut into, one after another, as in `tokenizer_training`: published batches of 1,024 and
        /// more fit into memory so. The loss of `maskgit` is averaged over each part's masked tokens.
        gradient_accumulation: usize = 1, in 1..=1_048_576;
        /// Peak learning rate.
        lr: f32 = 1e-3, in 0.0..=1e30;
        /// Steps over which the rate rises linearly from 0.
        warmup: u64 = 50;
        /// What the rate does then.
        schedule: Schedule = Schedule::Cosine;
        /// Where a cosine ends, as a fraction of the peak.
        final_lr_ratio: f32 = 0.0, in 0.0..=1.0;
        /// Decay rates of the two moments.
        betas: [f32; 2] = [0.9, 0.95], in 0.0..1.0;
        /// Decoupled weight decay.
        weight_decay: f32 = 1e-4, in 0.0..=1e3;
        /// Gradients are scaled down to this norm; none for no clipping.
        max_grad_norm: Option<f32> = Some(1.0), in 1e-9..=1e9;
        /// Decay of an exponential average of the weights, which is then what is evaluated; none for the weights themselves.
        ema_decay: Option<f32> = None, in 0.0..1.0;
        /// Training images that are encoded once and trained on, of all classes; none for all of them.
        images: Option<usize> = None, in 1..;
        /// How the prior sees the data set's augmentation (flips, crops), if that has one. `variants`: every fixed variant of an
        /// image is encoded once, such as the image and its mirror image, or ten crops. `draws(N)`: N random variants of each
        /// are. `on_the_way`: a step augments and encodes its images, which costs the tokenizer's encoder at each step. `none`:
        /// the prior learns images as they are.
        augmentation: Augmentation = Augmentation::Variants;
        /// Test images on which the loss is measured at points of the curves, from which nothing is learnt or chosen; 0 for
        /// none. The points are spaced so that this takes less than a tenth of the training.
        validation: usize = 128;
        /// What the prior is told of an image. `class`: its class, where the data have classes. `text`: its caption, where the
        /// data have captions: `dead_leaves` describes its pictures, `folder`, `parquet` and `webdataset` read texts. `none`:
        /// nothing.
        condition: Conditioning = Conditioning::Class;
        /// With `text`: how many tokens of a caption the prior reads, of which longer ones are cut. They stand before the
        /// image's own. The RQ-Transformer reads 32.
        text_length: usize = TEXT_LENGTH, in 1..=1024;
        /// With `text`: tokens of the byte-level BPE that is trained on the training images' captions, 256 of them single bytes.
        text_vocabulary: usize = TEXT_VOCABULARY, in 257..=1_000_000;
        /// With `text`: a published `tokenizer.json` in place of that, relative to the file that this stands in. Its digest is
        /// part of the result's identity.
        text_tokenizer: Option<String> = None, local;
        /// With `text`: whether images without a caption have the null condition, or the experiment is refused.
        missing_captions: MissingCaptions = MissingCaptions::Allow;
        /// Share of conditions that are replaced by the null condition: what a prior must have seen for guidance.
        condition_dropout: f32 = 0.0, in 0.0..=1.0;
        /// How numbers are multiplied on a GPU.
        precision: Precision = Precision::Tf32;
        /// Steps between checkpoints; a killed run loses at most these.
        checkpoint: u64 = 200, in 1.., local;
        /// Steps between points of the curves.
        log: u64 = 20, in 1..;
    }
}

config! {
    /// What is measured, on the test split.
    pub struct Evaluation {
        /// Test images for distortion and codebook statistics; all of them if there are fewer.
        images: usize = 1000, in 4..;
        /// Samples drawn from the prior for its quality measures.
        samples: usize = 500, in 5..=100_000_000;
        /// Which classes they are drawn of. `data`: those of the test images that they are compared with, in their
        /// proportions. `uniform`: all equally often. `class("NAME")`: that one.
        labels: Labels = Labels::Data;
        /// Seeds of the draws, apart from the seeds of training: samples are drawn and measured once for each, and the
        /// measures averaged.
        sampling_seeds: Vec<u64> = vec![0];
        /// Temperature of those samples.
        temperature: f32 = 1.0, in 1e-3..=1e3;
        /// The k most probable codes are drawn from; none for all.
        top_k: Option<usize> = None, in 1..;
        /// The smallest set of codes with this probability is drawn from; none for all.
        top_p: Option<f32> = None, in 1e-6..=1.0;
        /// Guidance: samples are drawn from `u + scale (c - u)`, of predictions c with and u without the condition. 1 is none;
        /// papers that write `c + w (c - u)` have w = scale - 1.
        guidance: f32 = 1.0, in 0.0..=1e3;
        /// Guidance scales of which the best is chosen, such as `[1, 1.5, 2, 3]`; empty for `guidance` as it is given. At each,
        /// `samples` images are drawn, and compared by their Fréchet distance with half of the test images that `images` takes.
        /// What is measured of samples is then measured with the scale of the least distance, against the other half.
        tune_guidance: Vec<f32> = vec![], in 0.0..=1e3;
        /// How the guidance scale moves with the share of a sample's positions that are known.
        guidance_schedule: GuidanceShape = GuidanceShape::Constant;
        /// The power of the schedule `power_cosine`.
        guidance_power: f32 = 1.0, in 1e-3..=1e3;
        /// Where the schedule `interval` begins, as a share of the positions.
        guidance_from: f32 = 0.0, in 0.0..=1.0;
        /// Where it ends.
        guidance_to: f32 = 1.0, in 0.0..=1.0;
        /// Batch sizes at which sampling speed is measured, with and without cache; empty for none.
        speed: Vec<usize> = vec![1, 16], in 1..=65_536;
        /// Shares of a test image's codes that are perturbed, such as `[0.5, 0.7, 0.9]`: a measure of how the tokenizer decodes
        /// what a prior gets nearly right. Empty for no such measure.
        perturbation: Vec<f32> = vec![], in 0.0..=1.0;
        /// How many of the codes nearest to its own, this among them, a perturbed code is drawn from.
        perturbation_neighbours: usize = 100, in 1..;
        /// The share of the test images whose codes are perturbed, the first of them. The published training perturbs 0.1 of a
        /// batch; what a tokenizer makes of perturbed codes shows most where all are.
        perturbation_images: f32 = 1.0, in 0.0..=1.0;
        /// Training steps of a small prior that is the same for all tokenizers, `ar(width: 64, heads: 4, layers: 2)`: how well
        /// it learns a tokenizer's codes says what they are worth to priors. 0 for none.
        probe_steps: u64 = 0;
        /// The protocols that reconstructions and samples are measured by: `[lab, adm, llamagen]`. The lab's is always among them;
        /// `rqlab describe protocols` tells what each pins.
        protocols: Vec<Protocol> = vec![Protocol::Lab];
        /// Training images that published protocols compare samples with; none for all of them, which is what the published numbers
        /// take.
        protocol_references: Option<usize> = None, in 4..;
        /// Inception-v3's weights, a safetensors file: docs/weights.md tells where they are and how to convert them.
        inception: Option<String> = None, local;
        /// The SHA-256 of that file.
        inception_digest: String = INCEPTION_DIGEST.to_owned();
        /// DINOv2's weights, a safetensors file.
        dinov2: Option<String> = None, local;
        /// The SHA-256 of that file; must be given with it.
        dinov2_digest: Option<String> = None;
        /// LPIPS' weights, a safetensors file of VGG16 and the heads, for LPIPS by every published protocol.
        lpips: Option<String> = None, local;
        /// The SHA-256 of that file; must be given with it.
        lpips_digest: Option<String> = None;
        /// What becomes of distances whose network's weights are not given.
        missing_weights: MissingWeights = MissingWeights::Refuse;
        /// Images in the report's picture rows.
        pictures: usize = 8, in 1..=64;
        /// Steps for which the lab's own classifier is trained, whose features the Fréchet distance is taken on.
        classifier_steps: u64 = 400, in 1..;
        /// How numbers are multiplied on a GPU.
        precision: Precision = Precision::Tf32;
    }
}

impl PriorTraining {
    /// The same, with settings of captions at their defaults where none are told: what is not asked for trains nothing again.
    #[must_use]
    pub(crate) fn told(self) -> Self {
        match self.condition {
            Conditioning::Text => self,
            Conditioning::Class | Conditioning::None => Self {
                text_length: TEXT_LENGTH,
                text_vocabulary: TEXT_VOCABULARY,
                text_tokenizer: None,
                missing_captions: MissingCaptions::Allow,
                ..self
            },
        }
    }
}

impl Protocol {
    /// The protocol as reports know it; none for the lab's own.
    pub fn published(self) -> Option<rqlab_reports::Protocol> {
        Some(match self {
            Self::Lab => return None,
            Self::Adm => rqlab_reports::Protocol::Adm,
            Self::Clean => rqlab_reports::Protocol::Clean,
            Self::Titok => rqlab_reports::Protocol::Titok,
            Self::Llamagen => rqlab_reports::Protocol::Llamagen,
            Self::Rqvae => rqlab_reports::Protocol::Rqvae,
            Self::Dgm => rqlab_reports::Protocol::Dgm,
        })
    }
}

impl Evaluation {
    /// The published protocols, each once.
    pub fn published_protocols(&self) -> Vec<rqlab_reports::Protocol> {
        let mut found = Vec::new();
        for protocol in self.protocols.iter().filter_map(|protocol| protocol.published()) {
            if !found.contains(&protocol) {
                found.push(protocol);
            }
        }
        found
    }

    /// The name of the setting that holds the weights of a protocol's network.
    pub fn extractor_setting(protocol: rqlab_reports::Protocol) -> &'static str {
        if protocol == rqlab_reports::Protocol::Dgm { "dinov2" } else { "inception" }
    }

    /// The weights that a setting names, with paths beginning at `base`; none if it names none or lacks a digest.
    pub fn weights(&self, setting: &str, base: &Path) -> Option<WeightsFile> {
        let (path, digest) = match setting {
            "inception" => (&self.inception, Some(&self.inception_digest)),
            "dinov2" => (&self.dinov2, self.dinov2_digest.as_ref()),
            _ => (&self.lpips, self.lpips_digest.as_ref()),
        };
        Some(WeightsFile { path: base.join(path.as_ref()?), digest: digest?.clone() })
    }

    /// The guidance that it asks for.
    pub fn guidance(&self) -> Guidance {
        let schedule = match self.guidance_schedule {
            GuidanceShape::Constant => GuidanceSchedule::Constant,
            GuidanceShape::Linear => GuidanceSchedule::Linear,
            GuidanceShape::PowerCosine => GuidanceSchedule::PowerCosine { power: self.guidance_power },
            GuidanceShape::Interval => GuidanceSchedule::Interval { from: self.guidance_from, to: self.guidance_to },
        };
        Guidance { scale: self.guidance, schedule }
    }
}

impl Precision {
    /// The word that experiment files and the environment use.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}
