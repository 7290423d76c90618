//! Which crate may use which: downward only, and the store belongs to the API server alone.

use serde_json::Value;

/// Every crate of the workspace with those it may depend on, from the bottom up. Uses go to entries above only.
const LAYERS: &[(&str, &[&str])] = &[
    ("signatures", &[]),
    ("base", &["signatures"]),
    ("grpc", &["base"]),
    ("csi", &["grpc"]),
    ("fuzz", &[]),
    ("schema", &[]),
    ("codec", &[]),
    ("apimachinery", &["schema"]),
    ("cel", &["apimachinery"]),
    ("structural", &["apimachinery", "cel", "schema"]),
    ("pods", &["apimachinery", "schema", "codec"]),
    ("store", &["base"]),
    ("streaming", &["base"]),
    ("kinds", &["apimachinery", "cel", "schema", "codec", "structural", "pods", "signatures"]),
    ("client", &["base", "codec"]),
    ("ctl", &["base", "apimachinery", "structural", "streaming"]),
    ("registry", &["base", "schema", "apimachinery", "structural", "store", "kinds"]),
    (
        "apiserver",
        &["base", "signatures", "schema", "codec", "apimachinery", "cel", "pods", "store", "streaming", "kinds", "registry"],
    ),
    ("controllers", &["base", "codec", "apimachinery", "pods", "client"]),
    ("hollow", &["base", "pods", "client", "controllers"]),
    ("scheduler", &["base", "apimachinery", "cel", "pods", "client"]),
    ("runtime", &["base", "pods"]),
    ("cri", &["base", "grpc", "streaming", "runtime"]),
    ("kubelet", &["base", "codec", "apimachinery", "pods", "streaming", "kinds", "client", "grpc", "csi", "runtime"]),
    ("network", &["base", "apimachinery", "client"]),
    ("dns", &["base", "client"]),
    ("ingress", &["base", "codec", "apimachinery", "client"]),
    ("testing", &["base", "client", "network", "dns", "ingress"]),
    ("simulator", &["base", "store", "client", "registry", "apiserver", "controllers", "scheduler"]),
    ("knarr", &["*"]),
    ("xtask", &[]),
];

/// Complaints about dependencies inside the workspace, and about crates that the list does not know.
pub fn check(metadata: &Value) -> Vec<String> {
    let mut complaints = order(LAYERS);
    for package in super::packages::members(metadata) {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            complaints.push(format!("crate {name} is missing from LAYERS in xtask/src/tidy/layers.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let (target, dev) = (dependency["name"].as_str().unwrap_or_default(), dependency["kind"] == "dev");
            let ours = dependency["path"].is_string();
            let free = allowed.contains(&"*") || allowed.contains(&target) || (dev && matches!(target, "testing" | "fuzz"));
            if ours && !free {
                complaints.push(format!("crate {name} may not depend on {target}: see LAYERS in xtask/src/tidy/layers.rs"));
            }
        }
    }
    complaints
}

/// An entry may name only what stands above it.
fn order(layers: &[(&str, &[&str])]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, (name, uses)) in layers.iter().enumerate() {
        let above = |target: &str| target == "*" || layers[..index].iter().any(|(layer, _)| *layer == target);
        complaints
            .extend(uses.iter().filter(|target| !above(target)).map(|target| format!("LAYERS: {name} uses {target} from below")));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_points_upward() {
        assert_eq!(order(LAYERS), Vec::<String>::new());
        assert_eq!(order(&[("a", &["b"]), ("b", &[])]), ["LAYERS: a uses b from below"]);
    }
}
