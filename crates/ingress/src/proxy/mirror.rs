//! Copies of requests for those whom nobody waits for (RequestMirror of the Gateway API).

use std::time::Duration;

use base::budgets::shares::Shares;
use base::budgets::{Meter, descriptors};
use base::tasks::OnFailure;
use http_body_util::{BodyExt, Limited};

use super::Proxy;
use crate::balance::Choice;
use crate::forward::{Outgoing, forward};
use crate::table::Mirrored;

/// Most copies that may be under way at once. Further ones are not made: whoever gets copies must not
/// cost those who ask.
const AT_ONCE: usize = 256;

/// The budget of copies.
pub(crate) fn at_once() -> Shares<()> {
    let all = descriptors::share(descriptors::limit(), descriptors::percent::INGRESS_MIRRORS, AT_ONCE);
    Shares::of(Some(Meter::new("ingress_mirrors", all)), all, all)
}

/// How long a copy and its answer may take, and how much of the answer is read to keep the connection.
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER: usize = 64 << 10;

impl Proxy {
    /// Sends copies of a request to those who get one of it.
    pub(super) fn mirror(&self, mirrors: &[Mirrored], outgoing: &mut Outgoing) {
        for mirror in mirrors.iter().filter(|mirror| crate::random::next() % mirror.of < mirror.part) {
            let Some(place) = self.mirrors.take(&()) else { return };
            let copy = Outgoing {
                parts: outgoing.parts.clone(),
                body: outgoing.body.copy(),
                progress: None,
                host: outgoing.host.clone(),
            };
            let (to, policy, connector) = (mirror.to.clone(), mirror.policy.clone(), self.connector.clone());
            let sending = async move {
                let answered = forward(&connector, &to, Choice::Any(policy.balance), &policy, copy).await;
                if let Ok(answered) = answered
                    && Limited::new(answered.response.into_body(), ANSWER).collect().await.is_ok()
                {
                    answered.lease.give_back();
                }
            };
            self.tasks.spawn_until_cancelled("copy of a request", OnFailure::Log, async move {
                // Nobody waits for the answer, whatever it is.
                let _ = tokio::time::timeout(PATIENCE, sending).await;
                drop(place);
                Ok::<_, std::convert::Infallible>(())
            });
        }
    }
}
