//! Files that are made here, byte by byte: what is read of them, what is refused, and that nothing panics however they are
//! changed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archive;

use archive::archive;
use proptest::prelude::*;
use rqlab_weights::{Checkpoint, Result, Value};
use std::fs;

/// The pickle of `{"model": {"w": TENSOR}, "epoch": 7}`, with a tensor of 2 x 3 floats over storage 0.
fn pickle() -> Vec<u8> {
    let text = |text: &str| [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let storage =
        [b"(".to_vec(), text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text("0"), text("cuda:0")].concat();
    let tensor =
        [b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec(), storage, b"K\x06tQK\0K\x02K\x03\x86K\x03K\x01\x86".to_vec()];
    let tensor = [tensor.concat(), b"\x89ccollections\nOrderedDict\n)RtR".to_vec()].concat();
    let model = [b"}".to_vec(), text("w"), tensor, b"s".to_vec()].concat();
    [b"\x80\x02}(".to_vec(), text("model"), model, text("epoch"), b"K\x07u.".to_vec()].concat()
}

fn numbers() -> Vec<u8> {
    [1.5f32, -2.0, 0.25, 3.0, 4.0, -0.0].map(f32::to_le_bytes).concat()
}

fn good() -> Vec<u8> {
    archive(&[("run/data.pkl", &pickle()), ("run/data/0", &numbers()), ("run/version", b"3\n")])
}

/// Opens a file of these bytes and reads all its tensors.
fn read(bytes: &[u8]) -> Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pt");
    fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(&path)?;
    for tensor in checkpoint.tensors().into_values() {
        assert!(checkpoint.read(tensor)?.len() as u64 == tensor.bytes() && tensor.bytes() <= bytes.len() as u64);
    }
    Ok(checkpoint)
}

#[test]
fn values_are_read_with_their_paths() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pt");
    fs::write(&path, good()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.value("epoch"), Some(&Value::Int(7)));
    let tensor = checkpoint.tensors()["model/w"];
    assert_eq!(tensor.shape, [2, 3]);
    assert_eq!(checkpoint.read(tensor).unwrap(), numbers());
    assert_eq!(checkpoint.read_f32(tensor).unwrap(), [1.5, -2.0, 0.25, 3.0, 4.0, 0.0]);
}

#[test]
fn refusals_name_the_file_the_place_and_what_was_found() {
    let said = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    let pickled = |pickle: &[u8]| said(&archive(&[("run/data.pkl", pickle), ("run/data/0", &numbers())]));
    assert!(pickled(b"\x80\x02cos\nsystem\n.").contains("x.pt, byte 44: `os.system` has no place"));
    assert!(pickled(b"\x80\x02cos\nsystem\n.").contains("not run"));
    assert!(pickled(b"\x80\x02]q\0h\0a.").contains("a list holds itself"));
    assert!(
        pickled(&[b"\x80\x02".to_vec(), b"]".repeat(200), b"a".repeat(199), b".".to_vec()].concat())
            .contains("64 levels")
    );
    let laughs =
        (0..40u8).flat_map(|slot| [b"](".to_vec(), [b'h', slot.max(1) - 1].repeat(9), vec![b'e', b'q', slot]].concat());
    let laughs = [b"\x80\x02Nq\0".to_vec(), laughs.collect(), b"\x94".to_vec()].concat();
    // The lists below stay on the stack: all but the last are popped by a mark.
    let laughs = [b"\x80\x02(".as_slice(), &laughs[2..], b"t."].concat();
    assert!(pickled(&laughs).contains("written out many times"), "{}", pickled(&laughs));
    assert!(said(&archive(&[("run/data.pkl", &pickle())])).contains("no storage 0"));
    let short = archive(&[("run/data.pkl", &pickle()), ("run/data/0", &numbers()[..20])]);
    assert!(said(&short).contains("storage 0 has 20 bytes; its pickle says 24"));
    let twice = archive(&[("run/data.pkl", &pickle()), ("run/data.pkl", &pickle()), ("run/data/0", &numbers())]);
    assert!(said(&twice).contains("two entries"));
    let outside = archive(&[("run/data.pkl", &pickle()), ("../data/0", &numbers())]);
    assert!(said(&outside).contains("lies outside"));
    let script = archive(&[("run/data.pkl", &pickle()), ("run/code/a.py", b""), ("run/data/0", &numbers())]);
    assert!(said(&script).contains("TorchScript"));
    assert!(said(b"").contains("0 bytes"));
    assert!(said(&good()[..good().len() - 3]).contains("cut off"));
}

#[test]
fn parts_are_read_by_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let part = |name: &str| {
        let header = format!(r#"{{"{name}":{{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}}}"#);
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[3, 4]].concat()
    };
    fs::write(folder.path().join("1.safetensors"), part("a")).unwrap();
    fs::write(folder.path().join("2.safetensors"), part("b")).unwrap();
    let index = folder.path().join("x.safetensors.index.json");
    fs::write(&index, r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#).unwrap();
    let checkpoint = Checkpoint::open(&index).unwrap();
    assert_eq!(checkpoint.read(checkpoint.tensors()["b"]).unwrap(), [3, 4]);
    assert_eq!(checkpoint.files().count(), 2);
    fs::write(&index, r#"{"weight_map": {"a": "1.safetensors", "c": "2.safetensors"}}"#).unwrap();
    assert!(Checkpoint::open(&index).unwrap_err().to_string().contains("2.safetensors: it does not hold"));
    fs::write(&index, r#"{"weight_map": {"a": "../1.safetensors"}}"#).unwrap();
    assert!(Checkpoint::open(&index).unwrap_err().to_string().contains("not a plain name"));
}

proptest! {
    #[test]
    fn no_change_of_a_file_makes_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = good();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let _ = read(&bytes);
    }

    #[test]
    fn no_change_of_a_pickle_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
    ) {
        let mut pickle = pickle();
        for (place, value) in changes {
            let place = place.index(pickle.len());
            pickle[place] = value;
        }
        pickle.truncate(length.index(2 * pickle.len()));
        let _ = read(&archive(&[("run/data.pkl", &pickle), ("run/data/0", &numbers())]));
    }

    #[test]
    fn no_instructions_make_it_panic(
        instructions in prop::collection::vec(
            prop::sample::select(&b"()}]NK\x01tusaeq\0h\0RbQ210.\x81\x85\x86\x87\x88\x94X\x8c\x8a\x93"[..]),
            0..60,
        ),
    ) {
        let pickle = [b"\x80\x04".as_slice(), &instructions, b"."].concat();
        let _ = read(&archive(&[("run/data.pkl", &pickle), ("run/data/0", &numbers())]));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..3) {
        let start: &[u8] = [b"PK\x03\x04", b"\x80\x02\x8a\x0a", b"\x10\0\0\0"][kind as usize];
        let _ = read(&[start, &bytes].concat());
    }
}
