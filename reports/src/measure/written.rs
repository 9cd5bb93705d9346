//! Names of measures as a person writes them in an experiment file: `psnr`, `usage_2`, `level1_usage_2`,
//! `images_per_second_b64_cache`.

use super::Group;
use super::quantity::{Index, Quantity};
use super::table::{Row, TABLE, Takes};

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
    matches!(part, "cache" | "nocache") || (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
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
        (Takes::Depth, [one]) => vec![depth(one)?],
        (Takes::TwoDepths, [one, two]) if one != two => vec![depth(one)?, depth(two)?],
        (Takes::Batch | Takes::BatchAndCache, [size]) => vec![batch(size)?],
        (Takes::BatchAndCache, [size, "cache"]) => vec![batch(size)?, Index::Cache(true)],
        (Takes::BatchAndCache, [size, "nocache"]) => vec![batch(size)?, Index::Cache(false)],
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
        Takes::Level => format!("alone, or with a level, as in `level1_{name}`; levels count from 1"),
        Takes::Depth => format!("with a depth or a level, as in `{name}_2` and `level1_{name}_2`; both count from 1"),
        Takes::TwoDepths => format!("with two depths, as in `{name}_1_2`; depths count from 1"),
        Takes::Batch => format!("with a batch size, as in `{name}_b16`"),
        Takes::BatchAndCache => format!("with a batch size and `cache` or `nocache`, as in `{name}_b16_cache`"),
    }
}
