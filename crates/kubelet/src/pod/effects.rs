//! Carries out the actions of a plan. Each effect owns what it needs and ends in an [`Outcome`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::events::Type;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{DeleteParams, Preconditions};
use runtime::api::{Bandwidth, Container, ContainerState, HostPort, NamespaceMode, PodIdentity, Resources, SandboxConfig};

use super::action::{Action, Stage};
use super::outcome::Outcome;
use super::resize::{self, Steps};
use super::start::{Start, start};
use super::state::State;
use super::{bandwidth, ending, found, last_words};
use crate::allocation::{self, RESOURCES};
use crate::context::Context;
use crate::refs::PodReferences;
use crate::spec::{Member, Model};
use crate::volumes::{Volumes, used};
use crate::{claims, dns, hooks, hosts, images, resources, storage};

/// A postStart hook takes as long as it takes, as upstream: 34 years. Who deletes the pod ends it with its container.
const HOOK_LIMIT: Duration = Duration::from_secs(1 << 30);

/// What effects on one pod share.
#[derive(Clone)]
pub struct Effects {
    /// The kubelet.
    pub cx: Arc<Context>,
    /// The pod's volumes.
    pub volumes: Arc<Volumes>,
    /// The pod's references.
    pub refs: Arc<PodReferences>,
    /// Turns of its images' pulls.
    pub pulls: Arc<images::Turns>,
}

