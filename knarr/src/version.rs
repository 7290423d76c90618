//! What `build.rs` found out about this build.

/// For `/version`.
pub(crate) const BUILD: apiserver::Build = apiserver::Build {
    commit: env!("KNARR_GIT_COMMIT"),
    tree_state: env!("KNARR_GIT_TREE_STATE"),
    date: env!("KNARR_BUILD_DATE"),
    rust: env!("KNARR_RUST_VERSION"),
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A build from a git tree knows all of it, any other build none of what git knows; never something made up.
    #[test]
    fn the_build_is_described() {
        assert!(BUILD.rust.starts_with("1."), "{BUILD:?}");
        assert!(BUILD.date.len() == 20 && BUILD.date.ends_with('Z'), "{BUILD:?}");
        let commit_is_one = BUILD.commit.len() >= 40 && BUILD.commit.chars().all(|c| c.is_ascii_hexdigit());
        match BUILD.tree_state {
            "clean" | "dirty" => assert!(commit_is_one, "{BUILD:?}"),
            state => assert_eq!((state, BUILD.commit), ("", "")),
        }
    }
}
