//! Plugins as files: which are loaded, which are refused and why, and one that is made outside the workspace.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use object::{Object, ObjectSection};
use rqlab::plugins::new;
use rqlab_sdk::plugin::{FEATURES, Kind, RUSTC, SDK_HASH, TARGET};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn rqlab(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rqlab"));
    // What the test runner sets must not help to find libraries.
    // And a plugin that is built must not land beside this build's own.
    command.env_remove("CARGO_TARGET_DIR");
    command.env_remove("LD_LIBRARY_PATH").env_remove("DYLD_FALLBACK_LIBRARY_PATH").env("NO_COLOR", "1");
    command.current_dir(dir).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Whether a table has a row that begins with these words.
fn has_row(table: &str, words: &[&str]) -> bool {
    table.lines().any(|line| line.split_whitespace().take(words.len()).eq(words.iter().copied()))
}

/// Writes the plugin's file with one text of its handshake replaced by another of the same length.
fn forge(plugin: &[u8], from: &str, to: &str, path: &Path) {
    assert_eq!(from.len(), to.len());
    // The handshake starts with its magic; nothing else in the file does in this form.
    let start = plugin.windows(12).position(|w| w.starts_with(b"RQLABPL1") && w[8..] != [0; 4]).unwrap();
    let handshake = &plugin[start..];
    let at = start + handshake.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
    let mut forged = plugin.to_vec();
    forged[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(path, forged).unwrap();
}

/// How the linker signs that leaves a digest of what it links.
const SIGNATURE: &[u8] = b"Linker: LLD ";

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[test]
fn a_plugin_from_outside_the_workspace_works_and_a_foreign_one_is_refused() {
    let lab = tempfile::tempdir().unwrap();
    let dir = lab.path();
    new::create("outside", Kind::Quantizer, &dir.join("outside")).unwrap();
    let built = rqlab(dir, &["plugins", "build", "outside", "--out", "plugins", "--test"]);
    assert!(built.status.success(), "{}", text(&built));
    let library = dir.join("plugins/libquantizer_outside.so");
    let list = text(&rqlab(dir, &["--plugins", "plugins", "plugins", "list"]));
    assert!(has_row(&list, &["quantizer", "outside"]), "{list}");
    let described = text(&rqlab(dir, &["--plugins", "plugins", "plugins", "describe", "outside"]));
    assert!(described.contains("codebook: integer in 2..=65_536, default 256"), "{described}");

    // Only the handshake differs: nothing but reading it can tell.
    let plugin = fs::read(&library).unwrap();
    fs::remove_file(&library).unwrap();
    let other = |text: &str| text.chars().rev().collect::<String>();
    for (field, reason) in [
        (SDK_HASH, "against the SDK build"),
        (RUSTC, "it was built by"),
        (TARGET, "it was built for"),
        (FEATURES, "with the features"),
    ] {
        forge(&plugin, field, &other(field), &library);
        let list = text(&rqlab(dir, &["--plugins", "plugins", "plugins", "list"]));
        let refusal = list.split("refused").nth(1).unwrap_or_default();
        assert!(refusal.contains(reason) && refusal.contains("rqlab plugins build"), "{list}");
        assert!(!has_row(&list, &["quantizer", "outside"]), "{list}");
    }
    // An experiment that names it is told.
    fs::write(dir.join("x.ron"), "(data: a, autoencoder: b, quantizer: outside)").unwrap();
    let plan = rqlab(dir, &["--plugins", "plugins", "plan", "x.ron"]);
    assert_eq!(plan.status.code(), Some(2));
    assert!(
        text(&plan).contains("libquantizer_outside.so was refused: it was built with the features"),
        "{}",
        text(&plan)
    );

    // Whatever a damaged file is called, since what it would provide cannot be asked.
    fs::remove_file(&library).unwrap();
    let mut cut = plugin.clone();
    cut[plugin.len() / 2..].fill(0);
    fs::write(dir.join("plugins/libstranger.so"), &cut).unwrap();
    let plan = text(&rqlab(dir, &["--plugins", "plugins", "plan", "x.ron"]));
    // The second where there are no others beside the program.
    let is_told = ["no plugin provides the quantizer `outside`", "all plugins that were found are refused"];
    assert!(is_told.iter().any(|words| plan.contains(words)), "{plan}");
    assert!(
        plan.contains("libstranger.so was refused: it is no shared library of this system, or a damaged"),
        "{plan}"
    );
    fs::remove_file(dir.join("plugins/libstranger.so")).unwrap();

    // The same component from two plugins, of which another linker made one: whoever names it is told.
    fs::write(&library, &plugin).unwrap();
    let copy = dir.join("plugins/libcopy.so");
    let mut changed = plugin.clone();
    if let Some(at) = find(&plugin, SIGNATURE) {
        changed[at..at + SIGNATURE.len()].copy_from_slice(b"Linker: XYZ ");
    }
    changed.push(0);
    fs::write(&copy, changed).unwrap();
    let plan = text(&rqlab(dir, &["--plugins", "plugins", "plan", "x.ron"]));
    assert!(plan.contains("the quantizer `outside` is provided by more than one plugin"), "{plan}");
}

#[test]
fn a_library_that_is_no_plugin_is_left_alone_unless_it_is_named() {
    let lab = tempfile::tempdir().unwrap();
    let dir = lab.path();
    let sdk = Path::new(env!("CARGO_BIN_EXE_rqlab")).with_file_name("librqlab_sdk.so");
    fs::copy(sdk, dir.join("libplain.so")).unwrap();
    let list = text(&rqlab(dir, &["--plugins", ".", "plugins", "list"]));
    assert!(!list.contains("libplain"), "{list}");
    let list = text(&rqlab(dir, &["--plugins", "libplain.so", "plugins", "list"]));
    assert!(list.contains("it has no `.rqlab` section"), "{list}");
    let missing = rqlab(dir, &["--plugins", "nowhere", "plugins", "list"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing).contains("nowhere: there is no such directory of plugins"), "{}", text(&missing));
}

#[test]
fn a_broken_file_among_plugins_is_listed_with_the_reason() {
    let lab = tempfile::tempdir().unwrap();
    let dir = lab.path();
    let sdk = fs::read(Path::new(env!("CARGO_BIN_EXE_rqlab")).with_file_name("librqlab_sdk.so")).unwrap();
    for (name, bytes) in
        [("libtext.so", &b"not a library"[..]), ("libempty.so", b""), ("libcut.so", &sdk[..sdk.len() / 2])]
    {
        fs::write(dir.join(name), bytes).unwrap();
        for search in [".", name] {
            let list = text(&rqlab(dir, &["--plugins", search, "plugins", "list"]));
            let refusal = list.split("refused  ").nth(1).unwrap_or_default();
            assert!(refusal.contains(name) && refusal.contains("or a damaged one"), "{list}");
        }
        fs::remove_file(dir.join(name)).unwrap();
    }
}

/// Whatever is damaged, the file is named, and the process lives. Many of these end a process that loads the library. What a linker
/// made that leaves no digest may also work by chance.
#[test]
#[cfg(target_os = "linux")]
fn a_damaged_plugin_is_named_and_ends_nothing() {
    let lab = tempfile::tempdir().unwrap();
    let dir = lab.path();
    let built = Path::new(env!("CARGO_BIN_EXE_rqlab")).with_file_name("librqlab_quantizer_vq.so");
    let Ok(plugin) = fs::read(&built) else {
        panic!("{} is missing; build it with `cargo build --release --workspace`", built.display())
    };
    let file = dir.join("libdamaged.so");
    let list = |what: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rqlab"));
        command.env("NO_COLOR", "1").env("XDG_CACHE_HOME", dir).current_dir(dir);
        let output = command.args(["--plugins", ".", "plugins", "list"]).output().unwrap();
        let list = text(&output);
        assert_eq!(output.status.code(), Some(0), "{what}\n{list}");
        assert!(list.contains("libdamaged.so"), "{what}\n{list}");
        list
    };
    fs::write(&file, &plugin).unwrap();
    let digested = find(&plugin, SIGNATURE).is_some();
    // Code, numbers, relocations, symbols, and the tables of them all.
    let parsed = object::File::parse(&*plugin).unwrap();
    let sections = [".text", ".rodata", ".data.rel.ro", ".rela.dyn", ".dynsym", ".dynstr", ".dynamic", ".symtab"];
    let ranges = sections.iter().filter_map(|name| parsed.section_by_name(name)?.file_range());
    let within = ranges.flat_map(|(at, length)| [at, at + length / 2, at + length - 1]).map(|at| at as usize);
    let head = [18, 32, 40, 58, 60, 191, 250, 322];
    for at in head.into_iter().chain(within).chain([plugin.len() - 1]) {
        let mut flipped = plugin.clone();
        flipped[at] ^= 0x10;
        fs::write(&file, &flipped).unwrap();
        let list = list(&format!("byte {at}"));
        let refusal = list.split("refused  ").nth(1).unwrap_or_default();
        assert!(refusal.contains("damaged") || !digested, "byte {at}\n{list}");
    }

    // As after a copy that lost its end, on a file system that keeps the length.
    let mut sparse = plugin.clone();
    sparse[plugin.len() / 2..].fill(0);
    fs::write(&file, &sparse).unwrap();
    assert!(list("half of it is lost").contains("or a damaged one"));
    // The handshake is there, and its section has lost its name.
    let name = plugin.windows(7).rposition(|window| window == b".rqlab\0").unwrap();
    let mut renamed = plugin.clone();
    renamed[name + 1] ^= 1;
    fs::write(&file, &renamed).unwrap();
    assert!(list("the section has another name").contains("or a damaged one"));
    // Nobody writes into it.
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    assert!(list("a FIFO").contains("it is a FIFO, not a file"));
}

#[test]
fn a_plugin_needs_a_name_and_a_place() {
    let lab = tempfile::tempdir().unwrap();
    let made = rqlab(lab.path(), &["plugins", "new", "My-Plugin", "--kind", "prior"]);
    assert_eq!(made.status.code(), Some(2));
    assert!(text(&made).contains("small letters, digits and underscores"), "{}", text(&made));
    fs::create_dir_all(lab.path().join("taken/src")).unwrap();
    let made = rqlab(lab.path(), &["plugins", "new", "taken", "--kind", "prior"]);
    assert!(text(&made).contains("is there already and is not empty"), "{}", text(&made));
    let built = rqlab(lab.path(), &["plugins", "build", "."]);
    assert!(text(&built).contains("it has no Cargo.toml"), "{}", text(&built));
}

#[test]
fn an_experiment_is_found_by_its_stem() {
    let lab = tempfile::tempdir().unwrap();
    fs::create_dir_all(lab.path().join("experiments/paper")).unwrap();
    fs::write(lab.path().join("experiments/depth.ron"), "(").unwrap();
    fs::write(lab.path().join("experiments/paper/big.ron"), "(").unwrap();
    let said = |name: &str| text(&rqlab(lab.path(), &["plan", name]));
    assert!(said("depth").contains("experiments/depth.ron:1:"), "{}", said("depth"));
    assert!(said("paper/big").contains("experiments/paper/big.ron:1:"), "{}", said("paper/big"));
    let wrong = said("dept");
    assert!(wrong.contains("there is no experiment `dept`") && wrong.contains("did you mean `depth`?"), "{wrong}");
    assert!(said("dpeth.ron").contains("did you mean `depth`?"), "{}", said("dpeth.ron"));
}