impl Effects {
    /// The future that does `action`.
    pub fn of(&self, action: Action, model: &Model, state: &State) -> BoxFuture<'static, Outcome> {
        let (this, model) = (self.clone(), model.clone());
        match action {
            Action::RunSandbox(attempt) => Box::pin(async move { Outcome::Sandbox(this.run_sandbox(&model, attempt).await) }),
            Action::RemoveLost(id) => Box::pin(async move { Outcome::Removed(this.remove_sandbox(&model, &id).await) }),
            Action::MountVolumes | Action::RefreshVolumes => Box::pin(async move { this.make_volumes(&model).await }),
            Action::Resize => {
                let steps = resize::steps(&model, state, self.cx.machine.memory_bytes);
                Box::pin(async move { Outcome::Resized(this.resize(&model, steps).await) })
            }
            Action::RestartAll { round, .. } => Box::pin(async move {
                let written = this.write_rounds(&model, round.clone()).await;
                Outcome::AllRestart(round, written)
            }),
            Action::Measure => {
                let running =
                    state.slots.iter().filter_map(|(name, slot)| Some((name.clone(), slot.current.as_ref()?.id.clone())));
                let running = running.collect();
                Box::pin(async move {
                    let (verdict, pause) = storage::check(&this.cx, &model, running).await;
                    Outcome::Measured(verdict, pause)
                })
            }
            Action::EnsureImage(name) => Box::pin(async move {
                let Some(member) = model.member(&name) else { return gone(name) };
                let result = images::ensure(&this.cx, &model, member, (&this.refs, &this.pulls)).await;
                Outcome::Image(name, member.spec.image.clone(), result)
            }),
            Action::Start(name) => self.start(name, model, state),
            Action::PostStart(name) => {
                let id = current_id(state, &name);
                let ip = pod_ip(&self.cx, &model, state);
                Box::pin(async move {
                    let result = this.post_start(&model, &name, &id, ip).await;
                    Outcome::Hook(name, id, result)
                })
            }
            Action::PreStop { name, grace } => {
                let id = current_id(state, &name);
                let ip = pod_ip(&self.cx, &model, state);
                Box::pin(async move {
                    if let Some(member) = model.member(&name) {
                        this.pre_stop(&model, member, &id, ip, grace).await;
                    }
                    Outcome::PreStop(name, id)
                })
            }
            Action::Stop { name, grace, message, stage } => {
                let id = current_id(state, &name);
                let ip = pod_ip(&self.cx, &model, state);
                let ends = state.ending.is_some();
                Box::pin(async move {
                    let stopped = this.stop(&model, &name, &id, ip, grace, message, stage).await;
                    if ends && let Err(error) = &stopped {
                        this.not_killed(&model, error);
                    }
                    Outcome::Stopped(name, id, stopped)
                })
            }
            Action::StopSandbox(id) => Box::pin(async move {
                let stopped = this.cx.runtime().stop_sandbox(&id).await.map_err(|error| error.to_string());
                if let Err(error) = &stopped {
                    this.not_killed(&model, error);
                }
                Outcome::SandboxStopped(stopped)
            }),
            Action::GiveBack => Box::pin(async move { Outcome::GivenBack(this.give_back(&model).await) }),
            Action::Unmount => Box::pin(async move { Outcome::Unmounted(this.unmount(&model).await) }),
            Action::Delete => Box::pin(async move { Outcome::Deleted(this.delete(&model).await) }),
        }
    }

    /// Makes the pod's volumes, or brings them up to date. Each that fails has an event.
    async fn make_volumes(&self, model: &Model) -> Outcome {
        let result = self.volumes.sync(model, &self.refs).await;
        for told in result.as_ref().err().into_iter().flatten() {
            self.cx.pod_event(model, Type::Warning, told.reason, told.message.clone());
        }
        let due = result.map(|due| due.map(|shown| self.cx.clock.of(shown)));
        let names = used::volumes(model).map(|volume| volume.name.clone()).collect();
        Outcome::Volumes(
            names,
            due.map_err(|failures| failures.into_iter().map(|told| told.message).collect::<Vec<_>>().join("; ")),
        )
    }

    async fn write_rounds(&self, model: &Model, rounds: BTreeMap<String, u32>) -> Result<(), String> {
        let directory = self.cx.pod_dir(model.uid());
        let written = tokio::task::spawn_blocking(move || found::write_rounds(&directory, &rounds)).await;
        written.unwrap_or_else(|error| Err(error.into())).map_err(|error| error.to_string())
    }

    /// Gives claimed devices back to their drivers.
    async fn give_back(&self, model: &Model) -> Result<(), String> {
        let given = claims::prepare::give_back(&self.cx, model.uid()).await;
        given.inspect_err(|error| {
            let message = format!("Failed to give back dynamic resources: {error}");
            self.cx.pod_event(model, Type::Warning, "FailedUnprepareDynamicResources", message);
        })
    }

    /// Takes the pod's volumes away, and then gives back what else it had.
    async fn unmount(&self, model: &Model) -> Result<(), String> {
        let removed = self.volumes.remove(model.uid()).await;
        match &removed {
            Ok(()) => self.cx.give_back(model.uid()).await,
            // Upstream only logs it, under a reason that it defines and no longer uses: whoever deleted the pod cannot see why it stays.
            Err(error) => self.cx.pod_event(model, Type::Warning, "FailedUnMount", error.clone()),
        }
        removed
    }

    /// Tells that the pod cannot end, as upstream's kubelet does.
    fn not_killed(&self, model: &Model, error: &str) {
        self.cx.pod_event(model, Type::Warning, "FailedKillPod", format!("error killing pod: {error}"));
    }

    fn start(&self, name: String, model: Model, state: &State) -> BoxFuture<'static, Outcome> {
        let slot = state.slots.get(&name);
        let image = slot.and_then(|slot| slot.image.done()).cloned();
        let attempt = slot.map_or(0, |slot| slot.attempt);
        let parts = (model.member(&name).cloned(), image, state.sandbox.done().cloned());
        let this = self.clone();
        Box::pin(async move {
            let (Some(member), Some(image), Some(sandbox)) = parts else { return gone(name) };
            let request = Start { model, member, image, sandbox, attempt, refs: this.refs.clone() };
            Outcome::Started(name, start(&this.cx, request).await)
        })
    }

    async fn run_sandbox(&self, model: &Model, attempt: u32) -> Result<runtime::api::Sandbox, String> {
        let cx = &self.cx;
        let failed = |message: String| {
            cx.pod_event(model, Type::Warning, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"));
            message
        };
        if attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            cx.pod_event(model, Type::Normal, "SandboxChanged", message);
        }
        claims::prepare::prepare(cx, model).await?;
        let mut config = sandbox_config(cx, model, attempt).map_err(|error| failed(error.to_string()))?;
        if !config.host_network {
            config.bandwidth = bandwidth::of(&config.annotations).map_err(|error| failed(error.to_string()))?;
        }
        if model.spec().host_users == Some(false) {
            config.users = Some(cx.users.of_pod(model.uid()).map_err(|error| failed(error.to_string()))?);
        }
        if let Some(class) = model.spec().runtime_class_name.as_deref().filter(|class| !class.is_empty()) {
            config.runtime_handler = self.handler(class).await.map_err(&failed)?;
        }
        cx.record_logs(model).await.map_err(|error| failed(error.to_string()))?;
        cx.runtime().run_sandbox(config).await.map_err(|error| failed(error.to_string()))
    }

    /// The handler of a RuntimeClass, if this node has it.
    async fn handler(&self, class: &str) -> Result<String, String> {
        let classes = self.cx.options.informers.of::<RuntimeClass>();
        classes.synced().await;
        let class = classes.get(None, class).ok_or_else(|| format!("RuntimeClass {class:?} not found"))?;
        self.cx.runtime().check_handler(&class.handler).await.map_err(|error| error.to_string())?;
        Ok(class.handler.clone())
    }

    async fn remove_sandbox(&self, model: &Model, id: &str) -> Result<(), String> {
        let runtime = self.cx.runtime();
        let removed = async {
            runtime.stop_sandbox(id).await?;
            runtime.remove_sandbox(id).await
        };
        removed.await.map_err(|error| {
            tracing::warn!(pod = model.title(), sandbox = id, %error, "cannot remove a sandbox that no longer serves");
            error.to_string()
        })
    }

    async fn resize(&self, model: &Model, steps: Steps) -> Result<(Vec<Container>, Option<runtime::api::Sandbox>), String> {
        let runtime = self.cx.runtime();
        let work = async {
            if let Some(limits) = steps.wide {
                runtime.update_sandbox(&steps.sandbox, limits).await?;
            }
            for (id, limits, text) in steps.containers {
                let annotations = BTreeMap::from([(RESOURCES.to_owned(), text)]);
                match runtime.update_container(&id, limits, annotations).await {
                    // It has ended meanwhile: the next one is made with the new limits.
                    Err(runtime::api::Error::NotFound(_)) => {}
                    result => result?,
                }
            }
            if let Some(limits) = steps.narrow {
                runtime.update_sandbox(&steps.sandbox, limits).await?;
            }
            let (containers, sandboxes) = tokio::try_join!(runtime.containers(Some(&steps.sandbox)), runtime.sandboxes())?;
            Ok((containers, sandboxes.into_iter().find(|sandbox| sandbox.id == steps.sandbox)))
        };
        work.await.map_err(|error: runtime::api::Error| {
            let error = error.to_string();
            let text = allocation::summary(model, Some(&error));
            self.cx.pod_event(model, Type::Warning, "ResizeError", format!("Pod resize error: {text}"));
            error
        })
    }

    async fn post_start(&self, model: &Model, name: &str, id: &str, ip: Option<IpAddr>) -> Result<(), String> {
        let Some(member) = model.member(name) else { return Ok(()) };
        let Some(handler) = member.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return Ok(());
        };
        let result = hooks::run(&self.cx, model, member, id, ip, handler, HOOK_LIMIT).await;
        result.inspect_err(|error| {
            tracing::info!(pod = model.title(), container = name, error, "postStart hook failed");
            self.cx.container_event(model, member, Type::Warning, "FailedPostStartHook", "PostStartHook failed");
        })
    }

    /// Runs the preStop hook, if there is one. What it does not do holds nothing up.
    async fn pre_stop(&self, model: &Model, member: &Member, id: &str, ip: Option<IpAddr>, grace: Duration) {
        let handler = member.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        if let Some(handler) = handler
            && let Err(error) = hooks::run(&self.cx, model, member, id, ip, handler, grace).await
        {
            tracing::info!(pod = model.title(), container = member.spec.name, error, "preStop hook failed");
            self.cx.container_event(model, member, Type::Warning, "FailedPreStopHook", "PreStopHook failed");
        }
    }

    #[allow(clippy::too_many_arguments)] // One per part of the action.
    async fn stop(
        &self,
        model: &Model,
        name: &str,
        id: &str,
        ip: Option<IpAddr>,
        grace: Duration,
        message: String,
        stage: Stage,
    ) -> Result<(), String> {
        let member = model.member(name);
        let begun = Instant::now();
        if let Some(member) = member.filter(|_| stage != Stage::Shortened) {
            self.cx.container_event(model, member, Type::Normal, "Killing", message);
            if stage == Stage::Begin {
                self.pre_stop(model, member, id, ip, grace).await;
            }
        }
        let left = grace.saturating_sub(begun.elapsed()).max(ending::LEAST);
        let signal =
            member.and_then(|member| member.spec.lifecycle.as_ref()).and_then(|lifecycle| lifecycle.stop_signal.as_deref());
        self.cx.runtime().stop_container(id, left, signal).await.map_err(|error| error.to_string())
    }

    /// Deletes the API object for good, if it still is this pod.
    async fn delete(&self, model: &Model) -> Result<(), String> {
        let api = client::Api::<Pod>::namespaced(self.cx.options.client.clone(), model.namespace());
        let preconditions = Preconditions { uid: Some(model.uid().to_owned()), resource_version: None };
        let params =
            DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(model.name(), &params).await {
            Ok(_) => Ok(()),
            // Gone, or another pod of that name is there by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What the runtime says of the pod.
    pub fn observe(&self, model: &Model, state: &State) -> BoxFuture<'static, Outcome> {
        let (cx, model) = (self.cx.clone(), model.clone());
        let sandbox = state.sandbox.done().map(|sandbox| sandbox.id.clone());
        let mut known = state.slots.values().filter_map(|slot| slot.exited().map(|c| c.id.clone())).collect::<Vec<_>>();
        known.sort_unstable();
        let running: Vec<_> =
            state.slots.values().filter(|slot| slot.running()).filter_map(|slot| slot.current.clone()).collect();
        Box::pin(async move {
            let Some(id) = sandbox else { return Outcome::Nothing };
            let (containers, sandboxes) = tokio::join!(cx.runtime().containers(Some(&id)), cx.runtime().sandboxes());
            let (Ok(mut containers), Ok(sandboxes)) = (containers, sandboxes) else { return Outcome::Nothing };
            let lost = running.into_iter().filter(|known| !containers.iter().any(|container| container.id == known.id));
            let lost: Vec<_> = lost.map(unknown_end).collect();
            containers.retain(|container| known.binary_search(&container.id).is_err());
            containers.extend(lost);
            for container in &mut containers {
                last_words::add(&cx, &model, container).await;
            }
            let state = sandboxes.iter().find(|sandbox| sandbox.id == id).map(|sandbox| sandbox.state);
            Outcome::Observed(containers, state)
        })
    }
}

