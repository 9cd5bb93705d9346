//! Two runs side by side: ours, and the best of another's for each workload.

use crate::{AnyRun, PeerRun, Row, Run, Runs};
use rqlab_sdk::files::write_atomically;
use rqlab_sdk::{Error, Result};
use std::io::Write;
use std::path::Path;

/// The ratio of our time to the other's up to which a workload counts as met: the column `at most` of docs/performance.md.
fn target(name: &str) -> f64 {
    match name {
        "rq_encode_64x1024" => 0.60,
        "rq_encode_256x16384" => 0.85,
        "rq_sample_b1" => 0.25,
        "rq_sample_b16" => 0.40,
        "rq_sample_b100" => 0.60,
        "ar_sample_b1" => 0.30,
        "ar_sample_b16" => 0.45,
        "ar_sample_b100" => 0.60,
        "mar_sample_b1" | "pixelsnail_sample_b1" | "pixelsnail_sample_b16" => 0.50,
        "llama_ar_sample_b16" => 0.45,
        "mar_sample_b16" | "maskgit_sample_b16" => 0.60,
        "mar_sample_b64" => 0.70,
        "ar_diffusion_sample_b16" => 0.35,
        "fsq_train_small" | "lfq_train_small" | "kl_train_small" | "vqvae2_train" | "gan_train_small" => 0.70,
        "pixelsnail_train" => 0.85,
        "start_up" => 0.03,
        // Half as many images again in the same time.
        name if name.starts_with("data_") => 0.67,
        name if name.contains("_train") => 0.85,
        _ => 1.0,
    }
}

/// Rows that were measured while other processes used more of the machine than this are left out if there are others.
const BUSY: f64 = 0.1;

/// One workload on both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Ours.
    pub ours: Row,
    /// The fastest of theirs.
    pub theirs: Row,
}

impl Pair {
    /// Our median over theirs.
    pub fn ratio(&self) -> f64 {
        self.ours.median_ms / self.theirs.median_ms
    }

    /// Our peak memory over theirs.
    pub fn memory_ratio(&self) -> f64 {
        self.ours.peak_rss_mib / self.theirs.peak_rss_mib
    }

    /// What [`Pair::ratio`] may be at most.
    pub fn target(&self) -> f64 {
        target(&self.ours.name)
    }

    /// Whether time and memory are no more than they may be.
    pub fn met(&self) -> bool {
        self.ratio() <= self.target() && self.memory_ratio() <= 1.0
    }

    /// Which of several peers was the fastest: `faiss_flat` of `rq_encode_64x1024/faiss_flat`; empty if there is one.
    pub fn peer(&self) -> &str {
        self.theirs.name.split_once('/').map_or("", |(_, peer)| peer)
    }
}

/// Whether a row of theirs is of our workload `name`.
pub fn same_workload(name: &str, theirs: &str) -> bool {
    let theirs = theirs.split('/').next().unwrap_or_default();
    theirs == name || (name == "start_up" && theirs.starts_with("import_"))
}

/// Sets ours beside theirs. Rows of ours that theirs has nothing to set beside are left out.
pub fn pairs(ours: &[Row], theirs: &[Row]) -> Vec<Pair> {
    let pair = |ours: &Row| {
        let of_name: Vec<&Row> = theirs.iter().filter(|row| same_workload(&ours.name, &row.name)).collect();
        let quiet: Vec<&Row> = of_name.iter().copied().filter(|row| row.other_cpu_fraction < BUSY).collect();
        let rows = if quiet.is_empty() { of_name } else { quiet };
        let best = rows.into_iter().min_by(|a, b| a.median_ms.total_cmp(&b.median_ms))?;
        Some(Pair { ours: ours.clone(), theirs: best.clone() })
    };
    ours.iter().filter_map(pair).collect()
}

/// The runs in a file of figures: ours, and the peers'.
///
/// # Errors
/// A file that cannot be read or holds no runs.
pub fn read(path: &Path) -> Result<(Vec<Run>, Vec<PeerRun>)> {
    let bytes = std::fs::read(path).map_err(Error::file(path))?;
    let Runs { runs } = serde_json::from_slice(&bytes)
        .map_err(|e| Error::Data(format!("{}: {e}; write it with `--json FILE`", path.display())))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in runs {
        match run {
            AnyRun::Ours(run) => ours.push(run),
            AnyRun::Theirs(run) => theirs.push(run),
        }
    }
    Ok((ours, theirs))
}

