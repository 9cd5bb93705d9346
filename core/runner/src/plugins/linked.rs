//! Whether a library still is what its linker wrote.
//!
//! LLD, with which rustc links, writes a digest of the whole file into it as the build id: the first 20 bytes of the BLAKE3 of
//! those of each MiB, all taken while its own place held zeros (`lld/ELF/Writer.cpp`, `computeHash`). It is taken here again, so
//! that a plugin carries a digest of its own however it was built, and one bit of damage anywhere is found before a byte is run.

use std::sync::OnceLock;
use std::{env, fs};

/// How LLD signs what it links, in the section `.comment`.
const SIGNATURE: &[u8] = b"Linker: LLD ";
/// The head of the note that holds a build id: lengths of the name and of the id, the kind, the name.
const NOTE: &[u8] = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
/// Bytes of a build id.
const LENGTH: usize = 20;
/// Bytes that are digested apart.
const PART: usize = 1 << 20;

/// Whether bytes of a library have changed since it was linked. False where that cannot be told: another linker made it, or the
/// one that made this program leaves no such digest.
pub(super) fn is_altered(bytes: &[u8]) -> bool {
    /// Whether this program, of the same compiler, carries a digest as described above.
    static TELLS: OnceLock<bool> = OnceLock::new();
    let tells = || env::current_exe().and_then(fs::read).is_ok_and(|own| is_as_linked(&own));
    find(bytes, SIGNATURE).is_some() && !is_as_linked(bytes) && *TELLS.get_or_init(tells)
}

fn is_as_linked(bytes: &[u8]) -> bool {
    let Some(at) = find(bytes, NOTE).map(|at| at + NOTE.len()) else { return false };
    let Some(id) = bytes.get(at..at + LENGTH) else { return false };
    let parts: Vec<u8> = bytes.chunks(PART).enumerate().flat_map(|(n, part)| unsigned(part, n * PART, at)).collect();
    digest(blake3::hash(&parts)) == id
}

/// The digest of a part that begins at `start`, as if the digest of the whole, at `at`, held zeros.
fn unsigned(part: &[u8], start: usize, at: usize) -> [u8; LENGTH] {
    let within = |place: usize| place.clamp(start, start + part.len()) - start;
    let (from, to) = (within(at), within(at + LENGTH));
    let mut hasher = blake3::Hasher::new();
    hasher.update(&part[..from]).update(&[0; LENGTH][..to - from]).update(&part[to..]);
    digest(hasher.finalize())
}

fn digest(whole: blake3::Hash) -> [u8; LENGTH] {
    std::array::from_fn(|i| whole.as_bytes()[i])
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of these bytes around a note with its digest, signed.
    fn linked(before: usize, after: usize) -> Vec<u8> {
        let mut file: Vec<u8> = (0..before).map(|i| i as u8).chain(NOTE.iter().copied()).collect();
        let at = file.len();
        file.resize(at + LENGTH, 0);
        file.extend((0..after).map(|i| (i / 7) as u8));
        file.extend(SIGNATURE);
        let parts: Vec<u8> = file.chunks(PART).flat_map(|part| digest(blake3::hash(part))).collect();
        file[at..at + LENGTH].copy_from_slice(&digest(blake3::hash(&parts)));
        file
    }

    #[test]
    fn a_bit_anywhere_is_told() {
        for (before, after) in [(0, 0), (64, 300), (100, PART + 5), (PART - NOTE.len() - 5, 60)] {
            let file = linked(before, after);
            assert!(is_as_linked(&file));
            for at in [0, before, before + NOTE.len(), file.len() / 2, file.len() - 1] {
                let mut flipped = file.clone();
                flipped[at] ^= 1;
                assert!(!is_as_linked(&flipped), "byte {at} of {}", file.len());
            }
        }
        assert!(!is_as_linked(b"no note"));
        assert!(!is_as_linked(NOTE));
        // What another linker made is not judged.
        assert!(!is_altered(b"Linker: another"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_program_is_as_it_was_linked_where_lld_linked_it() {
        let own = env::current_exe().and_then(fs::read).unwrap_or_default();
        assert!(find(&own, SIGNATURE).is_none() || !is_altered(&own));
    }
}
