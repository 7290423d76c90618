//! What makes a pod one of a set: its name with the ordinal, labels, host name, and the volumes of its claims. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};

use super::claims;
pub(super) use super::range::{in_range, replicas, start};
use crate::history::HASH;
use crate::{meta, write};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The part before the number at the end of a pod's name, and that number where it is one.
fn parse(name: &str) -> Option<(&str, Option<i32>)> {
    let (parent, number) = name.rsplit_once('-')?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| (parent, number.parse().ok()))
}

/// Whether the pod has a name of the set.
pub(super) fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    parse(meta::name(pod)).is_some_and(|(parent, _)| parent == meta::name(set))
}

/// The number in the pod's name.
pub(super) fn ordinal(pod: &Pod) -> Option<i32> {
    parse(meta::name(pod))?.1
}

/// The name of a revision that a pod was made by.
pub(super) fn revision(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH)).map_or("", String::as_str)
}

/// The pod of that number.
pub(super) fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = write::pod_of(set, template);
    let name = format!("{}-{ordinal}", meta::name(set));
    let all = pod.metadata.labels.get_or_insert_default();
    all.extend(labels(&name, ordinal));
    all.insert(HASH.to_owned(), revision.to_owned());
    pod.metadata.name = Some(name.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    let own: Vec<Volume> = claims::of_pod(set, ordinal).map(|(template, claim)| volume(template, meta::name(&claim))).collect();
    let others = spec.volumes.take().into_iter().flatten().filter(|other| own.iter().all(|own| own.name != other.name));
    let volumes: Vec<Volume> = own.iter().cloned().chain(others).collect();
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
    pod
}

fn volume(name: &str, claim: &str) -> Volume {
    let source = PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), read_only: None };
    Volume { name: name.to_owned(), persistent_volume_claim: Some(source), ..Volume::default() }
}

fn labels(name: &str, ordinal: i32) -> BTreeMap<String, String> {
    BTreeMap::from([(POD_NAME.to_owned(), name.to_owned()), (POD_INDEX.to_owned(), ordinal.to_string())])
}

/// The labels of its identity, where a pod lacks one.
pub(super) fn missing_labels(pod: &Pod, ordinal: i32) -> Option<BTreeMap<String, String>> {
    let wanted = labels(meta::name(pod), ordinal);
    let has = |(key, value): (&String, &String)| pod.metadata.labels.as_ref().is_some_and(|own| own.get(key) == Some(value));
    (!wanted.iter().all(has)).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names() {
        let check = |name, expected| assert_eq!(parse(name), expected);
        check("web-0", Some(("web", Some(0))));
        check("web-a-12", Some(("web-a", Some(12))));
        check("web-99999999999", Some(("web", None)));
        check("web-", None);
        check("web-x", None);
        check("web", None);
    }
}
