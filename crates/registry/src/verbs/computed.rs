//! Objects that are computed when they are read, and kept nowhere: they are selected and shown like any others.

use std::sync::Arc;

use apimachinery::Status;
use serde_json::Value;

use super::list::Selection;
use crate::{Entry, List, ListOptions, Registry, Served};

impl Registry {
    /// A computed object as it is shown.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn computed_one(&self, res: &Served, object: &Value) -> Result<Entry, Status> {
        res.compute(object, self.revision()).map_err(Status::internal)
    }

    /// A list of those of the computed `objects` that the options select.
    ///
    /// # Errors
    /// The field selector names what is no field.
    pub fn computed(
        &self,
        res: &Served,
        namespace: Option<&str>,
        options: &ListOptions,
        objects: impl IntoIterator<Item = Value>,
    ) -> Result<List, Status> {
        let (selection, revision) = (Selection::new(res, namespace, options)?, self.revision());
        let entries = objects.into_iter().map(|object| res.compute(&object, revision).map(Arc::new).map_err(Status::internal));
        let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
        entries.retain(|entry| selection.selects(entry));
        entries.sort_by(|a, b| a.index.path().cmp(b.index.path()));
        Ok(List { entries, revision, ..List::default() })
    }
}
