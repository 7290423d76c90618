use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::Requester;
use crate::testing::untyped::{created, prepared, row, updated, updated_through, with};

/// Made with openssl: a P-256 key, `/O=system:masters/CN=me`.
const REQUEST: &[u8] = include_bytes!("request.pem");
const CERTIFICATE: &[u8] = include_bytes!("certificate.pem");

fn request(change: (&str, Value)) -> Value {
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "me"},
        "spec": {"request": STANDARD.encode(REQUEST), "signerName": "example.com/something", "usages": ["client auth"]},
        "status": {},
    });
    if change.0.is_empty() { object } else { with(object, change.0, change.1) }
}

fn with_conditions(conditions: &[(&str, &str)]) -> Value {
    let conditions: Vec<_> = conditions.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect();
    request(("/status/conditions", json!(conditions)))
}

/// Cases of upstream's TestValidateCertificateSigningRequestCreate.
#[test]
fn new_requests() {
    let check = |pointer: &str, value: Value, expected: &[&str]| assert_eq!(created(request((pointer, value))), expected);
    check("", json!(null), &[]);
    check("/metadata/name", json!("Some_Name"), &[]);
    check("/spec/usages", json!([]), &["spec.usages: Required value"]);
    check("/spec/usages", json!(["client auth", "client auth"]), &["spec.usages[1]: Duplicate value: \"client auth\""]);
    check("/spec/signerName", json!(null), &["spec.signerName: Required value"]);
    check(
        "/spec/signerName",
        json!("kubernetes.io/legacy-unknown"),
        &[
            "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version",
        ],
    );
    check(
        "/spec/expirationSeconds",
        json!(599),
        &["spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)"],
    );
    let starts = |pointer: &str, value: Value, expected: &str| {
        let found = created(request((pointer, value)));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    };
    starts(
        "/spec/usages",
        json!(["other"]),
        "spec.usages[0]: Unsupported value: \"other\": supported values: \"any\", \"cert sign\"",
    );
    starts("/spec/signerName", json!("invalid"), "spec.signerName: Invalid value: \"invalid\": must be a fully qualified domain");
}

#[test]
fn what_is_not_a_request() {
    let why = |bytes: &[u8]| {
        let found = created(request(("/spec/request", STANDARD.encode(bytes).into())));
        found.first().and_then(|error| error.rsplit_once("\": ")).map(|(_, why)| why.to_owned()).unwrap_or_default()
    };
    assert_eq!(why(REQUEST), "");
    assert_eq!(why(b""), "PEM block type must be CERTIFICATE REQUEST");
    assert_eq!(why(CERTIFICATE), "PEM block type must be CERTIFICATE REQUEST");
    // Another name in the same request: the signature is of something else.
    let block = pem::parse(REQUEST).expect("a PEM block");
    let mut der = block.contents().to_vec();
    let name = der.windows(2).position(|two| two == b"me").expect("the common name");
    der[name] = b'w';
    let forged = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
    assert_eq!(why(forged.as_bytes()), "x509: signature verification failed");
    let cut = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", &block.contents()[..50]));
    assert!(why(cut.as_bytes()).starts_with("x509: "));
}

#[test]
fn conditions() {
    let check = |conditions: &[(&str, &str)], expected: &[&str]| {
        let (strategy, object) = prepared(with_conditions(conditions));
        let found = strategy.validate(&object, &mut Vec::new());
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    };
    check(&[("Approved", "True"), ("Other", "False")], &[]);
    check(
        &[("Approved", "True"), ("Denied", "True")],
        &["status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"],
    );
    check(&[("Other", "True"), ("Other", "True")], &["status.conditions[1].type: Duplicate value: \"Other\""]);
    check(
        &[("Failed", "False"), ("", "")],
        &[
            "status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\"",
            "status.conditions[1].type: Required value",
            "status.conditions[1].status: Required value",
        ],
    );
}

