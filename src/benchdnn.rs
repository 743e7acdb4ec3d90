//! Convolution problems in benchdnn's notation, the one that oneDNN's users and this project's lists of layers speak.
//!
//! ```text
//! g32mb1_ic128ih56oc128oh56kh3sh1ph1nresnext
//! ```
//!
//! is 32 groups, batch 1, 128 input channels, input height 56, 128 output channels, output height 56, kernel height 3,
//! stride 1, padding 1, and the name `resnext`. The fields may come in any order, with `_` between any two:
//!
//! | field | meaning | when absent |
//! |---|---|---|
//! | `g` | groups | 1 |
//! | `mb` | images | 1 |
//! | `ic`, `oc` | input and output channels, over all groups | required |
//! | `ih`, `iw` | input height and width | `ih` required, `iw` as `ih` |
//! | `oh`, `ow` | output height and width, checked against the computed ones | computed |
//! | `kh`, `kw` | kernel height and width | `kh` required, `kw` as `kh` |
//! | `sh`, `sw` | stride | 1, `sw` as `sh` |
//! | `ph`, `pw` | padding of both sides | `ph` the one that gives `oh`, or 0 without `oh`; `pw` as `ph` |
//! | `dh`, `dw` | holes between taps: `dh1` is PyTorch's dilation 2 | 0, `dw` as `dh` |
//! | `n` | the name, which is everything that follows | empty |
//!
//! A list has one problem a line, `*3` behind one that occurs three times in its network, and comments after `#`.

use std::fmt;
use std::str::FromStr;

use swath_kernels::shape::{ConvShape, Padding, ShapeError};
use thiserror::Error;

/// The standard lists: name and text, as in `benches/shapes`. The layers of four networks, and assorted others (groups,
/// dilation, batches, odd sizes).
///
/// ```
/// use swath::benchdnn::{Problem, STANDARD_SETS};
/// let layers: usize = STANDARD_SETS.iter().map(|(_, text)| Problem::list(text).unwrap().len()).sum();
/// assert_eq!((STANDARD_SETS[0].0, layers), ("assorted", 99));
/// ```
pub static STANDARD_SETS: &[(&str, &str)] = &[
    ("assorted", include_str!("../benches/shapes/assorted.txt")),
    ("mobilenet_v2", include_str!("../benches/shapes/mobilenet_v2.txt")),
    ("resnet50", include_str!("../benches/shapes/resnet50.txt")),
    ("squeezenet", include_str!("../benches/shapes/squeezenet.txt")),
    ("vgg16", include_str!("../benches/shapes/vgg16.txt")),
];

/// What is wrong with the text of a problem.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProblemError {
    /// The text is not in the notation.
    #[error("problem {text:?}: expected {expected} at character {at}, found {found:?}")]
    Syntax {
        /// The problem.
        text: String,
        /// Where, counted from 1.
        at: usize,
        /// What should stand there.
        expected: &'static str,
        /// What does; empty at the end.
        found: String,
    },
    /// A field stands twice.
    #[error("problem {text:?}: {field} is given twice, as {first} and as {second}")]
    Twice {
        /// The problem.
        text: String,
        /// The field.
        field: &'static str,
        /// Its first value.
        first: usize,
        /// Its second value.
        second: usize,
    },
    /// A field that has no default is absent.
    #[error("problem {text:?}: {field} ({meaning}) is missing")]
    Missing {
        /// The problem.
        text: String,
        /// The field.
        field: &'static str,
        /// What it says.
        meaning: &'static str,
    },
    /// The output's size disagrees with the one that the other fields give.
    #[error("problem {text:?}: {field} is {given}, but the other fields make it {computed}")]
    Output {
        /// The problem.
        text: String,
        /// `oh` or `ow`.
        field: &'static str,
        /// As given.
        given: usize,
        /// As computed.
        computed: usize,
    },
    /// The geometry does not exist.
    #[error("problem {text:?}: {source}")]
    Shape {
        /// The problem.
        text: String,
        /// Why not.
        source: ShapeError,
    },
    /// The notation has one padding for both sides.
    #[error("benchdnn's notation has one padding for both sides, but {axis} it is {before} and {after}")]
    Asymmetric {
        /// `vertically` or `horizontally`.
        axis: &'static str,
        /// Padding of the top or left.
        before: usize,
        /// Padding of the bottom or right.
        after: usize,
    },
    /// A mistake in a list.
    #[error("line {line}: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The mistake.
        source: Box<ProblemError>,
    },
}

