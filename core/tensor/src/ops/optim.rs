//! Fused optimizer steps over variables, in place and multi-threaded.
