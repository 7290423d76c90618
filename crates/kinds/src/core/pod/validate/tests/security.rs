use super::*;
use crate::testing::check_update;

#[test]
fn identities() {
    check(
        json!({"securityContext": {"runAsUser": -1, "fsGroup": 2_147_483_648_i64, "supplementalGroups": [-1], "fsGroupChangePolicy": "No", "supplementalGroupsPolicy": "X"}}),
        &[
            "spec.securityContext.fsGroup: Invalid value: 2147483648: must be between 0 and 2147483647, inclusive",
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            "spec.securityContext.supplementalGroups[0]: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"No\": supported values: \"Always\", \"OnRootMismatch\"",
            "spec.securityContext.supplementalGroupsPolicy: Unsupported value: \"X\": supported values: \"Merge\", \"Strict\"",
        ],
    );
    check(
        json!({"shareProcessNamespace": true, "hostPID": true}),
        &[
            "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
        ],
    );
    check(
        json!({"hostUsers": false, "hostNetwork": true, "hostPID": true}),
        &["spec.hostNetwork: Forbidden: when `hostUsers` is false", "spec.HostPID: Forbidden: when `hostUsers` is false"],
    );
    check_container(
        json!({"securityContext": {"procMount": "Unmasked", "allowPrivilegeEscalation": false, "privileged": true}}),
        &[
            "securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
            "securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true,\"procMount\":\"Unmasked\"}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ],
    );
}

/// KEP-127, "Non-conformant volume types": a device in a user namespace is refused, and a pod that has one already may still change.
#[test]
fn devices_know_no_user_namespaces() {
    let with = |users: bool, image: &str| {
        let container =
            |name: &str| json!({"name": name, "image": image, "volumeDevices": [{"name": "claim", "devicePath": "/dev/a"}]});
        json!({"hostUsers": users, "containers": [container("c")], "initContainers": [container("i")],
            "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": "a"}}]})
    };
    check(with(true, "x:1"), &[]);
    check(
        with(false, "x:1"),
        &[
            "spec.initContainers[0].volumeDevices: Forbidden: when `hostUsers` is false",
            "spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false",
        ],
    );
    let pod = |spec: Value| json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
    check_update::<Pod>(pod(with(false, "x:1")), pod(with(false, "x:2")), &[]);
}

#[test]
fn kernel_parameters() {
    let sysctls = |names: &[&str]| names.iter().map(|name| json!({"name": name, "value": "1"})).collect::<Vec<_>>();
    check(json!({"securityContext": {"sysctls": sysctls(&["net.core.somaxconn", "kernel/shm_rmid_forced"])}}), &[]);
    check(
        json!({"hostNetwork": true, "hostIPC": true, "securityContext": {"sysctls": sysctls(&["", "A", "net.a", "net.a", "kernel.sem"])}}),
        &[
            "spec.securityContext.sysctls[0].name: Required value",
            "spec.securityContext.sysctls[1].name: Invalid value: \"A\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            "spec.securityContext.sysctls[2].name: Invalid value: \"net.a\": may not be specified when 'hostNetwork' is true",
            "spec.securityContext.sysctls[3].name: Duplicate value: \"net.a\"",
            "spec.securityContext.sysctls[3].name: Invalid value: \"net.a\": may not be specified when 'hostNetwork' is true",
            "spec.securityContext.sysctls[4].name: Invalid value: \"kernel.sem\": may not be specified when 'hostIPC' is true",
        ],
    );
}

#[test]
fn profiles() {
    let seccomp = |profile: Value| json!({"securityContext": {"seccompProfile": profile}});
    let at = "spec.securityContext.seccompProfile";
    check(seccomp(json!({"type": "Localhost", "localhostProfile": "a/b.json"})), &[]);
    check(seccomp(json!({})), &[&format!("{at}.type: Required value: type is required when seccompProfile is set")]);
    check(
        seccomp(json!({"type": "Localhost"})),
        &[&format!("{at}.localhostProfile: Required value: must be set when seccomp type is Localhost")],
    );
    check(
        seccomp(json!({"type": "Mine", "localhostProfile": "a"})),
        &[
            &format!(
                "{at}.type: Unsupported value: \"Mine\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\""
            ),
            &format!(
                "{at}.localhostProfile: Invalid value: {{\"localhostProfile\":\"a\",\"type\":\"Mine\"}}: can only be set when seccomp type is Localhost"
            ),
        ],
    );
    check_container(
        json!({"securityContext": {"appArmorProfile": {"type": "Localhost", "localhostProfile": " a"}}}),
        &["securityContext.appArmorProfile.localhostProfile: Invalid value: \" a\": must not be padded with whitespace"],
    );
    let annotated = |annotations: Value, spec: Value| json!({"metadata": {"annotations": annotations}, "spec": spec});
    let key = "container.apparmor.security.beta.kubernetes.io/c";
    let pod = annotated(json!({key: "unconfined"}), json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}));
    assert_eq!(
        pod_problems(pod),
        ["spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match"]
    );
    let pod = annotated(
        json!({"controller.kubernetes.io/pod-deletion-cost": "+1", "kubernetes.io/config.mirror": "x",
            "seccomp.security.alpha.kubernetes.io/pod": "mine", "container.apparmor.security.beta.kubernetes.io/z": "good"}),
        json!({}),
    );
    assert_eq!(
        pod_problems(pod),
        [
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/z]: Invalid value: \"z\": container not found",
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/z]: Invalid value: \"good\": invalid AppArmor profile name: \"good\"",
            "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+1\": must be a 32bit integer",
            "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
            "metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: \"mine\": must be a valid seccomp profile",
        ]
    );
}

#[test]
fn operating_systems() {
    check(json!({"os": {"name": ""}}), &["spec.os.name: Required value: cannot be empty"]);
    check(json!({"os": {"name": "beos"}}), &["spec.os: Unsupported value: \"beos\": supported values: \"linux\", \"windows\""]);
    check(
        json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {"runAsUserName": "a"}}}),
        &["spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"],
    );
    check(
        json!({"os": {"name": "windows"}, "securityContext": {"runAsUser": 1}, "containers": [{"name": "c", "image": "x", "securityContext": {"privileged": true}}]}),
        &[
            "spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
            "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
        ],
    );
    // KEP-2837: "If the spec.os.name field ... is explicitly set to "windows", the Kubernetes API server will reject the Pod".
    let sized = |os: &str| json!({"os": {"name": os}, "resources": {"requests": {"cpu": "1"}}});
    check(sized("linux"), &[]);
    check(sized("windows"), &["spec.resources: Forbidden: may not be set for a windows pod"]);
}

#[test]
fn windows_options() {
    let options = |options: Value| json!({"securityContext": {"windowsOptions": options}});
    let at = "spec.securityContext.windowsOptions";
    check(options(json!({"runAsUserName": "NT AUTHORITY\\SYSTEM"})), &[]);
    let user = |name: &str, detail: &str| {
        let shown = apimachinery::text::quote(name);
        check(
            options(json!({"runAsUserName": name})),
            &[&format!("{at}.runAsUserName: Invalid value: {shown}: runAsUserName{detail}")],
        );
    };
    user("", " cannot be an empty string");
    user("a\\b\\c", " cannot contain more than one backslash");
    user("a\tb", " cannot contain control characters");
    user("a\\", "'s User cannot be empty");
    user("...", "'s User cannot contain only periods or spaces");
    user("a<b", "'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    user(".bad/\\a", "'s Domain doesn't match the NetBios nor the DNS format");
    check(
        options(json!({"hostProcess": true})),
        &["spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers"],
    );
}
