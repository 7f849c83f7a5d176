//! The adapter of the crate `cloudflare`: answers the calls of `tests/clients/suite.py`, which has the protocol.
//!
//! Calls are made with its asynchronous client. What was read is read again with the blocking one, which
//! insists on the content type, and panics on any error for that reason.

mod calls;

use std::io::{self, BufRead, Write};

use serde_json::{Value as Json, json};

use calls::{Calls, Refusal};

/// The crate reads the count of keys in an answer as an `i8`.
const BULK_AT_MOST: u8 = 100;

fn main() -> io::Result<()> {
    let traits = json!({
        "client": "cloudflare 0.14.0 (crate)",
        "bulk_at_most": BULK_AT_MOST,
        "namespaces_a_page": 20,
    });
    say(&traits)?;
    let calls = Calls::from_environment();
    for line in io::stdin().lock().lines() {
        let call: Json = serde_json::from_str(&line?)?;
        say(&match calls.answer(&call) {
            Ok(result) => json!({ "result": result }),
            Err(Refusal::Lacks(why)) => json!({ "lacks": why }),
            Err(Refusal::Told { status, code, message }) => {
                json!({ "error": { "status": status, "code": code, "message": message } })
            }
        })?;
    }
    Ok(())
}

fn say(line: &Json) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
