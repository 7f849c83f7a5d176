//! What the HTTP surface counts. Handles are made once: a request only touches atomics.

use std::time::Duration;

use hyper::StatusCode;
use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};

use super::route::Operation;

const REQUESTS: &str = "littoral_http_requests_total";
const SECONDS: &str = "littoral_http_request_seconds";

/// The classes of status, as labels: the first digit of the status is their place here, less one.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// A counter per operation and class of status, and a histogram per operation.
pub(crate) struct Measures(Vec<(Histogram, [Counter; CLASSES.len()])>);

impl Measures {
    /// Registers with the recorder of the process, which must be in place by now.
    pub(crate) fn new() -> Self {
        describe_counter!(REQUESTS, "Requests answered, by what they asked for and class of status");
        describe_histogram!(
            SECONDS,
            metrics::Unit::Seconds,
            "From the head of a request to the head of its answer"
        );
        let of = |operation: Operation| {
            let route = operation.name();
            let counters = CLASSES.map(|status| counter!(REQUESTS, "route" => route, "status" => status));
            (histogram!(SECONDS, "route" => route), counters)
        };
        Self(Operation::ALL.map(of).into())
    }

    pub(crate) fn record(&self, operation: Operation, status: StatusCode, elapsed: Duration) {
        let (seconds, answered) = &self.0[operation as usize];
        seconds.record(elapsed.as_secs_f64());
        if let Some(counter) = answered.get(usize::from(status.as_u16() / 100).wrapping_sub(1)) {
            counter.increment(1);
        }
    }
}
