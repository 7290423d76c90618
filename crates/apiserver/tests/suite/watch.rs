//! A watch that a test reads event by event.

use apiserver::{Api, Body};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use registry::User;
use serde_json::Value;
use tower::Service as _;

pub(crate) struct Watch {
    body: Body,
    read: Vec<u8>,
}

impl Watch {
    /// Watches what `path` with its query selects, as the administrator.
    pub(crate) async fn start(api: &Api, path: &str) -> Self {
        let and = if path.contains('?') { '&' } else { '?' };
        let request = Request::get(format!("{path}{and}watch=true")).body(Full::<Bytes>::default()).unwrap();
        let user = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
        let response = api.as_user(user).call(request).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        Self { body: response.into_body(), read: Vec::new() }
    }

    /// The next event; the test fails when the watch ends.
    pub(crate) async fn next(&mut self) -> Value {
        self.end_or_next().await.unwrap_or_else(|| panic!("the watch ended"))
    }

    /// The next event, or nothing when the watch has ended.
    pub(crate) async fn end_or_next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.read.extend_from_slice(frame.data_ref().unwrap());
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn next_named(&mut self) -> (String, String) {
        let event = self.next().await;
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (word(&event["type"]), word(&event["object"]["metadata"]["name"]))
    }
}
