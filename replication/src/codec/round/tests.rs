//! Every message of a round survives its encoding, keeps its form, and no forged one is taken or panics.

use bytes::Bytes;

use super::*;
use crate::NamespaceId;
use crate::clock::{Hlc, ReplicaId};
use crate::codec::message::Message;
use crate::entry::{Body, Payload, Value};

fn frame(step: Step) -> Bytes {
    Message::Round(Round { number: 3, step }).to_frame()
}

/// Checks that the step survives, and the bytes behind the head of its frame.
#[track_caller]
fn check(step: Step, expected: &str) {
    let frame = frame(step.clone());
    assert_eq!(Message::from_frame(&frame), Ok(Message::Round(Round { number: 3, step })));
    for len in 0..frame.len() {
        assert!(Message::from_frame(&frame[..len]).is_err(), "cut at {len}");
    }
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let shown = hex.strip_prefix("060403").expect("version, message, number");
    assert_eq!(shown, expected);
    // Every byte changed to anything: an error or another message, never a panic.
    for at in 0..frame.len() {
        for byte in 0..=u8::MAX {
            let mut frame = frame.to_vec();
            frame[at] = byte;
            let _ = Message::from_frame(&frame);
        }
    }
}

fn counts(first: u32) -> Counts {
    Counts(std::iter::once(first).chain([100; COUNTS - 1]).collect())
}

/// What is on the wire is a promise to every node of the last version: a change here needs a new one.
#[test]
fn the_encoding_of_each_step_stays_what_it_is() {
    let cells = CellList(vec![Cell { word: 0x0102, count: 70 }, Cell { word: u64::MAX, count: 73 }]);
    let cells_hex = format!("0290010201000000000000{}{}02", "03", "ff".repeat(8));
    let counts_hex = format!("c801{}{}", "27", "00".repeat(COUNTS - 1));
    check(
        Step::Probe(Probe { plain: true, nodes: counts(80), size: 20, cells: cells.clone() }),
        &format!("0001{counts_hex}14{cells_hex}"),
    );
    check(Step::Cells(Cells { size: 20, beyond: 0, from: 7, cells }), &format!("01140007{cells_hex}"));
    check(Step::More, "02");
    check(
        Step::Outline(Outline { nodes: vec![(9, 4)], edges: vec![(10, counts(80))] }),
        &format!("03010904010a{counts_hex}"),
    );
    check(Step::Fetch(Ranges(vec![(0, 4), (6, u16::MAX)])), "0402000400f9ff03");
    check(Step::List, "05");
    let ids = || Ids(vec![0, 1, 300]);
    check(
        Step::Listing(Listing { first: 1, last: 2, ids: ids(), more: true }),
        "06010203000 0aa0201".replace(' ', "").as_str(),
    );
    check(Step::Wanted(Wanted { ids: ids(), more: false }), "07030000aa0200");
    let value = Value { payload: Payload::Inline(Bytes::from("v")), metadata: None, expires_at_s: None };
    let entry = Entry::first(Dot { hlc: Hlc::new(9, 1), replica: ReplicaId([7; 16]) }, Body::Value(value));
    let row = RepairRow { id: EntryId::value(NamespaceId([1; 16]), "k"), entry };
    check(
        Step::Rows(Rows { rows: vec![row], more: false }),
        &format!("0801{}01016b{}09000000000001000176 00", "01".repeat(16), "07".repeat(16)).replace(' ', ""),
    );
}

#[test]
fn what_a_round_says_costs_what_is_promised() {
    // A million entries over 256 nodes and 40,000 cells: means of 3,906 and 25, with their scatter.
    let nodes = Counts((0..COUNTS as u32).map(|n| 3906 + n / 2 - 64).collect());
    let probe = |nodes| Probe { plain: false, nodes, size: 16, cells: CellList(Vec::new()) };
    let bytes = frame(Step::Probe(probe(nodes))).len();
    assert!(bytes <= COUNTS + 140, "{bytes} bytes for the counts");
    let cells = (0..4000).map(|n| Cell { word: n, count: 20 + n as i64 % 10 }).collect();
    let bytes = frame(Step::Cells(Cells { size: 1024, beyond: 0, from: 0, cells: CellList(cells) })).len();
    assert!(bytes <= 4000 * 9 + 16, "{bytes} bytes for 4,000 cells");
    let ids = (0..10_000u64).map(|n| n * ((1 << 40) / 10_000)).collect();
    let bytes = frame(Step::Wanted(Wanted { ids: Ids(ids), more: false })).len();
    assert!(bytes <= 10_000 * 4 + 16, "{bytes} bytes for 10,000 ids");
}

#[test]
fn numbers_of_any_size_survive() {
    for count in [i64::MIN, -1, 0, 1, i64::MAX] {
        let cells = CellList(vec![Cell { word: 0, count }, Cell { word: 1, count: count.wrapping_add(5) }]);
        let step = Step::Cells(Cells { size: 16, beyond: 0, from: 0, cells });
        let round = Message::Round(Round { number: u32::MAX, step });
        assert_eq!(Message::from_frame(&round.to_frame()), Ok(round));
    }
}

#[test]
fn lists_longer_than_a_message_may_have_are_refused_one_above_the_limit() {
    let cells = |len| {
        let cells = CellList(vec![Cell::default(); len]);
        Message::from_frame(&frame(Step::Cells(Cells { size: 16, beyond: 0, from: 0, cells }))).is_ok()
    };
    let ids = |len: usize| {
        let ids = Ids((0..len as u64).collect());
        Message::from_frame(&frame(Step::Wanted(Wanted { ids, more: false }))).is_ok()
    };
    let ranges = |len: usize| {
        let ranges = Ranges((0..len).map(|n| (2 * n as u16, 2 * n as u16)).collect());
        Message::from_frame(&frame(Step::Fetch(ranges))).is_ok()
    };
    for (what, taken) in [
        ("cells", [0, 1].map(|over| cells(MAX_CELLS_A_MESSAGE + over))),
        ("ids", [0, 1].map(|over| ids(MAX_IDS_A_MESSAGE + over))),
    ] {
        assert_eq!(taken, [true, false], "{what}");
    }
    assert!(ranges(MAX_RANGES));
}
