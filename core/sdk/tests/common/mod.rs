//! How properties are tested.

use proptest::test_runner::{Config, RngSeed};

/// On the same cases every time, unless the variables of proptest say otherwise.
pub(crate) fn properties() -> Config {
    let usual = Config::default();
    let rng_seed = if usual.rng_seed == RngSeed::Random { RngSeed::Fixed(0) } else { usual.rng_seed };
    Config { failure_persistence: None, rng_seed, ..usual }
}
