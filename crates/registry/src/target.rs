//! What a write is about: which object, by whom, and in what way it was asked for.

use apimachinery::Status;
use apimachinery::field::Errors;

use crate::entry::object_path;
use crate::{Context, DeleteOptions, Served};

/// What the client sent, where the operation does not tell it.
#[derive(Clone, Copy, Debug)]
pub enum How<'a> {
    /// Nothing to tell.
    Plain,
    /// A patch.
    Patch,
    /// A patch that says what its sender owns (server-side apply).
    Apply,
    /// A deletion with options.
    Delete(&'a DeleteOptions),
}

impl How<'_> {
    /// Whether it is a patch, of whatever type.
    pub fn is_patch(&self) -> bool {
        matches!(self, Self::Patch | Self::Apply)
    }
}

/// One write on its way: to which object, by whom.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub cx: &'a Context,
    pub res: &'a Served,
    pub sub: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub how: How<'a>,
    /// What a write of the status cannot change is not decoded.
    pub apart: bool,
}

impl Target<'_> {
    pub(crate) fn path(&self) -> String {
        object_path(self.namespace, self.name)
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(&self.res.group_resource, self.name)
    }

    /// Creating needs the right to create, whatever the verb of the request.
    pub(crate) async fn may_create(&self) -> Result<(), Status> {
        match &self.cx.may_create {
            Some(may_create) => may_create.ask().await,
            None => Ok(()),
        }
    }

    pub(crate) fn modified(&self) -> Status {
        Status::conflict_modified(&self.res.group_resource, self.name)
    }

    pub(crate) fn invalid(&self, errors: &Errors) -> Result<(), Status> {
        if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&self.res.def.group, &self.res.def.kind, self.name, errors)) }
    }
}
