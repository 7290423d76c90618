use super::*;

#[test]
fn policies_and_names() {
    check(
        json!({"restartPolicy": "Sometimes", "dnsPolicy": "Mine", "activeDeadlineSeconds": 0}),
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            "spec.dnsPolicy: Unsupported value: \"Mine\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ],
    );
    check(
        json!({"preemptionPolicy": "Maybe"}),
        &["spec.preemptionPolicy: Unsupported value: \"Maybe\": supported values: \"PreemptLowerPriority\", \"Never\""],
    );
    check(
        json!({"nodeName": "n1", "schedulingGates": [{"name": "a"}, {"name": "a"}], "readinessGates": [{"conditionType": "/x"}]}),
        &[
            "spec.readinessGates[0].conditionType: Invalid value: \"/x\": prefix part must be non-empty",
            "spec.schedulingGates[1]: Duplicate value: \"a\"",
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ],
    );
}

#[test]
fn resolving() {
    check(json!({"dnsPolicy": "None"}), &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"]);
    check(
        json!({"dnsPolicy": "None", "dnsConfig": {}}),
        &["spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None"],
    );
    check(
        json!({"dnsConfig": {"nameservers": ["1.1.1.1"], "searches": [".", "_a.b."], "options": [{"name": "ndots", "value": "2"}]}}),
        &[],
    );
    check(
        json!({"dnsConfig": {"nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "x"], "options": [{}]}}),
        &[
            "spec.dnsConfig.nameservers: Invalid value: [\"1.1.1.1\",\"2.2.2.2\",\"3.3.3.3\",\"x\"]: must not have more than 3 nameservers",
            "spec.dnsConfig.nameservers[3]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "spec.dnsConfig.options[0]: Required value: must not be empty",
        ],
    );
    check(
        json!({"hostAliases": [{"ip": "x"}]}),
        &["spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"],
    );
}

#[test]
fn tolerations() {
    check(
        json!({"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 1}]}),
        &[],
    );
    check(
        json!({"tolerations": [{"value": "x"}, {"key": "a", "operator": "Exists", "value": "b", "effect": "Never"}, {"key": "a", "operator": "Like", "tolerationSeconds": 1}]}),
        &[
            "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            "spec.tolerations[1].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
            "spec.tolerations[1].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
            "spec.tolerations[2].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
            "spec.tolerations[2].operator: Unsupported value: \"Like\": supported values: \"Equal\", \"Exists\"",
        ],
    );
}

#[test]
fn affinity_to_nodes() {
    let required = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    let at = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    check(required(json!([{"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}])), &[]);
    check(required(json!([])), &[&format!("{at}: Required value: must have at least one node selector term")]);
    check(
        required(
            json!([{"matchExpressions": [{"key": "a", "operator": "In"}, {"key": "a", "operator": "Exists", "values": ["-"]}, {"key": "", "operator": "Is"}],
            "matchFields": [{"key": "metadata.name", "operator": "In"}, {"key": "spec.x", "operator": "In", "values": ["n"]}]}]),
        ),
        &[
            &format!("{at}[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
            &format!(
                "{at}[0].matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            ),
            &format!(
                "{at}[0].matchExpressions[1].values[0]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ),
            &format!("{at}[0].matchExpressions[2].operator: Invalid value: \"Is\": not a valid selector operator"),
            &format!("{at}[0].matchExpressions[2].key: Invalid value: \"\": name part must be non-empty"),
            &format!(
                "{at}[0].matchExpressions[2].key: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ),
            &format!(
                "{at}[0].matchFields[0].values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            ),
            &format!("{at}[0].matchFields[1].key: Invalid value: \"spec.x\": not a valid field selector key"),
        ],
    );
    check(
        json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["-"]}]}}]}}}),
        &[
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
        ],
    );
}

#[test]
fn affinity_to_pods() {
    let required =
        |term: Value| json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    let at = "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]";
    check(required(json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}})), &[]);
    check(
        required(
            json!({"topologyKey": "zone", "namespaces": ["A"], "matchLabelKeys": ["a"], "labelSelector": {"matchExpressions": [{"key": "x", "operator": "Is"}]}, "mismatchLabelKeys": ["a"]}),
        ),
        &[
            &format!("{at}.labelSelector.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator"),
            &format!(
                "{at}.namespace: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ),
            &format!("{at}.matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and mismatchLabelKeys"),
        ],
    );
    check(
        required(json!({"topologyKey": "zone", "matchLabelKeys": ["a"]})),
        &[&format!("{at}.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set")],
    );
}

#[test]
fn spreading() {
    let constraint = |more: Value| {
        let mut constraint =
            json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}});
        constraint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        constraint
    };
    let at = "spec.topologySpreadConstraints[0]";
    check(json!({"topologySpreadConstraints": [constraint(json!({"minDomains": 2}))]}), &[]);
    check(
        json!({"topologySpreadConstraints": [constraint(json!({"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Wait", "minDomains": 0, "nodeTaintsPolicy": "X"}))]}),
        &[
            &format!("{at}.maxSkew: Invalid value: 0: must be greater than zero"),
            &format!("{at}.topologyKey: Required value: can not be empty"),
            &format!(
                "{at}.whenUnsatisfiable: Unsupported value: \"Wait\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\""
            ),
            &format!("{at}.minDomains: Invalid value: 0: must be greater than zero"),
            &format!("{at}.minDomains: Invalid value: 0: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not Wait"),
            &format!("{at}.nodeTaintsPolicy: Unsupported value: \"X\": supported values: \"Honor\", \"Ignore\""),
        ],
    );
    check(
        json!({"topologySpreadConstraints": [constraint(json!({})), constraint(json!({}))]}),
        &[&format!("{at}.{{topologyKey, whenUnsatisfiable}}: Duplicate value: \"{{zone, DoNotSchedule}}\"")],
    );
    // The first expression is the one that a new pod gets for its key.
    let a = json!({"key": "a", "operator": "In", "values": ["b"]});
    check(
        json!({"topologySpreadConstraints": [constraint(json!({"matchLabelKeys": ["a"], "labelSelector": {"matchExpressions": [a]}}))]}),
        &[],
    );
    check(
        json!({"topologySpreadConstraints": [constraint(json!({"matchLabelKeys": ["a"], "labelSelector": {"matchLabels": {"a": "b"}, "matchExpressions": [a]}}))]}),
        &[&format!("{at}.matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and labelSelector")],
    );
}

/// KEP-4762: `hostnameOverride` with `setHostnameAsFQDN` or `hostNetwork` "is not allowed"; a pod that has both already may still change.
#[test]
fn one_name_of_a_host() {
    check(json!({"hostnameOverride": "a.b", "setHostnameAsFQDN": false, "hostNetwork": false}), &[]);
    let both = json!({"hostnameOverride": "a.b", "setHostnameAsFQDN": true, "hostNetwork": true});
    check(
        both.clone(),
        &[
            "spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
            "spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
        ],
    );
    let pod = |image: &str| {
        let base = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"name": "c", "image": image}]}});
        patch::merge(&base, &json!({"spec": both})).unwrap()
    };
    crate::testing::check_update::<Pod>(pod("x:1"), pod("x:2"), &[]);
}
