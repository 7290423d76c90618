#![allow(clippy::unwrap_used)]
use super::*;
use apimachinery::patch;

const UID: &str = "1a2b3c";

/// A job as the server would store it.
fn job(change: &Value) -> Value {
    let base = json!({"metadata": {"name": "pi", "uid": UID}, "spec": {"template": {
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x:1"}]}}}});
    let mut object = patch::merge(&base, change).unwrap();
    Job::apply_defaults(&mut object);
    Job::prepare_create(&mut object);
    object
}

fn typed(object: Value) -> Job {
    serde_json::from_value(object).unwrap()
}

fn texts(errors: &Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(spec: Value, expected: &[&str]) {
    let mut errors = Errors::new();
    typed(job(&json!({"spec": spec}))).validate_create(&mut errors);
    assert_eq!(texts(&errors), expected, "{spec}");
}

#[test]
fn defaults() {
    let check = |spec: Value, expected: Value| {
        let defaulted = job(&json!({"spec": spec}))["spec"].take();
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(defaulted.get(key).unwrap_or(&Value::Null), value, "{spec}: {key}");
        }
    };
    check(
        json!({}),
        json!({"completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "podReplacementPolicy": "TerminatingOrFailed", "manualSelector": false}),
    );
    check(json!({"parallelism": 3}), json!({"completions": null, "parallelism": 3}));
    check(json!({"completions": 3}), json!({"completions": 3, "parallelism": 1}));
    check(json!({"backoffLimitPerIndex": 1}), json!({"backoffLimit": i32::MAX}));
    let policy = |status: Value| json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": status}]}]});
    check(
        json!({"podFailurePolicy": policy(Value::Null)}),
        json!({"podReplacementPolicy": "Failed", "podFailurePolicy": policy(json!("True"))}),
    );
}

#[test]
fn labels_and_selector_are_generated() {
    let made = job(&json!({"spec": {"template": {"metadata": {"labels": {"app": "pi"}}}}}));
    assert_eq!(made["metadata"]["labels"], json!({"app": "pi"}));
    assert_eq!(made["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": UID}}));
    assert_eq!(
        made["spec"]["template"]["metadata"]["labels"],
        json!({"app": "pi", "job-name": "pi", "controller-uid": UID, "batch.kubernetes.io/job-name": "pi",
            "batch.kubernetes.io/controller-uid": UID})
    );
    let labels = json!({"metadata": {"labels": {"controller-uid": "other"}}});
    let all = format!(
        "{{\"batch.kubernetes.io/controller-uid\":\"{UID}\",\"batch.kubernetes.io/job-name\":\"pi\",\"controller-uid\":\"other\",\"job-name\":\"pi\"}}"
    );
    let at = "spec.template.metadata.labels[controller-uid]";
    check(json!({"template": labels}), &[&format!("{at}: Invalid value: {all}: must be '{UID}'")]);
    let own = json!({"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}});
    check(own, &[]);
    check(
        json!({"manualSelector": true}),
        &[
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
        ],
    );
}

#[test]
fn counts_and_restarts() {
    check(json!({}), &[]);
    check(
        json!({"parallelism": -1, "completions": -1, "activeDeadlineSeconds": -1, "backoffLimit": -1, "ttlSecondsAfterFinished": -1}),
        &["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"]
            .map(|field| format!("spec.{field}: Invalid value: -1: must be greater than or equal to 0"))
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    );
    let restart = |policy: Value| json!({"template": {"spec": {"restartPolicy": policy}}});
    let at = "spec.template.spec.restartPolicy";
    check(restart(json!("OnFailure")), &[]);
    check(restart(Value::Null), &[&format!("{at}: Required value: valid values: \"OnFailure\", \"Never\"")]);
    check(
        json!({"managedBy": "acme", "completionMode": "Other"}),
        &[
            "spec.managedBy: Invalid value: \"acme\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            "spec.completionMode: Unsupported value: \"Other\": supported values: \"NonIndexed\", \"Indexed\"",
        ],
    );
    check(
        json!({"podReplacementPolicy": "Now"}),
        &["spec.podReplacementPolicy: Unsupported value: \"Now\": supported values: \"Failed\", \"TerminatingOrFailed\""],
    );
}

#[test]
fn indexed() {
    let indexed = |more: Value| patch::merge(&json!({"completionMode": "Indexed", "completions": 2}), &more).unwrap();
    check(indexed(json!({"backoffLimitPerIndex": 1, "maxFailedIndexes": 2})), &[]);
    check(
        json!({"completionMode": "Indexed", "parallelism": 100_001}),
        &[
            "spec.completions: Required value: when completion mode is Indexed",
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
        ],
    );
    check(
        indexed(json!({"maxFailedIndexes": 3})),
        &[
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions",
        ],
    );
    check(
        indexed(json!({"completions": 100_001, "parallelism": 10_001, "backoffLimitPerIndex": 1})),
        &[
            "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
            "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index",
        ],
    );
    check(json!({"backoffLimitPerIndex": 1}), &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"]);
    let mut errors = Errors::new();
    let long = "a".repeat(62);
    typed(job(&json!({"metadata": {"name": long}, "spec": indexed(json!({}))}))).validate_create(&mut errors);
    let expected =
        format!("metadata.name: Invalid value: \"{long}\": will not able to create pod with invalid DNS label: {long}-1");
    assert_eq!(texts(&errors), [expected]);
}

#[test]
fn failure_policies() {
    let rule = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
    let at = "spec.podFailurePolicy.rules[0]";
    check(rule(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2], "containerName": "c"}})), &[]);
    check(
        rule(json!({"action": "", "onExitCodes": {"operator": "Near", "values": [2, 1, 1], "containerName": "x"},
            "onPodConditions": [{"type": "Disruption Target", "status": "Perhaps"}]})),
        &[
            &format!("{at}.action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
            &format!("{at}.onExitCodes.operator: Unsupported value: \"Near\": supported values: \"In\", \"NotIn\""),
            &format!(
                "{at}.onExitCodes.containerName: Invalid value: \"x\": must be one of the container or initContainer names in the pod template"
            ),
            &format!("{at}.onExitCodes.values[2]: Duplicate value: 1"),
            &format!("{at}.onExitCodes.values: Invalid value: [2,1,1]: must be ordered"),
            &format!(
                "{at}.onPodConditions[0].type: Invalid value: \"Disruption Target\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ),
            &format!(
                "{at}.onPodConditions[0].status: Unsupported value: \"Perhaps\": supported values: \"False\", \"True\", \"Unknown\""
            ),
            &format!("{at}: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported"),
        ],
    );
    check(
        rule(json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [0]}})),
        &[
            &format!("{at}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"),
            &format!("{at}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator"),
        ],
    );
    check(
        rule(json!({"action": "Count"})),
        &[&format!("{at}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required")],
    );
    check(
        json!({"podFailurePolicy": {"rules": []}, "podReplacementPolicy": "TerminatingOrFailed", "template": {"spec": {"restartPolicy": "OnFailure"}}}),
        &[
            "spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\"",
            "spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when podFailurePolicy is specified",
        ],
    );
}

#[test]
fn success_policies() {
    let rules = |rules: Value| json!({"completionMode": "Indexed", "completions": 5, "successPolicy": {"rules": rules}});
    let at = "spec.successPolicy.rules";
    check(rules(json!([{"succeededIndexes": "0-2", "succeededCount": 2}])), &[]);
    check(
        rules(json!([])),
        &[&format!("{at}: Required value: at least one rules must be specified when the successPolicy is specified")],
    );
    check(
        rules(json!([{}])),
        &[&format!("{at}[0]: Required value: at least one of succeededCount or succeededIndexes must be specified")],
    );
    check(
        rules(json!([{"succeededIndexes": "1,5", "succeededCount": 6}])),
        &[
            &format!("{at}[0].succeededIndexes: Invalid value: \"1,5\": error parsing succeededIndexes: too large index: \"5\""),
            &format!(
                "{at}[0].succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)"
            ),
            &format!(
                "{at}[0].succeededCount: Invalid value: 6: must be less than or equal to 0 (the number of indexes in the specified succeededIndexes field)"
            ),
        ],
    );
    check(
        json!({"successPolicy": {"rules": []}}),
        &["spec.successPolicy: Invalid value: {\"rules\":[]}: requires indexed completion mode"],
    );
}

#[track_caller]
fn check_update(old: Value, new: Value, expected: &[&str]) {
    let mut errors = Errors::new();
    update::validate(&typed(job(&new)), &typed(job(&old)), &mut errors);
    let ends: Vec<_> = errors.iter().map(|error| format!("{}: {}", error.path, error.detail)).collect();
    assert_eq!(ends, expected, "{new}");
}

#[test]
fn what_may_change() {
    let spec = |spec: Value| json!({"spec": spec});
    check_update(
        spec(json!({})),
        spec(json!({"completions": 1, "parallelism": 3, "suspend": true, "backoffLimit": 1, "ttlSecondsAfterFinished": 5})),
        &[],
    );
    check_update(spec(json!({"completions": 2})), spec(json!({"completions": 3})), &["spec.completions: field is immutable"]);
    let indexed = |completions: i32, parallelism: i32| {
        spec(json!({"completionMode": "Indexed", "completions": completions, "parallelism": parallelism}))
    };
    check_update(indexed(2, 2), indexed(3, 3), &[]);
    check_update(indexed(2, 2), indexed(3, 2), &["spec.completions: can only be modified in tandem with spec.parallelism"]);
    let image = json!({"template": {"spec": {"containers": [{"name": "c", "image": "y:1"}]}}});
    check_update(spec(json!({})), spec(image), &["spec.template: field is immutable"]);
    check_update(spec(json!({})), spec(json!({"managedBy": "a.b/c"})), &["spec.managedBy: field is immutable"]);
}

#[test]
fn templates_of_suspended_jobs() {
    let suspended = |spec: Value, status: Value| {
        let template = json!({"spec": {"suspend": true, "template": {"spec": spec}}, "status": status});
        template
    };
    let idle = json!({});
    let busy = json!({"active": 1, "startTime": "2026-01-01T00:00:00Z"});
    let place = json!({"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}});
    check_update(suspended(json!({}), idle.clone()), suspended(place.clone(), json!({})), &[]);
    check_update(suspended(json!({}), busy.clone()), suspended(place, json!({})), &["spec.template: field is immutable"]);
    let resources = json!({"containers": [{"name": "c", "image": "x:1", "resources": {"requests": {"cpu": "1"}}}]});
    check_update(suspended(json!({}), idle.clone()), suspended(resources.clone(), json!({})), &[]);
    check_update(suspended(json!({}), busy), suspended(resources, json!({})), &["spec.template: field is immutable"]);
    check_update(
        suspended(json!({}), idle),
        suspended(json!({"hostNetwork": true}), json!({})),
        &["spec.template.spec: field is immutable"],
    );
}

#[track_caller]
fn check_status(spec: Value, old: Value, new: Value, expected: &[&str]) {
    let of = |status: Value| typed(job(&json!({"spec": spec, "status": status})));
    let mut errors = Errors::new();
    status::validate(&of(new.clone()), &of(old), &mut errors);
    assert_eq!(texts(&errors), expected, "{new}");
}

fn conditions(types: &[&str]) -> Value {
    types.iter().map(|kind| json!({"type": kind, "status": "True"})).collect()
}

const START: &str = "2026-01-01T00:00:00Z";
const END: &str = "2026-01-01T00:01:00Z";

#[test]
fn statuses() {
    let done = conditions(&["SuccessCriteriaMet", "Complete"]);
    let complete = json!({"conditions": done, "startTime": START, "completionTime": END, "succeeded": 1});
    check_status(json!({}), json!({"active": 1, "startTime": START}), complete.clone(), &[]);
    check_status(
        json!({}),
        json!({}),
        json!({"active": 1, "ready": 2, "failed": -1}),
        &[
            "status.failed: Invalid value: -1: must be greater than or equal to 0",
            "status.ready: Invalid value: 2: cannot set more ready pods than active",
            "status.failed: Invalid value: -1: cannot decrease the failed counter",
        ],
    );
    check_status(
        json!({}),
        json!({}),
        json!({"conditions": conditions(&["Complete"]), "active": 1}),
        &[
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.startTime: Required value: startTime is required for finished job",
        ],
    );
    check_status(
        json!({}),
        json!({}),
        json!({"conditions": conditions(&["Failed"]), "startTime": START}),
        &["status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition"],
    );
    check_status(
        json!({}),
        complete,
        json!({"startTime": START, "succeeded": 1}),
        &[
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
        ],
    );
    check_status(
        json!({}),
        json!({"startTime": START, "succeeded": 2}),
        json!({"succeeded": 1}),
        &[
            "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter",
            "status.startTime: Required value: startTime cannot be removed for unsuspended job",
        ],
    );
    check_status(
        json!({}),
        json!({}),
        json!({"uncountedTerminatedPods": {"succeeded": ["a", ""], "failed": ["a"]}}),
        &[
            "status.uncountedTerminatedPods.succeeded[1]: Invalid value: \"\": must not be empty",
            "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
        ],
    );
}

#[test]
fn a_resumed_job_starts_again() {
    let suspended = json!({"conditions": conditions(&["Suspended"]), "startTime": START});
    check_status(json!({"suspend": false}), suspended.clone(), json!({"startTime": END}), &[]);
    let still = json!({"conditions": conditions(&["Suspended"]), "startTime": END});
    let kept = "status.startTime: Required value: startTime cannot be removed for unsuspended job";
    let fixed = format!("status.startTime: Invalid value: \"{END}\": field is immutable for unsuspended job once set");
    check_status(json!({"suspend": false}), suspended, still, &[&fixed]);
    // KEP-5440: a suspended job has no start.
    let none = json!({"conditions": conditions(&["Suspended"])});
    check_status(json!({"suspend": true}), json!({"startTime": START}), none.clone(), &[]);
    check_status(json!({"suspend": false}), json!({"startTime": START}), none, &[kept]);
}

#[test]
fn lists_of_indexes() {
    let indexed = json!({"completionMode": "Indexed", "completions": 5, "backoffLimitPerIndex": 1});
    check_status(indexed.clone(), json!({}), json!({"completedIndexes": "0-1,3", "failedIndexes": "2"}), &[]);
    check_status(
        indexed,
        json!({}),
        json!({"completedIndexes": "0-1,7", "failedIndexes": "1"}),
        &[
            "status.completedIndexes: Invalid value: \"0-1,7\": error parsing completedIndexes: too large index: \"7\"",
            "status.failedIndexes: Invalid value: \"1\": failedIndexes and completedIndexes overlap at index: 1",
        ],
    );
    check_status(
        json!({}),
        json!({}),
        json!({"completedIndexes": "0", "failedIndexes": ""}),
        &[
            "status.completedIndexes: Invalid value: \"0\": cannot set non-empty completedIndexes when non-indexed completion mode",
            "status.failedIndexes: Invalid value: \"\": cannot set non-null failedIndexes when backoffLimitPerIndex is null",
        ],
    );
}

#[test]
fn warnings() {
    let shown = typed(job(&json!({"metadata": {"name": "a.b"}})));
    assert!(shown.warnings()[0].starts_with("metadata.name: this is used in Pod names and hostnames"), "{:?}", shown.warnings());
    let big = json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001});
    let big = typed(job(&json!({"spec": big})));
    assert!(big.warnings()[0].starts_with("spec: In Indexed Jobs with a number of completions"), "{:?}", big.warnings());
    assert_eq!(big.warnings_on_update(&big), Vec::<String>::new());
}

#[test]
fn cells() {
    let check = |spec: Value, status: Value, expected: [&str; 3]| {
        let job = typed(job(&json!({"spec": spec, "status": status})));
        let now = END.parse().unwrap();
        assert_eq!([state(&job), &completions(&job), &duration(&job, now)], expected);
    };
    check(json!({}), json!({}), ["Running", "0/1", ""]);
    check(json!({"completions": 3}), json!({"succeeded": 1, "startTime": START}), ["Running", "1/3", "60s"]);
    check(json!({"parallelism": 4}), json!({"conditions": conditions(&["Suspended"])}), ["Suspended", "0/1 of 4", ""]);
    let done = json!({"conditions": conditions(&["Complete"]), "startTime": START, "completionTime": "2026-01-01T00:00:10Z", "succeeded": 1});
    check(json!({}), done, ["Complete", "1/1", "10s"]);
}
