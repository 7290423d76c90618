//! Seeing that a container's image is here, by its pull policy, with credentials from the pod's secrets and from the node's providers. An image
//! that was pulled with credentials is used by those who have them (KEP-2535).

pub mod access;
mod credentials;
pub mod garbage;
pub mod keyring;
pub mod patterns;
pub mod providers;
mod pull_secrets;
pub mod records;
pub mod sources;

use std::collections::BTreeSet;
use std::time::Instant;

use client::events::Type;
use runtime::api::{Credentials, Error, Image};
use tokio::sync::Semaphore;

use access::{Access, Decision, Shown, Verification};
use credentials::PodCredentials;
use records::Records;

use crate::context::Context;
use crate::refs::PodReferences;
use crate::spec::{Member, Model};
use crate::volumes::mounts::image_volumes;

/// Images of one pod that are pulled at the same time. What a node does at once is for several pods.
const PULLS: usize = 3;

/// Turns of one pod's pulls.
pub struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(PULLS))
    }
}

/// The image, or the waiting reason and message. The images of the container's volumes are seen to as well.
pub async fn ensure(
    cx: &Context,
    model: &Model,
    member: &Member,
    (refs, turns): (&PodReferences, &Turns),
) -> Result<Image, (String, String)> {
    let reference = member.spec.image.as_deref().unwrap_or_default();
    let image = one(cx, model, member, (refs, turns), (reference, member.spec.image_pull_policy.as_deref())).await?;
    for (_, source) in image_volumes(model, &member.spec) {
        let reference = source.reference.as_deref().unwrap_or_default();
        one(cx, model, member, (refs, turns), (reference, source.pull_policy.as_deref())).await?;
    }
    Ok(image)
}

/// The name of `image` by its digest in the repository of `reference`; empty for an image that no registry has named.
pub fn digest(image: &Image, reference: &str) -> String {
    let repository = repository(reference);
    let own = image.digests.iter().find(|digest| digest.split('@').next().is_some_and(|of| location(of) == repository));
    own.or(image.digests.first()).cloned().unwrap_or_default()
}

/// The name of an image without tag and digest, with its registry.
fn repository(reference: &str) -> String {
    let named = reference.split('@').next().unwrap_or_default();
    let last = named.rfind('/').map_or(0, |slash| slash + 1);
    location(named.rfind(':').filter(|colon| *colon >= last).map_or(named, |colon| &named[..colon]))
}

/// What the node's providers give for an image that is pulled by hand, in the order in which it is tried, and what those say that have failed.
pub(crate) async fn provided(cx: &Context, reference: &str) -> (Vec<Credentials>, Vec<String>) {
    let provided = cx.providers.credentials(None, &repository(reference)).await;
    (provided.credentials.into_iter().map(|found| found.word).collect(), provided.failures)
}

/// Brings the records of pulls up to what is on the node: what was interrupted may have been pulled, and what is gone needs no record.
pub async fn settle(cx: &Context) -> Result<(), std::io::Error> {
    for reference in cx.pulls.interrupted() {
        if let Ok(Some(image)) = cx.runtime().image(&reference).await {
            cx.pulls.add(&image.id, repository(&reference), &Access::default()).await?;
        }
    }
    let since = jiff::Timestamp::now();
    if let Ok(images) = cx.runtime().images().await {
        let images: BTreeSet<String> = images.into_iter().map(|image| image.id).collect();
        cx.pulls.keep(&images, since).await?;
    }
    Ok(())
}

async fn one(
    cx: &Context,
    model: &Model,
    member: &Member,
    (refs, turns): (&PodReferences, &Turns),
    (reference, policy): (&str, Option<&str>),
) -> Result<Image, (String, String)> {
    let event = |kind, reason: &str, message: &str| cx.container_event(model, member, kind, reason, message);
    let present = match cx.runtime().image(reference).await {
        Ok(image) => image,
        Err(Error::InvalidImageName(why)) => {
            let message = format!("Failed to apply default image tag {reference:?}: {why}");
            event(Type::Warning, "InspectFailed", &message);
            return Err(("InvalidImageName".to_owned(), message));
        }
        Err(error) => {
            let message = format!("Failed to inspect image {reference:?}: {error}");
            event(Type::Warning, "InspectFailed", &message);
            return Err(("ImageInspectError".to_owned(), message));
        }
    };
    let policy = pull_policy(reference, policy);
    let credentials = PodCredentials::new(cx, model, refs, repository(reference));
    // An image that the pod has to show credentials for is not there for it.
    let present = match present {
        Some(image) if policy != "Always" => accessible(cx, &credentials, reference, &image).await.then_some(image),
        other => other,
    };
    match (policy, present) {
        ("Never", None) => {
            let message = format!("Container image {reference:?} is not present with pull policy of Never");
            event(Type::Warning, "ErrImageNeverPull", &message);
            Err(("ErrImageNeverPull".to_owned(), message))
        }
        ("Always", _) | (_, None) => pull(cx, model, member, (&credentials, turns), (reference, policy)).await,
        (_, Some(image)) => {
            let message = format!("Container image {reference:?} already present on machine and can be accessed by the pod");
            event(Type::Normal, "Pulled", &message);
            Ok(image)
        }
    }
}

