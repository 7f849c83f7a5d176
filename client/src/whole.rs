//! What counters, sets and maps have in common: the pages of one, under its key.

use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::kinds::Written;
use crate::condition::Condition;
use crate::error::Error;
use crate::namespace::{Ack, Namespace};
use crate::request::{Request, segment};

/// What goes along with a write to a counter, set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeOptions {
    /// Expiry in seconds from now, at least 1; wins over `expires_at_s`.
    pub expiration_ttl_s: Option<u64>,
    /// Absolute expiry in Unix seconds, at least 1 s ahead.
    pub expires_at_s: Option<u64>,
    /// When the write counts as done.
    pub ack: Ack,
    /// In which state of the counter, member, field or document it is to be done; in any unless given. Otherwise it fails
    /// ([`Error::is_precondition_failed`]). A conditional write is sent again to the same PoP only, under a key by which the
    /// node does it once.
    pub condition: Option<Condition>,
}

impl ChangeOptions {
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

    /// Writes only in the state of this name, with its quotes.
    pub fn if_match(mut self, etag: &str) -> Self {
        self.condition = Some(Condition::Match(etag.to_owned()));
        self
    }

    /// Writes only where there is none: no such member or field, nothing counted, no document.
    pub fn if_absent(mut self) -> Self {
        self.condition = Some(Condition::Absent);
        self
    }

    /// Asks for all but the expiry.
    pub(crate) fn but_expiry_of(&self, request: Request) -> Result<Request, Error> {
        let request = match self.ack {
            Ack::Durable => request,
            Ack::Buffered => request.query("ack", "buffered"),
        };
        match &self.condition {
            None => Ok(request),
            Some(condition) => condition.of(request),
        }
    }

    /// Asks for all of it.
    pub(crate) fn all_of(&self, mut request: Request) -> Result<Request, Error> {
        if let Some(seconds) = self.expiration_ttl_s {
            request = request.query("expiration_ttl", seconds);
        }
        if let Some(seconds) = self.expires_at_s {
            request = request.query("expiration", seconds);
        }
        self.but_expiry_of(request)
    }
}

/// A counter, set or map at one PoP, whether there is one or not.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    pub(crate) namespace: Namespace,
    /// As it stands in paths.
    kind: &'static str,
    key: String,
}

impl Whole {
    pub(crate) fn new(namespace: &Namespace, kind: &'static str, key: &str) -> Self {
        Self { namespace: namespace.clone(), kind, key: key.to_owned() }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The path of it all.
    pub(crate) fn path(&self) -> Result<String, Error> {
        Ok(format!("{}/{}", self.namespace.kind_path(self.kind)?, segment(&self.key, "key")?))
    }

    /// The path of a member or field.
    pub(crate) fn element_path(&self, elements: &str, element: &str) -> Result<String, Error> {
        Ok(format!("{}/{elements}/{}", self.path()?, segment(element, "member or field")?))
    }

    /// Removes all of it that this PoP has seen.
    pub(crate) async fn clear(&self) -> Result<Written, Error> {
        self.written(Request::new(Method::DELETE, self.path()?)).await
    }

    /// Replaces what is stored along with it; null takes that away.
    pub(crate) async fn describe(&self, metadata: &impl Serialize) -> Result<Written, Error> {
        let path = format!("{}/metadata", self.path()?);
        self.written(Request::new(Method::PUT, path).json(metadata)?).await
    }

    /// Removes what is at this path, in the state of this name.
    pub(crate) async fn remove_if_match(&self, path: String, etag: &str) -> Result<Written, Error> {
        let condition = Condition::Match(etag.to_owned());
        self.written(condition.of(Request::new(Method::DELETE, path))?).await
    }

    pub(crate) async fn written(&self, request: Request) -> Result<Written, Error> {
        self.namespace.account.client.json(&request).await
    }

    /// Whether there is something at this path.
    pub(crate) async fn is_there(&self, path: String) -> Result<bool, Error> {
        match self.namespace.account.client.json::<Box<RawValue>>(&Request::read(path)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_key_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A write of these bytes to this path.
    pub(crate) fn put(path: String, bytes: Bytes, options: &ChangeOptions) -> Result<Request, Error> {
        options.all_of(Request::new(Method::PUT, path).body("application/octet-stream", bytes))
    }
}
