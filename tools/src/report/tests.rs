//! The page, from made-up reports: every picture is there, is well-formed, and says what it shows.

use super::samples;
use super::*;
use crate::report::data::{Layer, Set, Time};

/// The page's body as XML, checked; nothing in it may be a number that is none.
fn body(report: &Report, comparison: Option<&Comparison>) -> String {
    let page = page::render(report, comparison).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>"));
    for outside in ["http-equiv", "<script", "<link", "src=", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}: the page needs something else");
    }
    let body = &page[page.find("<body>").unwrap()..page.find("</html>").unwrap()];
    let xml = roxmltree::Document::parse(body).unwrap_or_else(|e| panic!("{e}"));
    let mut ids = Vec::new();
    for node in xml.descendants() {
        for a in node.attributes() {
            assert!(!a.value().contains("NaN") && !a.value().contains("inf"), "{}=\"{}\"", a.name(), a.value());
            if matches!(a.name(), "width" | "height" | "r") && node.is_element() && node.tag_name().name() != "svg" {
                assert!(a.value().parse::<i32>().unwrap() >= 0, "{}=\"{}\"", a.name(), a.value());
            }
        }
        if node.is_text() {
            let text = node.text().unwrap();
            assert!(!text.contains("NaN") && !text.split_whitespace().any(|w| w == "inf"), "{text}");
        }
        ids.extend(node.attribute("id").map(str::to_string));
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "ids occur once");
    body.to_string()
}

/// Identifiers of the pictures, each checked for title, picture, legend and caption, with the texts inside.
fn pictures(body: &str) -> Vec<(String, Vec<String>)> {
    let xml = roxmltree::Document::parse(body).unwrap();
    let figures = xml.descendants().filter(|n| n.has_tag_name("figure"));
    figures
        .map(|figure| {
            let id = figure.attribute("id").unwrap().to_string();
            let child = |name: &str| figure.descendants().find(|n| n.tag_name().name() == name);
            for name in ["h3", "figcaption"] {
                assert!(child(name).unwrap().text().is_some_and(|t| t.len() > 10), "{name} of {id}");
            }
            let svg = child("svg").unwrap();
            assert_eq!(svg.tag_name().namespace(), Some("http://www.w3.org/2000/svg"));
            let texts = svg.descendants().filter(|n| n.tag_name().name() == "text");
            let texts: Vec<String> = texts.map(|n| n.text().unwrap_or("").trim().to_string()).collect();
            let shapes = ["rect", "circle", "polygon", "polyline"];
            assert!(svg.descendants().filter(|n| shapes.contains(&n.tag_name().name())).count() > 3, "{id} is empty");
            (id, texts)
        })
        .collect()
}

#[test]
fn every_picture_is_there_with_axes_units_and_legend() {
    let body = body(&samples::report(), None);
    let pictures = pictures(&body);
    for (id, words) in [
        (
            "roofline",
            &["operations per byte (FLOP/byte", "speed (GFLOP/s", "direct", "FMA peak, 120 GFLOP/s", "L3 80 GB/s"][..],
        ),
        ("threads", &["threads", "speed-up over 1 thread", "size of the layer (MFLOP", "ideal", "resnet50"]),
        (
            "choices",
            &[
                "time over the best candidate's (logarithmic)",
                "7 % over the best",
                "untuned, 1 thread: within 2 % on 100 %",
                "resnet50 1",
            ],
        ),
        ("share-resnet50", &["share of the peak (%)", "share of time (%)", "83 %", "the peak", "60.0 %"]),
        ("algorithms-resnet50", &["speed (GFLOP/s)", "100.0 direct \u{25c0} chosen", "66.7 gemm", "FMA peak"]),
        ("peers-resnet50", &["above 1, swath is faster", "oneDNN, 2 threads: geometric mean 1.25, total 1.25"]),
    ] {
        let (_, texts) = pictures.iter().find(|(i, _)| i == id).unwrap_or_else(|| panic!("no {id}"));
        for word in words {
            assert!(texts.iter().any(|t| t.contains(word)), "{word} in {id}: {texts:?}");
        }
    }
    assert_eq!(pictures.len(), 3 + 3 + 3, "two sets");
}

#[test]
fn what_xml_wants_escaped_is_escaped() {
    let mut report = samples::report();
    report.sets[1].layers[0].name = "<&\"'\u{1}".into();
    let body = body(&report, None);
    let xml = roxmltree::Document::parse(&body).unwrap();
    assert!(xml.descendants().any(|n| n.text().is_some_and(|t| t.contains("<&\"'\u{fffd}  3x3 16\u{2192}16"))));
    assert!(xml.descendants().any(|n| n.text() == Some("a <set> & \"more\"")));
}

#[test]
fn reports_may_be_empty_or_have_little() {
    let mut empty = samples::report();
    empty.sets.clear();
    assert!(body(&empty, None).contains("has no layers"));
    empty.sets.push(Set { name: "nothing".into(), layers: Vec::new() });
    assert!(pictures(&body(&empty, None)).is_empty());
    assert!(table(&empty).contains("GFLOP/s"));

    let mut one = samples::report();
    one.sets.truncate(1);
    one.sets[0].layers.truncate(1);
    one.threads.truncate(1);
    one.machine.bandwidths.clear();
    one.machine.caches.clear();
    one.machine.cpu = None;
    let run = &mut one.sets[0].layers[0].runs;
    run.truncate(1);
    run[0].algorithms.truncate(1);
    run[0].peers.clear();
    let ids: Vec<String> = pictures(&body(&one, None)).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["roofline", "choices", "share-resnet50", "algorithms-resnet50"]);
}

