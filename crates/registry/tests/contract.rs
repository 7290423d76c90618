//! Every stored kind through every verb, on the embedded engine.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use apimachinery::{Reason, meta};
use base::tasks::Tasks;
use registry::{Context, DeleteOptions, Deleted, Entry, EventType, ListOptions, Options, Patch, Registry, Served};
use serde_json::{Value, json};

async fn open(dir: &std::path::Path) -> (Arc<Registry>, store::Fjall) {
    let (tasks, _failures) = Tasks::root();
    let engine = store::Fjall::open(store::Options::new(dir), &tasks).await.unwrap();
    let options = Options::new(vec!["10.43.0.0/16".parse().unwrap()]);
    (Registry::open(Arc::new(engine.clone()), Vec::new(), options, &tasks).await.unwrap(), engine)
}

/// The smallest valid object of a kind.
fn minimal(res: &Served, namespace: &str, name: &str) -> Value {
    let def = &res.def;
    let mut object =
        json!({"apiVersion": def.api_version(), "kind": def.kind, "metadata": {"name": name, "labels": {"minimal": "yes"}}});
    if def.namespaced {
        object["metadata"]["namespace"] = namespace.into();
    }
    let containers = json!([{"name": "c", "image": "image:1"}]);
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}});
    let ending = json!({"spec": {"restartPolicy": "Never", "containers": containers}});
    let extra = match &*def.kind {
        "Pod" => json!({"spec": {"containers": containers}}),
        "PodTemplate" => json!({"template": template}),
        "ReplicationController" => json!({"spec": {"template": template}}),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}})
        }
        "Job" => json!({"spec": {"template": ending}}),
        "CronJob" => json!({"spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": ending}}}}),
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"maxReplicas": 1, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}})
        }
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "Event" if def.group == "events.k8s.io" => json!({
            "regarding": {"namespace": namespace, "name": "x", "kind": "Pod"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "c", "reportingInstance": "c-1", "action": "Do", "reason": "Done", "type": "Normal",
        }),
        "Event" => json!({"involvedObject": {"namespace": namespace, "name": "x", "kind": "Pod"}}),
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": []}),
        "RuntimeClass" => json!({"handler": "runc"}),
        "RoleBinding" | "ClusterRoleBinding" => {
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "x"}})
        }
        "ControllerRevision" => json!({"revision": 1, "data": {"spec": {}}}),
        "PriorityClass" => json!({"value": 1}),
        "PersistentVolume" => json!({"spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"},
        }}),
        "PersistentVolumeClaim" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        }
        "StorageClass" => json!({"provisioner": "example.com/disk"}),
        "VolumeAttributesClass" => json!({"driverName": "example.com", "parameters": {"iops": "1"}}),
        "CSIDriver" | "NetworkPolicy" | "DeviceClass" | "ResourceClaim" | "ResourceClaimTemplate" => json!({"spec": {}}),
        "ResourceSlice" => json!({"spec": {
            "driver": "example.com", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        }}),
        "CSINode" => json!({"spec": {"drivers": []}}),
        "CSIStorageCapacity" => json!({"storageClassName": "fast"}),
        "VolumeAttachment" => {
            json!({"spec": {"attacher": "example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}})
        }
        "Ingress" => json!({"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}}),
        "IngressClass" => json!({"spec": {"controller": "example.com/ingress"}}),
        "IPAddress" => json!({"spec": {"parentRef": {"resource": "services", "namespace": "ns", "name": "web"}}}),
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.96.0.0/16"]}}),
        "CustomResourceDefinition" => json!({"spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": name.trim_end_matches(".example.com"), "kind": "One"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        }}),
        "APIService" => json!({"spec": {
            "group": "example.com", "version": name.trim_end_matches(".example.com"), "groupPriorityMinimum": 1, "versionPriority": 1,
        }}),
        "CertificateSigningRequest" => json!({"spec": {
            "request": base64(include_str!("request.pem")), "signerName": "example.com/one", "usages": ["client auth"],
        }}),
        "ClusterTrustBundle" => json!({"spec": {"trustBundle": include_str!("root.pem")}}),
        "PodCertificateRequest" => json!({"spec": {
            "signerName": "example.com/one", "podName": "p", "podUID": "u", "serviceAccountName": "default", "serviceAccountUID": "v",
            "nodeName": "n", "nodeUID": "w", "stubPKCS10Request": STUB,
        }}),
        "FlowSchema" => json!({"spec": {"priorityLevelConfiguration": {"name": "exempt"}}}),
        "PriorityLevelConfiguration" => json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}}),
        "ValidatingAdmissionPolicy" => {
            json!({"spec": {"matchConstraints": constraints(), "validations": [{"expression": "true"}]}})
        }
        "MutatingAdmissionPolicy" => json!({"spec": {
            "matchConstraints": constraints(), "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/x'}]"}}],
        }}),
        "ValidatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "x", "validationActions": ["Deny"]}}),
        "MutatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "x"}}),
        _ => json!({}),
    };
    for (key, value) in extra.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}

