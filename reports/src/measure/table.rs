//! The rows of the registry.

use super::{Better, Comparable, Group};

/// A row: what is said of a plain name.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    pub(super) group: Group,
    pub(super) comparable: Comparable,
    pub(super) takes: Takes,
    pub(super) definition: &'static str,
    pub(super) caution: &'static str,
}

/// The indices that a measure can be taken at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// None: once in a trial.
    Nothing,
    /// A published protocol; none for the lab's own.
    Protocol,
    /// A level, where there are several.
    Level,
    /// A level where there are several, and a depth or all depths together.
    Depth,
    /// A level where there are several, and two depths.
    TwoDepths,
    /// A batch size.
    Batch,
    /// A batch size, and whether there is a cache.
    BatchAndCache,
    /// Something that captions name, or all of it together.
    Attribute,
}

const FEATURES: &str = "The features come from the lab's own small classifier, trained on this data set's labels. It is not FID, \
which is defined on Inception-v3 features.";

const FEATURES_KERNEL: &str = "The features come from the lab's own small classifier, trained on this data set's labels. It is not KID, \
which is defined on Inception-v3 features. May be negative.";

use Better::{Higher, Lower, Neither};
use Comparable::{Anywhere, Dataset, Features, Machine, Tokenizer};
use Group::{Codebook, Cost, Other, Prior, Rate, Reconstruction, Speed, Training};

