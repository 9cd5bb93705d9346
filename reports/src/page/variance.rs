//! How much of the spread of samples' measures comes from training again, and how much from drawing again.

use maud::{Markup, html};

use crate::format;
use crate::measure::{Group, Index, Quantity};
use crate::stats::{self, Components};
use crate::study::{Configuration, Study};

/// A table of both parts for every measure that was taken of several draws; nothing without one.
pub(super) fn variance(study: &Study<'_>) -> Markup {
    let mut rows = Vec::new();
    for column in study.group(Group::Prior) {
        for configuration in &study.configurations {
            if let Some(found) = split(configuration, &column.quantity) {
                rows.push((configuration.label.as_str(), column.clone(), found));
            }
        }
    }
    html! {
        @if !rows.is_empty() {
            div.scroll {
                table.measures {
                    caption { "What samples' measures vary by: standard deviations" }
                    thead { tr {
                        th scope="col" { "configuration" } th scope="col" { "measure" }
                        th scope="col" { "training again" } th scope="col" { "drawing again" } th scope="col" { "seeds × draws" }
                    } }
                    tbody {
                        @for (label, column, found) in &rows {
                            tr {
                                th scope="row" { (label) }
                                td { (column.label()) }
                                td.n { (format::amount(&column.measure, found.between.sqrt())) }
                                td.n { (format::amount(&column.measure, found.within.sqrt())) }
                                td.n { (found.groups) " × " (found.each) }
                            }
                        }
                    }
                }
            }
            p.note {
                "Estimated by a one-way analysis of variance with random effects; a part that comes out negative is shown as 0. Drawing \
                 more images or more often makes the second part smaller, and only more training seeds the first."
            }
        }
    }
}

/// The parts of a quantity's variance over a configuration's seeds and draws.
fn split(configuration: &Configuration<'_>, quantity: &Quantity) -> Option<Components> {
    let of_draw =
        |draw: usize| Quantity::new(quantity.measure.clone(), quantity.at.iter().cloned().chain([Index::Draw(draw)]));
    let draws: Vec<Vec<f64>> =
        configuration.done().map(|trial| (1..).map_while(|draw| trial.value(&of_draw(draw))).collect()).collect();
    stats::nested(&draws)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::measure::Reading;
    use crate::results::{Results, Status, Trial};

    #[test]
    fn draws_of_a_trained_prior_and_trained_priors_are_told_apart() {
        // Two priors, of which two sets of samples each were drawn: 10 and 12, 20 and 22.
        let trial = |seed: u64, draws: [f64; 2]| Trial {
            id: seed.to_string(),
            seed: Some(seed),
            status: Status::Done,
            readings: (1..)
                .zip(draws)
                .map(|(draw, value)| Reading::new("sample_frechet", [Index::Draw(draw)], value))
                .chain([Reading::new("sample_frechet", [], draws.iter().sum::<f64>() / 2.0)])
                .collect(),
            ..Trial::default()
        };
        let results = Results { trials: vec![trial(0, [10.0, 12.0]), trial(1, [20.0, 22.0])], ..Results::default() };
        let study = Study::new(&results);
        let found = split(&study.configurations[0], &Quantity::plain("sample_frechet")).unwrap();
        // Mean squares 100 and 2: (100 - 2) / 2 and 2.
        assert_eq!((found.between, found.within, found.groups, found.each), (49.0, 2.0, 2, 2));
        let page = variance(&study).into_string();
        assert!(page.contains("<td class=\"n\">7</td><td class=\"n\">1.4</td><td class=\"n\">2 × 2</td>"), "{page}");
    }
}
