//! The `flowscope` program.

fn main() {}
