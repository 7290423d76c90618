//! The Go program: one question a line in, one answer a line out.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Asks all questions, and returns the answers in their order.
pub fn ask(program: &str, questions: Vec<String>) -> Vec<Value> {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let count = questions.len();
    let writer = std::thread::spawn(move || {
        for question in questions {
            writeln!(input, "{question}").unwrap();
        }
    });
    let output = BufReader::new(child.stdout.take().unwrap());
    let answers: Vec<_> = output.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success() && answers.len() == count, "the oracle answered {} of {count}", answers.len());
    answers
}
