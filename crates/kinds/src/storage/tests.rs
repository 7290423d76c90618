//! A table for each kind: defaults, rules, changes, columns.

use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use serde_json::{Value, json};

use crate::testing::{check, check_row, check_status, check_update, check_warnings, defaulted, with, wrong_with};
use crate::typed::Kind;

const EPOCH: &str = "1970-01-01T00:00:00Z";

fn named(name: &str, rest: Value) -> Value {
    with(&json!({"metadata": {"name": name, "creationTimestamp": EPOCH}}), rest)
}

#[test]
fn storage_classes() {
    let class = |rest: Value| with(&named("fast", json!({"provisioner": "a.example/b"})), rest);
    let defaults = defaulted::<StorageClass>(class(json!({})));
    assert_eq!((&defaults["reclaimPolicy"], &defaults["volumeBindingMode"]), (&json!("Delete"), &json!("Immediate")));
    check::<StorageClass>(class(json!({"provisioner": "Kubernetes.io/AWS-ebs", "parameters": {"a/b": ""}})), &[]);
    check::<StorageClass>(
        class(json!({"provisioner": "", "reclaimPolicy": "Recycle", "volumeBindingMode": "Later"})),
        &[
            "provisioner: Required value",
            "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
            "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
        ],
    );
    check::<StorageClass>(
        class(json!({"provisioner": "a/b/c", "parameters": {"": "x"}})),
        &[
            "provisioner: Invalid value: \"a/b/c\": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            "parameters: Invalid value: \"\": field can not be empty.",
        ],
    );
    check::<StorageClass>(
        class(json!({"parameters": {"k": "x".repeat(256 << 10)}})),
        &["parameters: Too long: may not be more than 262144 bytes"],
    );
    let terms = |terms: Value| class(json!({"allowedTopologies": terms}));
    let zone = |values: Value| json!({"matchLabelExpressions": [{"key": "zone", "values": values}]});
    check::<StorageClass>(terms(json!([zone(json!(["a"])), zone(json!(["b"]))])), &[]);
    check::<StorageClass>(
        terms(json!([zone(json!(["a", "b"])), zone(json!(["b", "a"]))])),
        &["allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\""],
    );
    check::<StorageClass>(
        terms(json!([zone(json!([])), {"matchLabelExpressions": [
        {"key": "z", "values": ["a", "a"]}, {"key": "z", "values": ["b"]}]}])),
        &[
            "allowedTopologies[0].matchLabelExpressions[0].values: Required value",
            "allowedTopologies[1].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
            "allowedTopologies[1].matchLabelExpressions[1].key: Duplicate value: \"z\"",
        ],
    );
    check_warnings::<StorageClass>(
        terms(json!([{"matchLabelExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone", "values": ["a"]}]}])),
        &[
            "allowedTopologies[0].matchLabelExpressions[0].key: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
        ],
    );
    check_update::<StorageClass>(class(json!({})), class(json!({"allowVolumeExpansion": true, "mountOptions": ["ro"]})), &[]);
    check_update::<StorageClass>(
        class(json!({})),
        class(
            json!({"provisioner": "c", "parameters": {"a": "b"}, "reclaimPolicy": "Retain", "volumeBindingMode": "WaitForFirstConsumer"}),
        ),
        &[
            "parameters: Forbidden: updates to parameters are forbidden.",
            "provisioner: Forbidden: updates to provisioner are forbidden.",
            "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
        ],
    );
    check_row::<StorageClass>(defaults, "fast|a.example/b|Delete|Immediate|false|60s");
    let default = json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "allowVolumeExpansion": true});
    check_row::<StorageClass>(class(default), "fast (default)|a.example/b|Delete|Immediate|true|60s");
}

#[test]
fn volume_attributes_classes() {
    let class = |rest: Value| with(&named("gold", json!({"driverName": "d.example", "parameters": {"iops": "1"}})), rest);
    check::<VolumeAttributesClass>(class(json!({})), &[]);
    check::<VolumeAttributesClass>(
        class(json!({"driverName": "", "parameters": null})),
        &["driverName: Required value", "parameters: Required value: must contain at least one key/value pair"],
    );
    check_update::<VolumeAttributesClass>(
        class(json!({})),
        class(json!({"driverName": "e", "parameters": {"iops": "2"}})),
        &[
            "driverName: Forbidden: updates to driverName are forbidden.",
            "parameters: Forbidden: updates to parameters are forbidden.",
        ],
    );
    check_row::<VolumeAttributesClass>(class(json!({})), "gold|d.example|60s");
}

