//! Writing upon a state, from the command line: `--if-match`, `--if-absent`, and what `--etag` shows.

use littoral::Condition;
use serde_json::json;

use super::failure::Failure;
use super::print;

/// In which state something is to be written.
#[derive(clap::Args)]
pub(super) struct ConditionArgs {
    /// Only if this PoP has it in this state, as --etag of the reading command shows it
    #[arg(long, value_name = "ETAG", conflicts_with = "if_absent")]
    if_match: Option<String>,
    /// Only if this PoP has none
    #[arg(long)]
    if_absent: bool,
}

impl ConditionArgs {
    pub(super) fn given(self) -> Option<Condition> {
        match (self.if_match, self.if_absent) {
            (Some(etag), _) => Some(Condition::Match(quoted(&etag))),
            (None, true) => Some(Condition::Absent),
            (None, false) => None,
        }
    }
}

/// As HTTP has it, whether or not the shell took the quotes away.
pub(super) fn quoted(etag: &str) -> String {
    format!("\"{}\"", etag.trim_matches('"'))
}

/// Shows the name of a state, without its quotes, which shells take away.
pub(super) fn show_etag(key: &str, etag: &str, json: bool) -> Result<(), Failure> {
    let etag = etag.trim_matches('"');
    if json { print::json(&json!({ "key": key, "etag": etag })) } else { print::line(etag) }
}
