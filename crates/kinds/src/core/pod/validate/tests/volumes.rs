use super::*;

/// One volume; expected paths leave out `spec.volumes[0]`.
fn check_volume(source: Value, expected: &[&str]) {
    let mut volume = json!({"name": "v"});
    volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    let expected: Vec<String> = expected.iter().map(|text| format!("spec.volumes[0]{text}")).collect();
    assert_eq!(problems(json!({"volumes": [volume]})), expected, "{source}");
}

#[test]
fn names_and_number_of_sources() {
    check(
        json!({"volumes": [{"name": ""}, {"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]}),
        &["spec.volumes[0].name: Required value", "spec.volumes[2].name: Duplicate value: \"a\""],
    );
    check_volume(json!({"nfs": null, "other": {}}), &[": Required value: must specify a volume type"]);
    check_volume(
        json!({"emptyDir": {}, "hostPath": {"path": "/a"}}),
        &[".hostPath: Forbidden: may not specify more than 1 volume type"],
    );
}

#[test]
fn files_of_the_node_and_of_objects() {
    check_volume(json!({"hostPath": {"path": ""}}), &[".hostPath.path: Required value"]);
    check_volume(
        json!({"hostPath": {"path": "/a/../b", "type": "Pipe"}}),
        &[
            ".hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            ".hostPath.type: Unsupported value: \"Pipe\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ],
    );
    check_volume(
        json!({"emptyDir": {"sizeLimit": "-1"}}),
        &[".emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity"],
    );
    check_volume(
        json!({"configMap": {"defaultMode": 512, "items": [{"key": "", "path": "/a", "mode": -1}]}}),
        &[
            ".configMap.name: Required value",
            ".configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
            ".configMap.items[0].key: Required value",
            ".configMap.items[0].path: Invalid value: \"/a\": must be a relative path",
            ".configMap.items[0].mode: Invalid value: -1: must be a number between 0 and 0777 (octal), both inclusive",
        ],
    );
    check_volume(json!({"secret": {"secretName": ""}}), &[".secret.secretName: Required value"]);
    check_volume(
        json!({"downwardAPI": {"items": [{"path": "..a", "fieldRef": {"fieldPath": "spec.nodeName"}}, {"path": "b"},
            {"path": "c", "resourceFieldRef": {"resource": "limits.cpu"}}]}}),
        &[
            ".downwardAPI.path: Invalid value: \"..a\": must not start with '..'",
            ".downwardAPI.fieldRef.fieldPath: Unsupported value: \"spec.nodeName\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
            ".downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
            ".downwardAPI.resourceFieldRef.containerName: Required value",
        ],
    );
}

/// `validateProjectionSources`.
#[test]
fn projected_bundles() {
    let check = |bundle: Value, expected: &[&str]| {
        let mut bundle = bundle;
        bundle["path"] = json!("ca.pem");
        let expected: Vec<_> = expected.iter().map(|text| format!(".projected.sources[0].clusterTrustBundle.{text}")).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        check_volume(json!({"projected": {"sources": [{"clusterTrustBundle": bundle}]}}), &expected);
    };
    check(json!({"name": "roots"}), &[]);
    check(json!({"name": "example.com:signer:roots"}), &[]);
    check(json!({"signerName": "example.com/signer", "labelSelector": {"matchLabels": {"a": "b"}}}), &[]);
    let name = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    for bad in ["a/b", "A_B", "example.com:signer:A"] {
        check(json!({"name": bad}), &[&format!("name: Invalid value: {bad:?}: not a valid clustertrustbundlename: {name}")]);
    }
    check(
        json!({"signerName": "foo"}),
        &["signerName: Invalid value: \"foo\": must be a fully qualified domain and path of the form 'example.com/signer-name'"],
    );
    let operator = json!({"matchExpressions": [{"key": "a", "operator": "Foo"}]});
    check(
        json!({"signerName": "example.com/signer", "labelSelector": operator}),
        &["labelSelector.matchExpressions[0].operator: Invalid value: \"Foo\": not a valid selector operator"],
    );
}

#[test]
fn projected() {
    let item = |path: &str| json!([{"key": "k", "path": path}]);
    let sources = |sources: Value| json!({"projected": {"sources": sources}});
    check_volume(
        sources(
            json!([{"configMap": {"name": "a", "items": item("x")}}, {"serviceAccountToken": {"path": "t"}}, {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]),
        ),
        &[],
    );
    check_volume(
        sources(json!([{"configMap": {"name": "a", "items": item("x")}}, {"secret": {"name": "b", "items": item("x")}}])),
        &[".projected: Invalid value: \"b\": conflicting duplicate paths"],
    );
    check_volume(
        sources(json!([{"configMap": {"name": ""}, "secret": {"name": "b"}}])),
        &[
            ".projected.sources[0].configMap.name: Required value",
            ".projected.sources[0]: Forbidden: may not specify more than 1 volume type per source",
        ],
    );
    check_volume(
        sources(
            json!([{"serviceAccountToken": {"path": "", "expirationSeconds": 10}}, {"serviceAccountToken": {"path": "../x", "expirationSeconds": 4_294_967_297_i64}}]),
        ),
        &[
            ".projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes",
            ".projected.path: Required value",
            ".projected.sources[1].serviceAccountToken.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
            ".projected.path: Invalid value: \"../x\": must not contain '..'",
        ],
    );
    check(
        json!({"serviceAccountName": null, "volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
        &[
            "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
        ],
    );
}

#[test]
fn storage_systems() {
    check_volume(
        json!({"nfs": {"server": "", "path": "a"}}),
        &[".nfs.server: Required value", ".nfs.path: Invalid value: \"a\": must be an absolute path"],
    );
    check_volume(json!({"persistentVolumeClaim": {"claimName": ""}}), &[".persistentVolumeClaim.claimName: Required value"]);
    check_volume(
        json!({"iscsi": {"targetPortal": "1.2.3.4", "iqn": "iqn.2001-04.com.example:a", "lun": 256}}),
        &[".iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive"],
    );
    check_volume(
        json!({"iscsi": {"targetPortal": "1.2.3.4", "iqn": "x", "lun": 1}}),
        &[".iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa"],
    );
    check_volume(json!({"fc": {}}), &[".fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"]);
    check_volume(
        json!({"flexVolume": {"driver": "a/b", "options": {"x.kubernetes.io/y": "z"}}}),
        &[
            ".flexVolume.options[x.kubernetes.io/y]: Invalid value: \"x.kubernetes.io/y\": kubernetes.io and k8s.io namespaces are reserved",
        ],
    );
    check_volume(
        json!({"csi": {"driver": ""}}),
        &[
            ".csi.driver: Required value",
            ".csi.driver: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check_volume(json!({"image": {"reference": ""}}), &[".image.reference: Required value"]);
}

#[test]
fn ephemeral_claims() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    check_volume(json!({"ephemeral": {"volumeClaimTemplate": template}}), &[]);
    check_volume(json!({"ephemeral": {}}), &[".ephemeral.volumeClaimTemplate: Required value"]);
    check_volume(
        json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "x"}, "spec": {"accessModes": ["Some"]}}}}),
        &[
            ".ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
            ".ephemeral.volumeClaimTemplate.spec.accessModes: Unsupported value: \"Some\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            ".ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
        ],
    );
    check(
        json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "w", "persistentVolumeClaim": {"claimName": "p-v"}}]}),
        &[
            "spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: \"p-v\": must not reference a PVC that gets created for an ephemeral volume",
        ],
    );
}
