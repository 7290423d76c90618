//! `/version`: which API is served, and what was built.

use serde_json::{Value, json};

/// The version of the API that is served.
pub const VERSION: &str = "v1.36.4";

/// Where the program comes from, as its build found out. What the build could not know is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Build {
    /// Git commit of the sources, in full.
    pub commit: &'static str,
    /// `clean`, or `dirty` when the sources differ from the commit.
    pub tree_state: &'static str,
    /// When it was built, RFC 3339.
    pub date: &'static str,
    /// Version of the Rust toolchain.
    pub rust: &'static str,
}

/// The document: upstream's `version.Info`. The toolchain stands where upstream names its own.
pub(crate) fn document(build: &Build) -> Value {
    let mut numbers = VERSION.trim_start_matches('v').split('.');
    let platform = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64".to_owned(),
        "aarch64" => "linux/arm64".to_owned(),
        other => format!("linux/{other}"),
    };
    json!({
        "major": numbers.next(), "minor": numbers.next(), "gitVersion": VERSION, "gitCommit": build.commit,
        "gitTreeState": build.tree_state, "buildDate": build.date, "goVersion": toolchain(build), "compiler": "rustc",
        "platform": platform, "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
    })
}

fn toolchain(build: &Build) -> String {
    if build.rust.is_empty() { String::new() } else { format!("rust{}", build.rust) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_built() {
        let build = Build { commit: "abc", tree_state: "clean", date: "2026-01-01T00:00:00Z", rust: "1.90.0" };
        let said = document(&build);
        let fields = ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler"];
        let expected = ["1", "36", "v1.36.4", "abc", "clean", "2026-01-01T00:00:00Z", "rust1.90.0", "rustc"];
        assert_eq!(fields.map(|field| said[field].as_str().unwrap_or_default()), expected);
        assert_eq!(document(&Build::default())["goVersion"], "");
    }
}
