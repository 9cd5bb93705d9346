//! What ranks that train together have in common, and what one of them says for all.

use super::Task;
use crate::stages::Context;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::tensor::Tensor;
use rqlab_sdk::tensor::ranks::Communicator;
use rqlab_sdk::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// That a batch can be cut into equal parts: by ranks, and each rank's images by the parts that it takes one after another.
///
/// # Errors
/// It cannot.
pub(crate) fn divides(batch: usize, ranks: usize, parts: usize) -> Result<()> {
    if batch.is_multiple_of(ranks * parts) {
        return Ok(());
    }
    let by = match (ranks, parts) {
        (ranks, 1) => format!("{ranks} ranks"),
        (1, parts) => format!("a `gradient_accumulation` of {parts}"),
        (ranks, parts) => format!("{ranks} ranks times a `gradient_accumulation` of {parts}"),
    };
    Err(Error::Unsupported(format!(
        "a batch of {batch} images is not divisible by {by}; a multiple of {} is",
        ranks * parts
    )))
}

/// The digest of tensors by name.
pub(super) fn digest(tensors: &BTreeMap<String, Tensor>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, tensor) in tensors {
        let numbers: Vec<u8> = tensor.as_slice().iter().flat_map(|number| number.to_le_bytes()).collect();
        hasher.update(name.as_bytes()).update(&numbers);
    }
    hasher.finalize().to_hex().to_string()
}

/// That all ranks have the same facts, each with its name: what they train with, and on.
///
/// # Errors
/// The first rank that has another one, and which.
pub(in crate::stages) fn agree(ranks: &dyn Communicator, facts: &[(&str, String)]) -> Result<()> {
    let own: Vec<u8> = facts.iter().flat_map(|(_, fact)| *blake3::hash(fact.as_bytes()).as_bytes()).collect();
    let all = ranks.gather(&own)?;
    for (rank, others) in all.chunks(own.len().max(1)).enumerate() {
        let mut pairs = others.chunks(blake3::OUT_LEN).zip(all.chunks(blake3::OUT_LEN)).zip(facts);
        if let Some((_, (name, _))) = pairs.find(|((other, first), _)| other != first) {
            return Err(Error::Unsupported(format!(
                "rank {rank} has other {name} than rank 0: ranks that train together must see the same files and run the same \
                 program, with the same plugins, on machines of one kind"
            )));
        }
    }
    Ok(())
}

/// The last checkpoint, which all ranks go on from if the first one finds it whole.
pub(super) fn last_checkpoint(cx: &mut Context<'_>) -> Result<Option<Checkpoint>> {
    let ranks = cx.ranks.clone();
    let found = if ranks.rank() == 0 { cx.last_checkpoint()? } else { None };
    let is_there = ranks.gather(&[u8::from(found.is_some())])?[0] == 1;
    if ranks.rank() == 0 || !is_there {
        return Ok(found);
    }
    let missing = || Error::Checkpoint("rank 0 goes on from a checkpoint that this rank does not see".to_owned());
    cx.last_checkpoint()?.ok_or_else(missing).map(Some)
}

/// Whether something holds on any rank.
pub(super) fn is_any(ranks: &dyn Communicator, holds: bool) -> Result<bool> {
    let mut count = [f32::from(u8::from(holds))];
    ranks.sum(&mut count)?;
    Ok(count[0] > 0.0)
}

/// Moves to the first rank what all of them have gathered for the curves.
pub(super) fn pool<T: Task>(ranks: &dyn Communicator, task: &mut T) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let unwritten = |error: serde_json::Error| Error::Checkpoint(format!("what a rank gathered: {error}"));
    let mut own = serde_json::to_vec(&task.pending()?).map_err(unwritten)?;
    let lengths = ranks.gather(&(own.len() as u64).to_le_bytes())?;
    let lengths: Vec<usize> = lengths.as_chunks().0.iter().map(|length| u64::from_le_bytes(*length) as usize).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    own.resize(longest, 0);
    let all = ranks.gather(&own)?;
    if ranks.rank() > 0 {
        task.forget();
        return Ok(());
    }
    for (given, length) in all.chunks(longest.max(1)).zip(lengths).skip(1) {
        let given: Value = serde_json::from_slice(&given[..length]).map_err(unwritten)?;
        task.absorb(given)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use rqlab_sdk::tensor::ranks::team;

    #[test]
    fn a_batch_that_cannot_be_cut_is_refused_with_what_can() {
        assert!(divides(12, 2, 3).is_ok());
        let said = |batch, ranks, parts| divides(batch, ranks, parts).unwrap_err().to_string();
        assert!(said(32, 3, 1).contains("a batch of 32 images is not divisible by 3 ranks; a multiple of 3 is"));
        assert!(said(32, 2, 5).contains("2 ranks times a `gradient_accumulation` of 5; a multiple of 10 is"));
        assert!(said(32, 1, 5).contains("by a `gradient_accumulation` of 5"));
    }

    #[test]
    fn a_rank_that_sees_other_data_is_named() {
        let said: Vec<Option<String>> = std::thread::scope(|scope| {
            let threads: Vec<_> = team(3)
                .into_iter()
                .map(|ranks| {
                    scope.spawn(move || {
                        let data = if ranks.rank() == 2 { "other" } else { "data" };
                        agree(&ranks, &[("settings", "same".to_owned())]).unwrap();
                        let facts = [("settings", "same".to_owned()), ("data", data.to_owned())];
                        agree(&ranks, &facts).err().map(|error| error.to_string())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for said in said {
            assert!(said.unwrap().starts_with("rank 2 has other data than rank 0"));
        }
    }
}
