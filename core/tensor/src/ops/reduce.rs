//! Sums, means, maxima.
