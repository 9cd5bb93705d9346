//! Who may know whom, from the manifests of the workspace.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use cargo_metadata::{CrateType, MetadataCommand, Package};

fn packages() -> Vec<Package> {
    MetadataCommand::new().no_deps().exec().unwrap().packages
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
            "core/tensor" | "reports" => &[],
            "core/sdk" => &["rqlab-tensor"],
            "core/runner" => &["rqlab-sdk", "rqlab-reports"],
            "tests" => continue,
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
fn only_the_runner_loads_libraries_and_talks() {
    for package in packages().iter().filter(|p| folder(p) != "core/runner") {
        let found = knows(package, &["libloading", "notify", "clap", "indicatif", "comfy-table", "annotate-snippets"]);
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

#[test]
fn the_sdk_is_one_shared_library_and_plugins_are_libraries_to_load() {
    let kinds = |p: &Package| p.targets.iter().flat_map(|t| t.crate_types.clone()).collect::<Vec<_>>();
    for package in &packages() {
        match folder(package).as_str() {
            "core/sdk" => {
                let kinds = kinds(package);
                assert!(kinds.contains(&CrateType::DyLib) && !kinds.contains(&CrateType::RLib), "{kinds:?}");
            }
            plugin if plugin.starts_with("plugins/") => {
                assert!(kinds(package).contains(&CrateType::CDyLib), "{} cannot be loaded", package.name);
            }
            _ => {}
        }
    }
}
