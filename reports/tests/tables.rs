//! The tables beside the page.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rqlab_reports::{Axis, Curve, Error, Index, Quantity, Reading, Results, Status, Trial, quantity, write};

fn folder(name: &str) -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    path
}

fn trial(id: &str, depth: i64, shared: bool, seed: u64, measures: &[(&str, f64)]) -> Trial {
    Trial {
        id: id.into(),
        axes: BTreeMap::from([("quantizer.depth".into(), depth.into()), ("quantizer.shared".into(), shared.into())]),
        seed: Some(seed),
        status: Status::Done,
        readings: measures.iter().map(|(name, value)| reading(name, *value)).collect(),
        ..Trial::default()
    }
}

/// A reading by the name of its column.
fn reading(name: &str, value: f64) -> Reading {
    let Quantity { measure, at } = quantity(name).unwrap();
    Reading { measure, at, value }
}

fn small() -> Results {
    let mut failed = trial("cccccccc", 4, false, 0, &[]);
    failed.status = Status::Failed;
    let mut first = trial("aaaaaaaa", 1, true, 0, &[("train_seconds", 12.5), ("psnr", 21.25), ("usage_1", 0.5)]);
    first.curves = vec![Curve {
        stage: "tokenizer".into(),
        measure: "usage".into(),
        at: vec![Index::Depth(2)],
        steps: vec![1, 2],
        values: vec![1.0, 0.5],
    }];
    Results {
        name: "small".into(),
        headline: Some(Quantity::plain("psnr")),
        axes: vec![
            Axis { path: "quantizer.depth".into(), label: String::new(), values: vec![1_i64.into(), 4_i64.into()] },
            Axis { path: "quantizer.shared".into(), label: String::new(), values: vec![true.into(), false.into()] },
        ],
        trials: vec![
            first,
            trial("bbbbbbbb", 4, true, 0, &[("psnr", 25.5), ("usage_1", 1.0), ("usage_2", 0.25)]),
            failed,
        ],
        ..Results::default()
    }
}

#[test]
fn a_row_a_trial_a_column_an_axis_and_timings_last() {
    let out = folder("layout");
    write(&small(), &out).unwrap();
    assert_eq!(
        fs::read_to_string(out.join("results.csv")).unwrap(),
        "trial,status,quantizer.depth,quantizer.shared,seed,psnr,usage_1,usage_2,train_seconds\n\
         aaaaaaaa,done,1,true,0,21.25,0.5,,12.5\n\
         bbbbbbbb,done,4,true,0,25.5,1.0,0.25,\n\
         cccccccc,failed,4,false,0,,,,\n"
    );
    assert_eq!(
        fs::read_to_string(out.join("curves.csv")).unwrap(),
        "trial,stage,name,step,value\naaaaaaaa,tokenizer,usage_2,1,1.0\naaaaaaaa,tokenizer,usage_2,2,0.5\n"
    );
}

#[test]
fn parquet_files_begin_and_end_with_their_mark() {
    let out = folder("parquet");
    for path in write(&small(), &out).unwrap().tables.iter().filter(|path| path.extension().unwrap() == "parquet") {
        let bytes = fs::read(path).unwrap();
        assert_eq!((&bytes[..4], &bytes[bytes.len() - 4..]), (&b"PAR1"[..], &b"PAR1"[..]));
    }
}

#[test]
fn equal_results_make_equal_bytes_and_leave_no_parts() {
    let (first, second) = (folder("first"), folder("second"));
    // What a process left that was killed as it wrote: no process has so large a number. What is not ours stays.
    for left in ["results.json.4294967295.part", "of.mine.part"] {
        fs::create_dir_all(&second).unwrap();
        fs::write(second.join(left), "half").unwrap();
    }
    write(&small(), &first).unwrap();
    write(&small(), &second).unwrap();
    if Path::new("/proc/self").exists() {
        assert!(!second.join("results.json.4294967295.part").exists() && second.join("of.mine.part").exists());
    }
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    };
    assert_eq!(names(&first.join("tables")), ["main.md", "main.tex"]);
    let names = names(&first);
    assert_eq!(
        names,
        ["curves.csv", "curves.parquet", "index.html", "results.csv", "results.json", "results.parquet", "tables"]
    );
    let files = names.iter().map(String::as_str).filter(|name| *name != "tables");
    for name in files.chain(["tables/main.md", "tables/main.tex"]) {
        assert_eq!(fs::read(first.join(name)).unwrap(), fs::read(second.join(name)).unwrap(), "{name:?}");
    }
}

#[test]
fn results_that_contradict_themselves_are_refused_by_name() {
    let mut twice = small();
    twice.axes[0].path = "psnr".into();
    assert!(matches!(write(&twice, &folder("twice")), Err(Error::Column { name }) if name == "psnr"));
    let mut again = small();
    again.trials[1].readings.push(reading("usage_2", 0.5));
    assert!(matches!(write(&again, &folder("again")), Err(Error::Reading { trial, quantity })
        if trial == "bbbbbbbb" && quantity == "usage_2"));
    let mut short = small();
    short.trials[0].curves[0].values.pop();
    assert!(matches!(write(&short, &folder("short")), Err(Error::Curve { steps: 2, values: 1, .. })));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let out = folder("file");
    fs::write(&out, "in the way").unwrap();
    let message = write(&small(), &out).unwrap_err().to_string();
    assert!(message.contains(&out.display().to_string()), "{message}");
}
