//! What training starts from, and what it leaves as it is: `from` and `freeze` of the settings.

use crate::weights::WeightsFile;
use rqlab_sdk::params::{Params, Role};
use rqlab_sdk::tensor::{Tensor, Var};
use rqlab_sdk::{Error, Result};
use rqlab_weights::Checkpoint;
use std::collections::{BTreeMap, BTreeSet};

/// That a file holds every entry of a model, with its shape, and no other of the same parts. Reads no tensors.
///
/// # Errors
/// Everything that does not fit.
pub(crate) fn check(file: &WeightsFile, params: &Params) -> Result<()> {
    fitting(file, params).map(|_| ())
}

/// Sets a model's parameters and buffers from a file, if that has its digest.
///
/// # Errors
/// Another digest; those of [`check`].
pub(crate) fn load(file: &WeightsFile, params: &Params) -> Result<()> {
    file.check()?;
    let checkpoint = fitting(file, params)?;
    let tensors = checkpoint.tensors();
    let mut state = BTreeMap::new();
    for (name, entry) in params.entries() {
        let Some(tensor) = tensors.get(name.as_str()) else { continue };
        let numbers = checkpoint.read_f32(tensor).map_err(|error| Error::Checkpoint(error.to_string()))?;
        state.insert(name, Tensor::from_vec(numbers, &entry.shape)?);
    }
    params.load(&state)
}

fn fitting(file: &WeightsFile, params: &Params) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(&file.path).map_err(|error| Error::Checkpoint(error.to_string()))?;
    let (mut wrong, mut parts, mut own) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let tensors = checkpoint.tensors();
    for (name, entry) in params.entries() {
        let shape: Vec<u64> = entry.shape.iter().map(|&side| side as u64).collect();
        match tensors.get(name.as_str()) {
            None => wrong.push(format!("there is no `{name}` {shape:?}")),
            Some(tensor) if tensor.shape != shape => {
                wrong.push(format!("`{name}` is {:?}, not {shape:?}", tensor.shape));
            }
            Some(_) => {}
        }
        parts.insert(part(&name).to_owned());
        own.insert(name);
    }
    let others = tensors.iter().filter(|(name, _)| parts.contains(part(name)) && !own.contains(**name));
    wrong.extend(others.map(|(name, tensor)| format!("`{name}` {:?} is no part of the model", tensor.shape)));
    if wrong.is_empty() {
        return Ok(checkpoint);
    }
    let path = file.path.display();
    let remedy = if tensors.keys().any(|name| parts.contains(part(name))) {
        "the components must be those that the file was made with"
    } else {
        "none of its names begins as ours do: `rqlab import` makes a file of ours of a published one"
    };
    Err(Error::Checkpoint(format!("{path} does not fit the model; {remedy}:\n  {}", wrong.join("\n  "))))
}

