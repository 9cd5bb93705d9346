//! The table that a paper would have: a row for each configuration, the baseline first with the others' differences from it, in
//! bold what is best beyond doubt. On the page, in Markdown and in LaTeX.

use crate::format::Precision;
use crate::judge::withheld;
use crate::measure::{Better, Measure, Quantity};
use crate::results::Trial;
use crate::stats;
use crate::study::{Column, Configuration, Study};

/// What it shows beside the headline, where it was measured.
const COLUMNS: [&str; 7] =
    ["bits_per_image", "kl_bits_per_image", "psnr", "ssim", "recon_frechet", "prior_bits_per_image", "sample_frechet"];

/// What is told where something is in bold.
pub(crate) const BOLD: &str = "Bold: the best mean of a column, where the 95% interval of its difference from the next best, \
                               paired by seed, excludes zero (of counts: the best).";

/// The table.
pub(crate) struct MainTable {
    /// What it shows and how to read it, in a sentence or two.
    pub(crate) caption: String,
    /// Label and unit of each column.
    pub(crate) columns: Vec<(String, &'static str)>,
    /// The configurations that finished.
    pub(crate) rows: Vec<Row>,
    /// What is to be held against cells that are marked.
    pub(crate) faults: Vec<&'static str>,
}

/// A configuration.
pub(crate) struct Row {
    /// Its axes' values.
    pub(crate) label: String,
    /// The trial that it is linked by.
    pub(crate) id: String,
    /// Whether the others are set against it.
    pub(crate) is_baseline: bool,
    /// A cell for each column; `None` where it was not measured.
    pub(crate) cells: Vec<Option<Cell>>,
}

/// A mean over seeds.
pub(crate) struct Cell {
    /// The mean, and half of its interval.
    pub(crate) value: String,
    /// The difference from the baseline, where it compares.
    pub(crate) difference: Option<String>,
    /// Whether it is the best of its column beyond doubt.
    pub(crate) is_best: bool,
    /// Why no verdict may be drawn from it.
    pub(crate) fault: Option<&'static str>,
}

impl MainTable {
    /// The table of a study; `None` with fewer than two configurations that finished.
    pub(crate) fn of(study: &Study<'_>) -> Option<Self> {
        let finished: Vec<&Configuration<'_>> =
            study.configurations.iter().filter(|configuration| configuration.done().next().is_some()).collect();
        if finished.len() < 2 {
            return None;
        }
        let mut columns = vec![study.headline.clone()];
        let others = COLUMNS.map(Column::plain).into_iter().filter(|column| column.quantity != study.headline.quantity);
        columns.extend(others);
        columns.retain(|column| study.has(&column.quantity));
        columns.sort_by(Column::order);
        let baseline = baseline(study, &finished);
        let mut rows: Vec<Row> = finished
            .iter()
            .map(|configuration| Row {
                label: configuration.label.clone(),
                id: configuration.id().to_owned(),
                is_baseline: baseline.is_some_and(|baseline| std::ptr::eq(baseline, *configuration)),
                cells: columns.iter().map(|column| cell(study, column, configuration, baseline)).collect(),
            })
            .collect();
        rows.sort_by_key(|row| !row.is_baseline);
        let mut faults: Vec<&str> =
            rows.iter().flat_map(|row| row.cells.iter().flatten()).filter_map(|cell| cell.fault).collect();
        faults.sort_unstable();
        faults.dedup();
        let intervals = rows.iter().flat_map(|row| row.cells.iter().flatten()).any(|cell| cell.value.contains('±'));
        let mut caption = format!("Means over {}", seeds(&finished));
        caption.push_str(if intervals { ", ± half of the 95% interval." } else { "." });
        if let Some(baseline) = baseline {
            caption.push_str(&format!(" With the difference from {}, where it compares.", baseline.label));
        }
        if rows.iter().flat_map(|row| row.cells.iter().flatten()).any(|cell| cell.is_best) {
            caption.push_str(&format!(" {BOLD}"));
        }
        let columns = columns.iter().map(|column| (column.label(), column.measure.unit)).collect();
        Some(Self { caption, columns, rows, faults })
    }

