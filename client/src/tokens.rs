//! Calls about accounts, their tokens, and the quotas and homes of their namespaces.

use reqwest::Method;

use crate::account::Account;
use crate::api::homes::{HomeReport, SetHome};
use crate::api::quotas::{Quota, QuotaReport};
use crate::api::tokens::{
    AccountInfo, AccountsReport, CreateAccount, CreateToken, CreatedToken, PresentedToken, TokensReport,
};
use crate::client::Client;
use crate::error::Error;
use crate::request::{Request, segment};

impl Client {
    /// What the token of this client is, and may do.
    pub async fn token(&self) -> Result<PresentedToken, Error> {
        self.json(&Request::read("/v1/token")).await
    }

    /// The accounts: all there are for a token of the cluster, its own for another.
    pub async fn accounts(&self) -> Result<AccountsReport, Error> {
        self.json(&Request::read("/v1/accounts")).await
    }

    /// Makes an account. Needs a token of the cluster.
    pub async fn create_account(&self, account: &CreateAccount) -> Result<AccountInfo, Error> {
        let request = Request::new(Method::POST, "/v1/accounts").json(account)?;
        self.json(&request.not_idempotent()).await
    }

    /// Deletes an account that has neither namespaces nor tokens. Needs a token of the cluster.
    pub async fn delete_account(&self, id: &str) -> Result<(), Error> {
        let path = format!("/v1/accounts/{}", segment(id, "account id")?);
        self.fetch(&Request::new(Method::DELETE, path)).await.map(drop)
    }
}

impl Account {
    /// The account's tokens, without what clients present.
    pub async fn tokens(&self) -> Result<TokensReport, Error> {
        self.client.json(&Request::read(self.tokens_path()?)).await
    }

    /// Makes a token. The answer is the only one that has it.
    pub async fn create_token(&self, token: &CreateToken) -> Result<CreatedToken, Error> {
        let request = Request::new(Method::POST, self.tokens_path()?).json(token)?;
        self.client.json(&request.not_idempotent()).await
    }

    /// Revokes a token: it is refused here at once, and at every other PoP when that has heard of it.
    pub async fn revoke_token(&self, id: &str) -> Result<(), Error> {
        let path = format!("{}/{}", self.tokens_path()?, segment(id, "token id")?);
        self.client.fetch(&Request::new(Method::DELETE, path)).await.map(drop)
    }

    /// What a namespace may hold and be asked, and what it has.
    pub async fn quota(&self, namespace: &str) -> Result<QuotaReport, Error> {
        self.client.json(&Request::read(self.page_path(namespace, "quota")?)).await
    }

    /// Sets all bounds of a namespace. Needs a token of the cluster.
    pub async fn set_quota(&self, namespace: &str, quota: &Quota) -> Result<QuotaReport, Error> {
        let request = Request::new(Method::PUT, self.page_path(namespace, "quota")?).json(quota)?;
        self.client.json(&request).await
    }

    /// Which PoP decides about conditional writes of a namespace, if that is not left to each.
    pub async fn home(&self, namespace: &str) -> Result<HomeReport, Error> {
        self.client.json(&Request::read(self.page_path(namespace, "home")?)).await
    }

    /// Has a PoP of this region decide about conditional writes, wherever they are sent; without one, each PoP decides for
    /// itself. Needs a token of the cluster. The home that there was must be in reach, if it is still a member.
    pub async fn set_home(&self, namespace: &str, region: Option<&str>) -> Result<HomeReport, Error> {
        let wanted = SetHome { region: region.map(str::to_owned) };
        let request = Request::new(Method::PUT, self.page_path(namespace, "home")?).json(&wanted)?;
        self.client.json(&request).await
    }

    /// A page about a namespace.
    fn page_path(&self, namespace: &str, page: &str) -> Result<String, Error> {
        let account = segment(&self.id, "account id")?;
        Ok(format!("/v1/accounts/{account}/namespaces/{}/{page}", segment(namespace, "namespace id")?))
    }

    fn tokens_path(&self) -> Result<String, Error> {
        Ok(format!("/v1/accounts/{}/tokens", segment(&self.id, "account id")?))
    }
}
