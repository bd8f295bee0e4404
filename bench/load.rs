//! Load for the line-rate runs and their test: frames as fast as the kernel can, or at a rate, and how many exactly.

pub mod generator;
pub mod pin;
