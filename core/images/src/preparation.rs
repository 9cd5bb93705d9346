//! What is done to every image: decoded, turned upright, composited, cut, scaled.

use crate::raster::{Raster, Window};
use crate::resample::resample;
use crate::{Crop, Flaw, Header, Size, Survey, VERSION};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Images of more pixels are decoded one at a time, so that threads do not add up their memory.
const LARGE: u64 = 1 << 24;
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How many times the pixels of its window a scaled image may have before it is cut first.
const ELONGATED: usize = 8;

/// What is done to every image.
#[derive(Debug, Clone, PartialEq)]
pub struct Preparation {
    /// The size it is brought to: scaled so that it just covers it, and cut. Without, it stays as it is.
    pub size: Option<Size>,
    /// 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// What transparent images lie on: red, green, blue.
    pub background: [u8; 3],
    /// Which window is used.
    pub crop: Crop,
    /// Images of more millions of pixels are refused.
    pub max_megapixels: usize,
}

/// A decoded image: the window that is used, or more of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Height and width.
    pub size: [usize; 2],
    /// A byte per channel.
    pub bytes: Vec<u8>,
    /// Whether any window of it can be taken. If not, it is the one that was asked for.
    pub any_window: bool,
}

impl Preparation {
    /// Decodes an image. What is kept has the window at the fractions `at` (down, right) of the room that it has; `None` is
    /// the middle.
    ///
    /// # Errors
    /// An unknown format, damage, or more pixels than are allowed.
    pub fn picture(&self, bytes: &[u8], at: Option<[f32; 2]>) -> Result<Picture, Flaw> {
        let (header, raster, _alone) = self.decoded(bytes)?;
        let size = header.size();
        let (window, scaled, any_window) = self.window(size, at);
        let upright = raster.upright(header.orientation, window, self.channels, self.background);
        let bytes = resample(upright, self.channels, [window.height, window.width], scaled)?;
        Ok(Picture { size: scaled, bytes, any_window })
    }

    /// Decodes an image to see whether it can be, and gives its header.
    ///
    /// # Errors
    /// As [`Preparation::picture`].
    pub fn verified(&self, bytes: &[u8]) -> Result<Header, Flaw> {
        self.decoded(bytes).map(|(header, ..)| header)
    }

    /// The pixels as stored; while a large image is worked on, what keeps others from being.
    fn decoded(&self, bytes: &[u8]) -> Result<(Header, Raster, Option<MutexGuard<'static, ()>>), Flaw> {
        let header = Header::read(&mut &*bytes)?;
        self.check(&header)?;
        let pixels = u64::from(header.stored[0]) * u64::from(header.stored[1]);
        let alone = (pixels > LARGE).then(|| ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((header, Raster::decode(bytes, &header)?, alone))
    }

    /// Refuses an image of more pixels than are allowed.
    ///
    /// # Errors
    /// Of how many it is, how many are allowed, and what can be done.
    pub fn check(&self, header: &Header) -> Result<(), Flaw> {
        let [height, width] = header.size();
        if height as u64 * width as u64 <= self.max_megapixels as u64 * 1_000_000 {
            return Ok(());
        }
        Err(Flaw {
            reason: "too large",
            message: format!(
                "the image has {height} x {width} pixels (height x width), more than the {} million of `max_megapixels`: \
                 raise it, or make the image smaller",
                self.max_megapixels
            ),
        })
    }

    /// What is cut out of an upright image of a size, to which size it is scaled, and whether any window can be taken of that.
    fn window(&self, [height, width]: [usize; 2], at: Option<[f32; 2]>) -> (Window, [usize; 2], bool) {
        let whole = Window { top: 0, left: 0, height, width };
        let Some(size) = self.size else { return (whole, [height, width], true) };
        // Exactly: which side is the shorter one, measured in windows.
        let tall = height * size.width >= width * size.height;
        let part = |side: usize, of: usize, by: usize| ((side * of + by / 2) / by).max(1);
        if self.crop == Crop::Random {
            let scaled = if tall {
                [part(height, size.width, width).max(size.height), size.width]
            } else {
                [size.height, part(width, size.height, height).max(size.width)]
            };
            if scaled[0] * scaled[1] <= ELONGATED * size.height * size.width {
                return (whole, scaled, true);
            }
        }
        let cut = if tall {
            [part(width, size.height, size.width).min(height), width]
        } else {
            [height, part(height, size.width, size.height).min(width)]
        };
        let [top, left] = offsets([height, width], cut, at);
        (Window { top, left, height: cut[0], width: cut[1] }, size.sides(), self.crop == Crop::Center)
    }

    /// What determines the pixels that a file gives, as text for a digest.
    pub fn identity(&self) -> String {
        let size = self.size.map(Size::sides);
        format!("{VERSION} {size:?} {} {:?} {:?}", self.channels, self.background, self.crop)
    }

    /// What is done to the images that were found, as parts of a sentence.
    pub fn facts(&self, found: &Survey) -> Vec<String> {
        let images = |count: usize| if count == 1 { "1 image".to_owned() } else { format!("{count} images") };
        let mut facts = Vec::new();
        if let Some(Size { height, width }) = self.size {
            facts.push(if height == width {
                format!("the shorter side scaled to {height} pixels, a square cut out")
            } else {
                format!("scaled to cover {height} x {width} pixels, and cut to that")
            });
        }
        match (self.channels, found.grey, found.images()) {
            (1, grey, all) if grey < all => facts.push("made grey".to_owned()),
            (3, grey, _) if grey > 0 => {
                facts.push(format!("{} of shades of grey given three equal channels", images(grey)))
            }
            _ => {}
        }
        if found.transparent > 0 {
            let [red, green, blue] = self.background;
            let them = images(found.transparent);
            facts.push(format!("transparent parts of {them} composited on ({red}, {green}, {blue})"));
        }
        if found.turned > 0 {
            facts.push(format!("{} turned upright by their orientation tag", images(found.turned)));
        }
        if found.several > 0 {
            facts.push(format!("{} the first of several in a file", images(found.several)));
        }
        facts
    }
}

impl Picture {
    /// The upper left corner of the window of size `window` that lies at the fractions `at` of the room it has; `None` is the
    /// middle.
    pub(crate) fn corner(&self, window: [usize; 2], at: Option<[f32; 2]>) -> [usize; 2] {
        offsets(self.size, window, at)
    }
}

/// Where a window begins in what is larger.
fn offsets(size: [usize; 2], window: [usize; 2], at: Option<[f32; 2]>) -> [usize; 2] {
    let room = [size[0] - window[0], size[1] - window[1]];
    match at {
        None => room.map(|room| room / 2),
        Some(at) => [0, 1].map(|i| (((room[i] + 1) as f32 * at[i]) as usize).min(room[i])),
    }
}
