//! Whoever looks for an example finds it, and finds it true.

use std::fs;
use std::path::Path;

use crate::examples;

/// Names of what a directory has.
fn entries(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_example_is_in_the_index_and_in_a_test() {
    let index = fs::read_to_string(examples().join("README.md")).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let sources = [tests.clone(), tests.join("examples")].map(|directory| {
        let sources = entries(&directory).into_iter().filter(|name| name.ends_with(".rs"));
        sources.map(|name| fs::read_to_string(directory.join(name)).unwrap()).collect::<String>()
    });
    for name in entries(&examples()).into_iter().filter(|name| examples().join(name).is_dir()) {
        assert!(examples().join(&name).join("README.md").exists(), "examples/{name} has no README.md");
        assert!(index.contains(&format!("({name}/)")), "examples/README.md does not lead to {name}/");
        let named = [format!("\"{name}\""), format!("examples/{name}/")];
        assert!(named.iter().any(|name| sources.iter().any(|text| text.contains(name))), "no test follows examples/{name}");
    }
}
