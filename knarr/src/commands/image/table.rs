//! How images are shown.

use serde_json::{Value, json};

use crate::images::Entry;

/// What an image is called: by its tags, else by its digest.
pub(super) fn name(image: &Entry) -> String {
    match (image.repo_tags.is_empty(), image.repo_digests.first()) {
        (false, _) => image.repo_tags.join(", "),
        (true, Some(digest)) => digest.clone(),
        (true, None) => "<none>".to_owned(),
    }
}

/// Bytes for people, in powers of a thousand as docker has them.
pub(super) fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" || value >= 100.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// A line for each name of each image, with its node where there are several.
pub(super) fn table(images: &[(String, Entry)], is_of_several: bool) -> String {
    let mut rows = vec![["NODE", "IMAGE", "IMAGE ID", "SIZE", "PODS"].map(str::to_owned)];
    for (node, image) in images {
        let id = image.id.trim_start_matches("sha256:");
        let id = id.get(..12).unwrap_or(id);
        let names = if image.repo_tags.is_empty() { vec![name(image)] } else { image.repo_tags.clone() };
        rows.extend(
            names.into_iter().map(|name| [node.clone(), name, id.to_owned(), size(image.size), image.pods.len().to_string()]),
        );
    }
    rows[1..].sort();
    let shown = if is_of_several { 0.. } else { 1.. };
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 5]| {
        let cells = row[shown.clone()].iter().zip(&widths[shown.clone()]).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// All images, each with its node, under the names of the Container Runtime Interface.
pub(super) fn document(images: &[(String, Entry)]) -> Value {
    let image = |(node, entry): &(String, Entry)| {
        let mut value = json!(entry);
        value["node"] = json!(node);
        value
    };
    json!({"images": images.iter().map(image).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, expected) in
            [(0, "0 B"), (999, "999 B"), (4_200, "4.2 kB"), (128_400_000, "128 MB"), (1_500_000_000, "1.5 GB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn tables_and_documents() {
        let id = format!("sha256:{}", "ab".repeat(32));
        let image = Entry {
            id: id.clone(),
            repo_tags: vec!["docker.io/library/b:1".to_owned(), "docker.io/library/a:1".to_owned()],
            size: 4_200_000,
            pods: ["n/p".to_owned()].into(),
            ..Entry::default()
        };
        let nameless = Entry { id, repo_digests: vec!["r.io/x@sha256:1".to_owned()], ..Entry::default() };
        let one = [("n1".to_owned(), image.clone())];
        let text = "IMAGE                   IMAGE ID       SIZE     PODS\n\
                    docker.io/library/a:1   abababababab   4.2 MB   1\n\
                    docker.io/library/b:1   abababababab   4.2 MB   1\n";
        assert_eq!(table(&one, false), text);
        let text = "NODE   IMAGE             IMAGE ID       SIZE   PODS\n\
                    n2     r.io/x@sha256:1   abababababab   0 B    0\n";
        assert_eq!(table(&[("n2".to_owned(), nameless)], true), text);
        let value = document(&one);
        assert_eq!(value["images"][0]["node"], "n1");
        assert_eq!(value["images"][0]["repoTags"][0], "docker.io/library/b:1");
        assert_eq!(value["images"][0]["pods"][0], "n/p");
    }
}