/// A request for a certificate, DER.
const STUB: &str = concat!(
    "MIG6MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABFgfwsAQCpGc8sx1g7FIGV0UGAVqaBNznWNoQccNUxSlyBWTy/Xo",
    "6+iFGX+JGdf7oLnjacj0+6rrhxQhja+UJyygADAKBggqhkjOPQQDAgNIADBFAiEA0DjyvHBXhz2c6AtUm9pTlbvSJPI+kEmkL8M8",
    "IPwCy+MCIA0ryLoDRjzZ1bdB7+eq5kKZgs624N3RmGmU1r7LwjhV",
);

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn constraints() -> Value {
    json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]})
}

/// The name of one of a test's objects: some kinds have names that follow from what they say.
fn name_of(res: &Served, number: usize) -> String {
    match &*res.def.kind {
        "CustomResourceDefinition" => format!("kind{number}.example.com"),
        "APIService" => format!("v{number}.example.com"),
        _ if res.def.name == kinds::NameRule::IpAddress => format!("10.0.0.{number}"),
        _ => format!("name{number}"),
    }
}

fn context(manager: &str) -> Context {
    Context { manager: manager.into(), ..Context::default() }
}

async fn decoded(res: &Served, cx: &Context, mut object: Value) -> Value {
    res.decode(cx, "", &mut object).unwrap();
    object
}

/// Patches the status. A dry run, which decodes all of the object, says what is written.
async fn write_status(
    registry: &Registry,
    res: &Served,
    cx: &Context,
    (namespace, name): (&str, &str),
    patch: Patch,
) -> Arc<Entry> {
    let timeless = |entry: &Entry| {
        let mut object = entry.value();
        meta::remove(&mut object, "resourceVersion");
        let entries = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut).into_iter().flatten();
        entries.for_each(|entry| entry["time"] = Value::Null);
        object
    };
    let rehearsal = Context { dry_run: true, ..cx.clone() };
    let expected = registry.patch(&rehearsal, res, "status", namespace, name, patch.clone()).await.unwrap().entry;
    let written = registry.patch(cx, res, "status", namespace, name, patch).await.unwrap().entry;
    assert_eq!(timeless(&written), timeless(&expected), "{}", res.def.kind);
    written
}

