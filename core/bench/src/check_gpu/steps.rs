//! What is done, in the order of worth.

use super::reading;
use super::step::{Call, Step};
use rqlab_sdk::tensor::Device;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where everything lies.
pub(super) struct Place {
    pub(super) rqlab: PathBuf,
    pub(super) tests: PathBuf,
    pub(super) peers: Vec<PathBuf>,
    pub(super) python: PathBuf,
    pub(super) out: PathBuf,
    pub(super) device: Device,
    pub(super) ordinal: usize,
}

/// The step without which there are no others.
pub(super) const DEVICE: &str = "device";
/// The step that says whether there is anything to set speeds beside.
pub(super) const PYTORCH: &str = "pytorch";

/// A tokenizer and two priors of its codes, small enough for a GPU that is emulated.
const EXPERIMENT: &str = include_str!("steps.ron");
/// The precisions of products, with how far the figures of the small sweep may be from the CPU's, as a share of them.
const PRECISIONS: [(&str, f64); 3] = [("f32", 0.01), ("tf32", 0.05), ("bf16", 0.05)];

/// What is timed, by worth: in tf32, which is what trainings use, and some in the other precisions.
const TIMED: [(&str, &str); 16] = [
    ("tokenizer_train_base", "tf32"),
    ("ar_train_base", "tf32"),
    ("prior_train_base", "tf32"),
    ("rq_sample_b16", "tf32"),
    ("rq_encode_256x16384", "tf32"),
    ("codebook_ema_64x1024", "tf32"),
    ("gan_train_small", "tf32"),
    ("mar_train_base", "tf32"),
    ("maskgit_train_small", "tf32"),
    ("pixelsnail_train", "tf32"),
    ("llama_ar_train", "tf32"),
    ("tokenizer_train_base", "bf16"),
    ("ar_train_base", "bf16"),
    ("tokenizer_train_base", "f32"),
    ("ar_train_base", "f32"),
    ("ar_sample_b16", "tf32"),
];

/// Whether it computes, and as the CPU does.
pub(super) fn agreement(place: &Place) -> Vec<Step> {
    let device = place.device.to_string();
    let doctor = Call::new(&place.rqlab, &["--device", &device, "doctor"]).with("--runs", place.out.join("runs"));
    let mut steps = vec![
        step(DEVICE, "a GPU answers, and its kernels compile", 60, Ok(doctor), reading::device),
        step(
            "operations",
            "every operation agrees with the CPU, forward and backward",
            100,
            test(place, "operations", &["--nocapture", "--test-threads=4"]),
            reading::tests,
        ),
        step("sweep-cpu", "a small sweep on the CPU, for the next three", 40, sweep(place, "cpu", "f32"), {
            let table = table(place, "cpu");
            move |log| reading::figures(log, &table)
        }),
    ];
    for (precision, share) in PRECISIONS {
        let (cpu, own) = (table(place, "cpu"), table(place, precision));
        steps.push(step(
            &format!("sweep-{precision}"),
            "steps of a tokenizer and of two priors come to what they come to on the CPU",
            40,
            sweep(place, &device, precision),
            move |log| reading::agreement(log, &own, &cpu, share),
        ));
    }
    steps.push(step(
        "host-reads",
        "training steps and samples wait for no number from the GPU",
        45,
        test(place, "gpu", &["--nocapture", "--test-threads=1"]),
        reading::tests,
    ));
    steps.push(step(
        "memory",
        "NVIDIA's memory checker finds nothing in the kernels of convolutions",
        45,
        sanitizer(place),
        reading::sanitizer,
    ));
    let asks = "import torch; assert torch.cuda.is_available(); print('PyTorch', torch.__version__)";
    let torch = match place.peers.is_empty() {
        true => Err("there is no folder of peers to time: --peers names one".to_owned()),
        false => found(&place.python, "--version").map(|python| Call::new(python, &["-c", asks])),
    };
    let torch = step(PYTORCH, "there is a PyTorch that sees the GPU", 30, torch, reading::last_line);
    steps.push(Step { is_optional: true, ..torch });
    steps
}

/// How fast it is, beside PyTorch where `python` has it.
pub(super) fn speed(place: &Place, python: Option<&PathBuf>) -> Vec<Step> {
    let timed = TIMED.iter().map(|(workload, precision)| {
        let name = format!("{workload}-{precision}");
        let file = place.out.join(format!("{name}.json"));
        let mut call = Call::new(&place.rqlab, &["--device", &place.device.to_string(), "bench", "--seconds", "0.5"])
            .with("--only", workload)
            .with("--json", &file);
        call.variables.push(("RQLAB_GPU", (*precision).to_owned()));
        for peers in python.map(|_| place.peers.as_slice()).unwrap_or_default() {
            call = call.with("--peers", peers);
        }
        if let Some(python) = python {
            call = call.with("--python", python);
        }
        step(&name, "how long a call takes", 30, Ok(call), move |log| reading::timed(log, &file))
    });
    timed.collect()
}

fn step(
    name: &str,
    what: &'static str,
    seconds: u64,
    call: Result<Call, String>,
    read: impl Fn(&str) -> Result<String, String> + 'static,
) -> Step {
    Step {
        name: name.to_owned(),
        what,
        limit: Duration::from_secs(seconds),
        call,
        read: Box::new(read),
        is_optional: false,
    }
}

/// A program of tests.
fn test(place: &Place, name: &str, arguments: &[&str]) -> Result<Call, String> {
    let program = place.tests.join(name);
    match program.is_file() {
        true => Ok(Call::new(program, arguments)),
        false => {
            Err(format!("{} is missing: a bundle with CUDA has it, or --tests names its folder", program.display()))
        }
    }
}

/// A sweep of the small experiment, in one precision.
fn sweep(place: &Place, device: &str, precision: &str) -> Result<Call, String> {
    let file = place.out.join("steps.ron");
    let folder = if device == "cpu" { "cpu" } else { precision };
    // What an earlier check computed shows nothing of this card.
    let _ = fs::remove_dir_all(place.out.join("runs").join(folder));
    fs::create_dir_all(&place.out)
        .and_then(|()| fs::write(&file, EXPERIMENT))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let mut call = Call::new(&place.rqlab, &["--device", device, "sweep"]);
    call.arguments.push(file.into());
    for stage in ["tokenizer_training", "prior_training", "evaluation"] {
        call = call.with("--set", format!("{stage}.precision={precision}"));
    }
    call = call.with("--runs", place.out.join("runs").join(folder)).with("--out", place.out.join("sweeps"));
    Ok(call.with("--name", format!("steps-{folder}")))
}

/// What a sweep of the small experiment measured.
fn table(place: &Place, folder: &str) -> PathBuf {
    place.out.join("sweeps").join(format!("steps-{folder}")).join("results.csv")
}

fn sanitizer(place: &Place) -> Result<Call, String> {
    let tests = test(place, "operations", &["--test-threads=1", "ops::conv"])?;
    let checker = found(Path::new("compute-sanitizer"), "--version")?;
    let mut call = Call::new(checker, &["--error-exitcode=9"]);
    call.arguments.push(tests.program.into());
    call.arguments.extend(tests.arguments);
    Ok(call)
}

/// A program, if it can be started.
fn found(program: &Path, asked: &str) -> Result<PathBuf, String> {
    let answer = Command::new(program).arg(asked).output();
    answer.map(|_| program.to_owned()).map_err(|error| format!("{}: {error}", program.display()))
}
