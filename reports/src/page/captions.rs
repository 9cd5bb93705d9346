//! Whether samples obey their captions, attribute by attribute.

use maud::{Markup, html};

use super::parts::{Drawn, configuration_key, figure, lines_over};
use crate::chart::{Chart, Scale};
use crate::error::Result;
use crate::format;
use crate::measure::{Index, Quantity};
use crate::study::{Column, Study};

/// What is drawn for each configuration: the measure, what its line is called beside the configuration, and its dash.
const LINES: [(&str, &str, usize); 3] = [
    ("caption_accuracy", "", 0),
    ("real_caption_accuracy", ", test images", 1),
    ("shuffled_caption_accuracy", ", shuffled captions", 2),
];

/// The accuracy of each attribute, between that of test images and that under shuffled captions.
pub(super) fn by_attribute(study: &Study<'_>) -> Result<Option<Markup>> {
    let columns = study.taken("caption_accuracy");
    let mut attributes: Vec<String> =
        columns.iter().filter_map(|c| c.quantity.attribute().map(str::to_owned)).collect();
    attributes.dedup();
    let accuracy = Column::plain("caption_accuracy");
    let of = |name: &&str, attribute: &String| Quantity::new(*name, [Index::Attribute(attribute.clone())]);
    let (series, mut shown) = lines_over(study, &LINES, &attributes, of);
    if series.is_empty() {
        return Ok(None);
    }
    let chart = Chart {
        id: "fig-attributes".to_owned(),
        title: "Caption accuracy by attribute".to_owned(),
        description:
            "Share of captions whose attribute the classifier finds in the image, one place for each attribute."
                .to_owned(),
        x: Scale::names("attribute", attributes),
        y: Scale { zero: true, factor: format::scale(&accuracy.measure), ..Scale::linear(accuracy.axis_label()) },
        series,
        wide: false,
    };
    let caption = html! {
        "Caption accuracy of each attribute that captions name, means over seeds. Full lines: samples. Dashed lines: test images under \
         their own captions, the ceiling, and below them samples under each other's, the floor."
    };
    shown.dedup_by_key(|configuration| std::ptr::from_ref(*configuration));
    figure(&chart, caption, configuration_key(study, &shown, Drawn::Marks)).map(Some)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::measure::Reading;
    use crate::results::{Results, Status, Trial};

    #[test]
    fn every_attribute_has_its_place_between_ceiling_and_floor() {
        let trial = |readings: Vec<Reading>| Trial {
            id: "a".into(),
            seed: Some(0),
            status: Status::Done,
            readings,
            ..Trial::default()
        };
        let of = |measure: &str, name: &str, value| Reading::new(measure, [Index::Attribute(name.to_owned())], value);
        let readings = vec![
            Reading::new("caption_accuracy", [], 0.6),
            of("caption_accuracy", "shape", 0.8),
            of("caption_accuracy", "size law", 0.4),
            of("real_caption_accuracy", "shape", 0.95),
            of("shuffled_caption_accuracy", "shape", 0.25),
        ];
        let results = Results { trials: vec![trial(readings)], ..Results::default() };
        let drawn = by_attribute(&Study::new(&results)).unwrap().unwrap().into_string();
        for part in ["size law", "80", "40", "95", "25", "test images", "shuffled captions"] {
            assert!(drawn.contains(part), "no {part} in {drawn}");
        }
        let none =
            Results { trials: vec![trial(vec![Reading::new("caption_accuracy", [], 0.6)])], ..Results::default() };
        assert!(by_attribute(&Study::new(&none)).unwrap().is_none());
    }
}
