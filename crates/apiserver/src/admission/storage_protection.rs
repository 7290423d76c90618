//! StorageObjectInUseProtection: claims and volumes get the finalizer that keeps them as long as they are used.

use apimachinery::{Status, meta};
use async_trait::async_trait;
use registry::{Admission, Operation, Request};

use super::is;

/// Resources of the core group whose finalizers a controller takes away again.
const FINALIZERS: [(&str, &str); 2] =
    [("persistentvolumes", "kubernetes.io/pv-protection"), ("persistentvolumeclaims", "kubernetes.io/pvc-protection")];

pub(super) struct StorageObjectInUseProtection;

fn finalizer(a: &Request<'_>) -> Option<&'static str> {
    FINALIZERS.iter().find(|(plural, _)| is(a, "", plural)).map(|(_, finalizer)| *finalizer)
}

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        a.operation == Operation::Create && a.subresource.is_empty() && finalizer(a).is_some()
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        if let Some(finalizer) = finalizer(a)
            && let Some(object) = a.object_mut()
        {
            meta::add_finalizer(object, finalizer);
        }
        Ok(())
    }
}
