//! What the HTTP surface counts. Handles are made once: a request only touches atomics.

use std::time::Duration;

use hyper::StatusCode;
use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, histogram};

use super::route::Operation;

const REQUESTS: &str = "littoral_http_requests_total";
const SECONDS: &str = "littoral_http_request_seconds";

const OVER_QUOTA: &str = "littoral_over_quota_total";

/// The classes of status, as labels: the first digit of the status is their place here, less one.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// A counter per operation and class of status, and a histogram per operation.
pub(crate) struct Measures(Vec<(Histogram, [Counter; CLASSES.len()])>);

impl Measures {
    /// Registers with the recorder of the process, which must be in place by now.
    pub(crate) fn new() -> Self {
        describe_counter!(REQUESTS, "Requests answered, by what they asked for and class of status");
        describe_gauge!("littoral_watchers", "Watches under way");
        describe_counter!("littoral_watch_behind_total", "Times that a watch had to go on by the log");
        describe_gauge!("littoral_waiters", "Requests that wait for replication");
        describe_counter!(
            "littoral_session_waits_total",
            "Requests that waited for what they were to see, by result"
        );
        describe_counter!(
            "littoral_write_waits_total",
            "Writes that waited for other PoPs to hold them, by result"
        );
        describe_counter!(
            "littoral_rights_waits_total",
            "Takings from bounded counters that waited for rights of other PoPs, by result"
        );
        describe_counter!(
            "littoral_home_calls_total",
            "Requests passed on to the home of their namespace, by how that ended"
        );
        describe_counter!(OVER_QUOTA, "Requests refused because they exceed a quota, by which");
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

/// Counts a request that was refused by a quota: `token_requests`, `namespace_requests`, `max_keys` or `max_bytes`.
pub(crate) fn count_over_quota(quota: &'static str) {
    counter!(OVER_QUOTA, "quota" => quota).increment(1);
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_class_of_status() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let measures = metrics::with_local_recorder(&recorder, Measures::new);
        for status in [200, 204, 404, 507] {
            let status = StatusCode::from_u16(status).unwrap();
            measures.record(Operation::ReadValue, status, Duration::from_millis(1));
        }
        measures.record(Operation::Native, StatusCode::from_u16(999).unwrap(), Duration::ZERO);
        let page = recorder.handle().render();
        for line in [
            r#"littoral_http_requests_total{route="get",status="2xx"} 2"#,
            r#"littoral_http_requests_total{route="get",status="4xx"} 1"#,
            r#"littoral_http_requests_total{route="get",status="5xx"} 1"#,
            r#"littoral_http_requests_total{route="put",status="2xx"} 0"#,
            r#"littoral_http_request_seconds_count{route="get"} 4"#,
        ] {
            assert!(page.lines().any(|given| given == line), "{line}\n{page}");
        }
    }
}
