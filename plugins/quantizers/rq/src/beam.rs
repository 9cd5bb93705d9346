//! Stacks of codes by beam search.
//!
//! Where depths share a codebook, the orders of a stack leave the same but for rounding: each distance is a sum of its
//! own in one order, so that the codes of a vector do not depend on what else is in the batch.

use rqlab_sdk::prelude::*;

/// A codebook `[K, C]` laid out for distances to all its codes.
struct Book {
    size: usize,
    codes: Vec<f32>,
    /// `[C, K]`.
    by_channel: Vec<f32>,
}

/// A stack of codes that is followed.
#[derive(Clone)]
struct Stack {
    codes: Vec<u32>,
    residual: Vec<f32>,
    /// The squared length of the residual.
    left: f32,
}

/// For vectors `[.., C]` the stacks `[.., D]` of codes from `books`, each `[K_d, C]`, whose sums leave least, among
/// `beam` that are followed from depth to depth: those that leave least so far, and always the one of the nearest code at
/// every depth, so that none leaves more than that. A GPU is waited for.
pub(crate) fn codes(vectors: &Tensor, books: &[Tensor], beam: usize) -> Result<Codes> {
    let books: Vec<Book> = books.iter().map(Book::new).collect();
    let rows = vectors.as_slice().chunks_exact(vectors.last_dim().max(1));
    let found: Vec<u32> = rows.flat_map(|vector| best(vector, &books, beam)).collect();
    let shape = [&vectors.shape()[..vectors.rank() - 1], &[books.len()]].concat();
    Ok(Codes::from_vec(found, &shape)?.to_device(vectors.device())?)
}

/// The stack of one vector.
fn best(vector: &[f32], books: &[Book], beam: usize) -> Vec<u32> {
    let mut stacks = vec![Stack { codes: Vec::new(), residual: vector.to_vec(), left: 0.0 }];
    for book in books {
        let mut distances = vec![0.0; stacks.len() * book.size];
        for (stack, distances) in stacks.iter().zip(distances.chunks_exact_mut(book.size)) {
            book.distances(&stack.residual, distances);
        }
        stacks = followed(&distances, book.size, beam)
            .into_iter()
            .map(|n| stacks[n / book.size].continued(n % book.size, book, distances[n]))
            .collect();
    }
    let least = stacks.into_iter().min_by(|a, b| a.left.total_cmp(&b.left));
    least.map_or_else(Vec::new, |stack| stack.codes)
}

/// Which continuations are followed, of stacks with `size` distances each: the nearest code after the first stack, which is
/// that of the nearest codes, then those that leave least; of equals the first.
fn followed(distances: &[f32], size: usize, beam: usize) -> Vec<usize> {
    let order = |&a: &usize, &b: &usize| distances[a].total_cmp(&distances[b]).then(a.cmp(&b));
    let nearest = (0..size).min_by(order).unwrap_or(0);
    let mut others: Vec<usize> = (0..distances.len()).filter(|&n| n != nearest).collect();
    let kept = (beam - 1).min(others.len());
    if kept > 0 && kept < others.len() {
        others.select_nth_unstable_by(kept - 1, order);
    }
    others.truncate(kept);
    others.sort_unstable_by(order);
    std::iter::once(nearest).chain(others).collect()
}

impl Stack {
    fn continued(&self, code: usize, book: &Book, left: f32) -> Self {
        let channels = self.residual.len();
        let codeword = &book.codes[code * channels..(code + 1) * channels];
        let residual = self.residual.iter().zip(codeword).map(|(x, e)| x - e).collect();
        Self { codes: self.codes.iter().copied().chain([code as u32]).collect(), residual, left }
    }
}

impl Book {
    fn new(weight: &Tensor) -> Self {
        let (codes, channels) = (weight.to_vec(), weight.last_dim());
        let size = codes.len() / channels.max(1);
        let by_channel = (0..codes.len()).map(|n| codes[n % size * channels + n / size]).collect();
        Self { size, codes, by_channel }
    }

    /// Adds the squared distances of a vector `[C]` to all codes, channel after channel.
    fn distances(&self, vector: &[f32], out: &mut [f32]) {
        for (x, channel) in vector.iter().zip(self.by_channel.chunks_exact(self.size)) {
            out.iter_mut().zip(channel).for_each(|(out, e)| *out += (x - e) * (x - e));
        }
    }
}
