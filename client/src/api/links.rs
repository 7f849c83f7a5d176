//! The types of `/v1/links`: what a PoP sends to its peers, within which budgets.

use serde::{Deserialize, Serialize};

/// `GET /v1/links`, and the answer to every order about them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinksReport {
    /// The PoP that answers.
    pub pop: String,
    /// The budgets that links share: the node's, and those of each kind of link.
    pub budgets: Vec<Budget>,
    /// What may go at once after a pause, of each budget: what its rate gives in so many milliseconds, and 16 KiB at least.
    pub burst_ms: u64,
    /// Every PoP that it is linked to, or is to be.
    pub links: Vec<Link>,
}

/// What links are of which kind, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Links {
    /// All links of the node.
    Node,
    /// Those inside its region.
    Region,
    /// Those to other regions.
    InterRegion,
    /// Those whose bytes are paid for one by one, as the configuration says.
    Metered,
}

impl Links {
    /// The name that the REST API, the configuration and metrics have for them.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Region => "region",
            Self::InterRegion => "inter_region",
            Self::Metered => "metered",
        }
    }
}

/// A budget that links share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Which links.
    pub of: Links,
    /// Bytes a second on the wire, as configured or set; without it there is no limit.
    pub bytes_per_s: Option<u64>,
    /// Bytes a second that hold now: the least of that, of schedules, and of what a used-up cap leaves.
    pub in_force_bytes_per_s: Option<u64>,
    /// What makes it that.
    pub why: Why,
    /// What was sent this month.
    pub month: Month,
    /// Bytes sent since the node started: on the wire, headers of IP and UDP included.
    pub sent_bytes: u64,
    /// Bytes a second, over the last ten seconds.
    pub sent_bytes_per_s: u64,
}

/// What makes a budget what it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Why {
    /// What is configured or set.
    Base,
    /// A schedule.
    Schedule {
        /// The end of its window, in Unix seconds.
        until_s: u64,
    },
    /// The monthly cap is used up.
    MonthlyCap,
}

/// What was sent in the present calendar month, UTC: on the wire, headers of IP and UDP included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Month {
    /// The month, such as `2026-11`.
    pub name: String,
    /// Bytes sent, restarts of the node included.
    pub sent_bytes: u64,
    /// The monthly cap in bytes; without it there is none.
    pub cap_bytes: Option<u64>,
    /// When the cap will be used up at the pace of the last hour, in Unix seconds; without it not this month, or it is
    /// used up already.
    pub used_up_at_s: Option<u64>,
}

/// The link to one PoP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The PoP at its other end.
    pub pop: String,
    /// Whether it is up.
    pub up: bool,
    /// Which links it shares a budget with; unknown until it has been up.
    pub kind: Option<Links>,
    /// Whether this node's events go to the PoP's region over this link: the PoP is its relay there.
    #[serde(default)]
    pub is_relay: bool,
    /// Whether nothing but heartbeats and acknowledgements is sent.
    pub paused: bool,
    /// Its own budget in bytes a second; without it there is none.
    pub bytes_per_s: Option<u64>,
    /// The least of all budgets that its bytes pass.
    pub tightest_bytes_per_s: Option<u64>,
    /// Bytes sent to the PoP since the node started: on the wire, headers of IP and UDP included.
    pub sent_bytes: u64,
    /// Bytes a second, over the last ten seconds.
    pub sent_bytes_per_s: u64,
    /// The smoothed round trip in microseconds, while it is up.
    pub rtt_us: Option<u64>,
    /// Events of this node that the PoP has not acknowledged as durable.
    pub behind_ops: u64,
    /// Bytes of keys and values in them.
    pub behind_bytes: u64,
    /// Milliseconds since the oldest of them.
    pub behind_ms: u64,
    /// Whether they come faster than they are sent, so that of what is overwritten meanwhile only the last state goes.
    pub coalescing: bool,
    /// In how many milliseconds they will be gone at the present pace (as [`Lag`](super::Lag) tells it); without it
    /// never, or nothing is being sent.
    pub gone_in_ms: Option<u64>,
}

/// The body of `POST /v1/budgets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBudget {
    /// Of which links.
    pub of: Links,
    /// Bytes a second on the wire; null lifts the limit.
    pub bytes_per_s: Option<u64>,
}

/// The body of `POST /v1/budgets/burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBurst {
    /// In milliseconds of each rate, 5 to 1,000.
    pub burst_ms: u64,
}

/// The body of `POST /v1/links/{pop}/budget`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLinkBudget {
    /// Bytes a second on the wire; null lifts the limit.
    pub bytes_per_s: Option<u64>,
}

/// The body of `POST /v1/links/{pop}/pause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Whether to pause, or to go on.
    pub paused: bool,
}
