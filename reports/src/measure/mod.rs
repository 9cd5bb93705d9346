//! The registry of measures: their labels, units, directions and definitions, what each is not, and between which trials
//! it may be compared.
//!
//! A measure has a plain name (`usage`). It may be taken several times in a trial, at levels, depths or batch sizes: a
//! [`Quantity`] is a measure at its indices, and a [`Reading`] its value.

mod protocol;
mod quantity;
mod table;
mod written;

use std::cmp::Ordering;

pub use protocol::{COMMON, Pins, Protocol};
pub use quantity::{Index, Quantity, Reading, Scale};
pub use written::{NameError, measure_names, quantity};

use table::TABLE;

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
    /// How many bits the tokens take.
    Rate,
    /// How the codebook is used.
    Codebook,
    /// How well the prior fits, and what it draws.
    Prior,
    /// How fast images are drawn and decoded.
    Speed,
    /// What training took.
    Cost,
    /// What training minimises, and how: it is recorded as curves only.
    Training,
    /// What the others rest on, and what is not in the registry.
    Other,
}

/// Between which trials the values of a measure may be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparable {
    /// Between any.
    Anywhere,
    /// Between trials of one data set.
    Dataset,
    /// Between trials of one data set and one feature classifier.
    Features,
    /// Between priors over the tokens of one tokenizer.
    Tokenizer,
    /// Between trials that one machine computed with as many threads: times, speeds, memory.
    Machine,
}

/// A difference that is too small to matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Margin {
    /// In the measure's unit.
    Of(f64),
    /// As a share of the mean before.
    Share(f64),
}

impl Margin {
    /// In the measure's unit, for a mean of `before`.
    pub fn at(self, before: f64) -> f64 {
        match self {
            Self::Of(margin) => margin,
            Self::Share(share) => share * before.abs(),
        }
    }
}

/// The margins: a tenth of a decibel is not seen; Frechet distances of models that are trained again differ by a percent or two.
fn margin(name: &str) -> Option<Margin> {
    match name {
        "psnr" | "psnr_at" => Some(Margin::Of(0.1)),
        "ssim" => Some(Margin::Of(0.005)),
        "usage" | "precision" | "recall" | "coverage" | "classifier_accuracy" => Some(Margin::Of(0.01)),
        "mse" | "l1" | "prior_bits_per_image" | "entropy_bits_per_image" => Some(Margin::Share(0.01)),
        name if name.ends_with("frechet") => Some(Margin::Share(0.02)),
        _ => None,
    }
}

/// What the registry says of a plain name.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// The plain name.
    pub name: String,
    /// Label for headings and charts, without indices.
    pub label: String,
    /// Unit, or empty; `%` marks a share in [0, 1], which the page shows in percent.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// What it speaks about.
    pub group: Group,
    /// What it may be compared between.
    pub comparable: Comparable,
    /// What it is; empty if the registry does not know it.
    pub definition: &'static str,
    /// What it is not; may be empty.
    pub caution: &'static str,
    /// Below what a difference does not matter; `None` if nothing is known of it.
    pub margin: Option<Margin>,
    /// Row in the registry; unknown names come after it.
    row: usize,
}

impl Measure {
    /// Whether two runs of one trial may differ: times, speeds, memory. Such columns come last in the tables.
    pub fn is_timing(&self) -> bool {
        self.comparable == Comparable::Machine
    }

    /// Whether it is counted from shapes and settings: it has no noise, and seeds do not change it.
    pub fn is_counted(&self) -> bool {
        const COUNTED: [&str; 11] = [
            "protocol_images",
            "protocol_samples",
            "protocol_references",
            "bits_per_image",
            "guidance",
            "parameters",
            "tokenizer_parameters",
            "tokenizer_buffers",
            "prior_parameters",
            "objective_parameters",
            "flops",
        ];
        COUNTED.contains(&self.name.as_str())
    }

    /// Order of the columns: the registry's, with what varies from run to run at the end, and unknown names by letters.
    pub fn order(&self, other: &Self) -> Ordering {
        (self.is_timing(), self.row, &self.name).cmp(&(other.is_timing(), other.row, &other.name))
    }
}

/// The part that is the test images themselves.
pub(crate) const TEST_IMAGES: &str = "test images";
/// The part that all measures on images need.
pub(crate) const DATASET: &str = "dataset";

impl Comparable {
    /// The parts that trials must share ([`crate::Trial::parts`]), with their plurals.
    pub(crate) fn parts(self) -> &'static [(&'static str, &'static str)] {
        const IMAGES: (&str, &str) = (DATASET, "data sets");
        match self {
            Self::Anywhere | Self::Machine => &[],
            Self::Dataset => &[IMAGES],
            Self::Features => {
                &[IMAGES, ("classifier", "feature classifiers"), ("reference", "sets of reference images")]
            }
            Self::Tokenizer => &[IMAGES, ("tokenizer", "tokenizers")],
        }
    }

    /// Within what values compare, in words; `None` if anywhere.
    pub fn words(self) -> Option<&'static str> {
        match self {
            Self::Anywhere => None,
            Self::Dataset => Some("one data set"),
            Self::Features => Some("one data set and one feature classifier"),
            Self::Tokenizer => Some("one tokenizer"),
            Self::Machine => Some("one machine and number of threads"),
        }
    }
}

/// Looks a plain name up. An unknown name is its own label and has no direction; it varies from run to run if it ends in
/// `_seconds`, `_per_second` or `_mib`.
pub fn measure(name: &str) -> Measure {
    if let Some((row, known)) = TABLE.iter().enumerate().find(|(_, known)| known.name == name) {
        return Measure {
            name: name.to_owned(),
            label: known.label.to_owned(),
            unit: known.unit,
            better: known.better,
            group: known.group,
            comparable: known.comparable,
            definition: known.definition,
            caution: known.caution,
            margin: margin(known.name),
            row,
        };
    }
    let varies = ["_seconds", "_per_second", "_mib"].iter().any(|end| name.ends_with(end));
    Measure {
        name: name.to_owned(),
        label: name.replace('_', " "),
        unit: if name.ends_with("_seconds") { "s" } else { "" },
        better: Better::Neither,
        group: Group::Other,
        comparable: if varies { Comparable::Machine } else { Comparable::Anywhere },
        definition: "",
        caution: "",
        margin: None,
        row: TABLE.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_keep_the_registrys_order_with_timings_last() {
        let mut names = ["train_seconds", "zeta", "usage", "images_per_second", "mse", "alpha"];
        names.sort_by(|a, b| measure(a).order(&measure(b)));
        assert_eq!(names, ["mse", "usage", "alpha", "zeta", "images_per_second", "train_seconds"]);
    }

    #[test]
    fn an_unknown_name_is_its_own_label() {
        let unknown = measure("objective_patch_gan");
        assert_eq!((unknown.label.as_str(), unknown.group), ("objective patch gan", Group::Other));
        assert_eq!(unknown.comparable, Comparable::Anywhere);
        assert!(measure("import_seconds").is_timing());
    }
}
