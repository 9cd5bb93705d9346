//! The linear maps around a Winograd convolution: from pixels to products and back, applied along both axes of a tile,
//! over all channels.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use crate::cpu::isa::vector::{Avx2, Avx512};
use crate::cpu::isa::vector::{Plain, Vector};
use crate::cpu::isa::{Level, level};

/// One tile: `from` is `N x N` rows of channels and `to` `M x M`, for the sizes of the [`Map`].
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// A pointer for every place, `step` apart.
    pub(crate) from: *const *const f32,
    pub(crate) step: usize,
    /// A pointer for every place; null where nothing is wanted.
    pub(crate) to: *const *mut f32,
    pub(crate) channels: usize,
    /// One number per channel, added everywhere, or null.
    pub(crate) bias: *const f32,
    /// Adds to what is there.
    pub(crate) accumulate: bool,
}

/// A linear map from `N` numbers to `M`, along one axis.
trait Line<const N: usize, const M: usize> {
    /// # Safety
    /// The processor has the instructions of `V`.
    unsafe fn apply<V: Vector>(x: [V; N]) -> [V; M];
}

macro_rules! line {
    ($(#[$meta:meta])* $name:ident: $n:literal to $m:literal, |$x:ident| $value:expr) => {
        $(#[$meta])*
        struct $name;
        impl Line<$n, $m> for $name {
            #[inline(always)]
            unsafe fn apply<V: Vector>($x: [V; $n]) -> [V; $m] {
                // SAFETY: the caller's promise.
                unsafe { $value }
            }
        }
    };
}

line! {
    /// Bᵀ of F(2, 3).
    Input: 4 to 4, |x| [x[0].sub(x[2]), x[1].add(x[2]), x[2].sub(x[1]), x[1].sub(x[3])]
}
line! {
    /// Aᵀ of F(2, 3).
    Output: 4 to 2, |x| {
        let (sum, difference) = (x[1].add(x[2]), x[1].sub(x[2]));
        [x[0].add(sum), difference.sub(x[3])]
    }
}
line! {
    /// A of F(2, 3).
    Gradient: 2 to 4, |x| [x[0], x[0].add(x[1]), x[0].sub(x[1]), V::zero().sub(x[1])]
}
line! {
    /// G of F(2, 3).
    Weight: 3 to 4, |x| {
        let half = V::splat(0.5);
        let (ends, middle) = (x[0].add(x[2]).mul(half), x[1].mul(half));
        [x[0], ends.add(middle), ends.sub(middle), x[2]]
    }
}
line! {
    /// Gᵀ of F(2, 3).
    WeightGradient: 4 to 3, |x| {
        let half = V::splat(0.5);
        let (sum, difference) = (x[1].add(x[2]).mul(half), x[1].sub(x[2]).mul(half));
        [x[0].add(sum), difference, sum.add(x[3])]
    }
}
line! {
    /// Bᵀ of F(4, 3).
    Input4: 6 to 6, |x| {
        let (minus4, two) = (V::splat(-4.0), V::splat(2.0));
        let ends = |a: V, b: V, c: V| c.fma(b, V::splat(-5.0)).fma(a, V::splat(4.0));
        let (even, odd) = (x[4].fma(x[2], minus4), x[3].fma(x[1], minus4));
        let (even2, odd2) = (x[4].sub(x[2]), x[3].sub(x[1]).mul(two));
        [ends(x[0], x[2], x[4]), even.add(odd), even.sub(odd), even2.add(odd2), even2.sub(odd2), ends(x[1], x[3], x[5])]
    }
}
line! {
    /// Aᵀ of F(4, 3).
    Output4: 6 to 4, |x| {
        let (sum, difference) = (x[1].add(x[2]), x[1].sub(x[2]));
        let (sum2, difference2) = (x[3].add(x[4]), x[3].sub(x[4]));
        [
            x[0].add(sum).add(sum2),
            difference.fma(difference2, V::splat(2.0)),
            sum.fma(sum2, V::splat(4.0)),
            difference.fma(difference2, V::splat(8.0)).add(x[5]),
        ]
    }
}
line! {
    /// A of F(4, 3).
    Gradient4: 4 to 6, |x| {
        let (even, odd) = (x[0].add(x[2]), x[1].add(x[3]));
        let (four, two) = (V::splat(4.0), V::splat(2.0));
        let (even2, odd2) = (x[0].fma(x[2], four), x[1].fma(x[3], four).mul(two));
        [x[0], even.add(odd), even.sub(odd), even2.add(odd2), even2.sub(odd2), x[3]]
    }
}
line! {
    /// G of F(4, 3).
    Weight4: 3 to 6, |x| {
        let sixth = V::splat(-1.0 / 6.0);
        let (ends, middle) = (x[0].add(x[2]).mul(sixth), x[1].mul(sixth));
        let ends2 = x[0].mul(V::splat(1.0 / 24.0)).fma(x[2], V::splat(1.0 / 6.0));
        let middle2 = x[1].mul(V::splat(1.0 / 12.0));
        [
            x[0].mul(V::splat(0.25)),
            ends.add(middle),
            ends.sub(middle),
            ends2.add(middle2),
            ends2.sub(middle2),
            x[2],
        ]
    }
}
line! {
    /// Gᵀ of F(4, 3).
    WeightGradient4: 6 to 3, |x| {
        let sixth = V::splat(-1.0 / 6.0);
        let (sum, difference) = (x[1].add(x[2]).mul(sixth), x[1].sub(x[2]).mul(sixth));
        let (sum2, difference2) = (x[3].add(x[4]), x[3].sub(x[4]));
        [
            sum.fma(x[0], V::splat(0.25)).fma(sum2, V::splat(1.0 / 24.0)),
            difference.fma(difference2, V::splat(1.0 / 12.0)),
            sum.fma(sum2, V::splat(1.0 / 6.0)).add(x[5]),
        ]
    }
}
line! {
    /// Bᵀ where the second and third pixel are one: the third product is 0 and left out, and half of the second goes to
    /// the weight.
    UpInput: 3 to 3, |x| [x[0].sub(x[1]), x[1], x[1].sub(x[2])]
}
line! {
    /// Aᵀ without the third product.
    UpOutput: 3 to 2, |x| [x[0].add(x[1]), x[1].sub(x[2])]
}
line! {
    /// A without the third product.
    UpGradient: 2 to 3, |x| [x[0], x[0].add(x[1]), V::zero().sub(x[1])]
}
line! {
    /// Bᵀ without the third product.
    UpBackInput: 4 to 3, |x| [x[0].sub(x[2]), x[1].add(x[2]), x[1].sub(x[3])]
}
line! {
    /// The sum of both pixels of Aᵀ, half of the second product being in the weight.
    UpBackOutput: 3 to 1, |x| [x[0].add(x[1]).sub(x[2])]
}
line! {
    /// G with twice the second row, without the third.
    UpWeight: 3 to 3, |x| [x[0], x[0].add(x[2]).add(x[1]), x[2]]
}
line! {
    /// Its transpose.
    UpWeightGradient: 3 to 3, |x| [x[0].add(x[1]), x[1], x[1].add(x[2])]
}

/// Which map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Map {
    Input,
    Output,
    Gradient,
    Weight,
    WeightGradient,
    Input4,
    Output4,
    Gradient4,
    Weight4,
    WeightGradient4,
    UpInput,
    UpOutput,
    UpGradient,
    UpBackInput,
    UpBackOutput,
    UpWeight,
    UpWeightGradient,
}

type TileFn = unsafe fn(&Tile);

impl Map {
    /// Places of a tile before and after, along one axis.
    pub(crate) fn sides(self) -> [usize; 2] {
        match self {
            Self::Input => [4, 4],
            Self::Output => [4, 2],
            Self::Gradient => [2, 4],
            Self::Weight => [3, 4],
            Self::WeightGradient => [4, 3],
            Self::Input4 => [6, 6],
            Self::Output4 => [6, 4],
            Self::Gradient4 => [4, 6],
            Self::Weight4 => [3, 6],
            Self::WeightGradient4 => [6, 3],
            Self::UpInput | Self::UpWeight | Self::UpWeightGradient => [3, 3],
            Self::UpOutput => [3, 2],
            Self::UpGradient => [2, 3],
            Self::UpBackInput => [4, 3],
            Self::UpBackOutput => [3, 1],
        }
    }

    /// The map's kernel for this processor.
    pub(crate) fn kernel(self) -> TileFn {
        self.of(level())
    }

    fn of(self, level: Level) -> TileFn {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512(self),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2(self),
            _ => plain(self),
        }
    }
}

