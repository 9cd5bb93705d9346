//! Whatever is wrong is said once, clearly, with its place and what to do, and costs nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use image::{Rgb, RgbImage};
use rqlab_tests::lab::{Lab, Said, csv, half_written};
use std::fs;
use std::path::{Path, PathBuf};

const DATA: &str = "dead_leaves(size: 16, train: 64, test: 32, classes: 4)";

fn sweep(lab: &Lab) -> Said {
    lab.run("sweep tiny.ron --runs runs --out out").unwrap()
}

fn errors(said: &Said) -> usize {
    said.err.lines().filter(|line| line.starts_with("error")).count()
}

/// One error of exit code 2 that holds all of `parts`; and nothing was begun.
fn assert_refused(lab: &Lab, said: &Said, parts: &[&str]) {
    assert_eq!((said.code, errors(said)), (Some(2), 1), "{}", said.err);
    for part in parts {
        assert!(said.err.contains(part), "no {part:?} in:\n{}", said.err);
    }
    assert!(!said.err.contains("panicked") && !said.err.contains('\u{1b}'), "{}", said.err);
    assert_eq!(said.out, "");
    assert!(!lab.path("runs").join("stages").is_dir());
}

/// Refused at a place of the file, with a caret.
fn assert_refused_at(from: &str, to: &str, place: &str, parts: &[&str]) {
    let lab = Lab::new().unwrap();
    lab.edit(from, to).unwrap();
    let said = sweep(&lab);
    assert_refused(&lab, &said, parts);
    assert!(said.err.contains(&format!("--> tiny.ron:{place}\n")), "not at {place}:\n{}", said.err);
    assert!(said.err.contains('^'), "{}", said.err);
}

#[test]
fn unknown_names_come_with_the_nearest_known_ones() {
    assert_refused_at(
        "rq(depth: 2, ",
        "rqq(depth: 2, ",
        "6:16",
        &["quantizer `rqq`", "did you mean `rq`?", "searched: "],
    );
    assert_refused_at("rq(depth: 2,", "rq(depht: 2,", "6:19", &["`rq` has no field `depht`", "did you mean `depth`?"]);
    assert_refused_at("question:", "questoin:", "3:5", &["no field `questoin`", "did you mean `question`?"]);
    assert_refused_at(
        "checkpoint: 2, log: 2),\n    prior_t",
        "chekpoint: 2, log: 2),\n    prior_t",
        "8:68",
        &["`chekpoint`", "`checkpoint`"],
    );
}

#[test]
fn values_of_a_wrong_type_or_out_of_range_are_shown_with_what_is_right() {
    assert_refused_at("codebook: 16", "codebook: \"many\"", "6:39", &["must be an integer in 2..", "found `\"many\"`"]);
    assert_refused_at("codebook: 16", "codebook: 1", "6:39", &["must lie in 2..", "found 1"]);
    assert_refused_at(
        "\"quantizer.depth\": [1, 2]",
        "\"quantizer.depth\": [1, -1]",
        "12:32",
        &["`depth`", "is an integer in 1.."],
    );
    assert_refused_at(
        "\"quantizer.depth\": [1, 2]",
        "\"quantizer.depth\": [0, 2]",
        "12:29",
        &["must lie in 1..", "found 0"],
    );
    assert_refused_at(
        "lr: 1e-3, warmup: 2, checkpoint: 2, log: 2),\n    prior",
        "lr: fast, warmup: 2, checkpoint: 2, log: 2),\n    prior",
        "8:51",
        &["`lr`", "is a number in 0.0.."],
    );
}

#[test]
fn models_that_do_not_fit_their_data_are_found_before_any_work() {
    assert_refused_at("size: 16,", "size: 15,", "5:48", &["multiples of 2", "15 x 15"]);
    assert_refused_at("groups: 4", "groups: 3", "5:64", &["`groups` of `resnet`"]);
    assert_refused_at(
        "            ar(width: 16, heads: 2",
        "            ar(width: 16, heads: 3",
        "14:34",
        &["`heads` of `ar`"],
    );
}

#[test]
fn an_axis_must_name_something() {
    assert_refused_at(
        "\"quantizer.depth\"",
        "\"quantiser.depth\"",
        "12:10",
        &["`quantiser.depth` names nothing", "did you mean `quantizer`?"],
    );
    assert_refused_at(
        "\"quantizer.depth\"",
        "\"quantizer.deepness\"",
        "12:20",
        &["no field `deepness`", "its fields: `depth`"],
    );
    assert_refused_at("\"quantizer.depth\": [1, 2]", "\"quantizer.depth\": []", "12:28", &["has no values"]);
}

