//! What lies in a shard: its samples, each with the place of its image and its label.
//!
//! Members whose names are equal up to the first dot of the last component make a sample: `cats/17.jpg` and `cats/17.cls`. What
//! follows that dot is the member's extension (`seg.png` of `17.seg.png`).

use rqlab_images::{FileSource, Flaw, LONGEST_CAPTION, Source, Stamp, cache, caption, has_image_ending};
use rqlab_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use tar::{Archive, Entry, EntryType};

/// Tar files consist of blocks of so many bytes.
const BLOCK: u64 = 512;
/// A member that holds a label is no longer than this.
const LONGEST_LABEL: u64 = 1 << 20;

/// Which members are used.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The extension of images; any that an image file can have, if it is not given.
    pub(crate) image: Option<String>,
    /// The extension of members that hold the label; without, there are no labels.
    pub(crate) label: Option<String>,
    /// The field of a JSON object that is the label; without, the label is the member's whole text.
    pub(crate) field: Option<String>,
    /// The extension of members that hold the caption; without, captions are not asked for.
    pub(crate) caption: Option<String>,
}

/// Why a sample or a shard cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reason {
    CutShort,
    Damaged,
    Duplicate,
    NoImage,
    SeveralImages,
    NoClass,
}

impl Reason {
    /// In words to be counted by.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::CutShort => "cut short",
            Self::Damaged => "damaged",
            Self::Duplicate => "duplicate key",
            Self::NoImage => "without image",
            Self::SeveralImages => "several images",
            Self::NoClass => "without class",
        }
    }

    pub(crate) fn because(self, message: impl Into<String>) -> Fault {
        Fault { reason: self, message: message.into() }
    }
}

/// Why a sample or a shard cannot be used, with the sentence that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl From<&Fault> for Flaw {
    fn from(fault: &Fault) -> Self {
        Self { reason: fault.reason.text(), message: fault.message.clone() }
    }
}

/// Where a member's bytes lie in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// The bytes of a member, read from its shard as they are asked for.
pub(crate) struct Member {
    shard: FileSource,
    place: Place,
}

impl Member {
    pub(crate) fn open(shard: &Path, place: Place) -> std::result::Result<Self, Flaw> {
        let shard = FileSource::open(shard).map_err(|e| Flaw::unreadable(&e))?;
        Ok(Self { shard, place })
    }

    /// All of them.
    pub(crate) fn all(&mut self) -> std::result::Result<Vec<u8>, Flaw> {
        self.bytes(0, self.place.size as usize).map_err(|e| Flaw::unreadable(&e))
    }
}

impl Source for Member {
    fn length(&self) -> u64 {
        self.place.size
    }

    fn fill(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
        if at.checked_add(out.len() as u64).is_none_or(|end| end > self.place.size) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.shard.fill(self.place.offset + at, out)
    }
}

/// An image with its label, or why it cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// The members' common name. Empty for a fault of the shard itself.
    pub(crate) key: String,
    pub(crate) found: std::result::Result<(Place, Option<String>), Fault>,
    /// Its caption; empty if it has none.
    pub(crate) caption: String,
}

/// What lies in a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    /// In the order of their first members.
    pub(crate) samples: Vec<Sample>,
    /// Members that are not used, by extension: how many, and the name of the first.
    pub(crate) unused: BTreeMap<String, (usize, String)>,
}

impl Index {
    /// The index of a shard, made anew if the shard changed since it was kept.
    pub(crate) fn of(path: &Path, wanted: &Wanted) -> Result<Self> {
        let file = File::open(path).map_err(Error::file(path))?;
        let metadata = file.metadata().map_err(Error::file(path))?;
        let mut stamp = Stamp::new(&format!("index 2 {wanted:?}"));
        stamp.add(path.as_os_str().as_encoded_bytes(), &metadata);
        cache::kept(&stamp, || Self::read(file, path, metadata.len(), wanted))
    }

    fn read(mut file: File, path: &Path, length: u64, wanted: &Wanted) -> Result<Self> {
        if let Some(kind) = compression(&mut file).map_err(Error::file(path))? {
            return Err(Error::Data(format!(
                "{}: it is compressed ({kind}), and images are read from the middle of shards: unpack it to a plain .tar first",
                path.display()
            )));
        }
        let mut gathered = Gathered::default();
        let mut archive = Archive::new(file);
        let fault = gathered.members(&mut archive, length, wanted).err();
        let fault = match fault {
            None => without_end(archive.into_inner(), gathered.end, length).map_err(Error::file(path))?,
            fault => fault,
        };
        Ok(gathered.into_index(fault, wanted))
    }
}

/// The members of a sample so far.
#[derive(Default)]
struct Members {
    key: String,
    images: Vec<(String, Place)>,
    label: Option<std::result::Result<String, Fault>>,
    caption: Option<std::result::Result<String, Fault>>,
    duplicate: Option<String>,
}