#[rustfmt::skip] // One line of facts and one of words for each measure reads as the table it is.
pub(super) const TABLE: &[Row] = &[
    row("mse", "MSE", "", Lower, Reconstruction, Dataset, Takes::Nothing,
        "Mean squared error between test images and their reconstructions, over pixels and channels in [-1, 1].",
        "Blur costs little: an image with a low MSE need not look sharp."),
    row("l1", "L1 error", "", Lower, Reconstruction, Dataset, Takes::Nothing,
        "Mean absolute error between images and their reconstructions, over pixels and channels in [-1, 1].", ""),
    row("psnr", "PSNR", "dB", Higher, Reconstruction, Dataset, Takes::Protocol,
        "Peak signal-to-noise ratio, 10 log10(range² / MSE), computed for each test image and averaged.",
        "The mean of the images' PSNR is not the PSNR of the mean MSE."),
    row("psnr_at", "PSNR of partial decoding", "dB", Higher, Reconstruction, Dataset, Takes::Depth,
        "PSNR of images decoded from the codes up to this depth alone, at every level.",
        "The decoder was trained on sums of all depths, not on partial ones."),
    row("ssim", "SSIM", "", Higher, Reconstruction, Dataset, Takes::Protocol,
        "Structural similarity with an 11 x 11 Gaussian window (sigma 1.5), averaged over windows, channels and images.",
        "Not multi-scale SSIM."),
    row("commitment", "commitment loss", "", Lower, Reconstruction, Dataset, Takes::Depth,
        "Squared distance between the encoder's output and its quantization, as the quantizer's loss defines it, on test images.",
        "Depends on the scale of the latent space: compare it within one autoencoder."),
    row("codebook", "codebook loss", "", Lower, Reconstruction, Dataset, Takes::Depth,
        "Squared distance between the codes and the encoder's output, which moves the codes, on test images.",
        "Depends on the scale of the latent space: compare it within one autoencoder."),
    row("recon_frechet", "reconstruction Fréchet distance", "", Lower, Reconstruction, Features, Takes::Nothing,
        "Fréchet distance between Gaussians fitted to the features of test images and of their reconstructions.", FEATURES),
    row("recon_kernel", "reconstruction kernel distance", "", Lower, Reconstruction, Features, Takes::Nothing,
        "Unbiased squared maximum mean discrepancy with a cubic kernel between the features of test images and of their reconstructions: the \
         mean over 100 subsets of 1000 images, or of as many as there are.", FEATURES_KERNEL),
    row("lpips", "LPIPS", "", Lower, Reconstruction, Dataset, Takes::Protocol,
        "Learned perceptual distance between images and their reconstructions (version 0.1, VGG16), averaged over images.",
        "Taken on the protocol's pictures, at their own size."),
    row("rfid", "reconstruction FID", "", Lower, Reconstruction, Dataset, Takes::Protocol,
        "Fréchet distance between Gaussians fitted to Inception-v3's pooled features of test images and of their reconstructions.",
        "The network is the one whose digest `evaluation` states. Its bias falls with the number of images: compare at equal numbers; published \
         values take 50,000."),
    row("rkid", "reconstruction KID", "", Lower, Reconstruction, Dataset, Takes::Protocol,
        "Unbiased squared maximum mean discrepancy with a cubic kernel between Inception-v3's pooled features of test images and of their \
         reconstructions: the mean over 100 subsets of 1000, or of all images where there are fewer.",
        "The network is the one whose digest `evaluation` states. May be negative."),
    row("recon_fd_dinov2", "reconstruction distance on DINOv2", "", Lower, Reconstruction, Dataset, Takes::Protocol,
        "Fréchet distance between Gaussians fitted to DINOv2's class tokens of test images and of their reconstructions.",
        "Not FID, which is defined on Inception-v3 features."),
    row("recon_kd_dinov2", "reconstruction kernel distance on DINOv2", "", Lower, Reconstruction, Dataset, Takes::Protocol,
        "Unbiased squared maximum mean discrepancy with a cubic kernel between DINOv2's class tokens of test images and of their \
         reconstructions: the mean over 100 subsets of 1000, or of all images where there are fewer.",
        "Not KID, which is defined on Inception-v3 features. May be negative."),
    row("protocol_images", "reconstructions measured", "images", Neither, Other, Anywhere, Takes::Protocol,
        "Test images whose reconstructions a protocol's measures are of.", "Published numbers take 50,000."),
    row("protocol_samples", "samples measured", "images", Neither, Other, Anywhere, Takes::Protocol,
        "Samples of one draw that a protocol's measures are of.", "Published numbers take 50,000."),
    row("protocol_references", "training images that samples are compared with", "images", Neither, Other, Anywhere, Takes::Protocol,
        "Training images that a protocol compares samples with.", "Published numbers take all of them."),
    row("perturbed_frechet", "Fréchet distance of perturbed codes", "", Lower, Reconstruction, Features, Takes::Nothing,
        "Fréchet distance between the features of test images and of what is decoded from their codes after a share of these became one of \
         the codes nearest to them, at random; the mean over the shares of `evaluation.perturbation`. A prior errs like that: it tells more \
         of samples than the distance of reconstructions does.", FEATURES),
    row("bits_per_image", "nominal bits per image", "bits", Lower, Rate, Dataset, Takes::Level,
        "Height x width of the code map times the sum of log2 K over depths, over all levels: what fixed-length codes take.",
        "Defined for codes only; the rate of continuous tokens is their KL divergence."),
    row("entropy_bits_per_image", "entropy-coded bits per image", "bits", Lower, Rate, Dataset, Takes::Level,
        "Height x width of the code map times the sum over depths of the entropy of the codes used on test images, over all levels.",
        "A bound for a coder that knows only each depth's code frequencies; a prior does better."),
    row("kl_bits_per_image", "KL bits per image", "bits", Lower, Rate, Dataset, Takes::Level,
        "KL divergence from the standard normal distribution to the encoder's posterior, summed over the latents of a test image, in bits: \
         the rate of a bottleneck of continuous tokens.",
        "An expected length under bits-back coding, not a length of stored codes: it does not compare with nominal bits."),
    row("usage", "codebook usage", "%", Higher, Codebook, Dataset, Takes::Depth,
        "Share of codes that occur at least once on the test images: of the level and depth that are named, or else of all codes in all \
         codebooks, at any depth that reads them.",
        "A code that occurs once counts as much as any other; perplexity weighs them."),
    row("perplexity", "perplexity", "codes", Higher, Codebook, Dataset, Takes::Depth,
        "2 to the entropy of the codes: how many equally frequent codes would carry the same information.", ""),
    row("entropy", "code entropy", "bits", Higher, Codebook, Dataset, Takes::Depth,
        "Entropy of a depth's code frequencies on test images.", ""),
    row("residual_energy", "residual energy", "", Lower, Codebook, Dataset, Takes::Depth,
        "Energy of the residual left after this depth, as a share of the energy of the encoder's output.", ""),
    row("largest_code_norm", "largest code norm", "", Neither, Codebook, Dataset, Takes::Depth,
        "Norm of the longest vector of the codebook, over the root mean square norm of those that test images use.",
        "Far above 1, a code lies where no image is."),
    row("unused_codes", "unused codes", "codes", Lower, Codebook, Dataset, Takes::Depth,
        "Codes that occur on no test image at this depth.", "Another depth of a shared codebook may use them."),
    row("dead_codes", "dead codes in training", "codes", Lower, Codebook, Dataset, Takes::Depth,
        "Codes whose moving average of uses, over all depths that read them, lies below the threshold for a restart.", ""),
    row("restarted_codes", "restarted codes", "codes", Neither, Codebook, Dataset, Takes::Depth,
        "Codes that were replaced by a vector of the batch because they had fallen out of use.", ""),
    row("code_overlap", "code overlap", "", Neither, Codebook, Dataset, Takes::TwoDepths,
        "How much two depths of a shared codebook use the same codes: the sum over codes of the smaller of their two frequencies.",
        "Says nothing for separate codebooks, where code numbers do not correspond."),
    row("prior_bits_per_image", "prior bits per image", "bits", Lower, Prior, Tokenizer, Takes::Nothing,
        "Negative log2-likelihood of a test image's codes under the prior, summed over positions, depths and levels.",
        "The likelihood of codes, not of pixels: another tokenizer's codes say more or less of the image."),
    row("prior_bits", "prior bits", "bits", Lower, Prior, Tokenizer, Takes::Depth,
        "The part of the prior's bits per image that this level or depth takes.", ""),
    row("prior_density_bits", "negative log-density of vectors", "bits", Lower, Prior, Tokenizer, Takes::Level,
        "Negative log2-density of a test image's token vectors under the prior, summed over positions, in the scale in which the \
         tokenizer makes them.",
        "A density, not a probability: it may be negative, is no length of a code, and compares with no bits of codes."),
    row("prior_bound_bits", "bound on prior bits", "bits", Lower, Prior, Tokenizer, Takes::Level,
        "An upper bound of the negative log2-likelihood of a test image's codes under the prior, estimated over random orders, where the \
         likelihood itself cannot be computed.",
        "A bound, and no likelihood: it compares with no prior bits."),
    row("prior_vector_bound_bits", "variational bound on bits of vectors", "bits", Lower, Prior, Tokenizer, Takes::Level,
        "An upper bound of the negative log2-likelihood of a test image's token vectors under the prior, in bins of width 2/255 in the scale \
         in which the prior sees them: the variational bound of a diffusion, estimated by random draws.",
        "A bound, and no likelihood; of vectors: it compares with no bits of codes, and with no density."),
    row("probe_frechet", "sample Fréchet distance of the probe", "", Lower, Prior, Features, Takes::Nothing,
        "Fréchet distance between the features of test images and of what a small prior draws, which is the same for all tokenizers and trained \
         for `evaluation.probe_steps` steps on each one's codes: what the codes are worth to priors.", FEATURES),
    row("probe_bits_per_image", "bits per image of the probe", "bits", Lower, Prior, Tokenizer, Takes::Nothing,
        "Negative log2-likelihood of a test image's codes under that small prior.",
        "The likelihood of codes, not of pixels: another tokenizer's codes say more or less of the image."),
    row("guidance", "guidance scale", "", Neither, Prior, Anywhere, Takes::Level,
        "Scale s of the classifier-free guidance that samples were drawn with: the prior's outputs are u + s (c - u), where c knows the \
         condition and u does not. 1 is no guidance.",
        "Ho and Salimans (2022) write the same as (1 + w) c - w u, so that w = s - 1."),
    row("tuned_guidance", "tuned guidance scale", "", Neither, Prior, Anywhere, Takes::Nothing,
        "The scale of the classifier-free guidance that samples were drawn with, as it was chosen among those of `evaluation.tune_guidance`.", ""),
    row("tuning_frechet", "Fréchet distance in tuning guidance", "", Lower, Prior, Features, Takes::Nothing,
        "Fréchet distance between the features of one half of the measured test images and of images drawn with a guidance scale: of \
         `evaluation.tune_guidance` the scale of the least distance is taken. All other measures of samples compare with the other half.", FEATURES),
    row("caption_accuracy", "caption accuracy", "%", Higher, Prior, Features, Takes::Attribute,
        "Share of the attributes named in captions that a classifier finds in the images drawn for them: the value named is its most probable \
         one. The classifier is the lab's own, with a head for each attribute, trained on this data set. Of one attribute alone where one is named.",
        "Its ceiling is the value of test images under their own captions, its floor that of samples under each other's."),
    row("caption_bits", "caption bits", "bits", Higher, Prior, Features, Takes::Nothing,
        "Bits that a drawn image tells of its caption: the sum over attributes of log2 of how much more probable the named value is to the \
         classifier than it is frequent among test images, averaged over images. A hundredth of the frequencies is mixed into the probabilities, \
         so that a sure mistake costs 6.6 bits.",
        "A cross entropy: it falls below 0 where images show something else than they were asked for."),
    row("real_caption_accuracy", "caption accuracy of test images", "%", Higher, Other, Dataset, Takes::Attribute,
        "The caption accuracy of real test images under their own captions: the ceiling of samples.",
        "What it lacks is the classifier's fault, and that of captions which name what hardly shows."),
    row("real_caption_bits", "caption bits of test images", "bits", Higher, Other, Dataset, Takes::Nothing,
        "The caption bits of real test images under their own captions: the ceiling of samples.", ""),
    row("shuffled_caption_accuracy", "caption accuracy under shuffled captions", "%", Neither, Prior, Features, Takes::Attribute,
        "The caption accuracy of the same drawn images, each under the caption of another: what images have that obey nothing.", ""),
    row("shuffled_caption_bits", "caption bits under shuffled captions", "bits", Neither, Prior, Features, Takes::Nothing,
        "The caption bits of the same drawn images, each under the caption of another.",
        "Below 0 where the classifier is sure: images that obey nothing and look like nothing have about 0."),
    row("missing_captions", "images without a caption", "%", Neither, Other, Dataset, Takes::Nothing,
        "Share of the training images that have no caption: priors see the null condition with them.", ""),
    row("cut_captions", "captions that are cut", "%", Lower, Other, Dataset, Takes::Nothing,
        "Share of training captions that are longer than a prior reads: their last tokens are left out.", ""),
    row("caption_tokens", "tokens of a caption", "", Neither, Other, Dataset, Takes::Nothing,
        "Tokens of a training caption, on average, before any are cut.", ""),
    row("unknown_captions", "captions with unknown words", "%", Lower, Other, Dataset, Takes::Nothing,
        "Share of samples' captions that have a word which no training caption has.", ""),
    row("attribute_accuracy", "accuracy of the attribute classifier", "%", Higher, Other, Dataset, Takes::Nothing,
        "Share of the attributes of test images that the classifier of captions' attributes names right.",
        "Says nothing about the tokenizer or the prior."),
    row("sample_frechet", "sample Fréchet distance", "", Lower, Prior, Features, Takes::Nothing,
        "Fréchet distance between Gaussians fitted to the features of test images and of images drawn from the prior. Classes are drawn as \
         `evaluation.labels` says: by default as often as those test images have them.", FEATURES),
    row("sample_frechet_infinite", "sample Fréchet distance, infinitely many samples", "", Lower, Prior, Features, Takes::Nothing,
        "Where the sample Fréchet distance of 15 growing numbers of samples leads as their number grows without end (a line through the distances \
         over 1/N): the bias of few samples is taken away, and their noise is not.", FEATURES),
    row("sample_kernel", "sample kernel distance", "", Lower, Prior, Features, Takes::Nothing,
        "Unbiased squared maximum mean discrepancy with a cubic kernel between the features of test images and of drawn images: the mean over 100 \
         subsets of 1000 images, or of as many as the smaller set has. Few images make it noisy, not biased.", FEATURES_KERNEL),
    row("shuffled_frechet", "shuffled-codes Fréchet distance", "", Lower, Prior, Features, Takes::Nothing,
        "The same distance for a baseline that draws each code independently, from the frequencies at its depth: what images \
         without a prior are worth.", FEATURES),
    row("precision", "precision", "", Higher, Prior, Features, Takes::Protocol,
        "Share of drawn images whose features lie in the k-nearest-neighbour manifold of test images (Kynkäänniemi et al., 2019). The lab takes \
         k = 3, borders included.", FEATURES),
    row("recall", "recall", "", Higher, Prior, Features, Takes::Protocol,
        "Share of test images whose features lie in the k-nearest-neighbour manifold of drawn images. The lab takes k = 3, borders included.",
        FEATURES),
    row("density", "density", "", Higher, Prior, Features, Takes::Protocol,
        "How many test images have a drawn image within the distance to their k-th neighbour, the mean over drawn images divided by k (Naeem et \
         al., 2020): unlike precision, it does not hang on outliers among test images. The lab takes k = 5.",
        "About 1 where both are alike, and not bounded by it: samples that crowd where test images are dense have more."),
    row("coverage", "coverage", "%", Higher, Prior, Features, Takes::Protocol,
        "Share of test images that have a drawn image within the distance to their k-th neighbour among test images (Naeem et al., 2020). The lab \
         takes k = 5.",
        "It grows with the number of samples: compare at equal numbers."),
    row("gfid", "FID of samples", "", Lower, Prior, Dataset, Takes::Protocol,
        "Fréchet distance between Gaussians fitted to Inception-v3's pooled features of training images and of drawn images.",
        "The network is the one whose digest `evaluation` states. Its bias falls with the number of samples: compare at equal numbers; published \
         values take 50,000."),
    row("gfid_infinite", "FID of infinitely many samples", "", Lower, Prior, Dataset, Takes::Protocol,
        "Where the FID of 15 growing numbers of samples leads as their number grows without end (Chong and Forsyth, 2020): the bias of few \
         samples is taken away, and their noise is not.", "The network is the one whose digest `evaluation` states."),
    row("sfid", "sFID of samples", "", Lower, Prior, Dataset, Takes::Protocol,
        "Fréchet distance on the first 7 channels of Inception-v3's `mixed_6/conv` map, which know where things are (Nash et al., 2021), \
         between training images and drawn images.", "The network is the one whose digest `evaluation` states."),
    row("gkid", "KID of samples", "", Lower, Prior, Dataset, Takes::Protocol,
        "Unbiased squared maximum mean discrepancy with a cubic kernel between Inception-v3's pooled features of up to 10,000 training images \
         and of drawn images: the mean over 100 subsets of 1000, or of as many as there are.",
        "The network is the one whose digest `evaluation` states. May be negative."),
    row("inception_score", "inception score", "", Higher, Prior, Dataset, Takes::Protocol,
        "exp of the mean KL divergence between Inception-v3's class probabilities of one drawn image and of all of them, as the protocol splits \
         images.", "It knows nothing of the training images. The network is the one whose digest `evaluation` states."),
    row("sample_fd_dinov2", "sample distance on DINOv2", "", Lower, Prior, Dataset, Takes::Protocol,
        "Fréchet distance between Gaussians fitted to DINOv2's class tokens of training images and of drawn images.",
        "Not FID, which is defined on Inception-v3 features."),
    row("sample_fd_dinov2_infinite", "sample distance on DINOv2, infinitely many samples", "", Lower, Prior, Dataset, Takes::Protocol,
        "Where that distance of 15 growing numbers of samples leads as their number grows without end.",
        "Not FID, which is defined on Inception-v3 features."),
    row("sample_kd_dinov2", "sample kernel distance on DINOv2", "", Lower, Prior, Dataset, Takes::Protocol,
        "Unbiased squared maximum mean discrepancy with a cubic kernel between DINOv2's class tokens of up to 10,000 training images and of drawn \
         images: the mean over 100 subsets of 1000, or of as many as there are.",
        "Not KID, which is defined on Inception-v3 features. May be negative."),
    row("near_training", "samples near a training image", "%", Neither, Prior, Features, Takes::Nothing,
        "Share of drawn images whose nearest training image, by the lab's features, is as near as that of the nearest 5% of test images. New \
         images of the same kind have 5%; copies of training images have more.",
        "A sample of poor quality is far from everything: a low share alone is no merit."),
    row("near_training_pixels", "samples near a training image, in pixels", "%", Neither, Prior, Dataset, Takes::Nothing,
        "The same by pixels of pictures shrunk to 8 x 8: it needs no labels, and finds copies that are shifted by no more than a few pixels.",
        "Smooth samples come near to many images in pixels without being copies."),
    row("inception_style", "inception-style score", "", Higher, Prior, Features, Takes::Nothing,
        "exp of the mean KL divergence between the classifier's labels for one drawn image and for all of them.",
        "The classifier is the lab's own: it is not the Inception score, and its ceiling is the number of classes."),
    row("classifier_accuracy", "accuracy of the feature classifier", "%", Higher, Other, Dataset, Takes::Nothing,
        "Share of test images whose label the lab's feature classifier names: how much its features can be trusted.",
        "Says nothing about the tokenizer or the prior."),
    row("images_per_second", "sampling speed", "images/s", Higher, Speed, Machine, Takes::BatchAndCache,
        "Images drawn from the prior per second at this batch size, with or without a key-value cache: the median of several rounds, taken in turns with what else is timed. Decoding is timed apart.", ""),
    row("decode_images_per_second", "decoding speed", "images/s", Higher, Speed, Machine, Takes::Batch,
        "Images decoded from their tokens per second at this batch size: the median of several rounds, taken in turns with what else is timed.", ""),
    row("images_per_second_lower_quartile", "sampling speed, lower quartile", "images/s", Higher, Speed, Machine, Takes::BatchAndCache,
        "A quarter of the rounds in which sampling was timed were as slow as this or slower; the sampling speed is their median.", ""),
    row("images_per_second_upper_quartile", "sampling speed, upper quartile", "images/s", Higher, Speed, Machine, Takes::BatchAndCache,
        "A quarter of the rounds in which sampling was timed were as fast as this or faster; the sampling speed is their median.", ""),
    row("decode_images_per_second_lower_quartile", "decoding speed, lower quartile", "images/s", Higher, Speed, Machine, Takes::Batch,
        "A quarter of the rounds in which decoding was timed were as slow as this or slower; the decoding speed is their median.", ""),
    row("decode_images_per_second_upper_quartile", "decoding speed, upper quartile", "images/s", Higher, Speed, Machine, Takes::Batch,
        "A quarter of the rounds in which decoding was timed were as fast as this or faster; the decoding speed is their median.", ""),
    row("other_load", "load by others while timing", "%", Lower, Speed, Machine, Takes::Nothing,
        "Share of the machine's processors that other programs used while speeds were timed.",
        "Speeds that were timed on a busy machine say little of another machine or hour."),
    row("parameters", "parameters", "", Lower, Cost, Anywhere, Takes::Nothing, "Parameters of the tokenizer and the priors of the trial.", ""),
    row("tokenizer_parameters", "tokenizer parameters", "", Lower, Cost, Anywhere, Takes::Nothing,
        "Parameters of the autoencoder and the quantizers, critics apart: a codebook of K codes of C numbers has K x C, whether an optimizer or averages move it.", ""),
    row("tokenizer_buffers", "tokenizer buffers", "", Lower, Cost, Anywhere, Takes::Nothing,
        "Numbers that the tokenizer keeps beside its parameters, such as the counts and sums of codebooks that are averages: they serve training alone.", ""),
    row("prior_parameters", "prior parameters", "", Lower, Cost, Anywhere, Takes::Level, "Parameters that the optimizer trains in the prior.", ""),
    row("objective_parameters", "objective parameters", "", Lower, Cost, Anywhere, Takes::Nothing,
        "Trained numbers of the objectives, such as critics: they serve training alone.", ""),
    row("flops", "FLOPs", "", Lower, Cost, Anywhere, Takes::Nothing,
        "Floating-point operations of training; a multiplication with its addition counts as two.",
        "Counted from shapes, not measured."),
    row("train_seconds", "training time", "s", Lower, Cost, Machine, Takes::Nothing,
        "Wall-clock time of all training stages of the trial.",
        "Stages that trials share are counted in each of them; other work on the machine is not taken out."),
    row("tokenizer_seconds", "tokenizer training time", "s", Lower, Cost, Machine, Takes::Nothing,
        "Wall-clock time of the tokenizer's training.", ""),
    row("prior_seconds", "prior training time", "s", Lower, Cost, Machine, Takes::Level,
        "Wall-clock time of the prior's training.", ""),
    row("evaluation_seconds", "evaluation time", "s", Lower, Cost, Machine, Takes::Nothing,
        "Wall-clock time of the evaluation.", ""),
    row("peak_memory_mib", "peak memory", "MiB", Lower, Cost, Machine, Takes::Nothing,
        "Largest resident memory of any process of the trial.", ""),
    row("loss", "loss", "", Lower, Training, Dataset, Takes::Depth,
        "What training minimises; at a depth, that depth's part of it. The mean since the curve's last point.", ""),
    row("validation_loss", "validation loss", "", Lower, Training, Dataset, Takes::Depth,
        "The loss on test images, which training does not see and nothing is chosen by, measured at points of the curve: where it rises \
         while the loss falls, the model learns its training images by heart.", ""),
    row("best_validation_step", "step of the lowest validation loss", "", Neither, Training, Dataset, Takes::Level,
        "The step of training at which the validation loss was lowest.", "The weights that are measured are those of the last step."),
    row("critic_loss", "critic loss", "", Lower, Training, Dataset, Takes::Nothing,
        "What the critic of an adversarial objective minimises.",
        "It moves with its opponent: a low loss of the critic is no sign of good images."),
    row("generator_loss", "generator loss", "", Lower, Training, Dataset, Takes::Nothing,
        "What the tokenizer minimises against a critic, unweighted.", "It moves with its opponent: it may rise while images improve."),
    row("real_logits", "logits of images", "", Neither, Training, Dataset, Takes::Nothing,
        "What the critic thinks of images, on average: the higher, the surer it is that they are real.", ""),
    row("fake_logits", "logits of reconstructions", "", Neither, Training, Dataset, Takes::Nothing,
        "What the critic thinks of reconstructions, on average: the lower, the surer it is that they are none of the images.", ""),
    row("patch_gan_weight", "adaptive weight", "", Neither, Training, Anywhere, Takes::Nothing,
        "Weight of the adversarial objective: the ratio of the other objectives' gradient norm at the decoder's last layer to its own, \
         times its setting (Esser et al., 2021).", ""),
    row("lecam", "LeCam", "", Lower, Training, Dataset, Takes::Nothing,
        "How far the critic's logits are on the wrong sides of their moving averages, squared and unweighted (Tseng et al., 2021).", ""),
    row("r1", "R1", "", Lower, Training, Dataset, Takes::Nothing,
        "Squared norm of the gradient of the critic's summed logits at an image, unweighted (Mescheder et al., 2018).", ""),
    row("lab_distance", "distance of the classifier's features", "", Lower, Training, Dataset, Takes::Nothing,
        "Squared difference of the directions of features, averaged over positions and the three maps of the laboratory's own \
         classifier of the data set.", "It is not LPIPS, and no scale but that of its own data set."),
    row("learning_rate", "learning rate", "", Neither, Training, Anywhere, Takes::Nothing,
        "The optimizer's learning rate after its schedule.", ""),
    row("gradient_norm", "gradient norm", "", Neither, Training, Anywhere, Takes::Nothing,
        "Euclidean norm of all gradients together, before they are clipped.", ""),
];

