//! What the rules for a part of a pod need to know of the whole.

use std::collections::HashMap;

use apimachinery::field::Path;
use k8s_openapi::api::core::v1::{PodSpec, SecurityContext, Volume, VolumeDevice};

use crate::rules::{list, text};

/// What [`AnyContainer`] has of a container.
type Parts<'a> = (&'a String, &'a Option<SecurityContext>, &'a Option<Vec<VolumeDevice>>);

/// A pod's spec and facts derived from it.
pub(super) struct Scope<'a> {
    pub(super) spec: &'a PodSpec,
    /// Name of the pod; none for a template.
    pub(super) name: Option<&'a str>,
    /// Volumes that are right in themselves, by name. Filled by the rules for volumes.
    pub(super) volumes: HashMap<&'a str, &'a Volume>,
}

/// A container of any list, as far as rules for all of them go.
pub(super) struct AnyContainer<'a> {
    /// Field of the spec that lists it.
    pub(super) list: &'static str,
    pub(super) index: usize,
    pub(super) name: &'a str,
    pub(super) security: Option<&'a SecurityContext>,
    /// Volumes that it gets as devices.
    pub(super) devices: &'a [VolumeDevice],
}

impl AnyContainer<'_> {
    /// Its path below that of the spec.
    pub(super) fn path(&self, spec: &Path) -> Path {
        spec.child(self.list).index(self.index)
    }
}

impl<'a> Scope<'a> {
    pub(super) fn new(spec: &'a PodSpec, name: Option<&'a str>) -> Self {
        Self { spec, name, volumes: HashMap::new() }
    }

    /// Whether it is a pod and not a template.
    pub(super) fn is_pod(&self) -> bool {
        self.name.is_some()
    }

    pub(super) fn host_users(&self) -> bool {
        self.spec.host_users != Some(false)
    }

    pub(super) fn host_network(&self) -> bool {
        self.spec.host_network == Some(true)
    }

    pub(super) fn restart_policy(&self) -> &'a str {
        text(&self.spec.restart_policy)
    }

    /// Init containers, containers, ephemeral containers.
    pub(super) fn all(&self) -> impl Iterator<Item = AnyContainer<'a>> + use<'a> {
        let spec = self.spec;
        let init = list(&spec.init_containers).iter().map(|c| (&c.name, &c.security_context, &c.volume_devices)).enumerate();
        let main = spec.containers.iter().map(|c| (&c.name, &c.security_context, &c.volume_devices)).enumerate();
        let ephemeral = list(&spec.ephemeral_containers).iter();
        let ephemeral = ephemeral.map(|c| (&c.name, &c.security_context, &c.volume_devices)).enumerate();
        let named = |list| {
            move |(index, (name, security, devices)): (usize, Parts<'a>)| AnyContainer {
                list,
                index,
                name: name.as_str(),
                security: security.as_ref(),
                devices: devices.as_deref().unwrap_or_default(),
            }
        };
        init.map(named("initContainers")).chain(main.map(named("containers"))).chain(ephemeral.map(named("ephemeralContainers")))
    }
}
