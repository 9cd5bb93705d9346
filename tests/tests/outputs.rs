//! Where what is said and made goes: whatever cannot be written ends no work, and nothing but files is read and replaced.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, Said};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::process::{Command, Stdio};

/// One trial.
const ONE: &str = "tiny.ron --runs runs --set quantizer.depth=2 --set prior=ar(width:16,heads:2,layers:1)";

fn ok(lab: &Lab, arguments: &str) -> Said {
    let said = lab.run(arguments).unwrap();
    assert_eq!(said.code, Some(0), "rqlab {arguments}\n{}\n{}", said.out, said.err);
    said
}

/// `sh -c` in the lab's folder, with `$R` for rqlab on two threads.
fn shell(lab: &Lab, script: &str) -> Said {
    let rqlab = lab.command("").unwrap().get_program().to_owned();
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(lab.path("")).env("R", rqlab).stdin(Stdio::null());
    Said::from(command.output().unwrap())
}

fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG")
}

#[test]
#[cfg(target_os = "linux")]
fn a_sweep_goes_on_when_nobody_hears_it() {
    let lab = Lab::new().unwrap();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let sweep = |runs: &str| lab.command(&format!("sweep tiny.ron --runs {runs} --out {runs}-out")).unwrap();
    let output = sweep("full").stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = sweep("gone").stderr(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    for runs in ["full", "gone"] {
        let table = lab.read(&format!("{runs}-out/tiny/results.csv")).unwrap();
        assert_eq!(table.matches(",done,").count(), 4, "{table}");
    }
    // What happens is a file for programs: a FIFO that nobody reads is left alone.
    fs::create_dir(lab.path("fifo")).unwrap();
    assert!(Command::new("mkfifo").arg(lab.path("fifo/events.jsonl")).status().unwrap().success());
    let said = ok(&lab, "sweep tiny.ron --runs fifo --out fifo-out");
    assert!(said.err.contains("events.jsonl: it is a FIFO, not a file"), "{}", said.err);
}

#[test]
#[cfg(target_os = "linux")]
fn a_failure_is_noted_though_its_log_cannot_be_written() {
    let lab = Lab::new().unwrap();
    let diverging = format!("sweep {ONE} --out out --set tokenizer_training.lr=1e30");
    let said = lab.run(&diverging).unwrap();
    assert!(said.code == Some(1) && said.err.contains("the loss is "), "{}", said.err);
    let log = lab.stages("runs", "tokenizer").unwrap()[0].join("log.txt");
    fs::remove_file(&log).unwrap();
    symlink("/dev/full", &log).unwrap();
    let said = lab.run(&diverging).unwrap();
    assert!(said.code == Some(1) && said.err.contains("the loss is "), "{}", said.err);
}

/// More than the system allows.
#[test]
#[cfg(target_os = "linux")]
fn what_ended_a_worker_is_told_in_its_own_words_and_not_tried_again() {
    let lab = Lab::new().unwrap();
    let said = shell(
        &lab,
        &format!("ulimit -f 64; $R --threads 2 sweep {} --out out 2>&1", ONE.replace('(', "\\(").replace(')', "\\)")),
    );
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.out.contains("File too large") && !said.out.contains("short of memory"), "{}", said.out);
    assert_eq!(rqlab_tests::lab::half_written(&lab.path("runs")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_picture_goes_where_it_is_told_and_replaces_nothing_but_files() {
    let lab = Lab::new().unwrap();
    ok(&lab, &format!("sweep {ONE} --out out --quiet"));
    let sample = |out: &str| lab.run(&format!("sample {ONE} --count 4 -o {out}")).unwrap();

    symlink("/dev/null", lab.path("null")).unwrap();
    let said = sample("null");
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{}", said.err);
    assert!(fs::metadata(lab.path("null")).unwrap().file_type().is_char_device());

    symlink("target.png", lab.path("link.png")).unwrap();
    assert_eq!(sample("link.png").code, Some(0));
    assert!(fs::symlink_metadata(lab.path("link.png")).unwrap().is_symlink());
    assert!(is_png(&fs::read(lab.path("target.png")).unwrap()));

    assert!(Command::new("mkfifo").arg(lab.path("fifo")).status().unwrap().success());
    let reader = Command::new("cat").arg(lab.path("fifo")).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(sample("fifo").code, Some(0));
    assert!(is_png(&reader.wait_with_output().unwrap().stdout));
    assert!(fs::metadata(lab.path("fifo")).unwrap().file_type().is_fifo());

    let output = lab.command(&format!("sample {ONE} --count 4 -o /dev/stdout")).unwrap().output().unwrap();
    assert!(output.status.success() && is_png(&output.stdout) && image::load_from_memory(&output.stdout).is_ok());

    fs::create_dir(lab.path("folder")).unwrap();
    let said = sample("folder");
    assert!(said.code == Some(2) && said.err.contains("folder: it is a directory, not a file"), "{}", said.err);
    for command in ["sample", "reconstruct"] {
        let said = lab.run(&format!("{command} {ONE} -o x.jpg")).unwrap();
        assert!(said.code == Some(2) && said.err.contains("x.jpg: pictures are written as PNG; name it x.png"));
        assert!(!lab.path("x.jpg").exists());
    }
    for count in ["1000000000", "18446744073709551615"] {
        let said = lab.run(&format!("sample {ONE} --count {count}")).unwrap();
        assert!(said.code == Some(2) && said.err.contains("lower --count"), "{count}: {}", said.err);
    }
}

#[test]
fn an_experiment_may_come_through_a_fifo_but_is_based_on_files() {
    let lab = Lab::new().unwrap();
    let said = shell(&lab, "$R plan <(cat tiny.ron) --runs runs");
    assert!(said.code == Some(0) && said.out.contains("4 trials"), "{}", said.err);
    let said = shell(&lab, "$R plan /dev/zero --runs runs");
    assert!(said.code == Some(2) && said.err.contains("/dev/zero: it has more than 4 MiB"), "{}", said.err);

    assert!(Command::new("mkfifo").arg(lab.path("fifo.ron")).status().unwrap().success());
    for (base, what) in [("fifo.ron", "a FIFO"), ("/dev/zero", "a device")] {
        lab.write("based.ron", format!("(base: \"{base}\")")).unwrap();
        let said = lab.run("plan based.ron --runs runs").unwrap();
        assert!(said.code == Some(2) && said.err.contains(&format!("it is {what}, not a file")), "{}", said.err);
    }
}

/// Linux allows any bytes in a name.
#[test]
#[cfg(target_os = "linux")]
fn a_folder_may_have_a_name_that_is_no_text() {
    let lab = Lab::new().unwrap();
    let folder = lab.path("").join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    fs::create_dir(&folder).unwrap();
    fs::rename(lab.path("tiny.ron"), folder.join("tiny.ron")).unwrap();
    let said =
        Said::from(lab.command(&format!("sweep {ONE} --out out")).unwrap().current_dir(&folder).output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    let said = Said::from(lab.command(&format!("plan {ONE}")).unwrap().current_dir(&folder).output().unwrap());
    assert!(said.out.contains("Nothing to do"), "{}", said.out);
}

#[test]
fn texts_from_files_and_names_cannot_command_the_terminal_or_flood_it() {
    let lab = Lab::new().unwrap();
    lab.edit("Does depth help?", "\u{1b}[2J\u{1b}]0;mine\u{7}Does depth help?").unwrap();
    let said = ok(&lab, "plan tiny.ron --runs runs");
    assert!(!said.out.contains(['\u{1b}', '\u{7}']) && said.out.contains("Does depth help?"), "{:?}", said.out);

    let said = lab.run(&format!("plan {}", "x".repeat(100_000))).unwrap();
    assert!(said.code == Some(2) && said.err.len() < 10_000, "{} bytes", said.err.len());
}
