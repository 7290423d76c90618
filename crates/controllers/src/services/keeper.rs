//! Keeps the slices of services that one controller manages: reading, writing, and waiting for its own writes.

use std::sync::Arc;

use client::{Index, Informer, Informers, Key};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::slices::{self, Change, Frame, Group, MANAGED_BY, SERVICE_NAME};
use super::triggers;
use crate::controller::{Cx, Error, Source};
use crate::expectations::Expectations;
use crate::meta;
use crate::namespace::tolerate;

pub(super) struct Keeper {
    slices: Informer<EndpointSlice>,
    of_service: Index<EndpointSlice>,
    expectations: Expectations,
    manager: &'static str,
}

fn label<'a>(slice: &'a EndpointSlice, key: &str) -> Option<&'a str> {
    slice.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

impl Keeper {
    /// For slices with this value of the label that names their manager.
    pub(super) fn new(informers: &Informers, manager: &'static str) -> Self {
        let slices = informers.of();
        Self { of_service: slices::by_service(&slices), slices, expectations: Expectations::default(), manager }
    }

    /// Enqueues the service of every slice.
    pub(super) fn source(&self) -> Source {
        let manager = self.manager;
        Source::mapped(&self.slices, move |change, queue| {
            for slice in [&change.old, &change.new].into_iter().flatten() {
                if let Some(service) = label(slice, SERVICE_NAME).filter(|_| label(slice, MANAGED_BY) == Some(manager)) {
                    queue.add(Key { namespace: change.key.namespace.clone(), name: service.to_owned() });
                }
            }
        })
    }

    /// Whether the cache shows everything that was written for `service`.
    pub(super) fn is_current(&self, service: &Key) -> bool {
        self.expectations.seen(service, &self.slices)
    }

    /// Forgets a service that is gone.
    pub(super) fn forget(&self, service: &Key) {
        self.expectations.forget(service);
    }

    fn of(&self, service: &Key) -> Vec<Arc<EndpointSlice>> {
        let ours = |slice: &Arc<EndpointSlice>| label(slice, MANAGED_BY) == Some(self.manager) && !meta::ends(slice.as_ref());
        self.of_service.get(&service.to_string()).into_iter().filter(ours).collect()
    }

    /// Makes the slices hold `groups` (by address type), or removes them without `wanted`. What is written says since when
    /// the world has been so, `trigger`.
    pub(super) async fn keep(
        &self,
        cx: &Cx,
        service: &Key,
        wanted: Option<(Frame, std::collections::BTreeMap<&str, Vec<Group>>)>,
        trigger: Option<jiff::Timestamp>,
    ) -> Result<(), Error> {
        let existing = self.of(service);
        let mut changes = match wanted {
            Some((frame, groups)) => slices::plan(&frame, &existing, groups),
            None => existing.iter().map(|slice| Change::Delete(Box::new(slice.as_ref().clone()))).collect(),
        };
        for change in &mut changes {
            if let Change::Create(slice) | Change::Update(slice) = change {
                triggers::annotate(&mut slice.metadata, trigger);
            }
        }
        let created = |slice: &EndpointSlice| self.expectations.written(service, slice);
        let deleted = |slice: &EndpointSlice| self.expectations.deleted(service, Key::of(slice), meta::uid(slice));
        match slices::apply(cx, service.ns(), changes, created, deleted).await {
            Err(Error::Api(error)) => tolerate::<()>(Err(error)),
            other => other,
        }
    }
}
