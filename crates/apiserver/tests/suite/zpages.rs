//! `/statusz` and `/flagz`.

use serde_json::json;

use crate::server::{admin, ask, serve};

/// KEP-4827: "/statusz will not be accessible through general discovery mechanisms"; "no formatting compatibility guarantees" for text.
#[tokio::test]
async fn the_server_says_what_it_is_to_who_may_know() {
    let server = serve().await;
    let api = &server.api;
    let statusz = admin(api, "GET /statusz").await;
    assert_eq!((statusz.code, &statusz.headers["content-type"]), (200, &"text/plain; charset=utf-8".parse().unwrap()));
    let text = String::from_utf8_lossy(&statusz.body).into_owned();
    assert!(text.starts_with("\nkube-apiserver statusz\nWarning: ") && text.contains("\nBinary version: 1.36."), "{text}");
    let object = async |path: &str, kind: &str| {
        admin(api, &format!("GET {path}\nAccept: application/json;v=v1beta1;g=config.k8s.io;as={kind}")).await.json()
    };
    assert_eq!(object("/statusz", "Statusz").await["emulationVersion"], "1.36");
    let flagz = object("/flagz", "Flagz").await;
    assert_eq!((&flagz["apiVersion"], &flagz["flags"]), (&json!("config.k8s.io/v1beta1"), &json!({"port": "0"})));
    let refused = admin(api, "GET /flagz\nAccept: application/json").await;
    assert_eq!((refused.code, &refused.json()["reason"]), (406, &json!("NotAcceptable")));
    for path in ["/statusz", "/flagz"] {
        assert_eq!(ask(api, "jane", &format!("GET {path}")).await.code, 403, "{path}");
        assert_eq!(admin(api, &format!("POST {path}")).await.code, 405, "{path}");
        let paths = admin(api, "GET /").await.json();
        assert!(paths["paths"].as_array().unwrap().contains(&json!(path)), "{paths}");
    }
}
