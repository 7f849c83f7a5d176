//! The PoPs that a client may speak to, and which of them it speaks to now.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Url;

use crate::error::Error;

/// The PoPs, in the order in which they were given; clones go on together.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Without a slash at the end.
    urls: Vec<String>,
    current: AtomicUsize,
}

impl Endpoints {
    /// At least one.
    pub(crate) fn new(urls: &[String]) -> Self {
        let urls = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Self(Arc::new(Inner { urls, current: AtomicUsize::new(0) }))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.urls.len()
    }

    /// The first that was given.
    pub(crate) fn first(&self) -> &str {
        &self.0.urls[0]
    }

    pub(crate) fn current(&self) -> usize {
        self.0.current.load(Ordering::Relaxed)
    }

    pub(crate) fn url(&self, at: usize) -> &str {
        &self.0.urls[at]
    }

    /// This one did not answer: goes on to the next, unless somebody has done so.
    pub(crate) fn leave(&self, at: usize) {
        let next = (at + 1) % self.count();
        let _ = self.0.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The address of a PoP.
pub(crate) fn parse(base_url: &str) -> Result<Url, Error> {
    let url = Url::parse(base_url)
        .map_err(|error| Error::invalid(format!("{base_url:?} is not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
        return Err(Error::invalid(format!(
            "{base_url:?} is not of the form http://HOST:PORT or https://HOST:PORT"
        )));
    }
    Ok(url)
}
