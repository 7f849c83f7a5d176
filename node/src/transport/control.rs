//! What operators see of the links and have them do: budgets and pauses, while the node runs.
//!
//! The rule this file upholds: what is set holds for the PoP's present link and those to come, until the node stops; what
//! is to hold longer belongs into the configuration.

use std::collections::BTreeSet;
use std::sync::MutexGuard;

use replication::ReplicaId;
use replication::budget::{Burst, LinkClass, Rate, Scope};

use super::in_force::{InForce, MonthView, Passed};
use super::month::{Months, PerLinks};
use super::pacer::Sent;
use super::{Local, Transport, link};

/// A PoP that this node is linked to, or is to be.
#[derive(Clone, Debug)]
pub struct LinkView {
    /// Its name.
    pub pop: String,
    /// Nothing where no link is up.
    pub up: Option<Up>,
    /// Whether nothing but heartbeats and acknowledgements is sent.
    pub is_paused: bool,
    /// Its own budget.
    pub budget: Option<Rate>,
    /// What was sent there.
    pub sent: Sent,
}

/// What is known of a link that is up.
#[derive(Clone, Copy, Debug)]
pub struct Up {
    /// The replica at the other end.
    pub replica: ReplicaId,
    /// What kind of path it takes.
    pub class: LinkClass,
    /// Smoothed round trip, in microseconds.
    pub rtt_us: u64,
    /// The least of all rates its bytes pass.
    pub tightest: Option<Rate>,
}

/// A budget that links share, and what was sent under it.
#[derive(Clone, Debug)]
pub struct SharedBudget {
    /// Of links of a class; without one, of the node.
    pub class: Option<LinkClass>,
    /// The budget as it is set.
    pub base: Option<Rate>,
    /// The rate that holds now.
    pub in_force: InForce,
    /// What was sent under it.
    pub sent: Sent,
    /// What of that was sent this month, as of the last review.
    pub month: MonthView,
}

/// Why an order about links was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// There is no such PoP among the configured and the linked.
    #[error("this node has no link to {pop:?}, nor is it to have one: GET /v1/links lists them")]
    NoSuchLink {
        /// What was named.
        pop: String,
    },
    /// There are no links that it could hold for.
    #[error(
        "this node started with its store in quarantine, so it has no links, and forgets orders about them: repeat this once \
         it serves (GET /readyz says why it does not), or write it into the configuration"
    )]
    Quarantined,
}

impl Transport {
    /// Sets or lifts a budget.
    pub fn set_budget(&self, scope: &Scope<String>, rate: Option<Rate>) -> Result<(), LinkError> {
        if let Scope::Link(pop) = scope {
            self.local.check_known(pop)?;
        }
        self.local.pacer.set(scope, rate);
        self.local.fit_links();
        Ok(())
    }

    /// Sets what may go at once after a pause, of every budget.
    pub fn set_burst(&self, burst: Burst) {
        self.local.pacer.set_burst(burst);
    }

    /// What may go at once after a pause, of every budget.
    pub fn burst(&self) -> Burst {
        self.local.pacer.burst()
    }

    /// Puts the rates in force that hold at this time, by schedules and monthly caps. To be called about once a second.
    /// Gives the parts of caps that were passed since the last call, each once a month.
    pub fn review_budgets(&self, unix_s: u64) -> Vec<Passed> {
        let passed = self.local.pacer.review(unix_s);
        self.local.fit_links();
        passed
    }

    /// What was sent in each month, as of the last review.
    pub fn months(&self) -> Months {
        self.local.pacer.months()
    }

    /// Has nothing but heartbeats and acknowledgements sent to a PoP, or has all sent again. What was handed to the link
    /// before still goes.
    pub fn pause(&self, pop: &str, paused: bool) -> Result<(), LinkError> {
        self.local.check_known(pop)?;
        let mut all = self.local.paused();
        if paused {
            all.insert(pop.to_owned());
        } else {
            all.remove(pop);
        }
        drop(all);
        for (_, link) in self.local.links.all().into_iter().filter(|(_, link)| link.pop == pop) {
            link.gate.pause(paused);
        }
        Ok(())
    }

    /// Every PoP that is linked, or to be, by name.
    pub fn links(&self) -> Vec<LinkView> {
        let Local { pacer, links, .. } = &*self.local;
        let (linked, paused, budgets) = (links.all(), self.local.paused().clone(), pacer.pops());
        let view = |pop: String| {
            let up = linked.iter().find(|(_, link)| link.pop == pop).map(|(replica, link)| Up {
                replica: *replica,
                class: link.class,
                rtt_us: link.connection.rtt().as_micros().try_into().unwrap_or(u64::MAX),
                tightest: pacer.tightest(*replica),
            });
            LinkView {
                up,
                is_paused: paused.contains(&pop),
                budget: budgets.get(&pop).copied(),
                sent: pacer.sent_to(&pop),
                pop,
            }
        };
        self.local.known().into_iter().map(view).collect()
    }

    /// The node's budget, and those of the classes.
    pub fn shared_budgets(&self) -> Vec<SharedBudget> {
        let pacer = &self.local.pacer;
        let of = |class: Option<LinkClass>| {
            let (base, in_force, month) = pacer.shared(class);
            SharedBudget { class, base, in_force, sent: pacer.sent_over(class), month }
        };
        PerLinks::<Rate>::ALL.map(of).to_vec()
    }
}

impl Local {
    /// PoPs whose links are paused.
    pub(super) fn paused(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.paused.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Fits what QUIC is given to budgets that may have changed.
    fn fit_links(&self) {
        for (replica, link) in self.links.all() {
            link::fit(&link.connection, &link.gate, self.pacer.tightest(replica));
        }
    }

    /// PoPs that are to be linked, or are.
    fn known(&self) -> BTreeSet<String> {
        let linked = self.links.all().into_iter().map(|(_, link)| link.pop);
        self.peers.iter().cloned().chain(linked).collect()
    }

    fn check_known(&self, pop: &str) -> Result<(), LinkError> {
        if self.known().contains(pop) { Ok(()) } else { Err(LinkError::NoSuchLink { pop: pop.to_owned() }) }
    }
}