const fn row(
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    better: Better,
    group: Group,
    comparable: Comparable,
    takes: Takes,
    definition: &'static str,
    caution: &'static str,
) -> Row {
    Row { name, label, unit, better, group, comparable, takes, definition, caution }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_is_there_once_and_says_what_it_is() {
        let names: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        for row in TABLE {
            assert!(!row.label.is_empty() && row.definition.ends_with('.'), "{}", row.name);
            assert!(row.caution.is_empty() || row.caution.ends_with('.'), "{}", row.name);
        }
    }

    #[test]
    fn no_distance_of_ours_is_called_fid() {
        for row in TABLE.iter().filter(|row| row.name.ends_with("frechet")) {
            assert!(row.caution.contains("not FID"), "{} must say what it is not", row.name);
            assert!(!row.label.contains("FID"));
            assert_eq!(row.comparable, Comparable::Features, "{}", row.name);
        }
    }

    #[test]
    fn what_a_machine_decides_compares_on_one_machine() {
        for row in TABLE {
            let timed = [
                "_seconds",
                "_per_second",
                "_per_second_lower_quartile",
                "_per_second_upper_quartile",
                "_mib",
                "_load",
            ]
            .iter()
            .any(|end| row.name.ends_with(end));
            assert_eq!(timed, row.comparable == Comparable::Machine, "{}", row.name);
        }
    }
}
