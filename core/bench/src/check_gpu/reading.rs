//! What processes said or left, in a few words: `Ok` where it shows what was to be shown.

use crate::PeerRun;
use crate::compare::{self, digits, pairs};
use std::fs;
use std::path::Path;

type Words = Result<String, String>;

/// The figures of the small sweep that are compared: of the tokenizer, of the priors.
const FIGURES: [&str; 2] = ["psnr", "prior_bits_per_image"];

/// What `rqlab doctor` says of the device.
pub(super) fn device(log: &str) -> Words {
    match refusal(log) {
        Some(why) => Err(why),
        None => line_of(log, "ok", "device").ok_or_else(|| "`rqlab doctor` says nothing of the device".to_owned()),
    }
}

/// Why `rqlab doctor` found something wrong: with the device, or else with anything.
pub(super) fn refusal(log: &str) -> Option<String> {
    let wrong = || log.lines().find_map(|line| line.trim().strip_prefix("FAIL").map(|rest| rest.trim().to_owned()));
    line_of(log, "FAIL", "device").or_else(wrong)
}

fn line_of(log: &str, mark: &str, name: &str) -> Option<String> {
    let of = |line: &str| Some(line.trim().strip_prefix(mark)?.trim().strip_prefix(name)?.trim().to_owned());
    log.lines().find_map(of)
}

