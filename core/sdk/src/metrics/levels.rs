//! Pictures of 8 bits a channel, as image files and most published evaluations have them.

/// How intensities in [-1, 1] become the 256 levels of an 8-bit picture. What lies outside is clamped first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Levels {
    /// The nearest level: `floor(127.5 x + 128)`, 255 at the most.
    Round,
    /// The level below: `floor(255 (x + 1) / 2)`, in f32 and in this order. Half a level too dark on average, and where
    /// `v / 127.5 - 1` has been rounded down, a level too dark for the picture that x was read from.
    Truncate,
}

impl Levels {
    /// The level of an intensity; 0 for NaN.
    pub fn of(self, x: f32) -> u8 {
        let x = x.clamp(-1.0, 1.0);
        // Conversion to an integer truncates and saturates.
        match self {
            Self::Round => (127.5 * f64::from(x) + 128.0) as u8,
            Self::Truncate => ((x + 1.0) / 2.0 * 255.0) as u8,
        }
    }

    /// The intensity in [-1, 1] that a level stands for: `v / 127.5 - 1`.
    pub fn intensity(level: u8) -> f32 {
        (f64::from(level) / 127.5 - 1.0) as f32
    }

    /// Intensities as a picture of 8 bits holds them: each becomes that of its level.
    pub fn apply(self, intensities: &mut [f32]) {
        intensities.iter_mut().for_each(|x| *x = Self::intensity(self.of(*x)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_brings_every_level_back_and_truncation_does_not() {
        let back = |levels: Levels| (0..=255u8).filter(|&v| levels.of(Levels::intensity(v)) != v).count();
        assert_eq!(back(Levels::Round), 0);
        // What 32-bit floats make of the scripts that truncate.
        assert_eq!(back(Levels::Truncate), 95);
        assert!((0..=255u8).all(|v| [v, v.saturating_sub(1)].contains(&Levels::Truncate.of(Levels::intensity(v)))));
    }

    #[test]
    fn levels_of_the_ends_and_between() {
        for (x, round, truncate) in [
            (-7.0, 0, 0),
            (-1.0, 0, 0),
            (1.0, 255, 255),
            (7.0, 255, 255),
            (f32::NAN, 0, 0),
            (0.0, 128, 127),
            // 10.7 levels up.
            (10.7 / 127.5 - 1.0, 11, 10),
        ] {
            assert_eq!((Levels::Round.of(x), Levels::Truncate.of(x)), (round, truncate), "{x}");
        }
        let mut x = [0.002f32, 1.5];
        Levels::Round.apply(&mut x);
        assert_eq!(x, [Levels::intensity(128), 1.0]);
    }
}
