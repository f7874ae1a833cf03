//! Tables byte for byte as they are documented, and nothing panics on odd text.

use super::*;
use proptest::prelude::*;

const HEADER: [&str; 8] = ["ID", "SIZE", "PATH", "AT TIME", "DURATION", "COMPLETE TIME", "BACKUPTS", "BACKUPTYPE"];

fn row(cells: [&str; 8]) -> Vec<Cell> {
    cells.into_iter().map(Cell::from).collect()
}

#[test]
fn a_list_of_one_looks_as_documented() {
    let table = bordered(
        &HEADER,
        &[row([
            "25536ff0-126f-11ef-9902-26dd28356ef3",
            "65 MB",
            "BackupDir: filesystem  Path: /Users/admin/soft/backuppath/syncback1",
            "2024-05-15 11:56:44 +0800",
            "8.648091083s",
            "2024-05-15 11:56:53 +0800",
            "1715745404915410000-1",
            "full",
        ])],
    );
    let golden = "\
+--------------------------------------+-------+----------------------------------------+---------------------------+--------------+---------------------------+-----------------------+------------+
|                  ID                  | SIZE  |                  PATH                  |          AT TIME          |   DURATION   |       COMPLETE TIME       |       BACKUPTS        | BACKUPTYPE |
+--------------------------------------+-------+----------------------------------------+---------------------------+--------------+---------------------------+-----------------------+------------+
| 25536ff0-126f-11ef-9902-26dd28356ef3 | 65 MB |      BackupDir: filesystem  Path:      | 2024-05-15 11:56:44 +0800 | 8.648091083s | 2024-05-15 11:56:53 +0800 | 1715745404915410000-1 |    full    |
|                                      |       | /Users/admin/soft/backuppath/syncback1 |                           |              |                           |                       |            |
+--------------------------------------+-------+----------------------------------------+---------------------------+--------------+---------------------------+-----------------------+------------+
";
    assert_eq!(table, golden);
}

#[test]
fn a_list_of_two_looks_as_documented() {
    let path = "BackupDir: filesystem  Path: /Users/admin/soft/backuppath/syncback2";
    let rows = [
        row([
            "2289638c-1284-11ef-85e4-26dd28356ef3",
            "70 MB",
            path,
            "2024-05-15 14:26:59 +0800",
            "9.927034917s",
            "2024-05-15 14:27:09 +0800",
            "1715754419668571000-1",
            "full",
        ]),
        row([
            "81531c5a-1284-11ef-9ba3-26dd28356ef3",
            "72 MB",
            path,
            "2024-05-15 14:29:38 +0800",
            "2.536263666s",
            "2024-05-15 14:29:41 +0800",
            "1715754578690660000-1",
            "incremental",
        ]),
    ];
    let golden = "\
+--------------------------------------+-------+----------------------------------------+---------------------------+--------------+---------------------------+-----------------------+-------------+
|                  ID                  | SIZE  |                  PATH                  |          AT TIME          |   DURATION   |       COMPLETE TIME       |       BACKUPTS        | BACKUPTYPE  |
+--------------------------------------+-------+----------------------------------------+---------------------------+--------------+---------------------------+-----------------------+-------------+
| 2289638c-1284-11ef-85e4-26dd28356ef3 | 70 MB |      BackupDir: filesystem  Path:      | 2024-05-15 14:26:59 +0800 | 9.927034917s | 2024-05-15 14:27:09 +0800 | 1715754419668571000-1 |    full     |
|                                      |       | /Users/admin/soft/backuppath/syncback2 |                           |              |                           |                       |             |
| 81531c5a-1284-11ef-9ba3-26dd28356ef3 | 72 MB |      BackupDir: filesystem  Path:      | 2024-05-15 14:29:38 +0800 | 2.536263666s | 2024-05-15 14:29:41 +0800 | 1715754578690660000-1 | incremental |
|                                      |       | /Users/admin/soft/backuppath/syncback2 |                           |              |                           |                       |             |
+--------------------------------------+-------+----------------------------------------+---------------------------+--------------+---------------------------+-----------------------+-------------+
";
    assert_eq!(bordered(&HEADER, &rows), golden);
}