/// A container that is no longer in the specification has nothing to be done for.
fn gone(name: String) -> Outcome {
    Outcome::Stopped(name, String::new(), Ok(()))
}

/// A container that ran and that the runtime knows no more.
fn unknown_end(container: Container) -> Container {
    Container {
        state: ContainerState::Exited,
        exit_code: Some(137),
        reason: "ContainerStatusUnknown".to_owned(),
        message: "The container could not be located when the pod was observed".to_owned(),
        finished: Some(jiff::Timestamp::now()),
        ..container
    }
}

fn current_id(state: &State, name: &str) -> String {
    state.slots.get(name).and_then(|slot| slot.current.as_ref()).map(|c| c.id.clone()).unwrap_or_default()
}

/// The pod's primary address.
pub fn pod_ip(cx: &Context, model: &Model, state: &State) -> Option<IpAddr> {
    if model.host_network() {
        return cx.options.node_ips.first().copied();
    }
    state.sandbox.done().and_then(|sandbox| sandbox.ips.first().copied())
}

fn sandbox_config(cx: &Context, model: &Model, attempt: u32) -> Result<SandboxConfig, hosts::LongName> {
    let spec = model.spec();
    let (resolv, warning) = dns::pod_resolv(model, &cx.options.cluster_dns, &cx.host_resolv);
    if let Some(warning) = warning {
        cx.pod_event(model, Type::Warning, "DNSConfigForming", warning);
    }
    let mode = |host: Option<bool>, shared: bool| match (host, shared) {
        (Some(true), _) => NamespaceMode::Node,
        (_, true) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    let hostname = hosts::kernel_hostname(model, &cx.options.cluster_dns.domain, &cx.machine.hostname)?;
    Ok(SandboxConfig {
        pod: PodIdentity { name: model.name().to_owned(), namespace: model.namespace().to_owned(), uid: model.uid().to_owned() },
        attempt,
        users: None,
        hostname,
        log_directory: cx.log_dir(model),
        resolv_conf: Some(resolv.text()),
        host_network: model.host_network(),
        host_ports: host_ports(model),
        bandwidth: Bandwidth::default(),
        pid: mode(spec.host_pid, spec.share_process_namespace == Some(true)),
        ipc: mode(spec.host_ipc, true),
        sysctls: sysctls(model),
        cgroup_parent: resources::cgroup_parent(model),
        resources: pod_limits(cx, model),
        runtime_handler: String::new(),
        labels: model.pod.metadata.labels.clone().unwrap_or_default(),
        annotations: model.pod.metadata.annotations.clone().unwrap_or_default(),
    })
}

/// Limits of the pod's own group.
fn pod_limits(cx: &Context, model: &Model) -> Resources {
    let huge_pages = resources::pod_huge_pages(model, cx.machine.huge_pages.keys());
    let limits = resources::pod_group(model, cx.cpus.has_exclusive(model.uid()));
    Resources { pids_limit: cx.options.pod_max_pids, huge_pages, ..limits }
}

/// Sysctls of the pod: its own, and before them those that containerd and Docker set in a network of the pod's own. A user other than
/// root may listen on any port there and send echo requests, which takes a privilege from nobody.
fn sysctls(model: &Model) -> BTreeMap<String, String> {
    let spec = model.spec();
    let mut all = BTreeMap::new();
    if !model.host_network() {
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        // Groups that a user namespace does not have cannot be named in it.
        if spec.host_users != Some(false) {
            all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        }
    }
    let own = spec.security_context.iter().flat_map(|security| security.sysctls.iter().flatten());
    all.extend(own.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())));
    all
}

