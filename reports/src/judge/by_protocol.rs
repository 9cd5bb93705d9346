//! Numbers of a published protocol compare at equal numbers of images, and by one network.

use crate::format;
use crate::measure::{Group, Index, Quantity};
use crate::results::Trial;
use crate::study::Column;

/// Why a protocol's measure does not compare between the two sides of pairs; empty if it does, or is no protocol's.
pub(super) fn reasons(column: &Column, pairs: &[(&Trial, &Trial)]) -> Vec<String> {
    let Some(protocol) = column.quantity.protocol() else { return Vec::new() };
    let (of, counts): (_, &[&str]) = match column.measure.group {
        Group::Reconstruction => ("reconstructions", &["protocol_images"]),
        Group::Prior => ("samples", &["protocol_samples", "protocol_references"]),
        _ => return Vec::new(),
    };
    let label = format::capitalized(&column.label());
    let network = format!("{} networks of {of}", protocol.name());
    let other_network = pairs.iter().any(|(before, after)| before.parts.get(&network) != after.parts.get(&network));
    let weights = other_network
        .then(|| format!("{label} compares by one network only, and the two sides have different weights."));
    let number = |count: &str| {
        let count = Quantity::new(count, [Index::Protocol(protocol)]);
        let (before, after) = pairs.iter().find(|(before, after)| before.value(&count) != after.value(&count))?;
        let of = |trial: &Trial| trial.value(&count).map_or("none".to_owned(), format::number);
        Some(format!(
            "{label} depends on the number of {}, and the two sides have {} and {}.",
            count.measure().label,
            of(before),
            of(after)
        ))
    };
    weights.into_iter().chain(counts.iter().filter_map(|count| number(count))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Protocol, Reading};

    fn trial(samples: f64, network: &str) -> Trial {
        let at = [Index::Protocol(Protocol::Adm)];
        let mut trial = Trial {
            readings: vec![
                Reading::new("protocol_samples", at.clone(), samples),
                Reading::new("protocol_references", at, 1000.0),
            ],
            ..Trial::default()
        };
        trial.parts.insert("adm networks of samples".to_owned(), network.to_owned());
        trial
    }

    #[test]
    fn distances_compare_at_equal_numbers_and_by_one_network() {
        let column = Column::of(Quantity::new("gfid", [Index::Protocol(Protocol::Adm)]));
        let against = |samples, network| reasons(&column, &[(&trial(500.0, "a"), &trial(samples, network))]);
        assert!(against(500.0, "a").is_empty());
        let number = against(50_000.0, "a");
        assert!(
            number.len() == 1 && number[0].contains("samples measured, and the two sides have 500 and 50"),
            "{number:?}"
        );
        let network = against(500.0, "b");
        assert!(network.len() == 1 && network[0].contains("different weights"), "{network:?}");
        // The lab's own are told apart elsewhere.
        assert!(reasons(&Column::plain("precision"), &[(&trial(1.0, "a"), &trial(2.0, "b"))]).is_empty());
    }
}
