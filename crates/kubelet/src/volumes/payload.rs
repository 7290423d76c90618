//! The files of configMap, secret, downwardAPI and projected volumes. Pure.

mod trust;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, PodCertificateProjection, ProjectedVolumeSource, Volume};

use super::atomic::{File, Payload};
use crate::certificates::Place;
use crate::certificates::credential::Pair;
use crate::env::Objects;
use crate::fields::{self, Facts};
use crate::refs::Unread;
use crate::spec::Model;

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

type Data = BTreeMap<String, Vec<u8>>;

impl Sources<'_> {
    /// The files of `volume`; none when it is not made of files. The error is what an event says.
    pub fn files(&self, volume: &Volume) -> Option<Result<Payload, String>> {
        if let Some(source) = &volume.config_map {
            let optional = source.optional == Some(true);
            return Some(self.config_map(&source.name, source.items.as_deref(), optional, source.default_mode.unwrap_or(MODE)));
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let optional = source.optional == Some(true);
            return Some(self.secret(name, source.items.as_deref(), optional, source.default_mode.unwrap_or(MODE)));
        }
        if let Some(source) = &volume.downward_api {
            return Some(self.downward(source.items.as_deref().unwrap_or_default(), source.default_mode.unwrap_or(MODE)));
        }
        volume.projected.as_ref().map(|source| self.projected(&volume.name, source))
    }

    fn config_map(&self, name: &str, items: Option<&[KeyToPath]>, optional: bool, mode: i32) -> Result<Payload, String> {
        let Some(map) = self.objects.config_map(name) else {
            return if optional { Ok(Payload::new()) } else { Err(format!("configmap {name:?} not found")) };
        };
        let mut data: Data = map.data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes())).collect();
        data.extend(map.binary_data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone())));
        pick("configmap references non-existent config key", data, items, optional, mode)
    }

    fn secret(&self, name: &str, items: Option<&[KeyToPath]>, optional: bool, mode: i32) -> Result<Payload, String> {
        let Some(secret) = self.objects.secret(name) else {
            return if optional { Ok(Payload::new()) } else { Err(format!("secret {name:?} not found")) };
        };
        let data = secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone())).collect();
        pick("references non-existent secret key", data, items, optional, mode)
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], mode: i32) -> Result<Payload, String> {
        let mut files = Payload::new();
        for item in items {
            let text = if let Some(field) = &item.field_ref {
                fields::field(self.model, &field.field_path, self.facts)
            } else if let Some(resource) = &item.resource_field_ref {
                fields::resource(self.model, None, resource, self.facts)
            } else {
                continue;
            };
            let text = text.map_err(|error| error.to_string())?;
            files.insert(item.path.clone(), file(text.into_bytes(), item.mode.unwrap_or(mode)));
        }
        Ok(files)
    }

    fn projected(&self, volume: &str, projected: &ProjectedVolumeSource) -> Result<Payload, String> {
        let mode = projected.default_mode.unwrap_or(MODE);
        let mut files = Payload::new();
        for (index, source) in projected.sources.iter().flatten().enumerate() {
            if let Some(map) = &source.config_map {
                files.extend(self.config_map(&map.name, map.items.as_deref(), map.optional == Some(true), mode)?);
            } else if let Some(secret) = &source.secret {
                files.extend(self.secret(&secret.name, secret.items.as_deref(), secret.optional == Some(true), mode)?);
            } else if let Some(downward) = &source.downward_api {
                files.extend(self.downward(downward.items.as_deref().unwrap_or_default(), mode)?);
            } else if let Some(token) = &source.service_account_token {
                let text = self.tokens.get(&(volume.to_owned(), token.path.clone()));
                let text = text.ok_or_else(|| format!("no token for {}", token.path))?;
                files.insert(token.path.clone(), token_file(self.model, text, mode));
            } else if let Some(bundle) = &source.cluster_trust_bundle {
                let data = trust::anchors(bundle, &self.objects.trust_bundles())?;
                files.insert(bundle.path.clone(), file(data.into_bytes(), mode));
            } else if let Some(certificate) = &source.pod_certificate {
                let pair = self.certificates.get(&(volume.to_owned(), index)).ok_or("the certificate is not issued yet")?;
                files
                    .extend(certificate_files(certificate, pair).map(|(path, text)| (path, token_file(self.model, &text, mode))));
            } else {
                return Err("a projected source is of a kind that this kubelet does not support".to_owned());
            }
        }
        Ok(files)
    }
}

fn file(data: Vec<u8>, mode: i32) -> File {
    File { data, mode: u32::try_from(mode).unwrap_or(0o644) & 0o777, uid: None }
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

/// A token, or a key, is for nobody else: it belongs to the user, where all containers have the same, and is for him and the fsGroup.
fn token_file(model: &Model, text: &str, mode: i32) -> File {
    let data = text.as_bytes().to_vec();
    let pod = model.spec().security_context.clone().unwrap_or_default();
    let user =
        |member: &crate::spec::Member| member.spec.security_context.as_ref().and_then(|c| c.run_as_user).or(pod.run_as_user);
    let mut users = model.members.iter().map(user);
    let user = users.next().flatten().filter(|first| users.all(|user| user == Some(*first)));
    if user.is_none() && pod.fs_group.is_none() {
        return file(data, mode);
    }
    File { data, mode: 0o600, uid: user.and_then(|user| u32::try_from(user).ok()) }
}

/// The files of chosen keys, or of all. `absent` is what is said of a key that is not there, in upstream's words.
fn pick(absent: &str, data: Data, items: Option<&[KeyToPath]>, optional: bool, mode: i32) -> Result<Payload, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, data)| (key, file(data, mode))).collect());
    };
    let mut files = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(data) => drop(files.insert(item.path.clone(), file(data.clone(), item.mode.unwrap_or(mode)))),
            None if optional => {}
            None => return Err(format!("{absent}: {}", item.key)),
        }
    }
    Ok(files)
}

/// The first volume that shows an object.
pub fn volume_of<'a>(model: &'a Model, unread: &Unread) -> Option<&'a str> {
    let shows = |volume: &&Volume| {
        let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        let projected: Vec<_> = projected.collect();
        match unread.kind {
            "ConfigMap" => {
                let own = volume.config_map.iter().map(|source| &source.name);
                let parts = projected.iter().filter_map(|source| source.config_map.as_ref()).map(|source| &source.name);
                own.chain(parts).any(|name| *name == unread.name)
            }
            "Secret" => {
                let own = volume.secret.iter().filter_map(|source| source.secret_name.as_ref());
                let parts = projected.iter().filter_map(|source| source.secret.as_ref()).map(|source| &source.name);
                own.chain(parts).any(|name| *name == unread.name)
            }
            _ => projected.iter().any(|source| source.cluster_trust_bundle.is_some()),
        }
    };
    model.spec().volumes.iter().flatten().find(shows).map(|volume| volume.name.as_str())
}

#[cfg(test)]
mod tests;
