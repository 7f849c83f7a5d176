//! What can go wrong, by who must act: the caller, the server, or whatever lies between.

use crate::api::kv::code;

/// Why a call failed, after the retries that could help.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered, and refused.
    #[error("{message} (HTTP {status}{})", shown(*code))]
    Api {
        /// The HTTP status.
        status: u16,
        /// The server's number for it, see [`code`]; 0 when it gave none.
        code: u32,
        /// The server's words.
        message: String,
    },
    /// There was no answer: the PoP is away, or the connection broke or stood still.
    #[error("no answer from {url}: {reason}")]
    Transport {
        /// What was asked.
        url: String,
        /// What happened, down to its cause.
        reason: String,
    },
    /// There was an answer that this client does not understand.
    #[error("the answer of {url} is not understood: {reason}")]
    Decode {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The call itself cannot be made; nothing was sent.
    #[error("{reason}")]
    Invalid {
        /// What is wrong, and what would be right.
        reason: String,
    },
}

/// A code, where the server gave one.
fn shown(code: u32) -> String {
    if code == 0 { String::new() } else { format!(", code {code}") }
}

impl Error {
    /// Whether the server said that there is no such key.
    pub fn is_key_not_found(&self) -> bool {
        self.code() == Some(code::KEY_NOT_FOUND)
    }

    /// Whether the server said that there is no such namespace.
    pub fn is_namespace_not_found(&self) -> bool {
        self.code() == Some(code::NAMESPACE_NOT_FOUND)
    }

    /// Whether the state was not the one that a conditional write was for. Nothing was written.
    pub fn is_precondition_failed(&self) -> bool {
        self.code() == Some(code::PRECONDITION_FAILED)
    }

    /// Whether more was to be taken from a bounded counter than there is, or than the PoP got rights to in time. Nothing
    /// was taken.
    pub fn lacks_rights(&self) -> bool {
        self.code() == Some(code::LACKS_RIGHTS)
    }

    /// The server's number for the error, if it was the server who refused.
    pub fn code(&self) -> Option<u32> {
        match self {
            Error::Api { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Error::Invalid { reason: reason.into() }
    }

    /// reqwest says only "error sending request"; the cause a person needs is further down the chain.
    pub(crate) fn transport(url: &str, error: &reqwest::Error) -> Self {
        let mut reason = if error.is_timeout() { "timed out".to_owned() } else { String::new() };
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            reason = error.to_string();
            cause = error.source();
        }
        if reason.is_empty() {
            reason = error.to_string();
        }
        Error::Transport { url: url.to_owned(), reason }
    }
}
