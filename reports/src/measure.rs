//! The one table of measures: their labels, units, directions and definitions, and what each is not.
//!
//! A trial's measures are found by their plain name. A name may end in a depth (`usage_2`), in two depths
//! (`code_overlap_1_2`) or in a batch size and a cache setting (`images_per_second_b64_cache`).

use std::cmp::Ordering;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
    /// Neither: it describes.
    Neither,
}

/// What a measure speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// How close a reconstruction is to its image.
    Reconstruction,
    /// How many bits the codes take.
    Rate,
    /// How the codebook is used.
    Codebook,
    /// How well the prior fits, and what it draws.
    Prior,
    /// How fast images are drawn and decoded.
    Speed,
    /// What training took.
    Cost,
    /// Not in the table.
    Other,
}

/// A measure: what the page says about a plain name.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// The plain name that was looked up.
    pub name: String,
    /// Label for headings and charts.
    pub label: String,
    /// Unit, or empty; `%` marks a share in [0, 1], which the page shows in percent.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// What it speaks about.
    pub group: Group,
    /// Whether two runs of one trial may differ: times, speeds, memory. Such columns come last in the tables.
    pub timing: bool,
    /// What it is.
    pub definition: &'static str,
    /// What it is not; may be empty.
    pub caution: &'static str,
    /// Place in the table, then the numbers at the name's end.
    rank: (usize, Vec<u64>),
}

impl Measure {
    /// Order of the columns: the table's, with what varies from run to run at the end, and unknown names by letters.
    pub fn order(&self, other: &Self) -> Ordering {
        (self.timing, &self.rank, &self.name).cmp(&(other.timing, &other.rank, &other.name))
    }

    /// Label and unit, as for the axis of a chart.
    pub fn axis_label(&self) -> String {
        if self.unit.is_empty() { self.label.clone() } else { format!("{} ({})", self.label, self.unit) }
    }

    /// The name without the numbers at its end, such as `usage` for `usage_2`.
    pub fn family(&self) -> &str {
        TABLE.get(self.rank.0).map_or(&self.name, |row| row.name)
    }
}

struct Row {
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    better: Better,
    group: Group,
    definition: &'static str,
    caution: &'static str,
}

const FEATURES: &str = "The features come from the lab's own small classifier, trained on this data set's labels; values \
compare trials of one data set and one classifier only. It is not FID, which is defined on Inception-v3 features.";

