//! Generated images after the dead-leaves model of natural images: opaque shapes that fall on one another, with sizes
//! under a power law (Matheron 1968; Lee, Mumford and Huang, "Occlusion models for natural images", IJCV 2001).
//!
//! What makes the model a stand-in for photographs: leaves hide one another as objects do, and sizes without a scale
//! give images without one, so that power falls as 1/f^2 down to the smallest leaf (beyond it, as the 1/f^3 of edges),
//! and differences between neighbours have heavy tails.
//! Classes differ in shape, size law, orientation, palette and texture. Nothing is downloaded, and an image is a
//! function of (seed, split, index). Each has a caption that is true of it.

mod caption;
mod class;
mod paint;
mod shape;
mod texture;

use caption::Seen;
use class::CLASSES;
use paint::{Painted, Painter};
use rayon::prelude::*;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::prelude::*;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Changes whenever the same configuration would give other pixels.
const VERSION: u32 = 1;

config! {
    /// Generated images after the dead-leaves model of natural images: opaque shapes with power-law sizes that hide one
    /// another. Classes differ in shape, size law, orientation, palette and texture. Needs no download. Captions say what is to be
    /// seen, in one of two forms: `large striped tiles in terracotta colours`, `moons in night colours, small and cloudy`.
    pub struct DeadLeavesConfig {
        /// Height and width in pixels. Scenes keep their layout: a larger image shows more detail.
        size: usize = 32, in 8..=512;
        /// Images in the training split.
        train: usize = 20_000, in 1..=10_000_000;
        /// Images in the test split.
        test: usize = 2_000, in 1..=10_000_000;
        /// How many classes: the first of pebbles, foliage, shards, stars, tiles, moons, reeds, rings.
        classes: usize = 8, in 1..=8;
        /// Another seed gives other images of the same kind.
        seed: u64 = 0;
        /// Exponent of the size law: the density of a leaf's radius r falls as r^-alpha. 3 is that of natural images
        /// (it looks the same at all scales); each class lies within 0.4 of it.
        alpha: f32 = 3.0, in 1.5..=5.0;
        /// Smallest radius of a leaf, over the side of the image; classes scale it by 1 to 3.2. Down to 0.01 gives the
        /// power of natural images, 1/f^2, at all frequencies; the default leaves out what small images cannot show.
        r_min: f32 = 0.06, in 0.005..=0.2;
        /// Largest radius of a leaf, over the side of the image; classes scale it by 0.55 to 1.5.
        r_max: f32 = 0.6, in 0.05..=2.0;
        /// Standard deviation of the film grain, over the range from black to white.
        grain: f32 = 0.012, in 0.0..=0.2;
        /// Whether training images are mirrored at random.
        flip: bool = false;
        /// Memory for generated training images in MiB; those that do not fit are generated again each time. Test images, which
        /// a measurement goes through once, are not kept.
        cache_mib: usize = 256, in 0..=1_048_576, local;
    }
}

/// The data set.
pub struct DeadLeaves {
    config: DeadLeavesConfig,
    info: DatasetInfo,
    captions: CaptionInfo,
    painter: Painter,
    /// Generated training images.
    cache: Vec<OnceLock<Painted>>,
    /// How many more images the cache may take.
    room: AtomicUsize,
}

impl DeadLeaves {
    /// The data set of `config`; no image is made yet.
    ///
    /// # Errors
    /// If the range of radii is empty.
    pub fn new(config: DeadLeavesConfig, _: &DatasetContext) -> Result<Self> {
        if config.r_min >= config.r_max {
            return Err(ConfigError::field(
                "r_min",
                format!("the smallest radius, {}, is not below the largest, {}", config.r_min, config.r_max),
            )
            .into());
        }
        // What the pixels do not depend on stays out of the digest.
        let source = DeadLeavesConfig { flip: false, cache_mib: 0, ..config.clone() }.resolved()?;
        let info = DatasetInfo {
            image: [config.size, config.size, 3],
            classes: CLASSES[..config.classes].iter().map(|class| class.name.to_owned()).collect(),
            train: config.train,
            test: config.test,
            digest: blake3::hash(format!("dead_leaves {VERSION} {source}").as_bytes()).to_hex().to_string(),
            summary: Summary {
                per_class: per_class(&config),
                splits: "generated from two random streams".to_owned(),
                augmentation: config.flip.then(|| "mirrored at random".to_owned()).into_iter().collect(),
                ..Summary::default()
            },
        };
        let bytes = config.size * config.size * 3;
        let room = (config.cache_mib << 20) / bytes;
        let cached = if room == 0 { 0 } else { config.train };
        Ok(Self {
            painter: Painter::new(config.size, config.alpha, [config.r_min, config.r_max], config.grain),
            cache: (0..cached).map(|_| OnceLock::new()).collect(),
            room: AtomicUsize::new(room),
            captions: CaptionInfo { missing: [0, 0], attributes: caption::attributes(config.classes) },
            info,
            config,
        })
    }

    fn class(&self, index: usize) -> usize {
        index % self.config.classes
    }

