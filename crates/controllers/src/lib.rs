//! The controllers: each one file or directory, all on one loop.
//!
//! A controller is a [`controller::Controller`]: a key comes in, a pure plan decides, changes go out through the API.
//! The list of controllers is [`CONTROLLERS`]; a new one is a file and a line there.

mod account_tokens;
mod adopt;
mod attachments;
mod autoscaler;
mod backoff;
mod certificates;
mod clock;
mod controller;
mod cron_job;
mod daemon;
mod deployment;
mod device_taints;
mod discovery;
mod disruption;
mod ephemeral;
mod eviction;
mod expectations;
mod garbage;
mod hash;
mod history;
mod job;
mod legacy_tokens;
mod local_path;
mod meta;
mod namespace;
mod node_lifecycle;
mod pod_cidrs;
mod pod_control;
mod pod_gc;
mod pods;
mod protection;
mod queue;
#[cfg(test)]
mod reasons;
mod replicas;
mod resource_claims;
mod resource_quota;
mod room;
mod root_ca;
mod scale;
mod service_account;
mod services;
mod stateful;
#[cfg(test)]
mod testing;
mod token_cleaner;
mod trust_bundle;
mod ttl;
mod ttl_after_finished;
mod volumes;
mod worker;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use base::readiness::{Gate, Part};
use base::tasks::Tasks;
use base::tls::Authority;
use client::events::Recorder;
use client::{Client, Informers};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;

use account_tokens::AccountTokens;
pub use account_tokens::{KeptToken, SignKept};
use autoscaler::Autoscaler;
use certificates::approving::Approver;
use certificates::cleaning::Cleaner;
use certificates::pods::cleaning::PodCleaner;
use certificates::pods::signing::PodSigning;
use certificates::signing::Signing;
pub use certificates::{NODE_KEY, Reserved};
pub use clock::Clock;
pub use controller::{Action, Controller, Cx, Error, Source};
use device_taints::DeviceTaints;
use garbage::GarbageCollector;
use legacy_tokens::LegacyTokens;
pub use local_path::{DIRECTORY as LOCAL_VOLUMES, PROVISIONER as LOCAL_PROVISIONER};
use node_lifecycle::NodeLifecycle;
use pod_cidrs::PodCidrs;
pub use pod_cidrs::{ClusterCidr, HOLLOW};
use pod_gc::PodCollector;
use protection::classes::ClassProtection;
pub use queue::Queue;
use resource_quota::ResourceQuotas;
use services::balancer::Balancers;
use services::endpoints::EndpointsOfServices;
use services::endpointslices::EndpointSlices;
use services::mirroring::Mirroring;
use services::ranges;
use token_cleaner::TokenCleaner;
use ttl_after_finished::TtlAfterFinished;
pub use worker::start;

/// What the controllers need from the composition.
#[derive(Clone)]
pub struct Options {
    /// Shared caches; they read as `system:kube-controller-manager`.
    pub informers: Informers,
    /// A client with the identity of a service account in `kube-system`: every controller writes as its own.
    pub clients: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    /// The certificates that clients in pods trust the API server by, PEM. Published as `kube-root-ca.crt`.
    pub root_ca: String,
    /// Signs the tokens of ServiceAccounts that Secrets hold.
    pub sign_kept: SignKept,
    /// Signs the certificates that are asked for.
    pub authority: Arc<Authority>,
    /// What it certifies no node as.
    pub reserved: Reserved,
    /// The networks that nodes get their pod networks from: at most one of each IP family, the first family first.
    /// Empty when something else hands them out.
    pub cluster_cidrs: Vec<ClusterCidr>,
    /// Finished pods that may stay; all when None.
    pub finished_pods: Option<usize>,
    /// Ports that are every node's own, with their protocols: no load balancer gets them.
    pub node_ports: BTreeSet<(i32, String)>,
    /// The time of day.
    pub clock: Clock,
}

