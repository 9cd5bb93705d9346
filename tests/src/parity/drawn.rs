//! Codes that a prior draws one after another with stored uniform numbers, every image beside its twin without a condition.

use super::{Case, Outputs, Result};
use rqlab_sdk::nn::CodeSteps;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::sampling::{Draw, multinomial, probabilities};

/// The codes `out.NAMEtokens`, and the distributions `out.NAMEprobs` that they were drawn from, of the classes `in.NAMElabels`
/// with the numbers `rand.NAMEu`; `scale` is that of guidance at code k of so many. With cache and without they must be the same.
pub(super) fn codes(
    case: &Case,
    model: &impl CodeSteps,
    name: &str,
    draw: &Draw,
    scale: impl Fn(usize, usize) -> f32,
    out: &mut Outputs,
) -> Result<()> {
    let labels = case.codes(&format!("in.{name}labels"))?;
    let uniforms = case.tensor(&format!("rand.{name}u"))?;
    let (images, length) = (labels.len(), uniforms.last_dim());
    let condition = Condition::classes(labels)?.paired()?;
    let generate = |cache: bool| -> Result<(Vec<Codes>, Vec<Tensor>)> {
        let mut state = model.begin(&condition, &[], cache)?;
        let (mut drawn, mut probs) = (Vec::<Codes>::new(), Vec::new());
        for k in 0..length {
            let twice = drawn.last().map(|codes| Codes::stack(&[codes.clone(), codes.clone()])?.reshape(&[2 * images]));
            let logits = model.next(&mut state, twice.transpose()?.as_ref())?;
            let pairs = logits.reshape(&[images, 2, logits.last_dim()])?;
            let p = probabilities(&Guidance::mix(&pairs, scale(k, length))?, draw)?;
            let u: Vec<f32> = (0..images).map(|image| uniforms.as_slice()[image * length + k]).collect();
            drawn.push(multinomial(&p, &u)?);
            probs.push(p);
        }
        Ok((drawn, probs))
    };
    let (drawn, probs) = generate(true)?;
    if generate(false)?.0 != drawn {
        return Err(format!("{name} the codes differ with and without cache").into());
    }
    out.codes(format!("out.{name}tokens"), &Codes::stack(&drawn)?);
    out.tensor(format!("out.{name}probs"), &Tensor::stack(&probs.iter().collect::<Vec<_>>(), 1)?);
    Ok(())
}