#[test]
fn a_broken_file_is_shown_where_it_breaks() {
    assert_refused_at("seeds: [0],\n)", "seeds: [0]", "18:15", &["expected comma"]);
    let lab = Lab::new().unwrap();
    let said = lab.run("sweep tinny --runs runs --out out").unwrap();
    assert_refused(&lab, &said, &["no experiment `tinny`", "experiments/tinny.ron"]);
    let said = lab.run("sweep tinny.ron --runs runs --out out").unwrap();
    assert_refused(&lab, &said, &["tinny.ron: there is no such file"]);
    let said = lab.run("sweep tiny.ron --runs runs --out out --set quantizer.depht=2").unwrap();
    assert_refused(&lab, &said, &["<command line>:1:17", "did you mean `depth`?"]);
}

/// `count` images of `side` x `side` in each of two folders.
fn pictures(root: &Path, count: u32, side: u32) {
    for class in ["cats", "dogs"] {
        fs::create_dir_all(root.join(class)).unwrap();
        for n in 0..count {
            let noise = |x: u32, y: u32| (x * 37 + y * 101 + n * 53) as u8;
            let image = RgbImage::from_fn(side, side, |x, y| Rgb([noise(x, y), noise(y, x), noise(x * y, n)]));
            image.save(root.join(class).join(format!("{n:02}.png"))).unwrap();
        }
    }
}

#[test]
fn missing_and_empty_data_are_found_before_any_work() {
    assert_refused_at(DATA, "folder(path: \"nowhere\")", "4:24", &["nowhere: No such file"]);
    assert_refused_at(DATA, "parquet(path: \"nowhere\")", "4:25", &["nowhere: No such file"]);
    assert_refused_at(DATA, "folder()", "4:11", &["`folder` needs `path`", "write `folder(path: ..)`"]);
    let lab = Lab::new().unwrap();
    fs::create_dir(lab.path("empty")).unwrap();
    lab.edit(DATA, "folder(path: \"empty\")").unwrap();
    assert_refused(&lab, &sweep(&lab), &["tiny.ron:4:24", "empty: has no folders; every class needs one"]);
    lab.edit(DATA, "parquet(path: \"empty\")").unwrap();
    assert_refused(&lab, &sweep(&lab), &["tiny.ron:4:25", "there is no train-*.parquet"]);
    fs::create_dir_all(lab.path("hollow/cats")).unwrap();
    lab.edit(DATA, "folder(path: \"hollow\")").unwrap();
    assert_refused(&lab, &sweep(&lab), &["tiny.ron:4:24", "hollow"]);
}

#[test]
fn damaged_parquet_is_found_before_any_work() {
    let lab = Lab::new().unwrap();
    fs::create_dir(lab.path("data")).unwrap();
    lab.edit(DATA, "parquet(path: \"data\")").unwrap();
    for name in ["data/train.parquet", "data/test.parquet"] {
        lab.write(name, b"PAR1 and no more").unwrap();
    }
    assert_refused(&lab, &sweep(&lab), &["tiny.ron:4:25", "train.parquet: cannot be read as Parquet"]);
}

/// A trial that failed, its reason in the error, the table and the page; and nothing half-written.
fn assert_failed(lab: &Lab, said: &Said, parts: &[&str]) {
    assert_eq!((said.code, errors(said)), (Some(1), 1), "{}", said.err);
    let page = lab.read("out/tiny/index.html").unwrap();
    for part in parts {
        assert!(said.err.contains(part) && page.contains(part), "no {part:?} in:\n{}", said.err);
    }
    assert!(lab.read("out/tiny/results.csv").unwrap().contains(",failed,"));
    assert_eq!(half_written(&lab.path("")), Vec::<PathBuf>::new());
}

