//! The table of an earlier process, which is kept until all that it served is known again. While the server is away that takes long, and static pods start meanwhile.

use std::collections::BTreeMap;

use nix::errno::Errno;

use super::batch::Op;
use super::{Family, Inner, send};
use crate::netlink::Error;
use crate::nft::batch::Pair;
use crate::nft::contents::Delta;
use crate::nft::set::SetId;

/// What the owners begin with that have what they contribute in a kept table, too: it is the node's own to say.
const PODS: &str = "pod:";

impl Inner {
    /// Adds to a kept table what pods contribute: the addresses that they send with, without which it drops their frames, and their host ports. What goes, goes with that table.
    pub(super) fn lend(&mut self, owners: &[String], deltas: &BTreeMap<Family, Delta>) {
        if self.held.is_empty() || !owners.iter().all(|owner| owner.starts_with(PODS)) {
            return;
        }
        for (family, delta) in deltas {
            if !self.families.contains(family) {
                continue;
            }
            for (set, elements) in &delta.add {
                // Each set by itself: one that another version has not, or has otherwise, takes nothing from the others.
                if let Err(error) = self.lend_to(*family, *set, elements) {
                    tracing::warn!(
                        table = %self.name, %set, %error,
                        "the rules of an earlier process do not take what pods need that start before the server answers"
                    );
                }
            }
        }
    }

    /// Adds elements to a set of the kept table. A host port that led to a pod which is gone leads to the new one from then on.
    fn lend_to(&mut self, family: Family, set: SetId, elements: &[Pair]) -> Result<(), Error> {
        let mut send = |ops: Vec<Op>| send(&mut self.socket, &self.name, &[(family, ops)]);
        let lend = |elements: &[Pair]| Op::Lend { set, elements: elements.to_vec() };
        let lent = send(vec![lend(elements)]);
        if !lent.as_ref().is_err_and(has_another_value) {
            return lent;
        }
        // One of them, or several, have another value there.
        let mut result = Ok(());
        for element in elements {
            let lent = match send(vec![lend(std::slice::from_ref(element))]) {
                Err(error) if has_another_value(&error) => {
                    let former = Op::Remove { set, keys: vec![element.0.clone()] };
                    send(vec![former, lend(std::slice::from_ref(element))])
                }
                lent => lent,
            };
            result = result.and(lent);
        }
        result
    }
}

/// Whether a map has the key of an element with another value.
fn has_another_value(error: &Error) -> bool {
    // Which of them is said depends on the kernel.
    matches!(error.errno(), Some(Errno::EEXIST | Errno::EBUSY))
}
