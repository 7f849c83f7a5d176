//! A namespace: its values, one at a time and in bulk.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::account::Account;
use crate::api::kinds::KeysPage;
use crate::api::kv::{BulkGet, BulkPair, BulkResult, BulkValue, BulkValues};
use crate::bounded::Bounded;
use crate::condition::Condition;
use crate::counter::Counter;
use crate::doc::Doc;
use crate::error::Error;
use crate::listing::{ListOptions, Listing};
use crate::map::Map;
use crate::pages::{PageOptions, Pages};
use crate::request::{Request, random_bits, segment};
use crate::set::Set;
use crate::whole::{ChangeOptions, Whole};

/// One namespace at one PoP.
#[derive(Clone, Debug)]
pub struct Namespace {
    pub(crate) account: Account,
    pub(crate) id: String,
}

/// A value, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Exactly the bytes that were written.
    pub bytes: Bytes,
    /// Absolute expiry in Unix seconds.
    pub expires_at_s: Option<u64>,
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// When it is on the disk of the PoP.
    #[default]
    Durable,
    /// When the PoP has applied it; a power cut within the next moment may lose it.
    Buffered,
}

/// What is written along with a value. A put replaces all of it: what is not given is cleared.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// JSON, at most 1,024 bytes.
    pub metadata: Option<Box<RawValue>>,
    /// Expiry in seconds from now, at least 60; wins over `expires_at_s`.
    pub expiration_ttl_s: Option<u64>,
    /// Absolute expiry in Unix seconds, at least 60 s ahead.
    pub expires_at_s: Option<u64>,
    /// When the write counts as done.
    pub ack: Ack,
    /// In which state of the value it is to be done; in any unless given.
    pub condition: Option<Condition>,
}

impl PutOptions {
    /// Sets the metadata to this value's JSON.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it has no JSON form.
    pub fn metadata(mut self, metadata: &impl Serialize) -> Result<Self, Error> {
        let raw = serde_json::value::to_raw_value(metadata)
            .map_err(|error| Error::invalid(format!("the metadata cannot be written as JSON: {error}")))?;
        self.metadata = Some(raw);
        Ok(self)
    }

    /// Sets the expiry in seconds from now.
    pub fn expiration_ttl_s(mut self, seconds: u64) -> Self {
        self.expiration_ttl_s = Some(seconds);
        self
    }

    /// Sets the absolute expiry in Unix seconds.
    pub fn expires_at_s(mut self, seconds: u64) -> Self {
        self.expires_at_s = Some(seconds);
        self
    }

    /// Sets when the write counts as done.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// What of it other kinds can be asked for, too.
    pub(crate) fn change(&self) -> ChangeOptions {
        let Self { expiration_ttl_s, expires_at_s, ack, .. } = *self;
        ChangeOptions { expiration_ttl_s, expires_at_s, ack, condition: self.condition.clone() }
    }

    /// Writes only where the value is in the state of this name, as [`Entry::etag`](crate::Entry::etag) has it.
    pub fn if_match(mut self, etag: &str) -> Self {
        self.condition = Some(Condition::Match(etag.to_owned()));
        self
    }

    /// Writes only where there is no value.
    pub fn if_absent(mut self) -> Self {
        self.condition = Some(Condition::Absent);
        self
    }
}

impl Namespace {
    /// The namespace's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes a value; returns once the PoP acknowledges it.
    ///
    /// # Errors
    /// With a condition, as [`Namespace::put_versioned`].
    pub async fn put(&self, key: &str, value: impl Into<Bytes>, options: PutOptions) -> Result<(), Error> {
        if options.condition.is_some() {
            return self.put_versioned(key, value, options).await.map(drop);
        }
        let request = options.change().all_of(Request::new(Method::PUT, self.key_path("values", key)?))?;
        let value = value.into();
        let request = match options.metadata {
            None => request.body("application/octet-stream", value),
            Some(metadata) => {
                let (content_type, body) = multipart(&value, metadata.get());
                request.body(content_type, body)
            }
        };
        self.done(request).await
    }

    /// Reads a value; `None` when there is no such key. From a node inside the process that takes microseconds, unless the
    /// value is large.
    pub async fn get(&self, key: &str) -> Result<Option<Value>, Error> {
        let Account { client, id } = &self.account;
        // What was seen elsewhere may have to be waited for.
        if client.session.as_ref().is_none_or(|session| session.is_of_one_pop())
            && let Some(read) = client.transport.read(id, &self.id, key)
        {
            client.told.take_staleness(read.staleness);
            return Ok(read.value);
        }
        let request = Request::read(self.key_path("values", key)?);
        let answer = found(self.account.client.fetch(&request).await)?;
        Ok(answer.map(|answer| Value { bytes: answer.body, expires_at_s: expiration(&answer.headers) }))
    }

    /// Reads a value as it arrives. Once it has begun it is not retried: a broken connection ends the
    /// stream with an error.
    pub async fn get_stream(
        &self,
        key: &str,
    ) -> Result<Option<impl Stream<Item = Result<Bytes, Error>> + use<>>, Error> {
        let request = Request::read(self.key_path("values", key)?);
        let response = found(self.account.client.send(&request).await)?;
        Ok(response.map(|response| {
            let url = response.url().to_string();
            response.bytes_stream().map_err(move |error| Error::transport(&url, &error))
        }))
    }

