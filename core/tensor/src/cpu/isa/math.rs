//! Elementary functions as short polynomials that the compiler vectorises, unlike calls into the C library.
//!
//! `FUSED` says whether the instruction set has a fused multiply-add (see [`simd`](crate::cpu::isa::simd)).

use crate::cpu::isa::fma;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts: multiples of the first up to 2^13 are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Added and subtracted, it rounds to an integer; its lowest bits then hold that integer.
const ROUND: f32 = 12_582_912.0;

/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`: n and e^r - 1, the latter by its Taylor series to the seventh order.
#[inline(always)]
fn reduce<const FUSED: bool>(x: f32) -> (i32, f32) {
    let shifted = fma::<FUSED>(x, LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FUSED>(n, -LN_2_LOW, fma::<FUSED>(n, -LN_2_HIGH, x));
    let mut p = 1.0 / 5040.0;
    p = fma::<FUSED>(p, r, 1.0 / 720.0);
    p = fma::<FUSED>(p, r, 1.0 / 120.0);
    p = fma::<FUSED>(p, r, 1.0 / 24.0);
    p = fma::<FUSED>(p, r, 1.0 / 6.0);
    p = fma::<FUSED>(p, r, 0.5);
    (shifted.to_bits() as i32 - ROUND.to_bits() as i32, fma::<FUSED>(p * r, r, r))
}

/// 2^n for n in -126..=127, and 0 for -127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

/// e^x; relative error below 2e-7 where the result is normal.
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    // Beyond these the result is 0 or infinite; the power of two is applied in halves, since it may leave the range.
    let (n, p) = reduce::<FUSED>(x.clamp(-104.0, 89.0));
    let half = n >> 1;
    (p + 1.0) * power_of_two(half) * power_of_two(n - half)
}

/// e^x for x <= 88, as probabilities need it: results below 2^-126 are 0. Relative error below 2e-7.
#[inline(always)]
pub(crate) fn exp_flushed<const FUSED: bool>(x: f32) -> f32 {
    // The least x has n = -127, whose power of two has an empty exponent: 0. A NaN passes the comparison.
    let (n, p) = reduce::<FUSED>(if x < -87.9 { -87.9 } else { x });
    (p + 1.0) * power_of_two(n)
}

/// e^x - 1 for x <= 0, and 0 above; absolute error below 1e-7, relative error below 1e-6.
#[inline(always)]
pub(crate) fn exp_minus_one<const FUSED: bool>(x: f32) -> f32 {
    let (n, p) = reduce::<FUSED>(x.clamp(-40.0, 0.0));
    let scale = power_of_two(n);
    fma::<FUSED>(p, scale, scale - 1.0)
}

/// tanh x; relative error below 1e-6.
#[inline(always)]
pub(crate) fn tanh<const FUSED: bool>(x: f32) -> f32 {
    // tanh |x| = -m / (2 + m) with m = e^(-2|x|) - 1, which is accurate near zero too.
    let (n, p) = reduce::<FUSED>((-2.0 * x.abs()).max(-40.0));
    let scale = power_of_two(n);
    let m = fma::<FUSED>(p, scale, scale - 1.0);
    // Adding 0 x keeps a NaN, which `max` would lose.
    (-m / (2.0 + m)).copysign(x) + 0.0 * x.clamp(-1.0, 1.0)
}

/// 1 / x for x in 1..=2^126, relative error below 3e-7: a third of the time of a division.
#[inline(always)]
fn reciprocal<const FUSED: bool>(x: f32) -> f32 {
    // The negative of the exponent, and a line in place of the hyperbola between powers of two: off by an eighth at most.
    // Each iteration cubes the error.
    let mut y = f32::from_bits(0x7ef3_11c7_u32.wrapping_sub(x.to_bits()));
    for _ in 0..2 {
        let r = fma::<FUSED>(-x, y, 1.0);
        y = fma::<FUSED>(fma::<FUSED>(r, r, r), y, y);
    }
    y
}

/// 1 / (1 + e^-x); relative error below 1e-6 for |x| <= 87, beyond which it stays as there.
#[inline(always)]
pub(crate) fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    let (n, p) = reduce::<FUSED>((-x).clamp(-87.0, 87.0));
    let scale = power_of_two(n);
    reciprocal::<FUSED>(1.0 + fma::<FUSED>(p, scale, scale))
}

/// Distribution function and density of the standard normal at x: (1 + erf(x / sqrt 2)) / 2 and e^(-x^2/2) / sqrt(2 pi).
///
/// Relative error below 1e-6 for |x| <= 5, absolute error below 2e-7 everywhere.
#[inline(always)]
pub(crate) fn normal<const FUSED: bool>(x: f32) -> (f32, f32) {
    let t = x.abs();
    let gauss = exp_flushed::<FUSED>(-0.5 * t * t);
    // The tail is e^(-t^2/2) times a smooth function, fitted by a polynomial in w = 1 / (1 + 0.35 t) to a relative
    // error of 3e-8 over 0 <= t <= 14.5, beyond which the exponential is zero.
    let w = 1.0 / fma::<FUSED>(0.35, t, 1.0);
    let mut p = -0.029_158_03;
    p = fma::<FUSED>(p, w, 0.144_031_61);
    p = fma::<FUSED>(p, w, -0.255_840_4);
    p = fma::<FUSED>(p, w, 0.159_321_25);
    p = fma::<FUSED>(p, w, -0.023_213_392);
    p = fma::<FUSED>(p, w, 0.105_552_93);
    p = fma::<FUSED>(p, w, 0.119_821_18);
    p = fma::<FUSED>(p, w, 0.139_863_54);
    p = fma::<FUSED>(p, w, 0.139_621_3);
    let tail = gauss * (p * w);
    (if x < 0.0 { tail } else { 1.0 - tail }, gauss * 0.398_942_3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(low: f32, high: f32) -> impl Iterator<Item = f32> {
        (0..=200_000).map(move |i| low + (high - low) * (i as f32 / 200_000.0))
    }

    fn worst_relative(xs: impl Iterator<Item = f32>, ours: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        xs.map(|x| (f64::from(ours(x)) / exact(f64::from(x)) - 1.0).abs()).fold(0.0, f64::max)
    }

    /// erfc by its series near zero and its continued fraction beyond, in f64.
    fn normal_cdf(x: f64) -> f64 {
        let z = x.abs();
        let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let tail = if z < 3.0 {
            // 1/2 - density * (z + z^3/3 + z^5/(3*5) + ..)
            let (mut term, mut sum) = (z, z);
            for k in 1..100 {
                term *= z * z / f64::from(2 * k + 1);
                sum += term;
            }
            0.5 - density * sum
        } else {
            // density / (z + 1/(z + 2/(z + 3/(..))))
            density / (1..200).rev().fold(z, |below, k| z + f64::from(k) / below)
        };
        if x < 0.0 { tail } else { 1.0 - tail }
    }

    fn check<const FUSED: bool>() {
        let (exp, tanh, sigmoid) = (exp::<FUSED>, tanh::<FUSED>, sigmoid::<FUSED>);
        assert!(worst_relative(grid(-87.0, 88.5), exp, f64::exp) < 2e-7);
        assert_eq!((exp(0.0), exp(-104.5), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert_eq!((exp(89.0), exp(f32::INFINITY)), (f32::INFINITY, f32::INFINITY));

        let flushed = exp_flushed::<FUSED>;
        assert!(worst_relative(grid(-87.0, 88.0), flushed, f64::exp) < 2e-7);
        assert_eq!((flushed(0.0), flushed(-88.0), flushed(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));

        let below = exp_minus_one::<FUSED>;
        assert!(worst_relative(grid(-50.0, -1e-6), below, f64::exp_m1) < 1e-6);
        assert_eq!((below(0.0), below(3.0), below(f32::NEG_INFINITY)), (0.0, 0.0, -1.0));

        assert!(worst_relative(grid(1e-6, 12.0), tanh, f64::tanh) < 1e-6);
        assert!(worst_relative(grid(-1e-3, -1e-7), tanh, f64::tanh) < 1e-6);
        assert_eq!((tanh(0.0), tanh(50.0), tanh(f32::NEG_INFINITY)), (0.0, 1.0, -1.0));

        assert!(worst_relative(grid(-80.0, 80.0), sigmoid, |x| 1.0 / (1.0 + (-x).exp())) < 1e-6);

        let cdf = |x| normal::<FUSED>(x).0;
        assert!(worst_relative(grid(-5.0, 5.0), cdf, normal_cdf) < 1e-6);
        let absolute =
            grid(-20.0, 20.0).map(|x| (f64::from(cdf(x)) - normal_cdf(f64::from(x))).abs()).fold(0.0, f64::max);
        assert!(absolute < 2e-7, "{absolute:e}");
        assert_eq!((cdf(-30.0), cdf(30.0)), (0.0, 1.0));

        assert!([exp, flushed, below, tanh, sigmoid, cdf].iter().all(|f| f(f32::NAN).is_nan()));
    }

    #[test]
    fn functions_keep_their_error_bounds_and_limits_with_fused_instructions() {
        check::<true>();
    }

    #[test]
    fn functions_keep_their_error_bounds_and_limits_without_fused_instructions() {
        check::<false>();
    }
}
