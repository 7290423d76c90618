//! Which devices there are and who has them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use csi::devices::{self as protocol, ContainerAllocateResponse, DevicePluginOptions, Plugin};

use crate::affinity::{self, Hint, Mask};

/// Most resources that plugins may name, and most of those that are forgotten before the API has been told.
const RESOURCES: usize = 256;
/// Most devices of a resource.
const DEVICES: usize = 16_384;

/// How much of a resource there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// All devices.
    pub capacity: usize,
    /// Those that are healthy.
    pub allocatable: usize,
}

/// How much there is of each resource of device plugins; none of one that has been forgotten.
pub type Amounts = BTreeMap<String, Option<Amount>>;

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// Pods may get it.
    pub(super) healthy: bool,
    /// NUMA nodes that it is at.
    pub(super) nodes: Vec<i64>,
}

impl Device {
    /// Whether it is at one of these NUMA nodes.
    fn is_at(&self, mask: Mask) -> bool {
        self.nodes.iter().any(|node| u32::try_from(*node).is_ok_and(|node| mask.has(node)))
    }
}

/// A plugin that answers.
#[derive(Clone, Debug)]
pub(super) struct Connected {
    /// Who is asked.
    pub(super) plugin: Plugin,
    /// What it wants to be asked.
    pub(super) options: DevicePluginOptions,
}

#[derive(Debug, Default)]
struct Resource {
    /// Number of the plugin that the resource is of: the next one has another.
    serial: u64,
    /// A plugin has it, has had it a moment ago, or is about to say what it has.
    is_awaited: bool,
    plugin: Option<Connected>,
    /// The plugin wants to be asked before a container starts; what the last one wanted, while there is none.
    pre_start: bool,
    devices: BTreeMap<String, Device>,
}

/// Who has devices of which resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// UID of the pod.
    pub uid: String,
    /// Name of the container.
    pub container: String,
    /// The resource.
    pub resource: String,
}

/// What an owner has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Assignment {
    /// Identifiers of the devices.
    pub(super) devices: BTreeSet<String>,
    /// What comes with them; none while the plugin is asked.
    pub(super) response: Option<ContainerAllocateResponse>,
}

/// Why a container does not get its devices, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// None is healthy.
    #[error("no healthy devices present; cannot allocate unhealthy devices {0}")]
    Unhealthy(String),
    /// They will be free when others have ended.
    #[error("devices of {0} are not free before pods have ended that are on their way out")]
    Later(String),
    /// There are fewer.
    #[error("requested number of devices unavailable for {resource}. Requested: {needed}, Available: {available}")]
    TooFew {
        /// The resource.
        resource: String,
        /// How many are asked for.
        needed: usize,
        /// How many there are.
        available: usize,
    },
    /// The container has another number of them.
    #[error("pod {uid:?} container {container:?} changed request for resource {resource:?} from {had} to {wants}", uid = owner.uid,
        container = owner.container, resource = owner.resource)]
    Changed {
        /// Which container.
        owner: Owner,
        /// How many it has.
        had: usize,
        /// How many it asks for.
        wants: usize,
    },
}

/// Why a plugin is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{RESOURCES} resources have been registered on this node, more are not taken")]
pub struct TooMany;

/// Why a container does not start: what its plugin does before, such as to reset a device, would be left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device plugin of {0} is not there, which is to be asked before a container starts")]
pub(super) struct Away(String);

/// Why a plugin's list is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plugin has more than {DEVICES} devices")]
pub(super) struct TooLong;

/// What an owner may still get.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Whom to ask.
    pub(super) plugin: Connected,
    /// Devices that can be had, those of `included` as well.
    pub(super) available: Vec<String>,
    /// Devices of init containers that have ended before this one starts: it gets them first.
    pub(super) included: Vec<String>,
}

/// The devices of a node.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    resources: BTreeMap<String, Resource>,
    held: BTreeMap<Owner, Assignment>,
    /// Pods on their way out that have something, by UID.
    leaving: BTreeSet<String>,
    serials: u64,
    /// Resources that have made room for others, and that the API may still show.
    forgotten: BTreeSet<String>,
}

