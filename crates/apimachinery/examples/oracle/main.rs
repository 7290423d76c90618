//! Compares what Knarr computes with what upstream's own libraries compute: `oracle PROGRAM [CASES] [SEED]`.
//!
//! `cargo xtask oracle` builds the program (the directory `oracle`) and starts this. Cases are random but follow from the seed; a
//! difference is printed with its whole case, which is all that one needs to see it again.
#![allow(unreachable_pub, reason = "a program has no interface: `pub` says what a module offers the others")]
#![allow(clippy::unwrap_used, reason = "a tool of developers that fails says where")]

mod cases;
mod dice;
mod documents;
mod known;
mod objects;
mod program;

use std::collections::BTreeMap;

use cases::{Case, Comparison};
use dice::Dice;

/// Differences that are printed whole.
const PRINTED: usize = 1000;

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().expect("usage: oracle PROGRAM [CASES] [SEED]");
    let count = arguments.next().map_or(10_000, |text| text.parse().unwrap());
    let seed = arguments.next().map_or(1, |text| text.parse().unwrap());
    let mut dice = Dice::new(seed);
    let cases: Vec<Case> = (0..count).map(|_| cases::random(&mut dice)).collect();
    let answers = program::ask(&program, cases.iter().map(|case| case.question.to_string()).collect());
    let mut figures = BTreeMap::<&str, [usize; 3]>::new();
    let mut reasons = BTreeMap::<&str, usize>::new();
    let mut printed = 0;
    for (number, (case, theirs)) in cases.iter().zip(&answers).enumerate() {
        let figure = figures.entry(case.operation).or_default();
        figure[0] += 1;
        match case.compare(theirs) {
            Comparison::Same => {}
            Comparison::Known(reason) => {
                figure[1] += 1;
                *reasons.entry(reason).or_default() += 1;
            }
            Comparison::Different(difference) => {
                figure[2] += 1;
                printed += 1;
                if printed <= PRINTED {
                    println!("case {number}: {}\n  question {}\n{difference}", case.operation, case.question);
                }
            }
        }
    }
    for (reason, count) in reasons {
        println!("known, {count} times: {reason}");
    }
    println!("| operation | cases | known | different |\n|---|---|---|---|");
    for (operation, [all, known, different]) in &figures {
        println!("| {operation} | {all} | {known} | {different} |");
    }
    std::process::ExitCode::from(u8::from(printed > 0))
}
