//! OCI image layouts (OCI image specification 1.1).

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::recipes::Recipe;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CREATED: &str = "2026-01-01T00:00:00Z";

/// Writes every tag of a recipe.
pub fn write(out: &Path, recipe: &Recipe) -> Result<()> {
    let tars = recipe.layers.iter().map(|make| make()?.tar()).collect::<Result<Vec<_>>>()?;
    let diffs: Vec<_> = tars.iter().map(|tar| digest(tar)).collect();
    let layers = tars.iter().map(|tar| gzip(tar)).collect::<Result<Vec<_>>>()?;
    for tag in recipe.tags {
        let root = out.join(format!("{}_{tag}", recipe.name));
        let blobs = root.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let mut config = (recipe.config)();
        config["Env"] = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", format!("VERSION={tag}")]);
        let image = json!({
            "architecture": "amd64", "os": "linux", "created": CREATED, "config": config,
            "rootfs": {"type": "layers", "diff_ids": diffs},
            "history": layers.iter().map(|_| json!({"created": CREATED, "comment": format!("{}:{tag}", recipe.name)})).collect::<Vec<_>>(),
        });
        let config = blob(&blobs, &serde_json::to_vec(&image)?, CONFIG)?;
        let layers = layers.iter().map(|layer| blob(&blobs, layer, LAYER)).collect::<Result<Vec<_>>>()?;
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut manifest = blob(&blobs, &serde_json::to_vec(&manifest)?, MANIFEST)?;
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        // Last: a layout with an index is a complete one.
        fs::write(root.join("index.json"), serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [manifest]}))?)?;
    }
    eprintln!(
        "image {:<10} {:>6.1} MB  {}",
        recipe.name,
        layers.iter().map(Vec::len).sum::<usize>() as f64 / 1e6,
        recipe.tags.join(" ")
    );
    Ok(())
}

fn digest(data: &[u8]) -> String {
    let hex: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn blob(blobs: &Path, data: &[u8], media: &str) -> Result<Value> {
    let digest = digest(data);
    fs::write(blobs.join(digest.trim_start_matches("sha256:")), data)?;
    Ok(json!({"mediaType": media, "digest": digest, "size": data.len()}))
}

fn gzip(data: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::default());
    encoder.write_all(data)?;
    Ok(encoder.finish()?)
}
