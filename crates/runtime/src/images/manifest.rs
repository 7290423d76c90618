//! The JSON documents of an image (OCI image specification; Docker's schema 2 has the same shape).

use std::collections::BTreeMap;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::api::{Error, Result};

/// Media types of manifests and indexes that a pull accepts.
pub(crate) const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Most entries of a manifest or of an index. A few bytes make one, which takes many more here.
const ENTRIES: usize = 512;

/// Most indexes within each other.
pub(crate) const NESTED: usize = 4;

/// A reference to a blob or manifest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) platform: Option<Platform>,
    #[serde(deserialize_with = "null")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Whether it is of an image for this machine.
    pub(crate) fn is_for_this_machine(&self) -> bool {
        // Indexes of a layout name no platform; attestations say "unknown".
        self.platform.as_ref().is_none_or(|platform| platform.rank().is_some())
    }

    /// How well it suits this machine, where less is better; none when it does not run here.
    fn rank(&self) -> Option<usize> {
        self.platform.as_ref().map_or(Some(usize::MAX), Platform::rank)
    }
}

/// What a manifest of an index is for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(deserialize_with = "null")]
    pub(crate) variant: String,
}

impl Platform {
    /// The place of its variant among those that every machine of this architecture runs, best first. Others need a newer processor: who
    /// wants them names their digest.
    fn rank(&self) -> Option<usize> {
        let variants: &[&str] = match architecture() {
            "amd64" => &["v1", ""],
            "arm64" => &["v8", "v8.0", ""],
            "arm" => &["v7", "", "v6", "v5"],
            _ => &[""],
        };
        let is_here = self.os == "linux" && self.architecture == architecture();
        variants.iter().position(|variant| is_here && *variant == self.variant)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slash = if self.variant.is_empty() { "" } else { "/" };
        write!(f, "{}/{}{slash}{}", self.os, self.architecture, self.variant)
    }
}

/// A manifest or an index, whichever was served.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) config: Option<Descriptor>,
    #[serde(deserialize_with = "entries")]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(deserialize_with = "entries")]
    pub(crate) manifests: Vec<Descriptor>,
}

/// The image configuration document.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigFile {
    #[serde(deserialize_with = "null")]
    pub(crate) config: ImageConfig,
    #[serde(deserialize_with = "null")]
    pub(crate) rootfs: RootFs,
}

/// The layers of an image, lowest first.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RootFs {
    #[serde(deserialize_with = "null")]
    pub(crate) diff_ids: Vec<String>,
}

/// How a container of the image runs when nobody says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageConfig {
    #[serde(deserialize_with = "null")]
    pub(crate) user: String,
    #[serde(deserialize_with = "null")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "null")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(deserialize_with = "null")]
    pub(crate) cmd: Vec<String>,
    #[serde(deserialize_with = "null")]
    pub(crate) working_dir: String,
    #[serde(deserialize_with = "null")]
    pub(crate) stop_signal: String,
    /// Paths that want a volume, each with an empty object.
    #[serde(deserialize_with = "null")]
    pub(crate) volumes: BTreeMap<String, Option<Empty>>,
}

/// An object of which nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Empty {}

/// Builders write `null` where they mean empty.
fn null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// At most [`ENTRIES`] of them, or `null`.
fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<Descriptor>, D::Error> {
    struct Few;
    impl<'de> Visitor<'de> for Few {
        type Value = Vec<Descriptor>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {ENTRIES} descriptors")
        }

        fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> std::result::Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some(next) = sequence.next_element()? {
                if found.len() == ENTRIES {
                    return Err(A::Error::invalid_length(ENTRIES + 1, &self));
                }
                found.push(next);
            }
            Ok(found)
        }
    }
    deserializer.deserialize_any(Few)
}

impl Manifest {
    /// Decodes the manifest or index in `bytes`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| Error::ImagePull(format!("the manifest is not valid: {error}")))?;
        if manifest.schema_version != 2 {
            let version = manifest.schema_version;
            return Err(Error::ImagePull(format!("manifest schema version {version} is not supported: rebuild the image")));
        }
        Ok(manifest)
    }

    /// Whether it is an index, maybe one of nothing.
    pub(crate) fn is_index(&self) -> bool {
        !self.manifests.is_empty() || (self.config.is_none() && self.layers.is_empty())
    }

    /// The manifest of an index that fits this machine best; the first of those that fit as well.
    pub(crate) fn for_this_machine(&self) -> Result<&Descriptor> {
        let wanted = architecture();
        let fitting = self.manifests.iter().filter_map(|entry| Some((entry.rank()?, entry)));
        fitting.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry).ok_or_else(|| {
            let offered: Vec<String> = self.manifests.iter().flat_map(|m| &m.platform).map(ToString::to_string).collect();
            let offered = if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") };
            Error::ImagePull(format!("no match for platform linux/{wanted} in the image index: it has {offered}"))
        })
    }
}

