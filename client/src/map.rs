//! A map: fields with values of up to 16 KiB.

use std::collections::BTreeMap;

use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;

use crate::api::kinds::{FieldsPage, MapChange, Written};
use crate::error::Error;
use crate::namespace::{Value, expiration, found};
use crate::pages::{PageOptions, Pages};
use crate::request::Request;
use crate::values::Entry;
use crate::whole::{ChangeOptions, Whole};

/// A map. Of two values put into one field at two PoPs at once the later wins, whatever happens to other fields.
///
/// ```no_run
/// # async fn example(kv: littoral::Namespace) -> Result<(), littoral::Error> {
/// let user = kv.map("user:7");
/// user.put("name", "Ada").await?;
/// user.change([("city", Some("London")), ("fax", None)]).await?;
/// if let Some(name) = user.get("name").await? {
///     println!("{} bytes", name.bytes.len());
/// }
/// let mut pages = user.fields(Default::default());
/// while let Some(page) = pages.next_page().await? {
///     page.fields.iter().for_each(|field| println!("{}: {:?}", field.name, field.bytes()));
/// }
/// user.remove("name").await?;
/// user.clear().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Map {
    pub(crate) whole: Whole,
}

impl Map {
    /// Its key.
    pub fn key(&self) -> &str {
        self.whole.key()
    }

    /// Gives a field this value, at most 16 KiB. Its name: 1 to 512 bytes, neither "." nor "..".
    pub async fn put(&self, field: &str, value: impl Into<Bytes>) -> Result<Written, Error> {
        self.put_with(field, value, ChangeOptions::default()).await
    }

    /// As [`Map::put`]. The expiry replaces that of before.
    pub async fn put_with(
        &self,
        field: &str,
        value: impl Into<Bytes>,
        options: ChangeOptions,
    ) -> Result<Written, Error> {
        let path = self.whole.element_path("fields", field)?;
        self.whole.written(Whole::put(path, value.into(), &options)?).await
    }

    /// The value of a field, as of this PoP; `None` when there is no such field.
    pub async fn get(&self, field: &str) -> Result<Option<Value>, Error> {
        let request = Request::read(self.whole.element_path("fields", field)?);
        let answer = found(self.whole.namespace.account.client.fetch(&request).await)?;
        Ok(answer.map(|answer| Value { bytes: answer.body, expires_at_s: expiration(&answer.headers) }))
    }

    /// The same, with the name of that state, for [`ChangeOptions::if_match`].
    pub async fn get_versioned(&self, field: &str) -> Result<Option<Entry>, Error> {
        let client = &self.whole.namespace.account.client;
        let request = Request::read(self.whole.element_path("fields", field)?);
        let answer = found(client.fetch(&request).await)?;
        answer.map(|answer| Entry::of(client, &request, answer)).transpose()
    }

    /// Takes a field away, as far as this PoP has seen it; also succeeds when there is none.
    pub async fn remove(&self, field: &str) -> Result<Written, Error> {
        let path = self.whole.element_path("fields", field)?;
        self.whole.written(Request::new(Method::DELETE, path)).await
    }

    /// As [`Map::remove`], in the state of this name.
    ///
    /// # Errors
    /// [`Error::is_precondition_failed`] in another one.
    pub async fn remove_if_match(&self, field: &str, etag: &str) -> Result<Written, Error> {
        self.whole.remove_if_match(self.whole.element_path("fields", field)?, etag).await
    }

    /// Gives fields these texts and takes those with `None` away, up to 1,000 in all and 4 MiB of JSON, as one write.
    /// Of a field given twice the last counts.
    pub async fn change<'a>(
        &self,
        fields: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Written, Error> {
        let owned = |(name, text): (&str, Option<&str>)| (name.to_owned(), text.map(str::to_owned));
        let body = MapChange { fields: fields.into_iter().map(owned).collect::<BTreeMap<_, _>>() };
        self.whole.written(Request::new(Method::PATCH, self.whole.path()?).json(&body)?).await
    }

    /// Lists the fields with their values, in the order of the bytes of their names. Sends nothing yet.
    pub fn fields(&self, options: PageOptions) -> Pages<FieldsPage> {
        Pages::new(self.whole.namespace.account.client.clone(), self.whole.path(), options)
    }

    /// Removes all fields that this PoP has seen, and what is stored along with the map.
    pub async fn clear(&self) -> Result<Written, Error> {
        self.whole.clear().await
    }

    /// Replaces the JSON stored along with it, at most 1,024 bytes; null, as of `&()`, takes it away.
    pub async fn describe(&self, metadata: &impl Serialize) -> Result<Written, Error> {
        self.whole.describe(metadata).await
    }
}
