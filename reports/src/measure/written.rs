//! Names of measures as a person writes them in an experiment file: `psnr`, `usage_2`, `level1_usage_2`,
//! `images_per_second_b64_cache`.

use super::quantity::{Index, Quantity};
use super::table::{Row, TABLE, Takes};
use super::{Group, Protocol};

/// Why a written name is no measure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No measure is called so.
    #[error("there is no measure `{written}`")]
    Unknown {
        /// The name as written.
        written: String,
    },
    /// The measure is known, but is not taken at such indices.
    #[error("`{written}` is not how `{measure}` is written: {wanted}")]
    Indices {
        /// The name as written.
        written: String,
        /// Plain name of the measure.
        measure: &'static str,
        /// How it is written, with an example.
        wanted: String,
    },
    /// The measure is recorded as a curve only, so that a finished trial has no value of it.
    #[error("`{written}` is a curve of training: a finished trial has no single value of it to compare")]
    Curve {
        /// The name as written.
        written: String,
    },
}

/// The measure and indices that a written name stands for: the name of the column that such a reading has in the tables.
///
/// # Errors
/// If the registry has no such measure, it is not taken at such indices, or it is a curve of training.
pub fn quantity(written: &str) -> Result<Quantity, NameError> {
    let (level, rest) = leading_level(written).map_or((None, written), |(level, rest)| (Some(level), rest));
    // Of `psnr` and `psnr_at`, the longer name that fits is meant.
    let mut rows: Vec<(&Row, Vec<&str>)> =
        TABLE.iter().filter_map(|row| Some((row, ending(rest.strip_prefix(row.name)?)?))).collect();
    rows.sort_by_key(|(row, _)| std::cmp::Reverse(row.name.len()));
    for (row, ending) in &rows {
        let Some(found) = indices(row.takes, level, ending) else { continue };
        return match row.group {
            Group::Training => Err(NameError::Curve { written: written.to_owned() }),
            _ => Ok(Quantity::new(row.name, found)),
        };
    }
    // What does not look like indices belongs to a name that does not exist.
    match rows.iter().find(|(_, ending)| ending.iter().all(|part| looks_like_an_index(part))) {
        Some((row, _)) => {
            Err(NameError::Indices { written: written.to_owned(), measure: row.name, wanted: wanted(row) })
        }
        None => Err(NameError::Unknown { written: written.to_owned() }),
    }
}

/// The plain names of what can be compared, in the registry's order.
pub fn measure_names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().filter(|row| row.group != Group::Training).map(|row| row.name)
}

/// `level1_usage_2` is level 1 of `usage_2`.
fn leading_level(written: &str) -> Option<(&str, &str)> {
    let (level, rest) = written.strip_prefix("level")?.split_once('_')?;
    level.bytes().all(|byte| byte.is_ascii_digit()).then_some((level, rest))
}

/// The parts after a name, `["1", "2"]` of `_1_2`; `None` if the name goes on.
fn ending(rest: &str) -> Option<Vec<&str>> {
    if rest.is_empty() { Some(Vec::new()) } else { Some(rest.strip_prefix('_')?.split('_').collect()) }
}

