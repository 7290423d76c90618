//! Requests for the objects of one kind.
//!
//! [`kube::Api`] brings its own decoder of every kind into every crate that calls it, and a state machine for each verb of each kind. Here
//! what is on the way is one function for all kinds, and objects go through the decoders of [`codec`].

use std::fmt::Debug;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use codec::{Decode, Encode};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ListMeta, ObjectList, Request, TypeMeta};
use kube::{Client, Error, Resource, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::names::segment;

type Answer = Pin<Box<dyn Future<Output = Result<String>> + Send>>;
type Asked = std::result::Result<http::Request<Vec<u8>>, kube::core::request::Error>;

/// The objects of kind `K`: everywhere, or in a namespace. Cheap to clone.
pub struct Api<K> {
    client: Client,
    request: Request,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), request: Request::new(self.request.url_path.clone()), kind: PhantomData }
    }
}

impl<K> Debug for Api<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.request.url_path)
    }
}

impl<K: Resource<DynamicType = ()>> Api<K> {
    /// Objects without a namespace, or those of all namespaces.
    pub fn all(client: Client) -> Self {
        Self { client, request: Request::new(K::url_path(&(), None)), kind: PhantomData }
    }

    /// The objects of a namespace.
    pub fn namespaced(client: Client, namespace: &str) -> Self
    where
        K: Resource<Scope = NamespaceResourceScope>,
    {
        Self { client, request: Request::new(K::url_path(&(), Some(namespace))), kind: PhantomData }
    }
}

impl<K> Api<K> {
    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    /// What the API answers. A box for all kinds: each caller of a verb would have all that is on the way within its own state machine.
    pub(crate) fn answer(&self, request: Asked) -> Answer {
        answer(self.client.clone(), request)
    }

    /// Deletes an object. What the API says of it is not read.
    ///
    /// # Errors
    /// When the API refuses, or is not reached.
    pub async fn delete(&self, name: &str, params: &DeleteParams) -> Result<()> {
        self.answer(self.request.delete(&segment(name)?, params)).await.map(drop)
    }

    /// Deletes the objects that are selected.
    ///
    /// # Errors
    /// When the API refuses, or is not reached.
    pub async fn delete_collection(&self, params: &DeleteParams, list: &ListParams) -> Result<()> {
        self.answer(self.request.delete_collection(params, list)).await.map(drop)
    }
}

impl<K: Decode> Api<K> {
    /// One object.
    ///
    /// # Errors
    /// When it is not there, the API refuses or is not reached, or the object cannot be decoded.
    pub async fn get(&self, name: &str) -> Result<K> {
        object(&self.answer(self.request.get(&segment(name)?, &GetParams::default())).await?)
    }

    /// One object; none when it is not there.
    ///
    /// # Errors
    /// When the API refuses or is not reached, or the object cannot be decoded.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(Error::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The objects that are selected.
    ///
    /// # Errors
    /// When the API refuses or is not reached, or an object cannot be decoded.
    pub async fn list(&self, params: &ListParams) -> Result<ObjectList<K>>
    where
        K: Clone,
    {
        let text = self.answer(self.request.list(params)).await?;
        let List { api_version, kind, metadata, items } = serde_json::from_str(&text).map_err(Error::SerdeError)?;
        let items = items.into_iter().flatten().map(|item| object(item.get())).collect::<Result<_>>()?;
        Ok(ObjectList { types: TypeMeta { api_version, kind }, metadata, items })
    }

    /// Creates an object, and gives it as it was stored.
    ///
    /// # Errors
    /// When the API refuses or is not reached, or the object has no form in JSON or cannot be decoded.
    pub async fn create(&self, params: &PostParams, new: &K) -> Result<K>
    where
        K: Encode,
    {
        object(&self.answer(self.request.create(params, text(new)?)).await?)
    }

    /// Replaces an object, and gives it as it was stored.
    ///
    /// # Errors
    /// As [`Api::create`].
    pub async fn replace(&self, name: &str, params: &PostParams, new: &K) -> Result<K>
    where
        K: Encode,
    {
        object(&self.answer(self.request.replace(&segment(name)?, params, text(new)?)).await?)
    }

    /// Replaces the status of an object, and gives the object as it was stored.
    ///
    /// # Errors
    /// As [`Api::create`].
    pub async fn replace_status(&self, name: &str, params: &PostParams, new: &K) -> Result<K>
    where
        K: Encode,
    {
        self.replace_subresource("status", name, params, new).await
    }

    /// Replaces what a subresource shows, and gives the object as it was stored.
    ///
    /// # Errors
    /// As [`Api::create`].
    pub async fn replace_subresource(&self, sub: &str, name: &str, params: &PostParams, new: &K) -> Result<K>
    where
        K: Encode,
    {
        object(&self.answer(self.request.replace_subresource(sub, &segment(name)?, params, text(new)?)).await?)
    }

