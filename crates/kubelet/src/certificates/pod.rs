//! The certificates of one pod: asks for what its volumes need, and waits for the answers.

use std::collections::BTreeMap;
use std::time::Duration;

use base::tls::{KeyType, PodKey};
use client::Api;
use client::Informer;
use client::events::Type;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1beta1::PodCertificateRequest;
use k8s_openapi::api::core::v1::{Node, PodCertificateProjection, ServiceAccount};
use kube::api::PostParams;
use tokio::sync::watch;

use super::credential::{Credential, Made, Pair, Seen, Told};
use super::request::{self, Uids};
use super::{Place, sources};
use crate::context::Context;
use crate::spec::Model;

/// How long an answer is waited for before it is told that there is none. Later an event tells of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The certificates of one pod.
#[derive(Default)]
pub struct PodCertificates {
    all: BTreeMap<Place, Credential>,
    news: Option<watch::Receiver<()>>,
}

/// A number from 0 to 1.
fn random() -> f64 {
    // The first 32 bits of such a UUID are random.
    let (first, ..) = uuid::Uuid::new_v4().as_fields();
    f64::from(first) / f64::from(u32::MAX)
}

impl PodCertificates {
    /// Takes in what signers have answered, and asks for what is missing or due. Gives the volumes for which there is nothing to show, and why.
    pub async fn refresh(&mut self, cx: &Context, model: &Model) -> BTreeMap<String, String> {
        let mut failures = BTreeMap::new();
        if sources(model).next().is_none() {
            return failures;
        }
        let requests = cx.certificates.requests();
        if tokio::time::timeout(PATIENCE, requests.synced()).await.is_err() {
            let why = "the requests for certificates cannot be read yet";
            return sources(model).map(|((volume, _), _)| (volume, why.to_owned())).collect();
        }
        let mut news = self.news.take().unwrap_or_else(|| cx.certificates.changes(model.uid()));
        self.see(cx, model, requests);
        for (place, source) in sources(model) {
            let credential = self.all.entry(place.clone()).or_default();
            if !credential.is_wanted(Timestamp::now()) {
                continue;
            }
            if let Err(error) = ask(cx, model, source, credential).await {
                tracing::warn!(pod = model.title(), volume = place.0, error, "no certificate can be asked for");
                failures.extend(credential.not_asked(error, Timestamp::now()).err().map(|why| (place.0, why)));
            }
        }
        // Most signers answer at once. Whose does not is told of below.
        let _ = tokio::time::timeout(PATIENCE, self.answered(cx, model, requests, &mut news)).await;
        self.news = Some(news);
        let now = Timestamp::now();
        self.all.values_mut().filter_map(|credential| credential.tell(now)).for_each(|told| tell(cx, model, told));
        for ((volume, _), credential) in &self.all {
            if let Err(why) = credential.pair(now) {
                failures.entry(volume.clone()).or_insert(why);
            }
        }
        failures
    }

    /// Returns when no answer is missing for something to show.
    async fn answered(
        &mut self,
        cx: &Context,
        model: &Model,
        requests: &Informer<PodCertificateRequest>,
        news: &mut watch::Receiver<()>,
    ) {
        let lacks = |credential: &Credential| credential.awaited().is_some() && credential.pair(Timestamp::now()).is_err();
        while self.all.values().any(lacks) {
            if news.changed().await.is_err() {
                return;
            }
            self.see(cx, model, requests);
        }
    }

    /// Looks at the requests that were made.
    fn see(&mut self, cx: &Context, model: &Model, requests: &Informer<PodCertificateRequest>) {
        let now = Timestamp::now();
        for credential in self.all.values_mut() {
            let Some(name) = credential.awaited() else { continue };
            // Before the request is looked for: it may come in between.
            let observed = requests.observed();
            let seen = match requests.get(Some(model.namespace()), name) {
                Some(request) => Seen::There(request.metadata.uid.clone().unwrap_or_default(), request::answer(&request)),
                None => Seen::Missing(observed),
            };
            if let Some(told) = credential.see(seen, now, random()) {
                tell(cx, model, told);
            }
        }
    }

    /// What the volumes show, by volume and source.
    pub fn pairs(&self) -> BTreeMap<Place, Pair> {
        let now = Timestamp::now();
        self.all.iter().filter_map(|(place, credential)| Some((place.clone(), credential.pair(now).ok()?.clone()))).collect()
    }

    /// When to look again.
    pub fn due(&self) -> Option<Timestamp> {
        let now = Timestamp::now();
        self.all.values().filter_map(|credential| credential.due(now)).min()
    }
}

fn tell(cx: &Context, model: &Model, (reason, message): Told) {
    cx.pod_event(model, Type::Warning, reason, message);
}

/// Makes a key and asks for a certificate for it.
async fn ask(cx: &Context, model: &Model, source: &PodCertificateProjection, credential: &mut Credential) -> Result<(), String> {
    let kind = KeyType::of(&source.key_type).ok_or_else(|| {
        let known: Vec<_> = KeyType::ALL.iter().map(|(name, _)| *name).collect();
        format!("key type {:?} is not supported by this kubelet, which makes {}", source.key_type, known.join(", "))
    })?;
    let uids = uids(cx, model).await?;
    let PodKey { key, request: stub } = PodKey::generate(kind).map_err(|error| error.to_string())?;
    let wanted = request::new(model, source, &cx.options.node_name, uids, stub);
    let api: Api<PodCertificateRequest> = Api::namespaced(cx.options.client.clone(), model.namespace());
    let made = api.create(&PostParams::default(), &wanted).await.map_err(|error| client::why(&error))?;
    let version = client::resource_version::of(&made);
    let (name, uid) = (made.metadata.name.unwrap_or_default(), made.metadata.uid.unwrap_or_default());
    credential.asked(key, Made { name, uid, version }, Timestamp::now());
    Ok(())
}

async fn uids(cx: &Context, model: &Model) -> Result<Uids, String> {
    let nodes = cx.options.informers.of_selected::<Node>(&format!("metadata.name={}", cx.options.node_name));
    let node = nodes.get(None, &cx.options.node_name).and_then(|node| node.metadata.uid.clone());
    let accounts: Api<ServiceAccount> = Api::namespaced(cx.options.client.clone(), model.namespace());
    let account = accounts.get(request::account(model)).await;
    let account = account.map_err(|error| format!("service account {:?}: {}", request::account(model), client::why(&error)))?;
    let node = node.ok_or("the node is not registered yet")?;
    Ok(Uids { account: account.metadata.uid.unwrap_or_default(), node })
}