/// What a program of tests came to. Tests that were skipped show nothing.
pub(super) fn tests(log: &str) -> Words {
    let failed: Vec<&str> = log
        .lines()
        .filter_map(|line| line.trim().strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .chain(log.lines().filter_map(|line| line.trim().strip_prefix("---- ")?.strip_suffix(" stdout ----")))
        .collect();
    let skipped = log.lines().find(|line| line.starts_with("skipped"));
    match (log.lines().rfind(|line| line.starts_with("test result: ")), failed.as_slice(), skipped) {
        (_, _, Some(why)) => Err(format!("no GPU was used: {why}")),
        (Some(result), [], _) if result.starts_with("test result: ok") => {
            let counts = result.split(';').next().unwrap_or_default();
            Ok(counts.trim_start_matches("test result: ok. ").to_owned())
        }
        (Some(_), [], _) => Err("some failed".to_owned()),
        (None, [], _) => Err(format!("{} passed until then, none failed", log.matches("... ok").count())),
        (_, failed, _) => Err(format!("failed: {}", failed.join(", "))),
    }
}

/// The figures of a sweep, of each trial in turn.
pub(super) fn figures(log: &str, table: &Path) -> Words {
    let rows = measured(table).map_err(|why| error(log).unwrap_or(why))?;
    let words = |[psnr, bits]: &[f64; 2]| format!("PSNR {psnr:.3} dB, prior {bits:.2} bits per image");
    Ok(rows.iter().map(words).collect::<Vec<_>>().join("; "))
}

/// The same beside those of the CPU, from which they may be no further than a share of them.
pub(super) fn agreement(log: &str, own: &Path, cpu: &Path, share: f64) -> Words {
    let words = figures(log, own)?;
    let (own_rows, cpu_rows) = (measured(own)?, measured(cpu)?);
    if own_rows.len() != cpu_rows.len() {
        return Err(format!("{} trials, and {} on the CPU", own_rows.len(), cpu_rows.len()));
    }
    let numbers = own_rows.iter().flatten().zip(cpu_rows.iter().flatten());
    let further = |most: f64, share: f64| if share > most || share.is_nan() { share } else { most };
    let furthest = numbers.map(|(own, cpu)| ((own - cpu) / cpu).abs()).fold(0.0, further);
    let words = format!("{:.2} % from the CPU's figures at most: {words}", 100.0 * furthest);
    if furthest <= share { Ok(words) } else { Err(format!("{words}; no more than {} % was to be", 100.0 * share)) }
}

/// The figures of each trial in a table that a sweep wrote.
fn measured(table: &Path) -> Result<Vec<[f64; 2]>, String> {
    let text = fs::read_to_string(table).map_err(|_| "nothing was measured".to_owned())?;
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next().unwrap_or_default();
    let column = |name: &str| head.iter().position(|cell| *cell == name);
    let read = |row: Vec<&str>| {
        let cell = |name| row.get(column(name)?)?.parse().ok();
        let [psnr, bits] = FIGURES.map(cell);
        Some([psnr?, bits?])
    };
    let rows: Option<Vec<_>> = lines.map(read).collect();
    rows.filter(|rows| !rows.is_empty()).ok_or_else(|| format!("{}: a trial was not measured", table.display()))
}

/// What NVIDIA's memory checker found.
pub(super) fn sanitizer(log: &str) -> Words {
    let summary = log.lines().rfind(|line| line.contains("ERROR SUMMARY"));
    let words = summary.map_or("it ended without a summary", |line| line.trim_start_matches(['=', ' ']));
    if words.contains(" 0 errors") { Ok(words.to_owned()) } else { Err(words.to_owned()) }
}

/// What a workload took, and PyTorch beside it.
pub(super) fn timed(log: &str, file: &Path) -> Words {
    let unread = |_| error(log).unwrap_or_else(|| "it was not timed".to_owned());
    let (run, theirs) = compare::read_run(file).map_err(unread)?;
    let row = run.rows.first().ok_or_else(|| format!("{}: it holds no workload", file.display()))?;
    let ours = format!("{} ms, {} {}", digits(row.median_ms), digits(row.throughput), row.unit);
    let theirs = theirs.as_ref().map(PeerRun::rows).unwrap_or_default();
    Ok(match pairs(&run.rows, &theirs).first() {
        Some(pair) => format!("{ours}; PyTorch {} ms, ratio {:.2}", digits(pair.theirs.median_ms), pair.ratio()),
        None => ours,
    })
}

/// What a program of the laboratory says went wrong.
fn error(log: &str) -> Option<String> {
    log.lines().find_map(|line| line.strip_prefix("error: ")).map(str::to_owned)
}

/// The last that was said.
pub(super) fn last_line(log: &str) -> Words {
    Ok(log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn tests_show_something_if_they_used_a_gpu() {
        let log = "running 2 tests\ntest ops::conv::agrees ... ok\ntest ops::norm::agrees ... ok\n\n\
                   test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
        assert_eq!(tests(log), Ok("2 passed".to_owned()));
        assert!(tests(&format!("skipped: no GPU\n{log}")).unwrap_err().contains("no GPU was used"));
        let failed = log.replace("norm::agrees ... ok", "norm::agrees ... FAILED").replace("ok. 2", "FAILED. 1");
        assert_eq!(tests(&failed), Err("failed: ops::norm::agrees".to_owned()));
        let cut = log.split("test ops::norm").next().unwrap();
        assert_eq!(tests(cut), Err("1 passed until then, none failed".to_owned()));
    }

    #[test]
    fn what_doctor_says_of_the_device_is_found() {
        let log = "ok    rqlab     0.2.0\nFAIL  device    cuda:0: the driver did not start\nok    cuda      built in\n";
        assert_eq!(device(log), Err("cuda:0: the driver did not start".to_owned()));
        assert_eq!(device(&log.replace("FAIL", "ok  ")), Ok("cuda:0: the driver did not start".to_owned()));
    }

    #[test]
    fn figures_are_compared_as_shares() {
        let folder = tempfile::tempdir().unwrap();
        let (own, cpu) = (folder.path().join("own.csv"), folder.path().join("cpu.csv"));
        fs::write(&cpu, "trial,psnr,prior_bits_per_image\na,20,100\nb,20,200\n").unwrap();
        fs::write(&own, "trial,psnr,prior_bits_per_image\na,20.1,100\nb,20.1,199\n").unwrap();
        assert!(agreement("", &own, &cpu, 0.01).unwrap().starts_with("0.50 % from the CPU's"));
        assert!(agreement("", &own, &cpu, 0.001).unwrap_err().ends_with("no more than 0.1 % was to be"));
        fs::write(&own, "trial,psnr,prior_bits_per_image\na,NaN,100\nb,20,200\n").unwrap();
        assert!(agreement("", &own, &cpu, 0.01).is_err());
        fs::write(&own, "trial,psnr,prior_bits_per_image\na,20.1,\n").unwrap();
        assert!(agreement("", &own, &cpu, 0.01).unwrap_err().ends_with("a trial was not measured"));
    }
}
