//! `/version`: which API is served, and what was built.

use base::zpages::{Flags, Pages};
use jiff::Timestamp;
use serde::Serialize;

/// The version of the API that is served.
pub const VERSION: &str = "v1.36.4";
/// The oldest minor version that clients and nodes may have.
const OLDEST: [&str; 2] = ["1", "35"];

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

/// The document: upstream's `version.Info`, in the order of its fields. The toolchain stands where upstream names its own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    major: &'static str,
    minor: &'static str,
    emulation_major: &'static str,
    emulation_minor: &'static str,
    min_compatibility_major: &'static str,
    min_compatibility_minor: &'static str,
    git_version: &'static str,
    git_commit: &'static str,
    git_tree_state: &'static str,
    build_date: &'static str,
    go_version: String,
    compiler: &'static str,
    platform: String,
}

/// What `/version` says of a build.
pub(crate) fn document(build: &Build) -> Document {
    let [major, minor] = [0, 1].map(|index| numbers()[index]);
    let platform = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64".to_owned(),
        "aarch64" => "linux/arm64".to_owned(),
        other => format!("linux/{other}"),
    };
    Document {
        major,
        minor,
        emulation_major: major,
        emulation_minor: minor,
        min_compatibility_major: OLDEST[0],
        min_compatibility_minor: OLDEST[1],
        git_version: VERSION,
        git_commit: build.commit,
        git_tree_state: build.tree_state,
        build_date: build.date,
        go_version: toolchain(build),
        compiler: "rustc",
        platform,
    }
}

impl Build {
    /// What `/statusz` and `/flagz` of a component say that starts now.
    pub fn pages(&self, component: &'static str, paths: &'static [&'static str], flags: Flags) -> Pages {
        Pages {
            component,
            version: numbers().join("."),
            emulated: numbers()[..2].join("."),
            oldest: OLDEST.join("."),
            toolchain: toolchain(self),
            started: Timestamp::now(),
            paths,
            flags,
        }
    }
}

/// Major, minor and patch version.
fn numbers() -> Vec<&'static str> {
    VERSION.trim_start_matches('v').split('.').collect()
}

fn toolchain(build: &Build) -> String {
    if build.rust.is_empty() { String::new() } else { format!("rust{}", build.rust) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn says_what_was_built() {
        let build = Build { commit: "abc", tree_state: "clean", date: "2026-01-01T00:00:00Z", rust: "1.90.0" };
        let said = serde_json::to_value(document(&build)).unwrap();
        let fields = ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler"];
        let expected = ["1", "36", "v1.36.4", "abc", "clean", "2026-01-01T00:00:00Z", "rust1.90.0", "rustc"];
        assert_eq!(fields.map(|field| said[field].as_str().unwrap_or_default()), expected);
        assert_eq!(document(&Build::default()).go_version, "");
    }
}