/// The part of the model that a name belongs to: `autoencoder`, `quantizer`, `prior`.
fn part(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// What of a model stays as it is.
#[derive(Debug, Default)]
pub(crate) struct Frozen {
    /// Parameters that no optimizer moves.
    names: BTreeSet<String>,
    /// These as constants.
    pub(crate) vars: Vec<Var>,
    /// Parts whose averages and buffers do not move: `quantizer`, `quantizer.1`.
    held: Vec<String>,
}

impl Frozen {
    /// The entries whose names fit one of the patterns: with `*` for any letters, and with or without their first part, so that
    /// `encoder.*` is `autoencoder.encoder.*`. `scopes` are the parts that have averages.
    ///
    /// # Errors
    /// A pattern that no name fits; averages of a part that are named in part.
    pub(crate) fn new(params: &Params, patterns: &[String], scopes: &[String]) -> Result<Self> {
        let entries = params.entries();
        let mut frozen = Self::default();
        if patterns.is_empty() {
            return Ok(frozen);
        }
        if let Some(idle) = patterns.iter().find(|pattern| !entries.iter().any(|(name, _)| fits(pattern, name))) {
            let parts: BTreeSet<String> = entries.iter().map(|(name, _)| beginning(name)).collect();
            let parts = parts.into_iter().collect::<Vec<_>>().join(", ");
            let message =
                format!("`freeze` names `{idle}`, which no parameter is called; their names begin with {parts}");
            return Err(Error::Unsupported(message));
        }
        let is_free = |name: &str| !patterns.iter().any(|pattern| fits(pattern, name));
        if !entries.iter().any(|(name, entry)| entry.role == Role::Trained && is_free(name)) {
            let message = "`freeze` names all parameters that an optimizer trains: leave some free, or train for 0 steps without `freeze`";
            return Err(Error::Unsupported(message.to_owned()));
        }
        let is_frozen = |name: &str| patterns.iter().any(|pattern| fits(pattern, name));
        for scope in scopes {
            let inside = |name: &String| name.strip_prefix(scope.as_str()).is_some_and(|rest| rest.starts_with('.'));
            let moving = entries.iter().filter(|(name, entry)| entry.role != Role::Trained && inside(name));
            let (held, moved): (Vec<_>, Vec<_>) = moving.map(|(name, _)| name).partition(|name| is_frozen(name));
            match (held.first(), moved.first()) {
                (Some(held), Some(moved)) => {
                    let message = format!(
                        "`freeze` names `{held}` and not `{moved}`, which move together: name all of `{scope}.*` or none of it"
                    );
                    return Err(Error::Unsupported(message));
                }
                (Some(_), None) => frozen.held.push(scope.clone()),
                _ => {}
            }
        }
        for (name, entry) in entries.into_iter().filter(|(name, entry)| entry.role == Role::Trained && is_frozen(name))
        {
            frozen.vars.push(entry.var);
            frozen.names.insert(name);
        }
        Ok(frozen)
    }

    /// Whether a parameter stays.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether the averages of a part stay.
    pub(crate) fn holds(&self, scope: &str) -> bool {
        self.held.iter().any(|held| held == scope)
    }
}

/// The first two parts of a name: `autoencoder.encoder`.
fn beginning(name: &str) -> String {
    name.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Whether a name, or what follows its first part, fits a pattern with `*` for any letters.
fn fits(pattern: &str, name: &str) -> bool {
    matches(pattern, name) || name.split_once('.').is_some_and(|(_, inner)| matches(pattern, inner))
}

fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use rqlab_sdk::params::Init;

    #[test]
    fn patterns_fit_whole_names_with_or_without_their_first_part() {
        for (pattern, name, fit) in [
            ("autoencoder.encoder.*", "autoencoder.encoder.conv_in.weight", true),
            ("encoder.*", "autoencoder.encoder.conv_in.weight", true),
            ("encoder.*", "autoencoder.decoder.conv_in.weight", false),
            ("*.bias", "autoencoder.decoder.conv_in.bias", true),
            ("*norm*.weight", "autoencoder.norm1.weight", true),
            ("*norm*.weight", "autoencoder.norm1.weights", false),
            ("w", "w", true),
            ("w", "autoencoder.w", true),
            ("", "w", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, name), fit, "{pattern} {name}");
        }
    }

    #[test]
    fn averages_of_a_part_stay_together() {
        let params = Params::new(0);
        let scope = params.scope("quantizer");
        scope.averaged("weight", &[1], Init::ZEROS).unwrap();
        scope.buffer("count", &[1], Init::ZEROS).unwrap();
        for name in ["v", "w"] {
            params.scope("autoencoder").parameter(name, &[1], Init::ZEROS).unwrap();
        }
        let of = |pattern: &str| Frozen::new(&params, &[pattern.to_owned()], &["quantizer".to_owned()]);
        let all = of("quantizer.*").unwrap();
        assert!(all.holds("quantizer") && all.vars.is_empty());
        let none = of("w").unwrap();
        assert!(none.has("autoencoder.w") && !none.holds("quantizer") && none.vars.len() == 1);
        assert!(of("quantizer.count").unwrap_err().to_string().contains("name all of `quantizer.*`"));
        assert!(
            of("decoder.*")
                .unwrap_err()
                .to_string()
                .contains("begin with autoencoder.v, autoencoder.w, quantizer.count")
        );
        assert!(of("autoencoder.*").unwrap_err().to_string().contains("leave some free"));
    }
}
