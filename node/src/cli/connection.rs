//! Which PoP, account and namespace a command means: from flags, or from the environment.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use littoral::{Account, Client, Namespace};

use super::failure::Failure;
use crate::http::MAX_PEM_BYTES;

/// The digits of an account id and of a namespace id.
pub(super) const ID_DIGITS: usize = 32;

/// A PoP and how to speak to it.
#[derive(Args, Clone)]
pub(super) struct Connection {
    /// The PoP's address
    #[arg(
        long,
        env = "LITTORAL_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8787",
        help_heading = "Connection",
        global = true
    )]
    url: String,
    /// The bearer token
    #[arg(long, env = "LITTORAL_TOKEN", hide_env_values = true, help_heading = "Connection", global = true)]
    token: Option<String>,
    #[command(flatten)]
    authorities: Authorities,
}

impl Connection {
    pub(super) fn client(&self) -> Result<Client, Failure> {
        self.authorities.client(&self.url, self.token()?)
    }

    /// The PEM text of the authorities that are believed in beside the system's.
    pub(super) fn authorities(&self) -> Result<Option<String>, Failure> {
        self.authorities.read()
    }

    pub(super) fn token(&self) -> Result<&str, Failure> {
        self.token.as_deref().ok_or_else(|| missing("token", "--token", "LITTORAL_TOKEN"))
    }

    /// The same, at another address.
    pub(super) fn at(&self, url: &str) -> Result<Client, Failure> {
        Self { url: url.to_owned(), ..self.clone() }.client()
    }
}

/// Whom to believe, where the address begins with https://.
#[derive(Args, Clone)]
struct Authorities {
    /// A PEM file of authorities to believe in beside the system's, for addresses with https://
    #[arg(
        long,
        value_name = "FILE",
        env = "LITTORAL_CA",
        hide_env_values = true,
        help_heading = "Connection",
        global = true
    )]
    ca: Option<PathBuf>,
}

impl Authorities {
    fn client(&self, url: &str, token: &str) -> Result<Client, Failure> {
        let builder = match self.read()? {
            Some(pem) => Client::builder().authorities(pem),
            None => Client::builder(),
        };
        Ok(builder.build(url, token)?)
    }

    fn read(&self) -> Result<Option<String>, Failure> {
        let Some(file) = &self.ca else { return Ok(None) };
        let mut pem = String::new();
        let read = File::open(file).and_then(|file| file.take(MAX_PEM_BYTES + 1).read_to_string(&mut pem));
        let refused = |why: &str| {
            Failure::usage(format!("cannot read the authorities in {}: {why}", file.display()))
                .hint("--ca (LITTORAL_CA) is a PEM file of certificates")
        };
        match read {
            Err(error) => Err(refused(&error.to_string())),
            Ok(_) if pem.len() as u64 > MAX_PEM_BYTES => Err(refused("it is too large")),
            Ok(_) => Ok(Some(pem)),
        }
    }
}

/// What PoPs of one cluster are asked with, where their addresses are arguments.
#[derive(Args, Clone)]
pub(super) struct Token {
    /// The bearer token, the same at both
    #[arg(long, env = "LITTORAL_TOKEN", hide_env_values = true, help_heading = "Connection")]
    token: Option<String>,
    #[command(flatten)]
    authorities: Authorities,
}

impl Token {
    pub(super) fn client(&self, url: &str) -> Result<Client, Failure> {
        let token = self.token.as_deref().ok_or_else(|| missing("token", "--token", "LITTORAL_TOKEN"))?;
        self.authorities.client(url, token)
    }
}

/// An account at a PoP.
#[derive(Args, Clone)]
pub(super) struct AccountConnection {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// The account: 32 hexadecimal digits
    #[arg(
        long,
        env = "LITTORAL_ACCOUNT",
        hide_env_values = true,
        help_heading = "Connection",
        global = true
    )]
    account: Option<String>,
}

impl AccountConnection {
    pub(super) fn account(&self) -> Result<Account, Failure> {
        let id =
            self.account.as_deref().ok_or_else(|| missing("account", "--account", "LITTORAL_ACCOUNT"))?;
        Ok(self.connection.client()?.account(id))
    }
}

/// A namespace of an account at a PoP.
#[derive(Args, Clone)]
pub(super) struct AccountArgs {
    #[command(flatten)]
    at: AccountConnection,
    /// The namespace: its id or its title
    #[arg(
        long,
        env = "LITTORAL_NAMESPACE",
        hide_env_values = true,
        help_heading = "Connection",
        global = true
    )]
    namespace: Option<String>,
}

impl AccountArgs {
    pub(super) fn account(&self) -> Result<Account, Failure> {
        self.at.account()
    }

    /// The namespace; a title is looked up.
    pub(super) async fn namespace(&self) -> Result<Namespace, Failure> {
        let wanted = self
            .namespace
            .as_deref()
            .ok_or_else(|| missing("namespace", "--namespace", "LITTORAL_NAMESPACE"))?;
        let account = self.account()?;
        Ok(account.namespace(&id_of(wanted, &account).await?))
    }
}

/// The id of a namespace that was typed by its id or its title.
pub(super) async fn id_of(named: &str, account: &Account) -> Result<String, Failure> {
    if is_id(named) {
        return Ok(named.to_owned());
    }
    let found = account.find_namespace(named).await?;
    found.map(|found| found.id).ok_or_else(|| no_such_title(named))
}

/// Whether this is an id and no title.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// No namespace of the account has this title.
pub(super) fn no_such_title(wanted: &str) -> Failure {
    let hint = format!("make it with: littoral kv namespace create {wanted}");
    Failure::not_found(format!("no namespace has the title {wanted:?}")).hint(hint)
}

fn missing(what: &str, flag: &str, variable: &str) -> Failure {
    Failure::usage(format!("no {what} is given")).hint(format!("pass {flag}, or set {variable}"))
}
