//! What the same pictures give by each protocol, and how far the protocols lie apart.

use std::collections::BTreeSet;

use maud::{Markup, html};

use crate::format;
use crate::measure::{COMMON, Index, Pins, Protocol, Quantity};
use crate::study::{Column, Study};

/// A table of configurations and protocols for each measure that a published protocol was followed for; nothing if none was.
pub(super) fn protocols(study: &Study<'_>) -> Markup {
    let by_protocol: Vec<Column> =
        study.columns().into_iter().filter(|column| column.quantity.protocol().is_some()).collect();
    let followed: BTreeSet<Protocol> = by_protocol.iter().filter_map(|column| column.quantity.protocol()).collect();
    let counts = |column: &&Column| !column.measure.name.starts_with("protocol_");
    let mut measures: Vec<&Column> = by_protocol.iter().filter(counts).collect();
    measures.dedup_by(|a, b| a.measure.name == b.measure.name);
    if followed.is_empty() {
        return html! {};
    }
    html! {
        h3 { "The same pictures by several protocols" }
        p { "Means over seeds. Numbers compare down a column; across a row they are of the same pictures, and their spread is what a \
             change of protocol alone is worth." }
        @for measure in measures {
            @let quantities = quantities(study, &measure.measure.name, &followed);
            table {
                caption { (measure.measure.label) @if !measure.measure.unit.is_empty() { " (" (measure.measure.unit) ")" } }
                thead { tr {
                    th {}
                    @for quantity in &quantities { th scope="col" { (quantity.protocol().map_or("lab", Protocol::name)) } }
                    @if quantities.len() > 1 { th scope="col" { "spread" } }
                } }
                tbody { @for configuration in study.configurations.iter().filter(|one| one.done().next().is_some()) {
                    @let means: Vec<Option<f64>> =
                        quantities.iter().map(|quantity| configuration.mean(quantity).map(|mean| mean.mean)).collect();
                    tr {
                        th scope="row" { (configuration.label) }
                        @for mean in &means { td { (mean.map_or("".to_owned(), |mean| format::significant(mean, 4))) } }
                        @if quantities.len() > 1 { td { (spread(&means).map_or("".to_owned(), |spread| format::significant(spread, 2))) } }
                    }
                } }
            }
        }
        (numbers(study, &followed))
        (pinned(&followed))
    }
}

/// How many images a published number takes.
const PUBLISHED: f64 = 50_000.0;

/// Of how many images the numbers are, beside how many the published ones take.
fn numbers(study: &Study<'_>, followed: &BTreeSet<Protocol>) -> Markup {
    let counted = |measure: &str, protocol: Protocol| {
        let quantity = Quantity::new(measure, [Index::Protocol(protocol)]);
        let counts: BTreeSet<u64> =
            study.results.done().filter_map(|trial| Some(trial.value(&quantity)? as u64)).collect();
        counts.into_iter().map(|count| count as f64).collect::<Vec<_>>()
    };
    let of_published = |counts: Vec<f64>| -> String {
        let words = counts.into_iter().map(|count| match count < PUBLISHED {
            true => format!("{} of {}", format::number(count), format::number(PUBLISHED)),
            false => format::number(count),
        });
        words.collect::<Vec<_>>().join(", or ")
    };
    let all = |counts: Vec<f64>| counts.into_iter().map(format::number).collect::<Vec<_>>().join(", or ");
    html! {
        table {
            caption { "Images that these numbers are of; published ones take 50,000, and all training images as the reference" }
            thead { tr {
                th {}
                th scope="col" { "reconstructions" }
                th scope="col" { "samples" }
                th scope="col" { "training images" }
            } }
            tbody { @for &protocol in followed { tr {
                th scope="row" { code { (protocol.name()) } }
                td { (of_published(counted("protocol_images", protocol))) }
                td { (of_published(counted("protocol_samples", protocol))) }
                td { (all(counted("protocol_references", protocol))) }
            } } }
        }
    }
}

/// What each protocol pins, and what none does.
fn pinned(followed: &BTreeSet<Protocol>) -> Markup {
    let columns: Vec<(&str, Pins)> = std::iter::once(("lab", Pins::LAB))
        .chain(followed.iter().map(|protocol| (protocol.name(), protocol.pins())))
        .collect();
    html! {
        div.scroll {
            table {
                caption { "What each protocol pins" }
                thead { tr { th {} @for (name, _) in &columns { th scope="col" id={ "protocol-" (name) } { code { (name) } } } } }
                tbody { @for (place, (aspect, _)) in Pins::LAB.aspects().iter().enumerate() { tr {
                    th scope="row" { (aspect) }
                    @for (_, pins) in &columns { td.left { (pins.aspects()[place].1) } }
                } } }
            }
        }
        ul { @for line in COMMON { li { (line) } } }
    }
}

/// A measure by the lab's own practice and by each protocol, where it was taken.
fn quantities(study: &Study<'_>, measure: &str, followed: &BTreeSet<Protocol>) -> Vec<Quantity> {
    let by = |protocol: &Protocol| Quantity::new(measure, [Index::Protocol(*protocol)]);
    let all = std::iter::once(Quantity::plain(measure)).chain(followed.iter().map(by));
    all.filter(|quantity| study.has(quantity)).collect()
}

/// The distance between the largest and the smallest; none of fewer than two.
fn spread(means: &[Option<f64>]) -> Option<f64> {
    let known: Vec<f64> = means.iter().flatten().copied().collect();
    let (least, most) = (known.iter().copied().reduce(f64::min)?, known.iter().copied().reduce(f64::max)?);
    (known.len() > 1).then_some(most - least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_between_two_at_least() {
        assert_eq!(spread(&[Some(20.5), None, Some(22.0), Some(21.0)]), Some(1.5));
        assert_eq!(spread(&[None, Some(1.0)]), None);
        assert_eq!(spread(&[]), None);
    }
}
