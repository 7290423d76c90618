//! What tests say that they prove, in their doc comments:
//!
//! ```text
//! /// Conformance: [sig-node] Lease lease API should be available [Conformance]
//! /// KEP-2799: no token Secret is made for a new service account.
//! #[tokio::test]
//! async fn leases() {
//! ```
//!
//! A test may have several such lines, each of which stands whole on its own line.

use crate::tidy::source::File;

/// A sentence of upstream's, and the test that proves it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Citation {
    /// What is cited: the whole name of a conformance test, or `KEP-1234: sentence`.
    pub sentence: String,
    /// `file: function`.
    pub test: String,
}

/// Everything that tests cite.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Citations {
    /// Conformance tests.
    pub conformance: Vec<Citation>,
    /// Sentences of KEPs.
    pub keps: Vec<Citation>,
    /// Citations that stand above something else than a test.
    pub complaints: Vec<String>,
}

/// Reads the citations of every file.
pub fn read(files: &[File]) -> Citations {
    let mut citations = Citations::default();
    for file in files {
        read_file(file, &mut citations);
    }
    citations.conformance.sort();
    citations.keps.sort();
    citations
}

/// The lines above a function that say what it is.
#[derive(Default)]
struct Head<'a> {
    conformance: Vec<&'a str>,
    keps: Vec<&'a str>,
    test: bool,
}

fn read_file(file: &File, citations: &mut Citations) {
    let mut head = Head::default();
    for (number, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if let Some(doc) = line.strip_prefix("/// ") {
            head.conformance.extend(doc.strip_prefix("Conformance: "));
            head.keps.extend(Some(doc).filter(|doc| is_kep(doc)));
        } else if line.starts_with("#[") {
            head.test |= line == "#[test]" || line.starts_with("#[tokio::test");
        } else if line != "///" {
            let head = std::mem::take(&mut head);
            match function(line).filter(|_| head.test) {
                Some(name) => record(head, &format!("{}: {name}", file.path), citations),
                None if head.conformance.is_empty() => {}
                None => citations.complaints.push(format!("{}:{}: only a test cites a conformance test", file.path, number + 1)),
            }
        }
    }
}

fn record(head: Head<'_>, test: &str, citations: &mut Citations) {
    let citation = |sentence: &str| Citation { sentence: sentence.to_owned(), test: test.to_owned() };
    citations.conformance.extend(head.conformance.into_iter().map(citation));
    citations.keps.extend(head.keps.into_iter().map(citation));
}

/// `KEP-1234: ...`.
fn is_kep(doc: &str) -> bool {
    let number = doc.strip_prefix("KEP-").and_then(|rest| rest.split_once(": ")).map(|(number, _)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The name of the function whose head this line is.
fn function(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, conformance: &[(&str, &str)], keps: usize, complaints: usize) {
        let file = File { path: "a.rs".into(), text: text.into(), test: true };
        let got = read(&[file]);
        let pairs: Vec<_> = got.conformance.iter().map(|c| (c.sentence.as_str(), c.test.as_str())).collect();
        assert_eq!((pairs.as_slice(), got.keps.len(), got.complaints.len()), (conformance, keps, complaints), "{text}");
    }

    #[test]
    fn what_is_above_a_test() {
        check("/// Conformance: [sig-a] b [Conformance]\n#[test]\nfn c() {}", &[("[sig-a] b [Conformance]", "a.rs: c")], 0, 0);
        let two =
            "    /// Says more.\n    ///\n    /// Conformance: x\n    /// Conformance: y\n    #[tokio::test]\n    async fn c() {";
        check(two, &[("x", "a.rs: c"), ("y", "a.rs: c")], 0, 0);
        check("/// KEP-12: a pod starts.\n#[test]\nfn c() {}", &[], 1, 0);
        check("/// KEP-12 says so.\n/// KEP-: none\n#[test]\nfn c() {}", &[], 0, 0);
        check("/// Conformance: x\nfn helper() {}\n#[test]\nfn c() {}", &[], 0, 1);
        check("/// Conformance: x\n\n#[test]\nfn c() {}", &[], 0, 1);
        check("/// KEP-12: beside the code.\nfn code() {}", &[], 0, 0);
    }
}