    /// As a table of Markdown.
    pub(crate) fn markdown(&self) -> String {
        let escape = |text: &str| text.replace('|', "\\|").replace('*', "\\*");
        let mut lines = vec![format!(
            "| configuration | {} |",
            self.heads().map(|head| escape(&head)).collect::<Vec<_>>().join(" | ")
        )];
        lines.push(format!("|---|{}", "---:|".repeat(self.columns.len())));
        for row in &self.rows {
            let cells =
                row.cells.iter().map(|cell| cell.as_ref().map_or(String::new(), |cell| cell.written("**", "**")));
            lines.push(format!("| {} | {} |", escape(&row.label), cells.collect::<Vec<_>>().join(" | ")));
        }
        lines.extend([String::new(), escape(&self.caption)]);
        lines.extend(self.footnote().map(|note| format!("\n{note}")));
        lines.join("\n") + "\n"
    }

    /// As a table of LaTeX, with the rules of booktabs.
    pub(crate) fn latex(&self) -> String {
        let mut lines = vec![
            "% \\usepackage{booktabs}".to_owned(),
            "\\begin{table}".to_owned(),
            "\\centering".to_owned(),
            format!(
                "\\caption{{{}}}",
                latex(
                    &[Some(self.caption.clone()), self.footnote()].into_iter().flatten().collect::<Vec<_>>().join(" ")
                )
            ),
            format!("\\begin{{tabular}}{{l{}}}", "r".repeat(self.columns.len())),
            "\\toprule".to_owned(),
            format!(" & {} \\\\", self.heads().map(|head| latex(&head)).collect::<Vec<_>>().join(" & ")),
            "\\midrule".to_owned(),
        ];
        for row in &self.rows {
            let cells = row.cells.iter().map(|cell| {
                cell.as_ref().map_or(String::new(), |cell| {
                    let (value, rest) = (latex(&cell.value), latex(&cell.rest()));
                    if cell.is_best { format!("\\textbf{{{value}}}{rest}") } else { format!("{value}{rest}") }
                })
            });
            lines.push(format!("{} & {} \\\\", latex(&row.label), cells.collect::<Vec<_>>().join(" & ")));
        }
        lines.extend(["\\bottomrule", "\\end{tabular}", "\\end{table}"].map(str::to_owned));
        lines.join("\n") + "\n"
    }

    /// Labels with their units.
    fn heads(&self) -> impl Iterator<Item = String> {
        self.columns.iter().map(|(label, unit)| match *unit {
            "" | "s" | "codes" => label.clone(),
            unit => format!("{label} ({unit})"),
        })
    }

    /// What marked cells are marked for.
    fn footnote(&self) -> Option<String> {
        (!self.faults.is_empty()).then(|| format!("† No verdict may be drawn: {}.", self.faults.join("; ")))
    }
}

impl Cell {
    fn written(&self, begin: &str, end: &str) -> String {
        if self.is_best {
            format!("{begin}{}{end}{}", self.value, self.rest())
        } else {
            format!("{}{}", self.value, self.rest())
        }
    }

    /// What follows the value.
    fn rest(&self) -> String {
        let mark = if self.fault.is_some() { "†" } else { "" };
        let difference = self.difference.as_ref().map(|difference| format!(" ({difference})")).unwrap_or_default();
        format!("{mark}{difference}")
    }
}

/// The configuration with the first value of each axis that varies; without one, the first that finished.
fn baseline<'a, 'b>(study: &Study<'_>, finished: &[&'a Configuration<'b>]) -> Option<&'a Configuration<'b>> {
    let is_first = |configuration: &&&Configuration<'_>| {
        study.varied.iter().all(|&axis| {
            configuration.key[axis].is_none_or(|value| Some(value) == study.results.axes[axis].values.first())
        })
    };
    finished.iter().find(is_first).or(finished.first()).copied()
}

fn seeds(finished: &[&Configuration<'_>]) -> String {
    let counts = finished.iter().map(|configuration| configuration.done().count());
    match (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0)) {
        (1, 1) => "one seed".to_owned(),
        (low, high) if low == high => format!("{high} seeds"),
        (low, high) => format!("{low} to {high} seeds"),
    }
}

