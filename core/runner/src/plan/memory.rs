//! What jobs need of memory, as far as shapes tell it before anything is allocated: never more than they take.

use super::{Model, Plan};
use crate::settings::{PriorTraining, TokenizerTraining};

/// More than any machine holds.
pub(super) const TOO_MUCH: f64 = (1_u64 << 51) as f64;

/// Bytes of a number.
const NUMBER: f64 = 4.0;

/// Bytes that training a trial's models takes at least: parameters with their gradients, moments and averages, codebooks, and
/// a batch of images with its reconstruction. Activations are not counted.
pub(super) fn least(model: &Model, tokenizer: &TokenizerTraining, prior: &PriorTraining) -> f64 {
    let trained = |count: usize, averaged: bool| count as f64 * (4.0 + f64::from(u8::from(averaged)));
    let image: f64 = model.data.info.image.iter().map(|&side| side as f64).product();
    let of_tokenizer = trained(model.autoencoder, tokenizer.ema_decay.is_some())
        + trained(model.objectives, false)
        + (model.quantizer + model.buffers) as f64
        + 2.0 * tokenizer.batch as f64 * image;
    let of_prior = model.prior.map_or(0.0, |count| trained(count, prior.ema_decay.is_some()));
    NUMBER * of_tokenizer.max(of_prior)
}

/// A sentence where some trial of a plan needs more than a small machine has anyway.
pub fn of_trials(plan: &Plan) -> Option<String> {
    sentence(plan.models.values().map(|model| model.memory).fold(0.0, f64::max), of_machine())
}

fn sentence(needed: f64, machine: Option<f64>) -> Option<String> {
    const MENTIONED: f64 = (1_u64 << 30) as f64;
    let gib = |bytes: f64| format!("{:.1} GiB", bytes / MENTIONED);
    (needed >= MENTIONED).then(|| {
        let more = machine.filter(|&machine| needed > machine);
        let more = more.map(|machine| format!(", more than the {} of this machine", gib(machine))).unwrap_or_default();
        format!(
            "Memory: at least {} for parameters, optimizer, codebooks and a batch of images{more}; activations come on top.",
            gib(needed)
        )
    })
}

/// Bytes of this machine's memory, where it tells.
fn of_machine() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024.0 * kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_set_beside_what_is_there() {
        let gib = |count: f64| count * f64::from(1 << 30);
        assert_eq!(sentence(gib(0.9), Some(gib(0.5))), None);
        let said = sentence(gib(8.5), Some(gib(16.0))).unwrap_or_default();
        assert!(said.contains("at least 8.5 GiB") && !said.contains("more than"), "{said}");
        let said = sentence(gib(32.0), Some(gib(16.0))).unwrap_or_default();
        assert!(said.contains("more than the 16.0 GiB of this machine"), "{said}");
        assert!(sentence(gib(32.0), None).is_some());
    }
}
