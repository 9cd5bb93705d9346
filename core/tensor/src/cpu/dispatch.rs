//! One binary that is fast on every x86-64 and correct elsewhere: a kernel is compiled for several instruction sets and
//! the best one that the processor has is chosen at run time.

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

/// The best level of this processor.
pub(crate) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        // The standard library caches these.
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

/// Defines a function whose body is compiled for every [`Level`] and chosen at each call. The body should be a plain
/// loop that the compiler vectorises; what it calls must be `#[inline(always)]`.
///
/// `f32::mul_add` is one instruction in the two upper levels, but a slow library call in the lowest: write the product
/// and the sum apart unless the fused form pays for a body of its own.
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident$(<$($generic:ident: $bound:path),+>)?($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name$(<$($generic: $bound),+>)?($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body$(<$($generic: $bound),+>)?($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn avx512$(<$($generic: $bound),+>)?($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2$(<$($generic: $bound),+>)?($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                match $crate::cpu::dispatch::level() {
                    // SAFETY: `level` has checked that the processor has the features.
                    #[allow(unsafe_code)]
                    $crate::cpu::dispatch::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    #[allow(unsafe_code)]
                    $crate::cpu::dispatch::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::cpu::dispatch::Level::Baseline => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use simd;
