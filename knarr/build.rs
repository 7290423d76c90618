//! How releases are linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|actual| actual == value);
    if !is("PROFILE", "release") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    // At a fixed address: every pod has a shim, which is this program again. In a position-independent executable the loader
    // writes addresses into 1.3 MB of tables, and each process then has its own copy of them; at a fixed address all share
    // the file's pages, and the start of a shim or an OCI helper skips that work. Libraries, stacks and heaps stay randomised.
    println!("cargo:rustc-link-arg-bins=-no-pie");
    // One copy of functions that compile to the same code, of which the decoders of the API's types have many. An option of
    // lld, Rust's linker for this target alone.
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}
