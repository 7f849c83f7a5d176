//! Imports against a PoP in memory.

use std::fs;
use std::path::Path;

use super::batches::MAX_BATCH_PAIRS;
use super::*;
use crate::cli::fake_pop::FakePop;

fn args(file: &Path, state: Option<&Path>, skip_bad: bool) -> Args {
    Args { file: Some(file.into()), resume: state.map(Path::to_path_buf), skip_bad }
}

async fn import_file(pop: &FakePop, args: &Args) -> Result<Report, Failure> {
    let namespace = pop.account_args().namespace().await?;
    let (input, _) = open(args.file.as_ref())?;
    import(input, &namespace, args, &ProgressBar::hidden()).await
}

fn told(failure: Failure) -> String {
    match failure {
        Failure::Told { what, .. } => what,
        Failure::Said | Failure::BrokenPipe => "broken pipe".into(),
    }
}

fn numbered(lines: std::ops::Range<usize>) -> String {
    lines.map(|index| format!("{{\"key\":\"k{index:05}\",\"value\":\"{index}\"}}\n")).collect()
}

#[tokio::test]
async fn all_lines_arrive_in_batches_and_the_last_of_a_key_wins() {
    let pop = FakePop::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("in");
    let again: String = (0..5_000)
        .map(|index| format!("{{\"key\":\"same{}\",\"value\":\"{index}\"}}\n", index % 3))
        .collect();
    // The last line has no line end.
    let text = numbered(0..2_500) + "\n" + &again + r#"{"key":"last","value":"/w==","base64":true}"#;
    fs::write(&file, &text).expect("written");
    let report = import_file(&pop, &args(&file, None, false)).await.expect("imported");
    assert_eq!(report.lines, 7_502);
    let rows = pop.rows();
    assert_eq!(rows.len(), 2_504);
    assert_eq!(rows["k02499"], b"2499");
    assert_eq!(rows["last"], [0xff]);
    for (key, value) in [("same0", "4998"), ("same1", "4999"), ("same2", "4997")] {
        assert_eq!(rows[key], value.as_bytes(), "{key}");
    }
}

#[tokio::test]
async fn a_bad_line_stops_after_all_before_it_is_acknowledged() {
    let pop = FakePop::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, state) = (folder.path().join("in"), folder.path().join("state"));
    fs::write(&file, numbered(0..1_500) + "{oops\n" + &numbered(1_500..1_600)).expect("written");
    let failure = import_file(&pop, &args(&file, Some(&state), false)).await.expect_err("a bad line");
    let what = told(failure);
    assert!(
        what.starts_with("stopped; all up to line 1,500 is acknowledged: line 1501: key must be"),
        "{what}"
    );
    assert_eq!(pop.rows().len(), 1_500);

    // Mended, it goes on behind what is done.
    let puts = pop.bulk_puts();
    fs::write(&file, numbered(0..1_600)).expect("written");
    let report = import_file(&pop, &args(&file, Some(&state), false)).await.expect("imported");
    assert_eq!((report.written, report.lines, pop.bulk_puts()), (100, 1_600, puts + 1));
    assert_eq!(pop.rows().len(), 1_600);
}

#[tokio::test]
async fn bad_and_expired_lines_can_be_left_out() {
    let pop = FakePop::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("in");
    let expired = "{\"key\":\"old\",\"value\":\"\",\"expiration\":1}\n";
    fs::write(&file, "[]\n".to_owned() + &numbered(0..3) + "{}\n" + expired).expect("written");
    let report = import_file(&pop, &args(&file, None, true)).await.expect("imported");
    assert_eq!(report, Report { written: 3, expired: 1, bad: 2, lines: 6 });
}

#[tokio::test]
async fn a_refused_batch_stops_the_import_where_a_resume_goes_on() {
    let pop = FakePop::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, state) = (folder.path().join("in"), folder.path().join("state"));
    let lines = 6 * MAX_BATCH_PAIRS;
    fs::write(&file, numbered(0..lines)).expect("written");
    pop.refuse_puts_of("k02000");
    let what = told(import_file(&pop, &args(&file, Some(&state), false)).await.expect_err("refused"));
    assert!(
        what.starts_with("stopped; all up to line 2,000 is acknowledged: lines 2001 to 3000: refused"),
        "{what}"
    );
    pop.refuse_puts_of("");
    let report = import_file(&pop, &args(&file, Some(&state), false)).await.expect("imported");
    assert_eq!((report.written, report.lines), (4_000, lines as u64));
    assert_eq!(pop.rows().len(), lines);
}

#[tokio::test]
async fn a_resume_file_is_not_used_for_another_input_or_namespace() {
    let pop = FakePop::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, state) = (folder.path().join("in"), folder.path().join("state"));
    fs::write(&file, numbered(0..10)).expect("written");
    import_file(&pop, &args(&file, Some(&state), false)).await.expect("imported");
    let again = import_file(&pop, &args(&file, Some(&state), false)).await.expect("nothing to do");
    assert_eq!((again.written, again.lines), (0, 10));

    for other in [numbered(1..11), numbered(0..9), String::new()] {
        fs::write(&file, other).expect("written");
        let what =
            told(import_file(&pop, &args(&file, Some(&state), false)).await.expect_err("another input"));
        assert!(what.contains("not the one that the resume file was made for"), "{what}");
    }
    let foreign = Imported { namespace: "other".into(), lines: 1, ..Imported::default() };
    resume::save(&state, &foreign).expect("saved");
    let what =
        told(import_file(&pop, &args(&file, Some(&state), false)).await.expect_err("another namespace"));
    assert!(what.contains("belongs to the namespace other"), "{what}");
}
