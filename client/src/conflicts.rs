//! Conflicts: values that lost at a PoP to a write whose writer had not seen them.

use bytes::Bytes;
use reqwest::Method;
use serde_json::value::RawValue;

use crate::api::conflicts::{Conflict, ConflictsPage, Dismissed};
use crate::api::kinds::Written;
use crate::api::values::METADATA_HEADER;
use crate::condition::Condition;
use crate::error::Error;
use crate::namespace::{Namespace, expiration, found};
use crate::pages::{Page, PageOptions, Pages};
use crate::request::{Request, segment};

/// Which conflicts to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConflictOptions {
    /// Which part of the listing. `after` is an id, or `next_after` of an earlier page.
    pub page: PageOptions,
    /// Only those of this key; not together with a prefix.
    pub key: Option<String>,
    /// Whether to show the beginning of what lost, and its metadata. The token must be able to read.
    pub preview: bool,
}

/// A value that lost, as it was written.
#[derive(Clone, Debug)]
pub struct LostValue {
    /// Exactly the bytes that were written.
    pub bytes: Bytes,
    /// What was stored along with them.
    pub metadata: Option<Box<RawValue>>,
    /// Absolute expiry in Unix seconds.
    pub expires_at_s: Option<u64>,
}

impl Page for ConflictsPage {
    type Row = Conflict;

    fn next_after(&self) -> Option<&str> {
        self.next_after.as_deref()
    }

    fn into_rows(self) -> Vec<Conflict> {
        self.conflicts
    }
}

impl Namespace {
    /// Lists what lost at the PoP that is asked, by key and then by time. Another one may list other conflicts. Sends
    /// nothing yet.
    ///
    /// ```no_run
    /// # async fn example(kv: littoral::Namespace) -> Result<(), littoral::Error> {
    /// use littoral::ConflictOptions;
    ///
    /// let mut pages = kv.conflicts(ConflictOptions { preview: true, ..ConflictOptions::default() });
    /// while let Some(page) = pages.next_page().await? {
    ///     for conflict in page.conflicts {
    ///         println!("{} lost {:?}", conflict.key, conflict.lost.preview);
    ///         kv.restore_conflict(&conflict.id, None).await?;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn conflicts(&self, options: ConflictOptions) -> Pages<ConflictsPage> {
        let ConflictOptions { page, key, preview } = options;
        let path = self.kind_path("conflicts");
        let mut pages = Pages::new(self.account.client.clone(), path, page).of_key(key);
        if preview {
            pages = pages.including("preview");
        }
        pages
    }

    /// Reads what lost; `None` where the PoP that is asked keeps no such conflict, or not any more.
    pub async fn conflict(&self, id: &str) -> Result<Option<LostValue>, Error> {
        let request = Request::read(self.conflict_path(id)?);
        let Some(answer) = found(self.account.client.fetch(&request).await)? else { return Ok(None) };
        let metadata = answer.headers.get(METADATA_HEADER).and_then(|json| json.to_str().ok());
        let metadata = metadata.map(|json| RawValue::from_string(json.to_owned())).transpose();
        Ok(Some(LostValue {
            metadata: metadata.map_err(|error| self.account.client.not_understood(&request, error))?,
            expires_at_s: expiration(&answer.headers),
            bytes: answer.body,
        }))
    }

    /// Writes what lost as a new value, with its metadata and expiry, and forgets the conflict at the PoP that is asked;
    /// only where the value is in the state `if_match`, if one is given. `None` where there is no such conflict.
    ///
    /// # Errors
    /// [`Error::is_precondition_failed`] where the value is in another state. It is sent again to the same PoP only, under a
    /// key by which the node does it once.
    pub async fn restore_conflict(&self, id: &str, if_match: Option<&str>) -> Result<Option<Written>, Error> {
        let path = format!("{}/restore", self.conflict_path(id)?);
        let mut request = Request::new(Method::POST, path).not_idempotent();
        if let Some(etag) = if_match {
            request = Condition::Match(etag.to_owned()).of(request)?;
        }
        found(self.account.client.json(&request).await)
    }

    /// Forgets what lost, at the PoP that is asked. Gives whether it was there.
    pub async fn dismiss_conflict(&self, id: &str) -> Result<bool, Error> {
        let request = Request::new(Method::DELETE, self.conflict_path(id)?);
        Ok(found(self.account.client.json::<Dismissed>(&request).await)?.is_some())
    }

    fn conflict_path(&self, id: &str) -> Result<String, Error> {
        self.kind_path(&format!("conflicts/{}", segment(id, "id of the conflict")?))
    }
}
