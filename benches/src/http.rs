//! One node under load over HTTP, in turn with an axum "hello" and with redis, under the same generator.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;

use crate::cluster::{self, Cluster};
use crate::load::{self, Connection, Outcome, Protocol};
use crate::process::{self, Server};
use crate::report::{Tables, median, spread, whole};

/// How long a server may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Load before each measurement that does not count.
const WARM_UP: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often the contenders take turns
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each measurement takes, in milliseconds
    #[arg(long, default_value_t = 1_000)]
    lasting_ms: u64,
    /// How many keys there are
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Connections at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    connections: Vec<usize>,
    /// What to ask for
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Operation::Get, Operation::Put])]
    operations: Vec<Operation>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Operation {
    Get,
    Put,
}

/// Who takes turns, in the order they do.
const NAMES: [&str; 3] = ["Littoral", "hello", "redis"];

/// A server, and what it is asked.
struct Contender {
    address: SocketAddr,
    protocol: Protocol,
    /// By [`Operation`].
    requests: [Rc<[Bytes]>; 2],
}

/// One measurement.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
}

/// One line of the tables: the same asked of every contender, once a round.
struct Cell {
    operation: Operation,
    connections: usize,
    /// By [`NAMES`], then by round.
    figures: [Vec<Figures>; NAMES.len()],
}

impl From<(Operation, usize)> for Cell {
    fn from((operation, connections): (Operation, usize)) -> Self {
        Self { operation, connections, figures: [const { Vec::new() }; NAMES.len()] }
    }
}

pub(crate) async fn run(options: &Options, folder: &Path, tables: &mut Tables) -> anyhow::Result<()> {
    let littoral = Cluster::start(folder, 1).await?;
    let id = littoral.namespace(0, "bench").await?.id().to_owned();
    let gets = cluster::requests(options.keys, |key, _| cluster::get(&id, key));
    let puts = cluster::requests(options.keys, |key, value| cluster::put(&id, key, value));
    let requests = [gets, puts];
    let (hello, hello_address) = start_hello()?;
    let (redis, redis_address) = start_redis(folder).await?;
    let contenders = [
        Contender { address: littoral.address(0), protocol: Protocol::Http, requests: requests.clone() },
        Contender { address: hello_address, protocol: Protocol::Http, requests },
        Contender {
            address: redis_address,
            protocol: Protocol::Resp,
            requests: [
                cluster::requests(options.keys, |key, _| resp(&["GET", key])),
                cluster::requests(options.keys, |key, value| resp(&["SET", key, value])),
            ],
        },
    ];
    let servers = [littoral.server(0)?, &hello, &redis];
    for contender in &contenders {
        fill(contender).await?;
    }
    let by_connections =
        |operation: &Operation| options.connections.iter().map(|n| (*operation, *n)).collect::<Vec<_>>();
    let mut cells: Vec<Cell> = options.operations.iter().flat_map(by_connections).map(Cell::from).collect();
    for _ in 0..options.rounds {
        for cell in &mut cells {
            for (who, (contender, server)) in contenders.iter().zip(servers).enumerate() {
                let lasting = Duration::from_millis(options.lasting_ms);
                let requests = &contender.requests[cell.operation as usize];
                let figures = measure(contender, server, requests, cell.connections, lasting).await?;
                cell.figures[who].push(figures);
            }
        }
    }
    print(options, &cells, tables);
    Ok(())
}

/// Writes every key once.
async fn fill(contender: &Contender) -> anyhow::Result<()> {
    let mut connection = Connection::open(contender.address, contender.protocol).await?;
    for request in contender.requests[1].iter() {
        connection.exchange(request).await?;
    }
    connection.exchange(&contender.requests[0][0]).await?;
    Ok(())
}

