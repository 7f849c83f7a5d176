//! `token`: making tokens that may do some things in an account, listing and revoking them.
//!
//! The rule this file upholds: a token is printed once, by the command that makes it, and alone on standard output, so that
//! it can be piped to where it is kept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use littoral::Account;
use littoral::api::tokens::{Action, CreateToken, EVERY_NAMESPACE, PresentedToken, Scope, TokenInfo};
use serde_json::json;

use super::cluster::duration;
use super::connection::{AccountConnection, Connection, id_of};
use super::failure::Failure;
use super::print;
use super::short_id;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a token, and print it: this once, and never again
    Create(Create),
    /// List the account's tokens
    List(AccountConnection),
    /// Revoke a token: it is refused here at once, and elsewhere when that is heard of
    Revoke {
        /// Its id, as `token list` shows it
        id: String,
        #[command(flatten)]
        account: AccountConnection,
    },
    /// Show what the token in use is, and may do
    Show(Connection),
}

#[derive(clap::Args)]
pub(super) struct Create {
    /// Its name, for people
    name: String,
    /// What it may do, such as read,list:* or write:demo:users/ (repeatable): of read, write, list and
    /// admin, in a namespace (its id, its title, or * for all), to keys that begin with a prefix
    #[arg(long = "scope", value_name = "ACTIONS:NAMESPACE[:PREFIX]", required = true, value_parser = scope)]
    scopes: Vec<Scope>,
    /// How long it is to be valid: a number and s, m, h or d; for ever without it
    #[arg(long, value_parser = duration)]
    expires_in: Option<Duration>,
    /// How many requests a second each PoP takes of it
    #[arg(long)]
    requests_per_s: Option<u64>,
    #[command(flatten)]
    account: AccountConnection,
}

pub(super) async fn run(command: Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Create(args) => create(args, json).await,
        Command::List(account) => {
            let report = account.account()?.tokens().await.map_err(Failure::of_one)?;
            if json { print::json(&report) } else { print::line(page(&report.tokens)) }
        }
        Command::Revoke { id, account } => {
            account.account()?.revoke_token(&id).await.map_err(Failure::of_one)?;
            if json { print::json(&json!({ "id": id, "revoked": true })) } else { Ok(()) }
        }
        Command::Show(connection) => {
            let token = connection.client()?.token().await?;
            if json { print::json(&token) } else { print::line(shown(&token)) }
        }
    }
}

