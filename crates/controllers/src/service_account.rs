//! Every namespace has a service account `default`.

use client::Api;
use client::kube::api::PostParams;
use client::{Informer, Informers, Key};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::namespace::{is_active, namespace_of, tolerate};

const DEFAULT: &str = "default";

pub(crate) struct ServiceAccounts {
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

impl ServiceAccounts {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { namespaces: informers.of(), accounts: informers.of() }
    }
}

impl Controller for ServiceAccounts {
    const NAME: &'static str = "serviceaccount";
    const ACCOUNT: &'static str = "service-account-controller";

    fn sources(&self) -> Vec<Source> {
        let of_account = Source::mapped(&self.accounts, |change, queue| {
            if change.key.name == DEFAULT && change.new.is_none() {
                queue.add(namespace_of(&change.key));
            }
        });
        vec![Source::own(&self.namespaces), of_account]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let namespace = self.namespaces.by_key(key);
        if !namespace.is_some_and(|namespace| is_active(&namespace)) || self.accounts.get(Some(&key.name), DEFAULT).is_some() {
            return Ok(Action::Done);
        }
        let api: Api<ServiceAccount> = Api::namespaced(cx.client.clone(), &key.name);
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(DEFAULT.to_owned()), ..Default::default() },
            ..Default::default()
        };
        tolerate(api.create(&PostParams::default(), &account).await)?;
        Ok(Action::Done)
    }
}
