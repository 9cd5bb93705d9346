//! Every command, on one finished experiment.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, Said};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

/// One trial, done.
const ONE: &str = "tiny.ron --runs runs --set quantizer.depth=2 --set prior=ar(width:16,heads:2,layers:1)";

fn ok(lab: &Lab, arguments: &str) -> Said {
    let said = lab.run(arguments).unwrap();
    assert_eq!(said.code, Some(0), "rqlab {arguments}\n{}\n{}", said.out, said.err);
    for text in [&said.out, &said.err] {
        assert!(!text.contains('\u{1b}'), "colours in a pipe: rqlab {arguments}");
    }
    said
}

fn side(lab: &Lab, picture: &str) -> (u32, u32) {
    image::image_dimensions(lab.path(picture)).unwrap()
}

#[test]
fn a_finished_sweep_can_be_looked_at_in_every_way() {
    let lab = Lab::new().unwrap();
    let said = ok(&lab, "plan tiny.ron --runs runs");
    assert!(
        said.out.contains("4 trials") && said.out.contains("17 jobs") && said.out.contains("17 jobs to do"),
        "{}",
        said.out
    );
    assert!(!lab.path("runs").exists());

    let said = ok(&lab, "sweep tiny.ron --runs runs --out out");
    assert_eq!(said.out.lines().last(), Some("out/tiny/index.html"));
    assert!(said.err.contains("4 of 4 trials done"), "{}", said.err);
    for name in ["index.html", "results.csv", "results.parquet", "curves.parquet"] {
        assert!(lab.path("out/tiny").join(name).is_file(), "{name}");
    }

    assert_eq!(said.err.matches("computing on ").count(), 1, "{}", said.err);

    let said = ok(&lab, "plan tiny.ron --runs runs");
    assert!(said.out.contains("Nothing to do"), "{}", said.out);
    let said = ok(&lab, "plan tiny.ron --runs runs --configs");
    assert_eq!(said.out.matches("// trial ").count(), 4, "{}", said.out);

    let said = ok(&lab, "report tiny.ron --runs runs --out again");
    assert_eq!(said.out.lines().last(), Some("again/tiny/index.html"));
    assert_eq!(lab.read("again/tiny/results.csv").unwrap(), lab.read("out/tiny/results.csv").unwrap());

    let said = ok(&lab, "sweep tiny.ron --runs runs --out out --quiet");
    assert_eq!(said.err, "");

    let said = ok(&lab, &format!("run {ONE}"));
    assert!(said.out.contains("psnr ") && said.out.contains("prior_bits_per_image "), "{}", said.out);

    // Two pixels between and around images of 16 x 16; a row of originals above one for each depth.
    ok(&lab, &format!("sample {ONE} --count 4 -o four.png"));
    assert_eq!(side(&lab, "four.png"), (38, 38));
    ok(&lab, &format!("reconstruct {ONE} --count 5 -o five.png"));
    assert_eq!(side(&lab, "five.png"), (5 * 18 + 2, 3 * 18 + 2));
    // A class goes by its name or its number; without one, classes have the shares that they are measured in.
    for class in ["", "--class foliage", "--class 1"] {
        ok(&lab, &format!("sample {ONE} --count 4 {class} -o class{}.png", class.replace(' ', "")));
    }
    let picture = |name: &str| std::fs::read(lab.path(name)).unwrap();
    assert_eq!(picture("class--classfoliage.png"), picture("class--class1.png"));
    assert_ne!(picture("class.png"), picture("class--class1.png"));
    let said = lab.run(&format!("sample {ONE} --class foilage")).unwrap();
    assert!(said.code == Some(2) && said.err.contains("did you mean `foliage`?"), "{}", said.err);
    let said = lab.run(&format!("sample {ONE} --class 9")).unwrap();
    assert!(said.code == Some(2) && said.err.contains("there is no class `9`"), "{}", said.err);
    let said = lab.run("sample tiny.ron --runs runs").unwrap();
    assert!(said.code == Some(2) && said.err.contains("say which with --trial"), "{}", said.err);
    let said = lab.run("sample tiny.ron --runs empty --set quantizer.depth=2 --set prior=ar()").unwrap();
    assert!(said.code == Some(2) && said.err.contains("run `rqlab sweep tiny.ron --set "), "{}", said.err);
    assert!(said.err.contains("--set quantizer.depth=2") && said.err.contains("--set 'prior=ar()'"), "{}", said.err);
}

