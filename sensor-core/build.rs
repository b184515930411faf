//! Lets one fault be built in: `LAPWING_MUTANT=name` sets `cfg!(mutant = "name")`.
//!
//! The same file stands in every crate that has mutants; docs/testing.md says what they are for.
//! Without the variable nothing is set, and the code of a mutant is not compiled.

fn main() {
    println!("cargo::rerun-if-env-changed=LAPWING_MUTANT");
    println!("cargo::rustc-check-cfg=cfg(mutant, values(any()))");
    let name = std::env::var("LAPWING_MUTANT").unwrap_or_default();
    if !name.is_empty() {
        println!("cargo::rustc-cfg=mutant=\"{name}\"");
    }
}
