//! What a plugin's file says of itself is read whatever else the file holds: damage is refused, and never a panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::properties;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rqlab::plugins::{NotLoadable, inspect};
use rqlab_sdk::plugin::{FEATURES, Fields, Handshake, MAGIC, RUSTC, SDK_HASH, SECTION, TARGET};
use std::fs;
use std::path::Path;

/// The texts of a handshake, and the bytes that each has room for: as `Handshake` lays them out.
const ROOM: [usize; 6] = [64, 96, 64, 64, 64, 96];

/// A handshake of these texts, which are cut where they do not fit.
fn handshake(texts: [&str; 6]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend((size_of::<Handshake>() as u32).to_ne_bytes());
    bytes.extend([0; 4]);
    for (text, room) in texts.iter().zip(ROOM) {
        let mut field = text.as_bytes().to_vec();
        field.resize(room, 0);
        bytes.extend(field);
    }
    assert_eq!(bytes.len(), size_of::<Handshake>());
    bytes
}

/// That of a plugin of this very build.
fn fitting() -> Vec<u8> {
    handshake([SDK_HASH, RUSTC, TARGET, FEATURES, "toy", "rqlab_register_toy"])
}

fn texts(fields: &Fields) -> [&str; 6] {
    [&fields.sdk_hash, &fields.rustc, &fields.target, &fields.features, &fields.plugin, &fields.symbol]
}

/// A shared library of 64-bit ELF with nothing in it but one section.
fn library(section: &[u8]) -> Vec<u8> {
    const HEADER: usize = 64;
    let names = format!("\0{SECTION}\0.shstrtab\0");
    let names_at = HEADER + section.len();
    let table_at = (names_at + names.len()).next_multiple_of(8);
    let mut file = Vec::new();
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let halves = |file: &mut Vec<u8>, numbers: &[u16]| numbers.iter().for_each(|n| file.extend(n.to_le_bytes()));
    let words = |file: &mut Vec<u8>, numbers: &[u32]| numbers.iter().for_each(|n| file.extend(n.to_le_bytes()));
    let longs = |file: &mut Vec<u8>, numbers: &[usize]| {
        numbers.iter().for_each(|n| file.extend((*n as u64).to_le_bytes()));
    };
    halves(&mut file, &[3, 62]); // a shared object for x86-64
    words(&mut file, &[1]);
    longs(&mut file, &[0, 0, table_at]); // neither entry nor segments
    words(&mut file, &[0]);
    halves(&mut file, &[HEADER as u16, 56, 0, 64, 3, 2]); // three sections, the names in the last
    file.extend(section);
    file.extend(names.as_bytes());
    file.resize(table_at, 0);
    let sections = [[0; 4], [1, 1, HEADER, section.len()], [2 + SECTION.len(), 3, names_at, names.len()]];
    for [name, kind, at, size] in sections {
        words(&mut file, &[name as u32, kind as u32]);
        longs(&mut file, &[0, 0, at, size]);
        words(&mut file, &[0, 0]);
        longs(&mut file, &[1, 0]);
    }
    file
}

fn overwritten(mut bytes: Vec<u8>, damage: &[(Index, u8)]) -> Vec<u8> {
    damage.iter().for_each(|(at, byte)| *at.get_mut(&mut bytes) = *byte);
    bytes
}

/// What is accepted fits this build; what is refused says why.
fn check(bytes: &[u8]) {
    match inspect(bytes) {
        Ok(fields) => assert_eq!(texts(&fields)[..4], [SDK_HASH, RUSTC, TARGET, FEATURES]),
        Err(NotLoadable::NoPlugin(reason) | NotLoadable::Refused(_, reason)) => assert!(!reason.is_empty()),
    }
}

#[test]
fn a_plugin_of_this_build_is_accepted() {
    let fields = inspect(&library(&fitting())).unwrap();
    assert_eq!(texts(&fields), [SDK_HASH, RUSTC, TARGET, FEATURES, "toy", "rqlab_register_toy"]);
}

proptest! {
    #![proptest_config(properties())]

    #[test]
    fn texts_are_read_as_they_were_written(given in vec("[^\0]{0,16}", 6)) {
        let given: [&str; 6] = std::array::from_fn(|i| given[i].as_str());
        let read = Handshake::read(&handshake(given)).unwrap();
        prop_assert_eq!(texts(&read), given);
        // No text of this length is the compiler's.
        prop_assert!(read.refusal().is_some());
    }

    #[test]
    fn any_bytes_behind_the_magic_are_read(bytes in vec(any::<u8>(), size_of::<Handshake>()), more in 0..9usize) {
        let mut section = fitting();
        section[16..].copy_from_slice(&bytes[16..]);
        section.resize(section.len() + more, 0);
        let read = Handshake::read(&section).unwrap();
        prop_assert!(texts(&read).iter().all(|text| !text.contains('\0')));
        prop_assert!(inspect(&library(&section)).is_err());
    }

    #[test]
    fn a_handshake_cut_short_is_none(end in any::<Index>()) {
        let whole = fitting();
        let cut = &whole[..end.index(whole.len())];
        prop_assert_eq!(Handshake::read(cut), None);
        prop_assert!(inspect(&library(cut)).is_err());
    }

    #[test]
    fn what_does_not_begin_with_the_magic_and_the_size_is_none(at in 0..12usize, byte in any::<u8>()) {
        let mut bytes = fitting();
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert_eq!(Handshake::read(&bytes), None);
    }

    #[test]
    fn any_file_is_refused(bytes in vec(any::<u8>(), 0..600), elf in any::<bool>()) {
        let start = if elf { library(&[])[..20].to_vec() } else { Vec::new() };
        prop_assert!(inspect(&[start, bytes].concat()).is_err());
    }

    #[test]
    fn a_library_cut_short_is_refused(end in any::<Index>()) {
        let whole = library(&fitting());
        prop_assert!(inspect(&whole[..end.index(whole.len())]).is_err());
    }

    #[test]
    fn a_damaged_library_is_never_taken_for_another_build(damage in vec(any::<(Index, u8)>(), 1..8)) {
        check(&overwritten(library(&fitting()), &damage));
    }

    /// The head of a file and its table of sections say where everything is.
    #[test]
    fn places_in_a_library_that_are_wrong_are_found_out(
        in_head in vec((16..64usize, any::<u8>()), 0..4),
        in_table in vec((0..3 * 64usize, any::<u8>()), 0..4),
    ) {
        let mut bytes = library(&fitting());
        let table = bytes.len() - 3 * 64;
        for (at, byte) in in_head.into_iter().chain(in_table.into_iter().map(|(at, byte)| (table + at, byte))) {
            bytes[at] = byte;
        }
        check(&bytes);
    }
}

/// The SDK's own library has all that real ones have.
#[test]
fn a_real_library_that_is_damaged_or_cut_is_refused() {
    let sdk = Path::new(env!("CARGO_BIN_EXE_rqlab")).with_file_name("librqlab_sdk.so");
    let whole = fs::read(sdk).unwrap();
    for share in 1..64 {
        assert!(inspect(&whole[..whole.len() * share / 64]).is_err());
        let mut damaged = whole.clone();
        // One byte of the head after the magic: the class, the place of the sections, their number, ...
        damaged[share] ^= 0xff;
        assert!(inspect(&damaged).is_err());
    }
}