/// Every point is in the stage's own file before the stage is done, and the same in its results after.
#[test]
fn curves_can_be_looked_at() {
    let lab = Lab::new().unwrap();
    let said = ok(&lab, "curves tiny.ron --runs runs");
    assert!(said.out.is_empty() && said.err.contains("no stage has taken a point"), "{}{}", said.out, said.err);

    let said = ok(&lab, "sweep tiny.ron --runs runs --out out --device cpu");
    assert!(!said.err.contains("computing on"), "{}", said.err);
    let said = ok(&lab, "curves tiny.ron --runs runs");
    for text in
        ["depth=2 prior=ar seed 0, step 20, done", "depth=1 prior=ar seed 0", "\n  learning_rate ", "\n  usage_1 "]
    {
        assert!(said.out.contains(text), "{text} in\n{}", said.out);
    }

    let stage = &lab.stages("runs", "prior").unwrap()[0];
    let id = &stage.file_name().unwrap().to_str().unwrap()[..8];
    let done: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(stage.join("done.json")).unwrap()).unwrap();
    let curves = done["curves"].as_array().unwrap();
    let curve = curves.iter().find(|curve| curve["measure"] == "loss" && curve.get("at").is_none()).unwrap();
    let (steps, values) = (&curve["steps"], &curve["values"]);
    let rows: Vec<String> = (0..10).map(|n| format!("prior\t{id}\t{}\tloss\t{}", steps[n], values[n])).collect();
    let said = ok(&lab, &format!("curves {id} --runs runs --points --only loss"));
    let loss: Vec<&str> = said.out.lines().filter(|line| line.contains("\tloss\t")).collect();
    assert_eq!(
        (said.out.lines().next(), loss),
        (Some("stage\tid\tstep\tmeasure\tvalue"), rows.iter().map(String::as_str).collect())
    );
    // All have ended: nothing is left to follow.
    let followed = ok(&lab, "curves tiny.ron --runs runs --follow");
    assert_eq!(followed.out, ok(&lab, "curves tiny.ron --runs runs --points").out);
    assert!(rows.iter().all(|row| followed.out.contains(row.as_str())), "{}", followed.out);
}

/// As a queue on another machine starts it: its job is in the store, and nobody holds its standard input.
#[test]
fn a_worker_does_its_job_wherever_it_is_started() {
    let lab = Lab::new().unwrap();
    ok(&lab, "sweep tiny.ron --runs runs --out out --quiet");
    let stage = &lab.stages("runs", "reconstruction").unwrap()[0];
    std::fs::remove_file(stage.join("done.json")).unwrap();
    let id = stage.file_name().unwrap().to_str().unwrap();
    ok(&lab, &format!("worker --id {id} --runs runs"));
    assert!(stage.join("done.json").is_file());
}

