//! Stub: one node, from its settings to its clean stop.

/// Runs a node until SIGTERM or SIGINT.
pub fn run(config: config::Config) -> anyhow::Result<()> {
    anyhow::bail!("the node {} is not built yet", config.node.pop)
}