#[test]
fn csi_drivers() {
    let driver = |spec: Value| named("d.example", json!({"spec": spec}));
    assert_eq!(
        defaulted::<CSIDriver>(driver(json!({})))["spec"],
        json!({"attachRequired": true, "podInfoOnMount": false, "storageCapacity": false, "requiresRepublish": false,
            "seLinuxMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"]})
    );
    // Upstream's `TestCSIDriverValidation`: names of 63 bytes, in mixed case.
    let called = |name: &str| named(name, json!({"spec": {}}));
    let (most, more) = ("a".repeat(63), "a".repeat(64));
    for name in ["d.example", "io.Kubernetes.Storage.CSI.Driver", most.as_str()] {
        check::<CSIDriver>(called(name), &[]);
    }
    check::<CSIDriver>(called(&more), &["name: Too long: may not be more than 63 bytes"]);
    assert!(
        matches!(wrong_with::<CSIDriver>(called("_driver")).as_slice(), [one] if one.starts_with("name: Invalid value: \"_driver\""))
    );
    assert_eq!(CSIDriver::DEF.name.check("Driver", false), Vec::<String>::new());
    check_update::<CSIDriver>(called(&more), with(&called(&more), json!({"spec": {"podInfoOnMount": true}})), &[]);
    let tokens = json!([{"audience": ""}, {"audience": "gcp", "expirationSeconds": 600}]);
    check::<CSIDriver>(driver(json!({"volumeLifecycleModes": ["Persistent", "Ephemeral"], "tokenRequests": tokens})), &[]);
    check::<CSIDriver>(
        driver(json!({"fsGroupPolicy": "Some", "volumeLifecycleModes": ["Never"], "nodeAllocatableUpdatePeriodSeconds": 9,
            "tokenRequests": [{"audience": "a", "expirationSeconds": 599}, {"audience": "a"}, {"audience": "b", "expirationSeconds": 4294967297i64}]})),
        &[
            "spec.fsGroupPolicy: Unsupported value: \"Some\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            "spec.tokenRequests[2].expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
            "spec.volumeLifecycleModes: Unsupported value: \"Never\": supported values: \"Persistent\", \"Ephemeral\"",
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
        ],
    );
    check_update::<CSIDriver>(driver(json!({})), driver(json!({"podInfoOnMount": true, "tokenRequests": tokens})), &[]);
    check_update::<CSIDriver>(
        driver(json!({})),
        driver(json!({"attachRequired": false, "volumeLifecycleModes": ["Ephemeral"]})),
        &[
            "spec.attachedRequired: Invalid value: false: field is immutable",
            "spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: field is immutable",
        ],
    );
    let old = defaulted::<CSIDriver>(driver(json!({})));
    let generation = |spec: Value| {
        let mut new = defaulted::<CSIDriver>(driver(spec));
        CSIDriver::prepare_update(&mut new, &old);
        new["metadata"].get("generation").cloned()
    };
    assert_eq!(
        (generation(json!({"podInfoOnMount": true})), generation(json!({"requiresRepublish": true}))),
        (None, Some(json!(1)))
    );
    check_row::<CSIDriver>(old.clone(), "d.example|true|false|false|<unset>|false|Persistent|60s");
    check_row::<CSIDriver>(
        driver(json!({"tokenRequests": [{"audience": "a"}, {"audience": "b"}]})),
        "d.example|true|false|false|a,b|false|<none>|60s",
    );
}

