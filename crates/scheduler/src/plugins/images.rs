//! Prefers nodes that have the pod's images, the larger the better, but not so that all pods run after one image.

use crate::attempt::Attempt;
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{MAX_SCORE, Plugin, Score};
use crate::pod::PodInfo;

const MB: i64 = 1024 * 1024;
/// Below this nothing is gained; above it, for each image, nothing more.
const MIN: i64 = 23 * MB;
const MAX_PER_IMAGE: i64 = 1000 * MB;

pub(super) struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn score<'a>(
        &self,
        pod: &'a PodInfo,
        cluster: &'a Cluster,
        _: &'a Attempt,
        nodes: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        if nodes.len() < 2 {
            return None;
        }
        let spec = pod.spec()?;
        let containers = pods::containers(spec).filter_map(|one| one.image.as_deref());
        // Images that are mounted count as those that run (KEP-4639).
        let volumes = spec.volumes.iter().flatten().filter_map(|volume| volume.image.as_ref()?.reference.as_deref());
        let images: Vec<String> = containers.chain(volumes).map(normalized).collect();
        let total = cluster.len().max(1);
        let known: Vec<(String, f64)> = images
            .iter()
            .filter_map(|name| {
                let nodes = *cluster.image_nodes.get(name)?;
                Some((name.clone(), nodes as f64 / total as f64))
            })
            .collect();
        let wanted = i64::try_from(images.len()).unwrap_or(1);
        (!known.is_empty()).then(|| Box::new(Images { known, wanted }) as Box<dyn Score>)
    }
}

struct Images {
    /// With the share of nodes that have it.
    known: Vec<(String, f64)>,
    /// How many images the pod has.
    wanted: i64,
}

impl Score for Images {
    fn score(&self, node: &NodeInfo) -> i64 {
        let sizes = self.known.iter().filter_map(|(name, share)| Some(*node.images.get(name)? as f64 * share));
        let max = MAX_PER_IMAGE * self.wanted;
        let sum = (sizes.sum::<f64>() as i64).clamp(MIN, max);
        MAX_SCORE * (sum - MIN) / (max - MIN)
    }
}

/// With the tag that an image without one has.
fn normalized(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || name.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}
