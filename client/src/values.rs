//! Values by their states, by prefix and in streams: what `/v1` has of values beyond the REST API of Workers KV.

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use reqwest::Method;
use reqwest::header::HeaderName;
use serde_json::value::RawValue;

use crate::api::kinds::Written;
use crate::api::values::{
    Deleted, MAX_LINE_BYTES, METADATA_HEADER, NDJSON, Order, Ordered, ValueRow, ValuesPage,
};
use crate::client::Client;
use crate::condition::{Condition, etag_of};
use crate::error::Error;
use crate::listing::Listing;
use crate::namespace::{Namespace, PutOptions, expiration, found};
use crate::pages::{Page, PageOptions, Pages};
use crate::request::{Answer, Request, segment};
use crate::whole::Whole;

/// A value, or that of a field, with the name of its state.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Exactly the bytes that were written.
    pub bytes: Bytes,
    /// The state, for [`PutOptions::if_match`] and [`ChangeOptions::if_match`](crate::ChangeOptions::if_match); with its quotes.
    pub etag: String,
    /// What is stored along with it.
    pub metadata: Option<Box<RawValue>>,
    /// Absolute expiry in Unix seconds.
    pub expires_at_s: Option<u64>,
}

impl Entry {
    /// What this request was answered with.
    pub(crate) fn of(client: &Client, request: &Request, answer: Answer) -> Result<Self, Error> {
        let metadata = answer.headers.get(METADATA_HEADER).and_then(|value| value.to_str().ok());
        let metadata = metadata.map(|text| RawValue::from_string(text.to_owned())).transpose();
        Ok(Self {
            etag: etag_of(client, request, &answer.headers)?,
            metadata: metadata.map_err(|error| client.not_understood(request, error))?,
            expires_at_s: expiration(&answer.headers),
            bytes: answer.body,
        })
    }
}

impl Page for ValuesPage {
    type Row = ValueRow;

    fn next_after(&self) -> Option<&str> {
        self.next_after.as_deref()
    }

    fn into_rows(self) -> Vec<ValueRow> {
        self.values
    }
}

impl Listing {
    /// The same keys with their values, as far as a page has room for them: a value of more than 4 MiB is given by its
    /// size. It begins at the first key, so not from a cursor. Sends nothing yet.
    pub fn with_values(self) -> Pages<ValuesPage> {
        let (namespace, options) = self.into_parts();
        let path = match options.cursor {
            Some(_) => Err(Error::invalid("a listing with values cannot go on from a cursor")),
            None => namespace.kind_path("values"),
        };
        let pages = PageOptions { prefix: options.prefix, page_limit: options.page_limit, after: None };
        Pages::new(namespace.account.client, path, pages).including("values")
    }
}

impl Namespace {
    /// Reads a value with the name of its state; `None` when there is no such key.
    ///
    /// ```no_run
    /// # async fn example(kv: littoral::Namespace) -> Result<(), littoral::Error> {
    /// use littoral::PutOptions;
    ///
    /// // Counts, of all who try at this PoP, each once.
    /// while let Some(entry) = kv.get_versioned("n").await? {
    ///     let next = String::from_utf8_lossy(&entry.bytes).parse::<u64>().unwrap_or(0) + 1;
    ///     match kv.put_versioned("n", next.to_string(), PutOptions::default().if_match(&entry.etag)).await {
    ///         Ok(_) => break,
    ///         Err(error) if error.is_precondition_failed() => {}
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn get_versioned(&self, key: &str) -> Result<Option<Entry>, Error> {
        let request = Request::read(self.value_path(key)?);
        let answer = found(self.account.client.fetch(&request).await)?;
        answer.map(|answer| Entry::of(&self.account.client, &request, answer)).transpose()
    }

