//! Tuning files: what can be read is written and read again as the same.

use swath::tune::Parsed;

/// Reads the bytes as a file's text.
pub fn run(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match text.parse::<Parsed>() {
        Ok(Parsed { table, skipped }) => {
            assert!(skipped.iter().all(|why| why.lines().count() == 1), "{skipped:?}");
            let again: Parsed = table.to_string().parse().expect("what was written can be read");
            assert_eq!(again.skipped, Vec::<String>::new());
            assert_eq!(again.table, table);
            assert_eq!(again.table.to_string(), table.to_string());
        }
        Err(e) => assert_eq!(e.to_string().lines().count(), 1, "{e}"),
    }
}
