//! A document: JSON that several edit at once, at whichever PoPs.

#[cfg(feature = "automerge")]
mod copy;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ETAG, HeaderMap};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::api::docs::{
    ConflictingValue, Conflicts, DocWritten, HEADS_HEADER, HistoryPage, JSON_PATCH, MERGE_PATCH,
};
use crate::api::kinds::Written;
use crate::api::watch::WatchKind;
use crate::error::Error;
use crate::namespace::found;
use crate::request::Request;
use crate::watch::{Watch, WatchOptions};
use crate::whole::{ChangeOptions, Whole};

/// A document. What several write at once is merged: members and items by themselves, texts by character.
///
/// ```no_run
/// # async fn example(kv: littoral::Namespace) -> Result<(), littoral::Error> {
/// use serde_json::json;
///
/// let page = kv.doc("page:7");
/// page.put(&json!({"title": "Tides", "text": {"$text": "High at noon"}, "reads": {"$counter": 0}})).await?;
/// page.merge(&json!({"title": "The tides"})).await?;
/// page.patch(&json!([
///     {"op": "splice", "path": "/text", "position": 12, "insert": "."},
///     {"op": "increment", "path": "/reads", "by": 1},
/// ])).await?;
/// let title: Option<String> = page.get_at("/title").await?;
/// for value in page.conflicts("/title").await? {
///     println!("{} wrote {}", value.actor, value.value);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Doc {
    pub(crate) whole: Whole,
}

/// What goes along with an edit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocOptions {
    /// Expiry of the whole document, when the edit counts as done, and for which state it is ([`Snapshot::etag`]).
    pub change: ChangeOptions,
    /// What the change is said to be about, at most 1,024 bytes: the history tells it.
    pub message: Option<String>,
}

/// A document as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot<T> {
    /// What it said.
    pub value: T,
    /// Its latest changes then, in hexadecimal. Empty where more than 100 had edited it at once.
    pub heads: Vec<String>,
    /// Names that state.
    pub etag: String,
}

impl Doc {
    /// Its key.
    pub fn key(&self) -> &str {
        self.whole.key()
    }

