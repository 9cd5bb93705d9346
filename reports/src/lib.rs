//! Results to statistics, charts and one HTML page.
//!
//! [`write()`] takes what an experiment found ([`Results`]) and fills a folder: `index.html`, which needs nothing beside
//! itself, `results.csv`, `results.parquet`, `curves.csv`, `curves.parquet` for whoever wants the numbers, `tables/` for papers,
//! and `results.json`, which [`read()`] reads and [`compare()`] sets beside another. The crate is pure: equal results make equal
//! bytes. It knows no tensors, no plugins and no clock.

mod chart;
mod compare;
mod error;
mod figure;
mod files;
mod format;
mod judge;
mod main_table;
mod measure;
mod origin;
mod page;
mod picture;
mod record;
mod results;
mod setup;
mod site;
mod stats;
mod study;
mod tables;
mod viridis;
mod warnings;

pub use compare::{Change, Changes, Movement, Setting, Unfinished, compare};
pub use error::{Error, Result};
pub use figure::{Line, Panel, figure};
pub use measure::{
    Better, COMMON, Comparable, Group, Index, Measure, NameError, Pins, Protocol, Quantity, Reading, Scale, measure,
    measure_names, quantity,
};
pub use origin::{Environment, Origin, SPEED};
pub use record::{RECORD, read};
pub use results::{
    Axis, CodeMap, Comparison, Curve, Definition, Example, FileNote, Image, Provenance, Results, Sample,
    SampleAndTraining, Status, Trial, Value,
};
pub use setup::{CodeSizes, Fact, LABELS, LeftOut, Sizes};
pub use warnings::BUSY;

use std::path::{Path, PathBuf};

/// The files of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The page.
    pub page: PathBuf,
    /// What each trial is and measured, for programs: `results.json`.
    pub record: PathBuf,
    /// The tables: `results.csv`, `results.parquet`, `curves.csv`, `curves.parquet`; and `tables/main.md` and `tables/main.tex`,
    /// where there are two configurations.
    pub tables: Vec<PathBuf>,
}

/// Writes the report into a folder, which is made if it does not exist. Each file appears whole or not at all, the page
/// last.
///
/// # Errors
/// If the folder cannot be written, or the results contradict themselves.
pub fn write(results: &Results, folder: &Path) -> Result<Written> {
    let study = study::Study::new(results);
    let page = page::render(&study)?;
    let main = main_table::MainTable::of(&study);
    let (mut trials, mut curves) = (tables::results(results)?, tables::curves(results)?);
    let mut files = vec![
        ("results.csv", tables::csv(&mut trials)?),
        ("results.parquet", tables::parquet(&mut trials)?),
        ("curves.csv", tables::csv(&mut curves)?),
        ("curves.parquet", tables::parquet(&mut curves)?),
    ];
    if let Some(table) = &main {
        files.push(("tables/main.md", table.markdown().into_bytes()));
        files.push(("tables/main.tex", table.latex().into_bytes()));
    }
    let record = record::write(results)?;
    files::folder(folder)?;
    if main.is_some() {
        files::folder(&folder.join("tables"))?;
    }
    let mut written = Written { page: folder.join("index.html"), record: folder.join(RECORD), tables: Vec::new() };
    for (name, bytes) in files {
        let path = folder.join(name);
        files::replace(&path, &bytes)?;
        written.tables.push(path);
    }
    files::replace(&written.record, &record)?;
    files::replace(&written.page, page.as_bytes())?;
    for swept in [folder, &folder.join("tables")] {
        files::sweep(swept);
    }
    Ok(written)
}

/// The verdicts in words, one sentence each, as they stand in the first section of the page.
pub fn verdicts(results: &Results) -> Vec<String> {
    judge::verdicts(&study::Study::new(results)).iter().map(judge::Verdict::sentence).collect()
}

/// What may lead to a wrong moral, one sentence each, as it stands at the head of the page.
pub fn warnings(results: &Results) -> Vec<String> {
    let headings = warnings::all(&study::Study::new(results));
    headings.iter().flat_map(|heading| &heading.warnings).map(warnings::Warning::sentence).collect()
}