#[test]
fn an_image_that_cannot_be_used_is_named_and_can_be_mended() {
    let lab = Lab::new().unwrap();
    pictures(&lab.path("data"), 24, 16);
    lab.edit(DATA, "folder(path: \"data\", test_fraction: 0.5)").unwrap();
    let image = lab.path("data/cats/05.png");
    let whole = fs::read(&image).unwrap();
    fs::write(&image, &whole[..whole.len() / 2]).unwrap();
    assert_refused(&lab, &sweep(&lab), &["data/cats/05.png: the image is damaged", "`bad_files: skip`"]);
    RgbImage::new(20, 24).save(&image).unwrap();
    assert_refused(&lab, &sweep(&lab), &["data/cats/05.png: an image of 24 x 20 pixels", "give `size`"]);
    // What only decoding shows: a bit of the compressed pixels.
    let mut flipped = whole.clone();
    let data = flipped.windows(4).position(|name| name == b"IDAT").unwrap();
    flipped[data + 8] ^= 4;
    fs::write(&image, flipped).unwrap();
    assert_failed(&lab, &sweep(&lab), &["data/cats/05.png: the image is damaged"]);
    fs::write(&image, whole).unwrap();
    assert_eq!(sweep(&lab).code, Some(0));
}

#[test]
fn a_report_of_nothing_but_failures_does_not_replace_one_with_results() {
    let lab = Lab::new().unwrap();
    assert_eq!(sweep(&lab).code, Some(0));
    let page = lab.read("out/tiny/index.html").unwrap();
    lab.edit("lr: 1e-3", "lr: 1e30").unwrap();
    let said = sweep(&lab);
    assert_eq!((said.code, said.out.lines().last()), (Some(1), Some("out/tiny-failed/index.html")), "{}", said.err);
    assert_eq!(lab.read("out/tiny/index.html").unwrap(), page);
    assert!(lab.read("out/tiny-failed/results.csv").unwrap().contains(",failed,"));
}

#[test]
fn a_diverged_trial_fails_alone() {
    let lab = Lab::new().unwrap();
    lab.edit("\"quantizer.depth\": [1, 2]", "\"tokenizer_training.lr\": [1e-3, 1e30]").unwrap();
    let said = sweep(&lab);
    assert_failed(&lab, &said, &["the loss is NaN at step", "with the learning rate", "lower `lr`"]);
    let rows = csv(&lab.read("out/tiny/results.csv").unwrap());
    let psnr = rows[0].iter().position(|name| name == "psnr").unwrap();
    let with =
        |status: &str| rows.iter().filter(|row| row[1] == status).map(|row| row[psnr].is_empty()).collect::<Vec<_>>();
    assert_eq!((with("done"), with("failed")), (vec![false; 2], vec![true; 2]));
}

#[test]
fn folders_that_cannot_be_written_are_named_with_the_option() {
    let lab = Lab::new().unwrap();
    lab.write("file", "").unwrap();
    for folder in ["file", "/proc/rqlab"] {
        let said = lab.run(&format!("sweep tiny.ron --runs {folder} --out out")).unwrap();
        assert_refused(&lab, &said, &[folder, "--runs"]);
    }
    for folder in ["file", "/proc/rqlab"] {
        let said = lab.run(&format!("sweep tiny.ron --runs other --out {folder}")).unwrap();
        assert_refused(&lab, &said, &[folder, "--out"]);
        assert_eq!(fs::read_dir(lab.path("other/stages")).unwrap().count(), 0);
    }
}

#[test]
fn a_variable_that_asks_for_unknown_instructions_is_refused_before_any_work() {
    let lab = Lab::new().unwrap();
    for arguments in ["sweep tiny.ron --runs runs --out out", "bench --only start_up --seconds 0.01"] {
        let said = Said::from(lab.command(arguments).unwrap().env("RQLAB_CPU", "AVX2").output().unwrap());
        assert_refused(&lab, &said, &["RQLAB_CPU is \"AVX2\"", "baseline, avx2, avx512"]);
    }
}

