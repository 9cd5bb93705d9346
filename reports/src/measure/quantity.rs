//! A measure at its indices: what is read, drawn and put into columns.
//!
//! Names such as `level1_usage_2` are derived from the measure and its indices here, and nowhere else. The tables and the
//! page are written with them and never read back; only a person's experiment file is read, by [`super::written`].

use serde::{Deserialize, Serialize};
use std::fmt;

use super::{Measure, Protocol, measure};
use crate::format;

/// One coordinate of a measure that is taken several times in a trial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Index {
    /// A level of the autoencoder, counted from 1; left out where there is one level only.
    Level(usize),
    /// A depth of the residual quantizer, counted from 1.
    Depth(usize),
    /// Images in a batch.
    Batch(usize),
    /// Whether sampling keeps a key-value cache.
    Cache(bool),
    /// Which of several sampling seeds images were drawn with, counted from 1. A reading without it is the mean over them.
    Draw(usize),
    /// Whose practice it follows; the lab's own without.
    Protocol(Protocol),
    /// The guidance scale that samples were drawn with, where several were tried.
    Guidance(Scale),
    /// One of what captions name, such as a shape, by its name.
    Attribute(String),
}

/// A guidance scale, in thousandths, so that equal ones are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scale(u32);

impl Scale {
    /// That nearest to a number from 0 on.
    pub fn of(scale: f32) -> Self {
        Self((f64::from(scale) * 1000.0).round() as u32)
    }

    /// The number.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

/// A measure at its indices, such as the codebook usage of level 1 at depth 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Quantity {
    /// Plain name of the measure, such as `usage`; [`crate::measure()`] tells what it means.
    pub measure: String,
    /// Its indices, ascending: levels before depths before batch sizes; [`Quantity::new`] sorts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<Index>,
}

/// The value of a measure at its indices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Plain name of the measure, such as `usage`; [`crate::measure()`] tells what it means.
    pub measure: String,
    /// Its indices, ascending: levels before depths before batch sizes; [`Reading::new`] sorts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<Index>,
    /// The number, in the measure's unit; a share in [0, 1].
    pub value: f64,
}

impl Reading {
    /// A reading; the indices may come in any order.
    pub fn new(measure: impl Into<String>, at: impl IntoIterator<Item = Index>, value: f64) -> Self {
        let Quantity { measure, at } = Quantity::new(measure, at);
        Self { measure, at, value }
    }

    /// What was read, without its value.
    pub fn quantity(&self) -> Quantity {
        Quantity::new(self.measure.clone(), self.at.iter().cloned())
    }

    /// The value as tables show it: with its unit, and the digits that say something.
    pub fn shown(&self) -> String {
        format::value(&self.quantity().measure(), self.value)
    }
}

impl Quantity {
    /// A measure at its indices, which may come in any order.
    pub fn new(measure: impl Into<String>, at: impl IntoIterator<Item = Index>) -> Self {
        let mut at: Vec<Index> = at.into_iter().collect();
        at.sort_unstable();
        Self { measure: measure.into(), at }
    }

    /// A measure that is taken once in a trial.
    pub fn plain(measure: impl Into<String>) -> Self {
        Self::new(measure, [])
    }

    /// Whether it is this measure at these indices, in whatever order they stand.
    pub fn is(&self, measure: &str, at: &[Index]) -> bool {
        self.measure == measure
            && self.at.len() == at.len()
            && (self.at == at || *self == Self::new(measure, at.iter().cloned()))
    }

    /// The level, where there are several.
    pub fn level(&self) -> Option<usize> {
        self.at.iter().find_map(|index| if let Index::Level(level) = index { Some(*level) } else { None })
    }

    /// The depths: none, one, or the two that are compared.
    pub fn depths(&self) -> impl Iterator<Item = usize> {
        self.at.iter().filter_map(|index| if let Index::Depth(depth) = index { Some(*depth) } else { None })
    }

    /// Images in a batch.
    pub fn batch(&self) -> Option<usize> {
        self.at.iter().find_map(|index| if let Index::Batch(batch) = index { Some(*batch) } else { None })
    }

    /// Whether sampling keeps a key-value cache.
    pub fn cache(&self) -> Option<bool> {
        self.at.iter().find_map(|index| if let Index::Cache(cache) = index { Some(*cache) } else { None })
    }

    /// Which of several sampling seeds images were drawn with.
    pub fn draw(&self) -> Option<usize> {
        self.at.iter().find_map(|index| if let Index::Draw(draw) = index { Some(*draw) } else { None })
    }

    /// Whose practice it follows; none for the lab's own.
    pub fn protocol(&self) -> Option<Protocol> {
        self.at.iter().find_map(|index| if let Index::Protocol(protocol) = index { Some(*protocol) } else { None })
    }

    /// The guidance scale that was tried.
    pub fn guidance(&self) -> Option<Scale> {
        self.at.iter().find_map(|index| if let Index::Guidance(scale) = index { Some(*scale) } else { None })
    }

