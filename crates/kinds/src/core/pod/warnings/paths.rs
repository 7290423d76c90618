//! Files of one volume that are in each other's way: two of one name, or one that is a directory for another.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

use apimachinery::text::quote;
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

use crate::rules::{list, text};

/// Files that one is compared with: each may be worth a warning, of which a hundred are shown.
const MAX_COLLISIONS: usize = 16;
const MAX_WARNINGS: usize = 128;

/// A file of a volume, and what it is from where a volume has several sources.
struct File<'a> {
    path: &'a str,
    from: Option<String>,
}

impl fmt::Display for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            None => f.write_str(&quote(self.path)),
            Some(from) => write!(f, "{} ({from})", quote(self.path)),
        }
    }
}

fn of_items<'a>(items: Option<&'a Vec<KeyToPath>>, from: Option<&str>) -> Vec<File<'a>> {
    items.into_iter().flatten().map(|item| File { path: &item.path, from: from.map(str::to_owned) }).collect()
}

fn of_fields<'a>(items: Option<&'a Vec<DownwardAPIVolumeFile>>, from: Option<&str>) -> Vec<File<'a>> {
    items.into_iter().flatten().map(|item| File { path: &item.path, from: from.map(str::to_owned) }).collect()
}

pub(super) fn warn(volume: &Volume, warnings: &mut Vec<String>) {
    let name = quote(&volume.name);
    if let Some(source) = &volume.config_map {
        overlaps(&format!("{name} (ConfigMap {})", quote(&source.name)), of_items(source.items.as_ref(), None), warnings);
    }
    if let Some(source) = &volume.secret {
        let secret = quote(text(&source.secret_name));
        overlaps(&format!("{name} (Secret {secret})"), of_items(source.items.as_ref(), None), warnings);
    }
    if let Some(source) = &volume.downward_api {
        overlaps(&format!("{name} (DownwardAPI)"), of_fields(source.items.as_ref(), None), warnings);
    }
    if let Some(source) = &volume.projected {
        let sources = list(&source.sources);
        for _ in sources.iter().filter(|source| **source == VolumeProjection::default()).take(MAX_COLLISIONS) {
            warnings.push(format!("volume {name} (Projected) has no sources provided"));
        }
        overlaps(&format!("{name} (Projected)"), sources.iter().flat_map(projected).collect(), warnings);
    }
}

/// The files of one source, as far as their names are known.
fn projected(source: &VolumeProjection) -> Vec<File<'_>> {
    let mut files = Vec::new();
    if let Some(source) = &source.config_map {
        files.extend(of_items(source.items.as_ref(), Some(&format!("ConfigMap {}", quote(&source.name)))));
    }
    if let Some(source) = &source.secret {
        files.extend(of_items(source.items.as_ref(), Some(&format!("Secret {}", quote(&source.name)))));
    }
    if let Some(source) = &source.downward_api {
        files.extend(of_fields(source.items.as_ref(), Some("DownwardAPI")));
    }
    if let Some(token) = &source.service_account_token {
        files.push(File { path: &token.path, from: Some("ServiceAccountToken".to_owned()) });
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        let name = bundle.name.as_deref().unwrap_or(text(&bundle.signer_name));
        files.push(File { path: &bundle.path, from: Some(format!("ClusterTrustBundle {}", quote(name))) });
    }
    if let Some(certificate) = &source.pod_certificate {
        for (path, what) in [
            (&certificate.credential_bundle_path, "credential bundle"),
            (&certificate.key_path, "key"),
            (&certificate.certificate_chain_path, "chain"),
        ] {
            files.push(File { path: text(path), from: Some(format!("PodCertificate {what}")) });
        }
    }
    files
}

/// Says of each file which ones before it are in its way.
fn overlaps(what: &str, files: Vec<File<'_>>, warnings: &mut Vec<String>) {
    let most = warnings.len() + MAX_WARNINGS;
    let mut seen = Seen::default();
    for mut file in files {
        file.path = file.path.trim_end_matches('/');
        if file.path.is_empty() || warnings.len() >= most {
            continue;
        }
        for other in seen.collisions(file.path) {
            warnings.push(format!("volume {what}: overlapping paths: {file} with {}", seen.files[other]));
        }
        seen.add(file);
    }
}

