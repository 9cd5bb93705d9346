//! Views and copies under another shape.
