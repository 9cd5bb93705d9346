//! Workloads of decoding: image files like photographs, and batches of them as training draws them.

use crate::models::component;
use crate::workloads::{BATCH, ImageSizes};
use crate::{Format, Prepared};
use image::{DynamicImage, RgbImage};
use rqlab::plugins::Plugins;
use rqlab_sdk::contracts::{DatasetContext, Split};
use rqlab_sdk::plugin::Kind;
use rqlab_sdk::tensor::Rng;
use rqlab_sdk::{Error, Result};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

/// Files of the training split.
const FILES: usize = 256;
/// Side of the generated images that files are cut from.
const CANVAS: usize = 512;

/// Writes the files of a workload to `folder`, in the layout of the plugin `folder`: scenes of the dead-leaves model at its
/// finest (power 1/f^2 at all frequencies, film grain), which compress as photographs do.
///
/// # Errors
/// A plugin that is missing, a file that cannot be written.
pub(crate) fn write(sizes: &ImageSizes, folder: &Path, plugins: &Plugins) -> Result<()> {
    let config = format!("(size: {CANVAS}, train: {FILES}, test: 2, r_min: 0.01, cache_mib: 0)");
    let scenes =
        plugins.dataset(&component(plugins, Kind::Dataset, "dead_leaves", config)?, &DatasetContext::new("."))?;
    for (split, count) in [(Split::Train, FILES), (Split::Test, 2)] {
        for class in ["even", "odd"] {
            let folder = folder.join(split.name()).join(class);
            fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        }
        for first in (0..count).step_by(BATCH) {
            let indices: Vec<usize> = (first..count.min(first + BATCH)).collect();
            let pixels = scenes.batch(split, &indices, None)?.pixels.to_vec();
            for (scene, index) in pixels.chunks_exact(CANVAS * CANVAS * 3).zip(indices) {
                let class = if index % 2 == 0 { "even" } else { "odd" };
                let path = folder.join(split.name()).join(class).join(format!("{index:04}.{}", sizes.format.ending()));
                write_file(sizes, scene, &path)?;
            }
        }
    }
    Ok(())
}

fn write_file(sizes: &ImageSizes, scene: &[f32], path: &Path) -> Result<()> {
    let [height, width] = sizes.file;
    let rows = scene.chunks_exact(CANVAS * 3).take(height).flat_map(|row| &row[..width * 3]);
    let bytes: Vec<u8> = rows.map(|x| ((x + 1.0) * 127.5).round() as u8).collect();
    let failed = |e: image::ImageError| Error::Data(format!("{}: {e}", path.display()));
    let image = RgbImage::from_raw(width as u32, height as u32, bytes)
        .ok_or_else(|| Error::Data(format!("a scene is smaller than {height} x {width} pixels")))?;
    let file = BufWriter::new(File::create(path).map_err(Error::file(path))?);
    match sizes.format {
        Format::Jpeg { quality } => {
            image::codecs::jpeg::JpegEncoder::new_with_quality(file, quality).encode_image(&image).map_err(failed)
        }
        Format::Png => {
            let encoder = image::codecs::png::PngEncoder::new(file);
            DynamicImage::from(image).write_with_encoder(encoder).map_err(failed)
        }
    }
}

/// The next batch of an epoch, from the files in `folder`.
pub(crate) fn prepare(sizes: &ImageSizes, folder: &Path, plugins: &Plugins) -> Result<Prepared> {
    let path = folder.to_str().ok_or_else(|| Error::Data(format!("{}: the path is not UTF-8", folder.display())))?;
    let config = format!("(path: {path:?}, size: {}, crop: random, flip: true, cache_mib: 0)", sizes.side);
    let data = plugins.dataset(&component(plugins, Kind::Dataset, "folder", config)?, &DatasetContext::new("."))?;
    let mut step = 0;
    Ok(Prepared::new(None, move || {
        let (epoch, first) = (step / (FILES / BATCH), step % (FILES / BATCH) * BATCH);
        let order = Rng::new(0, "order", epoch as u64).permutation(FILES);
        let augment = Rng::new(0, "augment", step as u64);
        step += 1;
        data.batch(Split::Train, &order[first..first + BATCH], Some(&augment)).map(drop)
    }))
}
