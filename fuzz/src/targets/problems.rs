//! Lists of problems in benchdnn's notation: what can be read can be written and read again.

use swath::benchdnn::Problem;

/// Reads the bytes as a list.
pub fn run(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let problems = match Problem::list(text) {
        Ok(problems) => problems,
        Err(e) => return assert_eq!(e.to_string().lines().count(), 1, "{e}"),
    };
    for p in problems {
        let _ = p.flop();
        let written = Problem::new(&p.shape, &p.name).expect("the notation has one padding for both sides");
        let again: Problem = written.text.parse().unwrap_or_else(|e| panic!("{p:?} was written as {written}: {e}"));
        assert_eq!((again.shape, &again.name), (p.shape, &p.name));
    }
}
