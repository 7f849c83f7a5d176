//! How a command fails: what happened, what to do about it, and an exit code a script can act on.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use littoral::api::kv::code;

/// Exit code: the command failed.
const FAILED: u8 = 1;
/// Exit code: the command was not understood. clap uses the same.
pub(super) const USAGE: u8 = 2;
/// Exit code: the PoP cannot be reached.
const UNREACHABLE: u8 = 3;
/// Exit code: there is no such key, member, field, namespace, account or token.
const NOT_FOUND: u8 = 4;

/// Why a command ends early.
#[derive(Debug)]
pub(super) enum Failure {
    /// Something a person must know.
    Told {
        /// The exit code.
        exit: u8,
        /// What happened.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The command failed, and what it printed says why.
    Said,
    /// Whoever read our output has seen enough.
    BrokenPipe,
}

impl Failure {
    /// The command failed.
    pub(super) fn new(what: impl Display) -> Self {
        Self::Told { exit: FAILED, what: what.to_string(), hint: None }
    }

    /// The command cannot be carried out as it was typed.
    pub(super) fn usage(what: impl Display) -> Self {
        Self::Told { exit: USAGE, what: what.to_string(), hint: None }
    }

    /// There is no such thing.
    pub(super) fn not_found(what: impl Display) -> Self {
        Self::Told { exit: NOT_FOUND, what: what.to_string(), hint: None }
    }

    /// What became of a call that names one thing by its id: status 404 says that there is none.
    pub(super) fn of_one(error: littoral::Error) -> Self {
        match error {
            littoral::Error::Api { status: 404, message, .. } => Self::not_found(message),
            other => other.into(),
        }
    }

    /// Sets what to do about it.
    pub(super) fn hint(self, text: impl Display) -> Self {
        match self {
            Self::Told { exit, what, .. } => Self::Told { exit, what, hint: Some(text.to_string()) },
            Self::Said | Self::BrokenPipe => self,
        }
    }

    /// Says in front what was being done.
    pub(super) fn while_doing(self, doing: impl Display) -> Self {
        match self {
            Self::Told { exit, what, hint } => Self::Told { exit, what: format!("{doing}: {what}"), hint },
            Self::Said | Self::BrokenPipe => self,
        }
    }

    /// Tells the person, and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        let (exit, what, hint) = match self {
            Self::Told { exit, what, hint } => (exit, what, hint),
            Self::Said => return ExitCode::from(FAILED),
            Self::BrokenPipe => return ExitCode::SUCCESS,
        };
        let hint = hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        // With standard error closed there is nobody left to tell.
        let _ = io::Write::write_all(&mut io::stderr(), format!("error: {what}{hint}\n").as_bytes());
        ExitCode::from(exit)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::new(error),
        }
    }
}

impl From<littoral::Error> for Failure {
    fn from(error: littoral::Error) -> Self {
        let hint = match &error {
            littoral::Error::Transport { reason, .. } if reason.contains("peer certificate") => {
                "does --ca (LITTORAL_CA) name the authority's PEM file, and the certificate this address?"
            }
            littoral::Error::Transport { .. } => {
                "is the PoP running? Its address comes from --url or LITTORAL_URL"
            }
            littoral::Error::Decode { .. } => {
                "is --url (LITTORAL_URL) the address of a PoP, and of this version?"
            }
            littoral::Error::Invalid { .. } => "see the same command with --help",
            littoral::Error::Api { code: code::NAMESPACE_NOT_FOUND | code::BAD_NAMESPACE_ID, .. } => {
                "`littoral kv namespace list` shows which there are"
            }
            littoral::Error::Api { status: 403, message, .. }
                if !message.contains("Authentication error") =>
            {
                "`littoral token show` says what the token may do"
            }
            littoral::Error::Api { code: code::AUTHENTICATION, .. }
            | littoral::Error::Api { status: 401 | 403, .. } => {
                "check --token (LITTORAL_TOKEN) and --account (LITTORAL_ACCOUNT)"
            }
            littoral::Error::Api { code: code::PRECONDITION_FAILED, .. } => {
                "--etag of `kv get`, `counter get`, `set contains`, `map get` or `doc get` shows the state as it is now"
            }
            littoral::Error::Api { code: code::OVER_QUOTA, .. } => {
                "`littoral kv namespace quota NAMESPACE` shows what it has, and may have"
            }
            littoral::Error::Api { code: code::TOO_FAST, .. } => {
                "ask more slowly, or have the bound raised: `littoral token show`, `littoral kv namespace quota`"
            }
            littoral::Error::Api { status: 429 | 500..=599, .. } => {
                "the PoP has trouble: `littoral status` and its log say which"
            }
            littoral::Error::Api { .. } => "",
        };
        let exit = match &error {
            littoral::Error::Transport { .. } => UNREACHABLE,
            littoral::Error::Invalid { .. } => USAGE,
            littoral::Error::Api { code: code::NAMESPACE_NOT_FOUND | code::KEY_NOT_FOUND, .. } => NOT_FOUND,
            _ => FAILED,
        };
        let hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
        Self::Told { exit, what: error.to_string(), hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_believed_is_told_from_who_is_not_there() {
        for (reason, expected) in
            [("invalid peer certificate: UnknownIssuer", "--ca"), ("Connection refused", "running")]
        {
            let error = littoral::Error::Transport { url: "https://h".into(), reason: reason.into() };
            let Failure::Told { exit, hint, .. } = Failure::from(error) else { panic!("{reason}") };
            assert_eq!(exit, UNREACHABLE);
            assert!(hint.is_some_and(|hint| hint.contains(expected)), "{reason}");
        }
    }
}
