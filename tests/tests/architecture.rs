//! Who may know whom, from the manifests of the workspace; and where `unsafe` may stand, from its sources.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `cargo metadata` says of the workspace.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    path: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

/// What cargo says in the workspace.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn packages() -> Vec<Package> {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline"]);
    serde_json::from_str::<Metadata>(&text).unwrap().packages
}

/// The folder of a package, relative to the workspace: `plugins/quantizers/rq`.
fn folder(package: &Package) -> String {
    let root = std::fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
    let manifest = std::fs::canonicalize(&package.manifest_path).unwrap();
    manifest.parent().unwrap().strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/")
}

fn is_plugin(package: &Package) -> bool {
    folder(package).starts_with("plugins/")
}

/// The packages of this workspace that `package` depends on in any way.
fn ours(package: &Package) -> Vec<String> {
    package.dependencies.iter().filter(|d| d.path.is_some()).map(|d| d.name.clone()).collect()
}

/// Those of `names` that `package` depends on in any way.
fn knows(package: &Package, names: &[&str]) -> Vec<String> {
    package.dependencies.iter().map(|d| d.name.clone()).filter(|n| names.contains(&n.as_str())).collect()
}

#[test]
fn every_crate_knows_only_those_below_it() {
    let packages = packages();
    assert!(packages.iter().filter(|p| is_plugin(p)).count() >= 8);
    for package in &packages {
        let allowed: &[&str] = match folder(package).as_str() {
            "core/tensor" | "core/text" | "core/weights" | "reports" => &[],
            "core/sdk" => &["rqlab-tensor"],
            "core/images" => &["rqlab-sdk"],
            "core/runner" => &["rqlab-sdk", "rqlab-reports", "rqlab-text", "rqlab-weights"],
            "core/bench" => &["rqlab-sdk", "rqlab-reports", "rqlab"],
            "tests" => continue,
            plugin if plugin.starts_with("plugins/datasets/") => &["rqlab-sdk", "rqlab-images"],
            plugin if plugin.starts_with("plugins/") => &["rqlab-sdk"],
            other => panic!("{other}: no rule says what this crate may know"),
        };
        let excess: Vec<_> = ours(package).into_iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(excess.is_empty(), "{} must not depend on {excess:?}", package.name);
    }
}

#[test]
fn nobody_but_the_tests_depends_on_a_plugin() {
    let packages = packages();
    let plugins: Vec<&str> = packages.iter().filter(|p| is_plugin(p)).map(|p| p.name.as_str()).collect();
    for package in packages.iter().filter(|p| folder(p) != "tests") {
        assert!(knows(package, &plugins).is_empty(), "{} depends on a plugin", package.name);
    }
}

/// Elsewhere they would come into the library that every plugin links: 180 MB and 179 000 symbols in the case of polars.
#[test]
fn tables_and_figures_stay_in_reports() {
    for package in packages().iter().filter(|p| folder(p) != "reports") {
        let found = knows(package, &["polars", "plotters", "maud"]);
        assert!(found.is_empty(), "{} depends on {found:?}", package.name);
    }
}

#[test]
fn only_the_runner_loads_libraries_and_only_it_and_the_benchmark_talk() {
    for package in packages().iter().filter(|p| folder(p) != "core/runner") {
        let mut others = vec!["libloading", "notify", "indicatif", "annotate-snippets"];
        if folder(package) != "core/bench" {
            others.extend(["clap", "comfy-table"]);
        }
        let found = knows(package, &others);
        assert!(found.is_empty(), "{} depends on {found:?}", package.name);
    }
}

#[test]
fn the_tensor_knows_nothing_of_images_or_files() {
    let packages = packages();
    let tensor = packages.iter().find(|p| folder(p) == "core/tensor").unwrap();
    let found = knows(tensor, &["image", "parquet", "safetensors", "ron", "serde", "serde_json"]);
    assert!(found.is_empty(), "{found:?}");
}

/// Cargo unites the features that the packages of a build ask for, and dependencies of tests count in a build of tests
/// alone. If they asked for more, `cargo test` would build another SDK into the same file, and leave a runner behind
/// that no longer finds its symbols.
#[test]
fn building_tests_switches_on_no_feature_that_building_does_not() {
    let tree = |edges: &str| -> Vec<String> {
        let text =
            cargo(&["tree", "--workspace", "--offline", "--prefix", "none", "--edges", edges, "--format", "{p} {f}"]);
        text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
    };
    let (built, tested) = (tree("normal,build"), tree("normal,build,dev"));
    // Where a dependency of tests alone comes in, so does its own line; one that changes has another line under its name.
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let names: Vec<String> = built.iter().map(|line| name(line)).collect();
    let changed: Vec<&String> =
        tested.iter().filter(|line| names.contains(&name(line)) && !built.contains(line)).collect();
    assert!(changed.is_empty(), "list these features under [dependencies] of rqlab-tests: {changed:#?}");
}

#[test]
fn the_sdk_is_one_shared_library_and_plugins_are_libraries_to_load() {
    for package in &packages() {
        match folder(package).as_str() {
            "core/sdk" => {
                let kinds = kinds(package);
                assert!(kinds.contains(&"dylib") && !kinds.contains(&"rlib"), "{kinds:?}");
            }
            plugin if plugin.starts_with("plugins/") => {
                assert!(kinds(package).contains(&"cdylib"), "{} cannot be loaded", package.name);
            }
            _ => {}
        }
    }
}

fn kinds(package: &Package) -> Vec<&str> {
    package.targets.iter().flat_map(|target| &target.crate_types).map(String::as_str).collect()
}

/// The Rust sources under a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Kernels, the loader and what calls MPI's library have `unsafe`; of the SDK the two attributes that `declare_plugin!` writes
/// for a plugin, which Rust calls unsafe though nothing is run by them.
#[test]
fn what_is_unsafe_stands_within_its_walls() {
    const WALLS: [&str; 4] = [
        "core/tensor/src/cpu/",
        "core/tensor/src/cuda/",
        "core/runner/src/plugins/loader.rs",
        "core/runner/src/ranks/mpi/library.rs",
    ];
    const ATTRIBUTES: [&str; 2] = ["unsafe(link_section", "#[unsafe(export_name"];
    let root = fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
    let mut found = Vec::new();
    for folder in ["core", "plugins", "reports", "tests/src"] {
        sources(&root.join(folder), &mut found);
    }
    assert!(found.len() > 200, "{} sources", found.len());
    for path in found {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
        if WALLS.iter().any(|wall| name.starts_with(wall)) {
            continue;
        }
        for line in fs::read_to_string(&path).unwrap().lines().map(str::trim) {
            let code = line.split("//").next().unwrap_or_default();
            let word = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '_') == "unsafe";
            let bare = code.split(|c: char| !c.is_alphanumeric() && c != '_').any(word);
            let attribute = name == "core/sdk/src/plugin.rs" && ATTRIBUTES.iter().any(|known| code.contains(known));
            assert!(!bare || attribute, "{name}: {line}");
        }
    }
}
