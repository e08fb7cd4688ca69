//! The program `softnet`.

fn main() {}