/// The policy, by default `Always` for the tag `latest`.
fn pull_policy<'a>(image: &str, own: Option<&'a str>) -> &'a str {
    let name = image.rsplit('/').next().unwrap_or_default();
    let latest = !name.contains(':') || name.ends_with(":latest");
    let default = if latest && !image.contains('@') { "Always" } else { "IfNotPresent" };
    own.unwrap_or(default)
}

async fn pull(
    cx: &Context,
    model: &Model,
    member: &Member,
    (credentials, turns): (&PodCredentials<'_>, &Turns),
    (reference, policy): (&str, &str),
) -> Result<Image, (String, String)> {
    let event = |kind, reason: &str, message: &str| cx.container_event(model, member, kind, reason, message);
    event(Type::Normal, "Pulling", &format!("Pulling image {reference:?}"));
    let missing = credentials.missing().await;
    if !missing.is_empty() {
        let names = missing.join(", ");
        let message =
            format!("Unable to retrieve some image pull secrets ({names}); attempting to pull the image may not succeed.");
        cx.pod_event(model, Type::Warning, "FailedToRetrieveImagePullSecret", message);
    }
    let asked = Instant::now();
    // Never closed.
    let _turn = turns.0.acquire().await.ok();
    let begun = Instant::now();
    match pull_or_take(cx, (reference, policy), credentials).await {
        Ok((image, why)) => {
            cx.node_changed.notify_one();
            let (took, all) = (elapsed(begun), elapsed(asked));
            let (size, nodes) = (image.size, nodes(&image, why.as_deref()));
            event(
                Type::Normal,
                "Pulled",
                &format!(
                    "Successfully pulled image {reference:?} in {took} ({all} including waiting). Image size: {size} bytes.{nodes}"
                ),
            );
            Ok(image)
        }
        Err(error) => {
            let why = format!("{error}{}", credentials.complaint());
            event(Type::Warning, "Failed", &format!("Failed to pull image {reference:?}: {why}"));
            // A registry that is down is an ErrImagePull too, as with containerd: the message tells.
            let reason = if matches!(error, Error::InvalidImageName(_)) { "InvalidImageName" } else { "ErrImagePull" };
            event(Type::Warning, "Failed", &format!("Error: {reason}"));
            Err((reason.to_owned(), why))
        }
    }
}

/// The time since then, to the millisecond.
fn elapsed(since: Instant) -> String {
    let milliseconds = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    apimachinery::time::duration_text(std::time::Duration::from_millis(milliseconds))
}

/// Where an image has come from besides its registry.
fn nodes(image: &Image, why: Option<&str>) -> String {
    match (image.nodes.as_slice(), why) {
        ([], _) => String::new(),
        (nodes, Some(why)) => format!(" It was imported on node {} and came from there: {why}.", nodes.join(", ")),
        ([node], None) => format!(" Layers came from node {node}."),
        (nodes, None) => format!(" Layers came from nodes {}.", nodes.join(", ")),
    }
}

/// Pulls an image; one that no registry has is taken from a node on which it was imported, if it may be: then with the reason.
async fn pull_or_take(
    cx: &Context,
    (reference, policy): (&str, &str),
    credentials: &PodCredentials<'_>,
) -> Result<(Image, Option<String>), Error> {
    let error = match try_pull(cx, reference, credentials).await {
        Ok(image) => return Ok((image, None)),
        Err(error) => error,
    };
    // A registry that refuses the pod, or cannot answer now, may have another image of this name.
    if !matches!(error, Error::ImageNotFound(_)) || !may_take(policy, &cx.options.verification, reference) {
        return Err(error);
    }
    match cx.runtime().take_image(reference).await {
        Ok(Some(image)) => Ok((image, Some(error.to_string()))),
        Ok(None) => Err(error),
        Err(other) => Err(Error::ImagePull(format!("{error}; {other}"))),
    }
}

/// Whether an image may come from another node by its name: not when each pod has to ask the registry (the policy Always), and not when pods
/// have to show credentials for images that no kubelet has pulled.
fn may_take(policy: &str, verification: &Verification, reference: &str) -> bool {
    policy == "IfNotPresent" && !verification.asks(&repository(reference), false)
}

/// Whether every pod of the node may use an image of this name, without credentials.
pub(crate) fn is_open(cx: &Context, reference: &str, image: &Image) -> bool {
    let names = (reference, image.id.as_str());
    cx.pulls.ask(&cx.options.verification, names, |question| matches!(question.decide(&Shown::default()), Decision::Granted))
}

/// Pulls with one of the credentials after the other, and remembers which of them was good.
async fn try_pull(cx: &Context, reference: &str, credentials: &PodCredentials<'_>) -> Result<Image, Error> {
    let failed = |error: std::io::Error| Error::ImagePull(format!("failed to record image pull intent: {error}"));
    cx.pulls.begin(reference).await.map_err(failed)?;
    let (mut outcome, mut tried) = (Err(Error::ImagePull(String::new())), 0);
    while let Some((source, words)) = credentials.attempt(tried).await {
        tried += 1;
        outcome = cx.runtime().pull_image(reference, &words).await.map(|image| (image, Access::by(source)));
        if matches!(outcome, Ok(_) | Err(Error::InvalidImageName(_))) {
            break;
        }
    }
    let pulled = outcome.as_ref().ok().map(|(image, access)| (image.id.as_str(), access.clone()));
    if let Err(error) = cx.pulls.end(reference, pulled).await {
        tracing::warn!(image = reference, %error, "it is not written down who may use an image");
    }
    outcome.map(|(image, _)| image)
}

/// Whether the pod may use an image of the node. Providers are not asked unless it depends on them.
async fn accessible(cx: &Context, credentials: &PodCredentials<'_>, reference: &str, image: &Image) -> bool {
    let (pulls, verification): (&Records, _) = (&cx.pulls, &cx.options.verification);
    let names = (reference, image.id.as_str());
    let mut shown = Shown::default();
    if pulls.ask(verification, names, |question| question.depends()) {
        shown.secrets = credentials.shown_secrets().await;
    }
    if pulls.decide(verification, names, &shown).await {
        return true;
    }
    if !pulls.ask(verification, names, |question| question.depends_on_account()) {
        return false;
    }
    shown.account = credentials.shown_account().await;
    pulls.decide(verification, names, &shown).await
}

/// Registry host and path of an image, docker.io where it names none.
fn location(image: &str) -> String {
    let image = image.split('@').next().unwrap_or_default();
    match image.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => format!("{host}/{path}"),
        Some(_) => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_names_by_digest() {
        let digests = ["docker.io/library/a@sha256:1", "r:5000/x/a@sha256:2"].map(str::to_owned).to_vec();
        let image = Image { digests, ..Image::default() };
        let check = |reference: &str, expected: &str| assert_eq!(digest(&image, reference), expected, "{reference}");
        check("a", "docker.io/library/a@sha256:1");
        check("a:1", "docker.io/library/a@sha256:1");
        check("r:5000/x/a:1.2", "r:5000/x/a@sha256:2");
        check("r:5000/x/a@sha256:2", "r:5000/x/a@sha256:2");
        check("other/a", "docker.io/library/a@sha256:1");
        assert_eq!(digest(&Image::default(), "a"), "");
    }

    /// KEP-2535: an image that needs credentials is not there for who has none, also by the way of another node.
    #[test]
    fn names_come_from_other_nodes_where_all_pods_may_use_what_is_imported() {
        use access::Policy;
        let of = |policy, list: &[&str]| Verification::new(policy, list.iter().map(|s| (*s).to_owned()).collect()).unwrap();
        let check = |policy: &str, verification: &Verification, expected: bool| {
            assert_eq!(may_take(policy, verification, "app:1"), expected, "{policy} {verification:?}");
        };
        for (policy, expected) in [("IfNotPresent", true), ("Always", false), ("Never", false)] {
            check(policy, &Verification::default(), expected);
        }
        check("IfNotPresent", &of(Policy::NeverVerify, &[]), true);
        check("IfNotPresent", &of(Policy::AlwaysVerify, &[]), false);
        check("IfNotPresent", &of(Policy::NeverVerifyAllowlistedImages, &["r.io/x"]), false);
        check("IfNotPresent", &of(Policy::NeverVerifyAllowlistedImages, &["docker.io/library/*"]), true);
    }

    #[test]
    fn events_name_the_nodes() {
        let check = |nodes: &[&str], why: Option<&str>, expected: &str| {
            let image = Image { nodes: nodes.iter().map(|s| (*s).to_owned()).collect(), ..Image::default() };
            assert_eq!(super::nodes(&image, why), expected);
        };
        check(&[], None, "");
        check(&["n2"], None, " Layers came from node n2.");
        check(&["n2", "n3"], None, " Layers came from nodes n2, n3.");
        check(&["n2"], Some("not found"), " It was imported on node n2 and came from there: not found.");
    }

    #[test]
    fn policies() {
        let check = |image: &str, own: Option<&str>, expected: &str| {
            assert_eq!(pull_policy(image, own), expected, "{image} {own:?}");
        };
        check("a", None, "Always");
        check("h:5000/a", None, "Always");
        check("a:1", None, "IfNotPresent");
        check("a@sha256:1", None, "IfNotPresent");
        check("a:latest", Some("Never"), "Never");
    }
}
