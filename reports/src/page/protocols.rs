//! What the same pictures give by each protocol, and how far the protocols lie apart.

use std::collections::BTreeSet;

use maud::{Markup, html};

use crate::format;
use crate::measure::{Index, Protocol, Quantity};
use crate::study::{Column, Study};

/// A table of configurations and protocols for each measure that a published protocol was followed for; nothing if none was.
pub(super) fn protocols(study: &Study<'_>) -> Markup {
    let by_protocol: Vec<Column> =
        study.columns().into_iter().filter(|column| column.quantity.protocol().is_some()).collect();
    let followed: BTreeSet<Protocol> = by_protocol.iter().filter_map(|column| column.quantity.protocol()).collect();
    let mut measures: Vec<&Column> = by_protocol.iter().collect();
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
        dl.definitions {
            @for protocol in &followed {
                dt id={ "protocol-" (protocol.name()) } { "protocol " code { (protocol.name()) } }
                dd { (protocol.definition()) }
            }
        }
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
