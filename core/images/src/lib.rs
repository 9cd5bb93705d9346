//! From image files to pixels: what data set plugins have in common.
//!
//! [`Header`] reads what a file says of its image without decoding it; [`survey()`] looks at all images of a set, once, and keeps
//! what it found; [`Preparation`] decodes, turns upright, composites, cuts and scales; [`splits`] knows the words for splits and
//! divides classes by exact shares; [`classes`] matches classes by name. [`image_config!`] declares the settings that all have,
//! and [`ImageSet`] is the data set, but for what a plugin alone knows: where its files lie ([`ImageFiles`]), and what they
//! are ([`Contents`]).

pub mod cache;
mod captions;
pub mod classes;
mod config;
mod contents;
mod flaw;
mod header;
mod preparation;
mod raster;
mod resample;
mod set;
mod settings;
mod source;
pub mod splits;
mod survey;
mod view;

pub use captions::{LONGEST_CAPTION, caption};
pub use config::{Settings, Settled};
pub use contents::{Contents, Member};
pub use flaw::Flaw;
pub use header::{FORMATS, Header, has_image_ending};
pub use preparation::{Picture, Preparation};
pub use set::{ImageFiles, ImageSet};
pub use settings::{BadFiles, Crop, Size};
pub use source::{FileSource, Source};
pub use survey::{Bad, Look, Stamp, Survey, survey, survey_in_groups};
pub use view::{Augmentation, View, write};

/// Changes whenever the same file and the same settings would give other pixels: part of every data set's digest.
pub const VERSION: u32 = 3;
