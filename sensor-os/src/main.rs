//! The binary `lapwing-sensor`: the library's command line and nothing else.

fn main() {}
