//! Finds plugins in directories, reads their handshakes from the files, and loads those that fit. A library that was
//! loaded stays loaded: components hold pointers into it.

use crate::experiment::Diagnostic;
use crate::plugins::{Origin, Plugins, Refused, linked, probe};
use libloading::Library;
use object::{BinaryFormat, Object, ObjectSection};
use rqlab_sdk::files;
use rqlab_sdk::plugin::{Fields, Handshake, Register, Registry, SDK_HASH, SECTION};
use std::collections::HashSet;
use std::env::{self, consts};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest library that is read, in bytes.
const LONGEST: u64 = 1 << 30;
/// The variable that holds more directories to search.
const VARIABLE: &str = "RQLAB_PLUGINS";

/// Where plugins are looked for, in this order.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Directories or files that the user names: they must be there.
    pub named: Vec<PathBuf>,
    /// Directories that are searched if they are there.
    pub usual: Vec<PathBuf>,
}

impl Search {
    /// What `--plugins` names, what `RQLAB_PLUGINS` names, the directory of the executable, `plugins` in it (where
    /// `rqlab plugins build` puts plugins), and `../lib/rqlab`.
    pub fn usual(mut named: Vec<PathBuf>) -> Self {
        named.extend(env::var_os(VARIABLE).iter().flat_map(env::split_paths).filter(|p| !p.as_os_str().is_empty()));
        let mut usual = Vec::new();
        if let Some(dir) = executable_dir() {
            usual.push(dir.clone());
            usual.push(dir.join("plugins"));
            usual.extend(dir.parent().map(|up| up.join("lib/rqlab")));
        }
        Self { named, usual }
    }
}

/// The directory of the executable.
pub(super) fn executable_dir() -> Option<PathBuf> {
    let exe = env::current_exe().and_then(fs::canonicalize).ok()?;
    exe.parent().map(Path::to_owned)
}

/// Why a file is no plugin that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotLoadable {
    /// It is a library without a handshake: it does not claim to be a plugin.
    NoPlugin(String),
    /// It is a plugin, but not one for this process; or a file that is damaged, and may have been one.
    Refused(Option<String>, String),
}

/// Reads a file's handshake without running any of its code.
///
/// # Errors
/// Why it cannot be loaded.
pub fn inspect(bytes: &[u8]) -> Result<Fields, NotLoadable> {
    let broken = || {
        let reason = "it is no shared library of this system, or a damaged one: build it again, or remove it";
        NotLoadable::Refused(handshake_in(bytes).map(|fields| fields.plugin), reason.to_owned())
    };
    let file = object::File::parse(bytes).map_err(|_| broken())?;
    if file.kind() != object::ObjectKind::Dynamic {
        return Err(broken());
    }
    let Some(section) = file.section_by_name(SECTION) else {
        if lacks_sections(&file) || handshake_in(bytes).is_some() {
            return Err(broken());
        }
        let reason = format!("it has no `{SECTION}` section: it is no rqlab plugin (does it call `declare_plugin!`?)");
        return Err(NotLoadable::NoPlugin(reason));
    };
    let fields = section.data().ok().and_then(Handshake::read).ok_or_else(|| {
        let reason = format!("its `{SECTION}` section has another format: it was built for another version of rqlab");
        NotLoadable::Refused(None, reason)
    })?;
    match fields.refusal() {
        Some(reason) => {
            let reason = format!("{reason}; build it again with `rqlab plugins build`");
            Err(NotLoadable::Refused(Some(fields.plugin), reason))
        }
        None if linked::is_altered(bytes) => {
            let reason = "it is damaged: its contents are not those that its linker took a digest of; build it again, or \
                          remove it";
            Err(NotLoadable::Refused(Some(fields.plugin), reason.to_owned()))
        }
        None => Ok(fields),
    }
}

/// Whether a library has none of the sections that every shared library has, as one whose end is lost.
fn lacks_sections(file: &object::File<'_>) -> bool {
    file.format() == BinaryFormat::Elf && file.section_by_name(".dynsym").is_none()
}

/// A handshake somewhere in a file: the name of its section may be damaged.
fn handshake_in(bytes: &[u8]) -> Option<Fields> {
    // It has the alignment of its numbers.
    (0..bytes.len()).step_by(align_of::<Handshake>()).find_map(|at| Handshake::read(&bytes[at..]))
}

pub(super) fn load(search: &Search) -> Result<Plugins, Diagnostic> {
    let mut plugins = Plugins::default();
    let mut seen = HashSet::new();
    for path in &search.named {
        if path.is_dir() {
            directory(path, &mut seen, &mut plugins);
        } else if path.exists() {
            plugins.searched.push(path.clone());
            candidate(path, true, &mut seen, &mut plugins);
        } else {
            return Err(Diagnostic::error(format!("{}: there is no such directory of plugins", path.display()))
                .help(format!("it is named by `--plugins` or by the variable {VARIABLE}")));
        }
    }
    for dir in search.usual.iter().filter(|dir| dir.is_dir()) {
        directory(dir, &mut seen, &mut plugins);
    }
    Ok(plugins)
}

