//! What a page says of how it came about: the lines that do it again, and a place of its own for each file and setting.

#![cfg(unix)] // The lines are for a shell.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, Said, csv};
use std::fs;
use std::path::Path;
use std::process::Command;

fn ok(lab: &Lab, arguments: &[&str]) -> Said {
    let said = Said::from(lab.command("").unwrap().args(arguments).output().unwrap());
    assert_eq!(said.code, Some(0), "{arguments:?}\n{}\n{}", said.out, said.err);
    said
}

/// The page that a command wrote, from the lab's folder.
fn page(said: &Said) -> String {
    said.out.lines().last().unwrap().to_owned()
}

/// The lines of a page that are to be pasted.
fn lines(page: &str) -> Vec<String> {
    let text =
        |html: &str| html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    let all = [("<code>", "</code>"), ("<pre>", "</pre>")].map(|(begins, ends)| {
        let of_tag = page.split(begins).skip(1).map(|rest| text(rest.split(ends).next().unwrap()));
        of_tag.collect::<Vec<_>>()
    });
    all.into_iter().flatten().filter(|code| code.split(' ').any(|word| word == "rqlab")).collect()
}

/// Gives a line to a shell in the lab's folder.
fn paste(lab: &Lab, line: &str) -> Said {
    let program = lab.command("").unwrap().get_program().to_owned();
    let path = [Path::new(&program).parent().unwrap().to_owned(), "/usr/bin".into(), "/bin".into()];
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(lab.path("")).env("PATH", std::env::join_paths(path).unwrap());
    for variable in ["RQLAB_PLUGINS", "RQLAB_HOME", "RQLAB_CPU", "RQLAB_GPU"] {
        shell.env_remove(variable);
    }
    Said::from(shell.output().unwrap())
}

/// Without what the machine decides.
fn lasting(table: &str) -> Vec<Vec<String>> {
    let rows = csv(table);
    let kept = |name: &str| !["_seconds", "_mib", "_per_second"].iter().any(|end| name.ends_with(end));
    let columns: Vec<usize> = (0..rows[0].len()).filter(|&column| kept(&rows[0][column])).collect();
    rows.iter().map(|row| columns.iter().map(|&column| row[column].clone()).collect()).collect()
}

#[test]
fn pasted_lines_do_the_same_again() {
    let lab = Lab::new().unwrap();
    // A name that a shell and a file of RON would both like to read in their own way.
    let data = "a=b, c's #1";
    for class in ["x", "y"] {
        fs::create_dir_all(lab.path(data).join(class)).unwrap();
        for image in 0..80_u8 {
            let grey = if class == "x" { image } else { 255 - image };
            // A portable pixmap would not do: the plugin reads PNG.
            let mut picture = image::RgbImage::new(16, 16);
            picture.pixels_mut().for_each(|pixel| *pixel = image::Rgb([grey, image, 9]));
            picture.save(lab.path(data).join(class).join(format!("{image:03}.png"))).unwrap();
        }
    }
    let path = format!("data.path={data}");
    let given = [
        "sweep",
        "./tiny.ron",
        "--runs",
        "the runs",
        "--out",
        "o",
        "--jobs",
        "1",
        "--seeds",
        "3,4",
        "--set",
        "quantizer.depth=2",
        "--set",
        "prior=None",
        "--set",
        "data=folder(path: \"x\", size: 16)",
        "--set",
        &path,
        "--device",
        "cpu",
    ];
    let said = ok(&lab, &given);
    let folder = lab.path(&page(&said)).with_file_name("");
    let table = fs::read_to_string(folder.join("results.csv")).unwrap();
    let lines = lines(&fs::read_to_string(folder.join("index.html")).unwrap());
    let (sweep, trials) = lines.split_first().unwrap();
    for part in ["--seeds 3,4", "--runs 'the runs'", "--out o", "--jobs 1", "--threads 2", "--device cpu"] {
        assert!(sweep.contains(part), "{part} in {sweep}");
    }
    // Nothing of before is there to be found again.
    fs::remove_dir_all(lab.path("the runs")).unwrap();
    fs::remove_dir_all(lab.path("o")).unwrap();
    let again = paste(&lab, sweep);
    assert_eq!((again.code, again.out.lines().last()), (Some(0), said.out.lines().last()), "{sweep}\n{}", again.err);
    assert_eq!(lasting(&fs::read_to_string(folder.join("results.csv")).unwrap()), lasting(&table));
    let trial = trials.iter().find(|line| line.contains("--trial")).unwrap();
    let one = paste(&lab, trial);
    assert_eq!(one.code, Some(0), "{trial}\n{}", one.err);
    let psnr = csv(&table);
    let column = psnr[0].iter().position(|name| name == "psnr").unwrap();
    let row = psnr[1..].iter().find(|row| trial.contains(&row[0])).unwrap();
    // A few digits of it, and its unit.
    let line = one.out.lines().find(|line| line.trim_start().starts_with("psnr ")).unwrap();
    let shown: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let whole: f64 = row[column].parse().unwrap();
    assert!((shown - whole).abs() < 0.01 && line.ends_with(" dB"), "{whole}\n{}", one.out);
    // What must be done first is said as completely.
    let said = Said::from(
        lab.command("reconstruct tiny.ron --runs r --seeds 5 --set quantizer.depth=2 --set prior=None")
            .unwrap()
            .output()
            .unwrap(),
    );
    assert!(
        said.err.contains("run `rqlab sweep tiny.ron --set quantizer.depth=2 --set prior=None --seeds 5 --runs r`"),
        "{}",
        said.err
    );
}

