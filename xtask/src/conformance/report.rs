//! The table of conformance tests and of the project's tests that cite them, as it stands in `docs/conformance.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};

use super::citations::{self, Citation, Citations};
use crate::tidy::source::{self, File};
use crate::tools;

const LIST: &str = include_str!("../../../docs/conformance/v1.36.tsv");
const PAGE: &str = "docs/conformance.md";
const BEGIN: &str = "<!-- cargo xtask conformance --report writes what follows -->\n";

/// Writes the table into the page, and prints the figures of each sig.
pub fn run() -> Result<()> {
    let citations = citations::read(&source::read()?);
    let path = tools::root().join(PAGE);
    let page = fs::read_to_string(&path)?;
    let table = render(&tests(LIST), &citations);
    fs::write(path, replace(&page, &table).with_context(|| format!("{PAGE} has no line {BEGIN}"))?)?;
    print!("{}", table.split("\n## ").next().unwrap_or(&table));
    Ok(())
}

/// Complaints about citations of tests that do not exist, and about those that stand above no test.
pub fn complaints(files: &[File]) -> Vec<String> {
    let Citations { conformance, mut complaints, .. } = citations::read(files);
    let known: BTreeSet<&str> = tests(LIST).iter().map(|test| test.name).collect();
    let unknown = conformance.iter().filter(|citation| !known.contains(citation.sentence.as_str()));
    complaints.extend(unknown.map(|c| format!("{} cites a conformance test that v1.36 does not have: {}", c.test, c.sentence)));
    complaints
}

/// A conformance test.
struct Test<'a> {
    sig: &'a str,
    name: &'a str,
}

fn tests(list: &str) -> Vec<Test<'_>> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let test = |line| {
        let (sig, rest) = str::split_once(line, '\t')?;
        Some(Test { sig, name: rest.split('\t').next()? })
    };
    lines.filter_map(test).collect()
}

/// The page with another table.
fn replace(page: &str, table: &str) -> Option<String> {
    let start = page.find(BEGIN)? + BEGIN.len();
    Some(format!("{}\n{table}", &page[..start]))
}

fn render(tests: &[Test<'_>], citations: &Citations) -> String {
    let cited = by_sentence(&citations.conformance);
    let sigs: BTreeSet<&str> = tests.iter().map(|test| test.sig).collect();
    let mut out = String::from("| sig | cited | missing | tests |\n|---|---|---|---|\n");
    let mut line = |name: &str, of: &mut dyn Iterator<Item = &Test<'_>>| {
        let (mut found, mut all) = (0, 0);
        for test in of {
            all += 1;
            found += usize::from(cited.contains_key(test.name));
        }
        let _ = writeln!(out, "| {name} | {found} | {} | {all} |", all - found);
    };
    for sig in &sigs {
        line(sig, &mut tests.iter().filter(|test| test.sig == *sig));
    }
    line("**all**", &mut tests.iter());
    for sig in sigs {
        let _ = writeln!(out, "\n## {sig}\n\n| conformance test | cited by |\n|---|---|");
        for test in tests.iter().filter(|test| test.sig == sig) {
            let by = cited.get(test.name).map(|tests| tests.join("<br>")).unwrap_or_default();
            let _ = writeln!(out, "| {} | {by} |", cell(test));
        }
    }
    let keps = by_sentence(&citations.keps);
    if !keps.is_empty() {
        let _ = writeln!(out, "\n## KEPs\n\n| sentence | cited by |\n|---|---|");
    }
    for (sentence, tests) in keps {
        let _ = writeln!(out, "| {} | {} |", escape(sentence), tests.join("<br>"));
    }
    out
}

fn by_sentence(citations: &[Citation]) -> BTreeMap<&str, Vec<&str>> {
    let mut map = BTreeMap::<&str, Vec<&str>>::new();
    for citation in citations {
        map.entry(&citation.sentence).or_default().push(&citation.test);
    }
    map
}

/// The name without the words that every name of the section has.
fn cell(test: &Test<'_>) -> String {
    let head = format!("[{}] ", test.sig);
    let name = test.name.strip_prefix(&head).unwrap_or(test.name);
    escape(name.strip_suffix(" [Conformance]").unwrap_or(name))
}

fn escape(text: &str) -> String {
    text.replace('*', "\\*").replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST_OF_TWO: &str =
        "# sig, name, release\nsig-a\t[sig-a] b *c* [Conformance]\tv1.9\nsig-a\t[sig-a] d [Conformance]\tv1.9\n";

    #[test]
    fn the_table() {
        let cite = |sentence: &str| Citation { sentence: sentence.into(), test: "a.rs: f".into() };
        let keps = vec![cite("KEP-1: x")];
        let citations = Citations { conformance: vec![cite("[sig-a] d [Conformance]")], keps, ..Citations::default() };
        let expected = "| sig | cited | missing | tests |\n|---|---|---|---|\n| sig-a | 1 | 1 | 2 |\n| **all** | 1 | 1 | 2 |\n\
            \n## sig-a\n\n| conformance test | cited by |\n|---|---|\n| b \\*c\\* |  |\n| d | a.rs: f |\n\
            \n## KEPs\n\n| sentence | cited by |\n|---|---|\n| KEP-1: x | a.rs: f |\n";
        assert_eq!(render(&tests(LIST_OF_TWO), &citations), expected);
        assert_eq!(replace(&format!("head\n{BEGIN}old"), "new"), Some(format!("head\n{BEGIN}\nnew")));
        assert_eq!(replace("no mark", "new"), None);
    }

    #[test]
    fn a_citation_of_nothing() {
        let text = "/// Conformance: [sig-a] never written\n#[test]\nfn f() {}\n".to_owned();
        let complaints = complaints(&[File { path: "a.rs".into(), text, test: true }]);
        assert_eq!(complaints, ["a.rs: f cites a conformance test that v1.36 does not have: [sig-a] never written"]);
    }

    /// `cargo xtask conformance --report` mends the page.
    #[test]
    fn the_page_is_that_table() {
        let page = fs::read_to_string(tools::root().join(PAGE)).unwrap();
        let citations = citations::read(&source::read().unwrap());
        let table = render(&tests(LIST), &citations);
        assert!(replace(&page, &table).as_ref() == Some(&page), "stale: run cargo xtask conformance --report");
    }
}
