//! The files of configMap, secret, downwardAPI and projected volumes. Pure.

mod trust;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, PodCertificateProjection, ProjectedVolumeSource, Volume, VolumeProjection,
};

use super::atomic::{File, Payload};
use crate::certificates::Place;
use crate::certificates::credential::Pair;
use crate::env::Objects;
use crate::fields::{self, Facts};
use crate::refs::Subject;
use crate::spec::{Model, Role};

/// Bytes that the files of a volume may have together. One key may be shown at any number of paths, and a volume of Secrets is in memory.
const MOST: usize = 64 << 20;

/// Default of `defaultMode`.
const MODE: i32 = 0o644;

/// What files are made from.
pub struct Sources<'a> {
    /// The pod.
    pub model: &'a Model,
    /// Its ConfigMaps and Secrets.
    pub objects: &'a dyn Objects,
    /// For the downward API.
    pub facts: &'a Facts,
    /// Service account tokens by volume and path.
    pub tokens: &'a BTreeMap<(String, String), String>,
    /// Keys and certificates by volume and source.
    pub certificates: &'a BTreeMap<Place, Pair>,
}

/// The data of an object by its keys.
type Data<'a> = BTreeMap<&'a str, &'a [u8]>;

/// Files as they come together.
#[derive(Default)]
struct Files {
    files: Payload,
    bytes: usize,
}

impl Files {
    fn add(&mut self, path: &str, data: &[u8], mode: i32, owner: Option<u32>) -> Result<(), String> {
        self.bytes += data.len();
        if self.bytes > MOST {
            return Err(format!("the files of the volume have more than {} MiB", MOST >> 20));
        }
        let mode = u32::try_from(mode).unwrap_or(0o644) & 0o777;
        self.files.insert(path.to_owned(), File { data: data.to_vec(), mode, uid: owner });
        Ok(())
    }

    /// Adds chosen keys, or all. `absent` is what is said of a key that is not there, in upstream's words.
    fn pick(
        &mut self,
        absent: &str,
        data: &Data<'_>,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: i32,
    ) -> Result<(), String> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return data.iter().try_for_each(|(key, data)| self.add(key, data, mode, None));
        };
        for item in items {
            match data.get(item.key.as_str()) {
                Some(data) => self.add(&item.path, data, item.mode.unwrap_or(mode), None)?,
                None if optional => {}
                None => return Err(format!("{absent}: {}", item.key)),
            }
        }
        Ok(())
    }
}

/// Why files cannot be made, each reason once.
#[derive(Debug, Default)]
struct Failures(Vec<String>);

impl Failures {
    fn note(&mut self, made: Result<(), String>) {
        self.0.extend(made.err());
    }

