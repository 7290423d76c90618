//! PodMetrics: what the containers of a pod use.

use apimachinery::quantity::Format;
use serde::Deserialize;

use super::{USAGE, Usage, WINDOW, total};
use crate::columns::Column;
use crate::def::{Computed, KindDef};
use crate::typed::Kind;

/// The part of the object that is shown.
#[derive(Deserialize)]
pub(crate) struct PodMetrics {
    window: String,
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    usage: Usage,
}

impl PodMetrics {
    fn usages(&self) -> impl Iterator<Item = &Usage> {
        self.containers.iter().map(|container| &container.usage)
    }
}

codec::decode!(PodMetrics);

impl Kind for PodMetrics {
    const DEF: KindDef = KindDef::new("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", "").computed(Computed::Usage);

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::NAME,
                Column::new("CPU", USAGE, |pod, _| total(pod.usages(), "cpu", Format::DecimalSi)),
                Column::new("Memory", USAGE, |pod, _| total(pod.usages(), "memory", Format::BinarySi)),
                Column::new("Window", WINDOW, |pod, _| pod.window.as_str().into()),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::Strategy;
    use crate::typed::Typed;
    use serde_json::json;

    #[test]
    fn a_row_is_the_sum_of_the_containers() {
        let pod = json!({"metadata": {"name": "p"}, "window": "15s", "containers": [
            {"name": "a", "usage": {"cpu": "1500000n", "memory": "1024Ki"}},
            {"name": "b", "usage": {"cpu": "8500000n", "memory": "2048Ki"}}]});
        let row = Typed::<PodMetrics>::new().row(&pod, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row, [json!("p"), json!("10m"), json!("3Mi"), json!("15s")]);
    }
}