/// A convolution in benchdnn's notation.
///
/// ```
/// use swath::benchdnn::Problem;
/// let p: Problem = "g32mb1_ic128ih56oc128oh56kh3ph1nresnext".parse()?;
/// assert_eq!((p.shape.output(), p.shape.groups, p.name.as_str()), ([1, 128, 56, 56], 32, "resnext"));
/// let e = "ic64ih56oc64oh55kh3ph1".parse::<Problem>().unwrap_err();
/// assert!(e.to_string().ends_with("oh is 55, but the other fields make it 56"));
/// # Ok::<(), swath::benchdnn::ProblemError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The geometry.
    pub shape: ConvShape,
    /// The text, exactly as it was given (without the `*3` of a list).
    pub text: String,
    /// What follows `n`; may be empty.
    pub name: String,
    /// How often it occurs in its network; 1 unless a list says otherwise.
    pub times: usize,
}

/// Fields, longest names first where one begins another; no name begins with `n`.
const FIELDS: [&str; 16] =
    ["mb", "ic", "ih", "iw", "oc", "oh", "ow", "kh", "kw", "sh", "sw", "ph", "pw", "dh", "dw", "g"];
const EXPECTED: &str = "one of the fields g mb ic ih iw oc oh ow kh kw sh sw ph pw dh dw, or n and a name";

/// The fields of one text, by their place in [`FIELDS`].
struct Fields<'a> {
    text: &'a str,
    values: [Option<usize>; FIELDS.len()],
    name: &'a str,
}

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Self, ProblemError> {
        let mut fields = Fields { text, values: [None; FIELDS.len()], name: "" };
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches('_');
            if rest.is_empty() {
                return Ok(fields);
            }
            if let Some(name) = rest.strip_prefix('n') {
                fields.name = name;
                return Ok(fields);
            }
            let field = FIELDS.iter().position(|f| rest.starts_with(f)).ok_or_else(|| fields.syntax(rest, EXPECTED))?;
            rest = &rest[FIELDS[field].len()..];
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let value = match rest[..digits].parse() {
                Ok(value) => value,
                Err(_) if digits == 0 => return Err(fields.syntax(rest, "a number")),
                Err(_) => return Err(fields.syntax(rest, "a number that fits 64 bits")),
            };
            if let Some(first) = fields.values[field].replace(value) {
                return Err(ProblemError::Twice { text: text.into(), field: FIELDS[field], first, second: value });
            }
            rest = &rest[digits..];
        }
    }

    fn syntax(&self, rest: &str, expected: &'static str) -> ProblemError {
        let at = self.text[..self.text.len() - rest.len()].chars().count() + 1;
        ProblemError::Syntax { text: self.text.into(), at, expected, found: rest.chars().take(12).collect() }
    }

    fn get(&self, field: &str) -> Option<usize> {
        FIELDS.iter().position(|f| *f == field).and_then(|i| self.values[i])
    }

    fn required(&self, field: &'static str, meaning: &'static str) -> Result<usize, ProblemError> {
        self.get(field).ok_or_else(|| ProblemError::Missing { text: self.text.into(), field, meaning })
    }

    /// The padding of both sides that gives the output height, rounded down; 0 without an output height.
    fn padding(&self, ih: usize, kh: usize, sh: usize, dh: usize) -> usize {
        let Some(oh) = self.get("oh") else { return 0 };
        let [ih, kh, sh, holes, oh] = [ih, kh, sh, dh, oh].map(|v| v as i128);
        let steps = (oh - 1).saturating_mul(sh);
        let span = (kh - 1).saturating_mul(holes + 1).saturating_add(1);
        usize::try_from((steps.saturating_add(span) - ih).max(0) / 2).unwrap_or(usize::MAX)
    }

    fn shape(&self) -> Result<ConvShape, ProblemError> {
        let wrong = |source| ProblemError::Shape { text: self.text.into(), source };
        let ic = self.required("ic", "input channels")?;
        let ih = self.required("ih", "input height")?;
        let oc = self.required("oc", "output channels")?;
        let kh = self.required("kh", "kernel height")?;
        let (groups, n) = (self.get("g").unwrap_or(1), self.get("mb").unwrap_or(1));
        let (iw, kw) = (self.get("iw").unwrap_or(ih), self.get("kw").unwrap_or(kh));
        let sh = self.get("sh").unwrap_or(1);
        let sw = self.get("sw").unwrap_or(sh);
        let dh = self.get("dh").unwrap_or(0);
        let dw = self.get("dw").unwrap_or(dh);
        let ph = self.get("ph").unwrap_or_else(|| self.padding(ih, kh, sh, dh));
        let pw = self.get("pw").unwrap_or(ph);
        if groups == 0 {
            return Err(wrong(ShapeError::Zero { what: "the number of groups" }));
        }
        if !ic.is_multiple_of(groups) {
            return Err(wrong(ShapeError::Groups { what: "input", groups, channels: ic }));
        }
        let shape = ConvShape::builder([n, ic, ih, iw], [oc, ic / groups, kh, kw])
            .groups(groups)
            .stride([sh, sw])
            .padding([ph, pw])
            .dilation([dh.saturating_add(1), dw.saturating_add(1)])
            .build()
            .map_err(wrong)?;
        for (field, computed) in [("oh", shape.oh), ("ow", shape.ow)] {
            if let Some(given) = self.get(field).filter(|&given| given != computed) {
                return Err(ProblemError::Output { text: self.text.into(), field, given, computed });
            }
        }
        Ok(shape)
    }
}

