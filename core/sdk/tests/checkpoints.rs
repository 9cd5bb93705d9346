//! Checkpoints: whatever is written is read back, and whatever else is read is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::properties;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rqlab_sdk::Error;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::tensor::{Codes, Tensor};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// A file in a folder of its own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("model.safetensors")
    }

    /// Reads a file of these bytes. An error must name the file and say what to do.
    fn load(&self, bytes: &[u8]) -> Option<Checkpoint> {
        fs::write(self.file(), bytes).unwrap();
        let loaded = Checkpoint::load(&self.file());
        let metadata = Checkpoint::read_metadata(&self.file());
        match loaded {
            Ok(checkpoint) => {
                assert_eq!(metadata.unwrap(), checkpoint.metadata);
                Some(checkpoint)
            }
            Err(error) => {
                let text = error.to_string();
                assert!(matches!(error, Error::Checkpoint(_)), "{text}");
                assert!(text.contains("model.safetensors") && text.contains("to start afresh"), "{text}");
                None
            }
        }
    }
}

/// A name: any text, and often one of few, so that names meet.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]", "\\PC{0,12}", any::<String>()].prop_filter("the format's own", |name| name != "__metadata__")
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    vec(0..5usize, 0..4)
}

/// A tensor of any bits, those of NaN included.
fn tensor() -> impl Strategy<Value = Tensor> {
    shape().prop_flat_map(|shape| {
        let numbers = vec(any::<u32>().prop_map(f32::from_bits), shape.iter().product::<usize>());
        numbers.prop_map(move |numbers| Tensor::from_vec(numbers, &shape).unwrap())
    })
}

fn codes() -> impl Strategy<Value = Codes> {
    shape().prop_flat_map(|shape| {
        let numbers = vec(any::<u32>(), shape.iter().product::<usize>());
        numbers.prop_map(move |numbers| Codes::from_vec(numbers, &shape).unwrap())
    })
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    let parts = (
        btree_map(name(), tensor(), 0..6),
        btree_map(name(), codes(), 0..4),
        btree_map(any::<String>(), any::<String>(), 0..4),
    );
    parts.prop_map(|(tensors, mut codes, metadata)| {
        codes.retain(|name, _| !tensors.contains_key(name));
        Checkpoint { tensors, codes, metadata }
    })
}

/// Names, shapes and bits.
fn contents(tensors: &BTreeMap<String, Tensor>) -> Vec<(&str, &[usize], Vec<u32>)> {
    let bits = |tensor: &Tensor| tensor.as_slice().iter().map(|x| x.to_bits()).collect();
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape(), bits(tensor))).collect()
}

fn saved(place: &Place, checkpoint: &Checkpoint) -> Vec<u8> {
    checkpoint.save(&place.file()).unwrap();
    fs::read(place.file()).unwrap()
}

