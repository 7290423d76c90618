//! The API server as a component: options, service, handle.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base::listen::Listener;
use base::readiness::{Gate, Readiness};
use base::tasks::{OnFailure, Tasks};
use base::tls::{self, Authority, Request, Resolver, Verifier};
use registry::Registry;
use store::Engine;

use crate::admission::{self, Tolerations};
use crate::aggregation::{Aggregation, Servers};
use crate::api::Api;
use crate::audit::{Audit, AuditOptions};
use crate::authn::{self, Authenticator, Issuers, TokenKeys};
use crate::authz::{self, Authorizer};
use crate::call::Inner;
use crate::definitions::Definitions;
use crate::discovery::Discovery;
use crate::health::hooks;
use crate::openapi::OpenApi;
use crate::proxy::KubeletClient;
use crate::remote::Remotes;
use crate::tunnels::Tunnels;
use crate::version::{Build, VERSION};
use crate::{Error, bootstrap, documents, fairness, metrics, server};

/// What the API server needs to know.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What it speaks of TLS.
    pub tls: tls::Protocols,
    /// Directory of the certificates and keys.
    pub pki: PathBuf,
    /// Names and addresses that clients reach it by, besides localhost and `kubernetes.default` with its kin.
    pub names: Vec<String>,
    /// `host:port` for clients outside, in discovery documents.
    pub public_address: String,
    /// Where pods reach it: the endpoints of the `kubernetes` Service.
    pub advertised: SocketAddr,
    /// Cluster domain, such as `cluster.local`.
    pub domain: String,
    /// Tokens of ServiceAccounts.
    pub service_accounts: ServiceAccounts,
    /// Who may ask besides those who are of this cluster.
    pub authentication: authn::Options,
    /// The file of an AdmissionConfiguration.
    pub admission: Option<PathBuf>,
    /// Names of admission plugins that are to work, besides those that always do.
    pub admission_plugins: Vec<String>,
    /// How long pods stay on nodes that are lost.
    pub tolerations: Tolerations,
    /// Who decides what may be done.
    pub authorization: authz::configuration::Options,
    /// What is told to the audit log; None for nothing.
    pub audit: Option<AuditOptions>,
    /// For `/version`.
    pub build: Build,
    /// What `/flagz` says.
    pub flags: base::zpages::Flags,
    /// Options of the registry, without tokens.
    pub registry: registry::Options,
}

/// How tokens of ServiceAccounts are issued.
#[derive(Clone, Debug)]
pub struct ServiceAccounts {
    /// Who issues them; the usual one is `https://kubernetes.default.svc.cluster.local`.
    pub issuers: Issuers,
    /// Where others find the keys that they are signed with; at the API server's own address when None.
    pub jwks_uri: Option<String>,
    /// The most seconds that one is good; no limit but that of the API when None.
    pub longest: Option<i64>,
    /// Whether those that pods are given for the API server outlive the hour that is told.
    pub extends: bool,
}

impl From<Issuers> for ServiceAccounts {
    fn from(issuers: Issuers) -> Self {
        Self { issuers, jwks_uri: None, longest: None, extends: true }
    }
}

/// The API server without a way in: the API itself, and the tasks that keep what it stands on.
pub struct Core {
    api: Api,
    readiness: Readiness,
    service_cidrs: Vec<ipnet::IpNet>,
    advertised: SocketAddr,
    /// Open when the objects that every cluster has are there.
    made: [Gate; 2],
    /// Where some default roles could not be written: opens when all are.
    roles: Option<Gate>,
    /// The definitions of custom resources, and the revision up to which they are in force.
    definitions: (Definitions, u64),
    servers: Arc<Servers>,
    /// For webhooks.
    remotes: Arc<Remotes>,
}

/// The API server, ready to run.
pub struct Service {
    core: Core,
    listener: Listener,
    config: Arc<rustls::ServerConfig>,
    verifier: Arc<Verifier>,
    /// The APIs of other servers.
    aggregation: Aggregation,
}