/// One line of the list.
pub struct Entry {
    /// The controller's name.
    pub name: &'static str,
    /// The service account in `kube-system` that it writes as.
    pub account: &'static str,
    start: fn(&Options, Start<'_>),
}

const fn entry<C: Controller>(start: fn(&Options, Start<'_>)) -> Entry {
    Entry { name: C::NAME, account: C::ACCOUNT, start }
}

/// Where a controller runs, and who hears that it has its caches.
struct Start<'a> {
    tasks: &'a Tasks,
    ready: Part,
}

/// Every controller.
pub const CONTROLLERS: &[Entry] = &[
    entry::<namespace::Namespaces>(|o, t| launch(namespace::Namespaces::new(&o.informers), o, t)),
    entry::<service_account::ServiceAccounts>(|o, t| launch(service_account::ServiceAccounts::new(&o.informers), o, t)),
    entry::<AccountTokens>(|o, t| launch(AccountTokens::new(&o.informers, o.root_ca.clone(), o.sign_kept.clone()), o, t)),
    entry::<LegacyTokens>(|o, t| launch(LegacyTokens::new(&o.informers), o, t)),
    entry::<root_ca::RootCa>(|o, t| launch(root_ca::RootCa::new(&o.informers, o.root_ca.clone()), o, t)),
    entry::<trust_bundle::ServingBundle>(|o, t| launch(trust_bundle::ServingBundle::new(&o.informers, o.root_ca.clone()), o, t)),
    entry::<deployment::Deployments>(|o, t| launch(deployment::Deployments::new(&o.informers), o, t)),
    entry::<replicas::Replicas<ReplicaSet>>(|o, t| launch(replicas::Replicas::<ReplicaSet>::new(&o.informers), o, t)),
    entry::<replicas::Replicas<ReplicationController>>(|o, t| {
        launch(replicas::Replicas::<ReplicationController>::new(&o.informers), o, t)
    }),
    entry::<daemon::DaemonSets>(|o, t| launch(daemon::DaemonSets::new(&o.informers), o, t)),
    entry::<stateful::StatefulSets>(|o, t| launch(stateful::StatefulSets::new(&o.informers), o, t)),
    entry::<job::Jobs>(|o, t| launch(job::Jobs::new(&o.informers), o, t)),
    entry::<job::Orphans>(|o, t| launch(job::Orphans::new(&o.informers), o, t)),
    entry::<TtlAfterFinished>(|o, t| launch(TtlAfterFinished::new(&o.informers), o, t)),
    entry::<cron_job::CronJobs>(|o, t| launch(cron_job::CronJobs::new(&o.informers, o.clock.clone()), o, t)),
    entry::<EndpointsOfServices>(|o, t| launch(EndpointsOfServices::new(&o.informers), o, t)),
    entry::<EndpointSlices>(|o, t| launch(EndpointSlices::new(&o.informers), o, t)),
    entry::<Mirroring>(|o, t| launch(Mirroring::new(&o.informers), o, t)),
    entry::<ranges::Addresses>(|o, t| launch(ranges::Addresses::new(&o.informers), o, t)),
    entry::<ranges::Ranges>(|o, t| launch(ranges::Ranges::new(&o.informers), o, t)),
    entry::<Balancers>(|o, t| launch(Balancers::new(&o.informers, o.node_ports.clone(), o.reserved.ranges.clone()), o, t)),
    entry::<disruption::Disruption>(|o, t| launch(disruption::Disruption::new(&o.informers), o, t)),
    entry::<disruption::StaleTargets>(|o, t| launch(disruption::StaleTargets::new(&o.informers), o, t)),
    entry::<Autoscaler>(|o, t| launch(Autoscaler::new(&o.informers), o, t)),
    entry::<ResourceQuotas>(|o, t| launch(ResourceQuotas::new(&o.informers, (o.clients)(ResourceQuotas::ACCOUNT)), o, t)),
    entry::<GarbageCollector>(|o, t| launch(GarbageCollector::new((o.clients)(GarbageCollector::ACCOUNT)), o, t)),
    entry::<Approver>(|o, t| launch(Approver::new(&o.informers, o.reserved.clone()), o, t)),
    entry::<Signing>(|o, t| launch(Signing::new(&o.informers, o.authority.clone()), o, t)),
    entry::<Cleaner>(|o, t| launch(Cleaner::new(&o.informers), o, t)),
    entry::<PodSigning>(|o, t| launch(PodSigning::new(&o.informers, o.authority.clone()), o, t)),
    entry::<PodCleaner>(|o, t| launch(PodCleaner::new(&o.informers), o, t)),
    entry::<TokenCleaner>(|o, t| launch(TokenCleaner::new(&o.informers), o, t)),
    entry::<NodeLifecycle>(|o, t| launch(NodeLifecycle::new(&o.informers), o, t)),
    entry::<ttl::Ttl>(|o, t| launch(ttl::Ttl::new(&o.informers), o, t)),
    entry::<PodCidrs>(|o, t| launch(PodCidrs::new(&o.informers, o.cluster_cidrs.clone()), o, t)),
    entry::<PodCollector>(|o, t| launch(PodCollector::new(&o.informers, o.finished_pods), o, t)),
    entry::<volumes::Binder>(|o, t| launch(volumes::Binder::new(&o.informers), o, t)),
    entry::<attachments::Attachments>(|o, t| launch(attachments::Attachments::new(&o.informers), o, t)),
    entry::<ephemeral::EphemeralVolumes>(|o, t| launch(ephemeral::EphemeralVolumes::new(&o.informers), o, t)),
    entry::<resource_claims::PodClaims>(|o, t| launch(resource_claims::PodClaims::new(&o.informers), o, t)),
    entry::<resource_claims::ClaimUse>(|o, t| launch(resource_claims::ClaimUse::new(&o.informers), o, t)),
    entry::<DeviceTaints>(|o, t| launch(DeviceTaints::new(&o.informers), o, t)),
    entry::<local_path::LocalPath>(|o, t| launch(local_path::LocalPath::new(&o.informers), o, t)),
    entry::<protection::ClaimProtection>(|o, t| launch(protection::ClaimProtection::new(&o.informers), o, t)),
    entry::<protection::VolumeProtection>(|o, t| launch(protection::VolumeProtection::new(&o.informers), o, t)),
    entry::<ClassProtection>(|o, t| launch(ClassProtection::new(&o.informers), o, t)),
];

/// Starts every controller under `tasks`; they end with it. `gate` is ready when all have their caches.
pub fn run(options: &Options, tasks: &Tasks, gate: Gate) {
    let parts = gate.parts(CONTROLLERS.iter().map(|entry| entry.name));
    for (entry, part) in CONTROLLERS.iter().zip(parts) {
        (entry.start)(options, Start { tasks, ready: part });
    }
}

fn launch<C: Controller>(controller: C, options: &Options, Start { tasks, ready }: Start<'_>) {
    let client = (options.clients)(C::ACCOUNT);
    let events = Recorder::new(client.clone(), C::ACCOUNT, "", tasks);
    let cx = Cx { client, events, clock: options.clock.clone() };
    worker::start(controller, cx, tasks, ready);
}