impl FromStr for Problem {
    type Err = ProblemError;

    fn from_str(text: &str) -> Result<Self, ProblemError> {
        let fields = Fields::parse(text)?;
        Ok(Problem { shape: fields.shape()?, text: text.into(), name: fields.name.into(), times: 1 })
    }
}

impl Problem {
    /// Writes a geometry in the notation, with a name that may be empty.
    ///
    /// # Errors
    /// [`ProblemError::Asymmetric`], where two opposite sides have different padding.
    ///
    /// ```
    /// use swath::{ConvShape, benchdnn::Problem};
    /// let shape = ConvShape::builder([1, 64, 56, 56], [128, 64, 3, 3]).stride(2).padding(1).build()?;
    /// assert_eq!(Problem::new(&shape, "down")?.to_string(), "mb1ic64ih56oc128oh28kh3sh2ph1ndown");
    /// # Ok::<(), swath::Error>(())
    /// ```
    pub fn new(shape: &ConvShape, name: &str) -> Result<Self, ProblemError> {
        let s = shape;
        let Padding { top, left, bottom, right } = s.pad;
        for (axis, before, after) in [("vertically", top, bottom), ("horizontally", left, right)] {
            if before != after {
                return Err(ProblemError::Asymmetric { axis, before, after });
            }
        }
        let mut text = String::new();
        let mut put = |field: &str, value: usize, default: Option<usize>| {
            if default != Some(value) {
                text.push_str(&format!("{field}{value}"));
            }
        };
        put("g", s.groups, Some(1));
        put("mb", s.n, None);
        put("ic", s.ic, None);
        put("ih", s.ih, None);
        put("iw", s.iw, Some(s.ih));
        put("oc", s.oc, None);
        put("oh", s.oh, None);
        put("ow", s.ow, Some(s.oh));
        put("kh", s.kh, None);
        put("kw", s.kw, Some(s.kh));
        put("sh", s.sh, Some(1));
        put("sw", s.sw, Some(s.sh));
        put("ph", top, None);
        put("pw", left, Some(top));
        put("dh", s.dh - 1, Some(0));
        put("dw", s.dw - 1, Some(s.dh - 1));
        if !name.is_empty() {
            text.push('n');
            text.push_str(name);
        }
        Ok(Problem { shape: *shape, text, name: name.into(), times: 1 })
    }

    /// Reads a list: one problem a line, `*3` behind one that occurs three times, comments after `#`.
    ///
    /// # Errors
    /// [`ProblemError::Line`], for the first line that is not a problem.
    ///
    /// ```
    /// use swath::benchdnn::Problem;
    /// let list = Problem::list("# two layers\nic64ih56oc64kh3ph1na*3\nic64ih56oc256kh1nb\n")?;
    /// assert_eq!((list.len(), list[0].times, list[0].name.as_str()), (2, 3, "a"));
    /// # Ok::<(), swath::benchdnn::ProblemError>(())
    /// ```
    pub fn list(text: &str) -> Result<Vec<Self>, ProblemError> {
        let mut problems = Vec::new();
        // Some editors put a byte order mark at the start.
        for (i, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
            // A comment starts the line or follows white space: a name may hold a `#`.
            let comment = line
                .char_indices()
                .find(|&(at, c)| c == '#' && line[..at].chars().next_back().is_none_or(char::is_whitespace));
            let line = line[..comment.map_or(line.len(), |(at, _)| at)].trim();
            if line.is_empty() {
                continue;
            }
            let (problem, times) = split_times(line);
            let problem: Problem =
                problem.parse().map_err(|source| ProblemError::Line { line: i + 1, source: Box::new(source) })?;
            problems.push(Problem { times, ..problem });
        }
        Ok(problems)
    }