/// What others hold of the API server. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// The service itself; `api.as_user(...)` for components.
    pub api: Api,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Core {
    /// Opens the registry and writes the default policy.
    pub async fn open(
        engine: Arc<dyn Engine>,
        authority: &Arc<Authority>,
        options: &Options,
        readiness: Readiness,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let ServiceAccounts { issuers, jwks_uri, longest, extends } = options.service_accounts.clone();
        let keys = Arc::new(TokenKeys::load_or_create(&options.pki.join("service-account.key"), issuers)?);
        let tokens = registry::Tokens { signer: keys.clone(), longest, extends };
        let registry_options = registry::Options { tokens: Some(tokens), ..options.registry.clone() };
        let tunnels = Arc::new(Tunnels::default());
        let remotes = Arc::new(Remotes::new(tasks.child(), tunnels.clone()));
        let authorizer = Arc::new(Authorizer::new(&options.authorization, &remotes)?);
        let configuration = admission::Configuration::read(options.admission.as_deref(), &options.admission_plugins)?;
        let plugins = admission::all(configuration, options.tolerations, &authorizer, &remotes)?;
        let registry = Registry::open(engine, plugins, registry_options, tasks).await?;
        let names =
            ["poststarthook/scheduling/bootstrap-system-priority-classes", "poststarthook/priority-and-fairness-config-producer"];
        let made = names.map(|name| readiness.gate(name));
        let roles = readiness.gate("poststarthook/rbac/bootstrap-roles");
        let own = bootstrap::run(&registry, &options.registry.service_cidrs, options.advertised).await;
        let own = bootstrap::taken(own, "objects that every cluster has");
        if own {
            made.iter().for_each(Gate::ready);
        }
        let budgets = crate::stages::Budgets::default();
        let fairness = fairness::follow::start(&registry, &budgets.fairness);
        let definitions = Definitions::start(&registry, remotes.clone());
        let policy = async { Ok(authz::start(&registry, &authorizer).await) };
        let ((), definitions, policy) = futures::try_join!(fairness, definitions, policy).map_err(Error::Policy)?;
        metrics::fairness::observe(Arc::downgrade(&budgets.fairness));
        // Without its namespace a role is not there either.
        let roles = if bootstrap::taken(policy, "default roles") && own {
            roles.ready();
            None
        } else {
            Some(roles)
        };
        let audit = options.audit.as_ref().map(|options| audit(options, &registry, &remotes, tasks)).transpose()?;
        let servers = Arc::new(Servers::new(remotes.clone(), &options.pki)?);
        let authentication = options.authentication.clone();
        let authenticator = Authenticator::new(registry.clone(), keys.clone(), remotes.clone(), authentication, tasks)?;
        let api = Api(Arc::new(Inner {
            authenticator,
            discovery: Discovery::default(),
            openapi: OpenApi::new(registry.clone(), VERSION),
            kubelets: KubeletClient::new(authority)?,
            tunnels,
            servers: servers.clone(),
            readiness: readiness.clone(),
            zpages: options.build.pages("kube-apiserver", documents::PLACES, options.flags.clone()),
            build: options.build,
            public_address: options.public_address.clone(),
            jwks_uri: jwks_uri.unwrap_or_else(|| format!("https://{}/openid/v1/jwks", options.public_address)),
            tasks: tasks.child(),
            budgets,
            usages: crate::usage::known::Usages::default(),
            audit,
            authorizer,
            keys,
            registry,
        }));
        let service_cidrs = options.registry.service_cidrs.clone();
        Ok(Self { api, readiness, service_cidrs, advertised: options.advertised, made, roles, definitions, servers, remotes })
    }

    /// The API, for components of this process.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Starts what follows the store: the index of rights, priority and fairness, the cluster's own objects, the definitions of custom
    /// resources.
    pub fn start(self, tasks: &Tasks) {
        let Inner { registry, authorizer, budgets, .. } = &*self.api.0;
        let policy = authz::run(registry.clone(), authorizer.clone(), self.readiness.gate_of(hooks::INFORMERS));
        tasks.spawn_until_cancelled("rbac index", OnFailure::Shutdown, policy);
        let (fairness, followed) = (budgets.fairness.clone(), self.readiness.gate_of(hooks::FAIRNESS));
        let adjusting = fairness::follow::adjust(fairness.clone());
        let following = fairness::follow::run(registry.clone(), fairness, followed);
        tasks.spawn_until_cancelled("flow schemas", OnFailure::Shutdown, following);
        tasks.spawn_until_cancelled("priority levels", OnFailure::Shutdown, adjusting);
        let kept = self.readiness.gate_of(hooks::OWN_OBJECTS);
        let gates = self.made.into_iter().chain([kept]).collect();
        let own = bootstrap::keep(registry.clone(), self.service_cidrs, self.advertised, gates);
        tasks.spawn_until_cancelled("own objects", OnFailure::Shutdown, own);
        if let Some(gate) = self.roles {
            tasks.spawn_until_cancelled("default roles", OnFailure::Shutdown, authz::again(registry.clone(), gate));
        }
        let (definitions, revision) = self.definitions;
        let synced = self.readiness.gate_of(hooks::DEFINITIONS);
        let definitions = definitions.run(revision, tasks.clone(), synced);
        tasks.spawn_until_cancelled("custom resource definitions", OnFailure::Shutdown, definitions);
        let told = self.readiness.gate("start-validating-admission-policy-status-controller");
        let policies = admission::policy_status::run(registry.clone(), told);
        tasks.spawn_until_cancelled("policy status", OnFailure::Log, policies);
    }
}

