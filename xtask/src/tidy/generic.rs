//! Generic code knows no kind by its name: what is particular to a kind stands in its file in `kinds`, so that a custom kind called
//! `Pod` is nothing special.

use std::collections::BTreeSet;

use super::source::File;

/// Files and directories that serve every kind alike.
const GENERIC: &[&str] = &[
    "crates/registry/src/",
    "crates/apiserver/src/api.rs",
    "crates/apiserver/src/dispatch.rs",
    "crates/apiserver/src/resources.rs",
    "crates/apiserver/src/respond",
    "crates/apiserver/src/watch",
    "crates/apiserver/src/decode",
    "crates/apiserver/src/body.rs",
];

/// What is about certain kinds: actions of sub-resources, and the addresses of services.
const PARTICULAR: &[&str] = &["crates/registry/src/sub/", "crates/registry/src/services"];

/// A field that most kinds have, and its sub-resource.
const FIELDS: &[&str] = &["status"];

/// Complaints about names of kinds, resources and sub-resources in generic code.
pub fn check(files: &[File]) -> Vec<String> {
    let names = names(files);
    let is_generic = |file: &&File| {
        let starts = |list: &[&str]| list.iter().any(|start| file.path.starts_with(start));
        !file.test && starts(GENERIC) && !starts(PARTICULAR)
    };
    let mut complaints = Vec::new();
    for file in files.iter().filter(is_generic) {
        for (number, line) in file.production().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for text in literals(code).filter(|text| names.contains(*text)) {
                complaints.push(format!("{}:{}: \"{text}\" is a name of a kind in generic code", file.path, number + 1));
            }
        }
    }
    complaints
}

/// Kinds, resources and sub-resources, as their definitions name them.
fn names(files: &[File]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for text in files.iter().filter(|file| file.path.starts_with("crates/kinds/src/")).map(File::production) {
        for definition in text.split("KindDef::new(").skip(1) {
            let arguments = definition.split(')').next().unwrap_or_default();
            // Group, version, kind, resource, singular.
            names.extend(literals(arguments).skip(2).take(2));
        }
        for head in ["Sub::part(", "Sub::action(", "Sub::connect("] {
            names.extend(text.split(head).skip(1).filter_map(|arguments| literals(arguments).next()));
        }
    }
    names.retain(|name| !FIELDS.contains(name));
    names
}

/// What stands between quotes.
fn literals(code: &str) -> impl Iterator<Item = &str> {
    code.split('"').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_in_generic_code() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned(), test: false };
        let files = [
            file(
                "crates/kinds/src/core/pod.rs",
                r#"KindDef::new("", "v1", "Pod", "pods", "pod").with(&[Sub::connect("exec", x)])"#,
            ),
            file("crates/registry/src/verbs/delete.rs", "if def.kind == \"Pod\" {}\n// \"pods\"\nlet x = \"exec\";"),
            file("crates/registry/src/sub/pods.rs", "\"pods\""),
        ];
        let found = check(&files);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("delete.rs:1") && found[1].contains("delete.rs:3"));
    }
}
