//! How many seeds would show a difference.

use super::{FEWEST, LEVEL, student};

/// How often a test is to find what is there.
const POWER: f64 = 0.8;
/// More seeds than this are not worth naming.
const MOST: usize = 1000;

/// The least number of seeds with which a two-sided paired t test at 5% finds a difference of `effect` with a probability of 80%,
/// where differences deviate by `deviation` from seed to seed; `None` if they are more than 1000, or nothing is to be found.
pub(crate) fn seeds_to_show(effect: f64, deviation: f64) -> Option<usize> {
    if !(effect.abs() > 0.0 && deviation > 0.0 && deviation.is_finite()) {
        return (effect.abs() > 0.0 && deviation == 0.0).then_some(FEWEST);
    }
    let size = effect.abs() / deviation;
    let enough = |n: usize| power(size, n) >= POWER;
    if !enough(MOST) {
        return None;
    }
    let (mut low, mut high) = (FEWEST, MOST);
    while low < high {
        let middle = low.midpoint(high);
        if enough(middle) { high = middle } else { low = middle + 1 }
    }
    Some(low)
}

/// The probability that the test of `n` differences finds one of `size` standard deviations.
fn power(size: f64, n: usize) -> f64 {
    let freedom = n as f64 - 1.0;
    let critical = student::quantile(0.5 + LEVEL / 2.0, freedom);
    let shift = size * (n as f64).sqrt();
    1.0 - student::noncentral(critical, freedom, shift) + student::noncentral(-critical, freedom, shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_seeds_are_those_of_the_published_tables() {
        // Cohen (1988), and every program since: the number of pairs for a power of 80% at a two-sided 5%.
        for (size, wanted) in [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)] {
            assert_eq!(seeds_to_show(size, 1.0), Some(wanted), "{size} standard deviations");
        }
        assert_eq!(seeds_to_show(-1.0, 2.0), seeds_to_show(0.5, 1.0));
    }

    #[test]
    fn where_nothing_is_to_be_found_or_nothing_varies() {
        assert_eq!(seeds_to_show(0.0, 1.0), None);
        assert_eq!(seeds_to_show(0.01, 1.0), None);
        assert_eq!(seeds_to_show(0.1, 0.0), Some(FEWEST));
    }

    #[test]
    fn without_an_effect_the_power_is_the_level() {
        assert!((power(0.0, 7) - 0.05).abs() < 1e-6);
    }
}
