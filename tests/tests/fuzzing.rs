//! Whatever stands in a file, it is read or refused: no panic, no loop without end, no memory beyond bounds. See
//! `docs/faults.md`.

#![cfg(target_os = "linux")] // Memory is bounded by `ulimit`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../core/weights/tests/archive/mod.rs"]
mod archive;

use archive::archive;
use rqlab::cluster::Submission;
use rqlab::experiment::{Invalid, read};
use rqlab::jobs::curves;
use rqlab::plan::plan;
use rqlab::plugins::{NotLoadable, Plugins, Search, inspect};
use rqlab::store::Store;
use rqlab_images::{Crop, Header, Preparation, Size};
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::config::Config;
use rqlab_sdk::contracts::{Dataset, DatasetContext, Split};
use rqlab_sdk::plugin::{FEATURES, Handshake, MAGIC, RUSTC, SDK_HASH, TARGET};
use rqlab_sdk::tensor::{Codes, Tensor};
use rqlab_tests::fuzz::Corpus;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A folder in which inputs are put into files, one after another.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        // In memory, where there is such a place: a million files are written.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self(folder.unwrap())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn fuzz(corpus: Corpus, read: impl Fn(&[u8])) {
    corpus.fuzz(read).unwrap_or_else(|found| panic!("{found}"));
}

/// What experiments are made of.
const EXPERIMENT: &str = r###"( ) [ ] { } , : . = " ' \ r#" "# // /* */ () 0 -1 2.5 1e999 99999999999999999999 0x1f 1_0 question base data
    autoencoder quantizer prior objective tokenizer_training prior_training evaluation axes sweep exclude when seeds report headline
    compare metric along from to at set grid zip cases case dead_leaves resnet vqvae2 vit rq vq fsq lfq bsq residual product multi_scale
    kl none ar var mar maskgit pixelsnail rq_transformer depth codebook width of steps "quantizer.depth" "psnr" true None Some inf NaN
    #![enable(implicit_some)]"###;

/// The plugins of this build.
fn plugins() -> Plugins {
    let built = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    Plugins::load(&Search { named: vec![built], usual: vec![] }).unwrap()
}

/// Plans it. What is said of it can be shown.
fn check(path: &Path, set: &[String], plugins: &Plugins) {
    let planned = read(path, set, None).and_then(|(document, _)| plan(&document, plugins));
    match planned {
        Ok(plan) => assert!(!plan.trials.is_empty()),
        Err(Invalid(complaints)) => {
            assert!(complaints.iter().all(|complaint| complaint.render(false).len() > 8) && !complaints.is_empty());
        }
    }
}

#[test]
fn experiments() {
    let (folder, plugins) = (Folder::new(), plugins());
    fuzz(Corpus::of("experiment").unwrap().words(EXPERIMENT), |bytes| {
        check(&folder.put("x.ron", bytes), &[], &plugins)
    });
}

#[test]
fn what_is_set() {
    let (folder, plugins) = (Folder::new(), plugins());
    let experiment = folder.put("x.ron", include_bytes!("../corpora/experiment/axes.ron"));
    fuzz(Corpus::of("set").unwrap().words(EXPERIMENT), |bytes| {
        check(&experiment, &[String::from_utf8_lossy(bytes).into_owned()], &plugins);
    });
}

/// A checkpoint of this laboratory.
fn checkpoint() -> Vec<u8> {
    let folder = Folder::new();
    let tensor = Tensor::from_vec(vec![0.5; 6], &[2, 3]).unwrap();
    let checkpoint = Checkpoint {
        tensors: [("decoder.w".to_owned(), tensor)].into(),
        codes: [("codes".to_owned(), Codes::from_vec(vec![1, 2], &[2]).unwrap())].into(),
        metadata: [("step".to_owned(), "7".to_owned())].into(),
    };
    let path = folder.0.path().join("x.safetensors");
    checkpoint.sealed().save(&path).unwrap();
    fs::read(path).unwrap()
}

const SAFETENSORS: &str =
    r#"__metadata__ dtype shape data_offsets F32 F16 BF16 F64 I64 U8 U32 BOOL F8_E4M3 {} [] [0,0] {"a": ,"w":"#;

#[test]
fn checkpoints() {
    let folder = Folder::new();
    fuzz(Corpus::of("checkpoint").unwrap().with([checkpoint()]).words(SAFETENSORS), |bytes| {
        let path = folder.put("x.safetensors", bytes);
        if let Ok(read) = Checkpoint::load(&path) {
            let numbers = read.tensors.values().map(Tensor::len).chain(read.codes.values().map(Codes::len));
            assert!(4 * numbers.sum::<usize>() <= bytes.len());
            assert_eq!(Checkpoint::read_metadata(&path).unwrap(), read.metadata);
        }
        let _ = Checkpoint::load_sealed(&path);
    });
}