/// The members of a shard so far, by sample.
#[derive(Default)]
struct Gathered {
    samples: Vec<Members>,
    known: HashMap<String, usize>,
    unused: BTreeMap<String, (usize, String)>,
    /// Where the last member ended.
    end: u64,
}

impl Gathered {
    fn members(&mut self, archive: &mut Archive<File>, length: u64, wanted: &Wanted) -> std::result::Result<(), Fault> {
        let damaged = |e: io::Error, end: u64| match end + BLOCK > length {
            true => Reason::CutShort.because(format!("the shard has {length} bytes and ends within a member's header")),
            false => Reason::Damaged.because(match e.kind() {
                // What is said of a header repeats bytes that are none.
                ErrorKind::Other | ErrorKind::InvalidData => {
                    format!("the shard is damaged: no member of a tar file begins at byte {end}")
                }
                _ => format!("the shard cannot be read: {e}"),
            }),
        };
        for entry in archive.entries_with_seek().map_err(|e| damaged(e, 0))? {
            let mut entry = entry.map_err(|e| damaged(e, self.end))?;
            let place = Place { offset: entry.raw_file_position(), size: entry.size() };
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            if kind == EntryType::GNUSparse || is_sparse(&mut entry) {
                self.unuse("a sparse file", &name);
                continue;
            }
            let Some(end) = place.offset.checked_add(place.size).filter(|end| *end <= length) else {
                return Err(Reason::CutShort.because(format!(
                    "the shard has {length} bytes and ends within `{name}`, whose header says that it has {}",
                    place.size
                )));
            };
            self.end = end.next_multiple_of(BLOCK);
            match kind {
                EntryType::Directory | EntryType::XGlobalHeader => {}
                EntryType::Regular | EntryType::Continuous => self.member(&name, place, &mut entry, wanted),
                _ => self.unuse("a link or special file", &name),
            }
        }
        Ok(())
    }

    fn member(&mut self, name: &str, place: Place, content: &mut impl Read, wanted: &Wanted) {
        let base = name.rfind('/').map_or(0, |slash| slash + 1);
        let dot = name[base..].find('.').filter(|dot| *dot > 0).map(|dot| base + dot);
        let Some(dot) = dot else {
            return self.unuse(if name[base..].starts_with('.') { "hidden" } else { "without extension" }, name);
        };
        let (key, extension) = (&name[..dot], name[dot + 1..].to_lowercase());
        let is_image = match &wanted.image {
            Some(image) => extension == *image,
            None => has_image_ending(Path::new(name)),
        };
        let is_label = wanted.label.as_ref().is_some_and(|label| *label == extension);
        let is_caption = wanted.caption.as_ref().is_some_and(|caption| *caption == extension);
        if !is_image && !is_label && !is_caption {
            // The sample is known to be there, even if its image is not.
            self.sample(key);
            return self.unuse(&format!(".{extension}"), name);
        }
        let sample = self.sample(key);
        if is_label {
            match sample.label {
                None => sample.label = Some(label(content, place.size, wanted)),
                Some(_) => sample.duplicate = Some(extension),
            }
        } else if is_caption {
            match sample.caption {
                None => sample.caption = Some(text(content, &extension)),
                Some(_) => sample.duplicate = Some(extension),
            }
        } else if sample.images.iter().any(|(other, _)| *other == extension) {
            sample.duplicate = Some(extension);
        } else {
            sample.images.push((extension, place));
        }
    }

    fn sample(&mut self, key: &str) -> &mut Members {
        let next = self.samples.len();
        let at = *self.known.entry(key.to_owned()).or_insert(next);
        if at == next {
            self.samples.push(Members { key: key.to_owned(), ..Members::default() });
        }
        &mut self.samples[at]
    }

    fn unuse(&mut self, what: &str, name: &str) {
        self.unused.entry(what.to_owned()).or_insert_with(|| (0, name.to_owned())).0 += 1;
    }

    /// A fault of the shard comes first, and takes the sample with it that the shard ended in.
    fn into_index(mut self, fault: Option<Fault>, wanted: &Wanted) -> Index {
        let labelled = self.samples.iter().any(|members| members.label.is_some());
        let is_whole = |members: &Members| !members.images.is_empty() && (members.label.is_some() || !labelled);
        if fault.is_some() && self.samples.last().is_some_and(|last| !is_whole(last)) {
            self.samples.pop();
        }
        let fault = fault.map(|fault| Sample { key: String::new(), found: Err(fault), caption: String::new() });
        let samples = self.samples.into_iter().map(|members| members.into_sample(wanted));
        Index { samples: fault.into_iter().chain(samples).collect(), unused: self.unused }
    }
}