fn cell(
    study: &Study<'_>,
    column: &Column,
    configuration: &Configuration<'_>,
    baseline: Option<&Configuration<'_>>,
) -> Option<Cell> {
    let found = configuration.mean(&column.quantity)?;
    let precision = precision(study, column);
    let value = precision.estimate(&column.measure, &found);
    let fault = study.unsound(configuration, &column.measure);
    let difference = baseline
        .filter(|baseline| !std::ptr::eq(*baseline, configuration) && fault.is_none())
        .filter(|baseline| study.unsound(baseline, &column.measure).is_none())
        .and_then(|baseline| difference(baseline, configuration, column, precision));
    Some(Cell { value, difference, is_best: is_best(study, column, configuration), fault })
}

/// The mean of a configuration less that of the baseline, over the seeds that both have; `None` where it does not compare.
fn difference(
    baseline: &Configuration<'_>,
    configuration: &Configuration<'_>,
    column: &Column,
    precision: Precision,
) -> Option<String> {
    let partner = |trial: &Trial| baseline.trials.iter().copied().find(|other| other.seed == trial.seed);
    let pairs: Vec<(&Trial, &Trial)> =
        configuration.done().filter_map(|trial| Some((partner(trial)?, trial))).collect();
    if pairs.is_empty() || withheld(column, &pairs).is_some() {
        return None;
    }
    let differences: Vec<f64> =
        pairs.iter().filter_map(|(before, after)| differ(&column.quantity, before, after)).collect();
    let mean = differences.iter().sum::<f64>() / differences.len() as f64;
    let text = precision.bare(&column.measure, mean);
    // Of no seed the mean is no number; equal counts need no words.
    let untold = mean.is_nan() || column.measure.is_counted() && mean == 0.0;
    (!untold).then(|| if mean > 0.0 { format!("+{text}") } else { text })
}

fn differ(of: &Quantity, before: &Trial, after: &Trial) -> Option<f64> {
    Some(after.value(of)? - before.value(of)?)
}

/// The one precision of a measure's cells.
pub(crate) fn precision(study: &Study<'_>, column: &Column) -> Precision {
    let means = study.configurations.iter().filter_map(|configuration| configuration.mean(&column.quantity));
    Precision::of(&column.measure, means)
}