#[rustfmt::skip] // One line of numbers and one of words for each measure reads as the table it is.
const TABLE: &[Row] = &[
    row("mse", "MSE", "", Better::Lower, Group::Reconstruction,
        "Mean squared error between test images and their reconstructions, over pixels and channels in [-1, 1].",
        "Blur costs little: an image with a low MSE need not look sharp."),
    row("psnr", "PSNR", "dB", Better::Higher, Group::Reconstruction,
        "Peak signal-to-noise ratio, 10 log10(range² / MSE), computed for each test image and averaged.",
        "The mean of the images' PSNR is not the PSNR of the mean MSE."),
    row("psnr_at", "PSNR of partial decoding", "dB", Better::Higher, Group::Reconstruction,
        "PSNR of images decoded from the codes up to this depth alone.",
        "The decoder was trained on sums of all depths, not on partial ones."),
    row("ssim", "SSIM", "", Better::Higher, Group::Reconstruction,
        "Structural similarity with an 11 x 11 Gaussian window (sigma 1.5), averaged over windows, channels and images.",
        "Not multi-scale SSIM."),
    row("commitment", "commitment loss", "", Better::Lower, Group::Reconstruction,
        "Squared distance between the encoder's output and its quantization, as the quantizer's loss defines it, on test images.",
        "Depends on the scale of the latent space: compare it within one autoencoder."),
    row("recon_frechet", "reconstruction Fréchet distance", "", Better::Lower, Group::Reconstruction,
        "Fréchet distance between Gaussians fitted to the features of test images and of their reconstructions.", FEATURES),
    row("bits_per_image", "nominal bits per image", "bits", Better::Lower, Group::Rate,
        "Height x width of the code map times the sum of log2 K over depths: what fixed-length codes take.", ""),
    row("entropy_bits_per_image", "entropy-coded bits per image", "bits", Better::Lower, Group::Rate,
        "Height x width of the code map times the sum over depths of the entropy of the codes used on test images.",
        "A bound for a coder that knows only each depth's code frequencies; a prior does better."),
    row("usage", "codebook usage", "%", Better::Higher, Group::Codebook,
        "Share of codes that occur at least once on the test images: of the depth that is named, or else of all codes in all \
         codebooks, at any depth that reads them.",
        "A code that occurs once counts as much as any other; perplexity weighs them."),
    row("perplexity", "perplexity", "codes", Better::Higher, Group::Codebook,
        "2 to the entropy of the codes: how many equally frequent codes would carry the same information.", ""),
    row("entropy", "code entropy", "bits", Better::Higher, Group::Codebook,
        "Entropy of a depth's code frequencies on test images.", ""),
    row("residual_energy", "residual energy", "", Better::Lower, Group::Codebook,
        "Energy of the residual left after this depth, as a share of the energy of the encoder's output.", ""),
    row("unused_codes", "unused codes", "codes", Better::Lower, Group::Codebook,
        "Codes that occur on no test image at this depth.", "Another depth of a shared codebook may use them."),
    row("dead_codes", "dead codes in training", "codes", Better::Lower, Group::Codebook,
        "Codes whose moving average of uses, over all depths that read them, lies below the threshold for a restart.", ""),
    row("restarted_codes", "restarted codes", "codes", Better::Neither, Group::Codebook,
        "Codes that were replaced by a vector of the batch because they had fallen out of use.", ""),
    row("code_overlap", "code overlap between depths", "", Better::Neither, Group::Codebook,
        "How much two depths of a shared codebook use the same codes: the sum over codes of the smaller of their two frequencies.",
        "Says nothing for separate codebooks, where code numbers do not correspond."),
    row("prior_bits_per_image", "prior bits per image", "bits", Better::Lower, Group::Prior,
        "Negative log2-likelihood of a test image's codes under the prior, summed over positions and depths.",
        "The likelihood of codes, not of pixels: comparable between priors over one tokenizer, not between tokenizers."),
    row("prior_bits", "prior bits", "bits", Better::Lower, Group::Prior,
        "The part of the prior's bits per image that this depth takes.", ""),
    row("sample_frechet", "sample Fréchet distance", "", Better::Lower, Group::Prior,
        "Fréchet distance between Gaussians fitted to the features of test images and of images drawn from the prior.", FEATURES),
    row("shuffled_frechet", "shuffled-codes Fréchet distance", "", Better::Lower, Group::Prior,
        "The same distance for a baseline that draws each code independently, from the frequencies at its depth: what images \
         without a prior are worth.", FEATURES),
    row("precision", "precision", "", Better::Higher, Group::Prior,
        "Share of drawn images whose features lie in the k-nearest-neighbour manifold of test images.", FEATURES),
    row("recall", "recall", "", Better::Higher, Group::Prior,
        "Share of test images whose features lie in the k-nearest-neighbour manifold of drawn images.", FEATURES),
    row("inception_style", "inception-style score", "", Better::Higher, Group::Prior,
        "exp of the mean KL divergence between the classifier's labels for one drawn image and for all of them.",
        "The classifier is the lab's own: it is not the Inception score, and its ceiling is the number of classes."),
    row("classifier_accuracy", "accuracy of the feature classifier", "%", Better::Higher, Group::Other,
        "Share of test images whose label the lab's feature classifier names: how much its features can be trusted.",
        "Says nothing about the tokenizer or the prior."),
    row("images_per_second", "sampling speed", "images/s", Better::Higher, Group::Speed,
        "Images drawn from the prior per second at this batch size, with or without a key-value cache; decoding is timed apart.",
        "Measured on the machine named under provenance."),
    row("decode_images_per_second", "decoding speed", "images/s", Better::Higher, Group::Speed,
        "Images decoded from their codes per second at this batch size.", "Measured on the machine named under provenance."),
    row("parameters", "parameters", "", Better::Lower, Group::Cost, "Trained numbers in all parts of the trial.", ""),
    row("tokenizer_parameters", "tokenizer parameters", "", Better::Lower, Group::Cost,
        "Trained numbers in the autoencoder and the codebooks.", ""),
    row("prior_parameters", "prior parameters", "", Better::Lower, Group::Cost, "Trained numbers in the prior.", ""),
    row("flops", "FLOPs", "", Better::Lower, Group::Cost,
        "Floating-point operations of training; a multiplication with its addition counts as two.",
        "Counted from shapes, not measured."),
    row("train_seconds", "training time", "s", Better::Lower, Group::Cost,
        "Wall-clock time of all training stages of the trial.",
        "Stages that trials share are counted in each of them; other work on the machine is not taken out."),
    row("tokenizer_seconds", "tokenizer training time", "s", Better::Lower, Group::Cost,
        "Wall-clock time of the tokenizer's training.", ""),
    row("prior_seconds", "prior training time", "s", Better::Lower, Group::Cost,
        "Wall-clock time of the prior's training.", ""),
    row("evaluation_seconds", "evaluation time", "s", Better::Lower, Group::Cost,
        "Wall-clock time of the evaluation.", ""),
    row("peak_memory_mib", "peak memory", "MiB", Better::Lower, Group::Cost,
        "Largest resident memory of any process of the trial.", ""),
];

