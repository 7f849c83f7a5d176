//! The calls of the suite, made with the crate.

use std::panic::{self, AssertUnwindSafe};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloudflare::endpoints::workerskv::create_namespace::{CreateNamespace, CreateNamespaceParams};
use cloudflare::endpoints::workerskv::delete_bulk::DeleteBulk;
use cloudflare::endpoints::workerskv::delete_key::DeleteKey;
use cloudflare::endpoints::workerskv::get_namespace::GetNamespace;
use cloudflare::endpoints::workerskv::list_namespace_keys::{ListNamespaceKeys, ListNamespaceKeysParams};
use cloudflare::endpoints::workerskv::list_namespaces::{
    Direction, ListNamespaces, ListNamespacesParams, Order,
};
use cloudflare::endpoints::workerskv::read_key::ReadKey;
use cloudflare::endpoints::workerskv::read_key_metadata::ReadKeyMetadata;
use cloudflare::endpoints::workerskv::remove_namespace::RemoveNamespace;
use cloudflare::endpoints::workerskv::rename_namespace::{RenameNamespace, RenameNamespaceParams};
use cloudflare::endpoints::workerskv::write_bulk::{KeyValuePair, WriteBulk};
use cloudflare::endpoints::workerskv::write_key::{
    WriteKey, WriteKeyBody, WriteKeyBodyMetadata, WriteKeyParams,
};
use cloudflare::framework::Environment;
use cloudflare::framework::auth::Credentials;
use cloudflare::framework::client::ClientConfig;
use cloudflare::framework::client::async_api::Client;
use cloudflare::framework::client::blocking_api::HttpApiClient;
use cloudflare::framework::endpoint::spec::EndpointSpec;
use cloudflare::framework::response::{ApiFailure, ResponseConverter};
use serde_json::{Value as Json, json};
use tokio::runtime::{Builder, Runtime};

/// Why a call has no result.
pub(crate) enum Refusal {
    /// The crate has no such call.
    Lacks(&'static str),
    /// As far as the crate tells.
    Told { status: Option<u16>, code: Option<u16>, message: String },
}

/// The crate's two clients.
pub(crate) struct Calls {
    account: String,
    client: Client,
    blocking: HttpApiClient,
    runtime: Runtime,
}

type Result<T = Json> = std::result::Result<T, Refusal>;

impl Calls {
    pub(crate) fn from_environment() -> Self {
        let variable = |name| std::env::var(name).expect("the suite sets it");
        let token = variable("TOKEN");
        let credentials = match variable("AUTH").as_str() {
            "key" => Credentials::UserAuthKey { email: "someone@example.com".to_owned(), key: token },
            _ => Credentials::UserAuthToken { token },
        };
        // Paths are joined to it, so it must end with a slash.
        let environment = || Environment::Custom(format!("{}/", variable("BASE_URL")));
        let built = "a client without TLS has nothing that could fail";
        Self {
            account: variable("ACCOUNT"),
            client: Client::new(credentials.clone(), ClientConfig::default(), environment()).expect(built),
            blocking: HttpApiClient::new(credentials, ClientConfig::default(), environment()).expect(built),
            runtime: Builder::new_current_thread().enable_all().build().expect("one thread starts"),
        }
    }

    /// The result of a call.
    pub(crate) fn answer(&self, call: &Json) -> Result {
        let account_identifier = self.account.as_str();
        let namespace_identifier = text(call, "namespace");
        let key = text(call, "key");
        match text(call, "call") {
            "create_namespace" => {
                let params = CreateNamespaceParams { title: text(call, "title").to_owned() };
                let created = self.request(&CreateNamespace { account_identifier, params })?.result;
                Ok(json!({ "id": created.id, "title": created.title }))
            }
            "list_namespaces" => self.list_namespaces(),
            "find_namespace" => {
                let found = self.request(&GetNamespace { account_identifier, namespace_identifier })?.result;
                Ok(json!({ "id": found.id, "title": found.title }))
            }
            "rename_namespace" => {
                let params = RenameNamespaceParams { title: text(call, "title").to_owned() };
                self.rename(&RenameNamespace { account_identifier, namespace_identifier, params })
            }
            "delete_namespace" => {
                let removed = RemoveNamespace { account_identifier, namespace_identifier };
                self.request(&removed).map(|_| Json::Null)
            }
            "put" => self.put(call),
            "read" => self.read(&ReadKey { account_identifier, namespace_identifier, key }),
            "delete" => {
                let deleted = DeleteKey { account_identifier, namespace_identifier, key };
                self.request(&deleted).map(|_| Json::Null)
            }
            "read_metadata" => {
                let read = ReadKeyMetadata { account_identifier, namespace_identifier, key };
                Ok(json!(self.request(&read)?.result))
            }
            "list_keys" => self.list_keys(call),
            "bulk_put" => self.bulk_put(call),
            "bulk_delete" => {
                let bulk_keys = array(call, "keys").iter().map(owned).collect();
                let deleted = DeleteBulk { account_identifier, namespace_identifier, bulk_keys };
                Ok(json!(self.request(&deleted)?.result.successful_key_count))
            }
            _ => Err(Refusal::Lacks("which has no such call")),
        }
    }

