//! The shim and the OCI helper as a program of their own, for this crate's tests on real containers.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    match runtime::dispatch(&args) {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => {
            eprintln!("usage: kubelet-shim shim DIR | oci-helper REQUEST");
            ExitCode::from(2)
        }
    }
}