#[test]
fn instructions_that_the_processor_lacks_are_refused_and_those_that_it_has_are_taken() {
    let lab = Lab::new().unwrap();
    let arguments = "sweep tiny.ron --runs runs --out out";
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("avx512bw");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    let said = Said::from(lab.command(arguments).unwrap().env("RQLAB_CPU", "avx512").output().unwrap());
    if has {
        assert_eq!(said.code, Some(0), "{}", said.err);
    } else {
        assert_refused(&lab, &said, &["RQLAB_CPU asks for AVX-512", "this processor has no more than"]);
    }
    let said = Said::from(lab.command(arguments).unwrap().env("RQLAB_CPU", "baseline").output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
}

#[test]
fn a_bench_whose_figures_cannot_be_written_measures_nothing() {
    let lab = Lab::new().unwrap();
    fs::create_dir(lab.path("folder")).unwrap();
    for (path, why) in [("nowhere/figures.json", "its folder does not exist"), ("folder", "is a directory")] {
        let said = lab.run(&format!("bench --only start_up --seconds 0.01 --json {path}")).unwrap();
        assert_refused(&lab, &said, &[path, why]);
        assert!(said.out.is_empty(), "{}", said.out);
    }
}

#[test]
fn objectives_that_all_count_nothing_are_refused() {
    let lab = Lab::new().unwrap();
    let said = lab.run("sweep tiny.ron --runs runs --out out --set objective=[mse(weight:0),l1(weight:0)]").unwrap();
    assert_refused(&lab, &said, &["all objectives have the weight 0: nothing would train the decoder"]);
    let said = lab.run("plan tiny.ron --runs runs --set objective=[mse(weight:0),l1()]").unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
}

#[test]
fn a_quantizer_that_makes_other_channels_than_the_decoder_reads_is_refused_with_both_remedies() {
    assert_refused_at(
        "groups: 4,",
        "groups: 4, double_z: true,",
        "6:16",
        &["`rq` makes 16 channels of the 16 that are encoded", "reads 8", "such as `kl`", "`double_z: false`"],
    );
    let lab = Lab::new().unwrap();
    let autoencoder = "resnet(width: 8, multipliers: [1, 2], groups: 4, mid_attention: false, latent: 8)";
    let question = "question: \"What is the rate of a posterior?\"";
    let text = format!("({question}, data: {DATA}, autoencoder: {autoencoder}, quantizer: kl())");
    lab.write("tiny.ron", text).unwrap();
    let said = sweep(&lab);
    assert_refused(
        &lab,
        &said,
        &["`kl` makes 4 channels of the 8", "reads 8", "`double_z: true`", "keeps their number"],
    );
    let fits = "plan tiny.ron --runs runs --set autoencoder.double_z=true";
    let said = lab.run(fits).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let said = lab.run(&format!("{fits} --set tokenizer_training.quantize_after=9")).unwrap();
    assert_refused(&lab, &said, &["leave `quantize_after` at 0"]);
}

#[test]
fn decay_rates_lie_below_one() {
    let lab = Lab::new().unwrap();
    let said = lab.run("sweep tiny.ron --runs runs --out out --set prior_training.betas=(0.9,1.0)").unwrap();
    assert_refused(&lab, &said, &["`betas` of `prior_training` must lie in 0.0..1.0, found "]);
}

#[test]
fn guidance_that_would_do_nothing_is_refused_before_training() {
    let lab = Lab::new().unwrap();
    let guided =
        "sweep tiny.ron --runs runs --out out --set evaluation.guidance=2 --set prior_training.condition_dropout";
    for (more, cause) in [
        ("=0.1 --set prior=ar(condition:none)", "the prior is unconditional, as it is configured"),
        ("=0.1 --set prior=rq_transformer(condition:none)", "the prior is unconditional, as it is configured"),
        ("=1", "training drops every condition"),
        ("=0", "which this prior never learns"),
    ] {
        let said = lab.run(&format!("{guided}{more}")).unwrap();
        assert_refused(&lab, &said, &[cause, "`guidance` of `evaluation`"]);
    }
}

/// What no machine can do, and what is no number, is refused before any work.
#[test]
fn settings_that_cannot_work_are_refused_in_the_plan() {
    let lab = Lab::new().unwrap();
    for set in [
        "tokenizer_training.batch=18446744073709551615",
        "tokenizer_training.batch=1000000000",
        "tokenizer_training.lr=inf",
        "prior_training.lr=1e308",
        "tokenizer_training.betas=(2,0.5)",
        "tokenizer_training.betas=(-1,0.5)",
        "prior_training.betas=(0.9,1.0)",
        "evaluation.temperature=inf",
        "evaluation.speed=[1000000000]",
        "evaluation.samples=1000000000000000000",
    ] {
        let said = lab.run(&format!("plan tiny.ron --set {set}")).unwrap();
        let field = set.split(['.', '=']).nth(1).unwrap();
        assert_eq!(said.code, Some(2), "{set}: {}{}", said.out, said.err);
        assert!(said.err.contains(field), "{set}: {}", said.err);
    }
}
