//! `account`: which accounts there are, and making and deleting them.

use littoral::api::tokens::{AccountInfo, CreateAccount};
use serde_json::json;

use super::connection::{Connection, ID_DIGITS, is_id};
use super::failure::Failure;
use super::print;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make an account
    Create {
        /// Its name, for people
        name: String,
        /// Its id: 32 hexadecimal digits; a new one without it
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// List the accounts
    List(Connection),
    /// Delete an account that has neither namespaces nor tokens
    Delete {
        /// Its id
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
}

pub(super) async fn run(command: Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Create { name, id, connection } => {
            let made = connection.client()?.create_account(&CreateAccount { name, id }).await?;
            if json {
                return print::json(&made);
            }
            let next = "its first token: littoral token create NAME --scope admin:* --account";
            print::line(format!("{}\nnext: {next} {}", made.id, made.id))
        }
        Command::List(connection) => {
            let report = connection.client()?.accounts().await?;
            if json { print::json(&report) } else { print::line(page(&report.accounts)) }
        }
        Command::Delete { id, connection } => {
            if !is_id(&id) {
                let what = format!("{id:?} is not an account id: {ID_DIGITS} hexadecimal digits");
                return Err(Failure::usage(what).hint("`littoral account list` shows the ids"));
            }
            connection.client()?.delete_account(&id).await.map_err(Failure::of_one)?;
            if json { print::json(&json!({ "id": id, "deleted": true })) } else { Ok(()) }
        }
    }
}

/// The most characters of a name in the table, so that the id beside it stays whole.
const MAX_NAME_CHARS: usize = 32;
/// The day, of a moment.
const DAY_CHARS: usize = 10;

fn page(accounts: &[AccountInfo]) -> String {
    let made = |at_s: u64| print::moment(at_s.saturating_mul(1000)).chars().take(DAY_CHARS).collect();
    let row = |account: &AccountInfo| {
        [
            account.id.clone(),
            print::name(account.name.as_deref().unwrap_or_default()).chars().take(MAX_NAME_CHARS).collect(),
            account.created_at.map_or_else(|| "configured".into(), made),
        ]
    };
    print::table(["ACCOUNT", "NAME", "MADE"], accounts.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_fits_80_columns() {
        let made = AccountInfo {
            id: "ab".repeat(16),
            name: Some("the shop of a customer with a long name".into()),
            created_at: Some(1_700_000_000),
            configured: true,
        };
        let configured = AccountInfo { name: None, created_at: None, ..made.clone() };
        let text = page(&[made, configured]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains(&"ab".repeat(16)) && text.contains("configured"), "{text}");
    }
}