/// Opens published weights, and reads them.
fn read_weights(path: &Path, length: usize) {
    let Ok(weights) = rqlab_weights::Checkpoint::open(path) else { return };
    for tensor in weights.tensors().into_values() {
        let read = weights.read(tensor).unwrap();
        assert!(read.len() as u64 == tensor.bytes() && read.len() <= length);
        assert!(weights.read_f32(tensor).unwrap().len() <= length);
    }
}

#[test]
fn published_weights() {
    let folder = Folder::new();
    let corpus = Corpus::of("weights").unwrap().with(Corpus::of("checkpoint").unwrap().files().to_vec());
    fuzz(corpus.with([checkpoint()]).words(SAFETENSORS), |bytes| {
        read_weights(&folder.put("x.pt", bytes), bytes.len());
    });
}

/// In a sound archive, whose checksums would hide them.
#[test]
fn pickles() {
    let folder = Folder::new();
    let words = "ctorch._utils\n_rebuild_tensor_v2\n ccollections\nOrderedDict\n ctorch\nFloatStorage\n cos\nsystem\n storage cpu ( ) } ]";
    fuzz(Corpus::of("pickle").unwrap().words(words), |bytes| {
        let storage = [7; 64];
        let entries = [("x/data.pkl", bytes), ("x/data/0", &storage), ("x/data/1", &storage), ("x/data/2", &storage)];
        let file = archive(&entries);
        read_weights(&folder.put("x.pt", &file), file.len());
    });
}

const SMALL: Preparation = Preparation {
    size: Some(Size { height: 8, width: 8 }),
    channels: 3,
    background: [255; 3],
    crop: Crop::Center,
    max_megapixels: 4,
};

/// The checksums of a PNG's chunks as its reader expects them, as far as its chunks can be followed.
fn with_checksums(mut png: Vec<u8>) -> Vec<u8> {
    let mut at = 8;
    while let Some(head) = png.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let end = at + 8 + length.min(1 << 24);
        let Some(sum) = png.get(at + 4..end).map(crc32fast::hash) else { break };
        let Some(place) = png.get_mut(end..end + 4) else { break };
        place.copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
    png
}

#[test]
fn images() {
    let words = "IHDR PLTE IDAT IEND tRNS eXIf acTL RIFF WEBP VP8X VP8L ANIM ANMF ALPH EXIF JFIF Exif P3 P6 P7 GIF89a NETSCAPE2.0";
    fuzz(Corpus::of("image").unwrap().words(words), |bytes| {
        let mended = bytes.starts_with(b"\x89PNG\r\n\x1a\n").then(|| with_checksums(bytes.to_vec()));
        let bytes = mended.as_deref().unwrap_or(bytes);
        if let Ok(picture) = SMALL.picture(bytes, None) {
            assert!(picture.size.iter().product::<usize>() * 3 == picture.bytes.len());
            assert!(Header::read(&mut &*bytes).is_ok());
        }
        let _ = SMALL.verified(bytes);
    });
}

/// Reads all images of a data set, and their captions.
fn read_images(set: rqlab_sdk::Result<impl Dataset>) {
    let Ok(set) = set else { return };
    for (split, count) in [(Split::Train, set.info().train), (Split::Test, set.info().test)] {
        let all: Vec<usize> = (0..count).collect();
        if let Ok(images) = set.batch(split, &all, None) {
            assert_eq!(images.labels.len(), count);
        }
        if set.caption_info().is_some() {
            let _ = set.captions(split, &all);
        }
    }
}

#[test]
fn parquet_tables() {
    let folder = Folder::new();
    let cx = DatasetContext::new(folder.0.path());
    let text = "parquet(train: [\"x.parquet\"], path: \".\", size: 8, caption_column: \"text\", max_megapixels: 4, bad_files: skip)";
    let corpus = Corpus::of("parquet")
        .unwrap()
        .words("PAR1 huggingface image bytes path label text names ClassLabel list element");
    fuzz(corpus, |bytes| {
        folder.put("x.parquet", bytes);
        let config = rqlab_dataset_parquet::ParquetConfig::parse(text).unwrap();
        read_images(rqlab_dataset_parquet::open(config, &cx));
    });
}

#[test]
fn shards() {
    let folder = Folder::new();
    let cx = DatasetContext::new(folder.0.path());
    let text = "webdataset(path: \"x.tar\", size: 8, captions: true, max_megapixels: 4, bad_files: skip)";
    fuzz(
        Corpus::of("webdataset")
            .unwrap()
            .words("ustar 000.png .cls .txt .json path= size= ././@LongLink 0000644 00000000017"),
        |bytes| {
            folder.put("x.tar", bytes);
            let config = rqlab_dataset_webdataset::WebDatasetConfig::parse(text).unwrap();
            read_images(rqlab_dataset_webdataset::open(config, &cx));
        },
    );
}

