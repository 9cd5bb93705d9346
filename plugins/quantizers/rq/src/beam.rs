//! Stacks of codes by beam search.

use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::nearest::squared_distances;

/// Distances that are in memory at a time: 32 MiB.
const DISTANCES: usize = 1 << 23;

/// A stack of codes that may be continued.
struct Step {
    /// Which stack of the depth before it continues.
    parent: usize,
    code: usize,
    /// What it leaves, squared.
    left: f32,
}

/// For vectors `[.., C]` the stacks `[.., D]` of codes from `books`, each `[K_d, C]`, whose sums leave least, among `beam` that are
/// followed from depth to depth: those that leave least so far, and always the one of the nearest code at every depth, so that
/// none leaves more than that.
pub(crate) fn codes(vectors: &Tensor, books: &[Tensor], beam: usize) -> Result<Codes> {
    let channels = vectors.last_dim();
    let rows = vectors.len() / channels.max(1);
    let flat = vectors.reshape(&[rows, channels])?;
    let largest = books.iter().map(|book| book.shape()[0]).max().unwrap_or(1);
    let group = (DISTANCES / (beam * largest).max(1)).max(1);
    let mut found = Vec::with_capacity(rows * books.len());
    for from in (0..rows).step_by(group) {
        found.extend(of_group(&flat.slice(0, from..(from + group).min(rows))?, books, beam)?);
    }
    let shape = [&vectors.shape()[..vectors.rank() - 1], &[books.len()]].concat();
    Ok(Codes::from_vec(found, &shape)?.to_device(vectors.device())?)
}

/// As [`codes`], for vectors `[N, C]`: N stacks, one after another.
fn of_group(vectors: &Tensor, books: &[Tensor], beam: usize) -> Result<Vec<u32>> {
    let rows = vectors.shape()[0];
    let mut residuals = vectors.clone();
    // The first stack of each vector is that of the nearest codes.
    let mut stacks: Vec<Vec<u32>> = vec![Vec::new(); rows];
    let mut best = vec![0; rows];
    for book in books {
        let size = book.shape()[0];
        let followed = stacks.len() / rows.max(1);
        let distances = squared_distances(&residuals, book)?;
        let steps: Vec<Vec<Step>> =
            distances.as_slice().chunks(followed * size).map(|of_vector| continued(of_vector, size, beam)).collect();
        let continued = || steps.iter().enumerate().flat_map(|(row, steps)| steps.iter().map(move |step| (row, step)));
        let parents: Vec<usize> = continued().map(|(row, step)| row * followed + step.parent).collect();
        stacks = continued()
            .zip(&parents)
            .map(|((_, step), &parent)| stacks[parent].iter().copied().chain([step.code as u32]).collect())
            .collect();
        let count = parents.len();
        let parents = Codes::from_vec(parents.into_iter().map(|parent| parent as u32).collect(), &[count])?;
        let added = Codes::from_vec(continued().map(|(_, step)| step.code as u32).collect(), &[count])?;
        residuals = residuals.embedding(&parents)?.sub(&book.embedding(&added)?)?;
        let least = |steps: &Vec<Step>| (0..steps.len()).min_by(|&a, &b| steps[a].left.total_cmp(&steps[b].left));
        best = steps.iter().map(|steps| least(steps).unwrap_or(0)).collect();
    }
    let followed = stacks.len() / rows.max(1);
    Ok(best.iter().enumerate().flat_map(|(row, best)| stacks[row * followed + best].iter().copied()).collect())
}

/// The stacks of one vector that are followed, of all continuations of those before, whose distances are given: first the
/// nearest code after the first stack, then those that leave least. Of equals the first.
fn continued(distances: &[f32], size: usize, beam: usize) -> Vec<Step> {
    let least = |from: &[f32]| (0..from.len()).min_by(|&a, &b| from[a].total_cmp(&from[b])).unwrap_or(0);
    let nearest = least(&distances[..size]);
    let mut others: Vec<usize> = (0..distances.len()).filter(|&i| i != nearest).collect();
    let kept = (beam - 1).min(others.len());
    let order = |&a: &usize, &b: &usize| distances[a].total_cmp(&distances[b]).then(a.cmp(&b));
    if kept > 0 && kept < others.len() {
        others.select_nth_unstable_by(kept - 1, order);
    }
    others.truncate(kept);
    others.sort_unstable_by(order);
    let step = |i: usize| Step { parent: i / size, code: i % size, left: distances[i] };
    std::iter::once(nearest).chain(others).map(step).collect()
}
