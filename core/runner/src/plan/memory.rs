//! What jobs need of memory, as far as shapes tell it before anything is allocated: never more than they take.

use super::{Model, Plan};
use crate::experiment::Diagnostic;
use crate::settings::{Evaluation, PriorTraining, TokenizerTraining};
use crate::ui::bytes;
use rqlab_sdk::contracts::LevelInfo;

/// More than any machine holds.
pub(super) const TOO_MUCH: f64 = (1_u64 << 51) as f64;

/// Bytes of a number.
pub(super) const NUMBER: f64 = 4.0;
/// Less is not worth a word.
pub(super) const GIB: f64 = (1_u64 << 30) as f64;

/// Numbers that a trial takes at least.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Memory {
    /// What each rank has of a tokenizer in training: parameters with their gradients, moments and averages, codebooks (also of
    /// codes that are no parameters, such as those of bits).
    tokenizer: f64,
    /// The same of a prior.
    prior: f64,
    /// What a step of a prior takes at once of the images that its ranks share: logits over codes.
    logits: f64,
    /// What a step of a tokenizer takes at once of the images that its ranks share: they and their reconstructions, latents before and after
    /// quantization, distributions over codes. Other activations are not counted.
    images: f64,
    /// The timing of samples: priors, and the largest batch of pictures with its latents.
    sampling: f64,
}

impl Memory {
    /// That of a trial's models.
    pub(super) fn least(
        model: &Model,
        tokenizer: &TokenizerTraining,
        prior: &PriorTraining,
        evaluation: &Evaluation,
    ) -> Self {
        let trained = |count: usize, averaged: bool| count as f64 * (4.0 + f64::from(u8::from(averaged)));
        let image: f64 = model.data.info.image.iter().map(|&side| side as f64).product();
        let latents: f64 = model.levels.iter().map(latents).sum();
        let at_once = (tokenizer.batch / tokenizer.gradient_accumulation.max(1)) as f64;
        let timed = evaluation.speed.iter().max().map_or(0.0, |&batch| batch as f64 * (image + latents));
        Self {
            tokenizer: trained(model.autoencoder, tokenizer.ema_decay.is_some())
                + trained(model.objectives, false)
                + ((model.quantizer + model.buffers) as f64).max(model.levels.iter().map(tables).sum()),
            prior: model.prior.map_or(0.0, |count| trained(count, prior.ema_decay.is_some())),
            logits: (prior.batch / prior.gradient_accumulation.max(1)) as f64 * model.logits as f64,
            images: at_once * (2.0 * (image + latents) + model.activations as f64),
            sampling: model.prior.map_or(0.0, |count| count as f64 + timed),
        }
    }

    /// Bytes on a machine where so many ranks train together.
    pub fn bytes(&self, ranks: usize) -> f64 {
        let ranks = ranks as f64;
        NUMBER * (ranks * self.tokenizer + self.images).max(ranks * self.prior + self.logits).max(self.sampling)
    }
}

/// Numbers of an image's latents at a level.
pub(super) fn latents(level: &LevelInfo) -> f64 {
    (level.height * level.width * level.channels) as f64
}

/// Numbers of the vectors that a level's codes stand for: a table for each depth, or one that all share.
fn tables(level: &LevelInfo) -> f64 {
    let Some(space) = level.code_space() else { return 0.0 };
    let distinct = if space.shared { 1 } else { space.depth() };
    space.sizes.iter().take(distinct).map(|&size| size as f64).sum::<f64>() * level.channels as f64
}

/// A sentence where some trial of a plan, with so many ranks that train together, needs more memory than a small machine has
/// anyway.
pub fn of_trials(plan: &Plan, ranks: usize) -> Option<String> {
    sentence(most(plan, ranks), ranks, of_machine())
}

/// Why the plan cannot be worked on by so many ranks on this machine's processor: it has too little memory.
pub fn refusal(plan: &Plan, ranks: usize) -> Option<Diagnostic> {
    too_much(most(plan, ranks), ranks, "this machine has", of_machine()?, "run it on a larger machine")
}

/// Why the plan cannot be worked on by so many ranks on the processors of each of a cluster's tasks, which have so many bytes of
/// memory each.
pub fn refusal_of_tasks(plan: &Plan, ranks: usize, memory: f64) -> Option<Diagnostic> {
    too_much(most(plan, ranks), ranks, "by `--mem` a task has", memory, "give the tasks more `--mem`")
}

