//! Modules of a crate that use each other, directly or through others: neither can be read, tested or moved without the other.
//!
//! A module and the modules inside it belong together, so what they use of each other does not count.

use std::collections::{BTreeMap, BTreeSet};

use super::source::File;

/// Circles that stay, with the reason. The list may only shrink.
const KNOWN: &[(&[&str], &str)] = &[
    (
        &["apimachinery::patch::lists", "apimachinery::patch::strategic"],
        "objects are merged by merging their lists, and lists by merging their objects",
    ),
    (&["kinds::def", "kinds::sub"], "a kind has sub-resources, and each is of a kind"),
    (&["kinds::strategy", "kinds::typed"], "the rules of a kind as the registry and as the kind see them"),
    (&["runtime::container::enter", "runtime::container::helper"], "one process, which makes containers and enters them"),
];

/// Complaints about circles that are not known, and about known ones that are gone.
pub fn check(files: &[File]) -> Vec<String> {
    complaints(files, KNOWN)
}

fn complaints(files: &[File], known: &[(&[&str], &str)]) -> Vec<String> {
    let modules: BTreeMap<String, &File> =
        files.iter().filter(|file| !file.test).filter_map(|file| Some((module(&file.path)?, file))).collect();
    let uses: Uses<'_> = modules.iter().map(|(name, file)| (name.as_str(), used(name, file.production(), &modules))).collect();
    let found: BTreeSet<Vec<&str>> = modules.keys().map(|name| circle(name, &uses)).filter(|circle| circle.len() > 1).collect();
    let covers = |circle: &[&str], names: &[&str]| circle.len() == names.len() && names.iter().all(|name| circle.contains(name));
    let new = found.iter().filter(|circle| !known.iter().any(|(names, _)| covers(circle, names)));
    let new = new.map(|circle| format!("{} use each other: what they share belongs in a module of its own", circle.join(", ")));
    let gone = known.iter().filter(|(names, _)| !found.iter().any(|circle| covers(circle, names)));
    let gone =
        gone.map(|(names, _)| format!("{} do not use each other any more: take them off the list of circles", names.join(", ")));
    new.chain(gone).collect()
}

/// Which modules each module uses.
type Uses<'m> = BTreeMap<&'m str, BTreeSet<&'m str>>;

/// `crates/store/src/fjall/read.rs` as `store::fjall::read`.
fn module(path: &str) -> Option<String> {
    let (directory, file) = path.strip_suffix(".rs")?.split_once("/src/")?;
    let own = file.split('/').filter(|part| !matches!(*part, "lib" | "main"));
    let parts = std::iter::once(directory.rsplit('/').next().unwrap_or(directory)).chain(own);
    (!file.starts_with("bin/")).then(|| parts.collect::<Vec<_>>().join("::"))
}

/// The modules that a module uses, but those in it and those that it is in.
fn used<'m>(module: &str, text: &str, modules: &'m BTreeMap<String, &File>) -> BTreeSet<&'m str> {
    let outer = |module: &str| module.rsplit_once("::").map_or(String::new(), |(outer, _)| outer.to_owned());
    let is_in =
        |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let mut found = BTreeSet::new();
    for path in paths(text) {
        let mut parts = path.split("::");
        let mut whole = match parts.next() {
            Some("crate") => module.split("::").next().unwrap_or(module).to_owned(),
            Some("self") => module.to_owned(),
            Some("super") => outer(module),
            Some(name) if modules.contains_key(&format!("{module}::{name}")) => format!("{module}::{name}"),
            _ => continue,
        };
        for part in parts {
            whole = if part == "super" { outer(&whole) } else { format!("{whole}::{part}") };
        }
        while !whole.is_empty() && !modules.contains_key(&whole) {
            whole = outer(&whole);
        }
        if let Some((other, _)) = modules.get_key_value(&whole)
            && !is_in(other, module)
            && !is_in(module, other)
        {
            found.insert(other.as_str());
        }
    }
    found
}

/// The paths of all `use` declarations, each whole.
fn paths(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim()).collect();
    let mut found = Vec::new();
    let mut tests_only = false;
    let mut lines = code.into_iter();
    while let Some(line) = lines.next() {
        let head = line.strip_prefix("pub").map_or(line, |rest| rest.split_once(')').map_or(rest, |(_, rest)| rest).trim_start());
        let head = if line.starts_with("pub use ") { &line[4..] } else { head };
        if let Some(start) = head.strip_prefix("use ") {
            let mut tree = start.to_owned();
            while !tree.contains(';') {
                let Some(line) = lines.next() else { break };
                tree.push_str(line);
            }
            if !tests_only {
                expand("", tree.trim_end_matches(';'), &mut found);
            }
        }
        tests_only = line == "#[cfg(test)]";
    }
    found
}

/// `a::{b, c::{d}}` as `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        if !name.is_empty() {
            found.push(format!("{prefix}{name}"));
        }
        return;
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let prefix = format!("{prefix}{}", head.trim());
    let (mut depth, mut start) = (0, 0);
    for (at, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &inner[start..at], found);
                start = at + 1;
            }
            _ => {}
        }
    }
    expand(&prefix, &inner[start..], found);
}

/// All modules that use this one, directly or not, and are used by it: with itself, in order.
fn circle<'m>(of: &'m str, uses: &Uses<'m>) -> Vec<&'m str> {
    let reached = |from: &'m str| {
        let (mut seen, mut left) = (BTreeSet::from([from]), vec![from]);
        while let Some(module) = left.pop() {
            left.extend(uses.get(module).into_iter().flatten().filter(|other| seen.insert(**other)));
        }
        seen
    };
    reached(of).into_iter().filter(|other| reached(other).contains(of)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], known: &[(&[&str], &str)], expected: &[&str]) {
        let file =
            |(path, text): &(&str, &str)| File { path: format!("crates/{path}.rs"), text: (*text).to_owned(), test: false };
        let files: Vec<File> = files.iter().map(file).collect();
        let found = complaints(&files, known);
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| a.starts_with(b)), "{found:?}");
    }

    #[test]
    fn circles() {
        let two = [("x/src/a", "use crate::b::B;\n"), ("x/src/b", "use super::{c, a::A};\n"), ("x/src/c", "")];
        check(&two, &[], &["x::a, x::b use each other"]);
        check(&two, &[(&["x::a", "x::b"], "why")], &[]);
        check(&two[..1], &[(&["x::a", "x::b"], "why")], &["x::a, x::b do not use each other any more"]);
        let three = [
            ("x/src/a", "use crate::{\n    d,\n    b::{B, C},\n};\n"),
            ("x/src/b", "pub(crate) use crate::c;\n"),
            ("x/src/c", "use super::a;\n"),
        ];
        check(&three, &[], &["x::a, x::b, x::c use each other"]);
    }

    #[test]
    fn no_circles() {
        check(
            &[("x/src/a", "use crate::b;\n#[cfg(test)]\nuse crate::c;\n"), ("x/src/b", ""), ("x/src/c", "use crate::a;\n")],
            &[],
            &[],
        );
        // A module and what is in it.
        check(&[("x/src/a", "mod b;\nuse b::B;\n"), ("x/src/a/b", "use super::A;\n")], &[], &[]);
        check(&[("x/src/a", "// use crate::b;\n"), ("x/src/b", "use crate::a;\n")], &[], &[]);
        check(&[("x/src/a", "use y::b;\n"), ("y/src/b", "use x::a;\n")], &[], &[]);
    }
}
