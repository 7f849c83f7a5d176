//! A listing: pages of keys, resumable from a cursor.

use std::collections::VecDeque;

use futures_util::{Stream, stream};

use crate::api::kv::{CursorInfo, KeyInfo};
use crate::error::Error;
use crate::namespace::Namespace;
use crate::request::Request;

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Keys on a page, 10 to 1,000; the server's default is 1,000.
    pub page_limit: Option<usize>,
    /// Where an earlier listing of the same prefix stood.
    pub cursor: Option<String>,
}

/// One page.
#[derive(Clone, Debug)]
pub struct KeyPage {
    /// In the order of their bytes. May be fewer than asked for, even none, before the last page.
    pub keys: Vec<KeyInfo>,
    /// Resumes the listing after this page; `None` on the last one.
    pub cursor: Option<String>,
}

/// A listing under way.
#[derive(Clone, Debug)]
pub struct Listing {
    namespace: Namespace,
    options: ListOptions,
    is_done: bool,
}

impl Listing {
    pub(crate) fn new(namespace: Namespace, options: ListOptions) -> Self {
        Self { namespace, options, is_done: false }
    }

    pub(crate) fn into_parts(self) -> (Namespace, ListOptions) {
        (self.namespace, self.options)
    }

    /// The next page; `None` after the last. After an error the same page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<KeyPage>, Error> {
        if self.is_done {
            return Ok(None);
        }
        let mut request = Request::read(self.namespace.path("keys")?).query("prefix", &self.options.prefix);
        if let Some(limit) = self.options.page_limit {
            request = request.query("limit", limit);
        }
        if let Some(cursor) = &self.options.cursor {
            request = request.query("cursor", cursor);
        }
        let client = &self.namespace.account.client;
        let (keys, info) = client.enveloped::<Vec<KeyInfo>, CursorInfo>(&request).await?;
        let cursor = info.map(|info| info.cursor).filter(|cursor| !cursor.is_empty());
        if cursor.is_some() && cursor == self.options.cursor {
            return Err(client.not_understood(&request, "the listing does not advance"));
        }
        self.is_done = cursor.is_none();
        self.options.cursor.clone_from(&cursor);
        Ok(Some(KeyPage { keys: keys.unwrap_or_default(), cursor }))
    }

    /// The keys one by one; ends after the first error.
    pub fn keys(self) -> impl Stream<Item = Result<KeyInfo, Error>> {
        stream::try_unfold((self, VecDeque::new()), |(mut listing, mut keys)| async move {
            loop {
                if let Some(key) = keys.pop_front() {
                    return Ok(Some((key, (listing, keys))));
                }
                match listing.next_page().await? {
                    Some(page) => keys.extend(page.keys),
                    None => return Ok(None),
                }
            }
        })
    }
}
