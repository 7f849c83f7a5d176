//! Listings of values, counters, sets, maps, members and fields: pages that each say where the next one begins.

use std::collections::VecDeque;
use std::marker::PhantomData;

use futures_util::{Stream, stream};
use serde::de::DeserializeOwned;

use crate::api::kinds::{Field, FieldsPage, KeysPage, Member, MembersPage};
use crate::api::kv::KeyInfo;
use crate::client::Client;
use crate::error::Error;
use crate::request::Request;

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageOptions {
    /// Only names that begin with this.
    pub prefix: String,
    /// Rows on a page, 1 to 1,000; the server's default is 1,000.
    pub page_limit: Option<usize>,
    /// Only names after this one: where an earlier listing stood.
    pub after: Option<String>,
}

/// One page of a listing.
pub trait Page: DeserializeOwned {
    /// What is listed.
    type Row;

    /// Where the next page begins; `None` on the last one.
    fn next_after(&self) -> Option<&str>;

    /// What is on it. May be fewer than asked for, even none, before the last page.
    fn into_rows(self) -> Vec<Self::Row>;
}

impl Page for KeysPage {
    type Row = KeyInfo;

    fn next_after(&self) -> Option<&str> {
        self.next_after.as_deref()
    }

    fn into_rows(self) -> Vec<KeyInfo> {
        self.keys
    }
}

impl Page for MembersPage {
    type Row = Member;

    fn next_after(&self) -> Option<&str> {
        self.next_after.as_deref()
    }

    fn into_rows(self) -> Vec<Member> {
        self.members
    }
}

impl Page for FieldsPage {
    type Row = Field;

    fn next_after(&self) -> Option<&str> {
        self.next_after.as_deref()
    }

    fn into_rows(self) -> Vec<Field> {
        self.fields
    }
}

/// A listing under way.
#[derive(Clone, Debug)]
pub struct Pages<P> {
    client: Client,
    /// Refused where the key cannot be sent.
    path: Result<String, String>,
    options: PageOptions,
    /// What of each row is asked for that a page would not have.
    include: Option<&'static str>,
    /// The one key that it is about, where only one is.
    key: Option<String>,
    is_done: bool,
    page: PhantomData<fn() -> P>,
}

impl<P: Page> Pages<P> {
    pub(crate) fn new(client: Client, path: Result<String, Error>, options: PageOptions) -> Self {
        let path = path.map_err(|error| error.to_string());
        Self { client, path, options, include: None, key: None, is_done: false, page: PhantomData }
    }

    pub(crate) fn including(self, what: &'static str) -> Self {
        Self { include: Some(what), ..self }
    }

    pub(crate) fn of_key(self, key: Option<String>) -> Self {
        Self { key, ..self }
    }

    /// The next page; `None` after the last. After an error the same page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<P>, Error> {
        if self.is_done {
            return Ok(None);
        }
        let path = self.path.clone().map_err(Error::invalid)?;
        let mut request = Request::read(path).query("prefix", &self.options.prefix);
        if let Some(limit) = self.options.page_limit {
            request = request.query("limit", limit);
        }
        if let Some(key) = &self.key {
            request = request.query("key", key);
        }
        if let Some(what) = self.include {
            request = request.query("include", what);
        }
        if let Some(after) = &self.options.after {
            request = request.query("after", after);
        }
        let page: P = self.client.json(&request).await?;
        let after = page.next_after().map(str::to_owned);
        if after.is_some() && after <= self.options.after {
            return Err(self.client.not_understood(&request, "the listing does not advance"));
        }
        self.is_done = after.is_none();
        self.options.after = after;
        Ok(Some(page))
    }

    /// What is listed, one by one; ends after the first error.
    pub fn rows(self) -> impl Stream<Item = Result<P::Row, Error>> {
        stream::try_unfold((self, VecDeque::new()), |(mut pages, mut rows)| async move {
            loop {
                if let Some(row) = rows.pop_front() {
                    return Ok(Some((row, (pages, rows))));
                }
                match pages.next_page().await? {
                    Some(page) => rows.extend(page.into_rows()),
                    None => return Ok(None),
                }
            }
        })
    }
}
