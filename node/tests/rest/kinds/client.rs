//! Conditional writes to counters, sets, maps and documents by the Rust client and the command line, against a node.

use littoral::{ChangeOptions, Client, Error};

use super::super::values_client::run;
use super::super::{ACCOUNT, TOKEN, test_node};

fn is_refused<T>(answer: Result<T, Error>) -> bool {
    answer.is_err_and(|error| error.is_precondition_failed())
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_members_and_fields_are_written_in_the_state_that_was_read() {
    let node = test_node().await;
    let client = Client::new(&format!("http://{}", node.running.address), TOKEN).unwrap();
    let kv = client.account(ACCOUNT).namespace(node.id());
    let absent = || ChangeOptions::default().if_absent();
    let only_in = |etag: &str| ChangeOptions::default().if_match(etag);

    let seats = kv.counter("seats");
    assert!(seats.info_versioned().await.unwrap().is_none());
    assert_eq!(seats.add_with(1, absent()).await.unwrap(), 1);
    assert!(is_refused(seats.add_with(1, absent()).await));
    let (info, first) = seats.info_versioned().await.unwrap().unwrap();
    assert_eq!((info.count, seats.add_with(1, only_in(&first)).await.unwrap()), (1, 2));
    assert!(is_refused(seats.add_with(1, only_in(&first)).await));
    assert!(is_refused(seats.reset_if_match(&first).await));
    let (_, second) = seats.info_versioned().await.unwrap().unwrap();
    seats.reset_if_match(&second).await.unwrap();
    assert_eq!(seats.count().await.unwrap(), None);

    let names = kv.set("names");
    assert_eq!(names.etag("ada").await.unwrap(), None);
    names.insert_with("ada", absent()).await.unwrap();
    assert!(is_refused(names.insert_with("ada", absent()).await), "the name is taken");
    let first = names.etag("ada").await.unwrap().unwrap();
    names.insert_with("ada", only_in(&first).expiration_ttl_s(1_000)).await.unwrap();
    assert!(is_refused(names.remove_if_match("ada", &first).await));
    let second = names.etag("ada").await.unwrap().unwrap();
    names.remove_if_match("ada", &second).await.unwrap();
    assert!(!names.contains("ada").await.unwrap());

    let user = kv.map("user");
    assert!(user.get_versioned("name").await.unwrap().is_none());
    user.put_with("name", "Ada", absent()).await.unwrap();
    assert!(is_refused(user.put_with("name", "Bob", absent()).await));
    let read = user.get_versioned("name").await.unwrap().unwrap();
    assert_eq!(&read.bytes[..], b"Ada");
    user.put_with("name", "Eve", only_in(&read.etag)).await.unwrap();
    assert!(is_refused(user.put_with("name", "Bob", only_in(&read.etag)).await));
    assert!(is_refused(user.remove_if_match("name", &read.etag).await));
    let read = user.get_versioned("name").await.unwrap().unwrap();
    user.remove_if_match("name", &read.etag).await.unwrap();
    assert!(user.get("name").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_writes_all_kinds_upon_a_state() {
    let node = test_node().await;
    let cases: [(&[&str], &[&str]); 4] = [
        (&["counter", "add", "c", "1"], &["counter", "get", "c"]),
        (&["set", "add", "s", "member"], &["set", "contains", "s", "member"]),
        (&["map", "put", "m", "field", "value"], &["map", "get", "m", "field"]),
        (&["doc", "put", "d", r#"{"a":1}"#], &["doc", "get", "d"]),
    ];
    for (write, read) in cases {
        let exit = async |args: &[&str]| run(&node, args).await.0;
        assert_eq!(exit(&[read, &["--etag"]].concat()).await, Some(4), "{read:?}");
        assert_eq!(exit(&[write, &["--if-absent"]].concat()).await, Some(0), "{write:?}");
        let (refused, _, told) = run(&node, &[write, &["--if-absent"]].concat()).await;
        assert!(refused == Some(1) && told.contains("--etag"), "{write:?}: {told}");
        let (_, etag, _) = run(&node, &[read, &["--etag"]].concat()).await;
        assert_eq!(exit(&[write, &["--if-match", &etag]].concat()).await, Some(0), "{write:?} {etag}");
        assert_eq!(exit(&[write, &["--if-match", "0123-4567"]].concat()).await, Some(1), "{write:?}");
        assert_eq!(exit(&[write, &["--if-match", "x", "--if-absent"]].concat()).await, Some(2), "{write:?}");
    }
}
