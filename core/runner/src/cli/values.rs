//! How values on the command line are read, and what is said of those that make no sense.

use crate::gpu::DeviceChoice;
use rqlab_sdk::tensor::Device;
use std::collections::HashSet;
use std::fmt;
use std::path::{Component, Path};

/// Seeds, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(pub Vec<u64>);

impl fmt::Display for Seeds {
    /// As the command line takes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(u64::to_string).collect::<Vec<_>>().join(","))
    }
}

/// The name of a folder in another.
pub(super) fn folder_name(text: &str) -> Result<String, String> {
    let mut parts = Path::new(text).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) if name == text => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is no name of a folder: --out says where it lies")),
    }
}

pub(super) fn device(text: &str) -> Result<DeviceChoice, String> {
    let wrong = || format!("`{text}` is no device: write auto, cpu, cuda or cuda:N");
    match text.split_once(':') {
        None if text == "auto" => Ok(DeviceChoice::Auto),
        None if text == "cpu" => Ok(DeviceChoice::Named(Device::Cpu)),
        None if text == "cuda" => Ok(DeviceChoice::Named(Device::Cuda(0))),
        Some(("cuda", index)) => {
            index.parse().map(|index| DeviceChoice::Named(Device::Cuda(index))).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    }
}

pub(super) fn seeds(text: &str) -> Result<Seeds, String> {
    let (mut seeds, mut known) = (Vec::new(), HashSet::new());
    for part in text.split(',').map(str::trim) {
        let seed: u64 = part.parse().map_err(|_| format!("`{part}` is no seed: write whole numbers, such as 0,1,2"))?;
        if !known.insert(seed) {
            return Err(format!("the seed {seed} is given twice: it would count as two results without being two"));
        }
        seeds.push(seed);
    }
    Ok(Seeds(seeds))
}

pub(super) fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| format!("`{text}` is not a whole number above 0"))
}

pub(super) fn margin(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|x: &f64| *x >= 0.0 && x.is_finite());
    share.ok_or_else(|| format!("`{text}` is no margin: write a share that is not below 0, such as 0.05"))
}

pub(super) fn not_negative(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|x: &f32| *x >= 0.0 && x.is_finite())
        .ok_or_else(|| format!("`{text}` is not a number from 0 up"))
}

pub(super) fn above_zero(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|x: &f32| *x > 0.0 && x.is_finite())
        .ok_or_else(|| format!("`{text}` is not a number above 0"))
}

pub(super) fn share(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|x: &f32| *x > 0.0 && *x <= 1.0)
        .ok_or_else(|| format!("`{text}` is not a number in (0, 1]"))
}

/// Height and width: `256`, `256x384`.
pub(super) fn sides(text: &str) -> Result<[usize; 2], String> {
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    match (height.parse(), width.parse()) {
        (Ok(height @ 1..=65_536), Ok(width @ 1..=65_536)) => Ok([height, width]),
        _ => Err("give a side, or height and width as in 256x384".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_seeds_are_read() {
        assert_eq!(device("cuda:1"), Ok(DeviceChoice::Named(Device::Cuda(1))));
        for text in ["auto", "cpu", "cuda:0"] {
            assert_eq!(device(text).map(|choice| choice.to_string()), Ok(text.to_owned()));
        }
        assert!(device("gpu").is_err());
        assert_eq!(seeds("0, 2,1"), Ok(Seeds(vec![0, 2, 1])));
        assert!(seeds("0,x").is_err() && seeds("1,1").is_err());
        assert_eq!(seeds("0, 2,1").map(|seeds| seeds.to_string()).as_deref(), Ok("0,2,1"));
    }

    #[test]
    fn a_report_has_a_folder_name_not_a_path() {
        assert_eq!(folder_name("deep+1").as_deref(), Ok("deep+1"));
        for text in ["", ".", "..", "a/b", "/a", "a/"] {
            assert!(folder_name(text).is_err(), "{text}");
        }
    }
}
