//! Webhooks that are asked whose a token is, and who may do what.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::https::Https;
use crate::policies;
use crate::server::{Server, admin, ask, start_with};
use crate::webhooks::{CONFIG_MAPS, GROUP, Hooks, VALIDATING, allow, config_map, register, send};

/// A server that knows tokens and decides. It remembers what it was asked.
struct Hook {
    https: Https,
    asked: Arc<Mutex<Vec<Value>>>,
    directory: tempfile::TempDir,
}

/// `Bearer jane` is Jane's. She may do what others' rules do not allow: get Secrets. What is called `denied` nobody may do.
fn answer(review: &Value) -> Value {
    let status = match review["kind"].as_str() {
        Some("TokenReview") => match review["spec"]["token"].as_str() {
            Some("jane" | "early") => json!({"authenticated": true, "user": {"username": "jane", "uid": "7", "groups": ["dev"]}}),
            Some("many") => {
                let groups: Vec<_> = (0..1000).map(|group| format!("directory:group-{group}")).collect();
                json!({"authenticated": true, "user": {"username": "many", "groups": groups}})
            }
            _ => json!({"authenticated": false}),
        },
        _ => {
            let about = &review["spec"]["resourceAttributes"];
            match (about["name"].as_str(), about["resource"].as_str()) {
                (Some("denied"), _) => json!({"allowed": false, "denied": true, "reason": "never"}),
                (_, Some("secrets")) => json!({"allowed": true}),
                _ => json!({"allowed": false, "reason": "the hook has no opinion"}),
            }
        }
    };
    json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "status": status})
}