fn looks_like_an_index(part: &str) -> bool {
    let digits = part.strip_prefix('b').unwrap_or(part);
    matches!(part, "cache" | "nocache")
        || Protocol::named(part).is_some()
        || (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A number from 1 on, written without a leading zero.
fn count(digits: &str) -> Option<usize> {
    let number = digits.parse().ok().filter(|&number: &usize| number > 0)?;
    (number.to_string() == digits).then_some(number)
}

fn indices(takes: Takes, level: Option<&str>, ending: &[&str]) -> Option<Vec<Index>> {
    let depth = |digits: &str| count(digits).map(Index::Depth);
    let batch = |part: &str| count(part.strip_prefix('b')?).map(Index::Batch);
    let mut found = match (takes, ending) {
        (_, []) if takes != Takes::TwoDepths => vec![],
        (Takes::Protocol, [name]) => vec![Index::Protocol(Protocol::named(name)?)],
        (Takes::Depth, [one]) => vec![depth(one)?],
        (Takes::TwoDepths, [one, two]) if one != two => vec![depth(one)?, depth(two)?],
        (Takes::Batch | Takes::BatchAndCache, [size]) => vec![batch(size)?],
        (Takes::BatchAndCache, [size, "cache"]) => vec![batch(size)?, Index::Cache(true)],
        (Takes::BatchAndCache, [size, "nocache"]) => vec![batch(size)?, Index::Cache(false)],
        (Takes::Attribute, words) => vec![Index::Attribute(words.join("_"))],
        _ => return None,
    };
    if let Some(level) = level {
        let levelled = matches!(takes, Takes::Level | Takes::Depth | Takes::TwoDepths);
        found.push(Index::Level(count(level).filter(|_| levelled)?));
    }
    Some(found)
}

/// How the measure of a row is written.
fn wanted(row: &Row) -> String {
    let name = row.name;
    match row.takes {
        Takes::Nothing => "it has no level, depth or batch size".to_owned(),
        Takes::Protocol => format!("alone, or with a protocol, as in `{name}_llamagen`"),
        Takes::Level => format!("alone, or with a level, as in `level1_{name}`; levels count from 1"),
        Takes::Depth => format!("with a depth or a level, as in `{name}_2` and `level1_{name}_2`; both count from 1"),
        Takes::TwoDepths => format!("with two depths, as in `{name}_1_2`; depths count from 1"),
        Takes::Batch => format!("with a batch size, as in `{name}_b16`"),
        Takes::BatchAndCache => format!("with a batch size and `cache` or `nocache`, as in `{name}_b16_cache`"),
        Takes::Attribute => format!("alone, or with what captions name, as in `{name}_shape`"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// A quantity of every kind that the registry takes, for every row.
    fn possible() -> Vec<Quantity> {
        let mut all = Vec::new();
        for row in TABLE.iter().filter(|row| row.group != Group::Training) {
            let places: Vec<Vec<Index>> = match row.takes {
                Takes::Nothing => vec![vec![]],
                Takes::Protocol => std::iter::once(vec![])
                    .chain(Protocol::ALL.map(|protocol| vec![Index::Protocol(protocol)]))
                    .collect(),
                Takes::Level => vec![vec![], vec![Index::Level(3)]],
                Takes::Depth => {
                    vec![vec![], vec![Index::Depth(12)], vec![Index::Level(1)], vec![Index::Level(1), Index::Depth(2)]]
                }
                Takes::TwoDepths => {
                    let pair = [Index::Depth(1), Index::Depth(10)];
                    vec![pair.to_vec(), [&[Index::Level(2)], &pair[..]].concat()]
                }
                Takes::Batch => vec![vec![], vec![Index::Batch(64)]],
                Takes::BatchAndCache => {
                    let cache = |cache| vec![Index::Batch(16), Index::Cache(cache)];
                    vec![vec![], vec![Index::Batch(1)], cache(true), cache(false)]
                }
                Takes::Attribute => vec![vec![], vec![Index::Attribute("shape".to_owned())]],
            };
            all.extend(places.into_iter().map(|at| Quantity::new(row.name, at)));
        }
        all
    }

    #[test]
    fn every_quantity_is_written_as_its_column_and_no_two_alike() {
        let mut names = std::collections::BTreeSet::new();
        for possible in possible() {
            let name = possible.to_string();
            assert_eq!(quantity(&name), Ok(possible), "{name}");
            assert!(names.insert(name.clone()), "{name} is written twice");
        }
    }

    #[test]
    fn column_names_are_those_that_tables_have_always_had() {
        for (name, measure, at) in [
            ("psnr", "psnr", vec![]),
            ("usage_2", "usage", vec![Index::Depth(2)]),
            ("level1_usage_2", "usage", vec![Index::Level(1), Index::Depth(2)]),
            ("psnr_at_3", "psnr_at", vec![Index::Depth(3)]),
            ("prior_bits_3", "prior_bits", vec![Index::Depth(3)]),
            ("code_overlap_1_2", "code_overlap", vec![Index::Depth(1), Index::Depth(2)]),
            ("images_per_second_b64_cache", "images_per_second", vec![Index::Batch(64), Index::Cache(true)]),
            ("images_per_second_b64_nocache", "images_per_second", vec![Index::Batch(64), Index::Cache(false)]),
            ("decode_images_per_second_b64", "decode_images_per_second", vec![Index::Batch(64)]),
        ] {
            assert_eq!(quantity(name).unwrap(), Quantity::new(measure, at));
            assert_eq!(quantity(name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn what_is_no_measure_is_told_apart_from_what_is_written_wrongly() {
        for unknown in ["pnsr", "usage_of_tea", "", "level1_tea", "prior_bits_per_imag", "usage_", "Psnr"] {
            assert!(matches!(quantity(unknown), Err(NameError::Unknown { .. })), "{unknown}: {:?}", quantity(unknown));
        }
        for (wrong, measure) in [
            ("psnr_2", "psnr"),
            ("level1_psnr", "psnr"),
            ("usage_0", "usage"),
            ("usage_01", "usage"),
            ("usage_1_2", "usage"),
            ("level0_usage", "usage"),
            ("level_usage", "usage"),
            ("code_overlap", "code_overlap"),
            ("code_overlap_2_2", "code_overlap"),
            ("images_per_second_64", "images_per_second"),
            ("images_per_second_cache", "images_per_second"),
            ("decode_images_per_second_b1_cache", "decode_images_per_second"),
            ("usage_99999999999999999999999", "usage"),
        ] {
            match quantity(wrong) {
                Err(NameError::Indices { measure: found, .. }) => assert_eq!(found, measure, "{wrong}"),
                other => panic!("{wrong}: {other:?}"),
            }
        }
        assert!(matches!(quantity("learning_rate"), Err(NameError::Curve { .. })));
        assert!(matches!(quantity("loss_2"), Err(NameError::Curve { .. })));
    }

    #[test]
    fn an_error_says_how_the_measure_is_written() {
        assert_eq!(
            quantity("usage_0").unwrap_err().to_string(),
            "`usage_0` is not how `usage` is written: with a depth or a level, as in `usage_2` and `level1_usage_2`; both \
             count from 1"
        );
        assert_eq!(quantity("pnsr").unwrap_err().to_string(), "there is no measure `pnsr`");
    }
}