impl Service {
    /// Opens the API and binds the listener.
    pub async fn new(
        engine: Arc<dyn Engine>,
        authority: Arc<Authority>,
        options: Options,
        readiness: Readiness,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let core = Core::open(engine, &authority, &options, readiness, tasks).await?;
        let listener = Listener::bind(options.listen).map_err(|source| Error::Listen { address: options.listen, source })?;
        let certificate = Request::Server { name: "kube-apiserver".into(), sans: options.all_names() };
        let resolver = Resolver::issued(authority.clone(), &options.pki, "apiserver", certificate)?;
        let verifier = Verifier::new(authority.bundle())?;
        let config = tls::server_speaking(&options.tls, resolver, Some(verifier.clone()))?;
        let registry = &core.api.0.registry;
        let aggregation = Aggregation::new(registry.clone(), core.servers.clone(), authority.bundle().to_owned());
        metrics::storage::observe(Arc::downgrade(registry));
        metrics::storage::build_info(&options.build);
        Ok(Self { core, listener, config, verifier, aggregation })
    }

    /// What others hold.
    pub fn handle(&self) -> Result<Handle, Error> {
        let unknown = |source| Error::Listen { address: SocketAddr::from(([0, 0, 0, 0], 0)), source };
        Ok(Handle { api: self.core.api.clone(), address: self.listener.local_addr().map_err(unknown)? })
    }

    /// Serves until the tasks are cancelled, then lets requests finish.
    pub async fn run(self, tasks: Tasks) -> Result<(), Error> {
        let readiness = self.core.readiness.clone();
        let gate = readiness.gate("shutdown");
        let api = self.core.api.clone();
        let inner = api.0.clone();
        let remotes = self.core.remotes.clone();
        self.core.start(&tasks);
        let (available, registered) = (readiness.gate_of(hooks::AGGREGATION), readiness.gate_of(hooks::REGISTRATION));
        let aggregation = self.aggregation.run(available, registered);
        tasks.spawn_until_cancelled("api services", OnFailure::Shutdown, aggregation);
        let identity = crate::identity_lease::keep(inner.registry.clone());
        tasks.spawn_until_cancelled("identity lease", OnFailure::Log, identity);
        readiness.gate_of(hooks::IDENTITY).ready();
        let configured = inner.clone();
        let follow = async move { configured.authenticator.follow().await };
        tasks.spawn_until_cancelled("authentication configuration", OnFailure::Log, follow);
        let configured = inner.clone();
        let follow = async move { configured.authorizer.follow(&remotes).await };
        tasks.spawn_until_cancelled("authorization configuration", OnFailure::Log, follow);
        gate.ready();
        let Ok(()) = server::serve(self.listener, self.config, self.verifier, api, tasks.clone()).await;
        gate.not_ready("process is shutting down");
        // Watches end here, so that their connections drain.
        inner.tasks.drain(std::time::Duration::from_secs(8)).await;
        inner.audit.iter().for_each(Audit::close);
        Ok(())
    }
}

/// What audits, and a task that writes the log to the end.
fn audit(options: &AuditOptions, registry: &Arc<Registry>, remotes: &Remotes, tasks: &Tasks) -> Result<Audit, Error> {
    let (audit, write) = Audit::open(options, registry, remotes)?;
    tasks.spawn("audit log", OnFailure::Shutdown, async move {
        write.await;
        Ok::<_, std::convert::Infallible>(())
    });
    Ok(audit)
}

impl Options {
    /// All names and addresses that clients reach it by: those of its certificate.
    pub fn all_names(&self) -> Vec<String> {
        let own = ["localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let full = format!("kubernetes.default.svc.{}", self.domain);
        let mut names: Vec<String> = own.into_iter().map(str::to_owned).chain([full]).chain(self.names.iter().cloned()).collect();
        names.sort();
        names.dedup();
        names
    }
}
