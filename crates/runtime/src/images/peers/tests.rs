#![allow(clippy::unwrap_used)]
use futures::StreamExt;

use super::*;
use crate::images::layer::digest_of;

#[test]
fn a_layer_has_a_largest_size() {
    for (compressed, expected) in [(0, u64::MAX), (1, SMALL + 32), (1 << 20, SMALL + (32 << 20)), (u64::MAX, u64::MAX)] {
        assert_eq!(most(compressed), expected, "{compressed}");
    }
}

/// What a node does that is asked for a layer.
#[derive(Clone)]
enum Does {
    Gives(Vec<u8>),
    /// Ends in the middle.
    Dies,
    Busy,
    Refuses,
}

struct Fakes {
    nodes: BTreeMap<&'static str, Does>,
    told: Mutex<Vec<String>>,
}

#[async_trait]
impl Peers for Fakes {
    async fn holders(&self, _: &str, layers: &[String]) -> Vec<Vec<Arc<str>>> {
        layers.iter().map(|_| self.nodes.keys().map(|node| Arc::from(*node)).collect()).collect()
    }

    async fn layer(&self, node: &str, _: &str) -> std::result::Result<LayerStream, PeerError> {
        let pieces = match self.nodes[node].clone() {
            Does::Busy => return Err(PeerError::Busy),
            Does::Refuses => return Err(PeerError::Failed("refused".to_owned())),
            Does::Gives(data) => vec![Ok(Bytes::from(data))],
            Does::Dies => vec![Ok(Bytes::from_static(&[0; 512])), Err(io::ErrorKind::UnexpectedEof.into())],
        };
        Ok(futures::stream::iter(pieces).boxed())
    }

    fn told(&self, node: &str, outcome: Outcome) {
        let taken = outcome == Outcome::Taken;
        self.told.lock().push(format!("{node} {}", if taken { "taken" } else { "failed" }));
    }

    async fn imported(&self, _: &str) -> Option<(Arc<str>, Bytes)> {
        None
    }
}

/// An empty archive: what can be unpacked without root.
const TAR: [u8; 1024] = [0; 1024];

async fn check(nodes: &[(&'static str, Does)], failures: usize, (used, told): (Option<&str>, &[&str])) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path(), true).unwrap());
    let id = digest_of(&TAR);
    let _pins = store.pin(std::slice::from_ref(&id));
    let fakes = Arc::new(Fakes { nodes: nodes.iter().cloned().collect(), told: Mutex::default() });
    let peers: Arc<dyn Peers> = fakes.clone();
    let sources = Sources::of(Some(&peers), "x:1", vec![id.clone()], failures).await;
    let size = sources.layer(&store, &id, most(1), |_| ()).await;
    assert_eq!(*fakes.told.lock(), told);
    assert_eq!(sources.used(), used.into_iter().collect::<Vec<_>>());
    assert_eq!((size.is_some(), store.layer_size(&id).is_some()), (used.is_some(), used.is_some()));
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn one_failure_is_enough_and_no_wrong_byte_is_kept() {
    let good = || Does::Gives(TAR.to_vec());
    let other = || Does::Gives([1; 1024].to_vec());
    check(&[("n1", good()), ("n2", other())], 1, (Some("n1"), &["n1 taken"])).await;
    check(&[("n1", other()), ("n2", good())], 1, (None, &["n1 failed"])).await;
    check(&[("n1", Does::Gives([TAR, TAR].concat())), ("n2", good())], 1, (None, &["n1 failed"])).await;
    check(&[("n1", Does::Gives(vec![0; (SMALL + 64) as usize]))], 1, (None, &["n1 failed"])).await;
    check(&[("n1", Does::Dies), ("n2", good())], 1, (None, &["n1 failed"])).await;
    check(&[("n1", Does::Refuses)], 1, (None, &["n1 failed"])).await;
    // A node that has too much to do has not failed.
    check(&[("n1", Does::Busy), ("n2", good())], 1, (Some("n2"), &["n2 taken"])).await;
    check(&[("n1", Does::Busy)], 1, (None, &[])).await;
    // No registry has the image: the next node is asked.
    check(&[("n1", Does::Dies), ("n2", good())], usize::MAX, (Some("n2"), &["n1 failed", "n2 taken"])).await;
}
