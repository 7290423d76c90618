//! Four ways to a new version.

use testing::Cluster;

use crate::{KNARR, load, reader, unnoticed};

#[test]
fn deployments() {
    let c = Cluster::start(KNARR);
    let mut reader = reader(&c, "deployments");
    reader.section("Rolling update");
    let web = load(&c, "web", 200);
    reader.section("A new version");
    reader.section("Back to the old one");
    unnoticed(&web.stop(), 200);

    let pods = c.background(
        "get pods -l app=ledger --watch --output-watch-events \
         -o jsonpath={.type}/{.object.metadata.name}/{.object.status.phase}/{.object.spec.containers[0].image}{\"\\n\"}",
    );
    reader.section("Recreate");
    never_two_versions(|| pods.line("/ledger-"));
    drop(pods);

    reader.section("Blue and green");
    // The switch is over in a moment: many requests have to meet it.
    let shop = load(&c, "shop", 500);
    reader.section("The switch");
    unnoticed(&shop.stop(), 50);
    reader.finish();
}

/// Follows what becomes of pods until two of the new version are there. A pod whose containers have all ended runs nothing any more, whether or
/// not it is there still (the Deployment's page: "All existing Pods are killed before new ones are created").
fn never_two_versions(mut line: impl FnMut() -> String) {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    while new.len() < 2 {
        let line = line();
        let [change, pod, phase, image] = line.splitn(4, '/').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let version = if image.ends_with(":1.27") { &mut old } else { &mut new };
        match (change, phase) {
            ("DELETED", _) | (_, "Succeeded" | "Failed") => version.retain(|known| known != pod),
            _ if version.iter().any(|known| known == pod) => {}
            _ => version.push(pod.to_owned()),
        }
        assert!(old.is_empty() || new.is_empty(), "old {old:?} beside new {new:?} at {line}");
    }
}