/// Upstream's `TestFieldsWipingConsistency` (test/integration/apiserver/apidefinitions/fields_wiping_test.go): the status of all but older
/// kinds leaves metadata as it is, and who applies it owns none.
async fn check_metadata_of_status(registry: &Registry, res: &Arc<Served>, namespace: &str, name: &str) -> store::Revision {
    const OPEN: [&str; 18] = [
        "CertificateSigningRequest",
        "CronJob",
        "CustomResourceDefinition",
        "DaemonSet",
        "HorizontalPodAutoscaler",
        "Ingress",
        "Job",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "PodDisruptionBudget",
        "ReplicaSet",
        "ReplicationController",
        "ResourceQuota",
        "Service",
        "StatefulSet",
    ];
    let (kind, cx) = (&*res.def.kind, context("tester"));
    let labels = OPEN.contains(&kind);
    let others = labels || kind == "Deployment";
    let patch = Patch::Merge(r#"{"metadata": {"labels": {"by": "status"}}}"#.into());
    let patched = write_status(registry, res, &cx, (namespace, name), patch).await.value();
    assert_eq!(meta::label(&patched, "by").is_some(), labels, "{kind}");
    let mut noted = patched.clone();
    meta::set_annotation(&mut noted, "by", "status");
    meta::add_finalizer(&mut noted, "example.com/status");
    let mut updated = registry.update(&cx, res, "status", namespace, name, noted).await.unwrap().entry.value();
    assert_eq!(meta::annotation(&updated, "by").is_some(), others, "{kind}");
    assert_eq!(meta::has_finalizer(&updated, "example.com/status"), others, "{kind}");
    if meta::remove_finalizer(&mut updated, "example.com/status") {
        registry.update(&cx, res, "status", namespace, name, updated).await.unwrap();
    }
    let applied = json!({"apiVersion": meta::api_version(&patched), "kind": kind,
        "metadata": {"name": name, "labels": {"applied": "yes"}, "annotations": {"applied": "yes"}}});
    let applied = registry.patch(&context("applier"), res, "status", namespace, name, Patch::Apply(applied)).await.unwrap().entry;
    let value = applied.value();
    let own = meta::managed_fields(&value).iter().find(|entry| entry["manager"] == "applier");
    for (field, is_open) in [("labels", labels), ("annotations", others)] {
        let found = own.is_some_and(|own| !own["fieldsV1"]["f:metadata"][format!("f:{field}")].is_null());
        assert_eq!((found, value["metadata"][field]["applied"] == "yes"), (is_open, is_open), "{kind}: {field} in {value}");
    }
    applied.revision
}

async fn check_kind(registry: &Registry, res: &Arc<Served>) {
    let namespace = if res.def.namespaced { "ns" } else { "" };
    let (kind, one) = (&*res.def.kind, &name_of(res, 1));
    let cx = context("tester");
    let object = decoded(res, &cx, minimal(res, "ns", one)).await;
    let created =
        registry.create(&cx, res, namespace, None, object.clone()).await.unwrap_or_else(|status| panic!("{kind}: {status}"));
    let value = created.value();
    assert_eq!(meta::resource_version(&value), created.revision.to_string(), "{kind}");
    assert!(!meta::uid(&value).is_empty() && !meta::managed_fields(&value).is_empty(), "{kind}: {value}");

    let again = registry.create(&cx, res, namespace, None, object).await.unwrap_err();
    assert!(again.is(Reason::AlreadyExists), "{kind}: {again}");
    assert_eq!(registry.get(res, namespace, one, None).await.unwrap().json, created.json, "{kind}");

    let mut begin = created.revision;
    if res.def.has_status() {
        begin = check_metadata_of_status(registry, res, namespace, one).await;
    }
    let mut watch = registry
        .watch(res, None, &ListOptions { resource_version: Some(begin.to_string()), ..ListOptions::default() })
        .await
        .unwrap();
    let merge = Patch::Merge(r#"{"metadata": {"labels": {"x": "y"}}}"#.into());
    let patched =
        registry.patch(&cx, res, "", namespace, one, merge.clone()).await.unwrap_or_else(|status| panic!("{kind}: {status}"));
    assert_eq!(meta::label(&patched.entry.value(), "x"), Some("y"), "{kind}");
    let same = registry.patch(&cx, res, "", namespace, one, merge).await.unwrap();
    assert_eq!(same.entry.revision, patched.entry.revision, "{kind}: a patch that changes nothing writes nothing");

    let stale = registry.update(&cx, res, "", namespace, one, value).await.unwrap_err();
    assert!(stale.is(Reason::Conflict), "{kind}: {stale}");
    let mut fresh = patched.entry.value();
    meta::set_annotation(&mut fresh, "k", "v");
    let updated = registry.update(&cx, res, "", namespace, one, fresh).await.unwrap();

    let selector = ListOptions { labels: Some(apimachinery::labels::Selector::parse("x=y").unwrap()), ..ListOptions::default() };
    assert_eq!(registry.list(res, None, &selector).await.unwrap().entries.len(), 1, "{kind}");

    registry
        .delete(&cx, res, namespace, one, DeleteOptions { uid: Some("other".into()), ..DeleteOptions::default() })
        .await
        .unwrap_err();
    let background = DeleteOptions { propagation: Some("Background".into()), ..DeleteOptions::default() };
    let deleted = registry.delete(&cx, res, namespace, one, background).await.unwrap();
    let kept = ["Namespace", "CustomResourceDefinition"].contains(&kind);
    assert_eq!(matches!(deleted, Deleted::Later(_)), kept, "{kind}");
    if !kept {
        assert!(registry.get(res, namespace, one, None).await.unwrap_err().is(Reason::NotFound), "{kind}");
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = watch.next().await.unwrap();
        seen.push((event.kind, event.entry.revision));
    }
    let last = if kept { EventType::Modified } else { EventType::Deleted };
    assert_eq!(seen[0], (EventType::Modified, patched.entry.revision), "{kind}");
    assert_eq!(seen[1], (EventType::Modified, updated.entry.revision), "{kind}");
    assert_eq!(seen[2].0, last, "{kind}");
}

/// What a list says comes in pages, too: each object once, all of one revision, and as many behind a page as it says.
async fn check_pages(registry: &Registry, res: &Arc<Served>) {
    for scope in [None, res.def.namespaced.then_some("ns")] {
        let names = |list: &registry::List| list.entries.iter().map(|entry| entry.name().to_owned()).collect::<Vec<_>>();
        let all = registry.list(res, scope, &ListOptions::default()).await.unwrap();
        let (mut paged, mut token) = (Vec::new(), None);
        loop {
            let options = ListOptions { limit: 1, continue_token: token, ..ListOptions::default() };
            let page = registry.list(res, scope, &options).await.unwrap();
            paged.extend(names(&page));
            let left = i64::try_from(all.entries.len() - paged.len()).unwrap();
            assert_eq!((page.revision, page.remaining), (all.revision, (left > 0).then_some(left)), "{}", res.def.kind);
            token = page.continue_token;
            if token.is_none() {
                break;
            }
        }
        assert!(all.entries.len() >= 2, "{}", res.def.kind);
        assert_eq!(paged, names(&all), "{}", res.def.kind);
    }
}

/// Collections are deleted by selector; what is not selected stays.
async fn check_collection(registry: &Registry, res: &Arc<Served>) {
    let (cx, kind) = (context("tester"), &*res.def.kind);
    let namespace = if res.def.namespaced { "ns" } else { "" };
    let names = [name_of(res, 2), name_of(res, 3)];
    for (name, label) in names.iter().zip(["goes", "stays"]) {
        let mut object = minimal(res, "ns", name);
        object["metadata"]["labels"]["collection"] = label.into();
        registry.create(&cx, res, namespace, None, decoded(res, &cx, object).await).await.unwrap();
    }
    check_pages(registry, res).await;
    let labels = |text: &str| Some(apimachinery::labels::Selector::parse(text).unwrap());
    let goes = ListOptions { labels: labels("collection=goes"), ..ListOptions::default() };
    let scope = res.def.namespaced.then_some("ns");
    let deleted = registry.delete_collection(&cx, res, scope, &goes, DeleteOptions::default()).await.unwrap();
    assert_eq!(deleted.entries.len(), 1, "{kind}");
    let left = ListOptions { labels: labels("collection"), ..ListOptions::default() };
    let left = registry.list(res, scope, &left).await.unwrap().entries;
    let left: Vec<_> =
        left.iter().filter(|entry| !meta::is_deleting(&entry.value())).map(|entry| entry.name().to_owned()).collect();
    assert_eq!(left, names[1..], "{kind}");
    registry.delete(&cx, res, namespace, &names[1], DeleteOptions::default()).await.unwrap();
}

/// Conformance: [sig-network] Ingress API should support creating Ingress API operations [Conformance]
/// Conformance: [sig-network] IngressClass API should support creating IngressClass API operations [Conformance]
/// Conformance: [sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations [Conformance]
/// Conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass [Conformance]
/// Conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim [Conformance]
/// Conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate [Conformance]
/// Conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice [Conformance]
/// Conformance: [sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver [Conformance]
/// Conformance: [sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode [Conformance]
/// Conformance: [sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations [Conformance]
/// Conformance: [sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status [Conformance]
/// Conformance: [sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC [Conformance]
/// Conformance: [sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass [Conformance]
/// Conformance: [sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status [Conformance]
/// Conformance: [sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment [Conformance]
/// Conformance: [sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass [Conformance]
#[tokio::test]
async fn every_kind_through_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _engine) = open(dir.path()).await;
    for res in registry.catalog().iter().filter(|res| res.def.stored) {
        check_kind(&registry, res).await;
        check_collection(&registry, res).await;
    }
}

