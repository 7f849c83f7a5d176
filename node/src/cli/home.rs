//! `kv namespace home`: which PoP decides about conditional writes of a namespace.

use littoral::Account;
use littoral::api::homes::HomeReport;

use super::connection::id_of;
use super::failure::Failure;
use super::print;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Its id or its title
    named: String,
    /// Have one PoP of this region decide about every conditional write, wherever it is sent
    #[arg(long)]
    region: Option<String>,
    /// Have each PoP decide for itself
    #[arg(long, conflicts_with = "region")]
    none: bool,
}

/// Sets what was typed, and shows what holds then.
pub(super) async fn run(args: &Args, account: &Account, json: bool) -> Result<(), Failure> {
    let id = id_of(&args.named, account).await?;
    let report = match args.region.is_some() || args.none {
        true => account.set_home(&id, args.region.as_deref()).await,
        false => account.home(&id).await,
    };
    let report = report.map_err(Failure::of_one)?;
    if json { print::json(&report) } else { print::line(told(&report)) }
}

fn told(HomeReport { region, pop, .. }: &HomeReport) -> String {
    match (region, pop) {
        (Some(region), Some(pop)) => {
            format!("{pop}, in the region {region}, decides about conditional writes and batches")
        }
        _ => "no home: each PoP decides about conditional writes by what it has".into(),
    }
}
