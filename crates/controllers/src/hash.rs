//! The hash that tells the templates of a workload apart: in names of replica sets and controller revisions.
//!
//! Upstream hashes a dump of Go structures; this hashes the JSON of the template. The values differ, which nobody can
//! see: sets and revisions are found by their template, and the hash only has to be stable and distinct.

use codec::Encode;
use k8s_openapi::api::core::v1::PodTemplateSpec;

/// No vowels and nothing that looks like another character, as upstream encodes.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The value of the labels `pod-template-hash` and `controller-revision-hash`; `collisions` with other templates make it another.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut hash = Fnv::default();
    // Maps are sorted and writing to memory cannot fail: the same template gives the same bytes.
    hash.write(&template.to_json().unwrap_or_default());
    if collisions > 0 {
        hash.write(&collisions.to_le_bytes());
    }
    hash.0.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// The name of what `owner` has for a template: so much of the owner's name as `most` bytes of it leave room for, and the hash. A name that is cut
/// must not end with a dot before the dash, which no name has.
pub(crate) fn name_with_hash(owner: &str, most: usize, hash: &str) -> String {
    let cut = &owner[..owner.floor_char_boundary(most)];
    let kept = if cut.len() < owner.len() { cut.trim_end_matches('.') } else { cut };
    format!("{kept}-{hash}")
}

/// FNV-1a, 32 bits.
struct Fnv(u32);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn is_stable_and_tells_templates_and_collisions_apart() {
        let template = |image: &str| -> PodTemplateSpec {
            serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "image": image}]}})).unwrap()
        };
        let a = template_hash(&template("a"), 0);
        assert_eq!(a, template_hash(&template("a"), 0));
        assert!(a.len() <= 10 && a.bytes().all(|byte| ALPHABET.contains(&byte)));
        assert_ne!(a, template_hash(&template("b"), 0));
        assert_ne!(a, template_hash(&template("a"), 1));
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(name_with_hash("web", 3, "h"), "web-h");
        assert_eq!(name_with_hash("website", 3, "h"), "web-h");
        assert_eq!(name_with_hash("we.bsite", 3, "h"), "we-h");
    }
}
