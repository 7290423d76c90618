//! Some seeds run in every test. `cargo xtask simulate` runs many.

use std::process::Command;

fn simulate(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_simulate")).args(arguments).output().expect("the simulator runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn seeds_violate_nothing() {
    let (holds, told) = simulate(&["--seeds", "8"]);
    assert!(holds, "{told}");
}

/// Two processes make the same history of a seed.
#[test]
fn a_seed_is_a_reproduction() {
    let histories = || {
        let (_, told) = simulate(&["--seeds", "2", "--each"]);
        told.lines().filter(|line| line.contains("history")).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = histories();
    assert_eq!(first.len(), 2);
    assert_eq!(first, histories());
}
