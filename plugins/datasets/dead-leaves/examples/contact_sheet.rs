//! Writes a contact sheet of the data set: one row a class. `contact_sheet FILE.png [SIZE] [COLUMNS] [SCALE]`.

use rqlab_dataset_dead_leaves::{DeadLeaves, DeadLeavesConfig};
use rqlab_sdk::prelude::*;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("which file?")?;
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (size, columns, scale) = (number(32)?, number(12)?, number(3)?);
    let config = DeadLeavesConfig::parse(&format!("dead_leaves(size: {size})"))?;
    let set = DeadLeaves::new(config, &DatasetContext::new(PathBuf::new()))?;
    let rows = set.info().classes.len();
    let (gap, tile) = (scale.max(2), size * scale);
    let step = tile + gap;
    let mut sheet = image::RgbImage::from_pixel(
        (columns * step + gap) as u32,
        (rows * step + gap) as u32,
        image::Rgb([255, 255, 255]),
    );
    for row in 0..rows {
        let indices: Vec<usize> = (0..columns).map(|column| column * rows + row).collect();
        let images = set.batch(Split::Train, &indices, None)?;
        let pixels = images.pixels.as_slice();
        for (column, image) in pixels.chunks_exact(size * size * 3).enumerate() {
            for (i, pixel) in image.chunks_exact(3).enumerate() {
                let color = image::Rgb([0, 1, 2].map(|c| ((pixel[c] + 1.0) * 127.5).round() as u8));
                let (x, y) = (column * step + gap + i % size * scale, row * step + gap + i / size * scale);
                for at in 0..scale * scale {
                    sheet.put_pixel((x + at % scale) as u32, (y + at / scale) as u32, color);
                }
            }
        }
    }
    sheet.save(file)?;
    Ok(())
}
