//! What `just bundle` makes runs where there is no Rust, wherever it lies.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test that cannot run says so")]

use rqlab_tests::lab::{Lab, Said};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A bundle of this build in a folder of its own, moved there after it was made.
fn bundle() -> (Lab, PathBuf) {
    let lab = Lab::new().unwrap();
    let own = std::env::current_exe().unwrap();
    let built = own.ancestors().nth(2).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../bundle/make.sh");
    let (made, moved) = (lab.path("made"), lab.path("moved to/here"));
    let said = Said::from(Command::new(script).arg(built).arg("").arg(&made).output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    let again = Said::from(Command::new(script).arg(built).arg("").arg(&made).output().unwrap());
    assert!(again.code == Some(2) && again.err.contains("is there already"), "{}", again.err);
    fs::create_dir(moved.parent().unwrap()).unwrap();
    fs::rename(&made, &moved).unwrap();
    (lab, moved)
}

fn succeeded(output: Output) -> String {
    let said = Said::from(output);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    said.out
}

#[test]
fn a_bundle_runs_wherever_it_lies_and_is_its_own_home() {
    let (lab, bundle) = bundle();
    let command = |folder: &str, arguments: &[&str]| {
        let mut command = Command::new(bundle.join("bin/rqlab"));
        command.args(arguments).env_clear().current_dir(lab.path(folder));
        command
    };
    let run = |arguments: &[&str]| command("moved to", arguments).output().unwrap();
    let said = succeeded(run(&["doctor"]));
    let lines = said.lines().filter(|line| line.contains("plugin ")).collect::<Vec<_>>();
    let bundled = lines.iter().all(|line| line.contains("lib/rqlab/"));
    assert!(lines.len() >= 20 && bundled, "{said}");

    fs::rename(lab.path("tiny.ron"), bundle.join("experiments/tiny.ron")).unwrap();
    succeeded(run(&["sweep", "tiny", "--quiet", "--threads", "2"]));
    assert!(bundle.join("reports/out/tiny/index.html").is_file());
    assert!(bundle.join("runs/stages").is_dir() && !lab.path("moved to/runs").exists());

    // Another home has its own runs, and the bundle's experiments.
    let elsewhere = lab.path("elsewhere");
    let plan = command("moved to", &["plan", "tiny"]).env("RQLAB_HOME", &elsewhere).output().unwrap();
    assert!(succeeded(plan).contains("4 trials"));
    let missing = Said::from(command("moved to", &["plan", "tinny"]).env("RQLAB_HOME", &elsewhere).output().unwrap());
    assert!(
        missing.err.contains("did you mean `tiny`?") && missing.err.contains("elsewhere/experiments/tinny.ron and ")
    );
}

/// Runs the bundle in `root`, which is made the whole file system but for /proc.
fn in_root(root: &Path, bundle: &Path, arguments: &str) -> Output {
    // A root of one's own needs no privileges where users may have namespaces.
    let script = "mkdir -p \"$0/proc\" \"$0/bundle\" && mount --rbind /proc \"$0/proc\" && \
                  mount --rbind \"$1\" \"$0/bundle\" && exec chroot \"$0\" /bundle/bin/rqlab $2";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", script]).args([root, bundle]).arg(arguments);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap()
}

/// Doctor, plugins, and a sweep to its page; or a word where no process may have a root of its own.
fn works_in(root: &Path, lab: &Lab, bundle: &Path) {
    let allowed = Command::new("unshare").args(["--mount", "--map-root-user", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        println!("skipped: `unshare --mount --map-root-user` is not allowed here");
        return;
    }
    assert!(succeeded(in_root(root, bundle, "doctor")).contains("plugin"));
    assert!(succeeded(in_root(root, bundle, "plugins list")).contains("dead_leaves"));
    fs::rename(lab.path("tiny.ron"), bundle.join("experiments/tiny.ron")).unwrap();
    succeeded(in_root(root, bundle, "sweep tiny --quiet --threads 2"));
    assert!(bundle.join("reports/out/tiny/index.html").is_file());
}

/// The C library and the compiler's own are all that it takes.
#[test]
fn a_bundle_runs_in_a_root_that_has_nothing_but_the_c_library() {
    let (lab, bundle) = bundle();
    let root = lab.path("root");
    let listed = Command::new("ldd").arg(bundle.join("bin/rqlab")).env_clear().output().unwrap();
    let libraries = succeeded(listed);
    let paths = libraries.split_whitespace().filter(|word| word.starts_with("/lib") || word.starts_with("/usr/lib"));
    for path in paths {
        let copy = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(path, copy).unwrap();
    }
    fs::create_dir_all(root.join("tmp")).unwrap();
    works_in(&root, &lab, &bundle);
}

/// Two minutes and 200 MB, from Debian's servers.
#[test]
#[ignore = "installs a minimal Debian: `cargo test --release --package rqlab-tests --test bundle -- --ignored`"]
fn a_bundle_runs_in_a_minimal_debian() {
    let (lab, bundle) = bundle();
    let root = lab.path("root");
    let installed = Command::new("debootstrap").args(["--variant=minbase", "stable"]).arg(&root).output();
    match installed {
        Ok(output) if output.status.success() => works_in(&root, &lab, &bundle),
        Ok(output) => println!("skipped: debootstrap: {}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => println!("skipped: debootstrap: {error}"),
    }
}
