//! Every namespace has a ConfigMap `kube-root-ca.crt`, by which pods trust the API server.

use std::collections::BTreeMap;

use client::Api;
use client::kube::api::PostParams;
use client::{Informer, Informers, Key};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::namespace::{is_active, namespace_of, tolerate};

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "CA certificates by which pods verify the API server at its internal addresses.";

pub(crate) struct RootCa {
    namespaces: Informer<Namespace>,
    /// Only those of our name: the other config maps of the cluster do not belong in this process's memory.
    maps: Informer<ConfigMap>,
    data: BTreeMap<String, String>,
}

impl RootCa {
    pub(crate) fn new(informers: &Informers, certificates: String) -> Self {
        Self {
            namespaces: informers.of(),
            maps: informers.of_selected(&format!("metadata.name={NAME}")),
            data: BTreeMap::from([("ca.crt".to_owned(), certificates)]),
        }
    }
}

impl Controller for RootCa {
    const NAME: &'static str = "root-ca";
    const ACCOUNT: &'static str = "root-ca-cert-publisher";

    fn sources(&self) -> Vec<Source> {
        let of_map = Source::stepped(&self.maps, |step, queue| queue.add(namespace_of(step.key())));
        vec![Source::own(&self.namespaces), of_map]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        if !self.namespaces.by_key(key).is_some_and(|namespace| is_active(&namespace)) {
            return Ok(Action::Done);
        }
        let api: Api<ConfigMap> = Api::namespaced(cx.client.clone(), &key.name);
        match self.maps.get(Some(&key.name), NAME) {
            None => tolerate(api.create(&PostParams::default(), &self.wanted(ConfigMap::default())).await)?,
            Some(map) if map.data.as_ref() == Some(&self.data) => {}
            Some(map) => {
                api.replace(NAME, &PostParams::default(), &self.wanted(map.as_ref().clone())).await?;
            }
        }
        Ok(Action::Done)
    }
}

impl RootCa {
    fn wanted(&self, map: ConfigMap) -> ConfigMap {
        let mut annotations = map.metadata.annotations.clone().unwrap_or_default();
        annotations.insert("kubernetes.io/description".to_owned(), DESCRIPTION.to_owned());
        ConfigMap {
            metadata: ObjectMeta { name: Some(NAME.to_owned()), annotations: Some(annotations), ..map.metadata },
            data: Some(self.data.clone()),
            ..map
        }
    }
}
