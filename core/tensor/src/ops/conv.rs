//! Convolution and resampling of feature maps `[B, H, W, C]`.
