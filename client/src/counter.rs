//! A counter: what it stands at, adding to it, and beginning anew.

use reqwest::Method;
use serde::Serialize;

use crate::api::kinds::{Add, CounterInfo, Written};
use crate::condition::etag_of;
use crate::error::Error;
use crate::namespace::found;
use crate::request::Request;
use crate::whole::{ChangeOptions, Whole};

/// A counter that every PoP adds to and takes from at once: no increment is lost to another.
///
/// ```no_run
/// # async fn example(kv: littoral::Namespace) -> Result<(), littoral::Error> {
/// let hits = kv.counter("hits");
/// println!("{} as of this PoP", hits.add(1).await?);
/// hits.add(-1).await?;
/// assert_eq!(hits.count().await?, Some(0));
/// hits.reset().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Counter {
    pub(crate) whole: Whole,
}

impl Counter {
    /// Its key.
    pub fn key(&self) -> &str {
        self.whole.key()
    }

    /// Adds this much, at most 2^53 - 1 either way, and gives the count as of this PoP. Where it may have been done, it is
    /// sent again to the same PoP only, under a key by which the node does it once.
    ///
    /// # Errors
    /// After [`Error::Transport`], a status from 500 on, or 409, it may have been done all the same.
    pub async fn add(&self, amount: i64) -> Result<i64, Error> {
        self.add_with(amount, ChangeOptions::default()).await
    }

    /// As [`Counter::add`]. With an expiry, what this PoP has counted counts for nothing from then on, and nothing of
    /// what the others have goes before it.
    ///
    /// # Errors
    /// As [`Counter::add`].
    pub async fn add_with(&self, amount: i64, options: ChangeOptions) -> Result<i64, Error> {
        let body =
            Add { add: amount, expiration: options.expires_at_s, expiration_ttl: options.expiration_ttl_s };
        let request = Request::new(Method::POST, self.whole.path()?).json(&body)?.not_idempotent();
        let info: CounterInfo =
            self.whole.namespace.account.client.json(&options.but_expiry_of(request)?).await?;
        Ok(info.count)
    }

    /// What it stands at, as of this PoP; `None` where nobody has counted, or all of it was reset or has expired.
    pub async fn count(&self) -> Result<Option<i64>, Error> {
        Ok(self.info().await?.map(|info| info.count))
    }

    /// The same, with what is stored along with it.
    pub async fn info(&self) -> Result<Option<CounterInfo>, Error> {
        found(self.whole.namespace.account.client.json(&Request::read(self.whole.path()?)).await)
    }

    /// The same, with the name of that state, for [`ChangeOptions::if_match`].
    ///
    /// ```no_run
    /// # async fn example(kv: littoral::Namespace) -> Result<(), littoral::Error> {
    /// use littoral::ChangeOptions;
    ///
    /// // Up to 10, of all who try at this PoP.
    /// let seats = kv.counter("seats");
    /// seats.add(0).await?;
    /// while let Some((info, etag)) = seats.info_versioned().await? {
    ///     if info.count >= 10 {
    ///         break;
    ///     }
    ///     match seats.add_with(1, ChangeOptions::default().if_match(&etag)).await {
    ///         Ok(_) => break,
    ///         Err(error) if error.is_precondition_failed() => {}
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn info_versioned(&self) -> Result<Option<(CounterInfo, String)>, Error> {
        let client = &self.whole.namespace.account.client;
        let request = Request::read(self.whole.path()?);
        let Some(answer) = found(client.fetch(&request).await)? else { return Ok(None) };
        let info = serde_json::from_slice(&answer.body);
        let info = info.map_err(|error| client.not_understood(&request, error))?;
        let etag = etag_of(client, &request, &answer.headers)?;
        Ok(Some((info, etag)))
    }

    /// Begins anew: takes away what this PoP has seen. What others add meanwhile stays.
    pub async fn reset(&self) -> Result<Written, Error> {
        self.whole.clear().await
    }

    /// As [`Counter::reset`], in the state of this name.
    ///
    /// # Errors
    /// [`Error::is_precondition_failed`] in another one.
    pub async fn reset_if_match(&self, etag: &str) -> Result<Written, Error> {
        self.whole.remove_if_match(self.whole.path()?, etag).await
    }

    /// Replaces the JSON stored along with it, at most 1,024 bytes; null, as of `&()`, takes it away.
    pub async fn describe(&self, metadata: &impl Serialize) -> Result<Written, Error> {
        self.whole.describe(metadata).await
    }
}
