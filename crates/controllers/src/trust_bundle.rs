//! The ClusterTrustBundle by which pods trust the API server: that of the signer `kubernetes.io/kube-apiserver-serving` (KEP-3257).

use client::Api;
use client::kube::api::{DeleteParams, PostParams, Preconditions};
use client::{Informer, Informers, Key};
use k8s_openapi::api::certificates::v1beta1::{ClusterTrustBundle, ClusterTrustBundleSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::namespace::tolerate;

const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";

pub(crate) struct ServingBundle {
    /// Those of the signer.
    bundles: Informer<ClusterTrustBundle>,
    certificates: String,
}

impl ServingBundle {
    pub(crate) fn new(informers: &Informers, certificates: String) -> Self {
        Self { bundles: informers.of_selected(&format!("spec.signerName={SIGNER}")), certificates }
    }

    /// The bundle's name follows from what is in it: one of other certificates is another bundle, and pods that select by signer never
    /// see none.
    fn name(&self) -> String {
        let digest = pods::csi::digest(&self.certificates);
        format!("{}:{}", SIGNER.replace('/', ":"), digest.get(..8).unwrap_or(&digest))
    }
}

impl Controller for ServingBundle {
    const NAME: &'static str = "kube-apiserver-serving-clustertrustbundle-publisher";
    const ACCOUNT: &'static str = "kube-apiserver-serving-clustertrustbundle-publisher";

    fn sources(&self) -> Vec<Source> {
        let key = Key::cluster(self.name());
        let own = key.clone();
        vec![Source::once(vec![key]), Source::mapped(&self.bundles, move |_, queue| queue.add(own.clone()))]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let api: Api<ClusterTrustBundle> = Api::all(cx.client.clone());
        match self.bundles.by_key(key) {
            Some(bundle) if bundle.spec.trust_bundle == self.certificates => {}
            Some(bundle) => {
                let mut wanted = bundle.as_ref().clone();
                wanted.spec.trust_bundle.clone_from(&self.certificates);
                api.replace(&key.name, &PostParams::default(), &wanted).await?;
            }
            None => {
                let spec =
                    ClusterTrustBundleSpec { signer_name: Some(SIGNER.to_owned()), trust_bundle: self.certificates.clone() };
                let metadata = ObjectMeta { name: Some(key.name.clone()), ..ObjectMeta::default() };
                tolerate(api.create(&PostParams::default(), &ClusterTrustBundle { metadata, spec }).await)?;
            }
        }
        for other in self.bundles.list() {
            let name = other.metadata.name.as_deref().unwrap_or_default();
            if name != key.name {
                let preconditions = Some(Preconditions { uid: other.metadata.uid.clone(), resource_version: None });
                tolerate(api.delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await)?;
            }
        }
        Ok(Action::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, object};
    use serde_json::json;

    /// What is there of other certificates goes, and what somebody has changed is put right.
    #[tokio::test]
    async fn there_is_one_bundle_of_the_signer() {
        let world = World::new();
        let bundle = |name: &str, signer: Option<&str>| {
            let metadata = json!({"name": name, "uid": name});
            object::<ClusterTrustBundle>(json!({"metadata": metadata, "spec": {"signerName": signer, "trustBundle": "old"}}))
        };
        world.fake.put(&bundle("kubernetes.io:kube-apiserver-serving:old", Some(SIGNER)));
        world.fake.put(&bundle("own", None));
        world.start(&[ServingBundle::NAME]);
        let name = format!("kubernetes.io:kube-apiserver-serving:{}", &pods::csi::digest("PEM")[..8]);
        let told = |bundles: &[ClusterTrustBundle]| {
            let mut told: Vec<_> = bundles
                .iter()
                .map(|bundle| (bundle.metadata.name.clone().unwrap_or_default(), bundle.spec.trust_bundle.clone()))
                .collect();
            told.sort();
            told
        };
        let expected = [(name.clone(), "PEM".to_owned()), ("own".to_owned(), "old".to_owned())];
        world.fake.until::<ClusterTrustBundle>(|bundles| told(bundles) == expected).await;
        world.fake.put(&bundle(&name, Some(SIGNER)));
        world.fake.until::<ClusterTrustBundle>(|bundles| told(bundles) == expected).await;
    }
}
