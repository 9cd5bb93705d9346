//! Kernels on disk: the compiler takes seconds, and every stage of a sweep is a process that needs the same kernels.
//!
//! A file is named after all that determines its contents, and begins with a digest of them. Whatever is wrong with it or
//! with its folder, the kernels are compiled as if it were not there. What the driver then makes of PTX for the GPU at hand
//! it keeps in a cache of its own.

use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

/// The user's folder of kernels: `rqlab/kernels` in `$XDG_CACHE_HOME` or, without it, in `$HOME/.cache`.
pub(crate) fn folder() -> Option<PathBuf> {
    folder_in(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"))
}

/// A relative path counts as none, as the XDG base directory specification has it.
fn folder_in(cache: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let cache = cache.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".cache")))?;
    Some(cache.join("rqlab").join("kernels"))
}

/// The name of the file whose contents `parts` determine.
pub(crate) fn name(parts: &[&str]) -> String {
    let mut digest = blake3::Hasher::new();
    for part in parts {
        digest.update(&(part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    }
    format!("{}.ptx", digest.finalize().to_hex())
}

/// Loads the PTX in `file`, or else what is compiled, which the file then holds.
///
/// # Errors
/// If it cannot be compiled, or if what is compiled does not load.
pub(crate) fn load_or_compile<E>(
    file: Option<&Path>,
    load: impl Fn(String) -> Result<(), E>,
    compile: impl FnOnce() -> Result<String, E>,
) -> Result<(), E> {
    if let Some(ptx) = file.and_then(read)
        && load(ptx).is_ok()
    {
        return Ok(());
    }
    let ptx = compile()?;
    load(ptx.clone())?;
    if let Some(file) = file {
        // Without it, the next process compiles as this one did.
        let _ = write(file, &ptx);
    }
    Ok(())
}

/// The first line: a comment in PTX.
fn title(ptx: &str) -> String {
    format!("// {}", blake3::hash(ptx.as_bytes()).to_hex())
}

/// The PTX in `file`, if it is whole.
fn read(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let (first, ptx) = text.split_once('\n')?;
    (first == title(ptx)).then(|| ptx.to_owned())
}

/// Writes beside the file's place and renames, so that others that start at the same time read all of it or nothing.
fn write(file: &Path, ptx: &str) -> io::Result<()> {
    fs::create_dir_all(file.parent().unwrap_or(Path::new("")))?;
    // Unlike numbers of processes, this one differs among machines that share the folder.
    let unique = RandomState::new().build_hasher().finish();
    let beside = file.with_extension(format!("{unique:016x}"));
    let written = fs::write(&beside, format!("{}\n{ptx}", title(ptx))).and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::{folder_in, load_or_compile, name, read};
    use std::cell::{Cell, RefCell};
    use std::fs;
    use std::path::{Path, PathBuf};

    const PTX: &str = ".version 7.0\n.target sm_80\n";

    /// Loads what is in `file` or compiled, all of which loads but `broken`: what was loaded, and whether it was compiled.
    fn run(file: Option<&Path>, broken: &str) -> (Result<(), &'static str>, String, bool) {
        let (loaded, compiled) = (RefCell::new(String::new()), Cell::new(false));
        let load = |ptx: String| {
            if ptx == broken {
                return Err("it does not load");
            }
            *loaded.borrow_mut() = ptx;
            Ok(())
        };
        let compile = || {
            compiled.set(true);
            Ok(PTX.to_owned())
        };
        let result = load_or_compile(file, load, compile);
        (result, loaded.into_inner(), compiled.get())
    }

    fn with_file(body: impl Fn(&Path)) {
        let folder = tempfile::tempdir().unwrap();
        body(&folder.path().join("a").join("b").join("kernels.ptx"));
    }

    const COMPILED: (Result<(), &str>, &str, bool) = (Ok(()), PTX, true);
    const FOUND: (Result<(), &str>, &str, bool) = (Ok(()), PTX, false);

    fn check(file: Option<&Path>, wanted: (Result<(), &str>, &str, bool)) {
        let (result, loaded, compiled) = run(file, "");
        assert_eq!((result, loaded.as_str(), compiled), wanted);
    }

    #[test]
    fn the_second_process_finds_what_the_first_compiled() {
        with_file(|file| {
            check(Some(file), COMPILED);
            check(Some(file), FOUND);
            let files: Vec<PathBuf> =
                fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(files, [file]);
        });
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        with_file(|file| {
            check(Some(file), COMPILED);
            let whole = fs::read(file).unwrap();
            for damaged in [&whole[..whole.len() - 1], &whole[..40], b"", b"\n", b"\xff\n\0", &whole.repeat(2)] {
                fs::write(file, damaged).unwrap();
                check(Some(file), COMPILED);
                check(Some(file), FOUND);
            }
        });
    }

    #[test]
    fn a_file_that_does_not_load_is_replaced() {
        with_file(|file| {
            assert_eq!(load_or_compile(Some(file), |_| Ok::<_, ()>(()), || Ok("of old".to_owned())), Ok(()));
            assert_eq!(read(file).unwrap(), "of old");
            assert_eq!(run(Some(file), "of old"), (Ok(()), PTX.to_owned(), true));
            check(Some(file), FOUND);
        });
    }

    #[test]
    fn what_does_not_load_is_not_kept() {
        with_file(|file| {
            assert_eq!(run(Some(file), PTX), (Err("it does not load"), String::new(), true));
            assert!(!file.exists());
        });
    }

    #[test]
    fn without_a_folder_kernels_are_compiled() {
        check(None, COMPILED);
        with_file(|file| {
            // A file stands where a folder should be.
            let parent = file.parent().unwrap();
            fs::create_dir_all(parent.parent().unwrap()).unwrap();
            fs::write(parent, "").unwrap();
            check(Some(file), COMPILED);
            check(Some(file), COMPILED);
        });
    }

    #[test]
    fn nothing_is_left_where_a_file_cannot_take_its_place() {
        with_file(|file| {
            fs::create_dir_all(file.join("not empty")).unwrap();
            check(Some(file), COMPILED);
            assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        });
    }

    #[test]
    fn names_tell_all_parts_apart() {
        let names = [name(&["ab", "c"]), name(&["a", "bc"]), name(&["abc"]), name(&["ab", "c", ""])];
        for (i, one) in names.iter().enumerate() {
            assert!(!names[..i].contains(one), "{one}");
        }
        assert_eq!(name(&["ab", "c"]), names[0]);
    }

    #[test]
    fn the_folder_is_where_the_user_keeps_caches() {
        let folder = |cache: &str, home: &str| folder_in(Some(cache.into()), Some(home.into()));
        assert_eq!(folder("/c", "/h"), Some("/c/rqlab/kernels".into()));
        for relative in ["", "c"] {
            assert_eq!(folder(relative, "/h"), Some("/h/.cache/rqlab/kernels".into()));
            assert_eq!(folder(relative, ""), None);
        }
        assert_eq!(folder_in(None, Some("/h".into())), Some("/h/.cache/rqlab/kernels".into()));
        assert_eq!(folder_in(None, None), None);
    }
}
