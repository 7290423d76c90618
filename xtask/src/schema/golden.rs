//! Collects upstream's golden vectors: every kind of the table, fully populated, as JSON and as protobuf.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::packages::Source;
use super::table::Type;

/// `GROUP/VERSION/KIND` to `{"json": object, "pb": base64}`, as JSON text.
pub(crate) fn collect(root: &Path, source: &Source, types: &[Type]) -> Result<String> {
    let mut vectors = BTreeMap::new();
    for ty in types.iter().filter(|ty| ty.kind) {
        let group = &source.package(&ty.dir)?.group;
        let version = ty.dir.rsplit('/').next().unwrap_or_default();
        let dir = if group.is_empty() { "core" } else { group };
        let home =
            if ty.dir.starts_with("api/") { "api/testdata/HEAD" } else { "apiextensions-apiserver/pkg/apis/testdata/HEAD" };
        let stem = root.join(home).join(format!("{dir}.{version}.{}", ty.go));
        let (json, pb) = (stem.with_extension(format!("{}.json", ty.go)), stem.with_extension(format!("{}.pb", ty.go)));
        if !json.exists() {
            continue;
        }
        let object: Value = serde_json::from_slice(&fs::read(&json)?).with_context(|| json.display().to_string())?;
        let pb = fs::read(&pb).with_context(|| pb.display().to_string())?;
        vectors.insert(format!("{group}/{version}/{}", ty.go), json!({"json": object, "pb": STANDARD.encode(pb)}));
    }
    Ok(serde_json::to_string(&vectors)?)
}
