//! An account: its namespaces, found, made, renamed and deleted.

use reqwest::Method;
use serde_json::value::RawValue;

use crate::api::kv::{MAX_NAMESPACES_PER_PAGE, NamespaceInfo, NamespaceTitle, PageInfo, code};
use crate::client::Client;
use crate::error::Error;
use crate::namespace::Namespace;
use crate::request::{Request, segment};

/// The most pages of namespaces a listing follows, so that a server that repeats itself cannot hold it.
const MAX_NAMESPACE_PAGES: usize = 1_000;

/// One account at one PoP.
#[derive(Clone, Debug)]
pub struct Account {
    pub(crate) client: Client,
    pub(crate) id: String,
}

impl Account {
    /// The account's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The namespace with this id, 32 hexadecimal digits. Sends nothing.
    pub fn namespace(&self, id: &str) -> Namespace {
        Namespace { account: self.clone(), id: id.to_owned() }
    }

    /// The namespace with this title; made if there is none.
    pub async fn namespace_titled(&self, title: &str) -> Result<Namespace, Error> {
        if let Some(found) = self.find_namespace(title).await? {
            return Ok(self.namespace(&found.id));
        }
        match self.create_namespace(title).await {
            Ok(made) => Ok(self.namespace(&made.id)),
            // Somebody was faster, or it was us and the answer was lost.
            Err(error) if error.code() == Some(code::DUPLICATE_TITLE) => {
                let found = self.find_namespace(title).await?;
                found.map(|found| self.namespace(&found.id)).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The namespace with this title, if there is one.
    pub async fn find_namespace(&self, title: &str) -> Result<Option<NamespaceInfo>, Error> {
        Ok(self.namespaces().await?.into_iter().find(|namespace| namespace.title == title))
    }

    /// All namespaces, by title.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceInfo>, Error> {
        let mut all = Vec::new();
        for page in 1..=MAX_NAMESPACE_PAGES {
            let request = Request::read(self.path()?)
                .query("page", page)
                .query("per_page", MAX_NAMESPACES_PER_PAGE)
                .query("order", "title")
                .query("direction", "asc");
            let (rows, info) = self.client.enveloped::<Vec<NamespaceInfo>, PageInfo>(&request).await?;
            let rows = rows.unwrap_or_default();
            let is_last = rows.is_empty() || info.is_some_and(|info| page >= info.total_pages);
            all.extend(rows);
            if is_last {
                break;
            }
        }
        Ok(all)
    }

    /// Makes a namespace. A title that exists already is refused.
    pub async fn create_namespace(&self, title: &str) -> Result<NamespaceInfo, Error> {
        let request =
            Request::new(Method::POST, self.path()?).json(&NamespaceTitle { title: title.into() })?;
        self.client.result(&request.not_idempotent()).await
    }

    /// Gives a namespace another title.
    pub async fn rename_namespace(&self, id: &str, title: &str) -> Result<(), Error> {
        let request = Request::new(Method::PUT, self.namespace_path(id)?);
        let request = request.json(&NamespaceTitle { title: title.into() })?;
        self.client.enveloped::<Box<RawValue>, Box<RawValue>>(&request).await.map(drop)
    }

    /// Deletes a namespace with all its keys.
    pub async fn delete_namespace(&self, id: &str) -> Result<(), Error> {
        let request = Request::new(Method::DELETE, self.namespace_path(id)?);
        self.client.enveloped::<Box<RawValue>, Box<RawValue>>(&request).await.map(drop)
    }

    fn path(&self) -> Result<String, Error> {
        Ok(format!("/client/v4/accounts/{}/storage/kv/namespaces", segment(&self.id, "account id")?))
    }

    pub(crate) fn namespace_path(&self, id: &str) -> Result<String, Error> {
        Ok(format!("{}/{}", self.path()?, segment(id, "namespace id")?))
    }
}