fn directory(dir: &Path, seen: &mut HashSet<PathBuf>, plugins: &mut Plugins) {
    plugins.searched.push(dir.to_owned());
    let mut files: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(consts::DLL_PREFIX) && name.ends_with(consts::DLL_SUFFIX) {
            candidate(&path, false, seen, plugins);
        }
    }
}

fn candidate(path: &Path, named: bool, seen: &mut HashSet<PathBuf>, plugins: &mut Plugins) {
    if !seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())) {
        return;
    }
    let mut refuse = |plugin: Option<String>, reason: String| {
        plugins.refused.push(Refused { path: path.to_owned(), plugin, reason });
    };
    let bytes = match files::read(path, LONGEST) {
        Ok(bytes) => bytes,
        Err(error) => return refuse(None, error.to_string()),
    };
    let fields = match inspect(&bytes) {
        Ok(fields) => fields,
        // Other libraries may lie beside plugins.
        Err(NotLoadable::NoPlugin(_)) if !named => return,
        Err(NotLoadable::NoPlugin(reason)) => return refuse(None, reason),
        Err(NotLoadable::Refused(plugin, reason)) => return refuse(plugin, reason),
    };
    let digest = blake3::Hasher::new().update(&bytes).update(SDK_HASH.as_bytes()).finalize().to_hex().to_string();
    // The same file under two paths (a link that was broken, a copy) is one plugin.
    if plugins.provided.iter().any(|p| p.origin.digest == digest) {
        return;
    }
    match probe::check(path, &digest).and_then(|()| register(path, &fields)) {
        Ok(registry) => {
            let origin = Arc::new(Origin { plugin: fields.plugin, path: path.to_owned(), digest });
            registry.components.into_iter().for_each(|component| plugins.add(component, &origin));
        }
        Err(reason) => refuse(Some(fields.plugin), reason),
    }
}

/// Loads a plugin's file and lets it register, for nothing but to see whether that ends this process.
///
/// # Errors
/// Why it cannot be loaded.
pub(super) fn try_out(path: &Path) -> Result<(), String> {
    let bytes = files::read(path, LONGEST).map_err(|error| error.to_string())?;
    match inspect(&bytes) {
        Ok(fields) => register(path, &fields).map(drop),
        Err(NotLoadable::NoPlugin(reason) | NotLoadable::Refused(_, reason)) => Err(reason),
    }
}

/// Loads a library whose handshake fits, and lets it register.
fn register(path: &Path, fields: &Fields) -> Result<Registry, String> {
    let path = fs::canonicalize(path).map_err(|error| error.to_string())?;
    let library = open(&path).map_err(|error| {
        let stale = if error.to_string().contains("undefined symbol") {
            "; it was linked to another build of the SDK: build everything again, with `cargo build --release --workspace`, \
             or `rqlab plugins build` for a plugin of your own"
        } else {
            ""
        };
        format!("the system cannot load it: {error}{stale}")
    })?;
    // Components point into the library: it must never be unloaded.
    let library = Box::leak(Box::new(library));
    // SAFETY: the handshake says that `symbol` names a `Register`, and that the library was built by this compiler
    // against this very SDK, so that the function has this type and this ABI.
    #[allow(unsafe_code)]
    let register: Register = unsafe { library.get::<Register>(fields.symbol.as_bytes()) }
        .map(|symbol| *symbol)
        .map_err(|error| format!("it has no function `{}`: {error}", fields.symbol))?;
    let mut registry = Registry::default();
    super::make::quietly(|| catch_unwind(AssertUnwindSafe(|| register(&mut registry))))
        .map_err(|panic| format!("it panicked while registering: {}", super::make::panic_text(panic.as_ref())))?;
    if registry.components.is_empty() {
        return Err("it registers no component".to_owned());
    }
    Ok(registry)
}

#[cfg(unix)]
fn open(path: &Path) -> Result<Library, libloading::Error> {
    use libloading::os::unix::{Library as Unix, RTLD_LOCAL, RTLD_NOW};
    // All symbols are bound now: a missing one is an error here, not a crash in the middle of training.
    // SAFETY: a plugin's initialisers are those of a Rust library: none of its own. What else it runs is as trusted as
    // the experiment that names it.
    #[allow(unsafe_code)]
    unsafe { Unix::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map(Into::into)
}

#[cfg(not(unix))]
fn open(path: &Path) -> Result<Library, libloading::Error> {
    // SAFETY: as above.
    #[allow(unsafe_code)]
    unsafe {
        Library::new(path)
    }
}
