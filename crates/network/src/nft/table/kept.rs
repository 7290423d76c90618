//! The table of an earlier process, which is kept until all that it served is known again. While the server is away that takes long, and static pods start meanwhile.

use std::collections::BTreeMap;

use super::batch::Op;
use super::{Family, Inner, send};
use crate::nft::contents::Delta;

/// What the owners begin with that have what they contribute in a kept table, too: it is the node's own to say.
const PODS: &str = "pod:";

impl Inner {
    /// Adds to a kept table what pods contribute: the addresses that they send with, without which it drops their frames, and their host ports. What goes, goes with that table.
    pub(super) fn lend(&mut self, owners: &[String], deltas: &BTreeMap<Family, Delta>) {
        if self.held.is_empty() || !owners.iter().all(|owner| owner.starts_with(PODS)) {
            return;
        }
        for (family, delta) in deltas.iter().filter(|(family, _)| self.families.contains(family)) {
            for (set, elements) in &delta.add {
                let ops = [(*family, vec![Op::Lend { set: *set, elements: elements.clone() }])];
                // Each set by itself: one that another version has not, or has otherwise, takes nothing from the others.
                if let Err(error) = send(&mut self.socket, &self.name, &ops) {
                    tracing::warn!(
                        table = %self.name, %set, %error,
                        "the rules of an earlier process do not take what pods need that start before the server answers"
                    );
                }
            }
        }
    }
}
