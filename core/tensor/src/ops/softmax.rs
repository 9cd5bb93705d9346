//! Softmax over the innermost axis.