    /// The metadata of a key: the outer `None` when there is no such key, the inner one when it has none.
    pub async fn metadata(&self, key: &str) -> Result<Option<Option<Box<RawValue>>>, Error> {
        let request = Request::read(self.key_path("metadata", key)?);
        let answer = self.account.client.enveloped::<Box<RawValue>, Box<RawValue>>(&request).await;
        Ok(found(answer)?.map(|(metadata, _)| metadata.filter(|raw| raw.get() != "null")))
    }

    /// Deletes a key; also succeeds when there is none.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        self.done(Request::new(Method::DELETE, self.key_path("values", key)?)).await
    }

    /// Lists keys, in the order of their bytes. Sends nothing yet.
    pub fn list(&self, options: ListOptions) -> Listing {
        Listing::new(self.clone(), options)
    }

    /// Writes up to 10,000 pairs, in their order.
    pub async fn bulk_put(&self, pairs: &[BulkPair]) -> Result<BulkResult, Error> {
        self.account.client.result(&Request::new(Method::PUT, self.path("bulk")?).json(&pairs)?).await
    }

    /// Deletes up to 10,000 keys.
    pub async fn bulk_delete(&self, keys: &[String]) -> Result<BulkResult, Error> {
        self.account.client.result(&Request::new(Method::POST, self.path("bulk/delete")?).json(&keys)?).await
    }

    /// Reads up to 100 values that are text, with metadata; `None` where there is no such key. For bytes
    /// that are no text use [`Namespace::get`].
    pub async fn bulk_get(&self, keys: &[String]) -> Result<BulkValues<BulkValue>, Error> {
        let body = BulkGet { keys: keys.to_vec(), kind: None, with_metadata: true };
        self.account.client.result(&Request::new(Method::POST, self.path("bulk/get")?).json(&body)?).await
    }

    /// The bounded counter under this key: one that never goes below zero. Sends nothing.
    pub fn bounded(&self, key: &str) -> Bounded {
        Bounded { whole: Whole::new(self, "bounded", key) }
    }

    /// The counter under this key. Sends nothing.
    pub fn counter(&self, key: &str) -> Counter {
        Counter { whole: Whole::new(self, "counters", key) }
    }

    /// The set under this key. Sends nothing.
    pub fn set(&self, key: &str) -> Set {
        Set { whole: Whole::new(self, "sets", key) }
    }

    /// The map under this key. Sends nothing.
    pub fn map(&self, key: &str) -> Map {
        Map { whole: Whole::new(self, "maps", key) }
    }

    /// The document under this key. Sends nothing.
    pub fn doc(&self, key: &str) -> Doc {
        Doc { whole: Whole::new(self, "docs", key) }
    }

    /// Lists the keys of counters, in the order of their bytes. Sends nothing yet.
    pub fn counters(&self, options: PageOptions) -> Pages<KeysPage> {
        self.keys_of("counters", options)
    }

    /// As [`Namespace::counters`], of bounded counters.
    pub fn bounded_counters(&self, options: PageOptions) -> Pages<KeysPage> {
        self.keys_of("bounded", options)
    }

    /// As [`Namespace::counters`], of sets that have members.
    pub fn sets(&self, options: PageOptions) -> Pages<KeysPage> {
        self.keys_of("sets", options)
    }

    /// As [`Namespace::counters`], of maps that have fields.
    pub fn maps(&self, options: PageOptions) -> Pages<KeysPage> {
        self.keys_of("maps", options)
    }

    /// As [`Namespace::counters`], of documents.
    pub fn docs(&self, options: PageOptions) -> Pages<KeysPage> {
        self.keys_of("docs", options)
    }

    fn keys_of(&self, kind: &str, options: PageOptions) -> Pages<KeysPage> {
        Pages::new(self.account.client.clone(), self.kind_path(kind), options)
    }

    /// The path of all values, counters, sets or maps.
    pub(crate) fn kind_path(&self, kind: &str) -> Result<String, Error> {
        let account = segment(&self.account.id, "account id")?;
        Ok(format!("/v1/accounts/{account}/namespaces/{}/{kind}", segment(&self.id, "namespace id")?))
    }

    pub(crate) fn path(&self, rest: &str) -> Result<String, Error> {
        Ok(format!("{}/{rest}", self.account.namespace_path(&self.id)?))
    }

    fn key_path(&self, what: &str, key: &str) -> Result<String, Error> {
        self.path(&format!("{what}/{}", segment(key, "key")?))
    }

    async fn done(&self, request: Request) -> Result<(), Error> {
        self.account.client.enveloped::<Box<RawValue>, Box<RawValue>>(&request).await.map(drop)
    }
}

/// A missing key is an answer, not an error.
pub(crate) fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_key_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn expiration(headers: &HeaderMap) -> Option<u64> {
    headers.get("expiration")?.to_str().ok()?.parse().ok()
}

/// The body that carries a value along with metadata, and its content type.
fn multipart(value: &[u8], metadata: &str) -> (String, Bytes) {
    // 128 random bits: no value holds them by chance.
    let boundary = format!("littoral-{:016x}{:016x}", random_bits(), random_bits());
    let metadata_head =
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{metadata}\r\n");
    let value_head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"value\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let mut body = BytesMut::with_capacity(metadata_head.len() + value_head.len() + value.len() + tail.len());
    body.put_slice(metadata_head.as_bytes());
    body.put_slice(value_head.as_bytes());
    body.put_slice(value);
    body.put_slice(tail.as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body.freeze())
}