#[test]
fn csi_nodes() {
    let node = |drivers: Value| named("n", json!({"spec": {"drivers": drivers}}));
    check::<CSINode>(node(json!([])), &[]);
    check::<CSINode>(
        node(json!([{"name": "D.example", "nodeID": "id", "topologyKeys": ["a.io/zone"], "allocatable": {"count": 4}}])),
        &[],
    );
    check::<CSINode>(
        node(
            json!([{"name": "d", "nodeID": "", "allocatable": {"count": -1}}, {"name": "d", "nodeID": "x".repeat(193), "topologyKeys": ["a", "a"]}, {"name": "", "nodeID": "i"}]),
        ),
        &[
            "spec.drivers[0].nodeID: Required value",
            "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
            &format!("spec.drivers[1].nodeID: Invalid value: \"{}\": must be 192 characters or less", "x".repeat(193)),
            "spec.drivers[1].name: Duplicate value: \"d\"",
            "spec.drivers[1]: Duplicate value: \"a\"",
            "spec.drivers[2].name: Required value",
            "spec.drivers[2].name: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    let one = json!([{"name": "d", "nodeID": "i", "allocatable": {"count": 4}}]);
    check_update::<CSINode>(
        node(one.clone()),
        node(json!([{"name": "d", "nodeID": "i", "allocatable": {"count": 5}}, {"name": "e", "nodeID": "i"}])),
        &[],
    );
    check_update::<CSINode>(node(one.clone()), node(json!([])), &[]);
    check_update::<CSINode>(
        node(one.clone()),
        node(json!([{"name": "d", "nodeID": "j"}])),
        &["spec.drivers: Invalid value: {\"name\":\"d\",\"nodeID\":\"j\"}: field is immutable"],
    );
    check_row::<CSINode>(node(one), "n|1|60s");
}

#[test]
fn csi_storage_capacities() {
    let capacity = |rest: Value| with(&named("c", json!({"storageClassName": "fast"})), rest);
    check::<CSIStorageCapacity>(capacity(json!({"nodeTopology": {"matchLabels": {"a": "b"}}, "capacity": "1Gi"})), &[]);
    check::<CSIStorageCapacity>(
        capacity(json!({"storageClassName": "-", "capacity": "-1Gi", "nodeTopology": {"matchLabels": {"a": "b c"}}})),
        &[
            "nodeTopology.matchLabels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            "storageClassName: Invalid value: \"-\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "capacity: Invalid value: \"-1Gi\": must be greater than or equal to 0",
        ],
    );
    check_update::<CSIStorageCapacity>(capacity(json!({})), capacity(json!({"capacity": "2Gi"})), &[]);
    check_update::<CSIStorageCapacity>(
        capacity(json!({})),
        capacity(json!({"storageClassName": "slow", "nodeTopology": {}})),
        &["nodeTopology: Invalid value: {}: field is immutable", "storageClassName: Invalid value: \"slow\": field is immutable"],
    );
    check_row::<CSIStorageCapacity>(capacity(json!({})), "c|fast|<unset>");
}

#[test]
fn volume_attachments() {
    let attachment = |source: Value| named("a", json!({"spec": {"attacher": "d.example", "nodeName": "n", "source": source}}));
    let volume = json!({"persistentVolumeName": "v"});
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    check::<VolumeAttachment>(attachment(volume.clone()), &[]);
    check::<VolumeAttachment>(attachment(json!({})), &[&format!("spec.source: Required value: {one}")]);
    check::<VolumeAttachment>(
        attachment(json!({"persistentVolumeName": "v", "inlineVolumeSpec": {}})),
        &[&format!("spec.source: Forbidden: {one}")],
    );
    let csi = json!({"driver": "d.example", "volumeHandle": "h"});
    let inline =
        |rest: Value| attachment(json!({"inlineVolumeSpec": with(&json!({"csi": csi, "accessModes": ["ReadWriteOnce"]}), rest)}));
    check::<VolumeAttachment>(inline(json!({})), &[]);
    check::<VolumeAttachment>(
        inline(
            json!({"csi": null, "nfs": {"server": "s", "path": "/"}, "capacity": {"storage": "1Gi"}, "claimRef": {}, "volumeMode": "Block",
            "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "fast"}),
        ),
        &[
            "spec.source.inlineVolumeSpec.claimRef: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the context of inline volumes",
            "spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes",
        ],
    );
    check_update::<VolumeAttachment>(
        attachment(volume.clone()),
        attachment(json!({"persistentVolumeName": "w"})),
        &[
            "spec: Invalid value: {\"attacher\":\"d.example\",\"nodeName\":\"n\",\"source\":{\"persistentVolumeName\":\"w\"}}: field is immutable",
        ],
    );
    check_status::<VolumeAttachment>(
        attachment(volume.clone()),
        json!({"attached": true, "attachmentMetadata": {"a": "b"}}),
        &[],
    );
    check_status::<VolumeAttachment>(
        attachment(volume.clone()),
        json!({"attached": false, "attachmentMetadata": {"a": "x".repeat(256 << 10)}, "attachError": {"message": "x".repeat(1025), "errorCode": -1}}),
        &[
            "status.attachmentMetadata: Too long: may not be more than 262144 bytes",
            "status.attachError.message: Too long: may not be more than 262144 bytes",
            "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ],
    );
    check_row::<VolumeAttachment>(attachment(volume), "a|d.example|v|n|false|60s");
}
