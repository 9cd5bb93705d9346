//! A critic that has won, so that it learns nothing more, or that tells nothing apart.

use super::{Found, Harm, Warning, at_the_end, each};
use crate::format;
use crate::results::{Curve, Trial};
use crate::study::Study;

/// A critic whose loss falls below this share of what it was at first makes no more mistakes.
const WON: f64 = 0.02;
/// A critic whose loss moves by less than this share in all of its training does not learn.
const STILL: f64 = 1e-3;
/// Logits of real and decoded images that differ by less than this share of their size are the same.
const SAME: f64 = 0.02;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    each(study, |trial| {
        by_logits(trial).or_else(|| trial.curves.iter().filter(|curve| is_loss(curve)).find_map(by_loss))
    })
}

/// Whether a curve is what a critic minimises, whatever an objective calls its critic.
fn is_loss(curve: &Curve) -> bool {
    ["critic_loss", "discriminator_loss", "disc_loss", "d_loss"].iter().any(|name| curve.measure.ends_with(name))
}

fn by_loss(curve: &Curve) -> Option<Found> {
    let first = curve.values.iter().copied().find(|value| value.is_finite() && *value != 0.0)?;
    let last = at_the_end(curve)?;
    let shown = [first, last].map(format::number);
    let still = curve.values.len() > 2 && curve.values.iter().all(|value| (value - first).abs() < STILL * first.abs());
    if last.abs() < WON * first.abs() {
        return Some(won(format!("its loss fell from {} to {}", shown[0], shown[1])));
    }
    still.then(|| died(format!("its loss stays at {}", shown[0])))
}

/// By the curves of its logits, where an objective draws them: `real_logits` and `fake_logits`, in either order of the words.
fn by_logits(trial: &Trial) -> Option<Found> {
    let of = |word: &str| {
        let named = |curve: &&Curve| curve.measure.contains("logit") && curve.measure.contains(word);
        trial.curves.iter().find(named).and_then(at_the_end)
    };
    let (real, fake) = (of("real")?, of("fake")?);
    let shown = [real, fake].map(format::number);
    let logits = format!("its logits are {} for real images and {} for decoded ones at the end", shown[0], shown[1]);
    let margin = margin(trial);
    if real >= margin && fake <= -margin {
        return Some(won(logits));
    }
    ((real - fake).abs() <= SAME * real.abs().max(fake.abs())).then(|| died(logits))
}

/// How far from 0 logits must be for the critic to have nothing left to learn, by the losses that the settings of objectives name:
/// the hinge has no gradient beyond 1, cross-entropies one of at most 2% of its largest beyond 4. Of unknown losses the larger.
fn margin(trial: &Trial) -> f64 {
    let hinge = |(name, value): (&String, &String)| {
        name.starts_with("objective") && name.ends_with(".loss") && value == "hinge"
    };
    if trial.settings.iter().any(hinge) { 1.0 } else { 4.0 }
}

fn won(how: String) -> Found {
    let text = format!("the critic has won ({how}): it tells every decoded image, and has nothing left to learn");
    Found { degree: 1.0, harm: Harm::Caution, text }
}

fn died(how: String) -> Found {
    let text = format!(
        "the critic does not tell real from decoded images ({how}): it has stopped learning, or they look alike to it"
    );
    Found { degree: 0.0, harm: Harm::Caution, text }
}
