//! One list per kind of thing: what has a file has a line, and what has a line has a file.

use super::source::File;

/// Complaints about kinds and controllers that are implemented but not listed.
pub fn check(files: &[File]) -> Vec<String> {
    let mut complaints = unlisted(files, "crates/controllers/src/", "impl Controller for ", "crates/controllers/src/lib.rs");
    complaints.extend(unlisted(files, "crates/kinds/src/", "impl Kind for ", "crates/kinds/src/"));
    complaints
}

/// Implementations below `directory` whose type the file (or directory) `list` does not name a second time.
fn unlisted(files: &[File], directory: &str, head: &str, list: &str) -> Vec<String> {
    let lists: String = files.iter().filter(|file| file.path.starts_with(list)).map(File::production).collect();
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with(directory)) {
        for line in file.production().lines().filter_map(|line| line.strip_prefix(head)) {
            let name: String = line.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let implementation = format!("{head}{name}");
            let uses = lists.replace(&implementation, "");
            if !uses.contains(&name) {
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
            file("c/b.rs", "impl Controller for B {\n"),
            file("c/lib.rs", "launch(a::A)"),
        ];
        assert_eq!(unlisted(&files, "c/", "impl Controller for ", "c/lib.rs"), ["c/b.rs: B is not in the list of c/lib.rs"]);
    }
}