fn too_much(needed: f64, ranks: usize, who: &str, memory: f64, remedy: &str) -> Option<Diagnostic> {
    (needed > memory).then(|| {
        let (needed, memory) = (bytes(needed as u64), bytes(memory as u64));
        let message = format!("a trial takes at least {needed} of memory{}, and {who} {memory}", on(ranks));
        let fewer = if ranks > 1 { "take fewer ranks, " } else { "" };
        let smaller =
            format!("{fewer}make the models, the codebooks, the images, `batch` or `evaluation.speed` smaller");
        Diagnostic::error(message).help(format!("{smaller}, or {remedy}"))
    })
}

/// Bytes that the largest trial takes at least where so many ranks train together.
pub fn most(plan: &Plan, ranks: usize) -> f64 {
    plan.models.values().map(|model| model.memory.bytes(ranks)).fold(0.0, f64::max)
}

fn sentence(needed: f64, ranks: usize, machine: Option<f64>) -> Option<String> {
    (needed >= GIB).then(|| {
        let more = machine.filter(|&machine| needed > machine).map(|machine| {
            let machine = bytes(machine as u64);
            format!(", more than the {machine} of this machine, on whose processor `rqlab sweep` refuses it")
        });
        format!(
            "Memory: at least {}{} for parameters, optimizer, codebooks and a batch of images{}; activations come on top.",
            bytes(needed as u64),
            on(ranks),
            more.unwrap_or_default()
        )
    })
}

/// Where several ranks train together, how many.
fn on(ranks: usize) -> String {
    if ranks > 1 { format!(" on {ranks} ranks") } else { String::new() }
}

/// Bytes of memory that this machine, or the group of processes that this one is in, may use; none where it is not told.
fn of_machine() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let machine = 1024.0 * (kib("MemTotal:")? + kib("SwapTotal:").unwrap_or(0.0));
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|text| text.trim().parse::<f64>().ok());
    Some(limit.map_or(machine, |limit| limit.min(machine)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rqlab_sdk::contracts::{CodeSpace, TokenSpace};

    /// 2^18 vectors of 18 numbers, which no parameter holds.
    #[test]
    fn codes_of_bits_have_tables() {
        let level = |sizes: &[usize], shared| {
            let space = CodeSpace { sizes: sizes.to_vec(), tables: vec![], shared };
            LevelInfo { height: 2, width: 2, channels: 18, space: TokenSpace::Codes(space), scales: None }
        };
        assert_eq!(tables(&level(&[1 << 18], false)), f64::from(18 << 18));
        assert_eq!(tables(&level(&[64, 4096], false)), f64::from(18 * (64 + 4096)));
        assert_eq!(tables(&level(&[64; 4], true)), f64::from(18 * 64));
        let vectors = LevelInfo { space: TokenSpace::Vectors { channels: 18 }, ..level(&[2], false) };
        assert_eq!(tables(&vectors), 0.0);
    }

    #[test]
    fn what_is_needed_is_set_beside_what_is_there() {
        let gib = |count: f64| count * f64::from(1 << 30);
        assert_eq!(sentence(gib(0.9), 1, Some(gib(0.5))), None);
        let said = sentence(gib(8.5), 1, Some(gib(16.0))).unwrap_or_default();
        assert!(said.contains("at least 8.5 GiB") && !said.contains("more than"), "{said}");
        let said = sentence(gib(32.0), 2, Some(gib(16.0))).unwrap_or_default();
        assert!(
            said.contains("32.0 GiB on 2 ranks for") && said.contains("more than the 16.0 GiB of this machine"),
            "{said}"
        );
        assert!(sentence(gib(32.0), 1, None).is_some());
        let on_this = |needed| too_much(needed, 1, "this machine has", gib(16.0), "run it on a larger machine");
        assert_eq!(on_this(gib(8.5)), None);
        let refused = on_this(gib(32.0)).map(|complaint| complaint.message).unwrap_or_default();
        assert_eq!(refused, "a trial takes at least 32.0 GiB of memory, and this machine has 16.0 GiB");
    }

    /// Each rank has the parameters, and its share of the images.
    #[test]
    fn ranks_share_images_alone() {
        let memory = Memory { tokenizer: 10.0, prior: 12.0, logits: 0.0, images: 5.0, sampling: 40.0 };
        assert_eq!([1, 2, 4].map(|ranks| memory.bytes(ranks)), [160.0, 160.0, 192.0]);
        let memory = Memory { sampling: 0.0, ..memory };
        assert_eq!([1, 2, 4].map(|ranks| memory.bytes(ranks)), [60.0, 100.0, 192.0]);
        let memory = Memory { logits: 20.0, ..memory };
        assert_eq!([1, 2, 4].map(|ranks| memory.bytes(ranks)), [128.0, 176.0, 272.0]);
    }
}
