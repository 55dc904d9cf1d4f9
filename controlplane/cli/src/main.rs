//! The ogive command.

fn main() {}
