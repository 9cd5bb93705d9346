//! Configurations: any text is read or refused at a place that it has, and what is written out is read back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::properties;
use proptest::prelude::*;
use proptest::sample::select;
use rqlab_sdk::config;
use rqlab_sdk::config::Config;

config! {
    /// One field of each kind.
    pub(crate) struct KindsConfig {
        /// An integer with a range.
        depth: usize = 4, in 1..=64;
        /// A number that may be left out.
        clip: Option<f64> = Some(1.0), in 0.0..;
        /// A flag.
        shared: bool = true;
        /// Text.
        path: String = "here".to_owned();
        /// A list.
        speed: Vec<u64> = vec![1, 16];
        /// Two numbers.
        betas: [f32; 2] = [0.9, 0.99];
    }
}

/// What a call is made of, and what breaks it.
fn parts() -> Vec<&'static str> {
    const WORDS: &str =
        r##"kinds ( ) [ ] { , : " - 65 1e9 r# // /* Some( shared path:"ü" depth:3 clip:None speed:[2] betas:(1,2)"##;
    WORDS.split(' ').chain(["\n", " "]).collect()
}

proptest! {
    #![proptest_config(properties())]

    #[test]
    fn any_text_is_read_or_refused_at_a_place_that_it_has(
        text in prop_oneof![
            any::<String>(),
            proptest::collection::vec(select(parts()), 0..16).prop_map(|parts| parts.concat()),
        ],
    ) {
        let Err(error) = KindsConfig::parse(&text) else { return Ok(()) };
        prop_assert!(!error.message.is_empty());
        if let Some((start, end)) = error.span {
            // A bare name is read as one with `()` behind it.
            let last = text.split('\n').count();
            prop_assert!(start <= end && start.line >= 1 && start.column >= 1);
            prop_assert!(end.line <= last, "{error} in {text:?}");
            let columns = |line: usize| text.split('\n').nth(line - 1).map_or(0, |line| line.chars().count());
            prop_assert!(start.column <= columns(start.line) + 3, "{error} in {text:?}");
        }
    }

    #[test]
    fn what_is_written_out_is_read_back(
        depth in 1..=64usize,
        clip in proptest::option::of(0.0..1e300),
        shared in any::<bool>(),
        path in any::<String>(),
        speed in proptest::collection::vec(any::<u64>(), 0..4),
        betas in any::<[f32; 2]>().prop_filter("numbers", |pair| pair.iter().all(|x| x.is_finite())),
    ) {
        let config = KindsConfig { depth, clip, shared, path, speed, betas };
        let text = config.resolved().unwrap();
        prop_assert_eq!(&KindsConfig::parse(&text).unwrap(), &config);
        prop_assert_eq!(&KindsConfig::parse(&format!("kinds {text}")).unwrap(), &config);
        prop_assert!(!text.contains('\n'));
    }
}