#[test]
fn other_settings_and_other_files_have_places_of_their_own() {
    let lab = Lab::new().unwrap();
    let told = "// A sweep in seconds.\n//\n// Finding:  one seed: at depth 2 it gains 0.68 dB.\n(";
    let experiment = lab.read("tiny.ron").unwrap().replacen("// A sweep in seconds.\n(", told, 1);
    lab.write("tiny.ron", &experiment).unwrap();
    let report = ["report", "tiny.ron", "--runs", "r", "--out", "o"];
    let with = |more: &[&str]| page(&ok(&lab, &[&report[..], more].concat()));
    assert_eq!(with(&[]), "o/tiny/index.html");
    let own = lab.read("o/tiny/index.html").unwrap();
    assert!(own.contains("0.68 dB") && own.contains("From the file"));
    let deep = with(&["--set", "quantizer.depth=2"]);
    let seeded = with(&["--seeds", "7"]);
    let named = with(&["--seeds", "7", "--name", "seven"]);
    assert_eq!(named, "o/seven/index.html");
    for other in [&deep, &seeded] {
        assert!(other.starts_with("o/tiny+"), "{other}");
    }
    assert_ne!(deep, seeded);
    assert_eq!(with(&["--set", "quantizer.depth=2"]), deep, "the same settings have the same place");
    for other in [deep, seeded, named] {
        assert!(!lab.read(&other).unwrap().contains("0.68 dB"), "{other}: found with other settings");
    }
    assert!(lab.read("o/tiny/index.html").unwrap() == own, "the file's own report was replaced");
    assert_eq!(with(&["--seeds", "0"]), "o/tiny/index.html", "the seeds of the file");
    // A sweep of the same settings goes where its report does.
    let said = ok(
        &lab,
        &["sweep", "tiny.ron", "--runs", "r", "--out", "o", "--set", "quantizer.depth=2", "--set", "prior=None"],
    );
    assert_eq!(page(&said), with(&["--set", "quantizer.depth=2", "--set", "prior=None"]));

    for folder in ["x", "y"] {
        fs::create_dir(lab.path(folder)).unwrap();
        lab.write(&format!("{folder}/tiny.ron"), experiment.replace("Does depth help?", folder)).unwrap();
    }
    let of = |folder: &str| ok(&lab, &["report", &format!("{folder}/tiny.ron"), "--runs", "r", "--out", "p"]);
    let (x, y) = (of("x"), of("y"));
    assert_eq!(page(&x), "p/tiny/index.html");
    assert!(page(&y).starts_with("p/tiny+") && y.err.contains("x/tiny.ron"), "{}{}", y.out, y.err);
    assert_eq!((page(&of("x")), page(&of("y"))), (page(&x), page(&y)));
    assert!(lab.read("p/tiny/index.html").unwrap().contains("<h1>x</h1>"));
    let taken = lab.run("report y/tiny.ron --runs r --out p --name tiny").unwrap();
    assert!(taken.code == Some(2) && taken.err.contains("x/tiny.ron"), "{}", taken.err);
}
