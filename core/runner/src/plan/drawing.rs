//! Whether samples can be drawn as the evaluation asks: guidance and the choice of its scale, cuts, labels, seeds.

use crate::experiment::{Diagnostic, Setup, Slot};
use crate::plan::components::Resolved;
use crate::plan::dry::Problem;
use crate::plan::models::at;
use crate::settings::{Conditioning, Labels};
use crate::stages::Told;
use rqlab_sdk::contracts::{ConditionSpace, GuidanceSchedule};

/// Guidance of a prior that has nothing to be guided by, or never saw the null condition; an interval without a step.
pub(super) fn guidance(setup: &Setup, resolved: &Resolved, told: Told, guidable: bool) -> Result<(), Diagnostic> {
    let (evaluation, training) = (&resolved.evaluation.all, &resolved.prior_training);
    if let GuidanceSchedule::Interval { from, to } = evaluation.guidance().schedule
        && from > to
    {
        let message = format!("the interval begins at {from} and ends before that, at {to}");
        return Err(at(setup, Slot::Evaluation, &Problem::field("guidance_from", message)));
    }
    let field = if evaluation.tune_guidance.iter().any(|&scale| scale != 1.0) { "tune_guidance" } else { "guidance" };
    if (field == "guidance" && !evaluation.guidance().is_on()) || resolved.priors.is_empty() {
        return Ok(());
    }
    let message = if told.space == ConditionSpace::None && training.condition == Conditioning::None {
        "the prior is unconditional, as `prior_training` has it: there is nothing to guide it by".to_owned()
    } else if told.space == ConditionSpace::None {
        "the prior is unconditional, since the images have no classes: there is nothing to guide it by".to_owned()
    } else if !guidable {
        "the prior is unconditional, as it is configured: there is nothing to guide it by".to_owned()
    } else if training.condition_dropout == 1.0 {
        "training drops every condition, so that the prior learns none to be guided by: lower `condition_dropout`"
            .to_owned()
    } else if !told.null && !resolved.prior_from.is_empty() {
        "guidance compares with predictions without the condition, and the weights that training starts from have learnt none: \
         leave it at 1, or train a prior from the start with `prior_training: (condition_dropout: 0.1)`"
            .to_owned()
    } else if !told.null {
        "guidance compares with predictions without the condition, which this prior never learns: \
         set `prior_training: (condition_dropout: 0.1)`"
            .to_owned()
    } else {
        return Ok(());
    };
    Err(at(setup, Slot::Evaluation, &Problem::field(field, message)))
}

/// A choice among guidance scales that is none, or that there are no images for.
pub(super) fn tuning(setup: &Setup, resolved: &Resolved, classes: usize, test: usize) -> Result<(), Diagnostic> {
    let evaluation = &resolved.evaluation.all;
    let scales = &evaluation.tune_guidance;
    if scales.is_empty() || resolved.priors.is_empty() {
        return Ok(());
    }
    let held = evaluation.images.min(test) / 2;
    let message = if scales.len() == 1 {
        format!("there is nothing to choose from: give two scales or more, or `guidance: {}`", scales[0])
    } else if let Some(twice) = scales.iter().enumerate().find(|(n, scale)| scales[..*n].contains(scale)) {
        format!("the scale {} stands here twice", twice.1)
    } else if evaluation.guidance != 1.0 {
        format!("the best of these scales is taken, and not `guidance: {}`: leave that out", evaluation.guidance)
    } else if classes < 2 {
        "scales are chosen by the distance on features of a classifier, which needs images of two classes or more"
            .to_owned()
    } else if held < 2 {
        format!("scales are chosen on half of the test images, and {held} are too few: raise `images`")
    } else {
        return Ok(());
    };
    Err(at(setup, Slot::Evaluation, &Problem::field("tune_guidance", message)))
}

/// Cuts of distributions over codes where vectors are drawn.
pub(super) fn cuts(setup: &Setup, resolved: &Resolved, draws_codes: bool) -> Result<(), Diagnostic> {
    let evaluation = &resolved.evaluation.all;
    let given = [("top_k", evaluation.top_k.is_some()), ("top_p", evaluation.top_p.is_some())];
    match given.iter().find(|(_, given)| *given && !draws_codes) {
        None => Ok(()),
        Some((field, _)) => {
            let message = format!(
                "`{field}` cuts distributions over codes, and the prior draws vectors by diffusion: leave it out; \
                 `temperature` scales the noise"
            );
            Err(at(setup, Slot::Evaluation, &Problem::field(field, message)))
        }
    }
}

/// Labels that no image has, and draws of samples that are none or twice the same. The classes of data that are `absent` are
/// not known by name.
pub(super) fn samples(setup: &Setup, resolved: &Resolved, classes: &[String], absent: bool) -> Result<(), Diagnostic> {
    let evaluation = &resolved.evaluation.all;
    let (mut seeds, mut speed) = (evaluation.sampling_seeds.clone(), evaluation.speed.clone());
    seeds.sort_unstable();
    speed.sort_unstable();
    let (field, message) = if let Some(twice) = speed.windows(2).find(|pair| pair[0] == pair[1]) {
        ("speed", format!("the batch size {} stands here twice", twice[0]))
    } else if seeds.is_empty() {
        ("sampling_seeds", "there is no sampling seed, and samples are measured: give one, such as [0]".to_owned())
    } else if let Some(twice) = seeds.windows(2).find(|pair| pair[0] == pair[1]) {
        ("sampling_seeds", format!("the sampling seed {} stands here twice, and would draw equal samples", twice[0]))
    } else if let Labels::Class(name) = &evaluation.labels
        && !absent
        && !classes.contains(name)
    {
        let there = match classes {
            [] => "the images have no classes".to_owned(),
            [only] => format!("the data set has one class, `{only}`"),
            [first, .., last] => format!("the data set has {}, from `{first}` to `{last}`", classes.len()),
        };
        ("labels", format!("there is no class `{name}`: {there}"))
    } else {
        return Ok(());
    };
    Err(at(setup, Slot::Evaluation, &Problem::field(field, message)))
}
