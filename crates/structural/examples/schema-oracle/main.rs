//! Compares what Knarr says of schemas and of rules in CEL with what upstream's own libraries say: `oracle PROGRAM [CASES] [SEED]`.
//!
//! `cargo xtask oracle` builds the program (the directory `oracle`) and starts this. Cases are random but follow from the seed.
#![allow(unreachable_pub, reason = "a program has no interface: `pub` says what a module offers the others")]
#![allow(clippy::unwrap_used, reason = "a tool of developers that fails says where")]

#[allow(dead_code, reason = "nothing is shuffled here")]
#[path = "../../../apimachinery/examples/oracle/dice.rs"]
mod dice;
mod known;
#[path = "../../../apimachinery/examples/oracle/program.rs"]
mod program;
mod rules;
mod schemas;

use std::collections::BTreeMap;

use dice::Dice;
use serde_json::{Value, json};

/// Differences that are printed whole.
const PRINTED: usize = 100;

/// The names of types have numbers that are never the same.
fn unnumbered(text: &str) -> String {
    let mut parts = text.split("selfType");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + "selfType" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// Numbers as Go writes them: a whole one is kept as it was written here, and without its fraction there.
fn shown(value: &Value) -> Value {
    serde_json::from_str(&apimachinery::text::json(value)).unwrap()
}

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().expect("usage: oracle PROGRAM [CASES] [SEED]");
    let count = arguments.next().map_or(10_000, |text| text.parse().unwrap());
    let mut dice = Dice::new(arguments.next().map_or(1, |text| text.parse().unwrap()));
    let cases: Vec<Value> =
        (0..count).map(|_| if dice.chance(60) { rules::question(&mut dice) } else { schemas::question(&mut dice) }).collect();
    let answers = program::ask(&program, cases.iter().map(Value::to_string).collect());
    let (mut figures, mut reasons) = (BTreeMap::<&str, [usize; 3]>::new(), BTreeMap::<&str, usize>::new());
    let mut different = 0;
    for (number, (question, theirs)) in cases.iter().zip(&answers).enumerate() {
        let operation = question["op"].as_str().unwrap_or_default();
        let figure = figures.entry(operation).or_default();
        figure[0] += 1;
        let ours = if operation == "rule" { rules::answer(question) } else { schemas::answer(question) };
        let ours = shown(&ours);
        let mut theirs = theirs.get("ok").cloned().unwrap_or_else(|| json!({"failed": theirs["error"]}));
        if let Some(wrong) = theirs["wrong"].as_str() {
            theirs["wrong"] = unnumbered(wrong).into();
        }
        if ours == theirs {
            continue;
        }
        if let Some(reason) = known::reason(question, &ours, &theirs) {
            figure[1] += 1;
            *reasons.entry(reason).or_default() += 1;
            continue;
        }
        figure[2] += 1;
        different += 1;
        if different <= PRINTED {
            println!("case {number}: {question}\n  ours   {ours}\n  theirs {theirs}");
        }
    }
    for (reason, count) in reasons {
        println!("known, {count} times: {reason}");
    }
    println!("| operation | cases | known | different |\n|---|---|---|---|");
    for (operation, [all, known, different]) in &figures {
        println!("| {operation} | {all} | {known} | {different} |");
    }
    std::process::ExitCode::from(u8::from(different > 0))
}
