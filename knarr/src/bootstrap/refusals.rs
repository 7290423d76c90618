//! What the API refuses of our own: webhooks, policies and quotas are its users', and end no server. After a restart of the machine the pods that
//! answer a webhook run only once the server does.

use std::time::Duration;

use anyhow::Result;

/// How long what was refused waits. Who refuses it changes that without telling us.
pub(crate) const RETRY: Duration = Duration::from_secs(2);

/// Tells of each reason once.
#[derive(Default)]
pub(crate) struct Refusals(String);

impl Refusals {
    /// Whether it was refused.
    pub(crate) fn tell(&mut self, result: Result<()>) -> bool {
        let text = result.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
        if !text.is_empty() && text != self.0 {
            tracing::warn!(error = text, "the API does not take an object of the server itself; it is tried again");
        }
        self.0 = text;
        result.is_err()
    }

    /// Whether it was refused and is to be tried again, for which it is time then.
    pub(crate) async fn again(&mut self, result: Result<()>) -> bool {
        let is_refused = self.tell(result);
        if is_refused {
            tokio::time::sleep(RETRY).await;
        }
        is_refused
    }
}
