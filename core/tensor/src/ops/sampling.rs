//! Drawing codes from logits. No gradients.
