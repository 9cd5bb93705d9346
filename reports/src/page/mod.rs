//! The page: one HTML file that needs nothing beside itself.

mod appendix;
mod captions;
mod codebook;
mod cost;
mod curves;
mod effects;
mod guidance;
mod levels;
mod matrix;
mod origins;
mod overview;
mod parts;
mod pictures;
mod priors;
mod protocols;
mod rate;
mod setup;
mod trials;
mod variance;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::error::Result;
use crate::study::Study;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("sort.js");

/// The sections in their order: identifier and heading.
const SECTIONS: [(&str, &str); 13] = [
    ("verdicts", "Verdicts"),
    ("matrix", "The matrix"),
    ("rate-distortion", "Rate and distortion"),
    ("effects", "Main effects and interaction"),
    ("codebook", "Codebook health"),
    ("priors", "Priors"),
    ("pictures", "Pictures"),
    ("curves", "Training curves"),
    ("cost", "Cost"),
    ("trials", "All trials"),
    ("failures", "Failures"),
    ("definitions", "Definitions"),
    ("provenance", "Provenance and reproduction"),
];

/// The whole page.
///
/// # Errors
/// If a figure or a picture cannot be made.
pub(crate) fn render(study: &Study<'_>) -> Result<String> {
    let bodies: [Markup; 13] = [
        overview::verdicts(study),
        matrix::matrix(study),
        rate::rate_distortion(study)?,
        effects::effects(study)?,
        codebook::codebook(study)?,
        priors::priors(study)?,
        pictures::pictures(study)?,
        curves::curves(study)?,
        cost::cost(study)?,
        trials::trials(study)?,
        appendix::failures(study),
        appendix::definitions(study),
        origins::provenance(study),
    ];
    let results = study.results;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (results.name) " · rqlab report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (overview::header(study))
                (overview::warned(study))
                (overview::from_the_file(study))
                (setup::setup(study))
                nav aria-label="Sections" {
                    ol {
                        @for (id, heading) in SECTIONS {
                            li { a href={ "#" (id) } { (heading) } }
                        }
                    }
                }
                main {
                    @for ((place, (id, heading)), body) in SECTIONS.iter().enumerate().zip(bodies) {
                        section id=(id) aria-labelledby={ "h-" (id) } {
                            h2 id={ "h-" (id) } { span.number { (place + 1) } (heading) }
                            (body)
                        }
                    }
                }
                footer {
                    p { "The numbers of this page are in " code { "results.parquet" } " and " code { "curves.parquet" }
                        ", and their CSV twins, beside it." }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(page.into_string())
}