    /// What of that which captions name; none for all of it.
    pub fn attribute(&self) -> Option<&str> {
        self.at.iter().find_map(|index| if let Index::Attribute(name) = index { Some(name.as_str()) } else { None })
    }

    /// What the registry says of the measure.
    pub fn measure(&self) -> Measure {
        measure(&self.measure)
    }

    /// Label for headings and charts, such as `codebook usage (level 1, depth 2)`.
    pub fn label(&self) -> String {
        let label = self.measure().label;
        if self.at.is_empty() { label } else { format!("{label} ({})", self.indices()) }
    }

    /// The indices in words, such as `level 1, depth 2`; empty without any.
    pub fn indices(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.level().map(|level| format!("level {level}")));
        let depths: Vec<String> = self.depths().map(|depth| depth.to_string()).collect();
        match &depths[..] {
            [] => {}
            [depth] => words.push(format!("depth {depth}")),
            depths => words.push(format!("depths {}", depths.join(" and "))),
        }
        words.extend(self.batch().map(|batch| format!("batch {batch}")));
        words.extend(self.cache().map(|cache| if cache { "with cache" } else { "without cache" }.to_owned()));
        words.extend(self.draw().map(|draw| format!("draw {draw}")));
        words.extend(self.protocol().map(|protocol| format!("protocol {}", protocol.name())));
        words.extend(self.guidance().map(|scale| format!("guidance {}", scale.value())));
        words.extend(self.attribute().map(str::to_owned));
        words.join(", ")
    }
}

/// The name of its column: `usage`, `usage_2`, `level1_usage_2`, `code_overlap_1_2`, `images_per_second_b64_cache`.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(level) = self.level() {
            write!(f, "level{level}_")?;
        }
        f.write_str(&self.measure)?;
        for depth in self.depths() {
            write!(f, "_{depth}")?;
        }
        if let Some(batch) = self.batch() {
            write!(f, "_b{batch}")?;
        }
        match self.cache() {
            Some(true) => f.write_str("_cache")?,
            Some(false) => f.write_str("_nocache")?,
            None => {}
        }
        if let Some(draw) = self.draw() {
            write!(f, "_draw{draw}")?;
        }
        if let Some(protocol) = self.protocol() {
            write!(f, "_{}", protocol.name())?;
        }
        if let Some(scale) = self.guidance() {
            write!(f, "_g{}", scale.value())?;
        }
        match self.attribute() {
            Some(name) => write!(f, "_{}", name.replace(|c: char| !c.is_alphanumeric(), "_")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_tell_the_indices() {
        for (measure, at, label) in [
            ("psnr", vec![], "PSNR"),
            ("usage", vec![Index::Depth(2)], "codebook usage (depth 2)"),
            ("usage", vec![Index::Depth(2), Index::Level(1)], "codebook usage (level 1, depth 2)"),
            ("usage", vec![Index::Level(1)], "codebook usage (level 1)"),
            ("code_overlap", vec![Index::Depth(3), Index::Depth(1)], "code overlap (depths 1 and 3)"),
            ("images_per_second", vec![Index::Cache(true), Index::Batch(64)], "sampling speed (batch 64, with cache)"),
            ("psnr", vec![Index::Protocol(Protocol::Llamagen)], "PSNR (protocol llamagen)"),
            ("sample_frechet", vec![Index::Draw(2)], "sample Fréchet distance (draw 2)"),
            (
                "tuning_frechet",
                vec![Index::Guidance(Scale::of(1.1))],
                "Fréchet distance in tuning guidance (guidance 1.1)",
            ),
            ("caption_accuracy", vec![Index::Attribute("size law".to_owned())], "caption accuracy (size law)"),
            ("objective_lpips", vec![Index::Level(2)], "objective lpips (level 2)"),
        ] {
            assert_eq!(Quantity::new(measure, at).label(), label);
        }
    }

    #[test]
    fn a_column_has_a_name_of_one_word() {
        let of = |at| Quantity::new("caption_accuracy", at).to_string();
        assert_eq!(of(vec![Index::Attribute("size law".to_owned())]), "caption_accuracy_size_law");
        assert_eq!(of(vec![Index::Draw(2), Index::Attribute("shape".to_owned())]), "caption_accuracy_draw2_shape");
    }

    #[test]
    fn the_order_of_indices_does_not_matter() {
        let found = Quantity::new("usage", [Index::Depth(2), Index::Level(1)]);
        assert_eq!(found.at, [Index::Level(1), Index::Depth(2)]);
        assert!(found.is("usage", &[Index::Depth(2), Index::Level(1)]));
        assert!(!found.is("usage", &[Index::Depth(1), Index::Level(2)]));
        assert!(!found.is("usage", &[Index::Depth(2)]));
        assert!(!found.is("entropy", &[Index::Level(1), Index::Depth(2)]));
    }
}
