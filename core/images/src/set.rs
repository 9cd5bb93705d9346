//! A data set of image files: everything that does not depend on where the files lie.

use crate::config::Settled;
use crate::contents::{by_split, promised};
use crate::{Contents, Flaw, Member, Picture, Preparation, Settings, Survey, View, write};
use rayon::prelude::*;
use rqlab_sdk::prelude::*;
use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the images of a set lie: in folders, in tables, in archives. Images are numbered as the plugin looked at them, without
/// those that are left out.
pub trait ImageFiles: Send + Sync {
    /// What an image is called there: "file", "row".
    const UNIT: &'static str;
    /// Whether decoded training images are kept in memory; not where the files' own parts are.
    const KEPT_DECODED: bool = true;
    /// What images of a batch share, such as parts of files that are read as a whole.
    type Shared: Sync;
    /// The bytes of an image's file.
    type Bytes: AsRef<[u8]>;

    /// Reads what these images share.
    ///
    /// # Errors
    /// What cannot be read, by its place.
    fn shared(&self, images: &[usize]) -> Result<Self::Shared>;

    /// The file of an image, as it was stored.
    ///
    /// # Errors
    /// What is wrong with it; the caller says where.
    fn bytes(&self, image: usize, shared: &Self::Shared) -> Result<Self::Bytes, Flaw>;

    /// Where an image lies, for messages.
    fn place(&self, image: usize) -> String;

    /// The order of an epoch over the training images `train`, if there is a better one than any: [`Dataset::epoch_order`].
    fn epoch_order(&self, train: &[usize], rng: &Rng) -> Option<Vec<usize>> {
        let _ = (train, rng);
        None
    }
}

/// A data set of image files.
pub struct ImageSet<F> {
    settings: Settings,
    preparation: Preparation,
    info: DatasetInfo,
    /// Or why there are none.
    files: Result<F, String>,
    members: Vec<Member>,
    /// Which of the members are for training, and which for test.
    splits: [Vec<usize>; 2],
    /// Of the members, in their order; none where captions are not asked for.
    captions: Option<Vec<String>>,
    caption_info: Option<CaptionInfo>,
    cache: Cache,
}

impl<F: ImageFiles> ImageSet<F> {
    /// Of the images that were `found`.
    ///
    /// # Errors
    /// A split without images; other numbers than are expected.
    pub fn new(settings: Settings, found: &Survey, settled: Settled, contents: Contents, files: F) -> Result<Self> {
        let (members, captions) = (contents.members.clone(), contents.captions.clone());
        let info = contents.info(&settings, found, &settled)?;
        let cache = Cache::new(if F::KEPT_DECODED { members.len() } else { 0 }, settings.cache_mib);
        let splits = by_split(&members);
        let caption_info = captions.as_ref().map(|captions| CaptionInfo {
            missing: splits.each_ref().map(|split| split.iter().filter(|&&image| captions[image].is_empty()).count()),
            attributes: vec![],
        });
        let (preparation, files) = (settled.preparation, Ok(files));
        Ok(Self { settings, preparation, info, files, members, splits, captions, caption_info, cache })
    }

    /// Of images at `place` that are not on this machine, if `expect` and `size` say enough to plan with; with captions, where
    /// these are asked for.
    pub fn promised(settings: &Settings, place: &str, captions: bool) -> Option<Self> {
        Some(Self {
            info: promised(settings, place)?,
            preparation: settings.preparation(),
            settings: settings.clone(),
            files: Err(format!("{place}: there is no such file or folder")),
            members: Vec::new(),
            splits: Default::default(),
            captions: None,
            caption_info: captions.then(CaptionInfo::default),
            cache: Cache::new(0, 0),
        })
    }

    /// The files, and which of them the images `indices` of a split are.
    fn present(&self, split: Split, indices: &[usize]) -> Result<(&F, Vec<usize>)> {
        let files = self.files.as_ref().map_err(|absent| Error::Data(absent.clone()))?;
        let images = &self.splits[usize::from(split == Split::Test)];
        let image = |&index: &usize| {
            images.get(index).copied().ok_or_else(|| {
                let (name, count) = (split.name(), images.len());
                Error::Data(format!("image {index} of the {name} split was asked for, which has {count}"))
            })
        };
        Ok((files, indices.iter().map(image).collect::<Result<_>>()?))
    }

