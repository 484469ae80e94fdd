//! The `tranship` binary.

#[cfg_attr(not(test), expect(dead_code, reason = "the serve command starts it"))]
mod serve;

fn main() {}