/// Damage: bytes replaced, inserted and taken out.
fn damaged(mut bytes: Vec<u8>, damage: &[(Index, u8, u8)]) -> Vec<u8> {
    for (at, how, byte) in damage {
        let at = at.index(bytes.len().max(1));
        match how % 3 {
            _ if bytes.is_empty() => bytes.push(*byte),
            0 => bytes[at] = *byte,
            1 => bytes.insert(at, *byte),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

/// One entry of a header that may say anything.
fn entry() -> impl Strategy<Value = String> {
    let size = prop_oneof![0..9u64, Just(1 << 31), Just(1 << 40), Just(1 << 62), Just(u64::MAX), any::<u64>()];
    let dtype = select(vec!["F32", "U32", "I64", "BF16", "F64", "BOOL", "F4", "X"]);
    (name(), dtype, vec(size.clone(), 0..4), size.clone(), size).prop_map(|(name, dtype, shape, start, end)| {
        let name = serde_json::json!(name);
        format!("{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}")
    })
}

proptest! {
    #![proptest_config(properties())]

    #[test]
    fn what_is_written_is_read_back(checkpoint in checkpoint()) {
        let place = Place::new();
        let bytes = saved(&place, &checkpoint);
        let read = Checkpoint::load(&place.file()).unwrap();
        prop_assert_eq!(contents(&read.tensors), contents(&checkpoint.tensors));
        prop_assert_eq!(&read.codes, &checkpoint.codes);
        prop_assert_eq!(&read.metadata, &checkpoint.metadata);
        prop_assert_eq!(saved(&place, &read), bytes);
    }

    #[test]
    fn what_is_cut_off_is_refused(checkpoint in checkpoint(), end in any::<Index>()) {
        let place = Place::new();
        let bytes = saved(&place, &checkpoint);
        prop_assert!(place.load(&bytes[..end.index(bytes.len())]).is_none());
    }

    #[test]
    fn what_is_damaged_is_refused_or_read(
        checkpoint in checkpoint(),
        damage in vec(any::<(Index, u8, u8)>(), 1..6),
    ) {
        let place = Place::new();
        let bytes = saved(&place, &checkpoint);
        // Other numbers, or another name, cannot be told from right ones; what comes is as large as the file at most.
        if let Some(read) = place.load(&damaged(bytes.clone(), &damage)) {
            let numbers = read.tensors.values().map(Tensor::len).chain(read.codes.values().map(Codes::len));
            prop_assert!(4 * numbers.sum::<usize>() <= bytes.len() + damage.len());
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_refused(bytes in vec(any::<u8>(), 0..64)) {
        prop_assert!(Place::new().load(&bytes).is_none());
    }

    /// A header that lies about sizes is found out before memory is asked for: 2^62 bytes of it would end the process.
    #[test]
    fn sizes_that_the_file_does_not_have_are_not_believed(
        entries in vec(entry(), 1..4),
        data in vec(any::<u8>(), 0..40),
        length in prop_oneof![9 => Just(None), 1 => any::<u64>().prop_map(Some)],
    ) {
        let header = format!("{{{}}}", entries.join(","));
        let length = length.unwrap_or(header.len() as u64);
        let bytes = [&length.to_le_bytes(), header.as_bytes(), &data].concat();
        if let Some(read) = Place::new().load(&bytes) {
            let codes = read.codes.values().map(Codes::len).sum::<usize>();
            let tensors = read.tensors.values().map(Tensor::len).sum::<usize>();
            // A code takes 4 bytes or 8.
            prop_assert!((4 * codes..=8 * codes).contains(&(data.len() - 4 * tensors)));
        }
    }

    #[test]
    fn deep_headers_are_refused(depth in 1..100_000usize, open in select(vec!["[", "{\"a\":"])) {
        let header = format!("{{\"a\":{}", open.repeat(depth));
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        prop_assert!(Place::new().load(&bytes).is_none());
    }
}

/// The numbers of two tensors lie one behind the other: nothing is shared, nothing between them, and in the order said.
#[test]
fn tensors_that_overlap_or_leave_a_gap_are_refused() {
    let load = |first: [usize; 2], second: [usize; 2], bytes: usize| {
        let entry = |at| format!("{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{at:?}}}");
        let header = format!("{{\"a\":{},\"b\":{}}}", entry(first), entry(second));
        let data = (0..bytes as u8).collect::<Vec<_>>();
        Place::new().load(&[&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat())
    };
    let read = load([4, 8], [0, 4], 8).unwrap();
    assert_eq!(read.tensors["b"].as_slice(), [f32::from_le_bytes([0, 1, 2, 3])]);
    for (first, second, bytes) in
        [([0, 4], [0, 4], 4), ([0, 4], [2, 6], 6), ([0, 4], [8, 12], 12), ([4, 8], [8, 12], 12), ([0, 4], [8, 4], 8)]
    {
        assert!(load(first, second, bytes).is_none(), "{first:?} {second:?}");
    }
}

/// The header's own entry is called so: a tensor of that name would replace it, and could not be read again.
#[test]
fn the_name_of_the_metadata_is_taken() {
    let place = Place::new();
    let name = "__metadata__".to_owned();
    let tensors = Checkpoint { tensors: [(name.clone(), Tensor::scalar(0.0))].into(), ..Checkpoint::default() };
    let codes = Codes::from_vec(vec![0], &[1]).unwrap();
    let codes = Checkpoint { codes: [(name, codes)].into(), ..Checkpoint::default() };
    for checkpoint in [tensors, codes] {
        let error = checkpoint.save(&place.file()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors") && error.contains("`__metadata__`"), "{error}");
        assert!(!place.file().exists());
    }
}