    fn done(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    /// As upstream writes several errors (`utilerrors.Aggregate`).
    fn message(self) -> String {
        let mut told = BTreeSet::new();
        let mut all: Vec<String> = self.0.into_iter().filter(|why| told.insert(why.clone())).collect();
        if all.len() == 1 { all.remove(0) } else { format!("[{}]", all.join(", ")) }
    }
}

impl Sources<'_> {
    /// The files of `volume`; none when it is not made of files. The error is what an event says.
    pub fn files(&self, volume: &Volume) -> Option<Result<Payload, String>> {
        let mut files = Files::default();
        let made = if let Some(source) = &volume.config_map {
            let optional = source.optional == Some(true);
            self.config_map(&mut files, &source.name, source.items.as_deref(), optional, source.default_mode.unwrap_or(MODE))
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let optional = source.optional == Some(true);
            self.secret(&mut files, name, source.items.as_deref(), optional, source.default_mode.unwrap_or(MODE))
        } else if let Some(source) = &volume.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            self.downward(&mut files, items, source.default_mode.unwrap_or(MODE)).map_err(Failures::message)
        } else {
            self.projected(&mut files, &volume.name, volume.projected.as_ref()?).map_err(Failures::message)
        };
        Some(made.map(|()| files.files))
    }

    fn config_map(
        &self,
        files: &mut Files,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: i32,
    ) -> Result<(), String> {
        let Some(map) = self.objects.config_map(name) else {
            return if optional { Ok(()) } else { Err(format!("configmap {name:?} not found")) };
        };
        let texts = map.data.iter().flatten().map(|(key, text)| (key.as_str(), text.as_bytes()));
        let data = texts.chain(map.binary_data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()))).collect();
        files.pick("configmap references non-existent config key", &data, items, optional, mode)
    }

    fn secret(
        &self,
        files: &mut Files,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: i32,
    ) -> Result<(), String> {
        let Some(secret) = self.objects.secret(name) else {
            return if optional { Ok(()) } else { Err(format!("secret {name:?} not found")) };
        };
        let data = secret.data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice())).collect();
        files.pick("references non-existent secret key", &data, items, optional, mode)
    }

    fn downward(&self, files: &mut Files, items: &[DownwardAPIVolumeFile], mode: i32) -> Result<(), Failures> {
        let mut failures = Failures::default();
        for item in items {
            let text = if let Some(field) = &item.field_ref {
                fields::field(self.model, &field.field_path, self.facts)
            } else if let Some(resource) = &item.resource_field_ref {
                fields::resource(self.model, None, resource, self.facts)
            } else {
                continue;
            };
            let text = text.map_err(|error| error.to_string());
            failures.note(text.and_then(|text| files.add(&item.path, text.as_bytes(), item.mode.unwrap_or(mode), None)));
        }
        failures.done()
    }

    /// One source that fails keeps no other from being looked at: all that is missing is told at once, as upstream (`collectData`).
    fn projected(&self, files: &mut Files, volume: &str, projected: &ProjectedVolumeSource) -> Result<(), Failures> {
        let mode = projected.default_mode.unwrap_or(MODE);
        let mut failures = Failures::default();
        for (index, source) in projected.sources.iter().flatten().enumerate() {
            if let Some(downward) = &source.downward_api {
                let items = downward.items.as_deref().unwrap_or_default();
                failures.0.extend(self.downward(files, items, mode).err().into_iter().flat_map(|failures| failures.0));
            } else {
                failures.note(self.projection(files, (volume, index), source, mode));
            }
        }
        failures.done()
    }

    /// What one source shows that is not the pod's own.
    fn projection(
        &self,
        files: &mut Files,
        (volume, index): (&str, usize),
        source: &VolumeProjection,
        mode: i32,
    ) -> Result<(), String> {
        if let Some(map) = &source.config_map {
            self.config_map(files, &map.name, map.items.as_deref(), map.optional == Some(true), mode)
        } else if let Some(secret) = &source.secret {
            self.secret(files, &secret.name, secret.items.as_deref(), secret.optional == Some(true), mode)
        } else if let Some(token) = &source.service_account_token {
            let text = self.tokens.get(&(volume.to_owned(), token.path.clone()));
            self.private(files, &token.path, text.ok_or_else(|| format!("no token for {}", token.path))?, mode)
        } else if let Some(bundle) = &source.cluster_trust_bundle {
            let data = trust::anchors(bundle, &self.objects.trust_bundles())?;
            files.add(&bundle.path, data.as_bytes(), mode, None)
        } else if let Some(certificate) = &source.pod_certificate {
            let pair = self.certificates.get(&(volume.to_owned(), index)).ok_or("the certificate is not issued yet")?;
            certificate_files(certificate, pair).try_for_each(|(path, text)| self.private(files, &path, &text, mode))
        } else {
            Err("a projected source is of a kind that this kubelet does not support".to_owned())
        }
    }

    /// A token, or a key, is for nobody else: it belongs to the user, where all containers have the same, and is for him and the fsGroup. Who
    /// debugs the pod as another user changes nothing of that: ephemeral containers do not count, as upstream (`FsUserFrom`).
    fn private(&self, files: &mut Files, path: &str, text: &str, mode: i32) -> Result<(), String> {
        let pod = self.model.spec().security_context.clone().unwrap_or_default();
        let user =
            |member: &crate::spec::Member| member.spec.security_context.as_ref().and_then(|c| c.run_as_user).or(pod.run_as_user);
        let mut users = self.model.members.iter().filter(|member| member.role != Role::Ephemeral).map(user);
        let user = users.next().flatten().filter(|first| users.all(|user| user == Some(*first)));
        let shared = user.is_none() && pod.fs_group.is_none();
        let owner = user.and_then(|user| u32::try_from(user).ok());
        files.add(path, text.as_bytes(), if shared { mode } else { 0o600 }, owner)
    }
}

/// The files of a certificate with its key: both in one, or each in its own.
fn certificate_files(source: &PodCertificateProjection, pair: &Pair) -> impl Iterator<Item = (String, String)> {
    let Pair { key, chain } = pair;
    let texts = [
        (&source.credential_bundle_path, format!("{key}{chain}")),
        (&source.key_path, key.clone()),
        (&source.certificate_chain_path, chain.clone()),
    ];
    let files = texts.map(|(path, text)| Some((path.clone().filter(|path| !path.is_empty())?, text)));
    files.into_iter().flatten()
}

/// Whether a volume shows this, or some of it.
pub fn shows(volume: &Volume, what: &Subject) -> bool {
    let projected = || volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let own = volume.config_map.iter().map(|source| &source.name);
    let mut config_maps = own.chain(projected().filter_map(|source| source.config_map.as_ref()).map(|source| &source.name));
    let own = volume.secret.iter().filter_map(|source| source.secret_name.as_ref());
    let mut secrets = own.chain(projected().filter_map(|source| source.secret.as_ref()).map(|source| &source.name));
    match what {
        Subject::ConfigMap(name) => config_maps.any(|shown| shown == name),
        Subject::Secret(name) => secrets.any(|shown| shown == name),
        Subject::Both => config_maps.next().is_some() || secrets.next().is_some(),
        Subject::TrustBundles => projected().any(|source| source.cluster_trust_bundle.is_some()),
    }
}

#[cfg(test)]
mod tests;