    /// As [`Namespace::put`], and gives the name of the state that the value is in now. An expiry may be 1 s ahead.
    ///
    /// # Errors
    /// [`Error::is_precondition_failed`] where the state was not the one of the options. A conditional write is sent
    /// again to the same PoP only, under a key by which the node does it once: after [`Error::Transport`] or a
    /// status from 500 on, read to see.
    pub async fn put_versioned(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<String, Error> {
        let mut request = Whole::put(self.value_path(key)?, value.into(), &options.change())?;
        if let Some(metadata) = &options.metadata {
            request = request.header(HeaderName::from_static(METADATA_HEADER), ascii(metadata.get()))?;
        }
        let answer = self.account.client.fetch(&request).await?;
        etag_of(&self.account.client, &request, &answer.headers)
    }

    /// Deletes a key where it is in this state; `etag` with its quotes.
    ///
    /// # Errors
    /// As [`Namespace::put_versioned`].
    pub async fn delete_if_match(&self, key: &str, etag: &str) -> Result<Written, Error> {
        let request = Request::new(Method::DELETE, self.value_path(key)?);
        self.account.client.json(&Condition::Match(etag.to_owned()).of(request)?).await
    }

    /// Deletes all keys that begin with this, which must not be empty, and says how many they were. The PoP deletes in
    /// slices; cut short, the same call goes on.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<u64, Error> {
        if prefix.is_empty() {
            return Err(Error::invalid("an empty prefix is every key; delete_all deletes them"));
        }
        let path = self.kind_path("values")?;
        self.delete_in_turns(&Request::new(Method::DELETE, path).query("prefix", prefix)).await
    }

    /// Deletes every key of the namespace that has a value, as [`Namespace::delete_prefix`] does.
    pub async fn delete_all(&self) -> Result<u64, Error> {
        let path = self.kind_path("values")?;
        self.delete_in_turns(&Request::new(Method::DELETE, path).query("all", "true")).await
    }

    /// Asks until nothing is left. Each turn but the last deletes something, or the PoP does not get on.
    async fn delete_in_turns(&self, request: &Request) -> Result<u64, Error> {
        let mut total = 0;
        loop {
            let Deleted { deleted, complete } = self.account.client.json(request).await?;
            total += deleted;
            if complete {
                return Ok(total);
            }
            if deleted == 0 {
                return Err(self.account.client.not_understood(request, "the deletion does not advance"));
            }
        }
    }

    /// Writes and deletes many keys in one request: the answers come in the order of the orders, while these are
    /// sent, and no order is sent ahead of answers that nobody takes. Nothing is sent again: after an error, what has
    /// no answer may have been done. It neither carries the client's session nor waits for other PoPs.
    ///
    /// # Errors
    /// Where the request is refused as a whole. What is wrong with one order is its [`Ordered::problem`].
    pub async fn put_many<S: Stream<Item = Order> + Send + 'static>(
        &self,
        orders: S,
    ) -> Result<impl Stream<Item = Result<Ordered, Error>> + use<S>, Error> {
        let client = self.account.client.clone();
        let lines = orders.map(|order| {
            let mut line = serde_json::to_vec(&order)?;
            line.push(b'\n');
            Ok::<_, serde_json::Error>(Bytes::from(line))
        });
        let path = self.kind_path("values")?;
        let response = client.stream_up(&path, NDJSON, reqwest::Body::wrap_stream(lines)).await?;
        let url = response.url().to_string();
        let pieces = response.bytes_stream().map_err({
            let url = url.clone();
            move |error| Error::transport(&url, &error)
        });
        Ok(stream::try_unfold((Box::pin(pieces), BytesMut::new()), move |(mut pieces, mut read)| {
            let url = url.clone();
            async move {
                loop {
                    if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
                        let line = read.split_to(end + 1);
                        let not_understood =
                            |error: serde_json::Error| Error::Decode { url, reason: error.to_string() };
                        let answer = serde_json::from_slice(&line).map_err(not_understood)?;
                        return Ok(Some((answer, (pieces, read))));
                    }
                    if read.len() > MAX_LINE_BYTES {
                        return Err(Error::Decode { url, reason: "a line does not end".to_owned() });
                    }
                    match pieces.try_next().await? {
                        Some(piece) => read.extend_from_slice(&piece),
                        None => return Ok(None),
                    }
                }
            }
        }))
    }

    fn value_path(&self, key: &str) -> Result<String, Error> {
        Ok(format!("{}/{}", self.kind_path("values")?, segment(key, "key")?))
    }
}

/// JSON as a header carries it: what is not printable ASCII can only be in its strings, and is escaped.
fn ascii(json: &str) -> String {
    let mut ascii = String::new();
    for c in json.chars() {
        match c {
            ' '..='~' => ascii.push(c),
            c if c.is_ascii_whitespace() => ascii.push(' '),
            _ => {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| ascii.push_str(&format!("\\u{unit:04x}")))
            }
        }
    }
    ascii
}