    /// The images `indices`, of each what its view shows.
    fn images(&self, split: Split, indices: &[usize], views: &[View]) -> Result<Images> {
        let (files, images) = self.present(split, indices)?;
        let labels = self.labels(split, indices)?;
        let shared = files.shared(&images)?;
        let [height, width, channels] = self.info.image;
        let mut pixels = vec![0.0; images.len() * height * width * channels];
        let work = pixels.par_chunks_mut(height * width * channels).zip(images.par_iter().zip(views));
        work.try_for_each(|(out, (&image, &view))| {
            let picture = match self.cache.get(image) {
                Some(picture) => Cow::Borrowed(picture),
                None => Cow::Owned(self.decoded(files, image, view, &shared)?),
            };
            write(&picture, [height, width], view, out);
            if let (Cow::Owned(picture), Split::Train) = (picture, split) {
                self.cache.keep(image, picture);
            }
            Ok::<_, Error>(())
        })?;
        Ok(Images { pixels: Tensor::from_vec(pixels, &[images.len(), height, width, channels])?, labels })
    }

    /// A decoded image, of which at least what `view` shows is there.
    fn decoded(&self, files: &F, image: usize, view: View, shared: &F::Shared) -> Result<Picture> {
        let bytes = files.bytes(image, shared);
        let picture = bytes.and_then(|bytes| self.preparation.picture(bytes.as_ref(), view.at)).map_err(|flaw| {
            let (place, unit) = (files.place(image), F::UNIT);
            Error::Data(format!("{place}: {flaw}; `bad_files: skip` leaves such {unit}s out"))
        })?;
        let ([height, width, _], [h, w]) = (self.info.image, picture.size);
        if h < height || w < width || self.settings.size.is_none() && [h, w] != [height, width] {
            let place = files.place(image);
            return Err(Error::Data(format!("{place}: has {h} x {w} pixels now, and had {height} x {width}")));
        }
        Ok(picture)
    }
}

impl<F: ImageFiles> Dataset for ImageSet<F> {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn absent(&self) -> Option<&str> {
        self.files.as_ref().err().map(String::as_str)
    }

    fn epoch_order(&self, rng: &Rng) -> Option<Vec<usize>> {
        self.files.as_ref().ok()?.epoch_order(&self.splits[0], rng)
    }

    fn batch(&self, split: Split, indices: &[usize], augment: Option<&Rng>) -> Result<Images> {
        self.images(split, indices, &self.settings.augmentation().draw(augment, indices.len()))
    }

    fn labels(&self, split: Split, indices: &[usize]) -> Result<Codes> {
        let (_, images) = self.present(split, indices)?;
        Ok(Codes::from_vec(images.iter().map(|&image| self.members[image].class).collect(), &[images.len()])?)
    }

    fn caption_info(&self) -> Option<&CaptionInfo> {
        self.caption_info.as_ref()
    }

    fn captions(&self, split: Split, indices: &[usize]) -> Result<Vec<String>> {
        let (_, images) = self.present(split, indices)?;
        let missing = || Error::Data("the captions of these images were not asked for".to_owned());
        let captions = self.captions.as_ref().ok_or_else(missing)?;
        Ok(images.into_iter().map(|image| captions[image].clone()).collect())
    }

    fn variants(&self) -> Option<usize> {
        Some(self.settings.augmentation().views().len())
    }

    fn variant(&self, split: Split, indices: &[usize], variant: usize) -> Result<Images> {
        let views = self.settings.augmentation().views();
        let view = views.get(variant).ok_or_else(|| {
            Error::Data(format!("variant {variant} of images was asked for, of which there are {}", views.len()))
        })?;
        self.images(split, indices, &vec![*view; indices.len()])
    }
}

/// Decoded training images, in bounded memory.
struct Cache {
    pictures: Vec<OnceLock<Picture>>,
    /// How many more bytes it may take.
    room: AtomicUsize,
}

impl Cache {
    fn new(images: usize, mib: usize) -> Self {
        Self { pictures: (0..images).map(|_| OnceLock::new()).collect(), room: AtomicUsize::new(mib << 20) }
    }

    fn get(&self, image: usize) -> Option<&Picture> {
        self.pictures.get(image)?.get()
    }

    /// Keeps an image if there is room, and if it is good for any view.
    fn keep(&self, image: usize, picture: Picture) {
        let take = |room: usize| room.checked_sub(picture.bytes.len());
        if let Some(slot) = self.pictures.get(image)
            && picture.any_window
            && self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
        {
            // If another thread was first, a little of the room is lost: harmless.
            let _ = slot.set(picture);
        }
    }
}
