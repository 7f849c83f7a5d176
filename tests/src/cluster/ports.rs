//! Ports for nodes that are killed and started again: below those the kernel gives to outgoing
//! connections, so that no client holds, or connects to itself at, the port of a node that is away.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::random::Random;

/// Linux gives outgoing connections ports from 32768 on.
const FIRST: u64 = 12_000;
const END: u64 = 32_000;

/// Those given out by this process: a node that is about to start, or to start again, does not hold its own yet.
static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A port that nothing listens on, neither TCP nor UDP, and that no other node of this process was given.
pub(super) fn unused() -> u16 {
    let mut random = Random::new(Random::fresh_seed());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = (FIRST + random.below(END - FIRST)) as u16;
        let address = (Ipv4Addr::LOCALHOST, port);
        let is_free = TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok();
        if is_free && given.insert(port) {
            return port;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clusters that started at the same moment were given the same port, and one of them did not start.
    #[test]
    fn none_is_given_twice_before_anything_listens_on_it() {
        let ports: Vec<u16> = (0..1_000).map(|_| unused()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
    }
}