const fn row(
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    better: Better,
    group: Group,
    definition: &'static str,
    caution: &'static str,
) -> Row {
    Row { name, label, unit, better, group, definition, caution }
}

/// Looks a plain name up. An unknown name is its own label, has no direction, and varies from run to run only if it
/// ends in `_seconds`, `_per_second` or `_mib`.
pub fn measure(name: &str) -> Measure {
    for (place, row) in TABLE.iter().enumerate() {
        let Some((numbers, suffix)) = name.strip_prefix(row.name).and_then(|rest| ending(row, rest)) else {
            continue;
        };
        return Measure {
            name: name.to_owned(),
            label: format!("{}{suffix}", row.label),
            unit: row.unit,
            better: row.better,
            group: row.group,
            timing: row.group == Group::Speed || is_timing(name),
            definition: row.definition,
            caution: row.caution,
            rank: (place, numbers),
        };
    }
    Measure {
        name: name.to_owned(),
        label: name.replace('_', " "),
        unit: if name.ends_with("_seconds") { "s" } else { "" },
        better: Better::Neither,
        group: Group::Other,
        timing: is_timing(name),
        definition: "",
        caution: "",
        rank: (TABLE.len(), Vec::new()),
    }
}

/// The names of the table, without numbers at their ends.
pub fn measure_names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.name)
}

fn is_timing(name: &str) -> bool {
    ["_seconds", "_per_second", "_mib"].iter().any(|end| name.ends_with(end))
}

/// Reads what follows a row's name: nothing, `_2`, `_1_2`, or `_b64_cache`.
fn ending(row: &Row, rest: &str) -> Option<(Vec<u64>, String)> {
    if rest.is_empty() {
        return Some((Vec::new(), String::new()));
    }
    let parts: Vec<&str> = rest.strip_prefix('_')?.split('_').collect();
    if row.group == Group::Speed {
        let batch = parts[0].strip_prefix('b')?.parse().ok()?;
        return match parts[1..] {
            [] => Some((vec![batch, 0], format!(" (batch {batch})"))),
            ["cache"] => Some((vec![batch, 1], format!(" (batch {batch}, with cache)"))),
            ["nocache"] => Some((vec![batch, 2], format!(" (batch {batch}, without cache)"))),
            _ => None,
        };
    }
    let numbers = parts.iter().map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()?;
    match numbers[..] {
        [depth] => Some((numbers, format!(" (depth {depth})"))),
        [first, second] => Some((numbers, format!(" ({first} and {second})"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_belongs_to_its_family() {
        let usage = measure("usage_2");
        assert_eq!(usage.label, "codebook usage (depth 2)");
        assert_eq!(usage.family(), "usage");
        assert_eq!(usage.better, Better::Higher);
        assert_eq!(measure("prior_bits_per_image").label, "prior bits per image");
        assert_eq!(measure("prior_bits_3").family(), "prior_bits");
        assert_eq!(measure("code_overlap_1_2").label, "code overlap between depths (1 and 2)");
    }

    #[test]
    fn columns_keep_the_tables_order_with_timings_last() {
        let mut names = ["train_seconds", "zeta", "usage_10", "usage_2", "images_per_second_b1_cache", "mse", "alpha"];
        names.sort_by(|a, b| measure(a).order(&measure(b)));
        assert_eq!(
            names,
            ["mse", "usage_2", "usage_10", "alpha", "zeta", "images_per_second_b1_cache", "train_seconds"]
        );
    }

    #[test]
    fn an_unknown_name_is_its_own_label() {
        let unknown = measure("usage_of_tea");
        assert_eq!((unknown.label.as_str(), unknown.group), ("usage of tea", Group::Other));
        assert!(measure("import_seconds").timing);
    }

    #[test]
    fn no_distance_of_ours_is_called_fid() {
        for row in TABLE.iter().filter(|row| row.name.ends_with("frechet")) {
            assert!(row.caution.contains("not FID"), "{} must say what it is not", row.name);
            assert!(!row.label.contains("FID"));
        }
    }
}