    /// Posts to a subresource, and gives what the API answers.
    ///
    /// # Errors
    /// As [`Api::create`].
    pub async fn create_subresource<S: Encode, A: Decode>(
        &self,
        sub: &str,
        name: &str,
        params: &PostParams,
        new: &S,
    ) -> Result<A> {
        object(&self.answer(self.request.create_subresource(sub, &segment(name)?, params, text(new)?)).await?)
    }

    /// Patches an object, and gives it as it was stored.
    ///
    /// # Errors
    /// As [`Api::create`].
    pub async fn patch(&self, name: &str, params: &PatchParams, patch: &Patch<impl Serialize>) -> Result<K> {
        object(&self.answer(self.request.patch(&segment(name)?, params, patch)).await?)
    }

    /// Patches the status of an object, and gives the object as it was stored.
    ///
    /// # Errors
    /// As [`Api::create`].
    pub async fn patch_status(&self, name: &str, params: &PatchParams, patch: &Patch<impl Serialize>) -> Result<K> {
        self.patch_subresource("status", name, params, patch).await
    }

    /// Patches what a subresource shows, and gives the object as it was stored.
    ///
    /// # Errors
    /// As [`Api::create`].
    pub async fn patch_subresource(
        &self,
        sub: &str,
        name: &str,
        params: &PatchParams,
        patch: &Patch<impl Serialize>,
    ) -> Result<K> {
        object(&self.answer(self.request.patch_subresource(sub, &segment(name)?, params, patch)).await?)
    }
}

/// A list whose objects are text yet.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ListMeta,
    // Null where there is none; an answer without this field is no list.
    #[serde(borrow, deserialize_with = "Option::deserialize")]
    items: Option<Vec<&'a RawValue>>,
}

fn answer(client: Client, request: Asked) -> Answer {
    Box::pin(async move { client.request_text(request.map_err(Error::BuildRequest)?).await })
}

fn object<K: Decode>(text: &str) -> Result<K> {
    K::from_json(text.as_bytes()).map_err(Error::SerdeError)
}

fn text<K: Encode>(object: &K) -> Result<Vec<u8>> {
    object.to_json().map_err(Error::SerdeError)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::Fake;

    fn map(value: Value) -> ConfigMap {
        codec::from_value(value).unwrap()
    }

    #[tokio::test]
    async fn objects_are_read_and_written() {
        let fake = Fake::default();
        let api: Api<ConfigMap> = Api::namespaced(fake.client(), "a");
        let new = map(json!({"metadata": {"name": "m"}, "data": {"k": "v"}}));
        let mut created = api.create(&PostParams::default(), &new).await.unwrap();
        assert!(created.metadata.uid.is_some());
        assert_eq!(created, api.get("m").await.unwrap());
        created.data = None;
        assert_eq!(api.replace("m", &PostParams::default(), &created).await.unwrap().data, None);
        let patch = Patch::Merge(json!({"data": {"k": "w"}}));
        let patched = api.patch("m", &PatchParams::default(), &patch).await.unwrap();
        assert_eq!(patched.data.as_ref().unwrap()["k"], "w");
        let all = Api::<ConfigMap>::all(fake.client()).list(&ListParams::default()).await.unwrap();
        assert_eq!(all.items, [patched]);
        assert!(all.metadata.resource_version.is_some());
        api.delete("m", &DeleteParams::default()).await.unwrap();
        assert_eq!(api.get_opt("m").await.unwrap(), None);
        assert!(matches!(api.get("m").await, Err(Error::Api(status)) if status.is_not_found()));
    }

    #[tokio::test]
    async fn a_status_is_written_alone() {
        let fake = Fake::default();
        fake.put::<Pod>(
            &codec::from_value(json!({"metadata": {"namespace": "a", "name": "p"}, "spec": {"containers": []}})).unwrap(),
        );
        let api: Api<Pod> = Api::namespaced(fake.client(), "a");
        let patch = Patch::Merge(json!({"status": {"phase": "Running"}}));
        let mut pod = api.patch_status("p", &PatchParams::default(), &patch).await.unwrap();
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        assert_eq!(phase(&pod).as_deref(), Some("Running"));
        pod.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        let replaced = api.replace_status("p", &PostParams::default(), &pod).await.unwrap();
        assert_eq!(phase(&replaced).as_deref(), Some("Failed"));
    }

    #[test]
    fn an_answer_without_objects_is_no_list() {
        let items =
            |text: &'static str| serde_json::from_str::<List<'_>>(text).map(|list| list.items.map_or(0, |items| items.len()));
        assert_eq!(items(r#"{"kind":"PodList","items":[{"metadata":{}},1]}"#).unwrap(), 2);
        assert_eq!(items(r#"{"items":null,"metadata":{"resourceVersion":"7"}}"#).unwrap(), 0);
        assert!(items(r#"{"kind":"Status","status":"Success"}"#).is_err());
    }
}