#[test]
fn tokenizers() {
    let words = "BPE WordPiece Unigram WordLevel ByteLevel Metaspace Split Replace Sequence Regex vocab merges null true [] {} \
                 (a*)*b [^a]{9} \\p{L}+ \u{2581} \u{120}";
    fuzz(Corpus::of("tokenizer").unwrap().words(words), |bytes| {
        let Ok(tokenizer) = rqlab_text::TextTokenizer::parse(&String::from_utf8_lossy(bytes)) else { return };
        for text in ["ab  a c\u{e9} ab", "", " aaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            if let Ok(encoded) = tokenizer.encode(text, 4) {
                assert!(
                    encoded.tokens.len() == 4 && encoded.tokens.iter().all(|&t| (t as usize) < tokenizer.vocabulary())
                );
            }
        }
    });
}

/// `done.json` with the seal that its contents ask for.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    const SEAL: std::ops::Range<usize> = 13..77;
    let mut bytes = bytes.to_vec();
    if let Some(rest) = bytes.get(SEAL.end..) {
        let seal = blake3::hash(rest).to_hex();
        bytes[SEAL].copy_from_slice(seal.as_bytes());
    }
    bytes
}

#[test]
fn files_of_a_store() {
    let folder = Folder::new();
    let root = folder.0.path();
    let store = Store::open(root).unwrap();
    for name in ["stages/x", "leases", "plan"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    folder.put("stages/x/result.safetensors", b"");
    let (stage, submission) = (store.stage("x"), Submission::at(&root.join("plan"), root));
    let words = "seal stage files readings timings curves seconds environment remeasured null [] {} \"..\" \"/etc/passwd\" points event";
    fuzz(Corpus::of("store").unwrap().words(words), |bytes| {
        folder.put("stages/x/done.json", &sealed(bytes));
        for name in [
            "stages/x/job.json",
            "stages/x/failed.json",
            "stages/x/events.jsonl",
            "leases/x",
            "plan/plan.json",
            "results.json",
        ] {
            folder.put(name, bytes);
        }
        let _ = (stage.verified(), stage.done(), stage.job(), stage.failed(), store.of_another_format());
        let _ = (curves::read(&stage), store.leases().all(), submission.read(), rqlab_reports::read(root));
    });
}

/// A shared library of 64-bit ELF with nothing in it but one section, that of a plugin of this very build.
fn library() -> Vec<u8> {
    const HEADER: usize = 64;
    const NAMES: &[u8] = b"\0.rqlab\0.shstrtab\0";
    let mut section = MAGIC.to_vec();
    section.extend((size_of::<Handshake>() as u32).to_ne_bytes());
    section.extend([0; 4]);
    for (text, room) in
        [SDK_HASH, RUSTC, TARGET, FEATURES, "toy", "rqlab_register_toy"].iter().zip([64, 96, 64, 64, 64, 96])
    {
        let mut field = text.as_bytes().to_vec();
        field.resize(room, 0);
        section.extend(field);
    }
    let names_at = HEADER + section.len();
    let table_at = (names_at + NAMES.len()).next_multiple_of(8);
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 62, 0, 1, 0, 0, 0];
    file.extend([0, 0, table_at as u64].map(u64::to_le_bytes).concat());
    file.extend([0; 4]);
    file.extend([HEADER as u16, 56, 0, 64, 3, 2].map(u16::to_le_bytes).concat());
    file.extend(&section);
    file.extend(NAMES);
    file.resize(table_at, 0);
    for [name, kind, at, size] in [[0; 4], [1, 1, HEADER, section.len()], [8, 3, names_at, NAMES.len()]] {
        file.extend([name as u32, kind as u32].map(u32::to_le_bytes).concat());
        file.extend([0, 0, at as u64, size as u64, 0, 1, 0].map(u64::to_le_bytes).concat());
    }
    file
}

#[test]
fn handshakes() {
    assert!(inspect(&library()).is_ok());
    fuzz(
        Corpus::of("handshake").unwrap().with([library()]).words(".rqlab RQLABPL1 cpu cuda toy rqlab_register_toy"),
        |bytes| match inspect(bytes) {
            Ok(fields) => assert_eq!([&fields.sdk_hash, &fields.features], [SDK_HASH, FEATURES]),
            Err(NotLoadable::NoPlugin(reason) | NotLoadable::Refused(_, reason)) => assert!(!reason.is_empty()),
        },
    );
}