impl Inventory {
    /// What was written down: resources without devices until their plugins are back, each with whether its plugin wants to be asked before a container
    /// starts; and assignments.
    pub(super) fn found(resources: impl IntoIterator<Item = (String, bool)>, held: BTreeMap<Owner, Assignment>) -> Self {
        let resource = |(name, pre_start)| (name, Resource { pre_start, ..Resource::default() });
        let resources = resources.into_iter().map(resource).collect();
        Self { resources, held, ..Self::default() }
    }

    /// A plugin is about to be followed; gives its number. Devices of the one before it stay until it has said which it has.
    pub(super) fn expect(&mut self, name: &str) -> Result<u64, TooMany> {
        if !self.resources.contains_key(name) && self.resources.len() >= RESOURCES {
            self.forget_one()?;
        }
        self.forgotten.remove(name);
        self.serials += 1;
        let resource = self.resources.entry(name.to_owned()).or_default();
        (resource.serial, resource.is_awaited) = (self.serials, true);
        Ok(self.serials)
    }

    /// Forgets a resource that is gone: no plugin has it or is about to, none of its devices is counted any more, and nobody has one.
    fn forget_one(&mut self) -> Result<(), TooMany> {
        let is_held = |name: &String| self.held.keys().any(|owner| owner.resource == *name);
        let is_gone =
            |(name, resource): &(&String, &Resource)| !resource.is_awaited && resource.devices.is_empty() && !is_held(name);
        let gone = self.resources.iter().find(is_gone).map(|(name, _)| name.clone());
        let gone = gone.filter(|_| self.forgotten.len() < RESOURCES).ok_or(TooMany)?;
        self.resources.remove(&gone);
        self.forgotten.insert(gone);
        Ok(())
    }

