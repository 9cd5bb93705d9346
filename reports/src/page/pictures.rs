//! Section 7: the same images through every tokenizer, and what the priors draw.

use maud::{Markup, html};

use crate::error::Result;
use crate::format;
use crate::picture::{Album, code_map, error_map, errors, squared_error};
use crate::results::{Example, Image, Sample, Trial};
use crate::study::{Configuration, Study};

use super::parts::nothing;

/// Bytes of pictures in the page; the rest of its 5 MB is for charts and tables.
const BUDGET: usize = 3_000_000;

/// Columns beside the original; more configurations than that are thinned evenly.
const COLUMNS: usize = 12;

/// Test images in the comparison.
const ROWS: usize = 6;

/// Samples of one label.
const SAMPLES: usize = 8;

/// Labels, such as classes, and configurations whose samples are shown.
const LABELS: usize = 10;
const SAMPLED: usize = 8;

/// A configuration with the trial that stands for it.
type Shown<'a, 'b> = (&'a Configuration<'b>, &'a Trial);

/// Section 7.
pub(super) fn pictures(study: &Study<'_>) -> Result<Markup> {
    let tokenizers = &study.of_tokenizers();
    let with_examples = shown(tokenizers, |trial| !trial.examples.is_empty());
    let with_samples = shown(study, |trial| !trial.samples.is_empty());
    if with_examples.is_empty() && with_samples.is_empty() {
        return Ok(nothing("No trial left pictures."));
    }
    let mut album = Album::new(BUDGET);
    let picked = pick(&with_examples);
    let comparison = comparison(tokenizers, &thin(with_examples.clone(), COLUMNS), &picked, &mut album)?;
    let single = progressive(tokenizers, &with_examples, &picked, false, &mut album)?;
    let several = progressive(tokenizers, &with_examples, &picked, true, &mut album)?;
    let with_copies = shown(study, |trial| !trial.copies.is_empty());
    let copies = copies(&thin(with_copies.clone(), SAMPLED), with_copies.len(), &mut album)?;
    let samples = samples(&thin(with_samples.clone(), SAMPLED), with_samples.len(), &mut album)?;
    Ok(html! {
        (comparison)
        (single)
        (several)
        (samples)
        (copies)
        @if album.left_out > 0 {
            p.note { (album.left_out) " pictures were left out to keep the page small." }
        }
    })
}

/// One trial for each configuration that has pictures, all of one seed as far as possible.
fn shown<'a, 'b>(study: &'a Study<'b>, has: impl Fn(&Trial) -> bool) -> Vec<Shown<'a, 'b>> {
    let seed = study.results.done().find(|trial| has(trial)).and_then(|trial| trial.seed);
    study
        .configurations
        .iter()
        .filter_map(|configuration| {
            let mut done = configuration
                .trials
                .iter()
                .copied()
                .filter(|trial| study.results.done().any(|t| std::ptr::eq(t, *trial)));
            let fitting: Vec<&Trial> = done.by_ref().filter(|trial| has(trial)).collect();
            let same = fitting.iter().copied().find(|trial| trial.seed == seed);
            Some((configuration, same.or_else(|| fitting.first().copied())?))
        })
        .collect()
}

/// At most so many, evenly spread, the first and the last among them.
fn thin<T: Clone>(items: Vec<T>, most: usize) -> Vec<T> {
    if items.len() <= most {
        return items;
    }
    (0..most).map(|place| items[place * (items.len() - 1) / (most - 1)].clone()).collect()
}

fn error(example: &Example) -> Option<f64> {
    squared_error(&example.original, example.reconstructions.last()?)
}

/// Places of the images to show with what they are: best, median and worst by the mean error over configurations, then
/// the first of the others.
fn pick(shown: &[Shown<'_, '_>]) -> Vec<(usize, &'static str)> {
    let count = shown.iter().map(|(_, trial)| trial.examples.len()).min().unwrap_or(0);
    let mean = |place: usize| shown.iter().filter_map(|(_, trial)| error(&trial.examples[place])).sum::<f64>();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| mean(*a).total_cmp(&mean(*b)));
    let mut picked: Vec<(usize, &'static str)> = Vec::new();
    if count >= 3 {
        picked = vec![(order[0], "best"), (order[count / 2], "median"), (order[count - 1], "worst")];
    }
    for place in 0..count {
        if picked.len() < ROWS && !picked.iter().any(|(other, _)| *other == place) {
            picked.push((place, ""));
        }
    }
    picked
}

fn picture(album: &mut Album, image: &Image, alt: &str) -> Result<Markup> {
    // Small pictures keep their pixels apart; large ones are smoothed.
    let small = image.width.max(image.height) <= 64;
    Ok(match album.address(image)? {
        Some(address) => html! { img.pixels[small] src=(address) alt=(alt) width="96" height="96" loading="lazy"; },
        None => html! { span.blank { "–" } },
    })
}

fn comparison(
    study: &Study<'_>,
    shown: &[Shown<'_, '_>],
    picked: &[(usize, &'static str)],
    album: &mut Album,
) -> Result<Markup> {
    let Some((_, first)) = shown.first() else { return Ok(html! {}) };
    let mut rows = Vec::new();
    for &(place, rank) in picked {
        let original = &first.examples[place];
        let maps: Vec<Option<Vec<f64>>> = shown
            .iter()
            .map(|(_, trial)| errors(&original.original, trial.examples[place].reconstructions.last()?))
            .collect();
        let most = maps.iter().flatten().flatten().fold(0.0_f64, |most, error| most.max(*error));
        let mut cells =
            vec![html! { td { (picture(album, &original.original, &format!("original, {}", original.label))?) } }];
        let mut error_cells = Vec::new();
        for ((configuration, trial), map) in shown.iter().zip(&maps) {
            let example = &trial.examples[place];
            let image = example.reconstructions.last().cloned().unwrap_or_default();
            let alt = format!("{}, {}", example.label, configuration.label);
            cells.push(html! {
                td {
                    (picture(album, &image, &alt)?)
                    @if let Some(error) = error(example) { span.under { (format::significant(10.0 * (4.0 / error).log10(), 3)) " dB" } }
                }
            });
            // Error maps of the three ranked images say enough.
            if let (Some(map), false) = (map, rank.is_empty()) {
                let image = error_map(map, original.original.width, original.original.height, most);
                error_cells.push(html! { td { (picture(album, &image, &format!("error of {alt}"))?) } });
            }
        }
        rows.push(html! {
            tr {
                th scope="row" { (original.label) @if !rank.is_empty() { span.unit { (rank) } } }
                @for cell in &cells { (cell) }
            }
            @if !error_cells.is_empty() {
                tr.errors {
                    th scope="row" { span.unit { "error, 0 to " (format::significant(100.0 * most, 2)) "%" } }
                    td {}
                    @for cell in &error_cells { (cell) }
                }
            }
        });
    }
    let seed = first.seed.map_or(String::new(), |seed| format!(", seed {seed}"));
    Ok(html! {
        h3 { "The same images through every tokenizer" }
        div.scroll {
            table.pictures {
                caption {
                    "Test images and their reconstructions" (seed) "; PSNR below each. Best, median and worst of the images \
                     kept, by mean error over the columns; error maps are in viridis, one scale per row."
                    @if shown.len() < study.configurations.len() { " " (shown.len()) " of " (study.configurations.len()) " tokenizers." }
                }
                thead {
                    tr {
                        td {}
                        th scope="col" { "original" }
                        @for (configuration, trial) in shown { th scope="col" { a href={ "#t-" (trial.id) } { (configuration.label) } } }
                    }
                }
                tbody { @for row in rows { (row) } }
            }
        }
    })
}

/// Of the configurations with one level, or with several, the best of the most depths: decoded from ever more of its codes.
fn progressive(
    study: &Study<'_>,
    shown: &[Shown<'_, '_>],
    picked: &[(usize, &'static str)],
    several: bool,
    album: &mut Album,
) -> Result<Markup> {
    let depth = |trial: &Trial| trial.examples.first().map_or(0, |example| example.reconstructions.len());
    let levels = |trial: &Trial| trial.examples.first().map_or(0, |example| example.codes.len());
    // One code of one level shows nothing that the comparison does not.
    let fits = |trial: &Trial| if several { levels(trial) > 1 } else { depth(trial) > 1 && levels(trial) <= 1 };
    let mut best: Option<Shown<'_, '_>> = None;
    for &(configuration, trial) in shown.iter().filter(|(_, trial)| fits(trial)) {
        if best.is_none_or(|(c, t)| (depth(trial), study.rank(configuration)) > (depth(t), study.rank(c))) {
            best = Some((configuration, trial));
        }
    }
    let Some((configuration, trial)) = best else { return Ok(html! {}) };
    let depths = depth(trial);
    let mut rows = Vec::new();
    for &(place, rank) in picked.iter().take(3) {
        let example = &trial.examples[place];
        let mut cells = vec![picture(album, &example.original, &format!("original, {}", example.label))?];
        for (place, image) in example.reconstructions.iter().enumerate() {
            let alt = format!("{}, from {} of {depths} codes", example.label, place + 1);
            let decibels = squared_error(&example.original, image).map(|error| 10.0 * (4.0 / error).log10());
            cells.push(html! {
                (picture(album, image, &alt)?)
                @if let Some(decibels) = decibels { span.under { (format::significant(decibels, 3)) " dB" } }
            });
        }
        let mut maps = Vec::new();
        for (level, codes) in example.codes.iter().enumerate() {
            let name = if several { format!("codes, level {}", level + 1) } else { "codes".to_owned() };
            let mut row = Vec::new();
            for depth in 0..codes.depth.min(depths) {
                let alt = format!("{name} of {}, depth {}", example.label, depth + 1);
                row.push(picture(album, &code_map(codes, depth), &alt)?);
            }
            maps.push((name, row));
        }
        rows.push(html! {
            tr {
                th scope="row" { (example.label) @if !rank.is_empty() { span.unit { (rank) } } }
                @for cell in &cells { td { (cell) } }
            }
            @for (name, row) in &maps {
                tr.errors {
                    th scope="row" { span.unit { (name) } }
                    td {}
                    @for map in row { td { (map) } }
                }
            }
        });
    }
    Ok(html! {
        h3 { @if depths > 1 { "Depth by depth: " } @else { "The codes of each level: " } (configuration.label) }
        div.scroll {
            table.pictures {
                caption {
                    @if depths > 1 { "Decoded from the first code of each position, from the first two, and so on. " }
                    "Code maps: equal colours are equal codes of one level and depth; likeness of colours means nothing."
                }
                thead {
                    tr {
                        td {}
                        th scope="col" { "original" }
                        @for depth in 1..=depths { th scope="col" { @if depth == 1 { "depth 1" } @else { "depths 1–" (depth) } } }
                    }
                }
                tbody { @for row in rows { (row) } }
            }
        }
    })
}

/// A word on configurations that are left out, evenly.
fn some_of(shown: usize, of: usize) -> Markup {
    html! { @if shown < of { " " (shown) " of " (of) " configurations." } }
}

/// The samples nearest to training images, each beside its own.
fn copies(shown: &[Shown<'_, '_>], of: usize, album: &mut Album) -> Result<Markup> {
    if shown.is_empty() {
        return Ok(html! {});
    }
    let mut panels = Vec::new();
    for (configuration, trial) in shown {
        let mut rows = Vec::new();
        for pair in &trial.copies {
            let alt = format!("nearest to {}, {}", pair.label, configuration.label);
            let sample = picture(album, &pair.sample, &format!("sample {alt}"))?;
            let training = picture(album, &pair.training, &pair.label)?;
            rows.push(html! { tr { td { (sample) } td { (training) span.under { (pair.label) } } } });
        }
        panels.push(html! {
            div.scroll {
                table.pictures.samples {
                    caption { a href={ "#t-" (trial.id) } { (configuration.label) } }
                    thead { tr { th scope="col" { "sample" } th scope="col" { "training image" } } }
                    tbody { @for row in rows { (row) } }
                }
            }
        });
    }
    Ok(html! {
        h3 { "Samples nearest to a training image" }
        p {
            "The drawn images that come nearest to an image that the prior learnt from, beside it: copies would be seen here first."
            (some_of(shown.len(), of))
        }
        div.panels { @for panel in panels { (panel) } }
    })
}

fn samples(shown: &[Shown<'_, '_>], of: usize, album: &mut Album) -> Result<Markup> {
    if shown.is_empty() {
        return Ok(html! {});
    }
    let captioned = shown.iter().any(|(_, trial)| trial.samples.iter().any(|sample| !sample.caption.is_empty()));
    let mut panels = Vec::new();
    for (configuration, trial) in shown {
        let mut groups: Vec<(&str, Vec<&Sample>)> = Vec::new();
        for sample in &trial.samples {
            match groups.iter_mut().find(|group| group.0 == sample.label) {
                Some(group) => group.1.push(sample),
                None => groups.push((&sample.label, vec![sample])),
            }
        }
        let mut rows = Vec::new();
        for (label, samples) in groups.iter().take(LABELS) {
            let mut cells = Vec::new();
            for sample in samples.iter().take(SAMPLES) {
                let alt = format!("{}, {}", format!("sample {label}").trim_end(), configuration.label);
                let picture = picture(album, &sample.image, &alt)?;
                let caption = &sample.caption;
                cells.push(html! { (picture) @if !caption.is_empty() { span.under { (caption) } } });
            }
            rows.push(html! { tr { th scope="row" { (label) } @for cell in cells { td { (cell) } } } });
        }
        panels.push(html! {
            div.scroll {
                table.pictures.samples {
                    caption { a href={ "#t-" (trial.id) } { (configuration.label) } }
                    tbody { @for row in rows { (row) } }
                }
            }
        });
    }
    Ok(html! {
        h3 { "Drawn from the priors" }
        p {
            "The first samples of each class, not chosen."
            @if captioned { " Below each stands the caption that it was drawn for, that of a test image." }
            (some_of(shown.len(), of))
        }
        div.panels { @for panel in panels { (panel) } }
    })
}
