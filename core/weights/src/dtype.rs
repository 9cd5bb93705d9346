//! Types of elements.

use std::fmt::{self, Display};

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// Half precision: 5 bits of exponent, 10 of mantissa.
    F16,
    /// The upper half of a single: 8 bits of exponent, 7 of mantissa.
    BF16,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// 8 bits, signed.
    I8,
    /// 16 bits, signed.
    I16,
    /// 32 bits, signed.
    I32,
    /// 64 bits, signed.
    I64,
    /// 8 bits.
    U8,
    /// 16 bits.
    U16,
    /// 32 bits.
    U32,
    /// 64 bits.
    U64,
    /// A byte that is 0 or 1.
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// The name that headers of safetensors files give it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F32 => "F32",
            Self::F64 => "F64",
            Self::I8 => "I8",
            Self::I16 => "I16",
            Self::I32 => "I32",
            Self::I64 => "I64",
            Self::U8 => "U8",
            Self::U16 => "U16",
            Self::U32 => "U32",
            Self::U64 => "U64",
            Self::Bool => "BOOL",
        }
    }

    /// Little-endian elements as f32. Exact from F16, BF16, F32, bytes and 16-bit integers; others are rounded to the nearest.
    pub fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|&element| number(element)).collect()
        }
        match self {
            Self::F16 => each(bytes, |x| half(u16::from_le_bytes(x))),
            Self::BF16 => each(bytes, |x| f32::from_bits(u32::from(u16::from_le_bytes(x)) << 16)),
            Self::F32 => each(bytes, f32::from_le_bytes),
            Self::F64 => each(bytes, |x| f64::from_le_bytes(x) as f32),
            Self::I8 => each(bytes, |x| f32::from(i8::from_le_bytes(x))),
            Self::I16 => each(bytes, |x| f32::from(i16::from_le_bytes(x))),
            Self::I32 => each(bytes, |x| i32::from_le_bytes(x) as f32),
            Self::I64 => each(bytes, |x| i64::from_le_bytes(x) as f32),
            Self::U8 => each(bytes, |x: [u8; 1]| f32::from(x[0])),
            Self::U16 => each(bytes, |x| f32::from(u16::from_le_bytes(x))),
            Self::U32 => each(bytes, |x| u32::from_le_bytes(x) as f32),
            Self::U64 => each(bytes, |x| u64::from_le_bytes(x) as f32),
            Self::Bool => each(bytes, |x: [u8; 1]| f32::from(u8::from(x[0] != 0))),
        }
    }
}

impl Display for Dtype {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A number of half precision (IEEE 754 binary16).
fn half(bits: u16) -> f32 {
    let (sign, exponent, mantissa) = (u32::from(bits >> 15) << 31, u32::from(bits >> 10) & 31, u32::from(bits & 1023));
    match exponent {
        // Subnormal: mantissa times 2^-24, which a single holds exactly.
        0 => f32::from_bits(sign | (mantissa as f32 * 2f32.powi(-24)).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | mantissa << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | mantissa << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_read_exactly() {
        let cases: [(u16, f32); 8] = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x7c00, f32::INFINITY),
            (0x3555, 0.333_251_95),
        ];
        for (bits, value) in cases {
            assert_eq!(half(bits).to_bits(), value.to_bits(), "{bits:#x}");
        }
        assert_eq!(half(0x8000).to_bits(), (-0.0f32).to_bits());
        assert!(half(0x7e00).is_nan());
    }
}
