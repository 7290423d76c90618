//! Admission plugins, in upstream's order.

use std::sync::Arc;

use registry::Admission;

use crate::authz::{Authorizer, EscalationCheck};

/// The list of plugins. Order matters: mutation happens in it.
pub fn all(authorizer: &Arc<Authorizer>) -> Vec<Box<dyn Admission>> {
    vec![Box::new(EscalationCheck::new(authorizer.clone()))]
}