/// Upstream's `ValidateObjectMeta` of `pkg/apis/core/validation`, by which all kinds are checked but those whose groups use the one of
/// `apimachinery` alone: a finalizer has a domain in its name, or is a standard one.
#[tokio::test]
async fn finalizers_have_domains() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _engine) = open(dir.path()).await;
    let told =
        "metadata.finalizers[1]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified";
    let rehearsal = Context { dry_run: true, ..context("tester") };
    let mut free = Vec::new();
    for res in registry.catalog().iter().filter(|res| res.def.stored) {
        let mut object = minimal(res, "ns", &name_of(res, 4));
        object["metadata"]["finalizers"] = json!(["example.com/x", "x"]);
        let namespace = if res.def.namespaced { "ns" } else { "" };
        match registry.create(&rehearsal, res, namespace, None, decoded(res, &rehearsal, object).await).await {
            Ok(_) => free.push(format!("{}/{}", res.def.api_version(), res.def.kind)),
            Err(status) => assert!(status.code == 422 && status.message.ends_with(told), "{}: {status}", res.def.kind),
        }
    }
    free.sort();
    let admission = ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "MutatingWebhookConfiguration"].into_iter();
    let admission =
        admission.chain(["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration"]);
    let mut expected: Vec<String> = admission.map(|kind| format!("admissionregistration.k8s.io/v1/{kind}")).collect();
    expected.extend(
        [
            "apiextensions.k8s.io/v1/CustomResourceDefinition",
            "apiregistration.k8s.io/v1/APIService",
            "coordination.k8s.io/v1/Lease",
            "policy/v1/PodDisruptionBudget",
            "v1/Event",
        ]
        .map(str::to_owned),
    );
    assert_eq!(free, expected);
    let (cx, maps) = (context("tester"), registry.resource("", "v1", "configmaps").unwrap());
    registry.create(&cx, &maps, "ns", None, decoded(&maps, &cx, minimal(&maps, "ns", "m")).await).await.unwrap();
    let patch = async |names: Value| {
        let patch = json!({"metadata": {"finalizers": names}}).to_string();
        registry.patch(&cx, &maps, "", "ns", "m", Patch::Merge(patch.into())).await.map(drop).map_err(|status| status.code)
    };
    assert_eq!(patch(json!(["kubernetes", "orphan", "example.com/x"])).await, Ok(()));
    assert_eq!(patch(json!(["x"])).await, Err(422));
}

