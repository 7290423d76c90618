//! The programs that the engine starts, for the tests: in the product they are the one binary.

#[allow(clippy::disallowed_methods)] // What the real `main` does with this, too.
fn main() {
    let args: Vec<_> = std::env::args_os().collect();
    match runtime::dispatch(&args) {
        Some(code) => std::process::exit(code),
        None => eprintln!("usage: knarr-shim shim DIR | oci-helper REQUEST (started by the engine)"),
    }
}
