//! A bounded counter: what it stands at, adding to it, and taking what is there.

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;

use crate::api::kinds::{BoundedChange, BoundedInfo, Written};
use crate::error::Error;
use crate::namespace::found;
use crate::request::Request;
use crate::whole::Whole;

/// A counter that never goes below zero, though every PoP takes from it at once: stock, seats, a quota.
///
/// Each PoP takes from what it holds rights to. Where it lacks some it asks other PoPs for them.
///
/// ```no_run
/// # async fn example(kv: littoral::Namespace) -> Result<(), littoral::Error> {
/// let seats = kv.bounded("seats");
/// seats.add(100).await?;
/// match seats.take(2).await {
///     Ok(info) => println!("sold; {} are left", info.count),
///     Err(error) if error.lacks_rights() => println!("not enough: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Bounded {
    pub(crate) whole: Whole,
}

impl Bounded {
    /// Its key.
    pub fn key(&self) -> &str {
        self.whole.key()
    }

    /// Adds this much, at most 2^53 - 1; this PoP may take it. Gives what it stands at then. Where it may have been done,
    /// it is sent again to the same PoP only, under a key by which the node does it once.
    ///
    /// # Errors
    /// After [`Error::Transport`], or a status from 500 on, it may have been done all the same.
    pub async fn add(&self, amount: u64) -> Result<BoundedInfo, Error> {
        self.change(BoundedChange { add: Some(amount), take: None }, None).await
    }

    /// Takes this much, from 1 to 2^53 - 1, or nothing. A PoP that lacks rights asks the others for as long as it lets
    /// requests wait (`http.session_wait_ms`, 5 s unless set).
    ///
    /// # Errors
    /// As [`Bounded::add`]; and such that [`Error::lacks_rights`] where there is too little, or what there is could not be
    /// had in time. Then nothing was taken.
    pub async fn take(&self, amount: u64) -> Result<BoundedInfo, Error> {
        self.change(BoundedChange { add: None, take: Some(amount) }, None).await
    }

    /// As [`Bounded::take`], and waits for the rights of others so long at most; zero asks nobody.
    ///
    /// # Errors
    /// As [`Bounded::take`].
    pub async fn take_within(&self, amount: u64, wait: Duration) -> Result<BoundedInfo, Error> {
        self.change(BoundedChange { add: None, take: Some(amount) }, Some(wait)).await
    }

    async fn change(&self, change: BoundedChange, wait: Option<Duration>) -> Result<BoundedInfo, Error> {
        let mut request = Request::new(Method::POST, self.whole.path()?).json(&change)?.not_idempotent();
        if let Some(wait) = wait {
            request = request.query("timeout", wait.as_millis());
        }
        self.whole.namespace.account.client.json(&request).await
    }

    /// What it stands at, as of this PoP; `None` where nobody has added to it, or it was deleted.
    pub async fn count(&self) -> Result<Option<i64>, Error> {
        Ok(self.info().await?.map(|info| info.count))
    }

    /// The same, with what this PoP may take and what is stored along with it.
    pub async fn info(&self) -> Result<Option<BoundedInfo>, Error> {
        found(self.whole.namespace.account.client.json(&Request::read(self.whole.path()?)).await)
    }

    /// Deletes it: all that this PoP has seen, and what was taken of that elsewhere meanwhile.
    pub async fn delete(&self) -> Result<Written, Error> {
        self.whole.clear().await
    }

    /// Replaces the JSON stored along with it, at most 1,024 bytes; null, as of `&()`, takes it away.
    pub async fn describe(&self, metadata: &impl Serialize) -> Result<Written, Error> {
        self.whole.describe(metadata).await
    }
}