    /// Floating-point operations: two for each multiply-add, counting every tap, also those in the padding.
    ///
    /// ```
    /// let p: swath::benchdnn::Problem = "ic64ih56oc64kh1".parse()?;
    /// assert_eq!(p.flop(), 2 * 64 * 64 * 56 * 56);
    /// # Ok::<(), swath::benchdnn::ProblemError>(())
    /// ```
    pub fn flop(&self) -> u64 {
        self.shape.macs().saturating_mul(2)
    }
}

/// `problem*3` as `(problem, 3)`.
fn split_times(line: &str) -> (&str, usize) {
    match line.rsplit_once('*').map(|(problem, times)| (problem, times.parse())) {
        Some((problem, Ok(times))) => (problem, times),
        _ => (line, 1),
    }
}

/// The text as it was given.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem(text: &str) -> Problem {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    fn refused(text: &str) -> String {
        text.parse::<Problem>().unwrap_err().to_string()
    }

    #[test]
    fn every_standard_list_parses_and_round_trips() {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/shapes")).unwrap().count();
        assert_eq!(STANDARD_SETS.len(), files, "a list in benches/shapes is missing from STANDARD_SETS");
        for (name, text) in STANDARD_SETS {
            let list = Problem::list(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            let lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).count();
            assert_eq!(list.len(), lines, "{name}");
            for p in list {
                let again = Problem::new(&p.shape, &p.name).unwrap();
                assert_eq!(problem(&again.text).shape, p.shape, "{p}");
            }
        }
    }

    #[test]
    fn what_is_absent_follows_what_is_there() {
        let p = problem("g32mb1_ic128_ih56_oc128oh56_kh3_sh1_ph1_nresnext:g32_late");
        assert_eq!((p.shape.groups, p.shape.iw, p.shape.kw, p.shape.dh, p.shape.pad), (32, 56, 3, 1, 1.into()));
        assert_eq!((p.name.as_str(), p.times), ("resnext:g32_late", 1), "underscores in a name are its own");
        let p = problem("mb1_ic128ih17iw17oc128oh17ow17kh1kw7ph0pw3n1x7");
        assert_eq!((p.shape.kh, p.shape.kw, p.shape.pad), (1, 7, [0, 3].into()));
        let p = problem("ic8ih28oc8oh28kh3dh1ph2");
        assert_eq!((p.shape.dh, p.shape.dw), (2, 2), "one hole is dilation 2");
        assert_eq!(problem("ic8ih28iw14oc8kh3sh2").shape.output(), [1, 8, 13, 6]);
    }

    #[test]
    fn absent_padding_comes_from_the_output_height() {
        // As peers/onednn_conv.cpp computes it: ((oh - 1) * sh + (kh - 1) * (dh + 1) + 1 - ih) / 2.
        assert_eq!(problem("ic8ih56oc8oh56kh3").shape.pad, 1.into());
        let odd = refused("ic8ih224oc8oh112kh7sh2"); // 5 is odd: 2 on both sides is one too few
        assert!(odd.ends_with("oh is 112, but the other fields make it 111"), "{odd}");
        assert_eq!(problem("ic8ih56oc8oh56kh1").shape.pad, 0.into());
        assert_eq!(problem("ic8ih33oc8oh33kh3dh11").shape.pad, 12.into());
        assert_eq!(problem("ic8ih56oc8kh3").shape.pad, 0.into());
        assert_eq!(problem("ic8ih56oc8oh27kh3sh2").shape.pad, 0.into(), "never negative");
    }

    #[test]
    fn refusals_say_what_was_expected_and_where() {
        assert!(refused("ic64ih56qq3").contains("expected one of the fields g mb ic"), "{}", refused("ic64ih56qq3"));
        assert!(refused("ic64ih56qq3").contains("at character 9, found \"qq3\""));
        assert!(refused("ic64ihoc64").contains("expected a number at character 7, found \"oc64\""));
        assert!(refused("ic64ih").contains("expected a number at character 7, found \"\""));
        assert!(refused("ic99999999999999999999").contains("fits 64 bits"));
        assert!(refused("ic64ih-3").contains("expected a number"));
        assert!(refused("ic64ih5\u{2603}").contains("at character 8"));
        assert!(refused("").contains("ic (input channels) is missing"));
        assert!(refused("ic64ih56oc64").contains("kh (kernel height) is missing"));
        assert!(refused("ic64ic32").contains("ic is given twice, as 64 and as 32"));
        assert!(refused("ic8ih56oc8oh55kh3ph1").contains("oh is 55, but the other fields make it 56"));
        assert!(refused("ic8ih56iw28oc8oh56ow29kh3ph1").contains("ow is 29, but the other fields make it 28"));
        assert!(refused("g3ic8ih56oc9kh3").contains("3 groups do not divide 8 input channels"));
        assert!(refused("g0ic8ih56oc9kh3").contains("groups is zero"));
        assert!(refused("ic8ih5oc8oh0kh3").contains("oh is 0"));
        assert!(refused("ic8ih5oc8kh7").contains("spans 7"));
        assert!(refused(&format!("ic8ih5oc8kh3dh{}", usize::MAX)).contains("more than"));
        assert!(refused(&format!("ic8ih5oc8oh{}kh3", usize::MAX)).contains("more than"));
        for text in ["ic64ih56qq3", "", "ic8ih5oc8kh7", "g0ic8ih5oc8kh7"] {
            assert!(!refused(text).contains('\n'));
        }
    }

    #[test]
    fn lists_have_times_and_comments() {
        let list = Problem::list("# c\n\n  ic8ih9oc8kh3nx#1*4  # three\nic8ih9oc8kh3*2\nic8ih9oc8kh3ny\r\n").unwrap();
        let seen: Vec<_> = list.iter().map(|p| (p.text.as_str(), p.name.as_str(), p.times)).collect();
        assert_eq!(seen, [("ic8ih9oc8kh3nx#1", "x#1", 4), ("ic8ih9oc8kh3", "", 2), ("ic8ih9oc8kh3ny", "y", 1)]);
        assert_eq!(Problem::list("\u{feff}ic8ih9oc8kh3\n").unwrap()[0].text, "ic8ih9oc8kh3", "a byte order mark");
        assert!(Problem::list("ic8ih9oc8kh3\n\u{feff}ic8ih9oc8kh3\n").is_err(), "not elsewhere");
        let e = Problem::list("ic8ih9oc8kh3\nic8ih9oc8\n").unwrap_err().to_string();
        assert!(e.starts_with("line 2: ") && e.contains("kh"), "{e}");
    }

    #[test]
    fn asymmetric_padding_cannot_be_written() {
        let s = ConvShape::builder([1, 3, 9, 9], [4, 3, 3, 3]).padding([0, 0, 1, 1]).build().unwrap();
        assert!(Problem::new(&s, "").unwrap_err().to_string().contains("vertically it is 0 and 1"));
    }

    prop_compose! {
        fn shapes()(
            n in 0usize..4, groups in 1usize..5, icg in 1usize..9, ocg in 1usize..9, ih in 1usize..40, iw in 1usize..40,
            kh in 1usize..6, kw in 1usize..6, stride in [1usize..4, 1usize..4], dilation in [1usize..4, 1usize..4],
            pad in [0usize..8, 0usize..8],
        ) -> Option<ConvShape> {
            ConvShape::builder([n, groups * icg, ih, iw], [groups * ocg, icg, kh, kw])
                .groups(groups).stride(stride).dilation(dilation).padding(pad).build().ok()
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(shape in shapes(), name in "[a-z0-9_:*n]{0,8}") {
            if let Some(shape) = shape {
                let written = Problem::new(&shape, &name).unwrap();
                prop_assert_eq!(&problem(&written.to_string()), &written);
                let underscored: String = written.text.strip_suffix(&format!("n{name}")).unwrap_or(&written.text)
                    .chars().flat_map(|c| if c.is_ascii_lowercase() && "gmiokspd".contains(c) { vec!['_', c] } else { vec![c] })
                    .collect();
                prop_assert_eq!(problem(&underscored).shape, shape);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Problem>();
            let _ = Problem::list(&text);
        }

        #[test]
        fn no_almost_right_text_panics(text in "((g|mb|ic|ih|iw|oc|oh|ow|kh|kw|sh|sw|ph|pw|dh|dw)[0-9]{1,20}_?){3,10}") {
            let _ = text.parse::<Problem>();
        }
    }
}