/// The kernels of one level.
macro_rules! kernels {
    ($name:ident, $vector:ty, $(#[$enable:meta])*) => {
        fn $name(map: Map) -> TileFn {
            $(#[$enable])*
            unsafe fn of<L: Line<N, M>, const N: usize, const M: usize>(t: &Tile) {
                // SAFETY: passed on to the caller.
                unsafe { tile::<$vector, L, N, M>(t) }
            }
            match map {
                Map::Input => of::<Input, 4, 4>,
                Map::Output => of::<Output, 4, 2>,
                Map::Gradient => of::<Gradient, 2, 4>,
                Map::Weight => of::<Weight, 3, 4>,
                Map::WeightGradient => of::<WeightGradient, 4, 3>,
                Map::Input4 => of::<Input4, 6, 6>,
                Map::Output4 => of::<Output4, 6, 4>,
                Map::Gradient4 => of::<Gradient4, 4, 6>,
                Map::Weight4 => of::<Weight4, 3, 6>,
                Map::WeightGradient4 => of::<WeightGradient4, 6, 3>,
                Map::UpInput => of::<UpInput, 3, 3>,
                Map::UpOutput => of::<UpOutput, 3, 2>,
                Map::UpGradient => of::<UpGradient, 2, 3>,
                Map::UpBackInput => of::<UpBackInput, 4, 3>,
                Map::UpBackOutput => of::<UpBackOutput, 3, 1>,
                Map::UpWeight => of::<UpWeight, 3, 3>,
                Map::UpWeightGradient => of::<UpWeightGradient, 3, 3>,
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(
    avx512,
    Avx512,
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
);
#[cfg(target_arch = "x86_64")]
kernels!(
    avx2,
    Avx2,
    #[target_feature(enable = "avx2,fma")]
);
kernels!(plain, Plain,);

/// # Safety
/// The pointers of `t` are valid for its channels, and the processor has the instructions of `V`.
#[inline(always)]
unsafe fn tile<V: Vector, L: Line<N, M>, const N: usize, const M: usize>(t: &Tile) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut at = 0;
        while at + V::LANES <= t.channels {
            lanes::<V, L, N, M, true>(t, at, V::LANES);
            at += V::LANES;
        }
        let rest = t.channels - at;
        if rest > 0 {
            lanes::<V, L, N, M, false>(t, at, rest);
        }
    }
}

/// The first `n` channels of a vector, from `at` on; all of them if `WHOLE`.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn lanes<V: Vector, L: Line<N, M>, const N: usize, const M: usize, const WHOLE: bool>(
    t: &Tile,
    at: usize,
    n: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut down = [[V::zero(); N]; M];
        for j in 0..N {
            let mut column = [V::zero(); N];
            for i in 0..N {
                column[i] = load::<V, WHOLE>((*t.from.add((i * N + j) * t.step)).add(at), n);
            }
            let mapped = L::apply(column);
            for m in 0..M {
                down[m][j] = mapped[m];
            }
        }
        let bias = if t.bias.is_null() { V::zero() } else { load::<V, WHOLE>(t.bias.add(at), n) };
        for m in 0..M {
            let across = L::apply(down[m]);
            for k in 0..M {
                let to = *t.to.add(m * M + k);
                if to.is_null() {
                    continue;
                }
                let mut x = across[k].add(bias);
                if t.accumulate {
                    x = x.add(load::<V, WHOLE>(to.add(at), n));
                }
                if WHOLE { x.store(to.add(at)) } else { x.store_first(to.add(at), n) }
            }
        }
    }
}

#[inline(always)]
unsafe fn load<V: Vector, const WHOLE: bool>(from: *const f32, n: usize) -> V {
    // SAFETY: the caller's pointer is valid for n numbers, or for all lanes if `WHOLE`.
    unsafe { if WHOLE { V::load(from) } else { V::load_first(from, n) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;
    use std::ptr::{null, null_mut};

    /// The matrices, by rows: those of F(2, 3) as published, the others by the properties that they are made for.
    fn matrix(map: Map) -> Vec<Vec<f32>> {
        let transpose = |a: &[Vec<f32>]| (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect();
        let without_third = |a: Vec<Vec<f32>>| [&a[..2], &a[3..]].concat();
        let times = |a: &[Vec<f32>], b: &[Vec<f32>]| -> Vec<Vec<f32>> {
            let dot = |row: &[f32], j: usize| row.iter().zip(b).map(|(x, b)| x * b[j]).sum();
            a.iter().map(|row| (0..b[0].len()).map(|j| dot(row, j)).collect()).collect()
        };
        let double = |mut a: Vec<Vec<f32>>, by: f32| {
            a[1].iter_mut().for_each(|x| *x *= by);
            a
        };
        let input = [[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, -1.0, 1.0, 0.0], [0.0, 1.0, 0.0, -1.0]];
        let input: Vec<Vec<f32>> = input.iter().map(|row| row.to_vec()).collect();
        let output = vec![vec![1.0, 1.0, 1.0, 0.0], vec![0.0, 1.0, -1.0, -1.0]];
        let weight = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
        let weight: Vec<Vec<f32>> = weight.iter().map(|row| row.to_vec()).collect();
        let input4 = [
            [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
            [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
            [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
            [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
            [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
            [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
        ]
        .map(|row| row.to_vec());
        let output4 = [
            [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
            [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
            [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
            [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
        ]
        .map(|row| row.to_vec());
        let weight4 = [
            [6.0, 0.0, 0.0],
            [-4.0, -4.0, -4.0],
            [-4.0, 4.0, -4.0],
            [1.0, 2.0, 4.0],
            [1.0, -2.0, 4.0],
            [0.0, 0.0, 24.0],
        ]
        .map(|row| row.map(|x| x / 24.0).to_vec());
        // Three pixels of which the one in the middle counts twice.
        let spread = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]].map(|row| row.to_vec());
        match map {
            Map::Input => input,
            Map::Output => output,
            Map::Gradient => transpose(&output),
            Map::Weight => weight,
            Map::WeightGradient => transpose(&weight),
            Map::Input4 => input4.to_vec(),
            Map::Output4 => output4.to_vec(),
            Map::Gradient4 => transpose(&output4),
            Map::Weight4 => weight4.to_vec(),
            Map::WeightGradient4 => transpose(&weight4),
            Map::UpInput => double(without_third(times(&input, &spread)), 0.5),
            Map::UpOutput => transpose(&without_third(transpose(&output))),
            Map::UpGradient => without_third(transpose(&output)),
            Map::UpBackInput => without_third(input),
            Map::UpBackOutput => {
                let sums: Vec<Vec<f32>> = times(&[vec![1.0, 1.0]], &output);
                transpose(&double(without_third(transpose(&sums)), 0.5))
            }
            Map::UpWeight => double(without_third(weight), 2.0),
            Map::UpWeightGradient => transpose(&double(without_third(weight), 2.0)),
        }
    }

    #[test]
    fn every_level_applies_the_matrices_along_both_axes() {
        use Map::*;
        let all =
            [[Input, Output, Gradient, Weight, WeightGradient], [Input4, Output4, Gradient4, Weight4, WeightGradient4]];
        let doubled = [UpInput, UpOutput, UpGradient, UpBackInput, UpBackOutput, UpWeight, UpWeightGradient];
        let all = [all.as_flattened(), &doubled].concat();
        let levels = [Level::Baseline, Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= level());
        for (level, map) in levels.flat_map(|l| all.iter().map(move |&map| (l, map))) {
            let ([n, m], matrix) = (map.sides(), matrix(map));
            assert_eq!([matrix[0].len(), matrix.len()], [n, m], "{map:?}");
            for (channels, accumulate) in [1, 3, 4, 8, 13, 16, 37].into_iter().flat_map(|c| [(c, false), (c, true)]) {
                let whole = |len: usize, seed: u64| -> Vec<f32> {
                    Rng::new(seed, "test", 0).below(len, 9).into_iter().map(|x| x as f32 - 4.0).collect()
                };
                let (x, bias, mut out) = (whole(n * n * channels, 1), whole(channels, 2), whole(m * m * channels, 3));
                let mut wanted = out.clone();
                // The last place is not wanted.
                for (at, wanted) in wanted[..(m * m - 1) * channels].iter_mut().enumerate() {
                    let (i, j, c) = (at / channels / m, at / channels % m, at % channels);
                    let sum: f32 = (0..n * n).map(|p| matrix[i][p / n] * x[p * channels + c] * matrix[j][p % n]).sum();
                    *wanted = sum + bias[c] + if accumulate { *wanted } else { 0.0 };
                }
                // Every second pointer counts.
                let mut from = vec![null(); 2 * n * n];
                (0..n * n).for_each(|p| from[2 * p] = x[p * channels..].as_ptr());
                let mut to: Vec<*mut f32> = out.chunks_exact_mut(channels).map(<[f32]>::as_mut_ptr).collect();
                to[m * m - 1] = null_mut();
                let tile =
                    Tile { from: from.as_ptr(), step: 2, to: to.as_ptr(), channels, bias: bias.as_ptr(), accumulate };
                // SAFETY: rows of `channels` numbers, and a level that this processor has.
                unsafe { map.of(level)(&tile) };
                let far = out.iter().zip(&wanted).fold(0.0f32, |far, (x, y)| far.max((x - y).abs()));
                assert!(far < 1e-3, "{level:?}, {map:?}, {channels} channels: {far}");
            }
        }
    }
}