#[test]
fn numbers_of_any_size_can_be_drawn() {
    let mut report = samples::report();
    let sizes = [1e-7, 1e-3, 1.0, 1e4, 1e8];
    let layer = |(i, ms): (usize, &f64)| Layer {
        flop: 10u64.pow(2 * i as u32 + 1),
        bytes: 10u64.pow(8 - 2 * i as u32),
        ..samples::layer(&"long name ".repeat(i * 5), "ic16ih9oc16kh3", *ms)
    };
    report.sets[0].layers = sizes.iter().enumerate().map(layer).collect();
    report.sets[0].layers[2].runs[0].peers[0].ms = 1e-9;
    assert_eq!(pictures(&body(&report, None)).len(), 9);
}

#[test]
fn another_way_of_choosing_is_one_more_column() {
    let mut report = samples::report();
    for layer in &mut report.sets[0].layers {
        for run in &mut layer.runs {
            run.algorithms.push(Time { algorithm: "winograd4".into(), ms: run.algorithms[0].ms * 0.5, median_ms: 1.0 });
            run.choices.push(data::Choice { by: "tuned".into(), algorithm: "winograd4".into() });
        }
    }
    let body = body(&report, None);
    let pictures = pictures(&body);
    let texts = |id: &str| pictures.iter().find(|(i, _)| i == id).unwrap().1.join("\n");
    assert!(texts("choices").contains("tuned, 1 thread: within 2 % on 100 %"));
    assert!(texts("algorithms-resnet50").contains("200.0 winograd4 \u{25c0} chosen"));
    assert!(body.contains("<th class=\"l\">tuned</th>") && body.contains("<td class=\"bad\">2.00</td>"));
}

#[test]
fn a_comparison_is_shown() {
    let (old, mut new) = (samples::report(), samples::report());
    new.sets[0].layers[0].runs[0].algorithms[0].ms = 3.0;
    new.machine.level = "avx2".into();
    let body = body(&new, Some(&Comparison::new(&old, &new, 0.07)));
    for words in [
        "1 are slower and 0 faster",
        ">slower<",
        "x0.67",
        "the level differs: avx512 then, avx2 now",
        "class=\"warning\"",
    ] {
        assert!(body.contains(words), "{words}");
    }
}

#[test]
fn every_colour_has_one_for_dark_pages() {
    let page = page::render(&samples::report(), None).unwrap();
    let (style, body) = page.split_at(page.find("</style>").unwrap());
    let dark = &style[style.find("prefers-color-scheme:dark").unwrap()..];
    let paints = ["fill=\"#", "stroke=\"#"].map(|paint| body.match_indices(paint).map(move |(at, _)| at + paint.len()));
    for at in paints.into_iter().flatten() {
        let colour = &body[at - 1..at + 6];
        assert!(dark.contains(&format!("=\"{colour}\"]")), "{colour} stays as it is");
    }
}

#[test]
fn commands_can_be_typed_again() {
    let args = ["report", "--peer-command", "x=it's {cores}", "", "g2_ic3"].map(String::from);
    assert_eq!(command_line(args.into_iter()), "swath report --peer-command 'x=it'\\''s {cores}' '' g2_ic3");
}

#[test]
fn files_are_replaced_whole_or_not_at_all() {
    let dir = std::env::temp_dir().join(format!("swath-report-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let readme = dir.join("README.md");
    std::fs::write(&readme, "before\n<!-- results -->old<!-- /results -->\nafter\n").unwrap();
    readme::update(&readme, &samples::report()).unwrap();
    let text = std::fs::read_to_string(&readme).unwrap();
    assert!(text.starts_with("before\n<!-- results -->\n\n") && text.ends_with("\n\n<!-- /results -->\nafter\n"));
    // Markers of the report's level go first.
    let level = samples::report().machine.level;
    std::fs::write(
        &readme,
        format!("<!-- results --><!-- /results --><!-- results {level} --><!-- /results {level} -->"),
    )
    .unwrap();
    readme::update(&readme, &samples::report()).unwrap();
    let text = std::fs::read_to_string(&readme).unwrap();
    assert!(
        text.starts_with("<!-- results --><!-- /results --><!-- results ") && text.contains("| ResNet-50 |"),
        "{text}"
    );
    let mut alone = samples::filtered(|l| l.name.starts_with("resnet50"));
    alone.sets[0].layers.iter_mut().flat_map(|l| &mut l.runs).for_each(|r| r.peers.clear());
    assert!(readme::update(&readme, &alone).is_err());
    assert_eq!(std::fs::read_to_string(&readme).unwrap(), text, "a failure changes nothing");
    assert!(crate::files::write_text(&dir.join("no/such/folder"), "x").is_err());
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "nothing is left behind");
    std::fs::remove_dir_all(&dir).unwrap();
}
