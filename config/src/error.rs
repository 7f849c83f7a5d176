//! What is wrong with a configuration, in words that say where and what would be right.
//!
//! The rule: the value of a secret never enters a message.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why there is no [`Config`](crate::Config). The operator must act.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read, or is larger than [`MAX_FILE_BYTES`](crate::MAX_FILE_BYTES).
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file, as it was named.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The settings were read and refused. All that is wrong is listed, in the order of the file.
    #[error("{}", lines(problems))]
    Refused {
        /// At least one.
        problems: Vec<Problem>,
    },
}

/// One thing to mend. Its text is `place: what is wrong: what would be right`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where to look.
    pub place: Place,
    /// What is wrong there, and what would be right.
    pub what: String,
}

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A configuration file.
    File {
        /// Its name, as it was given.
        file: String,
        /// Counted from 1; none when the fault is that something stands nowhere in the file.
        line: Option<usize>,
    },
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line: Some(line) } => write!(f, "{file}:{line}"),
            Self::File { file, line: None } => f.write_str(file),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
