//! Which ports a local cluster listens on: those asked for, if they are free, or free ones.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use super::{Args, Failure};

/// Where HTTP begins if nothing else is said, as the configuration has it.
const HTTP_PORT: u16 = 8787;
/// From an HTTP port to the QUIC port beside it.
const QUIC_OFFSET: u16 = 1_000;
/// Where free ports are looked for: below those that systems give to outgoing connections, so that a PoP
/// that was killed finds its port free again.
const FREE_PORTS: std::ops::Range<u16> = 12_000..30_000;
/// How often free ports are looked for.
const MAX_TRIES: usize = 200;

/// The ports of the first PoP; those of the others follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) quic: u16,
}

impl Ports {
    /// The ports that were asked for, all of them free now.
    pub(super) fn choose(args: &Args) -> Result<Self, Failure> {
        if args.check && args.http_port.is_none() && args.quic_port.is_none() {
            return Self::find_free(args.pops);
        }
        let http = args.http_port.unwrap_or(HTTP_PORT);
        let fits = |first: &u16| first.checked_add(args.pops - 1).is_some();
        let quic = args.quic_port.or(http.checked_add(QUIC_OFFSET)).filter(fits);
        let Some(quic) = quic.filter(|_| fits(&http)) else {
            return Err(Failure::usage(format!("ports end at 65535; {} PoPs do not fit there", args.pops))
                .hint("choose lower ones with --http-port and --quic-port"));
        };
        let ports = Self { http, quic };
        match ports.first_in_use(args.pops) {
            None => Ok(ports),
            Some((port, protocol, flag)) => Err(Failure::new(format!("port {port} ({protocol}) is in use"))
                .hint(format!("choose another with {flag}, or end the program that has it"))),
        }
    }

    fn find_free(pops: u16) -> Result<Self, Failure> {
        for _ in 0..MAX_TRIES {
            let span = u32::from(FREE_PORTS.end - FREE_PORTS.start);
            let random = getrandom::u32().map_err(Failure::new)? % span;
            let http = FREE_PORTS.start + u16::try_from(random).unwrap_or_default();
            let ports = Self { http, quic: http + QUIC_OFFSET };
            if ports.first_in_use(pops).is_none() {
                return Ok(ports);
            }
        }
        Err(Failure::new("no free ports were found").hint("name some with --http-port and --quic-port"))
    }

    /// The port, its protocol and the flag that moves it.
    fn first_in_use(&self, pops: u16) -> Option<(u16, &'static str, &'static str)> {
        let all = |first: u16| first..=first + (pops - 1);
        let localhost = Ipv4Addr::LOCALHOST;
        let http = all(self.http).find(|port| TcpListener::bind((localhost, *port)).is_err());
        let quic = || all(self.quic).find(|port| UdpSocket::bind((localhost, *port)).is_err());
        http.map(|port| (port, "TCP", "--http-port"))
            .or_else(|| quic().map(|port| (port, "UDP", "--quic-port")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(http_port: u16, quic_port: Option<u16>) -> Args {
        Args {
            pops: 2,
            dir: None,
            http_port: Some(http_port),
            quic_port,
            token: "t".parse().expect("a token"),
            account: "0".repeat(32).parse().expect("an account"),
            check: true,
        }
    }

    fn told(outcome: Result<Ports, Failure>) -> String {
        match outcome {
            Err(Failure::Told { what, hint, .. }) => format!("{what}; {}", hint.unwrap_or_default()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_port_in_use_is_named_with_its_flag() {
        let free = Ports::find_free(2).expect("free ports");
        assert_eq!(Ports::choose(&args(free.http, Some(free.quic))).expect("free"), free);

        let _second = UdpSocket::bind((Ipv4Addr::LOCALHOST, free.quic + 1)).expect("bound");
        let text = told(Ports::choose(&args(free.http, Some(free.quic))));
        assert!(text.contains(&format!("port {} (UDP) is in use", free.quic + 1)), "{text}");
        assert!(text.contains("--quic-port"), "{text}");

        let _first = TcpListener::bind((Ipv4Addr::LOCALHOST, free.http)).expect("bound");
        let text = told(Ports::choose(&args(free.http, Some(free.quic))));
        assert!(
            text.contains(&format!("port {} (TCP)", free.http)) && text.contains("--http-port"),
            "{text}"
        );
    }

    #[test]
    fn ports_beyond_the_last_are_refused() {
        for (http, quic) in [(65_535, Some(20_000)), (64_600, None), (20_000, Some(65_535))] {
            assert!(told(Ports::choose(&args(http, quic))).contains("65535"), "{http} {quic:?}");
        }
    }
}
