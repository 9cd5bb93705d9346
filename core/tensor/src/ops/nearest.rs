//! Nearest codebook rows: fused distance and argmin, never an N x K matrix in memory.
