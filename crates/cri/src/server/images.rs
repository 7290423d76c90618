//! Calls about images.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use grpc::{Code, Error};
use jiff::Timestamp;
use runtime::api;
use serde_json::json;

use super::{Server, errors, view};
use crate::messages::*;

/// What stands before an identifier of an image; clients leave it out.
const DIGEST: &str = "sha256:";

impl Server {
    /// The image that is meant by a reference, an identifier, or the begin of an identifier.
    async fn find_image(&self, spec: Option<&ImageSpec>) -> Result<Option<api::Image>, Error> {
        let reference = spec.map(|spec| spec.image.as_str()).unwrap_or_default();
        if reference.is_empty() {
            return Err(errors::invalid("an image is required"));
        }
        let named = self.runtime.image(reference).await;
        if let Ok(Some(image)) = named {
            return Ok(Some(image));
        }
        let digits = reference.strip_prefix(DIGEST).unwrap_or(reference);
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return named.map_err(errors::of);
        }
        let mut images = self.runtime.images().await.map_err(errors::of)?;
        let ids = images.iter().map(|image| image.id.strip_prefix(DIGEST).unwrap_or(&image.id));
        let Some(id) = errors::if_there(view::meant("image", digits, ids))? else { return Ok(None) };
        let found = images.iter().position(|image| image.id.ends_with(&id));
        Ok(found.map(|at| images.swap_remove(at)))
    }

    pub(super) async fn image_of(&self, spec: Option<&ImageSpec>) -> Result<api::Image, Error> {
        let name = spec.map(|spec| spec.image.clone()).unwrap_or_default();
        self.find_image(spec).await?.ok_or_else(|| errors::not_found("image", &name))
    }

    pub(super) async fn list_images(&self, request: ListImagesRequest) -> Result<ListImagesResponse, Error> {
        let wanted = request.filter.and_then(|filter| filter.image).filter(|spec| !spec.image.is_empty());
        let images = match wanted {
            Some(spec) => self.find_image(Some(&spec)).await?.into_iter().collect(),
            None => self.runtime.images().await.map_err(errors::of)?,
        };
        Ok(ListImagesResponse { images: images.iter().map(shown).collect() })
    }

    pub(super) async fn image_status(&self, request: ImageStatusRequest) -> Result<ImageStatusResponse, Error> {
        let image = self.find_image(request.image.as_ref()).await?;
        let info = image.as_ref().filter(|_| request.verbose).map(|image| {
            let info = json!({ "nodes": image.nodes, "pinned": image.pinned });
            ("info".to_owned(), info.to_string())
        });
        Ok(ImageStatusResponse { image: image.as_ref().map(shown), info: info.into_iter().collect() })
    }

    pub(super) async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse, Error> {
        let reference = request.image.map(|spec| spec.image).unwrap_or_default();
        if reference.is_empty() {
            return Err(errors::invalid("an image is required"));
        }
        let credentials = request.auth.map(credentials).transpose()?.flatten();
        let image = self.runtime.pull_image(&reference, credentials.as_slice()).await.map_err(errors::of)?;
        (self.images_changed)().await;
        Ok(PullImageResponse { image_ref: image.id })
    }

    /// "Must not return an error if the image has already been removed" (`RemoveImage`).
    pub(super) async fn remove_image(&self, request: RemoveImageRequest) -> Result<RemoveImageResponse, Error> {
        if let Some(image) = self.find_image(request.image.as_ref()).await? {
            errors::gone_is_fine(self.runtime.remove_image(&image.id).await)?;
            (self.images_changed)().await;
        }
        Ok(RemoveImageResponse {})
    }

    pub(super) async fn image_fs_info(&self, _request: ImageFsInfoRequest) -> Result<ImageFsInfoResponse, Error> {
        let images = self.runtime.images().await.map_err(errors::of)?;
        let usage = FilesystemUsage {
            timestamp: view::nanoseconds(Timestamp::now()),
            fs_id: Some(FilesystemIdentifier { mountpoint: self.runtime.image_directory().to_string_lossy().into_owned() }),
            used_bytes: Some(UInt64Value { value: images.iter().map(|image| image.size).sum() }),
            inodes_used: None,
        };
        Ok(ImageFsInfoResponse { image_filesystems: vec![usage.clone()], container_filesystems: vec![usage] })
    }
}

fn shown(image: &api::Image) -> Image {
    let (uid, username) = match &image.user {
        None => (Some(Int64Value { value: 0 }), String::new()),
        Some(api::User::Id(id)) => (Some(Int64Value { value: (*id).into() }), String::new()),
        Some(other) => (None, other.to_string()),
    };
    Image {
        id: image.id.clone(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        size: image.size.max(1),
        uid,
        username,
        spec: None,
        pinned: image.pinned,
    }
}

/// User and password; none where nothing is given.
fn credentials(auth: AuthConfig) -> Result<Option<api::Credentials>, Error> {
    if !auth.identity_token.is_empty() || !auth.registry_token.is_empty() {
        return Err(errors::unsupported("tokens for registries: give a user name and a password"));
    }
    if !auth.username.is_empty() {
        return Ok(Some(api::Credentials { username: auth.username, password: auth.password }));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    // What is wrong with it is not told: it is a secret.
    let wrong = || Error { code: Code::InvalidArgument, message: "auth is not base64 of NAME:PASSWORD".to_owned() };
    let text = STANDARD
        .decode(auth.auth.trim_end_matches('\0'))
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(wrong)?;
    let (username, password) = text.split_once(':').ok_or_else(wrong)?;
    Ok(Some(api::Credentials { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_in_two_forms() {
        let check = |auth: AuthConfig, expected: Result<Option<(&str, &str)>, Code>| {
            let found = credentials(auth).map_err(|error| error.code);
            let pair = found.as_ref().map(|found| found.as_ref().map(|it| (it.username.as_str(), it.password.as_str())));
            assert_eq!(pair.map_err(|code| *code), expected);
        };
        let text = |text: &str| text.to_owned();
        check(AuthConfig::default(), Ok(None));
        check(AuthConfig { username: text("u"), password: text("p"), ..Default::default() }, Ok(Some(("u", "p"))));
        check(AuthConfig { auth: STANDARD.encode("u:p:q"), ..Default::default() }, Ok(Some(("u", "p:q"))));
        check(AuthConfig { auth: STANDARD.encode("up"), ..Default::default() }, Err(Code::InvalidArgument));
        check(AuthConfig { auth: text("***"), ..Default::default() }, Err(Code::InvalidArgument));
        check(AuthConfig { registry_token: text("t"), ..Default::default() }, Err(Code::Unimplemented));
    }
}
