//! One list per kind of thing: what has a file has a line, and what has a line has a file.

use super::source::File;

/// What is implemented, where, and the list that must name it.
const LISTS: [(&str, &str, &str); 3] = [
    ("impl Controller for ", "crates/controllers/src/", "crates/controllers/src/lib.rs"),
    ("impl Kind for ", "crates/kinds/src/", "crates/kinds/src/list.rs"),
    ("impl Admission for ", "crates/apiserver/src/admission/", "crates/apiserver/src/admission.rs"),
];

/// Complaints about things that are implemented but not listed.
pub fn check(files: &[File]) -> Vec<String> {
    LISTS.iter().flat_map(|(head, directory, list)| unlisted(files, directory, head, list)).collect()
}

/// Implementations below `directory` whose type has no word of its own in the file `list`.
fn unlisted(files: &[File], directory: &str, head: &str, list: &str) -> Vec<String> {
    let rows = files.iter().find(|file| file.path == list).map(File::production).unwrap_or_default();
    let rows: Vec<&str> = rows.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with(directory)) {
        for line in file.production().lines().filter_map(|line| line.strip_prefix(head)) {
            let path = line.split([' ', '<', '{']).next().unwrap_or_default();
            let name = path.rsplit("::").next().unwrap_or_default();
            if !rows.contains(&name) {
                complaints.push(format!("{}: {name} is not in the list of {list}", file.path));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_implementation_without_a_line() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned(), test: false };
        let files = [
            file("c/a.rs", "impl Controller for A {\n"),
            file("c/b.rs", "impl Controller for x::B {\n"),
            file("c/lib.rs", "launch(a::A); let Bee = 1;"),
        ];
        assert_eq!(unlisted(&files, "c/", "impl Controller for ", "c/lib.rs"), ["c/b.rs: B is not in the list of c/lib.rs"]);
    }
}
