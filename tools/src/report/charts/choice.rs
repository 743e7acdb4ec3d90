//! How good the choices of algorithms are: tuned against untuned.

use plotters::prelude::*;

use super::theme::{ALERT, Anchor, INK, MUTED, mark, series, text_style};
use super::{Axis, Figure, Legend, Margins, NAMES, Plot, SMALL, Swatch, fitted};
use crate::failure::Outcome;
use crate::report::data::{Layer, Report};
use crate::report::figures::{self, Quality};

const ROW: i32 = 28;
/// Most problems that are shown.
const MOST: usize = 24;
/// At least so many, also where all choices are good.
const LEAST: usize = 5;

/// A way of choosing on a number of threads.
struct Line {
    quality: Quality,
    at: usize,
    legend: String,
}

/// A problem with the loss of each line's choice: its time over the best candidate's.
struct Row {
    name: String,
    losses: Vec<(usize, f64)>,
}

impl Row {
    fn worst(&self) -> f64 {
        self.losses.iter().map(|l| l.1).fold(1.0, f64::max)
    }
}

/// The problems with the worst choices, one row each.
pub fn draw(report: &Report) -> Outcome<Figure> {
    let mut lines = Vec::new();
    for (at, &threads) in report.threads.iter().enumerate() {
        for quality in figures::qualities(report, at) {
            let [two, seven] = [1.02, 1.07].map(|l| 100.0 * quality.within(l));
            let (name, threads) = (quality.name(), figures::threads(threads));
            let legend = format!("{name}, {threads}: within 2 % on {two:.0} %, within 7 % on {seven:.0} %");
            lines.push(Line { quality, at, legend });
        }
    }
    let rows = rows(report, &lines);
    let title = "Tuned against untuned: choices against the best candidate";
    let svg = picture(title, &lines, &rows)?;
    let tuned = if report.is_tuned() {
        "Untuned is the cost model's choice, tuned what the tuning table says of a problem."
    } else {
        "No tuning table knows these problems: after swath tune, the tuned choices are there too."
    };
    let caption = format!(
        "For a problem, the time of the algorithm that was chosen over that of the fastest one measured; 1 is the best that the \
         table of algorithms can do. {tuned} Shown are {} of {} problems, those with the worst choices, whose losses are the numbers; the legend counts all. Two \
         algorithms within a per cent of each other are a tie that noise decides.",
        rows.len(),
        report.layers().count()
    );
    Ok(Figure { set: None, id: "choices".into(), title: title.into(), svg, caption })
}

/// Those of which a choice is more than 2 % off, the worst first.
fn rows(report: &Report, lines: &[Line]) -> Vec<Row> {
    let row = |(set, layer): (&str, &Layer)| {
        let loss = |line: &Line| layer.runs[line.at].loss(&line.quality.by);
        let losses = lines.iter().enumerate().filter_map(|(i, line)| Some((i, loss(line)?)));
        Row { name: format!("{set} {}", layer.label(set)), losses: losses.collect() }
    };
    let mut rows: Vec<Row> = report.layers().map(row).collect();
    rows.sort_by(|a, b| b.worst().total_cmp(&a.worst()));
    let off = rows.iter().filter(|r| r.worst() > 1.02).count();
    rows.truncate(off.clamp(LEAST, MOST));
    rows
}

fn picture(title: &str, lines: &[Line], rows: &[Row]) -> Outcome<String> {
    let entries = lines.iter().enumerate().map(|(i, l)| (Swatch::Mark(mark(i), series(i)), l.legend.clone()));
    let seven = (Swatch::Dashed(ALERT), "7 % over the best".to_string());
    let legend = Legend::new(entries.chain([seven]).collect());
    let high = rows.iter().map(Row::worst).fold(1.2, f64::max) * 1.04;
    let low = 0.98;
    super::svg(title, legend.height + rows.len() as i32 * ROW + 52, |root| {
        legend.draw(root)?;
        let margins = Margins { top: legend.height, right: 60, bottom: 52, left: NAMES };
        let ticks = [1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 50.0, 100.0];
        let x = Axis::log("time over the best candidate's (logarithmic)", low, high);
        let x = x.ticks(ticks.into_iter().filter(|t| *t <= high));
        let plot = Plot::new(root, margins, x, Axis::rows(rows.len() as f64))?;
        plot.line([(1.0, 0.0), (1.0, rows.len() as f64)], INK.stroke_width(2))?;
        plot.dashed((1.07, 0.0), (1.07, rows.len() as f64), ALERT.stroke_width(1))?;
        for (i, row) in rows.iter().enumerate() {
            let middle = i as f64 + 0.5;
            let name = fitted(&row.name, NAMES - 16);
            plot.text(&name, (low, middle), (-8, 0), text_style(SMALL, INK, Anchor::Right))?;
            plot.line([(1.0, middle), (row.worst(), middle)], MUTED.mix(0.5).stroke_width(1))?;
            for &(line, loss) in &row.losses {
                // Numbers of threads one below the other: the good choices would hide each other.
                let y = i as f64 + (lines[line].at as f64 + 0.5) / (lines[lines.len() - 1].at as f64 + 1.0);
                plot.mark(mark(line), (loss, 0.5 * (middle + y)), series(line))?;
            }
            let text = format!("{:.2}", row.worst());
            plot.text(&text, (row.worst(), middle), (9, 0), text_style(SMALL - 1.0, MUTED, Anchor::Left))?;
        }
        Ok(())
    })
}
