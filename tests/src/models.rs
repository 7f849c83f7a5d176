//! Models of the rules by which something is forgotten, for a checker that walks every order of their steps.
//!
//! The simulator runs the shipping core on some seeds; a model is a page of the rule itself, small enough that
//! *all* interleavings within its bounds are tried. A rule is changed here first. Each model comes with variants
//! that leave a part of the rule out, and each of those must be found unsafe: a model that cannot fail shows
//! nothing.

pub mod eviction;
pub mod tombstones;

use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

/// What a walk through all states of a model has shown.
pub struct Walk {
    /// Different states seen.
    pub states: usize,
    /// Steps of the longest shortest way to one of them.
    pub depth: usize,
    /// Whether all states that can be reached were seen.
    pub exhaustive: bool,
    /// The properties that did not hold, each with the steps of the shortest way to where it does not.
    pub broken: Vec<(&'static str, Vec<String>)>,
    /// What was to be seen at least once, and was not.
    pub unseen: Vec<&'static str>,
    /// How long the walk took.
    pub took: Duration,
}

impl Display for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = if self.exhaustive { "all" } else { "first" };
        write!(
            f,
            "{all} {} states, {} steps deep, {:.1} s",
            self.states,
            self.depth,
            self.took.as_secs_f32()
        )?;
        for (property, path) in &self.broken {
            write!(f, "; broken in {} steps: {property}", path.len())?;
        }
        Ok(())
    }
}

/// Walks all states of a model, nearest first, until `sought` is broken (or, without it, any property), or
/// `max_states` were seen.
pub fn walk<M>(model: M, sought: Option<&'static str>, max_states: usize) -> Walk
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let began = Instant::now();
    let end = match sought {
        Some(property) => HasDiscoveries::AnyOf(BTreeSet::from([property])),
        None => HasDiscoveries::AnyFailures,
    };
    // One thread: only then is the first counterexample the shortest, and the figures are the same each time.
    let checker = model.checker().finish_when(end).target_state_count(max_states).spawn_bfs().join();
    let properties = checker.model().properties();
    let mut discoveries = checker.discoveries();
    let mut walk = Walk {
        states: checker.unique_state_count(),
        depth: checker.max_depth().saturating_sub(1),
        exhaustive: checker.state_count() < max_states,
        broken: Vec::new(),
        unseen: Vec::new(),
        took: began.elapsed(),
    };
    for property in &properties {
        let found = discoveries.remove(property.name);
        match (property.expectation.discovery_is_failure(), found) {
            (true, Some(path)) => {
                let steps = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
                walk.broken.push((property.name, steps));
            }
            (false, None) => walk.unseen.push(property.name),
            _ => {}
        }
    }
    walk.exhaustive &= walk.broken.is_empty();
    walk
}