    /// The API shows no more what was forgotten.
    pub(super) fn told<'a>(&mut self, forgotten: impl IntoIterator<Item = &'a String>) {
        for name in forgotten {
            self.forgotten.remove(name);
        }
    }

    fn of(&mut self, name: &str, serial: u64) -> Option<&mut Resource> {
        self.resources.get_mut(name).filter(|resource| resource.serial == serial)
    }

    /// The plugin of that number answers.
    pub(super) fn connect(&mut self, name: &str, serial: u64, connected: Connected) {
        if let Some(resource) = self.of(name, serial) {
            resource.pre_start = connected.options.pre_start_required;
            resource.plugin = Some(connected);
        }
    }

    /// The plugin of that number has these devices, and no others; whether that is news.
    pub(super) fn report(&mut self, name: &str, serial: u64, list: Vec<protocol::Device>) -> Result<bool, TooLong> {
        if list.len() > DEVICES {
            return Err(TooLong);
        }
        let Some(resource) = self.of(name, serial) else { return Ok(false) };
        let device = |device: protocol::Device| {
            let nodes = device.topology.into_iter().flat_map(|topology| topology.nodes).map(|node| node.id).collect();
            (device.id, Device { healthy: device.health == protocol::HEALTHY, nodes })
        };
        let devices = list.into_iter().map(device).collect();
        Ok(std::mem::replace(&mut resource.devices, devices) != resource.devices)
    }

    /// The plugin of that number does not answer any more: none of its devices is healthy. Whether it still was the resource's plugin.
    pub(super) fn disconnect(&mut self, name: &str, serial: u64) -> bool {
        let Some(resource) = self.of(name, serial) else { return false };
        resource.plugin = None;
        resource.devices.values_mut().for_each(|device| device.healthy = false);
        true
    }

    /// The plugin of that number does not come back: its resource stays, with none of it. Whether it still was the resource's plugin.
    pub(super) fn forget(&mut self, name: &str, serial: u64) -> bool {
        let Some(resource) = self.of(name, serial) else { return false };
        resource.devices.clear();
        resource.is_awaited = false;
        true
    }

    /// See [`super::Devices::amounts`].
    pub(super) fn amounts(&self) -> Amounts {
        let amount = |resource: &Resource| Amount {
            capacity: resource.devices.len(),
            allocatable: resource.devices.values().filter(|device| device.healthy).count(),
        };
        let known = self.resources.iter().map(|(name, resource)| (name.clone(), Some(amount(resource))));
        known.chain(self.forgotten.iter().map(|name| (name.clone(), None))).collect()
    }

    /// Whether devices of a plugin are what is meant by the resource.
    pub(super) fn manages(&self, name: &str) -> bool {
        self.resources.contains_key(name)
    }

    /// Whom to ask before a container starts that has devices of a resource; nobody where its plugin does not want that.
    pub(super) fn before_start(&self, name: &str) -> Result<Option<&Plugin>, Away> {
        match self.resources.get(name) {
            Some(Resource { pre_start: true, plugin, .. }) => match plugin {
                Some(connected) => Ok(Some(&connected.plugin)),
                None => Err(Away(name.to_owned())),
            },
            _ => Ok(None),
        }
    }

    /// Resources whose plugins want to be asked before a container starts.
    pub(super) fn with_pre_start(&self) -> impl Iterator<Item = &str> {
        self.resources.iter().filter(|(_, resource)| resource.pre_start).map(|(name, _)| name.as_str())
    }

    /// Devices of `owner` that are not decided yet: `reusable` are those that it gets before others. None when it has what it asks for.
    pub(super) fn choice(
        &self,
        owner: &Owner,
        required: usize,
        affinity: Option<Mask>,
        reusable: &BTreeSet<String>,
    ) -> Result<Option<Choice>, Refusal> {
        if let Some(held) = self.held.get(owner) {
            let had = held.devices.len();
            return if had == required { Ok(None) } else { Err(Refusal::Changed { owner: owner.clone(), had, wants: required }) };
        }
        let unhealthy = || Refusal::Unhealthy(owner.resource.clone());
        let resource = self.resources.get(&owner.resource).ok_or_else(unhealthy)?;
        let plugin = resource.plugin.clone().ok_or_else(unhealthy)?;
        let healthy: BTreeSet<&String> = resource.devices.iter().filter(|(_, device)| device.healthy).map(|(id, _)| id).collect();
        if healthy.is_empty() {
            return Err(unhealthy());
        }
        let taken = self.taken(&owner.resource);
        let included: Vec<String> = reusable.iter().filter(|id| healthy.contains(id)).take(required).cloned().collect();
        let mut free: Vec<&String> = healthy.into_iter().filter(|id| !taken.contains(id) && !included.contains(id)).collect();
        // Those that are aligned come first, then those that are elsewhere, then those of which that is not known.
        let place = |id: &&String| match (affinity, resource.devices.get(*id)) {
            (Some(mask), Some(device)) if device.is_at(mask) => 0,
            (Some(_), Some(device)) if !device.nodes.is_empty() => 1,
            _ => 2,
        };
        free.sort_by_key(place);
        let aligned = free.iter().filter(|id| place(id) == 0).count();
        if affinity.is_some() && included.len() + aligned >= required {
            free.truncate(aligned);
        }
        let available: Vec<String> = included.iter().chain(free).cloned().collect();
        if available.len() < required {
            let leaving = |(other, held): (&Owner, &Assignment)| match other.resource == owner.resource
                && self.leaving.contains(&other.uid)
            {
                true => held.devices.iter().filter(|id| resource.devices.get(*id).is_some_and(|device| device.healthy)).count(),
                false => 0,
            };
            if available.len() + self.held.iter().map(leaving).sum::<usize>() >= required {
                return Err(Refusal::Later(owner.resource.clone()));
            }
            let (needed, available) = (required - included.len(), available.len() - included.len());
            return Err(Refusal::TooFew { resource: owner.resource.clone(), needed, available });
        }
        Ok(Some(Choice { plugin, available, included }))
    }

    /// At which NUMA nodes `required` devices could be had; none where no device says where it is.
    pub(super) fn hints(
        &self,
        owner: &Owner,
        required: usize,
        reusable: &BTreeSet<String>,
        nodes: &BTreeSet<u32>,
    ) -> Option<Vec<Hint>> {
        let resource = self.resources.get(&owner.resource)?;
        if resource.devices.values().all(|device| device.nodes.is_empty()) {
            return None;
        }
        let taken = self.taken(&owner.resource);
        let free: BTreeSet<&String> = match self.held.get(owner) {
            Some(held) if held.devices.len() != required => return Some(Vec::new()),
            Some(held) => held.devices.iter().collect(),
            None => {
                let healthy = resource.devices.iter().filter(|(_, device)| device.healthy).map(|(id, _)| id);
                healthy.filter(|id| reusable.contains(*id) || !taken.contains(id)).collect()
            }
        };
        let at = |id: &String, mask: Mask| resource.devices.get(id).is_some_and(|device| device.is_at(mask));
        let total = |mask: Mask| resource.devices.values().filter(|device| device.is_at(mask)).count();
        let reused = if self.held.contains_key(owner) { &BTreeSet::new() } else { reusable };
        Some(affinity::hints(nodes, required, total, |mask| {
            let fits = reused.iter().all(|id| at(id, mask));
            fits.then(|| free.iter().filter(|id| at(id, mask)).count())
        }))
    }

    fn taken(&self, resource: &str) -> BTreeSet<&String> {
        self.held.iter().filter(|(owner, _)| owner.resource == resource).flat_map(|(_, held)| &held.devices).collect()
    }

    /// Gives devices to `owner`, those that the plugin prefers where they can be had. What [`Self::choice`] has said may have changed since.
    pub(super) fn reserve(
        &mut self,
        owner: &Owner,
        (required, affinity): (usize, Option<Mask>),
        reusable: &BTreeSet<String>,
        preferred: &[String],
    ) -> Result<Vec<String>, Refusal> {
        let Some(choice) = self.choice(owner, required, affinity, reusable)? else { return Ok(Vec::new()) };
        let can_be_had: BTreeSet<&String> = choice.available.iter().collect();
        let preferred = preferred.iter().filter(|id| can_be_had.contains(id));
        let mut devices = BTreeSet::new();
        for id in choice.included.iter().chain(preferred).chain(&choice.available) {
            if devices.len() < required {
                devices.insert(id.clone());
            }
        }
        let ids = devices.iter().cloned().collect();
        self.held.insert(owner.clone(), Assignment { devices, response: None });
        Ok(ids)
    }

    /// The plugin has given the devices of `owner`.
    pub(super) fn complete(&mut self, owner: &Owner, response: ContainerAllocateResponse) {
        if let Some(held) = self.held.get_mut(owner) {
            held.response = Some(response);
        }
    }

    /// Whether a pod that has something is on its way out.
    pub(super) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// A pod is on its way out: what it has will be free.
    pub(super) fn leave(&mut self, uid: &str) {
        if self.held.keys().any(|owner| owner.uid == uid) {
            self.leaving.insert(uid.to_owned());
        }
    }

    /// Takes back what a pod has; whether it had something.
    pub(super) fn release(&mut self, uid: &str) -> bool {
        self.leaving.remove(uid);
        let before = self.held.len();
        self.held.retain(|owner, _| owner.uid != uid);
        self.held.len() != before
    }

    /// What a container has, by resource.
    pub(super) fn of_container(&self, uid: &str, container: &str) -> BTreeMap<&str, &Assignment> {
        let owned = self.held.iter().filter(|(owner, _)| owner.uid == uid && owner.container == container);
        owned.map(|(owner, held)| (owner.resource.as_str(), held)).collect()
    }

    /// How a device is, in the words of a pod's status: nobody knows while there is no plugin that says so.
    pub(super) fn health(&self, resource: &str, id: &str) -> &'static str {
        let resource = self.resources.get(resource).filter(|resource| resource.plugin.is_some());
        match resource.and_then(|resource| resource.devices.get(id)) {
            Some(device) if device.healthy => "Healthy",
            Some(_) => "Unhealthy",
            None => "Unknown",
        }
    }

    /// All that has been given.
    pub(super) fn held(&self) -> impl Iterator<Item = (&Owner, &Assignment)> {
        self.held.iter()
    }

    /// All devices, by resource.
    pub(super) fn devices(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, Device>)> {
        self.resources.iter().map(|(name, resource)| (name.as_str(), &resource.devices))
    }

    /// Whether there has never been a plugin.
    pub(super) fn is_unused(&self) -> bool {
        self.resources.is_empty() && self.held.is_empty()
    }
}

#[cfg(test)]
mod tests;
