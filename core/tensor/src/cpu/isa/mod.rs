//! One binary that is fast on every x86-64 and correct elsewhere: a kernel is compiled for several instruction sets and
//! the best one that the processor has is chosen at run time.

pub(crate) mod math;
pub(crate) mod peak;
pub(crate) mod vector;

use std::sync::OnceLock;

/// The instruction sets that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// What every processor of the target has.
    Baseline,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, VL, DQ and BW.
    Avx512,
}

/// Names a [`Level`], the best one to be used; without it, the best one of the processor is.
pub(crate) const VARIABLE: &str = "RQLAB_CPU";

impl Level {
    /// Their names, the lowest first.
    pub(crate) const NAMES: [(&str, Self); 3] =
        [("baseline", Self::Baseline), ("avx2", Self::Avx2), ("avx512", Self::Avx512)];

    /// The level of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, level)| level)
    }
}

/// The level that kernels use, the same for the life of the process: the best of this processor, or a lower one that
/// [`VARIABLE`] names. Another value of it is passed over here, and complained of by [`crate::instructions_asked_for`].
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let asked = std::env::var(VARIABLE).ok().and_then(|name| Level::named(&name));
        asked.map_or(best(), |asked| asked.min(best()))
    })
}

/// The best level of this processor.
pub(crate) fn best() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("fma")
        {
            return Level::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Level::Avx2;
        }
    }
    Level::Baseline
}

/// `a * b + c`, rounded once if `FUSED`. `f32::mul_add` is one instruction where the level has one, and a slow library
/// call where it has not.
#[inline(always)]
pub(crate) fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Whether every processor of the target multiplies and adds in one instruction.
pub(crate) const BASELINE_FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// Defines a function whose body is compiled for every [`Level`] and chosen at each call. The body should be a plain
/// loop that the compiler vectorises; what it calls must be `#[inline(always)]`. In the body the constant `FUSED` says
/// whether the level has a fused multiply-add, for [`fma`] and the functions of [`math`](crate::cpu::isa::math).
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident$(<$($life:lifetime)? $(,)? $($generic:ident: $bound:path),*>)?($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name$(<$($life,)? $($generic: $bound),*>)?($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn avx512$(<$($life,)? $($generic: $bound),*>)?($($arg: $ty),*) $(-> $ret)? {
                    #[allow(dead_code)]
                    const FUSED: bool = true;
                    $body
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2$(<$($life,)? $($generic: $bound),*>)?($($arg: $ty),*) $(-> $ret)? {
                    #[allow(dead_code)]
                    const FUSED: bool = true;
                    $body
                }
                match $crate::cpu::isa::level() {
                    // SAFETY: `level` has checked that the processor has the features.
                    #[allow(unsafe_code)]
                    $crate::cpu::isa::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    #[allow(unsafe_code)]
                    $crate::cpu::isa::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::cpu::isa::Level::Baseline => {}
                }
            }
            #[allow(dead_code)]
            const FUSED: bool = $crate::cpu::isa::BASELINE_FUSED;
            $body
        }
    };
}
pub(crate) use simd;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_can_be_lowered_by_name_but_not_raised() {
        assert_eq!(Level::named("avx2"), Some(Level::Avx2));
        assert_eq!(Level::named("AVX2"), None);
        assert!(Level::NAMES.is_sorted_by_key(|(_, level)| level));
        let asked = std::env::var(VARIABLE).ok().and_then(|name| Level::named(&name));
        assert_eq!(level(), best().min(asked.unwrap_or(Level::Avx512)));
    }
}