#[test]
fn the_installation_explains_itself() {
    let lab = Lab::new().unwrap();
    let said = ok(&lab, "plugins list");
    for name in ["dead_leaves", "folder", "parquet", "resnet", "rq", "vq", "ar", "rq_transformer"] {
        assert!(said.out.contains(&format!("  {name} ")), "{name} is not in:\n{}", said.out);
        let described = ok(&lab, &format!("plugins describe {name}"));
        assert!(described.out.contains(name) && described.out.len() > 200, "{}", described.out);
    }
    let said = lab.run("plugins describe rqq").unwrap();
    assert!(said.code == Some(2) && said.err.contains("did you mean `rq`?"), "{}", said.err);
    let told = |name: &str, what: &[&str]| {
        let said = ok(&lab, &format!("describe {name}")).out;
        what.iter().for_each(|what| assert!(said.contains(what), "{what} is not in\n{said}"));
    };
    told("rq", &["rq  quantizer", "depth: integer", "In an experiment\n  quantizer: rq("]);
    told("prior_training", &["steps: integer in 0.., default 1000", "(local: changes no result)"]);
    told("evaluation", &["guidance: number in 0.0..=1e3, default 1", "evaluation: ("]);
    told("quantizer", &["a list with one per level", "\n  rq", "\n  vq"]);
    told("objective", &["default mse()", "\n  l1", "\n  mse"]);
    told("report", &["headline: the measure", "compare: the comparisons", "report: ("]);
    told("sweep", &["cases({", "zip({"]);
    told("", &["  quantizer ", "  report ", "rq_transformer", "protocols"]);
    let said = lab.run("describe evaluaton").unwrap();
    assert!(said.code == Some(2) && said.err.contains("did you mean `evaluation`?"), "{}", said.err);
    let said = ok(&lab, "doctor --runs runs");
    assert!(!said.out.contains("FAIL") && said.out.contains("runs can be written"), "{}", said.out);
    assert!(said.out.lines().any(|line| line.starts_with("ok    cuda ")), "{}", said.out);
    for shell in ["bash", "zsh", "fish"] {
        assert!(ok(&lab, &format!("completions {shell}")).out.contains("reconstruct"));
    }
    for command in
        ["", "plan", "sweep", "run", "report", "curves", "watch", "sample", "reconstruct", "plugins", "doctor"]
    {
        assert!(ok(&lab, &format!("{command} --help")).out.contains("Usage: rqlab"), "{command}");
    }
    for command in ["", "bench"] {
        let help = ok(&lab, &format!("{command} --help")).out;
        for variable in ["RQLAB_CPU", "RQLAB_GPU", "RQLAB_PLUGINS", "RQLAB_HOME", "NO_COLOR"] {
            assert!(help.contains(&format!("\n  {variable} ")), "{variable} in\n{help}");
        }
    }
    assert!(ok(&lab, "--version").out.starts_with("rqlab "));
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let lab = Lab::new().unwrap();
    let wrong = [
        "",
        "swep tiny.ron",
        "sweep",
        "sweep tiny.ron --job 1",
        "sweep tiny.ron --jobs 0",
        "--threads 0 doctor",
        "--device tpu doctor",
        "--device cuda:x doctor",
        "plan tiny.ron --seeds 1,1",
        "plan tiny.ron --seeds one",
        "plan tiny.ron --set quantizer.depth",
        "plan tiny.ron --set =1",
        "--plugins nowhere plugins list",
        "sample tiny.ron --temperature 0",
        "sample tiny.ron --top-p 2",
    ];
    for arguments in wrong {
        let said = lab.run(arguments).unwrap();
        assert_eq!(said.code, Some(2), "rqlab {arguments}\n{}\n{}", said.out, said.err);
        assert!(!said.err.is_empty() && !said.err.contains("panicked"), "rqlab {arguments}\n{}", said.err);
    }
}

/// A value of `--set` of which the shell made several words is told of in those words.
#[test]
fn values_without_quotes_are_told_of() {
    let lab = Lab::new().unwrap();
    let said = lab.run("plan tiny.ron --set quantizer.depth = 2").unwrap();
    assert!(said.code == Some(2) && said.err.contains("wants quotes: --set 'quantizer.depth = 2'"), "{}", said.err);
    let said = lab.run("plan tiny.ron --set quantizer.depth=1 quantizer.depth=2").unwrap();
    let axis = r#"axes: { "quantizer.depth": [1, 2] }"#;
    assert!(said.code == Some(2) && said.err.contains(axis), "{}", said.err);
}

#[test]
fn the_status_of_no_folder_is_none() {
    let lab = Lab::new().unwrap();
    let said = lab.run("status --runs nope").unwrap();
    assert!(said.code == Some(2) && said.err.contains("there is no folder nope"), "{}", said.err);
    assert!(ok(&lab, "status").out.ends_with("runs: nothing was run here yet\n"));
}

/// A plan refuses what a sweep would.
#[test]
fn ranks_that_divide_no_batch_are_not_planned() {
    let lab = Lab::new().unwrap();
    ok(&lab, "plan tiny.ron --ranks 2");
    let said = lab.run("plan tiny.ron --ranks 7").unwrap();
    assert!(said.code == Some(2) && said.err.contains("`gradient_accumulation` or `--ranks`"), "{}", said.err);
}

