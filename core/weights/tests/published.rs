//! Files as PyTorch and the published trainers write them, against the digests and the contents that come with them; and files
//! made to do harm. They lie in `shared/checkpoints` beside the workspace or above it, and are passed over where it is not there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a child tells its parent what it found")]

use rqlab_weights::{Checkpoint, TensorInfo, Value};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The folder of checkpoints.
fn checkpoints() -> Option<PathBuf> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = above.map(|folder| folder.join("shared/checkpoints")).find(|folder| folder.is_dir());
    if found.is_none() {
        eprintln!("skipped: there is no folder shared/checkpoints");
    }
    found
}

fn json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// What a list of contents says of a tensor: type, shape, the first 16 hex digits of the SHA-256 of its elements.
fn about(checkpoint: &Checkpoint, tensor: &TensorInfo) -> String {
    let digest = Sha256::digest(checkpoint.read(tensor).unwrap());
    let digest: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
    format!("{}[{}] {digest}", tensor.dtype.name().to_lowercase(), shape.join(","))
}

#[test]
fn every_leaf_of_the_published_layouts_is_read_bit_for_bit() {
    let Some(folder) = checkpoints() else { return };
    let mut files = 0;
    for case in fs::read_dir(&folder).unwrap().flatten().filter(|entry| entry.path().join("case.json").is_file()) {
        for file in json(&case.path().join("case.json"))["files"].as_array().unwrap() {
            let Some(contents) = file["contents"].as_object() else { continue };
            let path = case.path().join(file["file"].as_str().unwrap());
            let checkpoint = Checkpoint::open(&path).unwrap();
            for leaf in contents {
                let (name, said) = (leaf.0, leaf.1.as_str().unwrap());
                match checkpoint.value(name) {
                    Some(Value::Tensor(tensor)) => {
                        let said = said.split(" stride").next().unwrap();
                        assert_eq!(about(&checkpoint, tensor), said, "{}: {name}", path.display());
                    }
                    Some(Value::Int(number)) => assert_eq!(format!("int {number}"), said, "{name}"),
                    Some(Value::None) => assert_eq!(said, "NoneType None", "{name}"),
                    Some(Value::Bool(yes)) => assert_eq!(said.to_lowercase(), format!("bool {yes}"), "{name}"),
                    Some(Value::Float(number)) => {
                        assert_eq!(said.strip_prefix("float ").unwrap().parse::<f64>().unwrap(), *number, "{name}");
                    }
                    // Of long texts the beginning.
                    Some(Value::Text(text)) => {
                        let beginning = said.strip_prefix("str '").unwrap().trim_end_matches(['\'', '.', '…']);
                        assert!(text.starts_with(beginning), "{name}: {text}, not {said}");
                    }
                    // Of whose contents nothing is kept.
                    Some(Value::Opaque(_)) => {}
                    // What has no members, and objects, whose members are leaves of their own here.
                    None => assert!(
                        !said.contains("] ") || said.starts_with("list"),
                        "{}: there is no {name}, {said}",
                        path.display()
                    ),
                }
            }
            files += 1;
        }
    }
    assert!(files > 10, "{files} files");
}

#[test]
fn every_way_of_writing_a_file_gives_the_same_bits() {
    let Some(folder) = checkpoints().map(|folder| folder.join("variants")) else { return };
    let expected = Checkpoint::open(&folder.join("data.safetensors")).unwrap();
    let mut checked = 0;
    for file in json(&folder.join("case.json"))["files"].as_array().unwrap() {
        let name = file["file"].as_str().unwrap();
        let found = Checkpoint::open(&folder.join(name)).unwrap();
        let found_tensors = found.tensors();
        for (path, wanted) in expected.tensors() {
            let Some(path) = path.strip_prefix(&format!("{name}|")) else { continue };
            let tensor = found_tensors.get(path).unwrap_or_else(|| panic!("{name}: there is no {path}"));
            assert_eq!((tensor.dtype, &tensor.shape), (wanted.dtype, &wanted.shape), "{name}: {path}");
            assert_eq!(found.read(tensor).unwrap(), expected.read(wanted).unwrap(), "{name}: {path}");
            checked += 1;
        }
        let listed = file["tensors"].as_object().unwrap();
        assert_eq!(found_tensors.len(), listed.len(), "{name}: {:?}", found_tensors.keys());
    }
    assert!(checked > 500, "{checked} tensors");
    let tied = Checkpoint::open(&folder.join("tied.pt")).unwrap();
    let tensors: Vec<_> = tied.tensors().into_values().collect();
    assert!(tensors.iter().all(|tensor| tensor.is_tied_to(tensors[0])));
}

/// What a child says of a file that it opened.
const OPENED: &str = "OPENED";

/// Opens the file that the environment names; a part of the test below, which starts it with little memory.
#[test]
#[ignore = "a child of another test"]
fn open_one_file() {
    let files = env::var("RQLAB_HOSTILE_FILES").unwrap();
    for file in files.split('\n') {
        match Checkpoint::open(Path::new(file)) {
            Ok(_) => println!("\n{OPENED} {file}"),
            Err(error) => println!("\nrefused {error}"),
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn hostile_files_are_refused_in_little_memory_and_nothing_is_run() {
    let Some(folder) = checkpoints().map(|folder| folder.join("hostile")) else { return };
    let manifest = json(&folder.join("manifest.json"));
    let files = manifest["files"].as_array().unwrap();
    let paths: Vec<String> =
        files.iter().map(|file| folder.join(file["file"].as_str().unwrap()).display().to_string()).collect();
    let empty = tempfile::tempdir().unwrap();
    // Address space of 256 MiB, of which the threads' stacks and heaps take most before anything is read.
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 262144; exec \"$0\" --ignored --exact open_one_file --nocapture --test-threads=1"])
        .arg(env::current_exe().unwrap())
        .env("RQLAB_HOSTILE_FILES", paths.join("\n"))
        .current_dir(empty.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for (file, path) in files.iter().zip(&paths) {
        // Where either is right, the memo is kept sparse.
        let either = file["must"].as_str().unwrap().contains("store sparsely");
        let opened = said.contains(&format!("{OPENED} {path}\n"));
        let refused = said.lines().find(|line| line.starts_with(&format!("refused {path}")));
        assert!(either || !opened, "{path} was opened");
        assert!(opened || refused.is_some_and(|line| line.len() > path.len() + 20), "{path}: {refused:?}");
    }
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "something was run or written");
}