#[test]
fn a_short_path_leaves_its_column_at_thirty() {
    let (lines, width) = reflow("BackupDir: filesystem  Path: /b");
    assert_eq!((lines, width), (vec!["BackupDir: filesystem  Path:".to_owned(), "/b".to_owned()], 30));
    let (lines, width) = reflow("BackupDir: filesystem  Path: b");
    assert_eq!((lines, width), (vec!["BackupDir: filesystem  Path: b".to_owned()], 30));
}

#[test]
fn snapshots_look_as_documented() {
    let header = ["SNAPSHOT NAME", "TIMESTAMP", "SNAPSHOT LEVEL", "ACCOUNT NAME", "DATABASE NAME", "TABLE NAME"];
    let row = |time: &str| ["sp_01", time, "account", "sys", "", ""].map(str::to_owned).to_vec();
    let golden = "SNAPSHOT NAME\t        TIMESTAMP        \tSNAPSHOT LEVEL\tACCOUNT NAME\tDATABASE NAME\tTABLE NAME \n\
        sp_01        \t2024-05-10 02:06:08.01635\taccount       \tsys         \t             \t          \t\n";
    assert_eq!(padded(&header, &[row("2024-05-10 02:06:08.01635")]), golden);
    let table = padded(&header, &[row("2024-05-10 02:47:15.638519")]);
    assert!(table.starts_with("SNAPSHOT NAME\t        TIMESTAMP         \tSNAPSHOT LEVEL\t"), "{table:?}");
    let empty = "SNAPSHOT NAME\tTIMESTAMP\tSNAPSHOT LEVEL\tACCOUNT NAME\tDATABASE NAME\tTABLE NAME \n";
    assert_eq!(padded(&header, &[]), empty);
}

#[test]
fn pitrs_look_as_documented() {
    let header = [
        "PITR NAME",
        "CREATED TIME",
        "MODIFIED TIME",
        "PITR LEVEL",
        "ACCOUNT NAME",
        "DATABASE NAME",
        "TABLE NAME",
        "PITR LENGTH",
        "PITR UNIT",
    ];
    let row = ["pitr01", "2024-08-08 06:32:31", "2024-08-08 06:32:31", "cluster", "*", "*", "*", "10", "h"];
    let table = padded(&header, &[row.map(str::to_owned).to_vec()]);
    let golden = "pitr01   \t2024-08-08 06:32:31\t2024-08-08 06:32:31\tcluster   \t*           \t*            \t*         \t         10\th        \t";
    assert_eq!(table.lines().nth(1), Some(golden));
    assert_eq!(
        table.lines().next(),
        Some(
            "PITR NAME\t   CREATED TIME    \t   MODIFIED TIME   \tPITR LEVEL\tACCOUNT NAME\tDATABASE NAME\tTABLE NAME\tPITR LENGTH\tPITR UNIT "
        )
    );
}

#[test]
fn wide_characters_take_two_columns() {
    assert_eq!(width("数据库"), 6);
    assert_eq!(width("e\u{301}"), 1);
}

proptest! {
    #[test]
    fn odd_text_never_makes_a_table_panic(cells in proptest::collection::vec(".{0,80}", 0..20), columns in 1_usize..9) {
        let rows: Vec<Vec<Cell>> = cells.chunks(columns).map(|row| row.iter().map(|cell| Cell::from(cell.as_str())).collect()).collect();
        let table = bordered(&HEADER[..columns.min(8)], &rows);
        prop_assert!(table.ends_with("+\n"));
        let rows: Vec<Vec<String>> = cells.chunks(columns).map(<[String]>::to_vec).collect();
        let table = padded(&HEADER[..columns.min(8)], &rows);
        prop_assert_eq!(table.lines().count(), rows.len() + 1);
    }

    #[test]
    fn a_broken_cell_keeps_its_words(text in "[a-z ]{0,120}") {
        let (lines, _) = reflow(&text);
        prop_assert_eq!(lines.join(" "), text);
    }
}