impl Members {
    fn into_sample(self, wanted: &Wanted) -> Sample {
        let Self { key, images, label, caption, duplicate } = self;
        let (caption, unreadable) = match caption {
            Some(Ok(caption)) => (caption, None),
            Some(Err(fault)) => (String::new(), Some(fault)),
            None => (String::new(), None),
        };
        let found =
            match (&duplicate, &images[..], label) {
                (Some(extension), ..) => Err(Reason::Duplicate
                    .because(format!("the shard has this key twice, each with a member `.{extension}`"))),
                (_, [], _) => Err(Reason::NoImage.because(match &wanted.image {
                    Some(image) => format!("it has no member `.{image}`"),
                    None => "none of its members is an image".to_owned(),
                })),
                (_, [(first, _), (second, _), ..], _) => Err(Reason::SeveralImages.because(format!(
                    "it has several images, `.{first}` and `.{second}`: choose with `image_member: \"{first}\"`"
                ))),
                (_, _, Some(Err(fault))) => Err(fault),
                (_, [(_, place)], label) => match unreadable {
                    Some(fault) => Err(fault),
                    None => Ok((*place, label.and_then(std::result::Result::ok))),
                },
            };
        Sample { key, found, caption }
    }
}

/// Whether a member has holes as newer versions of GNU tar write them: its bytes begin with a map of the others.
fn is_sparse(entry: &mut Entry<'_, impl Read>) -> bool {
    let extensions = entry.pax_extensions().ok().flatten();
    extensions.into_iter().flatten().flatten().any(|extension| extension.key_bytes().starts_with(b"GNU.sparse."))
}

/// Reads a label: the whole text, or a field of a JSON object.
fn label(content: &mut impl Read, size: u64, wanted: &Wanted) -> std::result::Result<String, Fault> {
    let member = wanted.label.as_deref().unwrap_or_default();
    if size > LONGEST_LABEL {
        return Err(Reason::NoClass.because(format!("its `.{member}` has {size} bytes, which is no label")));
    }
    let mut bytes = Vec::new();
    content.take(LONGEST_LABEL).read_to_end(&mut bytes).map_err(|e| Reason::Damaged.because(e.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    let label = match &wanted.field {
        Some(field) => field_of(&text, field).map_err(|e| Reason::NoClass.because(format!("its `.{member}` {e}")))?,
        None => text.trim().to_owned(),
    };
    match label.parse::<i128>() {
        Ok(number) if number < 0 => {
            Err(Reason::NoClass.because(format!("its class is {number}, which marks images without one")))
        }
        Ok(number) => Ok(number.to_string()),
        Err(_) if wanted.field.is_none() && label.starts_with('{') && is_object(&label) => {
            Err(Reason::NoClass.because(format!(
                "its `.{member}` is a JSON object: name the field with the class, `label_member: \"{member}\", label_field: \"…\"`"
            )))
        }
        Err(_) if label.is_empty() => Err(Reason::NoClass.because(format!("its `.{member}` is empty"))),
        Err(_) => Ok(label),
    }
}

/// Reads a caption.
fn text(content: &mut impl Read, member: &str) -> std::result::Result<String, Fault> {
    let mut bytes = Vec::new();
    let read = content.take(LONGEST_CAPTION as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| Reason::Damaged.because(e.to_string()))?;
    caption(&bytes).map_err(|wrong| Reason::Damaged.because(format!("the caption in its `.{member}` {wrong}")))
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
}

/// A field of a JSON object, or one of an object within (`annotation.class`), as text.
fn field_of(text: &str, field: &str) -> std::result::Result<String, String> {
    let object: serde_json::Value = serde_json::from_str(text).map_err(|e| format!("is no JSON: {e}"))?;
    let path = if object.get(field).is_some() { vec![field] } else { field.split('.').collect() };
    let value = path.iter().try_fold(&object, |value, name| value.get(name)).ok_or_else(|| {
        let fields: Vec<&str> = object.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        format!("has no field `{field}`; its fields: {}", fields.join(", "))
    })?;
    match value {
        serde_json::Value::String(name) => Ok(name.trim().to_owned()),
        serde_json::Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        other => Err(format!("has {other} for `{field}`, which is neither a name nor a whole number")),
    }
}

/// What a file is compressed with, by its first bytes.
fn compression(file: &mut File) -> io::Result<Option<&'static str>> {
    let mut start = Vec::new();
    file.take(6).read_to_end(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    let known: [(&[u8], &str); 4] = [
        (&[0x1f, 0x8b], "gzip"),
        (b"BZh", "bzip2"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0xfd, b'7', b'z', b'X'], "xz"),
    ];
    Ok(known.into_iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, name)| name))
}

/// That a tar file lacks the block of zeros that ends it: it was cut between two members, and nobody knows how many there were.
fn without_end(mut file: File, end: u64, length: u64) -> io::Result<Option<Fault>> {
    let mut block = Vec::new();
    file.seek(SeekFrom::Start(end))?;
    file.take(BLOCK).read_to_end(&mut block)?;
    let ended = block.len() as u64 == BLOCK && block.iter().all(|byte| *byte == 0);
    Ok((!ended).then(|| {
        Reason::CutShort
            .because(format!("the shard has {length} bytes and lacks the block of zeros that ends a tar file"))
    }))
}
