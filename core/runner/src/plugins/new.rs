//! `rqlab plugins new`: a small crate that builds, works, and is to be changed.

use crate::experiment::Diagnostic;
use rqlab_sdk::plugin::{Kind, RUSTC};
use std::fs;
use std::path::Path;

/// Makes the crate in `dir`.
///
/// # Errors
/// A name that no crate can have, a directory that holds something already, or one that cannot be written.
pub fn create(name: &str, kind: Kind, dir: &Path) -> Result<(), Diagnostic> {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !starts || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return Err(Diagnostic::error(format!("`{name}` cannot be the name of a component"))
            .help("a name is made of small letters, digits and underscores, and begins with a letter"));
    }
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Diagnostic::error(format!("{} is there already and is not empty", dir.display()))
            .help("`--dir DIR` makes the plugin elsewhere"));
    }
    let code = match kind {
        Kind::Dataset => include_str!("templates/dataset.rs.txt"),
        Kind::Autoencoder => include_str!("templates/autoencoder.rs.txt"),
        Kind::Quantizer => include_str!("templates/quantizer.rs.txt"),
        Kind::Prior => include_str!("templates/prior.rs.txt"),
        Kind::Objective => include_str!("templates/objective.rs.txt"),
    };
    let release = RUSTC.split_whitespace().nth(1).unwrap_or("stable");
    let fill = |text: &str| {
        text.replace("@name@", name)
            .replace("@Name@", &camel(name))
            .replace("@kind@", kind.name())
            .replace("@crate@", &format!("{}-{}", kind.name(), name.replace('_', "-")))
            .replace("@rust@", release)
    };
    let files = [
        ("Cargo.toml", include_str!("templates/Cargo.toml.txt")),
        ("rust-toolchain.toml", include_str!("templates/rust-toolchain.toml.txt")),
        ("README.md", include_str!("templates/README.md.txt")),
        (".gitignore", "/target\n"),
        ("src/lib.rs", code),
    ];
    let write = || {
        fs::create_dir_all(dir.join("src"))?;
        files.iter().try_for_each(|(path, text)| fs::write(dir.join(path), fill(text)))
    };
    write().map_err(|error| Diagnostic::error(format!("{}: {error}", dir.display())))
}

/// `rq_transformer` as `RqTransformer`.
fn camel(name: &str) -> String {
    let word = |word: &str| {
        let mut chars = word.chars();
        chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
    };
    name.split('_').map(word).collect()
}
