//! Identities as an operator makes them: a cluster's authority, and a node's folder by its join token.

use std::time::Duration;

use anyhow::Context;
use littoral_node::identity::{Identity, init_cluster, init_node, join_token};

/// How long a token is good for; the tests use it at once.
const TOKEN_LIFE: Duration = Duration::from_secs(600);

/// The identities of these PoPs, all of one new cluster. Their keys are random, and all else that could be seen
/// on the wire is as long in one cluster as in another.
pub(super) fn make(pops: &[&str]) -> anyhow::Result<Vec<Identity>> {
    let folder = tempfile::tempdir()?;
    let cluster = folder.path().join("cluster");
    init_cluster(&cluster)?;
    let identity = |pop: &&str| {
        let place = folder.path().join(pop);
        init_node(&place, &join_token(&cluster, pop, TOKEN_LIFE)?)?;
        Identity::load(&place).with_context(|| format!("the identity of {pop}"))
    };
    pops.iter().map(identity).collect()
}
