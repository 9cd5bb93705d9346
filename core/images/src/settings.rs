//! What a user chooses, for the configurations of data sets.

use rqlab_sdk::choice;
use rqlab_sdk::config::{Value, ValueKind, Within};
use rqlab_sdk::serde::de::{Error, SeqAccess, Visitor};
use rqlab_sdk::serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::RangeBounds;

choice! {
    /// Which window of a scaled image is used.
    pub enum Crop {
        /// The middle one.
        Center = "center",
        /// Any one in training, the middle one otherwise.
        Random = "random",
    }
}

choice! {
    /// What becomes of images that cannot be used.
    pub enum BadFiles {
        /// They are an error.
        Refuse = "refuse",
        /// They are left out, and counted.
        Skip = "skip",
    }
}

/// Height and width in pixels: one number for both, or `(height, width)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Size {
    /// `[height, width]`.
    pub fn sides(self) -> [usize; 2] {
        [self.height, self.width]
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.height == self.width {
            self.height.serialize(serializer)
        } else {
            (self.height, self.width).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sides;
        impl<'de> Visitor<'de> for Sides {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of pixels, or (height, width)")
            }
            fn visit_u64<E: Error>(self, side: u64) -> Result<Size, E> {
                let side = usize::try_from(side).map_err(E::custom)?;
                Ok(Size { height: side, width: side })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut sides: A) -> Result<Size, A::Error> {
                let mut side = |n| sides.next_element()?.ok_or_else(|| A::Error::invalid_length(n, &self));
                Ok(Size { height: side(0)?, width: side(1)? })
            }
        }
        deserializer.deserialize_any(Sides)
    }
}

impl Value for Size {
    fn kind() -> ValueKind {
        ValueKind::Either(vec![ValueKind::Integer, ValueKind::Tuple(vec![ValueKind::Integer; 2])])
    }
}

impl Within<usize> for Size {
    fn within(&self, range: &impl RangeBounds<usize>) -> bool {
        self.sides().within(range)
    }
}