/// Experiments, runs and reports lie in the laboratory's home; what is named is found from here.
#[test]
fn a_home_keeps_what_is_not_named() {
    let lab = Lab::new().unwrap();
    for folder in ["home", "home/experiments", "elsewhere"] {
        std::fs::create_dir(lab.path(folder)).unwrap();
    }
    std::fs::rename(lab.path("tiny.ron"), lab.path("home/experiments/kept.ron")).unwrap();
    lab.edit("Does depth help?", "And here?").unwrap();
    std::fs::rename(lab.path("tiny.ron"), lab.path("elsewhere/mine.ron")).unwrap();
    for (experiment, report) in [("kept", "home/reports/out/kept"), ("mine.ron", "home/reports/out/mine")] {
        let mut command = lab.command(&format!("report {experiment}")).unwrap();
        let command = command.current_dir(lab.path("elsewhere")).env("RQLAB_HOME", lab.path("home"));
        let said = Said::from(command.output().unwrap());
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(lab.path(report).join("index.html").is_file() && lab.path("home/runs").is_dir(), "{experiment}");
    }
}

/// Ends the process with the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn watch_sweeps_again_when_the_experiment_changes() {
    let lab = Lab::new().unwrap();
    lab.edit("\"quantizer.depth\": [1, 2]", "\"quantizer.depth\": [1]").unwrap();
    let mut command = lab.command("watch tiny.ron --runs runs --out out").unwrap();
    let mut watch = Guard(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(watch.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    // What is said until it waits for a change.
    let mut until_it_waits = || {
        let said: Vec<String> = lines.by_ref().take_while(|line| !line.starts_with("watching tiny.ron")).collect();
        said.join("\n")
    };
    let said = until_it_waits();
    assert!(said.contains("2 of 2 trials done"), "{said}");
    assert!(lab.read("out/tiny/index.html").unwrap().contains("Does depth help?"));
    // A mistake is said, and does not end the watch.
    lab.write("tiny.ron", "(").unwrap();
    let said = until_it_waits();
    assert!(said.contains("tiny.ron has changed") && said.contains("error: "), "{said}");
    lab.edit("Does depth help?", "Is the answer a new one?").unwrap();
    let said = until_it_waits();
    assert!(said.contains("4 of 4 trials done"), "{said}");
    assert!(lab.read("out/tiny/index.html").unwrap().contains("Is the answer a new one?"));
}

/// 481, 821 and 1388 million parameters over an autoencoder of 100 million, as published.
#[test]
fn the_published_configurations_plan_without_imagenet_and_do_not_run() {
    let lab = Lab::new().unwrap();
    let paper = format!("{}/../experiments/paper", env!("CARGO_MANIFEST_DIR"));
    let said = ok(&lab, &format!("plan {paper}/imagenet-rqtransformer.ron"));
    for known in ["8x8x4 of 16384", "100,207,491", "480,921,088", "820,899,328", "1,387,529,728"] {
        assert!(said.out.contains(known), "{known} in\n{}", said.out);
    }
    assert!(said.err.contains("warning") && said.err.contains("there is no such file or folder"), "{}", said.err);
    let said = lab.run(&format!("sweep {paper}/imagenet-rqvae.ron")).unwrap();
    assert!(said.code == Some(2) && said.err.contains("there is no such file or folder"), "{}", said.err);
    assert!(!lab.path("runs").exists());
}

/// `/dev/full` is a disk without room.
#[test]
#[cfg(target_os = "linux")]
fn a_result_that_cannot_be_written_is_an_error_and_a_closed_pipe_is_none() {
    let lab = Lab::new().unwrap();
    for arguments in [
        "plan tiny.ron",
        "plugins list",
        "plugins describe rq",
        "describe evaluation",
        "doctor",
        "bench --list",
        "completions bash",
        "--help",
        "plan --help",
        "--version",
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let said = Said::from(lab.command(arguments).unwrap().stdout(full).output().unwrap());
        assert_eq!(said.code, Some(2), "rqlab {arguments}\n{}", said.err);
        assert!(said.err.contains("standard output cannot be written: No space left"), "{arguments}: {}", said.err);

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let said = Said::from(lab.command(arguments).unwrap().stdout(writer).output().unwrap());
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "rqlab {arguments}");
    }
}