#[tokio::test]
async fn events_are_the_same_objects_in_both_groups() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _engine) = open(dir.path()).await;
    let core = &registry.resource("", "v1", "events").unwrap();
    let shown = &registry.resource("events.k8s.io", "v1", "events").unwrap();
    let cx = context("t");
    let all = ListOptions { send_initial_events: Some(true), allow_bookmarks: true, ..ListOptions::default() };
    let mut watch = registry.watch(shown, Some("ns"), &all).await.unwrap();
    let bookmark = watch.next().await.unwrap();
    assert_eq!(meta::api_version(&bookmark.entry.value()), "events.k8s.io/v1");

    let mut old = minimal(core, "ns", "old");
    (old["message"], old["source"]["component"]) = ("m".into(), "c".into());
    registry.create(&cx, core, "ns", None, decoded(core, &cx, old).await).await.unwrap();
    let seen = watch.next().await.unwrap();
    assert_eq!((seen.kind, &seen.entry.value()["note"]), (EventType::Added, &json!("m")));
    let got = registry.get(shown, "ns", "old", None).await.unwrap();
    assert_eq!((&got.value()["deprecatedSource"]["component"], got.json.clone()), (&json!("c"), seen.entry.json.clone()));
    assert_eq!(got.value().get("source"), None);

    let new = decoded(shown, &cx, minimal(shown, "ns", "new")).await;
    let made = registry.create(&cx, shown, "ns", None, new).await.unwrap().value();
    assert_eq!(meta::managed_fields(&made)[0]["apiVersion"], "events.k8s.io/v1");
    let stored = registry.get(core, "ns", "new", None).await.unwrap().value();
    assert_eq!((&stored["involvedObject"]["name"], &stored["reportingComponent"]), (&json!("x"), &json!("c")));
    assert!(meta::managed_fields(&stored)[0]["fieldsV1"].get("f:involvedObject").is_some(), "{stored}");

    // Recorders name events after objects of any name; events.k8s.io is stricter.
    for (res, name, expected) in [(core, "system:node:One.17a", Ok(())), (shown, "system:node:Two.17a", Err(422))] {
        let event = decoded(res, &cx, minimal(res, "ns", name)).await;
        let made = registry.create(&cx, res, "ns", None, event).await;
        assert_eq!(made.map(drop).map_err(|status| status.code), expected, "{}", res.def.api_version());
    }
    let unnamed = decoded(core, &cx, minimal(core, "ns", "a%b")).await;
    assert_eq!(registry.create(&cx, core, "ns", None, unnamed).await.unwrap_err().code, 422);
    registry.delete(&cx, core, "ns", "system:node:One.17a", DeleteOptions::default()).await.unwrap();

    let count = async |res: &Arc<Served>, selector: &str| {
        let fields = Some(apimachinery::fields::Selector::parse(selector).unwrap());
        registry.list(res, None, &ListOptions { fields, ..ListOptions::default() }).await.map(|list| list.entries.len())
    };
    assert_eq!(count(core, "involvedObject.name=x,reportingComponent=c").await.unwrap(), 1);
    assert_eq!(count(shown, "regarding.name=x,reportingController=c").await.unwrap(), 1);
    assert_eq!(count(shown, "involvedObject.name=x").await.unwrap_err().code, 400);

    let note = Patch::Merge(r#"{"note": "other"}"#.into());
    assert_eq!(registry.patch(&cx, shown, "", "ns", "old", note).await.unwrap_err().code, 422);
    let series = r#"{"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}}"#;
    registry.patch(&cx, shown, "", "ns", "new", Patch::Strategic(series.into())).await.unwrap();
    assert_eq!(registry.get(core, "ns", "new", None).await.unwrap().value()["series"]["count"], 2);
    registry.delete(&cx, shown, "ns", "old", DeleteOptions::default()).await.unwrap();
    assert!(registry.get(core, "ns", "old", None).await.unwrap_err().is(Reason::NotFound));
}

#[tokio::test]
async fn apply_creates_owns_and_conflicts() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _engine) = open(dir.path()).await;
    let res = &registry.resource("", "v1", "configmaps").unwrap();
    let config = |value: &str| {
        Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}}))
    };
    let first = registry.patch(&context("one"), res, "", "ns", "a", config("1")).await.unwrap();
    assert!(first.created);
    let conflict = registry.patch(&context("two"), res, "", "ns", "a", config("2")).await.unwrap_err();
    assert_eq!(conflict.message, "Apply failed with 1 conflict: conflict with \"one\": .data.k");
    let forced = registry.patch(&Context { force: true, ..context("two") }, res, "", "ns", "a", config("2")).await.unwrap();
    assert_eq!(forced.entry.value()["data"]["k"], "2");
}

/// Upstream's `versionCheckManager`: what is applied says that it is of the type and version that the path names, be it there or not.
#[tokio::test]
async fn what_is_applied_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _engine) = open(dir.path()).await;
    let cx = context("t");
    let check = async |resource: (&str, &str), sub: &str, (api_version, kind): (Option<&str>, Option<&str>), told: &str| {
        let res = registry.resource(resource.0, "v1", resource.1).unwrap();
        let mut config = json!({"metadata": {"name": "a"}});
        for (key, value) in [("apiVersion", api_version), ("kind", kind)] {
            value.into_iter().for_each(|value| config[key] = value.into());
        }
        let status = registry.patch(&cx, &res, sub, "ns", "a", Patch::Apply(config.clone())).await.unwrap_err();
        assert_eq!((status.code, &*status.message), (400, told), "{config}");
    };
    let sets = registry.resource("apps", "v1", "replicasets").unwrap();
    for _ in 0..2 {
        check(("", "configmaps"), "", (None, None), "invalid object type: /, Kind=").await;
        check(("", "configmaps"), "", (Some("v1"), None), "invalid object type: /v1, Kind=").await;
        check(("", "configmaps"), "", (None, Some("ConfigMap")), "invalid object type: /, Kind=ConfigMap").await;
        check(("", "configmaps"), "", (Some("v1"), Some("Secret")), "invalid object type: /v1, Kind=Secret").await;
        check(("", "pods"), "status", (Some("v2"), Some("Pod")), "invalid object type: /v2, Kind=Pod").await;
        check(("apps", "replicasets"), "scale", (None, None), "invalid object type: /, Kind=").await;
        let other = (Some("apps/v1"), Some("ReplicaSet"));
        check(("apps", "replicasets"), "scale", other, "invalid object type: apps/v1, Kind=ReplicaSet").await;
        let maps = registry.resource("", "v1", "configmaps").unwrap();
        for res in [&maps, &sets, &registry.resource("", "v1", "pods").unwrap()] {
            let _ = registry.create(&cx, res, "ns", None, decoded(res, &cx, minimal(res, "ns", "a")).await).await;
        }
    }
}

