//! Reports: any JSON is refused in one line or becomes a page. Apart from the others, since it is the program's.

/// Reads the bytes as a report, and draws its page.
pub fn run(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match swath_cli::page_of_report(text) {
        Ok(page) => assert!(page.contains("</html>")),
        Err(why) => assert!(!why.is_empty() && why.lines().count() == 1, "{why:?}"),
    }
}
