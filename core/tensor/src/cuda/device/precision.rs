//! How exactly products multiply.

use crate::cuda::Gpu;
use crate::{Error, Result};
use std::sync::OnceLock;

/// The precision of the numbers that products multiply; sums are f32 in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Math {
    /// All of f32's 24 bits, without tensor cores.
    F32,
    /// 11 bits and f32's range.
    Tf32,
    /// 8 bits and f32's range; attention multiplies in tf32.
    Bf16,
}

/// Names a [`Math`]; without it, it is [`Math::Tf32`].
const VARIABLE: &str = "RQLAB_GPU";

impl Math {
    const NAMES: [(&str, Self); 3] = [("f32", Self::F32), ("tf32", Self::Tf32), ("bf16", Self::Bf16)];

    fn named(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, math)| math)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

/// The precision that products on every GPU use, the same for the life of the process. Another value of [`VARIABLE`] is
/// passed over here, and complained of by [`asked_for`].
pub(crate) fn math() -> Math {
    static MATH: OnceLock<Math> = OnceLock::new();
    // Tests compare with finite differences and slow twins, to tolerances of f32.
    const USUAL: Math = if cfg!(test) { Math::F32 } else { Math::Tf32 };
    *MATH.get_or_init(|| std::env::var(VARIABLE).ok().and_then(|name| Math::named(&name)).unwrap_or(USUAL))
}

/// What [`VARIABLE`] says, if it is set.
pub(crate) fn asked_for() -> Result<Option<String>> {
    let Some(name) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let name = name.to_string_lossy().into_owned();
    if Math::named(&name).is_some() {
        return Ok(Some(name));
    }
    let names = Math::NAMES.map(|(name, _)| name).join(", ");
    Err(Error::Device(format!("{VARIABLE} is {name:?} and should be one of {names}")))
}

impl Gpu {
    /// The precision of products.
    #[allow(clippy::unused_self, reason = "callers have a GPU and no other place to ask")]
    pub(crate) fn math(&self) -> Math {
        math()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_is_known_by_its_name() {
        for (name, math) in Math::NAMES {
            assert_eq!((Math::named(name), math.name()), (Some(math), name));
        }
        assert_eq!(Math::named("TF32"), None);
    }
}