    /// Page after page, until one is empty.
    fn list_namespaces(&self) -> Result {
        let mut rows = Vec::new();
        for page in 1.. {
            let params = ListNamespacesParams {
                direction: Some(Direction::Asc),
                order: Some(Order::Title),
                page: Some(page),
                per_page: None,
            };
            let listed = self.request(&ListNamespaces { account_identifier: &self.account, params })?.result;
            if listed.is_empty() {
                break;
            }
            rows.extend(listed.into_iter().map(|row| json!({ "id": row.id, "title": row.title })));
        }
        Ok(Json::Array(rows))
    }

    /// The crate expects no result and is given a namespace, as the API's description has it: what it
    /// cannot parse then has been done.
    fn rename(&self, renamed: &RenameNamespace<'_>) -> Result {
        match self.runtime.block_on(self.client.request(renamed)) {
            Ok(_) => Ok(Json::Null),
            Err(ApiFailure::Invalid(error)) if error.is_decode() => Ok(Json::Null),
            Err(failure) => Err(failure.into()),
        }
    }

    fn put(&self, call: &Json) -> Result {
        let value = STANDARD.decode(text(call, "value")).expect("the suite sends base64");
        let body = match call.get("metadata") {
            None => WriteKeyBody::Value(value),
            Some(metadata) => {
                WriteKeyBody::Metadata(WriteKeyBodyMetadata { value, metadata: metadata.clone() })
            }
        };
        let (expiration, expiration_ttl) = (call["expiration"].as_i64(), call["expiration_ttl"].as_i64());
        self.request(&WriteKey {
            account_identifier: &self.account,
            namespace_identifier: text(call, "namespace"),
            key: text(call, "key"),
            params: WriteKeyParams { expiration, expiration_ttl },
            body,
        })?;
        Ok(Json::Null)
    }

    /// A key may be deleted between the two readings, and then the blocking client panics rightly.
    fn read(&self, read: &ReadKey<'_>) -> Result {
        self.request(read)?;
        let again = panic::catch_unwind(AssertUnwindSafe(|| self.blocking.request(read)));
        let value = again.or_else(|panicked| match self.request(read) {
            Ok(_) => panic::resume_unwind(panicked),
            Err(refusal) => Err(refusal),
        })??;
        Ok(json!({ "value": STANDARD.encode(value) }))
    }

    /// Page after page, until there is no cursor.
    fn list_keys(&self, call: &Json) -> Result {
        let mut rows = Vec::new();
        let mut cursor = None;
        loop {
            let listed = self.request(&ListNamespaceKeys {
                account_identifier: &self.account,
                namespace_identifier: text(call, "namespace"),
                params: ListNamespaceKeysParams {
                    limit: call["limit"].as_u64().and_then(|limit| limit.try_into().ok()),
                    cursor,
                    prefix: call["prefix"].as_str().map(str::to_owned),
                },
            })?;
            rows.extend(listed.result.iter().map(|row| {
                let mut shown = json!({ "name": row.name });
                if let Some(at) = row.expiration {
                    shown["expiration"] = json!(at.timestamp());
                }
                if let Some(metadata) = &row.metadata {
                    shown["metadata"] = metadata.clone();
                }
                shown
            }));
            let next = listed.result_info.as_ref().and_then(|info| info["cursor"].as_str());
            cursor = next.filter(|cursor| !cursor.is_empty()).map(str::to_owned);
            if cursor.is_none() {
                return Ok(Json::Array(rows));
            }
        }
    }

    fn bulk_put(&self, call: &Json) -> Result {
        let pairs = array(call, "pairs");
        if pairs.iter().any(|pair| pair.get("metadata").is_some()) {
            return Err(Refusal::Lacks("whose pairs have no metadata"));
        }
        let pair = |pair: &Json| KeyValuePair {
            key: text(pair, "key").to_owned(),
            value: text(pair, "value").to_owned(),
            expiration: pair["expiration"].as_i64(),
            expiration_ttl: pair["expiration_ttl"].as_i64(),
            base64: pair["base64"].as_bool(),
        };
        let written = self.request(&WriteBulk {
            account_identifier: &self.account,
            namespace_identifier: text(call, "namespace"),
            bulk_key_value_pairs: pairs.iter().map(pair).collect(),
        })?;
        Ok(json!(written.result.successful_key_count))
    }

    fn request<E>(&self, endpoint: &E) -> Result<E::ResponseType>
    where
        E: EndpointSpec + Send + Sync,
        E::ResponseType: ResponseConverter<E::JsonResponse>,
    {
        Ok(self.runtime.block_on(self.client.request(endpoint))?)
    }
}

impl From<ApiFailure> for Refusal {
    fn from(failure: ApiFailure) -> Self {
        let message = failure.to_string();
        match failure {
            ApiFailure::Error(status, errors) => {
                let code = errors.errors.first().map(|error| error.code);
                Self::Told { status: Some(status.as_u16()), code, message }
            }
            ApiFailure::Invalid(_) => Self::Told { status: None, code: None, message },
        }
    }
}

/// A field that the suite sends, or nothing where it does not.
fn text<'a>(call: &'a Json, name: &str) -> &'a str {
    call[name].as_str().unwrap_or_default()
}

fn array<'a>(call: &'a Json, name: &str) -> &'a [Json] {
    call[name].as_array().map_or(&[], Vec::as_slice)
}

fn owned(text: &Json) -> String {
    text.as_str().unwrap_or_default().to_owned()
}
