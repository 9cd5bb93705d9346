//! The settings that every set of image files has, written once.

use crate::{Augmentation, BadFiles, Crop, Preparation, Size, Survey};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::contracts::LeftOut;
use rqlab_sdk::{Error, Result};

/// Declares the configuration of a set of image files, as `rqlab_sdk::config!` does: the fields that are its own, and behind them
/// those that all such sets have, which its `settings` gives as [`Settings`].
#[macro_export]
macro_rules! image_config {
    ($(#[doc = $doc:literal])* $vis:vis struct $Name:ident { $($own:tt)* }) => {
        ::rqlab_sdk::config! {
            $(#[doc = $doc])*
            $vis struct $Name {
                $($own)*
                /// Height and width in pixels, one number for both or `(height, width)`: an image is scaled to cover it, and cut to
                /// it. By default images stay as they are, and must all be of one size.
                size: Option<$crate::Size> = None, in 4..=4096;
                /// Which window is cut out.
                crop: $crate::Crop = $crate::Crop::Center;
                /// Whether training images are mirrored at random.
                flip: bool = false;
                /// 1 for grey, 3 for red, green and blue. By default 1 if all images are grey, else 3.
                channels: Option<usize> = None, in 1..=3;
                /// What transparent parts show: red, green and blue.
                background: [usize; 3] = [255, 255, 255], in 0..=255;
                /// What becomes of images that cannot be used, such as damaged ones and those without a class where others have
                /// one: `refuse` makes them an error, found by labels and headers in the plan; with `skip` every image is decoded
                /// once, and those that fail are left out and counted.
                bad_files: $crate::BadFiles = $crate::BadFiles::Refuse, local;
                /// Images of more millions of pixels cannot be used: a bound on memory.
                max_megapixels: usize = 128, in 1..=4096, local;
                /// How many classes, training images and test images there must be, without those that are left out. With it and
                /// `size`, an experiment can be planned on a machine that does not have the images.
                expect: Option<[usize; 3]> = None, local;
                /// Memory for training images in MiB, decoded and scaled, or as Parquet files hold them; those that do not fit are
                /// read again each time. Test images, which a measurement goes through once, are not kept decoded.
                cache_mib: usize = 512, in 0..=1_048_576, local;
            }
        }

        impl $Name {
            /// The settings that every set of image files has.
            fn settings(&self) -> $crate::Settings {
                $crate::Settings {
                    size: self.size,
                    crop: self.crop,
                    flip: self.flip,
                    channels: self.channels,
                    background: self.background,
                    bad_files: self.bad_files,
                    max_megapixels: self.max_megapixels,
                    expect: self.expect,
                    cache_mib: self.cache_mib,
                }
            }
        }
    };
}

/// The settings that every set of image files has; [`image_config!`](crate::image_config) tells what each means.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the macro tells each field's meaning to users, and here")]
pub struct Settings {
    pub size: Option<Size>,
    pub crop: Crop,
    pub flip: bool,
    pub channels: Option<usize>,
    pub background: [usize; 3],
    pub bad_files: BadFiles,
    pub max_megapixels: usize,
    pub expect: Option<[usize; 3]>,
    pub cache_mib: usize,
}

impl Settings {
    /// They can be met.
    ///
    /// # Errors
    /// Two channels, which no image has.
    pub fn check(&self) -> Result<()> {
        match self.channels {
            Some(2) => Err(Error::from(ConfigError::field("channels", "images have 1 channel or 3"))),
            _ => Ok(()),
        }
    }

    /// What is done to every image; with three channels where the setting leaves that to what is found.
    pub fn preparation(&self) -> Preparation {
        Preparation {
            size: self.size,
            channels: self.channels.unwrap_or(3),
            background: self.background.map(|channel| channel as u8),
            crop: self.crop,
            max_megapixels: self.max_megapixels,
        }
    }

    /// What a look at all images decides. `unit` is what an image is called where it lies ("file"), `place` tells where one does.
    ///
    /// # Errors
    /// Images that cannot be used, if these are refused; images of several sizes where none is asked for.
    pub fn settled(&self, found: &Survey, unit: &str, place: impl Fn(usize) -> String) -> Result<Settled> {
        let left_out = found.left_out(self.bad_files, unit, &place)?;
        let [height, width] = match self.size {
            Some(size) => size.sides(),
            None => found.one_size(place)?,
        };
        let preparation = self.preparation();
        let channels = found.channels(self.channels, preparation.background);
        Ok(Settled { preparation: Preparation { channels, ..preparation }, image: [height, width, channels], left_out })
    }

    /// What is drawn anew whenever a training image is used.
    pub fn augmentation(&self) -> Augmentation {
        Augmentation { flip: self.flip, random_window: self.crop == Crop::Random && self.size.is_some() }
    }
}

/// What a look at all images decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// What is done to every image.
    pub(crate) preparation: Preparation,
    /// Height, width and channels of every image.
    pub(crate) image: [usize; 3],
    /// The images that are left out, by reason.
    pub(crate) left_out: Vec<LeftOut>,
}
