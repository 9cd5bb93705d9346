//! Every shipped experiment says what it asks, how it is run, how long that takes and what came out; and it can be planned.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, Said};
use std::fs;
use std::path::{Path, PathBuf};

/// Where they lie.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("experiments")
}

/// Every experiment: its file, and its name as commands have it, such as `paper/imagenet-rqvae`.
fn experiments() -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|end| end == "ron") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&root(), &mut found);
    found.sort();
    assert!(!found.is_empty());
    let name = |path: &Path| path.with_extension("").strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
    found.into_iter().map(|path| (path.clone(), name(&path))).collect()
}

/// The comment that a file begins with, in the form that `experiments/README.md` gives it.
#[derive(Debug)]
struct Header {
    about: String,
    command: String,
    takes: String,
    /// The day of the run, such as `2026-11-28`; empty if the label has none.
    date: String,
    finding: String,
}

/// Takes a header apart. Says which part is missing.
fn header(text: &str) -> Result<Header, String> {
    let lines: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//")).map(str::trim).collect();
    let at = |part: &str| {
        let found = lines.iter().position(|line| line.starts_with(part));
        found.ok_or_else(|| format!("the header has no line that begins with `{part}`"))
    };
    let [command, takes, finding] = [at("Command:")?, at("Takes:")?, at("Finding")?];
    if !(command < takes && takes < finding) {
        return Err("the parts of a header are `Command:`, `Takes:`, `Finding:`, in this order".to_owned());
    }
    let part = |from: usize, to: usize| {
        let text = lines[from..to].join(" ");
        text.split_once(':').map_or("", |(_, rest)| rest).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let label = lines[finding].split(':').next().unwrap_or_default();
    let date = label.split_once('(').map_or("", |(_, date)| date).trim();
    let header = Header {
        about: lines[..command].join(" ").trim().to_owned(),
        command: part(command, takes),
        takes: part(takes, finding),
        date: date.trim_end_matches(')').to_owned(),
        finding: part(finding, lines.len()),
    };
    for (name, text) in [("about", &header.about), ("command", &header.command), ("finding", &header.finding)] {
        if text.is_empty() {
            return Err(format!("the header says nothing of its {name}"));
        }
    }
    Ok(header)
}

#[test]
fn a_header_that_lacks_a_part_is_found_out() {
    let whole = "// Is it so?\n//\n// Command:  just sweep x\n// Takes:    3 s on two cores.\n// Finding (2026-11-28): one seed: it is.\n(\n)\n";
    let read = header(whole).unwrap();
    assert_eq!(
        [read.about, read.command, read.takes, read.date, read.finding],
        ["Is it so?", "just sweep x", "3 s on two cores.", "2026-11-28", "one seed: it is."]
    );
    for (part, line) in [
        ("Command", "// Command:  just sweep x\n"),
        ("Takes", "// Takes:    3 s on two cores.\n"),
        ("Finding", "// Finding (2026-11-28): one seed: it is.\n"),
    ] {
        assert!(header(&whole.replace(line, "")).unwrap_err().contains(part));
    }
    assert!(header(&whole.replace("// Is it so?\n", "")).unwrap_err().contains("about"));
}

#[test]
fn every_experiment_has_a_whole_header() {
    for (path, name) in experiments() {
        let text = fs::read_to_string(&path).unwrap();
        let header = header(&text).unwrap_or_else(|missing| panic!("{name}: {missing}"));
        let commands = [format!("just sweep {name}"), format!("just plan {name}")];
        assert!(commands.iter().any(|command| header.command.starts_with(command)), "{name}: {}", header.command);
        let question = text.lines().find_map(|line| line.trim().strip_prefix("question: ")).unwrap_or_default();
        assert!(question.ends_with("?\","), "{name}: `question` is no question: {question}");

        // What was run says how long it took and on what, when that was, and how many seeds stand behind what was found.
        let was_run = header.takes.starts_with(|c: char| c.is_ascii_digit());
        if was_run {
            assert!(header.takes.contains(" on "), "{name}: on what does it take that long? {}", header.takes);
            let day: Vec<&str> = header.date.split('-').collect();
            assert_eq!(day.iter().map(|part| part.len()).collect::<Vec<_>>(), [4, 2, 2], "{name}: {}", header.date);
            assert!(day.iter().all(|part| part.parse::<u32>().is_ok()), "{name}: {}", header.date);
            assert!(header.finding.contains(" seed"), "{name}: how many seeds? {}", header.finding);
        } else {
            assert!(header.takes.starts_with("not run here"), "{name}: {}", header.takes);
            assert!(header.finding.starts_with("none here"), "{name}: {}", header.finding);
        }
    }
}

/// Published tokenizers have the parameters that their authors' code has, and the plan names what is not here.
#[test]
fn published_tokenizers_have_their_published_parameters() {
    let lab = Lab::new().unwrap();
    for (name, parameters, weights) in [
        ("rqvae", "100,207,491", Some("lpips.safetensors")),
        ("vqvae2", "1,388,867", None),
        ("kl16", "66,456,019", Some("lpips.safetensors")),
        ("maskbit-lfq", "", Some("resnet50.safetensors")),
    ] {
        let path = root().join(format!("paper/imagenet-{name}.ron"));
        let mut command = lab.command("plan --runs runs").unwrap();
        let said = Said::from(command.arg(&path).output().unwrap());
        assert_eq!(said.code, Some(0), "{name}:\n{}", said.err);
        assert!(said.out.contains(parameters), "{name} has no {parameters} parameters:\n{}", said.out);
        for missing in ["data/imagenet"].into_iter().chain(weights) {
            let is_there = root().with_file_name("data").join(missing.trim_start_matches("data/")).exists();
            assert!(is_there || said.err.contains(missing), "{name} does not name {missing}:\n{}", said.err);
        }
    }
}

/// Published priors have the parameters that their authors' code has.
#[test]
fn published_priors_have_their_published_parameters() {
    let lab = Lab::new().unwrap();
    for (name, parameters) in [
        ("mar", &["207,924,768", "478,326,304", "942,403,104"][..]),
        ("maskgit", &["172,650,496"]),
        ("var", &["310,283,520", "600,917,136", "1,033,399,360"]),
    ] {
        let mut command = lab.command("plan --runs runs").unwrap();
        let said = Said::from(command.arg(root().join(format!("paper/imagenet-{name}.ron"))).output().unwrap());
        assert_eq!(said.code, Some(0), "{name}:\n{}", said.err);
        for count in parameters {
            assert!(said.out.contains(count), "{name} has no {count} parameters:\n{}", said.out);
        }
    }
}

/// Data that a machine lacks are said to be missing, and nothing else is wrong; the rest is planned on others.
#[test]
fn every_experiment_can_be_planned() {
    let lab = Lab::new().unwrap();
    for (path, name) in experiments() {
        let plan = |more: &[&str]| {
            let mut command = lab.command("plan --runs runs").unwrap();
            Said::from(command.arg(&path).args(more).output().unwrap())
        };
        let mut said = plan(&[]);
        if said.code == Some(2) {
            let missing = said.err.contains("No such file") && said.err.contains("data: ");
            assert!(missing && said.err.matches("error:").count() == 1, "{name}:\n{}", said.err);
            said = plan(&["--set", "data=dead_leaves(size: 32)"]);
        }
        assert_eq!(said.code, Some(0), "{name}:\n{}", said.err);
        let stem = path.file_stem().unwrap().to_string_lossy();
        assert!(said.out.starts_with(&format!("{stem}  ")), "{}", said.out);
        let trials = said.out.lines().find(|line| line.contains(" trial")).unwrap_or_default();
        assert!(trials.split(' ').next().is_some_and(|n| n.parse().is_ok_and(|n: usize| n > 0)), "{}", said.out);
    }
}