#[tokio::test]
async fn pages_are_consistent_and_watches_resume_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, engine) = open(dir.path()).await;
    let res = &registry.resource("", "v1", "configmaps").unwrap();
    for index in 0..5 {
        let object = decoded(res, &context("t"), minimal(res, "ns", &format!("c{index}"))).await;
        registry.create(&context("t"), res, "ns", None, object).await.unwrap();
    }
    let first = registry.list(res, Some("ns"), &ListOptions { limit: 2, ..ListOptions::default() }).await.unwrap();
    assert_eq!((first.entries.len(), first.remaining), (2, Some(3)));
    registry.delete(&context("t"), res, "ns", "c3", DeleteOptions::default()).await.unwrap();
    let rest = ListOptions { continue_token: first.continue_token.clone(), ..ListOptions::default() };
    let rest = registry.list(res, Some("ns"), &rest).await.unwrap();
    let names: Vec<_> = rest.entries.iter().map(|entry| entry.name().to_owned()).collect();
    assert_eq!(names, ["c2", "c3", "c4"], "the second page shows the state of the first");
    assert_eq!(rest.revision, first.revision);

    drop(registry);
    engine.close().await;
    drop(engine);
    let (registry, _engine) = open(dir.path()).await;
    let res = &registry.resource("", "v1", "configmaps").unwrap();
    let from = ListOptions { resource_version: Some(first.revision.to_string()), ..ListOptions::default() };
    let mut watch = registry.watch(res, None, &from).await.unwrap();
    let event = watch.next().await.unwrap();
    assert_eq!((event.kind, event.entry.name()), (EventType::Deleted, "c3"));
}

/// A pod that runs and is ready, and a budget that selects it.
async fn guarded_pod(registry: &Registry, cx: &Context, budget_status: Value) -> (Arc<Served>, Arc<Served>) {
    let pods = registry.resource("", "v1", "pods").unwrap();
    let budgets = registry.resource("policy", "v1", "poddisruptionbudgets").unwrap();
    let mut budget = minimal(&budgets, "ns", "web");
    budget["spec"] = json!({"minAvailable": 1, "selector": {"matchLabels": {"minimal": "yes"}}});
    registry.create(cx, &budgets, "ns", None, decoded(&budgets, cx, budget).await).await.unwrap();
    registry.create(cx, &pods, "ns", None, decoded(&pods, cx, minimal(&pods, "ns", "one")).await).await.unwrap();
    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    for (res, name, status) in [(&pods, "one", running), (&budgets, "web", json!({"status": budget_status}))] {
        registry.patch(cx, res, "status", "ns", name, Patch::Merge(status.to_string().into())).await.unwrap();
    }
    (pods, budgets)
}

/// Conformance: [sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it [Conformance]
#[tokio::test]
async fn budgets_pay_for_evictions() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _engine) = open(dir.path()).await;
    let cx = context("t");
    let (pods, budgets) = guarded_pod(&registry, &cx, json!({})).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "one", "namespace": "ns"}});
    let evict = async |cx: &Context| registry.create_sub(cx, &pods, "eviction", "ns", "one", eviction.clone()).await;
    let mut elsewhere = eviction.clone();
    meta::set_namespace(&mut elsewhere, "other");
    assert_eq!(registry.create_sub(&cx, &pods, "eviction", "ns", "one", elsewhere).await.unwrap_err().code, 400);
    let refused = evict(&cx).await.unwrap_err();
    let cause = refused.cause("DisruptionBudget").map(|cause| cause.message.clone()).unwrap_or_default();
    assert_eq!((refused.code, cause.as_str()), (429, "The disruption budget web is still being processed by the server."));

    let allow = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1}});
    registry.patch(&cx, &budgets, "status", "ns", "web", Patch::Merge(allow.to_string().into())).await.unwrap();
    evict(&Context { dry_run: true, ..cx.clone() }).await.unwrap();
    let budget = async || registry.get(&budgets, "ns", "web", None).await.unwrap().value()["status"].take();
    assert_eq!(budget().await["disruptionsAllowed"], 1, "a dry run spends nothing");
    evict(&cx).await.unwrap();
    let left = budget().await;
    assert_eq!((&left["disruptionsAllowed"], left["disruptedPods"].get("one").is_some()), (&json!(0), true));
    assert!(registry.get(&pods, "ns", "one", None).await.unwrap_err().is(Reason::NotFound));
}

/// Older clients evict with `policy/v1beta1`, whose budgets are no longer served.
#[tokio::test]
async fn evictions_are_taken_in_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _engine) = open(dir.path()).await;
    let pods = registry.resource("", "v1", "pods").unwrap();
    for (version, expected) in [("policy/v1", 200), ("policy/v1beta1", 200), ("policy/v1alpha1", 400), ("v1", 400)] {
        let mut body = json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": "one", "namespace": "ns"}});
        let code = pods.decode(&context("t"), "eviction", &mut body).map_or_else(|status| status.code, |()| 200);
        assert_eq!(code, expected, "{version}");
        assert_eq!(body["apiVersion"] == "policy/v1", expected == 200, "{version}");
    }
}

