//! Ports for nodes that are killed and started again: below those the kernel gives to outgoing
//! connections, so that no client holds, or connects to itself at, the port of a node that is away.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use crate::random::Random;

/// Linux gives outgoing connections ports from 32768 on.
const FIRST: u64 = 12_000;
const END: u64 = 32_000;

/// A port that nothing listens on, neither TCP nor UDP.
pub(super) fn unused() -> u16 {
    let mut random = Random::new(Random::fresh_seed());
    loop {
        let port = (FIRST + random.below(END - FIRST)) as u16;
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
}