impl Hook {
    async fn start() -> Self {
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let seen = asked.clone();
        let https = Https::start("localhost", None, 0, move |request: Request<hyper::body::Incoming>, _| {
            let seen = seen.clone();
            Box::pin(async move {
                let authorized = request.headers().get("authorization").is_some_and(|value| value == "Bearer secret");
                let review: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
                let body = answer(&review).to_string();
                let is_first = !seen.lock().contains(&review);
                // One that restarts, to whom is asked the first time.
                let restarts = review["spec"]["token"] == "early" && is_first;
                seen.lock().push(review);
                let response = Response::builder().status(if !authorized {
                    401
                } else if restarts {
                    500
                } else {
                    200
                });
                response.body(Full::<Bytes>::from(body).boxed()).unwrap()
            })
        });
        Self { https: https.await, asked, directory: tempfile::tempdir().unwrap() }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.https.kubeconfig(self.directory.path())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn asked(&self, kind: &str) -> Vec<Value> {
        self.asked.lock().iter().filter(|review| review["kind"] == kind).cloned().collect()
    }
}

async fn serve(change: impl FnOnce(&mut apiserver::Options)) -> Server {
    let mut server = start_with(change).await;
    let (service, tasks) = (server.service.take().unwrap(), server.tasks.clone());
    server.tasks.spawn("apiserver", base::tasks::OnFailure::Log, async move { service.run(tasks).await });
    server
}

#[tokio::test]
async fn whose_a_token_is() {
    let hook = Hook::start().await;
    let file = hook.kubeconfig();
    let options = apiserver::authn::webhook::Options { file, version: "v1".into(), ttl: Duration::from_secs(60) };
    let server = serve(|all| all.authentication.webhook = Some(options)).await;
    let who = async |token: &str| {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        ask(&server.api, "", &format!("POST {path}\nauthorization: Bearer {token}\ncontent-type: application/json\n\n{review}"))
            .await
    };
    for _ in 0..2 {
        let info = who("jane").await.json()["status"]["userInfo"].clone();
        assert_eq!(info, json!({"username": "jane", "uid": "7", "groups": ["dev", "system:authenticated"]}));
        assert_eq!(who("joe").await.code, 401);
    }
    let asked = hook.asked("TokenReview");
    assert_eq!(asked.len(), 2, "answers are kept, good ones and others: {asked:?}");
    assert_eq!(asked[0]["apiVersion"], "authentication.k8s.io/v1");
    assert_eq!(who("early").await.code, 201, "a webhook that fails for a moment is asked again");
    assert_eq!(hook.asked("TokenReview").len(), 4);
    for _ in 0..3 {
        assert_eq!(who("many").await.code, 201);
    }
    assert_eq!(hook.asked("TokenReview").len(), 5, "whoever is in many groups is asked for once, too");
    assert_eq!(asked[0]["spec"], json!({"token": "jane", "audiences": ["https://kubernetes.default.svc.cluster.local"]}));
}

/// KEP-3221: "chain multiple webhooks", with "CEL match conditions" and a failure policy each.
#[tokio::test]
async fn who_may_do_what() {
    let hook = Hook::start().await;
    let webhook = |name: &str, file: &Path, policy: &str, condition: &str| {
        json!({"type": "Webhook", "name": name, "webhook": {"timeout": "3s", "authorizedTTL": "60s", "unauthorizedTTL": "60s",
            "subjectAccessReviewVersion": "v1", "matchConditionSubjectAccessReviewVersion": "v1", "failurePolicy": policy,
            "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": file}, "matchConditions": [{"expression": condition}]}})
    };
    let nobody = std::fs::read_to_string(hook.kubeconfig()).unwrap().replace(&format!(":{}/", hook.https.port), ":1/");
    let nobody = hook.write("nobody", &nobody);
    let chain = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": [
        webhook("hook", &hook.kubeconfig(), "Deny", "has(request.resourceAttributes) && request.resourceAttributes.namespace == 'ns'"),
        webhook("gone", &nobody, "Deny", "has(request.resourceAttributes) && request.resourceAttributes.namespace == 'gone'"),
        webhook("shy", &nobody, "NoOpinion", "has(request.resourceAttributes)"),
        {"type": "RBAC", "name": "rbac"}]});
    let file = hook.write("authorization.yaml", &chain.to_string());
    let server = serve(|all| all.authorization.file = Some(file)).await;
    for name in ["ns", "gone", "other"] {
        crate::server::namespace(&server.api, name).await;
    }
    let code = async |path: &str| {
        let answer = ask(&server.api, "jane", &format!("GET /api/v1/namespaces/{path}")).await;
        let message = if answer.code == 403 { answer.json()["message"].as_str().unwrap().to_owned() } else { String::new() };
        (answer.code, message)
    };
    assert_eq!(code("ns/secrets").await, (200, String::new()));
    let asked = hook.asked("SubjectAccessReview");
    assert_eq!(
        asked[0]["spec"],
        json!({"user": "jane", "groups": ["system:authenticated"],
            "resourceAttributes": {"namespace": "ns", "verb": "list", "version": "v1", "resource": "secrets"}})
    );
    let (denied, why) = code("ns/configmaps/denied").await;
    assert!(denied == 403 && why.ends_with("in the namespace \"ns\": never"), "{why}");
    let (refused, why) = code("ns/configmaps").await;
    assert!(refused == 403 && why.ends_with("in the namespace \"ns\": the hook has no opinion"), "{why}");
    // A webhook that is not there: its failure policy says what that means.
    assert_eq!(code("gone/secrets").await.0, 403);
    assert_eq!(code("other/secrets").await.0, 403);
    crate::server::grant(
        &server.api,
        "jane",
        json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]),
        "GET /api/v1/namespaces/other/secrets",
    )
    .await;
    assert_eq!(code("other/secrets").await.0, 200, "rules are asked when a webhook has no opinion");
    assert_eq!(code("gone/secrets").await.0, 403, "but not when it denies");
    let before = hook.asked("SubjectAccessReview").len();
    assert_eq!((code("ns/secrets").await.0, code("ns/configmaps").await.0), (200, 403));
    assert_eq!(hook.asked("SubjectAccessReview").len(), before, "answers are kept");
    // Who asks decides how large a question is. It is not kept, and its answer is.
    let long = format!("ns/secrets/{}", "n".repeat(10_000));
    assert_eq!((code(&long).await.0, code(&long).await.0), (404, 404));
    assert_eq!(hook.asked("SubjectAccessReview").len(), before + 1);
    // Whether somebody may create what is there already is asked of nobody.
    let hooked = "/api/v1/namespaces/ns/secrets";
    let apply = async |name: &str| {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"k": "dg=="}});
        let before = hook.asked("SubjectAccessReview").len();
        let request = format!("PATCH {hooked}/{name}?fieldManager=m\ncontent-type: application/apply-patch+yaml\n\n{secret}");
        let code = ask(&server.api, "jane", &request).await.code;
        let asked = hook.asked("SubjectAccessReview").split_off(before);
        (code, asked.iter().map(|review| review["spec"]["resourceAttributes"]["verb"].clone()).collect::<Vec<_>>())
    };
    assert_eq!(apply("applied").await, (201, vec![json!("patch"), json!("create")]));
    assert_eq!(admin(&server.api, &format!("POST {hooked}\n\n{}", json!({"metadata": {"name": "there"}}))).await.code, 201);
    assert_eq!(apply("there").await, (200, vec![json!("patch")]));
    // Administrators are asked nothing.
    assert_eq!(admin(&server.api, "GET /api/v1/namespaces/gone/secrets").await.code, 200);
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "jane", "resourceAttributes": {"namespace": "ns", "verb": "get", "resource": "secrets"}}});
    let reviewed =
        admin(&server.api, &format!("POST /apis/authorization.k8s.io/v1/subjectaccessreviews\n\n{review}")).await.json();
    assert_eq!(reviewed["status"]["allowed"], true);
}

