//! NodeMetrics: what a node uses.

use apimachinery::quantity::Format;
use serde::Deserialize;

use super::{USAGE, Usage, WINDOW, total};
use crate::columns::Column;
use crate::def::{Computed, KindDef};
use crate::typed::Kind;

/// The part of the object that is shown.
#[derive(Deserialize)]
pub(crate) struct NodeMetrics {
    window: String,
    usage: Usage,
}

codec::decode!(NodeMetrics);

impl Kind for NodeMetrics {
    const DEF: KindDef =
        KindDef::new("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", "").cluster().computed(Computed::Usage);

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::NAME,
                Column::new("CPU", USAGE, |node, _| total([&node.usage], "cpu", Format::DecimalSi)),
                Column::new("Memory", USAGE, |node, _| total([&node.usage], "memory", Format::BinarySi)),
                Column::new("Window", WINDOW, |node, _| node.window.as_str().into()),
            ]
        }
    }
}