/// The rows that a file of figures gives to be set beside ours: the peers'; if there are none in it, those of our
/// earlier runs.
///
/// # Errors
/// As for [`read`].
pub fn read_rows(path: &Path) -> Result<Vec<Row>> {
    let (ours, theirs) = read(path)?;
    Ok(match theirs.is_empty() {
        true => ours.into_iter().flat_map(|run| run.rows).collect(),
        false => theirs.iter().flat_map(PeerRun::rows).collect(),
    })
}

/// Our last run in a file of figures, and the peers' last, if there is one.
///
/// # Errors
/// As for [`read`]; a file without a run of ours.
pub fn read_run(path: &Path) -> Result<(Run, Option<PeerRun>)> {
    let (mut ours, mut theirs) = read(path)?;
    let last = ours.pop().ok_or_else(|| Error::Data(format!("{}: there is no run of rqlab in it", path.display())))?;
    Ok((last, theirs.pop()))
}

/// The heads of the columns of [`cells`].
pub const COLUMNS: [&str; 10] = [
    "workload",
    "ours, ms",
    "theirs, ms",
    "ratio",
    "at most",
    "",
    "memory, MiB",
    "theirs, MiB",
    "GFLOP/s",
    "of the peak",
];

/// A pair as the cells of a row.
pub fn cells(pair: &Pair) -> [String; 10] {
    let Pair { ours, theirs } = pair;
    let peer = pair.peer();
    let peer = if peer.is_empty() { String::new() } else { format!(" ({peer})") };
    [
        ours.name.clone(),
        digits(ours.median_ms),
        format!("{}{peer}", digits(theirs.median_ms)),
        share(pair.ratio()),
        format!("{:.2}", pair.target()),
        if pair.met() { "met" } else { "missed" }.to_owned(),
        format!("{:.0}", ours.peak_rss_mib),
        format!("{:.0}", theirs.peak_rss_mib),
        ours.gflops.map_or(String::new(), |g| format!("{g:.0}")),
        ours.peak_fraction.map_or(String::new(), |share| format!("{:.0} %", 100.0 * share)),
    ]
}

/// Three digits that count, no more than needed: `0.437`, `26.7`, `1603`.
pub fn digits(value: f64) -> String {
    let decimals = 2 - value.abs().max(1e-9).log10().floor() as i64;
    format!("{value:.*}", decimals.clamp(0, 4) as usize)
}

/// A ratio with two decimals; below 0.01, with two digits that count: `0.35`, `0.0042`.
fn share(ratio: f64) -> String {
    let decimals = if ratio > 0.0 && ratio < 0.01 { 1 - ratio.log10().floor() as i64 } else { 2 };
    format!("{ratio:.*}", decimals.clamp(2, 9) as usize)
}