/// KEP-3488: an expression may ask the `authorizer`, whoever that is; one that is a webhook is waited for, by policies and by the match
/// conditions of webhooks.
#[tokio::test]
async fn expressions_that_ask() {
    let hook = Hook::start().await;
    let webhook = json!({"timeout": "3s", "authorizedTTL": "60s", "unauthorizedTTL": "60s", "subjectAccessReviewVersion": "v1",
        "matchConditionSubjectAccessReviewVersion": "v1", "failurePolicy": "NoOpinion",
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": hook.kubeconfig()}});
    let chain = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": [
        {"type": "RBAC", "name": "rbac"}, {"type": "Webhook", "name": "hook", "webhook": webhook}]});
    let file = hook.write("authorization.yaml", &chain.to_string());
    let server = serve(|all| all.authorization.file = Some(file)).await;
    let api = &server.api;
    crate::server::namespace(api, "ns").await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "list"]}]);
    crate::server::grant(api, "jane", rules, &format!("GET {CONFIG_MAPS}")).await;
    let may = |resource: &str, name: &str| {
        format!("authorizer.group('').resource('{resource}').namespace('ns').name('{name}').check('get')")
    };
    let (yes, no) = (may("secrets", "a"), may("secrets", "denied"));
    // What is asked second depends on what is answered first, and a variable is evaluated once for all.
    let expression = format!("variables.yes && !{no}.allowed() && !{no}.errored() && {}.allowed()", may("secrets", "b"));
    let variables = json!([{"name": "yes", "expression": format!("{yes}.allowed()")}]);
    let conditions = json!([{"name": "c", "expression": format!("{}.allowed()", may("secrets", "c"))}]);
    let change = json!({"variables": variables, "matchConditions": conditions});
    let validations =
        json!([{"expression": expression, "message": "wrong"}, {"expression": format!("!{yes}.allowed()"), "message": "right"}]);
    let deny = json!({"validationActions": ["Deny"]});
    policies::put_in_force(&server, "Validating", "asks", policies::validating(validations, change), deny).await;
    let create = async |name: &str| {
        let body = config_map(name, json!({}));
        ask(api, "jane", &format!("POST {CONFIG_MAPS}\n\n{body}")).await
    };
    let refused = create("refused").await;
    assert!(refused.code == 422 && refused.json()["message"].as_str().unwrap().ends_with(": right"), "{:?}", refused.body);
    // Of the first policy, whatever it says, of the second the same: what it makes of the answer stands in the object.
    let head = format!("DELETE {GROUP}/validatingadmissionpolicies/asks");
    send(api, 200, &head, &Value::Null).await;
    let patch = format!("[JSONPatch{{op: 'add', path: '/data', value: {{'may': string({yes}.allowed())}}}}]");
    let spec = json!({"matchConstraints": policies::constraints(&["CREATE"], "configmaps"), "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]});
    policies::put_in_force(&server, "Mutating", "asks", spec, json!({})).await;
    let made = create("made").await;
    assert_eq!((made.code, &made.json()["data"]), (201, &json!({"may": "true"})), "{:?}", made.body);
    let hooks = Hooks::serve(&server.tasks, |_, _| allow()).await;
    for (path, resource) in [("called", "secrets"), ("spared", "pods")] {
        let conditions = json!([{"name": "c", "expression": format!("{}.allowed()", may(resource, "a"))}]);
        let hook = hooks.hook(path, &["CREATE"], &["configmaps"], json!({"matchConditions": conditions}));
        register(api, VALIDATING, path, &[hook]).await;
    }
    assert_eq!(create("hooked").await.code, 201);
    assert_eq!((hooks.asked_at("/called").len(), hooks.asked_at("/spared").len()), (1, 0));
}
