//! Dependencies: licences and versions that are there twice.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use crate::tools;

/// Licences that may be linked into an Apache-2.0 program that is shipped as one binary.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates whose licence is none of these, with the reason why they may be linked all the same.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("pathrs", "MPL-2.0: its own files stay under it, and we do not change them"),
    ("rust-criu", "MIT: its manifest does not say so, its LICENSE file does"),
];

/// Crates that the graph holds in more than one version, with who keeps the older one. Shorten this list, do not grow it.
const DUPLICATES: &[(&str, &str)] = &[
    ("base64", "instant-acme, k8s-openapi, tower-http"),
    ("getrandom", "ring, uuid, tempfile"),
    ("hashbrown", "dashmap, fjall, indexmap"),
    ("nix", "libcontainer"),
    ("syn", "derive macros"),
    ("synstructure", "derive macros"),
    ("thiserror", "libcontainer, oci-spec"),
    ("thiserror-impl", "libcontainer, oci-spec"),
    ("tower-http", "kube, reqwest"),
];

/// What `cargo metadata` says, for the platform that Knarr is built for.
pub fn metadata() -> Result<Value> {
    let mut cargo = tools::cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]);
    Ok(serde_json::from_str(&tools::output(&mut cargo)?)?)
}

/// The workspace's own packages.
pub fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    let ids = metadata["workspace_members"].as_array();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages.filter(move |package| ids.is_some_and(|ids| ids.contains(&package["id"])))
}

/// Complaints about licences outside the list.
pub fn licences(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let known = |package: &Value| EXCEPTIONS.iter().any(|(name, _)| package["name"] == *name);
    let refused = packages.filter(|package| !allowed(package["license"].as_str().unwrap_or_default()) && !known(package));
    let tell = |package: &Value| {
        format!("licence {} of {} {} is not in LICENCES", package["license"], package["name"], package["version"])
    };
    refused.map(tell).collect()
}

/// An SPDX expression of `OR` over `AND`, as crates use it; `/` is the old spelling of `OR`.
fn allowed(expression: &str) -> bool {
    let plain = expression.replace('/', " OR ").replace(['(', ')'], " ");
    plain.split(" OR ").any(|option| option.split(" AND ").all(|licence| LICENCES.contains(&licence.trim())))
}

/// Complaints about crates with several versions in the binary, and about exceptions that are no longer needed.
pub fn duplicates() -> Result<Vec<String>> {
    let mut cargo = tools::cargo();
    cargo.args(["tree", "--duplicates", "--depth", "0", "--edges", "normal", "--workspace", "--locked"]);
    let mut versions = BTreeMap::<String, Vec<String>>::new();
    for line in tools::output(&mut cargo)?.lines() {
        let Some((name, version)) = line.split_once(' ') else { continue };
        let list = versions.entry(name.to_owned()).or_default();
        let version = version.split_whitespace().next().unwrap_or_default().to_owned();
        if !list.contains(&version) {
            list.push(version);
        }
    }
    versions.retain(|_, list| list.len() > 1);
    let known = |name: &str| DUPLICATES.iter().any(|(known, _)| *known == name);
    let mut complaints: Vec<_> = versions
        .iter()
        .filter(|(name, _)| !known(name))
        .map(|(name, list)| format!("{name} is in the binary more than once: {}", list.join(" ")))
        .collect();
    let stale = DUPLICATES.iter().filter(|(name, _)| !versions.contains_key(*name));
    complaints.extend(stale.map(|(name, _)| format!("DUPLICATES lists {name}, which is there only once")));
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let check = |expression: &str, expected: bool| assert_eq!(allowed(expression), expected, "{expression}");
        check("MIT", true);
        check("MIT/Apache-2.0", true);
        check("GPL-3.0-only", false);
        check("GPL-3.0-only OR MIT", true);
        check("GPL-3.0-only AND MIT", false);
        check("(MIT OR Apache-2.0) AND Unicode-3.0", true);
        check("", false);
    }
}