async fn measure(
    contender: &Contender,
    server: &Server,
    requests: &Rc<[Bytes]>,
    connections: usize,
    lasting: Duration,
) -> anyhow::Result<Figures> {
    let connections = load::connect(contender.address, contender.protocol, connections).await?;
    let (connections, _) = load::drive(connections, requests, WARM_UP).await?;
    let cpu_before_us = server.cpu_us()?;
    let (_, outcome): (_, Outcome) = load::drive(connections, requests, lasting).await?;
    let cpu_us = server.cpu_us()? - cpu_before_us;
    Ok(Figures {
        per_second: outcome.per_second(),
        p50_us: outcome.latency_us(0.5),
        p99_us: outcome.latency_us(0.99),
        cpu_us: cpu_us / outcome.requests.max(1) as f64,
    })
}

fn print(options: &Options, cells: &[Cell], tables: &mut Tables) {
    let mut rows = Vec::new();
    let mut ratios = Vec::new();
    for Cell { operation, connections, figures } in cells {
        let what = format!("{} x {connections}", format!("{operation:?}").to_uppercase());
        for (name, figures) in NAMES.iter().zip(figures) {
            let of = |field: fn(&Figures) -> f64| median(figures.iter().map(field));
            rows.push([
                format!("{what} {name}"),
                whole(of(|f| f.per_second)),
                whole(of(|f| f.p50_us)),
                whole(of(|f| f.p99_us)),
                format!("{:.1}", of(|f| f.cpu_us)),
            ]);
        }
        let ratio = |to: usize, field: fn(&Figures) -> f64| {
            let pairs = figures[0].iter().zip(&figures[to]);
            spread(&pairs.map(|(ours, theirs)| field(ours) / field(theirs)).collect::<Vec<_>>())
        };
        ratios.push([
            what,
            ratio(1, |f| f.per_second),
            ratio(2, |f| f.per_second),
            ratio(1, |f| f.cpu_us),
            ratio(2, |f| f.cpu_us),
        ]);
    }
    let title = format!(
        "100-byte values, {} keys, medians of {} rounds of {} ms",
        options.keys, options.rounds, options.lasting_ms
    );
    tables.print(
        &title,
        ["operation x connections", "requests/s", "p50 us", "p99 us", "server CPU us"],
        &rows,
    );
    tables.print(
        "Littoral's figure over the other's, by round: median (least to greatest)",
        ["operation x connections", "rate / hello", "rate / redis", "CPU / hello", "CPU / redis"],
        &ratios,
    );
}

fn start_hello() -> anyhow::Result<(Server, SocketAddr)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["hello", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut server = Server::start(&mut command)?;
    let mut address = String::new();
    BufReader::new(server.output().context("no pipe from hello")?).read_line(&mut address)?;
    Ok((server, address.trim().parse().with_context(|| format!("hello said {address:?}"))?))
}

/// redis with every write synced before it is acknowledged, and nothing else on its disk's mind.
async fn start_redis(folder: &Path) -> anyhow::Result<(Server, SocketAddr)> {
    let program = process::on_path("redis-server")
        .context("redis-server is not installed; on Debian: apt-get install redis-server")?;
    let folder = folder.join("redis");
    std::fs::create_dir(&folder)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster::unused_port()?));
    let mut command = Command::new(program);
    command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--dir"]).arg(&folder);
    command.args(["--appendonly", "yes", "--appendfsync", "always"]);
    // No snapshots and no rewriting of the log beside what is measured.
    command.args(["--save", "", "--auto-aof-rewrite-percentage", "0"]);
    let server = Server::start(command.stdout(Stdio::null()))?;
    let started = Instant::now();
    while let Err(error) = Connection::open(address, Protocol::Resp).await {
        anyhow::ensure!(started.elapsed() < READY_WITHIN, "redis-server does not answer: {error:#}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok((server, address))
}

/// A command of redis.
fn resp(words: &[&str]) -> Bytes {
    let word = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
    format!("*{}\r\n{}", words.len(), words.iter().map(word).collect::<String>()).into()
}