/// A table as markdown; numbers stand to the right.
pub fn markdown(columns: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(columns.to_vec());
    let rule = (0..columns.len()).map(|i| if i == 0 { "---" } else { "---:" });
    text.push_str(&line(rule.collect()));
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// Writes text between `<!-- NAME -->` and `<!-- end of NAME -->` of a page, or as the whole file if there is none yet.
///
/// # Errors
/// A page without the marks, a file that cannot be written.
pub fn write_between(path: &Path, name: &str, text: &str) -> Result<()> {
    let (from, to) = (format!("<!-- {name} -->"), format!("<!-- end of {name} -->"));
    let block = format!("{from}\n\n{}\n\n{to}", text.trim_end());
    let page = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("{block}\n"),
        Err(error) => return Err(Error::file(path)(error)),
        Ok(page) => {
            let parts = page.split_once(&from).and_then(|(before, rest)| Some((before, rest.split_once(&to)?.1)));
            let (before, after) = parts.ok_or_else(|| {
                Error::Data(format!("{}: found no lines `{from}` and `{to}` to write between", path.display()))
            })?;
            format!("{before}{block}{after}")
        }
    };
    write_atomically(path, |file| file.write_all(page.as_bytes()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::Machine;

    fn row(name: &str, median_ms: f64, memory: f64, busy: f64) -> Row {
        let (name, other_cpu_fraction) = (name.to_owned(), busy);
        Row { name, median_ms, peak_rss_mib: memory, other_cpu_fraction, ..Row::default() }
    }

    #[test]
    fn ours_is_set_beside_the_fastest_of_theirs_on_a_quiet_machine() {
        let ours =
            [row("rq_encode_64x1024", 50.0, 10.0, 0.0), row("start_up", 30.0, 20.0, 0.0), row("new", 1.0, 1.0, 0.0)];
        let theirs = [
            row("rq_encode_64x1024/torch", 150.0, 500.0, 0.0),
            row("rq_encode_64x1024/faiss_flat", 100.0, 600.0, 0.05),
            row("rq_encode_64x1024/vqp", 20.0, 500.0, 0.5),
            row("import_torch", 3000.0, 600.0, 0.9),
        ];
        let pairs = pairs(&ours, &theirs);
        assert_eq!(pairs.len(), 2);
        assert_eq!((pairs[0].peer(), pairs[0].ratio(), pairs[0].met()), ("faiss_flat", 0.5, true));
        assert_eq!((pairs[1].peer(), pairs[1].ratio(), pairs[1].met()), ("", 0.01, true));
    }

    #[test]
    fn too_much_memory_misses_the_target() {
        let pair = Pair { ours: row("gelu_1m", 1.0, 700.0, 0.0), theirs: row("gelu_1m", 2.0, 600.0, 0.0) };
        assert!(pair.ratio() < pair.target() && !pair.met());
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        assert_eq!([0.4372, 26.67, 1602.9, 0.0].map(digits), ["0.437", "26.7", "1603", "0.0000"]);
    }

    #[test]
    fn small_ratios_are_not_shown_as_nothing() {
        assert_eq!(
            [1.234, 0.35, 0.0132, 0.00417, 0.0000981, 0.0].map(share),
            ["1.23", "0.35", "0.01", "0.0042", "0.000098", "0.00"]
        );
    }

    #[test]
    fn a_table_is_written_between_its_marks_and_nothing_else_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.md");
        std::fs::write(&path, "# Page\n<!-- a -->\nold\n<!-- end of a -->\nafter\n").unwrap();
        write_between(&path, "a", "new\n").unwrap();
        let page = std::fs::read_to_string(&path).unwrap();
        assert_eq!(page, "# Page\n<!-- a -->\n\nnew\n\n<!-- end of a -->\nafter\n");
        write_between(&path, "a", "new\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), page);
        assert!(write_between(&path, "b", "new").unwrap_err().to_string().contains("end of b"));
        assert_eq!(markdown(&["a", "b"], &[vec!["x".into(), "1".into()]]), "| a | b |\n| --- | ---: |\n| x | 1 |\n");
    }

    #[test]
    fn files_of_both_sides_are_read_and_what_was_skipped_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("theirs.json");
        let theirs = r#"{"runs": [{"versions": {"torch": "2"}, "rows": [
            {"name": "gelu_1m", "median_ms": 2.0, "min_ms": 1.5, "first_ms": 9.0, "cpu_ms": 4.0, "throughput": 5e8,
             "unit": "elements/s", "ms_per_unit": 2e-6, "peak_rss_mib": 599.0, "samples": 9, "inner": 10,
             "params": null, "other_cpu_fraction": 0.01},
            {"name": "ar_sample_b1", "skipped": "first call took 61 s (limit 60 s)"}]}]}"#;
        std::fs::write(&path, theirs).unwrap();
        let rows = read_rows(&path).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].name.as_str(), rows[0].median_ms), ("gelu_1m", 2.0));
        assert!(read_run(&path).unwrap_err().to_string().contains("no run of rqlab"));
        std::fs::write(&path, "{}").unwrap();
        assert!(read_rows(&path).is_err());
    }

    #[test]
    fn one_file_keeps_both_sides_and_theirs_word_for_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("both.json");
        let mut ours = Run { machine: Machine::here("cpu", 1), rows: vec![row("gelu_1m", 1.0, 30.0, 0.0)] };
        ours.machine.started = "2026-11-26T01:43:14Z".to_owned();
        let said = r#"{"versions": {"torch": "2"}, "python": "3.11.7", "compile": false, "rows": []}"#;
        let mut theirs: PeerRun = serde_json::from_str(said).unwrap();
        let mut figures = serde_json::to_value(row("gelu_1m", 2.0, 600.0, 0.0)).unwrap();
        figures["peak_gpu_mib"] = 7.into();
        theirs.push(figures.clone());
        theirs.push(serde_json::json!({ "name": "ar_sample_b1", "skipped": "failed" }));
        let runs = vec![AnyRun::Ours(ours.clone()), AnyRun::Theirs(theirs.clone())];
        std::fs::write(&path, serde_json::to_vec(&Runs { runs }).unwrap()).unwrap();

        assert_eq!(read_run(&path).unwrap(), (ours, Some(theirs)));
        let rows = read_rows(&path).unwrap();
        assert_eq!((rows.len(), rows[0].median_ms), (1, 2.0), "theirs, and without what was skipped");
        let file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((&file["runs"][1]["python"], &file["runs"][1]["rows"][0]), (&"3.11.7".into(), &figures));
    }
}