async fn create(args: Create, json: bool) -> Result<(), Failure> {
    let account = args.account.account()?;
    let mut scopes = args.scopes;
    for scope in &mut scopes {
        scope.namespace = namespace_id(&account, &scope.namespace).await?;
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let wanted = CreateToken {
        name: args.name,
        scopes,
        expires_at: args.expires_in.map(|valid_for| now_s.saturating_add(valid_for.as_secs())),
        requests_per_s: args.requests_per_s,
    };
    let made = account.create_token(&wanted).await.map_err(Failure::of_one)?;
    if json {
        return print::json(&made);
    }
    print::line(made.token)?;
    eprintln!(
        "token {} of account {}; it is shown this once, and only its hash is kept",
        made.info.id,
        account.id()
    );
    Ok(())
}

/// The id of a namespace that was named by its id, its title, or as all of them.
async fn namespace_id(account: &Account, named: &str) -> Result<String, Failure> {
    if named == EVERY_NAMESPACE { Ok(named.to_owned()) } else { id_of(named, account).await }
}

/// `read,list:demo:users/` as a scope whose namespace is still as it was typed.
fn scope(text: &str) -> Result<Scope, String> {
    let mut parts = text.splitn(3, ':');
    let (Some(actions), Some(namespace)) = (parts.next(), parts.next().filter(|name| !name.is_empty()))
    else {
        return Err("not ACTIONS:NAMESPACE[:PREFIX], such as read,list:*".to_owned());
    };
    let action = |name: &str| {
        let known = Action::ALL.into_iter().find(|action| action.name() == name);
        known.ok_or_else(|| format!("{name:?} is none of read, write, list and admin"))
    };
    let actions = actions.split(',').map(action).collect::<Result<_, _>>()?;
    let prefix = parts.next().unwrap_or_default().to_owned();
    Ok(Scope { namespace: namespace.to_owned(), prefix, actions })
}

/// A moment to its minute.
const MINUTE_CHARS: usize = 16;

fn page(tokens: &[TokenInfo]) -> String {
    let row = |token: &TokenInfo| {
        let expiry = expiry(token).chars().take(MINUTE_CHARS).collect();
        [token.id.clone(), print::name(&token.name), scopes(token), expiry]
    };
    print::table(["TOKEN", "NAME", "MAY", "EXPIRES (UTC)"], tokens.iter().map(row))
}

/// In the words of `--scope`, with the beginnings of ids; of many, the first.
fn scopes(token: &TokenInfo) -> String {
    let Some(first) = token.scopes.first() else { return "nothing".to_owned() };
    let first = Scope { namespace: short_id(&first.namespace), ..first.clone() };
    match token.scopes.len() - 1 {
        0 => typed(&first),
        more => format!("{} and {more} more", typed(&first)),
    }
}

fn typed(scope: &Scope) -> String {
    let actions: Vec<_> = scope.actions.iter().map(|action| action.name()).collect();
    let prefix =
        if scope.prefix.is_empty() { String::new() } else { format!(":{}", print::name(&scope.prefix)) };
    format!("{}:{}{prefix}", actions.join(","), scope.namespace)
}

fn expiry(token: &TokenInfo) -> String {
    match token.expires_at {
        None => "never".to_owned(),
        Some(_) if token.expired => "expired".to_owned(),
        Some(at_s) => print::moment(at_s.saturating_mul(1000)),
    }
}

fn shown(presented: &PresentedToken) -> String {
    let accounts = presented.accounts.join(", ");
    let Some(token) = &presented.token else {
        let cluster = if presented.cluster {
            "\nit is a token of the cluster: it opens all pages, and makes accounts"
        } else {
            ""
        };
        return format!("a token of the configuration, for everything in account {accounts}{cluster}");
    };
    let rate = token.requests_per_s.map(|rate| format!("\nat most {rate} requests a second at each PoP"));
    let scopes: Vec<_> = token.scopes.iter().map(|scope| format!("  {}", typed(scope))).collect();
    format!(
        "token {} ({}) of account {accounts}\nexpires: {}{}\nmay:\n{}",
        token.id,
        print::name(&token.name),
        expiry(token),
        rate.unwrap_or_default(),
        scopes.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> TokenInfo {
        let scope = Scope {
            namespace: "ab".repeat(16),
            prefix: "some/prefix/that/is/long/".into(),
            actions: Action::ALL.to_vec(),
        };
        TokenInfo {
            id: "0123456789abcdef".into(),
            name: "the reader of the shop's front page".into(),
            scopes: vec![scope; 3],
            created_at: 0,
            expires_at: Some(1_700_000_000),
            expired: false,
            requests_per_s: Some(5),
        }
    }

    #[test]
    fn the_page_fits_80_columns() {
        let over = TokenInfo { expired: true, scopes: Vec::new(), ..token() };
        let text = page(&[token(), over, TokenInfo { expires_at: None, ..token() }]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for word in ["0123456789abcdef", "2023-11-14", "expired", "never", "nothing"] {
            assert!(text.contains(word), "{word}\n{text}");
        }
    }

    #[test]
    fn a_scope_is_typed_as_it_is_shown() {
        for text in ["read:*", "read,list:demo", "write:demo:users/", "admin:*", "read:demo:a:b"] {
            assert_eq!(typed(&scope(text).unwrap()), text);
        }
        for bad in ["", "read", "read:", ":demo", "reed:demo", "read,:demo", "read;list:demo"] {
            assert!(scope(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_token_is_can_be_read() {
        let made = PresentedToken { accounts: vec!["ab".repeat(16)], cluster: false, token: Some(token()) };
        assert!(shown(&made).contains("at most 5 requests a second"), "{}", shown(&made));
        let configured = PresentedToken { cluster: true, token: None, ..made };
        assert!(shown(&configured).contains("a token of the cluster"), "{}", shown(&configured));
    }
}
