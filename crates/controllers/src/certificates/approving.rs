//! Approves what nodes ask for: the certificate by which a machine joins, the same again in time, and the one that its kubelet serves with.
//!
//! Whether the requester may is asked of the API, as upstream's approver does: `nodeclient` and `selfnodeclient` are sub-resources that exist
//! for that question only.

use client::Api;
use client::kube::api::PostParams;
use client::{Informer, Informers, Key};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;

use super::policy::{self, Reserved, Signer, Wanted};
use super::{APPROVED, DENIED, has, with_condition};
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::meta;

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";

pub(crate) struct Approver {
    requests: Informer<CertificateSigningRequest>,
    nodes: Informer<Node>,
    reserved: Reserved,
}

impl Approver {
    pub(crate) fn new(informers: &Informers, reserved: Reserved) -> Self {
        Self { requests: informers.of(), nodes: informers.of(), reserved }
    }
}

/// What becomes of a request without anybody's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// Somebody else decides, or the time has not come.
    Wait,
    /// Approved if the requester may create this sub-resource.
    IfAllowed(&'static str, &'static str),
    Approve(&'static str),
    Deny(&'static str, String),
}

fn decide(
    signer: Signer,
    request: &CertificateSigningRequest,
    wanted: &Wanted,
    nodes: &Informer<Node>,
    reserved: &Reserved,
) -> Decision {
    let Some(name) = policy::node(&wanted.request) else { return Decision::Wait };
    let node = nodes.get(None, name);
    let own = policy::is_own(&request.spec, &wanted.request);
    match signer {
        Signer::Client => Decision::Wait,
        Signer::KubeletClient if own && policy::may_renew(node.as_deref(), &wanted.request.fingerprint()) => {
            Decision::IfAllowed("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.")
        }
        Signer::KubeletClient if policy::may_join(node.as_deref(), &wanted.request.fingerprint()) => {
            Decision::IfAllowed("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")
        }
        Signer::KubeletClient => taken(name),
        Signer::KubeletServing if own => match node {
            _ if let Some(taken) = reserved.of(&wanted.request) => Decision::Deny(
                "NameReserved",
                format!("{taken} is not for a node: clients of the cluster would take it for another server"),
            ),
            Some(node) if !policy::is_asked_by(&node, &request.spec) => taken(name),
            Some(node) if policy::has_names(&node, nodes.list().iter().map(AsRef::as_ref), &wanted.request) => {
                Decision::Approve("Auto approving the serving certificate of a kubelet for the addresses of its node.")
            }
            _ => Decision::Wait,
        },
        Signer::KubeletServing => Decision::Wait,
    }
}

fn taken(name: &str) -> Decision {
    let message = format!(
        "node {name} is there, and has joined with another key. If it is to be replaced, delete it first \
         (kubectl delete node {name}); else give this machine another name (--node-name)"
    );
    Decision::Deny("NodeNameTaken", message)
}

impl Controller for Approver {
    const NAME: &'static str = "certificatesigningrequest-approving";
    const ACCOUNT: &'static str = "certificate-controller";

    fn sources(&self) -> Vec<Source> {
        let requests = self.requests.clone();
        // A node that has told its addresses may have asked before.
        let of_nodes = Source::mapped(&self.nodes, move |change, queue| {
            let user = format!("system:node:{}", change.key.name);
            let waiting = requests.select(|request| request.spec.username.as_deref() == Some(&user) && is_open(request));
            waiting.iter().for_each(|request| queue.add(Key::of(request.as_ref())));
        });
        vec![Source::own(&self.requests), of_nodes]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(request) = self.requests.by_key(key).filter(|request| is_open(request)) else { return Ok(Action::Done) };
        let Some(signer) = Signer::of(&request.spec.signer_name) else { return Ok(Action::Done) };
        let Ok(wanted) = policy::check(signer, &request.spec) else { return Ok(Action::Done) };
        let approve = |message: &str| (APPROVED, "AutoApproved", message.to_owned());
        let (kind, reason, message) = match decide(signer, &request, &wanted, &self.nodes, &self.reserved) {
            Decision::Wait => return Ok(Action::Done),
            Decision::Approve(message) => approve(message),
            Decision::Deny(reason, message) => (DENIED, reason, message),
            Decision::IfAllowed(subresource, message) => match is_allowed(cx, &request, subresource).await? {
                true => approve(message),
                false => return Ok(Action::Done),
            },
        };
        tracing::info!(request = %key, requester = request.spec.username.as_deref().unwrap_or_default(), kind, reason, "a node's certificate");
        let decided = with_condition(&request, kind, reason, message, cx.clock.now());
        let api: Api<CertificateSigningRequest> = Api::all(cx.client.clone());
        api.replace_subresource("approval", meta::name(request.as_ref()), &PostParams::default(), &decided).await?;
        Ok(Action::Done)
    }
}

fn is_open(request: &CertificateSigningRequest) -> bool {
    !has(request, APPROVED) && !has(request, DENIED)
}

/// Whether who asks may create a sub-resource of requests.
async fn is_allowed(cx: &Cx, request: &CertificateSigningRequest, subresource: &str) -> Result<bool, Error> {
    let text = |text: &str| Some(text.to_owned());
    let spec = &request.spec;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: text(GROUP),
                resource: text(PLURAL),
                verb: text("create"),
                subresource: text(subresource),
                version: text("*"),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(cx.client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
