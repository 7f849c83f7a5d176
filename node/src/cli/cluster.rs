//! `cluster` and `node`: identities are made here, before any process runs.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::failure::Failure;
use super::print;
use crate::identity;

/// The longest join token read from standard input.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a cluster: its authority, its id and its secret
    Init {
        /// The folder to make. Keep it safe: who has it can let nodes in
        dir: PathBuf,
    },
    /// Print a token with which one node may join
    JoinToken {
        /// The cluster's folder
        dir: PathBuf,
        /// The PoP the node will be
        #[arg(long)]
        pop: String,
        /// How long the token can be used: a number and s, m, h or d
        #[arg(long, default_value = "24h", value_parser = duration)]
        valid_for: Duration,
    },
}

#[derive(clap::Subcommand)]
pub(super) enum NodeCommand {
    /// Make a node's key and certificate
    Init {
        /// The folder to make: the configuration's node.identity_dir
        dir: PathBuf,
        /// The join token; `-` reads it from standard input
        #[arg(long)]
        token: String,
    },
}

pub(super) fn run(command: Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Init { dir } => {
            identity::init_cluster(&dir).map_err(Failure::new)?;
            if json {
                return print::json(&json!({ "cluster": dir }));
            }
            print::line(format!(
                "made the cluster {0}\nnext: littoral cluster join-token {0} --pop NAME",
                dir.display()
            ))
        }
        Command::JoinToken { dir, pop, valid_for } => {
            let token = identity::join_token(&dir, &pop, valid_for).map_err(Failure::new)?;
            if json {
                return print::json(
                    &json!({ "pop": pop, "token": token, "valid_for_s": valid_for.as_secs() }),
                );
            }
            print::line(token)
        }
    }
}

pub(super) fn run_node(command: NodeCommand, json: bool) -> Result<(), Failure> {
    let NodeCommand::Init { dir, token } = command;
    let token = if token == "-" { token_from_stdin()? } else { token };
    identity::init_node(&dir, token.trim()).map_err(Failure::new)?;
    if json {
        return print::json(&json!({ "identity": dir }));
    }
    print::line(format!(
        "made the identity {}\nnext: name it in the configuration as node.identity_dir",
        dir.display()
    ))
}

fn token_from_stdin() -> Result<String, Failure> {
    let mut token = String::new();
    std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut token)?;
    Ok(token)
}

/// `90m` as a duration.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "not a number followed by s, m, h or d".to_owned();
    let (unit_at, unit) = text.char_indices().next_back().ok_or_else(wrong)?;
    let unit_s: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..unit_at].parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(unit_s).filter(|seconds| *seconds > 0).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, seconds) in [
            ("24h", Some(86_400)),
            ("90m", Some(5_400)),
            ("1s", Some(1)),
            ("2d", Some(172_800)),
            ("0s", None),
            ("24", None),
            ("h", None),
            ("", None),
            ("-1h", None),
            ("1ü", None),
            ("99999999999999999999d", None),
            ("9999999999999999999d", None),
        ] {
            assert_eq!(duration(text).ok(), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
