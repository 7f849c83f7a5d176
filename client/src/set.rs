//! A set of texts: members that are put in, taken out and listed.

use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;

use crate::api::kinds::{MembersPage, SetChange, Written};
use crate::condition::etag_of;
use crate::error::Error;
use crate::namespace::found;
use crate::pages::{PageOptions, Pages};
use crate::request::Request;
use crate::whole::{ChangeOptions, Whole};

/// A set. Of an insertion and a removal of one member at two PoPs at once, the insertion wins.
///
/// ```no_run
/// # async fn example(kv: littoral::Namespace) -> Result<(), littoral::Error> {
/// let online = kv.set("online");
/// online.insert("alice").await?;
/// online.change(&["bob", "carol"], &["dave"]).await?;
/// assert!(online.contains("bob").await?);
/// let mut pages = online.members(Default::default());
/// while let Some(page) = pages.next_page().await? {
///     page.members.iter().for_each(|member| println!("{}", member.name));
/// }
/// online.remove("alice").await?;
/// online.clear().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Set {
    pub(crate) whole: Whole,
}

impl Set {
    /// Its key.
    pub fn key(&self) -> &str {
        self.whole.key()
    }

    /// Puts a member in: 1 to 512 bytes, neither "." nor "..".
    pub async fn insert(&self, member: &str) -> Result<Written, Error> {
        self.insert_with(member, ChangeOptions::default()).await
    }

    /// As [`Set::insert`]. The expiry replaces that of before.
    pub async fn insert_with(&self, member: &str, options: ChangeOptions) -> Result<Written, Error> {
        let path = self.whole.element_path("members", member)?;
        self.whole.written(Whole::put(path, Bytes::new(), &options)?).await
    }

    /// Takes a member out, as far as this PoP has seen it; also succeeds when it is not in.
    pub async fn remove(&self, member: &str) -> Result<Written, Error> {
        let path = self.whole.element_path("members", member)?;
        self.whole.written(Request::new(Method::DELETE, path)).await
    }

    /// As [`Set::remove`], in the state of this name ([`Set::etag`]).
    ///
    /// # Errors
    /// [`Error::is_precondition_failed`] in another one.
    pub async fn remove_if_match(&self, member: &str, etag: &str) -> Result<Written, Error> {
        self.whole.remove_if_match(self.whole.element_path("members", member)?, etag).await
    }

    /// Puts members in and takes others out, up to 1,000 in all, each once, as one write.
    pub async fn change(&self, add: &[&str], remove: &[&str]) -> Result<Written, Error> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let body = SetChange { add: owned(add), remove: owned(remove) };
        self.whole.written(Request::new(Method::POST, self.whole.path()?).json(&body)?).await
    }

    /// Whether the member is in, as of this PoP.
    pub async fn contains(&self, member: &str) -> Result<bool, Error> {
        self.whole.is_there(self.whole.element_path("members", member)?).await
    }

    /// The name of the state that the member is in, for [`ChangeOptions::if_match`]; `None` where it is not in the set.
    pub async fn etag(&self, member: &str) -> Result<Option<String>, Error> {
        let client = &self.whole.namespace.account.client;
        let request = Request::read(self.whole.element_path("members", member)?);
        let Some(answer) = found(client.fetch(&request).await)? else { return Ok(None) };
        etag_of(client, &request, &answer.headers).map(Some)
    }

    /// Lists the members, in the order of their bytes. Sends nothing yet.
    pub fn members(&self, options: PageOptions) -> Pages<MembersPage> {
        Pages::new(self.whole.namespace.account.client.clone(), self.whole.path(), options)
    }

    /// Removes all members that this PoP has seen, and what is stored along with the set.
    pub async fn clear(&self) -> Result<Written, Error> {
        self.whole.clear().await
    }

    /// Replaces the JSON stored along with it, at most 1,024 bytes; null, as of `&()`, takes it away.
    pub async fn describe(&self, metadata: &impl Serialize) -> Result<Written, Error> {
        self.whole.describe(metadata).await
    }
}