#[tokio::test]
async fn autoscalers_are_the_same_objects_in_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _engine) = open(dir.path()).await;
    let (v1, v2) = (
        registry.resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap(),
        registry.resource("autoscaling", "v2", "horizontalpodautoscalers").unwrap(),
    );
    let cx = context("t");
    let mut scaler = minimal(&v1, "ns", "web");
    scaler["spec"]["targetCPUUtilizationPercentage"] = json!(50);
    let made = registry.create(&cx, &v1, "ns", None, decoded(&v1, &cx, scaler).await).await.unwrap().value();
    assert_eq!((&made["apiVersion"], &made["spec"]["targetCPUUtilizationPercentage"]), (&json!("autoscaling/v1"), &json!(50)));
    let shown = registry.get(&v2, "ns", "web", None).await.unwrap().value();
    assert_eq!(shown["spec"]["metrics"][0]["resource"]["target"], json!({"type": "Utilization", "averageUtilization": 50}));
    let memory =
        json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let patch = Patch::Merge(json!({"spec": {"metrics": [memory]}}).to_string().into());
    registry.patch(&cx, &v2, "", "ns", "web", patch).await.unwrap();
    let shown = registry.get(&v1, "ns", "web", None).await.unwrap().value();
    assert_eq!(shown["spec"].get("targetCPUUtilizationPercentage"), None);
    assert!(
        meta::annotation(&shown, "autoscaling.alpha.kubernetes.io/metrics").is_some_and(|note| note.contains("memory")),
        "{shown}"
    );
}

/// Fields are owned in the version in which they were written: `managedFields` of each version follow what it shows.
#[tokio::test]
async fn a_manager_of_one_version_keeps_what_the_other_cannot_say() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _engine) = open(dir.path()).await;
    let (v1, v2) = (
        registry.resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap(),
        registry.resource("autoscaling", "v2", "horizontalpodautoscalers").unwrap(),
    );
    let memory =
        json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let config = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {"maxReplicas": 3, "metrics": [memory], "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 1}}}});
    registry.patch(&context("two"), &v2, "", "ns", "web", Patch::Apply(config.clone())).await.unwrap();
    let more = Patch::Merge(json!({"spec": {"maxReplicas": 4, "targetCPUUtilizationPercentage": 50}}).to_string().into());
    registry.patch(&context("one"), &v1, "", "ns", "web", more).await.unwrap();
    let owned = |object: &Value| {
        let entries = meta::managed_fields(object).iter();
        let of = |entry: &Value| (format!("{} {}", entry["manager"], entry["apiVersion"]), entry["fieldsV1"]["f:spec"].clone());
        entries.map(of).collect::<std::collections::BTreeMap<_, _>>()
    };
    let shown = registry.get(&v2, "ns", "web", None).await.unwrap().value();
    let behaviour = json!({"f:scaleDown": {"f:stabilizationWindowSeconds": {}}});
    let (one, two) = ("\"one\" \"autoscaling/v1\"", "\"two\" \"autoscaling/v2\"");
    let expected = std::collections::BTreeMap::from([
        (one.to_owned(), json!({"f:maxReplicas": {}, "f:targetCPUUtilizationPercentage": {}})),
        // The list of metrics is one thing, which now has another one.
        (two.to_owned(), json!({"f:behavior": behaviour, "f:scaleTargetRef": {"f:apiVersion": {}, "f:kind": {}, "f:name": {}}})),
    ]);
    assert_eq!(owned(&shown), expected);
    let conflict = registry.patch(&context("two"), &v2, "", "ns", "web", Patch::Apply(config.clone())).await.unwrap_err();
    let message = "Apply failed with 1 conflict: conflict with \"one\" using autoscaling/v1: .spec.maxReplicas";
    assert_eq!(conflict.message, message);
    // What nobody applies any more goes, also when others write in a version that cannot say it.
    let mut fewer = config;
    fewer["spec"].as_object_mut().unwrap().retain(|field, _| field != "behavior" && field != "maxReplicas");
    registry.patch(&context("two"), &v2, "", "ns", "web", Patch::Apply(fewer)).await.unwrap();
    let shown = registry.get(&v2, "ns", "web", None).await.unwrap().value();
    let window = shown.pointer("/spec/behavior/scaleDown/stabilizationWindowSeconds");
    let metrics = shown["spec"]["metrics"].as_array().map(Vec::len);
    assert_eq!((&shown["spec"]["maxReplicas"], window, metrics), (&json!(4), None, Some(1)), "{shown}");
}