impl ConfigFile {
    /// Decodes a configuration that is stored, and was checked before.
    pub(crate) fn stored(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| Error::ImagePull(format!("the image configuration is not valid: {error}")))
    }

    /// Decodes the configuration; `layers` is the number of layers of its manifest.
    pub(crate) fn parse(bytes: &[u8], layers: usize) -> Result<Self> {
        let file = Self::stored(bytes)?;
        let ids = &file.rootfs.diff_ids;
        if ids.len() != layers {
            let text = format!("the image configuration names {} layers, the manifest {layers}", ids.len());
            return Err(Error::ImagePull(text));
        }
        ids.iter().try_for_each(|id| check_digest(id))?;
        Ok(file)
    }
}

/// A digest names a file, so it must be nothing else than one.
pub(crate) fn check_digest(digest: &str) -> Result<()> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => Ok(()),
        _ => Err(Error::ImagePull(format!("unsupported digest {digest:?}: only sha256 is"))),
    }
}

/// The architecture of this machine, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_platform_of_this_machine_is_chosen() {
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[
                {{"digest":"a","platform":{{"os":"windows","architecture":"{0}"}}}},
                {{"digest":"b","platform":{{"os":"linux","architecture":"{0}"}}}}]}}"#,
            architecture()
        );
        assert_eq!(Manifest::parse(index.as_bytes()).unwrap().for_this_machine().unwrap().digest, "b");
        let check = |entries: &[(&str, &str)], expected: std::result::Result<&str, &str>| {
            let entries: Vec<String> = entries
                .iter()
                .map(|(digest, platform)| {
                    format!(r#"{{"digest":"{digest}","platform":{{"os":"linux","architecture":{platform}}}}}"#)
                })
                .collect();
            let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")).replace("HERE", architecture());
            let index = Manifest::parse(index.as_bytes()).unwrap();
            let chosen = index.for_this_machine().map(|entry| entry.digest.as_str()).map_err(|error| error.to_string());
            match (chosen, expected) {
                (Ok(chosen), Ok(expected)) => assert_eq!(chosen, expected),
                (Err(error), Err(text)) => assert!(error.contains(text), "{error}"),
                (chosen, _) => panic!("{chosen:?}"),
            }
        };
        // A variant that not every processor runs is not for every machine, wherever in the index it stands.
        check(&[("new", r#""HERE","variant":"v99""#), ("all", r#""HERE""#)], Ok("all"));
        check(&[("new", r#""HERE","variant":"v99""#)], Err("/v99"));
        check(&[("first", r#""HERE""#), ("second", r#""HERE""#)], Ok("first"));
        check(&[("null", r#""HERE","variant":null"#)], Ok("null"));
        check(&[], Err("it has nothing"));
        let other = br#"{"schemaVersion":2,"manifests":[{"digest":"a","platform":{"os":"linux","architecture":"vax"}}]}"#;
        let error = Manifest::parse(other).unwrap().for_this_machine().unwrap_err().to_string();
        assert!(error.contains("it has linux/vax"), "{error}");
    }

    #[test]
    fn hostile_documents() {
        let check = |text: &str| Manifest::parse(text.as_bytes()).is_ok() || ConfigFile::parse(text.as_bytes(), 0).is_ok();
        assert!(!check(&"[".repeat(100_000)));
        assert!(!check(&format!(r#"{{"schemaVersion":2,"layers":{}}}"#, "[".repeat(100_000))));
        assert!(!check(
            r#"{"schemaVersion":2,"layers":[{"digest":"a","size":-1}],"config":{"Env":{}},"rootfs":{"diff_ids":[1]}}"#
        ));
        assert!(!check(r#"{"schemaVersion":2e400,"config":5}"#));
        let many = |count: usize| format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, vec!["{}"; count].join(","));
        assert!(Manifest::parse(many(ENTRIES).as_bytes()).is_ok());
        let error = Manifest::parse(many(ENTRIES + 1).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("at most 512 descriptors"), "{error}");
        // What becomes a path is a digest and nothing else.
        let config = |id: &str| ConfigFile::parse(format!(r#"{{"rootfs":{{"diff_ids":["{id}"]}}}}"#).as_bytes(), 1).is_ok();
        assert!(config(&format!("sha256:{}", "a".repeat(64))));
        for id in ["../../../../etc", "sha256:../../x", "sha256:", "", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
            assert!(!config(id), "{id}");
        }
    }

    #[test]
    fn nulls_are_empty_and_digests_are_checked() {
        let config = br#"{"config":{"Cmd":null,"Env":["A=b"],"Volumes":{"/a":{},"/b":null}},"rootfs":{"diff_ids":null}}"#;
        let volumes = ConfigFile::parse(config, 0).unwrap().config.volumes;
        assert_eq!(volumes.into_keys().collect::<Vec<_>>(), ["/a", "/b"]);
        assert_eq!(ConfigFile::parse(config, 0).unwrap().config.env, ["A=b"]);
        assert!(ConfigFile::parse(config, 1).is_err());
        assert!(check_digest("sha256:../../x").is_err());
        assert!(check_digest(&format!("sha256:{}", "a".repeat(64))).is_ok());
    }
}
