//! Randomness without state: every draw is a function of (seed, purpose, step) and its index.
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the key is
//! made of seed and purpose, the counter of step and index. A resumed run needs no generator state, work can be split
//! over threads at will, and every device draws the same numbers. Where a batch is worked on in [`Share`]s, the numbers of a
//! share are those that its rows have in the whole batch.

use std::ops::Range;

/// One of equal parts of a batch, counted from 0: the rows that a process, or a pass of one, works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which part.
    pub index: usize,
    /// How many parts there are.
    pub of: usize,
}

impl Share {
    /// All of a batch.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// One of `parts` equal parts of this share.
    pub fn part(self, part: usize, parts: usize) -> Self {
        Self { index: self.index * parts + part, of: self.of * parts }
    }

    /// This share's rows of a batch of `rows`, which `of` must divide.
    pub fn rows(self, rows: usize) -> Range<usize> {
        let own = rows / self.of.max(1);
        self.index * own..(self.index + 1) * own
    }
}

/// A stream of random numbers. Drawing does not change it: the same call gives the same numbers.
///
/// Draws of n numbers are taken to be for the rows of a batch: a stream [of a share](Rng::of_share) gives the share's n among
/// those of the batch. What is drawn once for a batch is drawn from the [whole](Rng::whole) stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rng {
    key: [u32; 2],
    step: u64,
    share: Share,
}

impl Rng {
    /// The stream of `seed` for `purpose` (say, `"dropout"`) at `step`.
    pub fn new(seed: u64, purpose: &str, step: u64) -> Self {
        // FNV-1a over the purpose, mixed with the seed by splitmix64: distinct purposes get unrelated keys.
        let hash =
            purpose.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let key = splitmix64(seed ^ splitmix64(hash));
        Self { key: [key as u32, (key >> 32) as u32], step, share: Share::WHOLE }
    }

    /// The stream for a part of this one's purpose, such as a layer or a depth.
    pub fn part(&self, name: &str, index: u64) -> Self {
        let key = u64::from(self.key[0]) | u64::from(self.key[1]) << 32;
        Self { step: self.step, share: self.share, ..Self::new(key.wrapping_add(splitmix64(index)), name, 0) }
    }

    /// The same stream for a share of a batch.
    #[must_use]
    pub fn of_share(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// The same stream for all of a batch: what every share draws alike.
    #[must_use]
    pub fn whole(self) -> Self {
        self.of_share(Share::WHOLE)
    }

    /// Where in the whole batch the row `row` of the share's `rows` stands.
    pub fn place(&self, row: usize, rows: usize) -> usize {
        self.share.index * rows + row
    }

    /// The first of the numbers of a share that draws `n`.
    pub(crate) fn first(&self, n: usize) -> u64 {
        self.share.index as u64 * n as u64
    }

    /// Key and step, for a kernel that draws the same words.
    #[cfg(feature = "cuda")]
    pub(crate) fn parts(&self) -> ([u32; 2], u64) {
        (self.key, self.step)
    }

    /// The four words of block `index`.
    pub(crate) fn block(&self, index: u64) -> [u32; 4] {
        philox4x32([index as u32, (index >> 32) as u32, self.step as u32, (self.step >> 32) as u32], self.key)
    }

    /// Sixteen blocks from `index` on, side by side for vector instructions: `[w][i]` is word w of block `index + i`.
    #[inline(always)]
    pub(crate) fn blocks(&self, index: u64) -> [[u32; 16]; 4] {
        let mut counter = [[0, 0, self.step as u32, (self.step >> 32) as u32]; 16];
        for (i, counter) in counter.iter_mut().enumerate() {
            let index = index.wrapping_add(i as u64);
            (counter[0], counter[1]) = (index as u32, (index >> 32) as u32);
        }
        let mut words = [0, 1, 2, 3].map(|w| counter.map(|counter| counter[w]));
        let mut key = self.key;
        for round in 0..10 {
            if round > 0 {
                key = next_key(key);
            }
            let [c0, c1, c2, c3] = words;
            for i in 0..16 {
                let next = philox_round([c0[i], c1[i], c2[i], c3[i]], key);
                for w in 0..4 {
                    words[w][i] = next[w];
                }
            }
        }
        words
    }

    /// `n` words.
    pub fn bits(&self, n: usize) -> Vec<u32> {
        self.drawn_in_blocks(self.first(n), n, |words| words)
    }

    /// `n` numbers uniform in [0, 1), of 24 random bits each.
    pub fn uniform(&self, n: usize) -> Vec<f32> {
        self.bits(n).into_iter().map(unit).collect()
    }

    /// `n` standard normal numbers (Box-Muller, two words each).
    pub fn normal(&self, n: usize) -> Vec<f32> {
        self.normal_from(self.first(n), n)
    }

    /// `blocks` times `n` standard normal numbers, block after block, where each block has numbers for all rows of a batch.
    pub fn normal_blocks(&self, blocks: usize, n: usize) -> Vec<f32> {
        (0..blocks).flat_map(|block| self.normal_from(self.first_of_block(block, n), n)).collect()
    }

    /// As [`Rng::normal_blocks`], uniform in [0, 1).
    pub fn uniform_blocks(&self, blocks: usize, n: usize) -> Vec<f32> {
        self.bits_blocks(blocks, n).map(unit).collect()
    }

    /// As [`Rng::normal_blocks`], indices uniform in `0..below`.
    pub fn below_blocks(&self, blocks: usize, n: usize, below: u32) -> Vec<u32> {
        self.bits_blocks(blocks, n).map(|word| scaled(word, below)).collect()
    }

    fn bits_blocks(&self, blocks: usize, n: usize) -> impl Iterator<Item = u32> {
        (0..blocks).flat_map(move |block| self.drawn_in_blocks(self.first_of_block(block, n), n, |words| words))
    }

    fn first_of_block(&self, block: usize, n: usize) -> u64 {
        (block * self.share.of) as u64 * n as u64 + self.first(n)
    }

    fn normal_from(&self, first: u64, n: usize) -> Vec<f32> {
        self.drawn_in_blocks(first, n, |words| {
            let [[a, b], [c, d]] = [[words[0], words[1]], [words[2], words[3]]].map(|pair| {
                // 1 - u lies in (0, 1], so the logarithm is finite.
                let radius = (-2.0 * f64::from(1.0 - unit(pair[0])).ln()).sqrt();
                let (sin, cos) = (std::f64::consts::TAU * f64::from(unit(pair[1]))).sin_cos();
                [(radius * cos) as f32, (radius * sin) as f32]
            });
            [a, b, c, d]
        })
    }

    /// `n` of the numbers that `make` makes of the blocks, four of each, from the one at `first` on.
    fn drawn_in_blocks<T: Copy>(&self, first: u64, n: usize, make: impl Fn([u32; 4]) -> [T; 4]) -> Vec<T> {
        let skip = (first % 4) as usize;
        let mut out = Vec::with_capacity((skip + n).next_multiple_of(4));
        for block in 0..(skip + n).div_ceil(4) {
            out.extend(make(self.block(first / 4 + block as u64)));
        }
        out.truncate(skip + n);
        out.drain(..skip);
        out
    }

    /// `n` indices uniform in `0..below`; the bias is below `below / 2^32`.
    pub fn below(&self, n: usize, below: u32) -> Vec<u32> {
        self.bits(n).into_iter().map(|word| scaled(word, below)).collect()
    }

    /// A uniformly random order of `0..n` (Fisher-Yates), the same in every share.
    pub fn permutation(&self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for (i, word) in (1..n).rev().zip(self.whole().bits(n.saturating_sub(1))) {
            order.swap(i, ((u64::from(word) * (i as u64 + 1)) >> 32) as usize);
        }
        order
    }
}

fn scaled(word: u32, below: u32) -> u32 {
    ((u64::from(word) * u64::from(below)) >> 32) as u32
}

fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1u32 << 24) as f32)
}