    /// What it says, as of this PoP; `None` when there is no such document.
    pub async fn get<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        Ok(self.snapshot("", &[]).await?.map(|snapshot| snapshot.value))
    }

    /// What a JSON pointer (RFC 6901) leads to; `None` when nothing is there.
    pub async fn get_at<T: DeserializeOwned>(&self, pointer: &str) -> Result<Option<T>, Error> {
        Ok(self.snapshot(pointer, &[]).await?.map(|snapshot| snapshot.value))
    }

    /// The same, with the name of the state: as it is, or as it was at these heads, where any are given.
    pub async fn snapshot<T: DeserializeOwned>(
        &self,
        pointer: &str,
        heads: &[String],
    ) -> Result<Option<Snapshot<T>>, Error> {
        let mut request = Request::read(self.whole.path()?);
        if !pointer.is_empty() {
            request = request.query("pointer", pointer);
        }
        if !heads.is_empty() {
            request = request.query("heads", heads.join(","));
        }
        let client = &self.whole.namespace.account.client;
        let Some(answer) = found(client.fetch(&request).await)? else { return Ok(None) };
        let value = serde_json::from_slice(&answer.body);
        let value = value.map_err(|error| client.not_understood(&request, error))?;
        let etag = text(&answer.headers, ETAG.as_str()).to_owned();
        Ok(Some(Snapshot { value, heads: heads_of(&answer.headers), etag }))
    }

    /// Makes the document this, an object. Only what is otherwise is written.
    pub async fn put(&self, value: &impl Serialize) -> Result<DocWritten, Error> {
        self.put_with(value, DocOptions::default()).await
    }

    /// As [`Doc::put`].
    pub async fn put_with(&self, value: &impl Serialize, options: DocOptions) -> Result<DocWritten, Error> {
        self.edit(Request::new(Method::PUT, self.whole.path()?).json(value)?, options).await
    }

    /// Applies a merge patch (RFC 7386): an object of what is to be otherwise, with null for what is to go.
    pub async fn merge(&self, patch: &impl Serialize) -> Result<DocWritten, Error> {
        self.merge_with(patch, DocOptions::default()).await
    }

    /// As [`Doc::merge`].
    pub async fn merge_with(&self, patch: &impl Serialize, options: DocOptions) -> Result<DocWritten, Error> {
        self.edit(self.patching(MERGE_PATCH, patch)?, options).await
    }

    /// Applies a JSON patch (RFC 6902), or nothing of it: a list of operations, of which there are `splice` and
    /// `increment`, too. It is sent again to the same PoP only, under a key by which the node does it once.
    pub async fn patch(&self, patch: &impl Serialize) -> Result<DocWritten, Error> {
        self.patch_with(patch, DocOptions::default()).await
    }

    /// As [`Doc::patch`].
    pub async fn patch_with(&self, patch: &impl Serialize, options: DocOptions) -> Result<DocWritten, Error> {
        self.edit(self.patching(JSON_PATCH, patch)?.not_idempotent(), options).await
    }

    /// The raw changes that whoever has these heads does not have, for any Automerge; with the heads that they lead to.
    /// `None` when there is no such document.
    pub async fn changes(&self, since: &[String]) -> Result<Option<(Bytes, Vec<String>)>, Error> {
        let mut request = Request::read(self.part("changes")?);
        if !since.is_empty() {
            request = request.query("since", since.join(","));
        }
        let answer = found(self.whole.namespace.account.client.fetch(&request).await)?;
        Ok(answer.map(|answer| (answer.body, heads_of(&answer.headers))))
    }

    /// Takes raw changes in, one after the other, up to 1,000 and 8 MiB. What they were made on top of must be there, or
    /// among them: otherwise the error has status 409 and names what is missing.
    pub async fn apply(&self, changes: impl Into<Bytes>) -> Result<DocWritten, Error> {
        let request = Request::new(Method::POST, self.part("changes")?);
        let request = request.body("application/octet-stream", changes.into());
        self.whole.namespace.account.client.json(&request).await
    }

    /// Up to `limit` changes that it was made by, at most 1,000, after this one or from the first on.
    pub async fn history(&self, after: Option<&str>, limit: usize) -> Result<HistoryPage, Error> {
        let mut request = Request::read(self.part("history")?).query("limit", limit);
        if let Some(after) = after {
            request = request.query("after", after);
        }
        self.whole.namespace.account.client.json(&request).await
    }

    /// All values that were written at once where this pointer leads; one where nobody disagrees. The last is read.
    pub async fn conflicts(&self, pointer: &str) -> Result<Vec<ConflictingValue>, Error> {
        let request = Request::read(self.part("conflicts")?).query("pointer", pointer);
        let conflicts: Conflicts = self.whole.namespace.account.client.json(&request).await?;
        Ok(conflicts.values)
    }

    /// Watches it: whether it is there, [`crate::api::watch::WatchType::Sync`], then its changes as they come, each in Automerge's
    /// own format ([`WatchEvent::change_base64`]). Sends nothing yet.
    ///
    /// [`WatchEvent::change_base64`]: crate::api::watch::WatchEvent::change_base64
    pub fn watch(&self) -> Watch {
        let options = WatchOptions {
            key: Some(self.key().into()),
            kind: Some(WatchKind::Doc),
            ..WatchOptions::default()
        };
        self.whole.namespace.watch(options)
    }

    /// Deletes what this PoP has seen of it, and what is stored along with it; also succeeds when there is none.
    pub async fn delete(&self) -> Result<Written, Error> {
        self.whole.clear().await
    }

    /// Replaces the JSON stored along with it, at most 1,024 bytes; null, as of `&()`, takes it away.
    pub async fn describe(&self, metadata: &impl Serialize) -> Result<Written, Error> {
        self.whole.describe(metadata).await
    }

    /// The JSON stored along with it.
    pub async fn metadata(&self) -> Result<Option<Box<RawValue>>, Error> {
        let request = Request::read(self.part("metadata")?);
        match self.whole.namespace.account.client.json(&request).await {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.is_key_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn part(&self, part: &str) -> Result<String, Error> {
        Ok(format!("{}/{part}", self.whole.path()?))
    }

    fn patching(&self, content_type: &str, patch: &impl Serialize) -> Result<Request, Error> {
        let mut request = Request::new(Method::PATCH, self.whole.path()?).json(patch)?;
        request.body = request.body.map(|(_, bytes)| (content_type.to_owned(), bytes));
        Ok(request)
    }

    async fn edit(&self, request: Request, options: DocOptions) -> Result<DocWritten, Error> {
        let mut request = options.change.all_of(request)?;
        if let Some(message) = options.message {
            request = request.query("message", message);
        }
        self.whole.namespace.account.client.json(&request).await
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn heads_of(headers: &HeaderMap) -> Vec<String> {
    text(headers, HEADS_HEADER).split(',').filter(|hash| !hash.is_empty()).map(str::to_owned).collect()
}
