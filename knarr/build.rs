//! What the program says of its build, and how releases are linked.

use std::process::Command;

fn main() {
    describe();
    link();
}

/// Values for `/version`. A build outside of a git tree may set `KNARR_GIT_COMMIT` and `KNARR_GIT_TREE_STATE`
/// in its environment, a reproducible one `SOURCE_DATE_EPOCH`; what nobody knows stays empty.
fn describe() {
    // Whenever sources change, so may the state of the tree.
    for path in ["build.rs", "Cargo.toml", "src", "../crates", "../Cargo.lock", "../Cargo.toml"] {
        println!("cargo:rerun-if-changed={path}");
    }
    if let Some(log) = output("git", &["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    let commit = given("KNARR_GIT_COMMIT").or_else(|| output("git", &["rev-parse", "HEAD"])).unwrap_or_default();
    let changed = || output("git", &["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"]);
    let state = given("KNARR_GIT_TREE_STATE")
        .or_else(|| changed().map(|changes| if changes.is_empty() { "clean" } else { "dirty" }.to_owned()))
        .unwrap_or_default();
    let at = given("SOURCE_DATE_EPOCH").map_or_else(|| "now".to_owned(), |seconds| format!("@{seconds}"));
    let date = output("date", &["-u", "-d", &at, "+%Y-%m-%dT%H:%M:%SZ"]).unwrap_or_default();
    let rustc = given("RUSTC").and_then(|rustc| output(&rustc, &["--version"])).unwrap_or_default();
    let rust = rustc.split(' ').nth(1).unwrap_or_default();
    for (name, value) in
        [("GIT_COMMIT", commit.as_str()), ("GIT_TREE_STATE", &state), ("BUILD_DATE", &date), ("RUST_VERSION", rust)]
    {
        println!("cargo:rustc-env=KNARR_{name}={value}");
    }
}

fn given(name: &str) -> Option<String> {
    println!("cargo:rerun-if-env-changed={name}");
    std::env::var(name).ok()
}

/// What a program prints, if it is there and succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn link() {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|actual| actual == value);
    if !is("PROFILE", "release") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    // At a fixed address: every pod has a shim, which is this program again. In a position-independent executable the loader
    // writes addresses into 1.3 MB of tables, and each process then has its own copy of them; at a fixed address all share
    // the file's pages, and the start of a shim or an OCI helper skips that work. Libraries, stacks and heaps stay randomised.
    println!("cargo:rustc-link-arg-bins=-no-pie");
    // Cargo forgets the profile's `strip` for a package that has an optimisation level of its own.
    if is("DEBUG", "false") {
        println!("cargo:rustc-link-arg-bins=-Wl,--strip-all");
    }
    // One copy of functions that compile to the same code, of which the decoders of the API's types have many. An option of
    // lld, Rust's linker for this target alone.
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}
