//! What operators see of the links and have them do: budgets and pauses, while the node runs.
//!
//! The rule this file upholds: what is set holds for the PoP's present link and those to come, until the node stops; what
//! is to hold longer belongs into the configuration.

use std::collections::BTreeSet;
use std::sync::MutexGuard;

use replication::ReplicaId;
use replication::budget::{LinkClass, Rate, Scope};

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
#[derive(Clone, Copy, Debug)]
pub struct SharedBudget {
    /// Of links of a class; without one, of the node.
    pub class: Option<LinkClass>,
    /// The budget.
    pub budget: Option<Rate>,
    /// What was sent under it.
    pub sent: Sent,
}

/// There is no such PoP among the configured and the linked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node has no link to {pop:?}, nor is it to have one: GET /v1/links lists them")]
pub struct NoSuchLink {
    /// What was named.
    pub pop: String,
}

impl Transport {
    /// Sets or lifts a budget.
    pub fn set_budget(&self, scope: &Scope<String>, rate: Option<Rate>) -> Result<(), NoSuchLink> {
        if let Scope::Link(pop) = scope {
            self.local.check_known(pop)?;
        }
        let Local { pacer, links, .. } = &*self.local;
        pacer.set(scope, rate);
        for (replica, link) in links.all() {
            link::fit(&link.connection, &link.gate, pacer.tightest(replica));
        }
        Ok(())
    }

    /// Has nothing but heartbeats and acknowledgements sent to a PoP, or has all sent again. What was handed to the link
    /// before still goes.
    pub fn pause(&self, pop: &str, paused: bool) -> Result<(), NoSuchLink> {
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
        let (linked, paused, budgets) = (links.all(), self.local.paused().clone(), pacer.budgets());
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
                budget: budgets.pops.get(&pop).copied(),
                sent: pacer.sent_to(&pop),
                pop,
            }
        };
        self.local.known().into_iter().map(view).collect()
    }

    /// The node's budget, and those of the classes.
    pub fn shared_budgets(&self) -> Vec<SharedBudget> {
        let pacer = &self.local.pacer;
        let budgets = pacer.budgets();
        let of = |class: Option<LinkClass>| SharedBudget {
            class,
            budget: class.map_or(budgets.node, |class| budgets.classes[class as usize]),
            sent: pacer.sent_over(class),
        };
        [None].into_iter().chain(LinkClass::ALL.map(Some)).map(of).collect()
    }
}

impl Local {
    /// PoPs whose links are paused.
    pub(super) fn paused(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.paused.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// PoPs that are to be linked, or are.
    fn known(&self) -> BTreeSet<String> {
        let linked = self.links.all().into_iter().map(|(_, link)| link.pop);
        self.peers.iter().cloned().chain(linked).collect()
    }

    fn check_known(&self, pop: &str) -> Result<(), NoSuchLink> {
        if self.known().contains(pop) { Ok(()) } else { Err(NoSuchLink { pop: pop.to_owned() }) }
    }
}