/// Files in their order, found by path without looking at each.
#[derive(Default)]
struct Seen<'a> {
    files: Vec<File<'a>>,
    by_path: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> Seen<'a> {
    fn add(&mut self, file: File<'a>) {
        let same = self.by_path.entry(file.path).or_default();
        if same.len() < MAX_COLLISIONS {
            same.push(self.files.len());
        }
        self.files.push(file);
    }

    fn collisions(&self, path: &str) -> Vec<usize> {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]);
        let below = format!("{path}/");
        let inside = self.by_path.range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded));
        let inside = inside.take_while(|(other, _)| other.starts_with(&below)).map(|(_, same)| same);
        let all = above.filter_map(|path| self.by_path.get(path)).chain(inside);
        let mut found: Vec<usize> = all.flatten().copied().take(MAX_COLLISIONS).collect();
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(source: Value, expected: &[&str]) {
        let mut volume = json!({"name": "v"});
        volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        let mut warnings = Vec::new();
        warn(&serde_json::from_value(volume).unwrap(), &mut warnings);
        assert_eq!(warnings, expected, "{source}");
    }

    #[test]
    fn files_of_one_source() {
        let items = |paths: &[&str]| paths.iter().map(|path| json!({"key": "k", "path": path})).collect::<Vec<_>>();
        let map = |paths: &[&str]| json!({"configMap": {"name": "m", "items": items(paths)}});
        check(map(&["a", "b", "ab", "a-b", "dir/1", "dir/12"]), &[]);
        check(map(&["a", "a"]), &[r#"volume "v" (ConfigMap "m"): overlapping paths: "a" with "a""#]);
        check(map(&["a", "a/b"]), &[r#"volume "v" (ConfigMap "m"): overlapping paths: "a/b" with "a""#]);
        check(map(&["a/b/c", "a/"]), &[r#"volume "v" (ConfigMap "m"): overlapping paths: "a" with "a/b/c""#]);
        check(
            json!({"secret": {"secretName": "s", "items": items(&["a/b", "a/c", "a"])}}),
            &[
                r#"volume "v" (Secret "s"): overlapping paths: "a" with "a/b""#,
                r#"volume "v" (Secret "s"): overlapping paths: "a" with "a/c""#,
            ],
        );
        check(
            json!({"downwardAPI": {"items": [{"path": "a"}, {"path": "a"}]}}),
            &[r#"volume "v" (DownwardAPI): overlapping paths: "a" with "a""#],
        );
        let many: Vec<String> = (0..5000).map(|_| "a".to_owned()).collect();
        let mut warnings = Vec::new();
        let volume = json!({"name": "v", "configMap": {"name": "m", "items": items(&many.iter().map(String::as_str).collect::<Vec<_>>())}});
        warn(&serde_json::from_value(volume).unwrap(), &mut warnings);
        assert!(warnings.len() < MAX_WARNINGS + MAX_COLLISIONS);
    }

    #[test]
    fn files_of_several_sources() {
        let of = |sources: Value| json!({"projected": {"sources": sources}});
        check(of(json!([{}])), &[r#"volume "v" (Projected) has no sources provided"#]);
        check(
            of(json!([
                {"clusterTrustBundle": {"signerName": "b", "path": "a/b"}},
                {"downwardAPI": {"items": [{"path": "a"}]}},
                {"secret": {"name": "s", "items": [{"key": "k", "path": "a"}]}},
                {"serviceAccountToken": {"path": "other"}},
            ])),
            &[
                r#"volume "v" (Projected): overlapping paths: "a" (DownwardAPI) with "a/b" (ClusterTrustBundle "b")"#,
                r#"volume "v" (Projected): overlapping paths: "a" (Secret "s") with "a/b" (ClusterTrustBundle "b")"#,
                r#"volume "v" (Projected): overlapping paths: "a" (Secret "s") with "a" (DownwardAPI)"#,
            ],
        );
        check(
            of(
                json!([{"configMap": {"name": "m", "items": [{"key": "k", "path": "t"}]}}, {"serviceAccountToken": {"path": "t/f"}}]),
            ),
            &[r#"volume "v" (Projected): overlapping paths: "t/f" (ServiceAccountToken) with "t" (ConfigMap "m")"#],
        );
        // What is in a whole ConfigMap nobody knows here.
        check(of(json!([{"configMap": {"name": "m"}}, {"serviceAccountToken": {"path": "t"}}])), &[]);
    }
}