/// Cases of upstream's TestValidateCertificateSigningRequestStatusUpdate and ...ApprovalUpdate.
#[test]
fn decisions() {
    let (none, approved, denied) =
        (with_conditions(&[]), with_conditions(&[("Approved", "True")]), with_conditions(&[("Denied", "True")]));
    let check = |sub: &str, old: &Value, new: &Value, expected: &[&str]| {
        assert_eq!(updated_through(sub, old.clone(), new.clone()), expected, "{sub}");
    };
    check("approval", &none, &approved, &[]);
    check("approval", &none, &denied, &[]);
    check(
        "approval",
        &approved,
        &none,
        &["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""],
    );
    check("status", &none, &approved, &["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]);
    let changed = with(approved.clone(), "/status/conditions/0/message", json!("because"));
    check(
        "status",
        &approved,
        &changed,
        &["status.conditions: Forbidden: updates may not modify a condition of type \"Approved\""],
    );
    check("approval", &approved, &changed, &[]);
    check("status", &none, &with_conditions(&[("Failed", "True")]), &[]);
    assert_eq!(updated(none, approved), ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]);
}

#[test]
fn certificates() {
    let issued = |bytes: &[u8]| request(("/status/certificate", STANDARD.encode(bytes).into()));
    let check = |old: Value, new: Value, expected: &[&str]| assert_eq!(updated_through("status", old, new), expected);
    check(request(("", json!(null))), issued(CERTIFICATE), &[]);
    check(issued(CERTIFICATE), issued(CERTIFICATE), &[]);
    check(
        issued(CERTIFICATE),
        request(("", json!(null))),
        &["status.certificate: Forbidden: updates may not modify existing certificate content"],
    );
    check(
        request(("", json!(null))),
        issued(b"x"),
        &["status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block"],
    );
    check(
        request(("", json!(null))),
        issued(REQUEST),
        &[
            "status.certificate: Invalid value: \"<certificate data>\": only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\"",
        ],
    );
}

#[test]
fn who_asks_is_what_the_server_says() {
    let claimed = request(("/spec/username", json!("admin")));
    let (strategy, mut object) = prepared(with(claimed, "/spec/groups", json!(["system:masters"])));
    let (groups, extra) = (["a".to_owned()], BTreeMap::from([("k".to_owned(), vec!["v".to_owned()])]));
    let by = Requester { name: "me", uid: "", groups: &groups, extra: &extra, now: "2026-01-01T00:00:00Z" };
    strategy.record(&mut object, None, &by);
    let spec = &object["spec"];
    assert_eq!((&spec["username"], &spec["groups"], &spec["extra"]), (&json!("me"), &json!(["a"]), &json!({"k": ["v"]})));
    assert_eq!(spec.get("uid"), None);
}

#[test]
fn conditions_carry_their_time() {
    let extra = BTreeMap::new();
    let by = |now| Requester { name: "me", uid: "", groups: &[], extra: &extra, now };
    let (strategy, none) = prepared(with_conditions(&[]));
    let mut approved = prepared(with_conditions(&[("Approved", "True")])).1;
    strategy.record(&mut approved, Some(&none), &by("2026-01-01T00:00:00Z"));
    let condition = &approved["status"]["conditions"][0];
    assert_eq!(
        (&condition["lastUpdateTime"], &condition["lastTransitionTime"]),
        (&json!("2026-01-01T00:00:00Z"), &json!("2026-01-01T00:00:00Z"))
    );
    let mut again = prepared(with_conditions(&[("Approved", "True")])).1;
    strategy.record(&mut again, Some(&approved), &by("2026-02-02T00:00:00Z"));
    let condition = &again["status"]["conditions"][0];
    assert_eq!(
        (&condition["lastUpdateTime"], &condition["lastTransitionTime"]),
        (&json!("2026-02-02T00:00:00Z"), &json!("2026-01-01T00:00:00Z"))
    );
}

#[test]
fn rows() {
    let state = |object: Value| row(object)[4].clone();
    assert_eq!(
        row(request(("/spec/expirationSeconds", json!(3600)))),
        [json!("me"), json!("example.com/something"), json!(""), json!("60m"), json!("Pending"),]
    );
    assert_eq!(state(with_conditions(&[("Approved", "True")])), "Approved");
    assert_eq!(state(with_conditions(&[("Denied", "True"), ("Failed", "True")])), "Denied,Failed");
    let issued = with(with_conditions(&[("Approved", "True")]), "/status/certificate", STANDARD.encode(CERTIFICATE).into());
    assert_eq!(state(issued), "Approved,Issued");
}
