//! What is counted and known of one Ingress while requests pass.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use client::Key;

use crate::guard::clients::Authorities;
use crate::guard::limits::Limiter;
use crate::guard::passwords::Passwords;
use crate::metrics::Counts;
use crate::policy::Policy;
use crate::upstream::Upstream;

/// Shared by all routes of an Ingress.
#[derive(Debug)]
pub struct Live {
    pub(crate) limiter: Limiter,
    /// None while the Secret is not there or not good.
    pub(crate) passwords: ArcSwapOption<Passwords>,
    /// Whose certificates clients have to show; none while the Secret is not there or not good.
    pub(crate) authorities: ArcSwapOption<Authorities>,
    /// Who is asked whether a request may pass.
    pub(crate) external: Option<Arc<Upstream>>,
    /// What holds on the way there.
    pub(crate) asking: Policy,
    pub(crate) counts: Counts,
}

impl Live {
    pub(crate) fn new(ingress: &Key, policy: &Policy, external: Option<Arc<Upstream>>) -> Self {
        let limiter = Limiter::new(&policy.limits);
        let (connect_timeout, read_timeout) = (policy.connect_timeout, policy.read_timeout);
        let asking = Policy { connect_timeout, read_timeout, ..Policy::default() };
        Self {
            limiter,
            passwords: ArcSwapOption::empty(),
            authorities: ArcSwapOption::empty(),
            external,
            asking,
            counts: Counts::of(ingress),
        }
    }
}