fn splitmix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Philox4x32 with ten rounds.
fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = next_key(key);
        }
        counter = philox_round(counter, key);
    }
    counter
}

#[inline(always)]
fn next_key(key: [u32; 2]) -> [u32; 2] {
    [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)]
}

#[inline(always)]
fn philox_round(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (a, b) = (0xD251_1F53u64 * u64::from(counter[0]), 0xCD9E_8D57u64 * u64::from(counter[2]));
    [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Random123's kat_vectors for philox4x32 with 10 rounds.
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn blocks_side_by_side_are_the_single_ones() {
        let rng = Rng::new(1, "test", u64::MAX - 3);
        for first in [0, 5, (1 << 32) - 7] {
            let words = rng.blocks(first);
            for i in 0..16 {
                assert_eq!(rng.block(first + i), words.map(|word| word[i as usize]));
            }
        }
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let draws = Rng::new(7, "test", 0).normal(100_000);
        let mean = draws.iter().map(|&x| f64::from(x)).sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        // Five standard errors: 5 / sqrt(n) and 5 sqrt(2 / n).
        assert!(mean.abs() < 0.016, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.023, "variance {variance}");
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = Rng::new(3, "shuffle", 1).permutation(1001);
        assert_ne!(order, (0..1001).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1001).collect::<Vec<_>>());
    }

    /// Shares of odd sizes begin within a block of words.
    #[test]
    fn shares_draw_what_their_rows_have_in_the_whole_batch() {
        let rng = Rng::new(5, "test", 3);
        for (of, n) in [(2, 8), (3, 7), (5, 1)] {
            let share = |index| rng.of_share(Share { index, of });
            let all = |draw: &dyn Fn(Rng) -> Vec<f32>| (0..of).flat_map(|index| draw(share(index))).collect::<Vec<_>>();
            assert_eq!(all(&|rng| rng.normal(n)), rng.normal(of * n));
            assert_eq!(all(&|rng| rng.part("x", 1).uniform(n)), rng.part("x", 1).uniform(of * n));
            let whole = rng.normal_blocks(2, of * n);
            assert_eq!(whole, rng.normal(2 * of * n));
            for index in 0..of {
                let own = share(index).normal_blocks(2, n);
                let rows = Share { index, of }.rows(of * n);
                assert_eq!((&own[..n], &own[n..]), (&whole[rows.clone()], &whole[of * n..][rows]));
                assert_eq!(share(index).permutation(9), rng.permutation(9));
                assert_eq!(share(index).whole(), rng);
                assert_eq!(share(index).place(0, n), index * n);
            }
        }
    }

    #[test]
    fn streams_differ_by_seed_purpose_step_and_part() {
        let base = Rng::new(1, "a", 0);
        let others =
            [Rng::new(2, "a", 0), Rng::new(1, "b", 0), Rng::new(1, "a", 1), base.part("x", 0), base.part("x", 1)];
        for (i, a) in others.iter().enumerate() {
            assert_ne!(base.bits(8), a.bits(8));
            for b in &others[i + 1..] {
                assert_ne!(a.bits(8), b.bits(8));
            }
        }
    }
}