/// Ports that the node forwards; on the host network the containers open them themselves.
fn host_ports(model: &Model) -> Vec<HostPort> {
    if model.host_network() {
        return Vec::new();
    }
    let ports = model.members.iter().flat_map(|member| member.spec.ports.iter().flatten());
    let ports = ports.filter_map(|port| {
        Some(HostPort {
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            container_port: u16::try_from(port.container_port).ok()?,
            host_port: u16::try_from(port.host_port?).ok().filter(|port| *port > 0)?,
            host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()).filter(|ip: &IpAddr| !ip.is_unspecified()),
        })
    });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing;

    /// Sysctls on a network of the pod's own: containerd's defaults since 2.0 (`enable_unprivileged_ports`, `enable_unprivileged_icmp`).
    #[test]
    fn who_is_not_root_may_listen_and_ping() {
        let check = |mut spec: serde_json::Value, expected: &[(&str, &str)]| {
            spec["containers"] = json!([{"name": "a", "image": "i"}]);
            let found = sysctls(&testing::model(spec.clone()));
            assert_eq!(found.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), expected, "{spec}");
        };
        let (port, groups) = ("net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range");
        check(json!({}), &[(port, "0"), (groups, "0 2147483647")]);
        check(json!({"hostNetwork": true}), &[]);
        check(json!({"hostUsers": false}), &[(port, "0")]);
        let own = json!({"securityContext": {"sysctls": [{"name": port, "value": "1024"}, {"name": "net.core.somaxconn", "value": "9"}]}});
        check(own, &[("net.core.somaxconn", "9"), (port, "1024"), (groups, "0 2147483647")]);
    }
}