    fn paint(&self, split: Split, index: usize) -> Painted {
        let purpose = match split {
            Split::Train => "dead_leaves/train",
            Split::Test => "dead_leaves/test",
        };
        self.painter.paint(self.class(index), &Rng::new(self.config.seed, purpose, index as u64))
    }

    /// Shows an image to `see`, and keeps it if it is of the training split and there is room.
    fn show<T>(&self, split: Split, index: usize, see: impl FnOnce(&Painted) -> T) -> T {
        let slot = match split {
            Split::Train => self.cache.get(index),
            Split::Test => None,
        };
        if let Some(painted) = slot.and_then(OnceLock::get) {
            return see(painted);
        }
        let painted = self.paint(split, index);
        let seen = see(&painted);
        // A slot that another thread filled meanwhile costs one place: harmless.
        let take = |room: usize| room.checked_sub(1);
        if let Some(slot) = slot
            && self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
        {
            let _ = slot.set(painted);
        }
        seen
    }

    /// What is to be seen in the images `indices`, each as `of` tells it.
    fn seen<T: Send>(&self, split: Split, indices: &[usize], of: impl Fn(Seen) -> T + Sync) -> Result<Vec<T>> {
        self.labels(split, indices)?;
        Ok(indices.par_iter().map(|&index| self.show(split, index, |painted| of(painted.seen))).collect())
    }

    /// Writes the pixels of an image as numbers in [-1, 1] to `out`, which it fills.
    fn write(&self, pixels: &[u8], flip: bool, out: &mut [f32]) {
        let width = self.config.size * 3;
        for (row, out) in pixels.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            if flip {
                for (pixel, out) in row.chunks_exact(3).rev().zip(out.chunks_exact_mut(3)) {
                    out.iter_mut().zip(pixel).for_each(|(out, &p)| *out = f32::from(p) / 127.5 - 1.0);
                }
            } else {
                out.iter_mut().zip(row).for_each(|(out, &p)| *out = f32::from(p) / 127.5 - 1.0);
            }
        }
    }

    /// The images `indices`, mirrored where `flips` says so.
    fn images(&self, split: Split, indices: &[usize], flips: &[bool]) -> Result<Images> {
        let labels = self.labels(split, indices)?;
        let size = self.config.size;
        let mut pixels = vec![0.0; indices.len() * size * size * 3];
        pixels
            .par_chunks_mut(size * size * 3)
            .zip(indices.par_iter().zip(flips))
            .for_each(|(out, (&index, &flip))| self.show(split, index, |image| self.write(&image.pixels, flip, out)));
        Ok(Images { pixels: Tensor::from_vec(pixels, &[indices.len(), size, size, 3])?, labels })
    }
}

/// Training and test images of each class, which take turns.
fn per_class(config: &DeadLeavesConfig) -> Vec<[usize; 2]> {
    let of = |class: usize, count: usize| (count + config.classes - 1 - class) / config.classes;
    (0..config.classes).map(|class| [of(class, config.train), of(class, config.test)]).collect()
}

impl Dataset for DeadLeaves {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn batch(&self, split: Split, indices: &[usize], augment: Option<&Rng>) -> Result<Images> {
        let flips = match augment {
            Some(rng) if self.config.flip => rng.part("flip", 0).bits(indices.len()),
            _ => vec![0; indices.len()],
        };
        self.images(split, indices, &flips.iter().map(|flip| flip >> 31 == 1).collect::<Vec<_>>())
    }

    fn labels(&self, split: Split, indices: &[usize]) -> Result<Codes> {
        let count = self.info.len(split);
        if let Some(beyond) = indices.iter().find(|&&index| index >= count) {
            return Err(Error::Data(format!(
                "image {beyond} of the {} split was asked for, which has {count}",
                split.name()
            )));
        }
        Ok(Codes::from_vec(indices.iter().map(|&index| self.class(index) as u32).collect(), &[indices.len()])?)
    }

    fn caption_info(&self) -> Option<&CaptionInfo> {
        Some(&self.captions)
    }

    fn captions(&self, split: Split, indices: &[usize]) -> Result<Vec<String>> {
        self.seen(split, indices, Seen::caption)
    }

    fn attributes(&self, split: Split, indices: &[usize]) -> Result<Codes> {
        let values = self.seen(split, indices, Seen::values)?.concat();
        Ok(Codes::from_vec(values, &[indices.len(), self.captions.attributes.len()])?)
    }

    fn variants(&self) -> Option<usize> {
        Some(if self.config.flip { 2 } else { 1 })
    }

    fn variant(&self, split: Split, indices: &[usize], variant: usize) -> Result<Images> {
        let flip = match (variant, self.config.flip) {
            (0, _) => false,
            (1, true) => true,
            _ => return Err(Error::Data(format!("variant {variant} of images was asked for, which there is not"))),
        };
        self.images(split, indices, &vec![flip; indices.len()])
    }
}

declare_plugin! {
    dataset "dead_leaves": DeadLeavesConfig => DeadLeaves::new;
}