/// Whether a configuration is the best of a measure that has a better side, by a difference from the next best that is more than
/// seeds make: its interval, paired by seed, excludes zero. Counts are what they are. Of what
/// does not compare between all configurations, and of what is not sound, nothing is the best.
pub(crate) fn is_best(study: &Study<'_>, column: &Column, configuration: &Configuration<'_>) -> bool {
    let Measure { better, .. } = column.measure;
    let sign = match better {
        Better::Higher => 1.0,
        Better::Lower => -1.0,
        Better::Neither => return false,
    };
    let of = &column.quantity;
    let measured = || study.configurations.iter().filter(|other| other.mean(of).is_some());
    let trials: Vec<&Trial> = measured().filter_map(|configuration| configuration.done().next()).collect();
    let beside_the_first: Vec<(&Trial, &Trial)> = trials.iter().skip(1).map(|other| (trials[0], *other)).collect();
    if withheld(column, &beside_the_first).is_some() {
        return false;
    }
    let sound = measured().filter(|configuration| study.unsound(configuration, &column.measure).is_none());
    let mut ranked: Vec<(f64, &Configuration<'_>)> =
        sound.filter_map(|other| Some((sign * other.mean(of)?.mean, other))).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let [(first, best), (second, next), ..] = ranked[..] else { return false };
    if !std::ptr::eq(best, configuration) || first <= second {
        return false;
    }
    if column.measure.is_counted() {
        return true;
    }
    let partner = |trial: &Trial| next.done().find(|other| other.seed == trial.seed);
    let differences: Vec<f64> = best.done().filter_map(|trial| differ(of, partner(trial)?, trial)).collect();
    stats::mean(&differences).and_then(|difference| difference.excludes_zero()).unwrap_or(false)
}

/// Text as LaTeX writes it.
fn latex(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '%' | '&' | '#' | '$' | '_' | '{' | '}' => out.extend(['\\', letter]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '±' => out.push_str("$\\pm$"),
            '\u{2212}' => out.push_str("$-$"),
            '×' => out.push_str("$\\times$"),
            '→' => out.push_str("$\\to$"),
            '†' => out.push_str("$^\\dagger$"),
            '²' => out.push_str("$^2$"),
            'é' => out.push_str("\\'e"),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Index, Reading};
    use crate::results::{Axis, Results, Status};

    /// Depths 1 and 4 with three seeds each; at depth 4 the codebook may have collapsed.
    fn results(perplexity: f64) -> Results {
        let trial = |depth: i64, seed: u64, psnr: f64| Trial {
            id: format!("{depth}{seed}"),
            axes: [("quantizer.depth".to_owned(), depth.into())].into(),
            seed: Some(seed),
            status: Status::Done,
            configuration: depth.to_string(),
            readings: vec![
                Reading::new("psnr", [], psnr),
                Reading::new("bits_per_image", [], 384.0 * depth as f64),
                Reading::new("perplexity", [Index::Depth(1)], if depth == 4 { perplexity } else { 60.0 }),
            ],
            ..Trial::default()
        };
        let values = [(4, 0, 21.0), (4, 1, 21.5), (4, 2, 22.0), (1, 0, 19.0), (1, 1, 19.5), (1, 2, 20.0)];
        Results {
            axes: vec![Axis {
                path: "quantizer.depth".to_owned(),
                label: String::new(),
                values: vec![1_i64.into(), 4_i64.into()],
            }],
            trials: values.map(|(depth, seed, psnr)| trial(depth, seed, psnr)).into(),
            ..Results::default()
        }
    }

    #[test]
    fn the_baseline_comes_first_and_the_others_differ_from_it() {
        let results = results(60.0);
        let table = MainTable::of(&Study::new(&results)).map(|table| (table.markdown(), table.latex()));
        let (markdown, latex) = table.unwrap_or_default();
        assert_eq!(
            markdown,
            "| configuration | PSNR (dB) | nominal bits per image (bits) |\n|---|---:|---:|\n\
             | depth 1 | 19.50 ± 1.24 | **384** |\n| depth 4 | **21.50 ± 1.24** (+2.00) | 1536 (+1152) |\n\n\
             Means over 3 seeds, ± half of the 95% interval. With the difference from depth 1, where it compares. \
             Bold: the best mean of a column, where the 95% interval of its difference from the next best, paired by seed, excludes \
             zero (of counts: the best).\n"
        );
        for line in [
            "\\begin{tabular}{lrr}",
            "depth 1 & 19.50 $\\pm$ 1.24 & \\textbf{384} \\\\",
            "depth 4 & \\textbf{21.50 $\\pm$ 1.24} (+2.00) & 1536 (+1152) \\\\",
            "\\caption{Means over 3 seeds, $\\pm$ half of the 95\\% interval. With the difference from depth 1, where it compares. \
             Bold: the best mean of a column, where the 95\\% interval of its difference from the next best, paired by seed, excludes \
             zero (of counts: the best).}",
        ] {
            assert!(latex.lines().any(|found| found == line), "{line}\n{latex}");
        }
    }

    #[test]
    fn what_is_not_sound_is_marked_and_neither_best_nor_different() {
        let results = results(1.0);
        let table = MainTable::of(&Study::new(&results));
        let text = table.map(|table| table.markdown()).unwrap_or_default();
        assert!(text.contains("| depth 4 | 21.50 ± 1.24† | 1536 (+1152) |"), "{text}");
        assert!(text.contains("† No verdict may be drawn: A codebook has collapsed."), "{text}");
    }

    #[test]
    fn what_seeds_do_not_show_is_not_bold() {
        let mut results = results(60.0);
        // Seed by seed the difference is 0.1, 3.0 and -0.7.
        for (trial, psnr) in results.trials.iter_mut().zip([19.1, 22.5, 19.3]) {
            trial.readings[0].value = psnr;
        }
        let markdown =
            |results: &Results| MainTable::of(&Study::new(results)).map(|table| table.markdown()).unwrap_or_default();
        assert!(!markdown(&results).contains("**2"), "{}", markdown(&results));
        assert!(markdown(&results).contains("**384**") && markdown(&results).contains("Bold: "));
        // One seed has no interval; equal counts have no best.
        results.trials.retain(|trial| trial.seed == Some(0));
        results.trials.iter_mut().for_each(|trial| trial.readings[1].value = 384.0);
        let one = markdown(&results);
        assert!(!one.contains("**") && !one.contains("Bold"), "{one}");
    }
}