/// `managedfields.ScaleHandler`: who applies a Scale owns the number of pods of the object, through the sub-resource.
#[tokio::test]
async fn scales_are_applied() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _engine) = open(dir.path()).await;
    let sets = registry.resource("apps", "v1", "replicasets").unwrap();
    let cx = context("maker");
    registry.create(&cx, &sets, "ns", None, decoded(&sets, &cx, minimal(&sets, "ns", "a")).await).await.unwrap();
    let scale = |replicas: i64| {
        Patch::Apply(
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": replicas}}),
        )
    };
    let conflict = registry.patch(&context("scaler"), &sets, "scale", "ns", "a", scale(3)).await.unwrap_err();
    assert!(conflict.message.contains("conflict with \"maker\" using apps/v1: .spec.replicas"), "{conflict}");
    let force = Context { force: true, ..context("scaler") };
    let shown = registry.patch(&force, &sets, "scale", "ns", "a", scale(3)).await.unwrap().object.unwrap();
    assert_eq!((&shown["kind"], &shown["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let set = registry.get(&sets, "ns", "a", None).await.unwrap().value();
    let own = meta::managed_fields(&set).iter().find(|entry| entry["manager"] == "scaler").unwrap();
    let expected = (json!("Apply"), json!("scale"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!((own["operation"].clone(), own["subresource"].clone(), own["fieldsV1"].clone()), expected);
    assert_eq!(registry.patch(&force, &sets, "scale", "ns", "a", scale(-1)).await.unwrap_err().code, 422);
    assert_eq!(registry.patch(&force, &sets, "scale", "ns", "b", scale(1)).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_job_with_a_generated_name_names_its_pods() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _engine) = open(dir.path()).await;
    let (res, cx) = (&registry.resource("batch", "v1", "jobs").unwrap(), context("t"));
    let mut job = minimal(res, "ns", "");
    meta::remove(&mut job, "name");
    meta::set(&mut job, "generateName", "pi-");
    let made = registry.create(&cx, res, "ns", None, decoded(res, &cx, job).await).await.unwrap().value();
    let labels = &made["spec"]["template"]["metadata"]["labels"];
    assert_eq!(
        (&labels["job-name"], &labels["batch.kubernetes.io/controller-uid"]),
        (&made["metadata"]["name"], &made["metadata"]["uid"])
    );
    assert!(meta::name(&made).starts_with("pi-"), "{made}");
    registry.delete(&cx, res, "ns", meta::name(&made), DeleteOptions::default()).await.unwrap();
    assert!(cx.warnings.take()[0].starts_with("child pods are preserved by default"));
}

/// Upstream's `limitrangeStrategy.PrepareForCreate` makes a name up, and no other strategy does.
#[tokio::test]
async fn only_limit_ranges_come_without_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, engine) = open(dir.path()).await;
    let cx = context("t");
    let create = async |plural: &str| {
        let res = registry.resource("", "v1", plural).unwrap();
        let mut nameless = minimal(&res, "ns", "");
        meta::remove(&mut nameless, "name");
        registry.create(&cx, &res, "ns", None, decoded(&res, &cx, nameless).await).await
    };
    let made = create("limitranges").await.unwrap().value();
    assert_eq!(meta::name(&made), meta::uid(&made));
    assert!(!meta::name(&made).is_empty());
    assert_eq!(create("resourcequotas").await.unwrap_err().code, 422);
    engine.close().await;
}

/// The generation of a Deployment counts changes of its annotations, those of other workloads do not (upstream:
/// `deploymentStrategy.PrepareForUpdate`).
#[tokio::test]
async fn annotations_that_are_generations() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, engine) = open(dir.path()).await;
    let check = async |resource: &str, expected: [i64; 3]| {
        let res = registry.resource("apps", "v1", resource).unwrap();
        let cx = context("tester");
        registry.create(&cx, &res, "ns", None, decoded(&res, &cx, minimal(&res, "ns", "one")).await).await.unwrap();
        let patch = async |sub: &str, body: Value| {
            let patch = Patch::Merge(body.to_string().into());
            meta::generation(&registry.patch(&cx, &res, sub, "ns", "one", patch).await.unwrap().entry.value())
        };
        let annotated = patch("", json!({"metadata": {"annotations": {"a": "1"}}})).await;
        let in_status = patch("status", json!({"metadata": {"annotations": {"a": "2"}}})).await;
        let labelled = patch("", json!({"metadata": {"labels": {"a": "1"}}})).await;
        assert_eq!([annotated, in_status, labelled], expected, "{resource}");
    };
    check("deployments", [2, 2, 2]).await;
    check("statefulsets", [1, 1, 1]).await;
    check("daemonsets", [1, 1, 1]).await;
    engine.close().await;
}

#[tokio::test]
async fn writers_are_warned() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _engine) = open(dir.path()).await;
    let res = &registry.resource("", "v1", "services").unwrap();
    let cx = context("t");
    let mut service = decoded(res, &cx, minimal(res, "ns", "one")).await;
    service["spec"]["externalName"] = "a.b".into();
    let expected = ["spec.externalName is ignored when spec.type is not \"ExternalName\""];
    let created = registry.create(&cx, res, "ns", None, service).await.unwrap();
    assert_eq!(cx.warnings.take(), expected);
    let mut changed = created.value();
    changed["metadata"]["labels"]["more"] = "x".into();
    registry.update(&cx, res, "", "ns", "one", changed.clone()).await.unwrap();
    assert_eq!(cx.warnings.take(), expected);
    changed["spec"]["type"] = "Other".into();
    registry.update(&cx, res, "", "ns", "one", changed).await.unwrap_err();
    assert_eq!(cx.warnings.take(), Vec::<String>::new());
}
