//! Why a JSON patch cannot be applied, in the words of upstream's library (`evanphx/json-patch`). A client's own patch is refused without them, as
//! upstream refuses it; those of webhooks and policies are told with them.

use super::unprocessable;
use crate::status::Status;

/// Why a JSON patch cannot be applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JsonPatchError {
    /// It is no list of operations.
    #[error("{}", .0.message)]
    Malformed(Status),
    /// An operation does not fit the object, or is none.
    #[error("{0}")]
    DoesNotApply(String),
    /// A test fails: nothing else is wrong.
    #[error("testing value {0} failed: test failed")]
    TestFailed(String),
    /// It would make too large an object, or take too long.
    #[error("{0}")]
    TooLarge(String),
}

impl From<JsonPatchError> for Status {
    fn from(error: JsonPatchError) -> Self {
        match error {
            JsonPatchError::Malformed(status) => status,
            JsonPatchError::DoesNotApply(_) | JsonPatchError::TestFailed(_) => unprocessable(),
            JsonPatchError::TooLarge(why) => Self::too_large(why),
        }
    }
}

/// An operation and its path, for what is said of them.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) op: &'static str,
    pub(super) path: &'a str,
}

impl At<'_> {
    /// What should hold the place of the path is not there.
    pub(super) fn nowhere(self) -> JsonPatchError {
        let Self { op, path } = self;
        JsonPatchError::DoesNotApply(match op {
            "add" | "remove" => format!("{op} operation does not apply: doc is missing path: \"{path}\": missing value"),
            "test" => format!("test operation does not apply: is missing path: {path}: missing value"),
            "replace" => format!("replace operation does not apply: doc is missing path: {path}: missing value"),
            _ => format!("{op} operation does not apply: doc is missing destination path: {path}: missing value"),
        })
    }

    /// What an operation takes from is not there.
    pub(super) fn no_source(self) -> JsonPatchError {
        let Self { op, path } = self;
        JsonPatchError::DoesNotApply(format!("{op} operation does not apply: doc is missing from path: {path}: missing value"))
    }

    /// What is named is not there: a member or an element.
    pub(super) fn nothing(self, is_member: bool) -> JsonPatchError {
        let Self { op, path } = self;
        let key = super::pointer::last(path);
        let why = match (is_member, key.parse::<i64>()) {
            (true, _) => format!("unable to {} nonexistent key: {key}: missing value", if op == "move" { "get" } else { op }),
            (false, Ok(index)) => format!("Unable to access invalid index: {index}: invalid index referenced"),
            (false, Err(_)) => {
                format!("value was not a proper array index: '{key}': strconv.Atoi: parsing {key:?}: invalid syntax")
            }
        };
        JsonPatchError::DoesNotApply(format!("error in {op} for path: '{path}': {why}"))
    }
}
