//! A pod gets its devices before it is admitted, and each of its containers what comes with them when it starts.

use std::collections::{BTreeMap, BTreeSet};

use csi::devices::ContainerAllocateResponse;
use grpc::Error as Rpc;
use prost::Message;
use runtime::api::ContainerEdits;

use super::inventory::{Choice, Owner, Refusal};
use super::{Devices, edits};
use crate::affinity::{Mask, Wishes};
use crate::spec::{Member, Model};
use crate::units;

/// Most bytes of what a plugin says for one container: it is kept.
const RESPONSE: usize = 256 << 10;

/// Why a pod does not get its devices.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They are not there.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The plugin fails.
    #[error(transparent)]
    Rpc(#[from] Rpc),
    /// The plugin fails to say which it would rather give.
    #[error("device plugin GetPreferredAllocation rpc failed with err: {0}")]
    Preference(Rpc),
    /// The plugin gives nothing.
    #[error("no containers return in allocation response of the plugin of {0}")]
    Silent(String),
    /// The plugin says too much.
    #[error("the allocation response of the plugin of {0} has more than 256 KiB")]
    Long(String),
    /// It would be forgotten.
    #[error("the assignment of devices cannot be written down: {0}")]
    Record(#[from] std::io::Error),
}

/// Devices by resource.
pub type Reusable = BTreeMap<String, BTreeSet<String>>;

impl Devices {
    /// Gives a container its devices, those at the NUMA nodes of `affinity` first; whether it did not have them already. They outlast this
    /// process after [`Self::settle`].
    ///
    /// # Errors
    /// It does not get them.
    pub async fn give(&self, model: &Model, member: &Member, affinity: Option<Mask>, reusable: &Reusable) -> Result<bool, Error> {
        let mut is_news = false;
        for (resource, required) in self.wanted(model, member) {
            let owner = Owner { uid: model.uid().to_owned(), container: member.spec.name.clone(), resource };
            is_news |= self.give_one(owner, required, affinity, reusable).await?;
        }
        Ok(is_news)
    }

    /// Writes down what has been given.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn settle(&self) -> Result<(), Error> {
        Ok(self.save().await?)
    }

    /// From which NUMA nodes the devices could come that are wanted. Devices of which nobody says where they are make no wish.
    pub fn wishes(
        &self,
        uid: &str,
        container: &str,
        wanted: Vec<(String, usize)>,
        reusable: &Reusable,
        nodes: &BTreeSet<u32>,
    ) -> Wishes {
        let (inventory, none) = (self.inventory.lock(), BTreeSet::new());
        let wish = |(resource, required): (String, usize)| {
            let owner = Owner { uid: uid.to_owned(), container: container.to_owned(), resource };
            let hints = inventory.hints(&owner, required, reusable.get(&owner.resource).unwrap_or(&none), nodes);
            (owner.resource, hints)
        };
        wanted.into_iter().map(wish).collect()
    }

    /// The devices of plugins that a container asks for. What it gets by a claim is none of theirs.
    pub fn wanted(&self, model: &Model, member: &Member) -> Vec<(String, usize)> {
        let inventory = self.inventory.lock();
        let limits = member.spec.resources.iter().flat_map(|resources| resources.limits.iter().flatten());
        let managed =
            limits.filter(|(name, _)| inventory.manages(name) && !pods::claims::is_claimed(&model.pod, &member.spec.name, name));
        let counted = managed.map(|(name, quantity)| (name.clone(), usize::try_from(units::whole(quantity)).unwrap_or_default()));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// Gives devices of one resource to one container; whether it did not have them already.
    async fn give_one(&self, owner: Owner, required: usize, affinity: Option<Mask>, reusable: &Reusable) -> Result<bool, Error> {
        let none = BTreeSet::new();
        let reusable = reusable.get(&owner.resource).unwrap_or(&none);
        let mut released = self.released.subscribe();
        loop {
            match self.try_give(&owner, required, affinity, reusable).await {
                // An error would mean that this kubelet is no more.
                Err(Error::Refused(Refusal::Later(_))) => drop(released.changed().await),
                given => return given,
            }
        }
    }

    async fn try_give(
        &self,
        owner: &Owner,
        required: usize,
        affinity: Option<Mask>,
        reusable: &BTreeSet<String>,
    ) -> Result<bool, Error> {
        let choice = self.inventory.lock().choice(owner, required, affinity, reusable)?;
        let Some(Choice { plugin, available, included }) = choice else { return Ok(false) };
        let preferred = match plugin.options.get_preferred_allocation_available {
            true => plugin.plugin.preferred(available, included, required).await.map_err(Error::Preference)?,
            false => Vec::new(),
        };
        let devices = self.inventory.lock().reserve(owner, (required, affinity), reusable, &preferred)?;
        let response = plugin.plugin.allocate(devices).await?;
        let response = checked(&owner.resource, response)?;
        self.inventory.lock().complete(owner, response);
        Ok(true)
    }

    /// What a container gets that is about to start, and what more it has by names of the Container Device Interface.
    ///
    /// # Errors
    /// A plugin refuses, or is not there and wants to be asked.
    pub async fn edits(&self, model: &Model, member: &Member) -> Result<(ContainerEdits, Vec<String>), String> {
        let (asked, edits) = {
            let inventory = self.inventory.lock();
            if inventory.is_unused() {
                return Ok(Default::default());
            }
            let held = inventory.of_container(model.uid(), &member.spec.name);
            let mut asked = Vec::new();
            for (resource, held) in &held {
                if let Some(plugin) = inventory.before_start(resource).map_err(|away| away.to_string())? {
                    asked.push((plugin.clone(), held.devices.iter().cloned().collect::<Vec<_>>()));
                }
            }
            let responses = || held.values().filter_map(|held| held.response.as_ref());
            let named = responses().flat_map(|response| &response.cdi_devices).map(|device| device.name.clone());
            (asked, (edits::of(responses()), named.collect()))
        };
        for (plugin, devices) in asked {
            let failed = |error| format!("device plugin PreStartContainer rpc failed with err: {error}");
            plugin.pre_start(devices).await.map_err(failed)?;
        }
        Ok(edits)
    }
}

/// What a plugin has said, if it is of use.
fn checked(resource: &str, response: Option<ContainerAllocateResponse>) -> Result<ContainerAllocateResponse, Error> {
    let response = response.ok_or_else(|| Error::Silent(resource.to_owned()))?;
    if response.encoded_len() > RESPONSE {
        return Err(Error::Long(resource.to_owned()));
    }
    Ok(response)
}
