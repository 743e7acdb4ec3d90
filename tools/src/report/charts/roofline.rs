//! The roofline of Williams, Waterman and Patterson: what bounds each layer.

use plotters::prelude::*;

use super::theme::{Anchor, INK, MUTED, mark, series, text_style};
use super::{Axis, Figure, Labels, Legend, Margins, Plot, SMALL, Swatch};
use crate::failure::Outcome;
use crate::report::data::Report;
use crate::report::figures;

/// One layer.
struct Point {
    x: f64,
    y: f64,
    algorithm: usize,
    label: String,
    /// Share of the lower of the two roofs: the peak, and what the nearest shared reading rate allows.
    reached: f64,
}

/// Labels that fit without hiding the points.
const LABELS: usize = 7;

/// Draws the layers of the smallest number of threads.
pub fn draw(report: &Report) -> Outcome<Figure> {
    let threads = report.threads[0];
    let peak = report.machine.peak * threads as f64;
    let names = report.algorithms();
    // L1 is left out: tiles read it at the rate of their instructions, whatever a layer's size.
    let shared = report.machine.bandwidths.iter().filter(|b| b.from != "L1");
    let roofs: Vec<(&str, f64)> = shared.map(|b| (b.from.as_str(), b.gb_per_s * threads as f64)).collect();
    let nearest = roofs.iter().map(|r| r.1).fold(0.0, f64::max);
    let points: Vec<Point> = report
        .layers()
        .map(|(set, l)| {
            let time = l.runs[0].chosen();
            let (x, y) = (l.intensity(), l.gflops(time.ms));
            let roof = if nearest > 0.0 { peak.min(x * nearest) } else { peak };
            let algorithm = names.iter().position(|n| *n == time.algorithm).unwrap_or(0);
            Point { x, y, algorithm, label: format!("{set} {}", l.label(set)), reached: y / roof }
        })
        .collect();
    let title = format!("Roofline, {}", figures::threads(threads));
    let above = points.iter().filter(|p| p.y > peak).count();
    let svg = picture(&title, peak, &roofs, &points, &names)?;
    let cores = if threads == 1 { "" } else { ", one core's times the threads" };
    let caption = format!(
        "Each point is a layer with its chosen algorithm: how many operations it has for each byte that must move at least once \
         (input, weights, output), and how fast it runs. Sloping roofs are the measured rates of reading{cores}, the flat one is \
         the peak of multiply-adds. Points on the flat roof are bound by arithmetic, points far below every roof leave speed \
         behind; the {LABELS} furthest below are named. {above} of {} lie above the flat roof: operations count every tap as \
         the direct algorithm has them, but Winograd does with fewer multiplications, `bf16x6` has a matrix unit do them, and taps \
         that fall into the padding are skipped.",
        points.len()
    );
    Ok(Figure { set: None, id: "roofline".into(), title, svg, caption })
}

fn picture(title: &str, peak: f64, roofs: &[(&str, f64)], points: &[Point], names: &[String]) -> Outcome<String> {
    let used = names.iter().enumerate().filter(|(i, _)| points.iter().any(|p| p.algorithm == *i));
    let mut entries: Vec<_> = used.map(|(i, n)| (Swatch::Mark(mark(i), series(i)), n.clone())).collect();
    entries.push((Swatch::Line(INK), format!("FMA peak, {peak:.0} GFLOP/s")));
    entries.push((Swatch::Line(MUTED), "rate of reading".into()));
    let legend = Legend::new(entries);
    let fold = |f: fn(&Point) -> f64, start: f64, op: fn(f64, f64) -> f64| points.iter().map(f).fold(start, op);
    // All roofs meet the peak inside the picture.
    let ridges = || roofs.iter().map(|r| peak / r.1);
    let (low, high) = (ridges().fold(f64::INFINITY, f64::min), ridges().fold(1.0, f64::max));
    let x = (fold(|p| p.x, low, f64::min) * 0.6, fold(|p| p.x, high, f64::max) * 1.6);
    let y = (fold(|p| p.y, peak, f64::min) * 0.5, fold(|p| p.y, peak, f64::max) * 1.6);
    super::svg(title, 560, |root| {
        legend.draw(root)?;
        let margins = Margins { top: legend.height, right: 24, bottom: 52, left: 70 };
        let x_axis = Axis::log("operations per byte (FLOP/byte, logarithmic)", x.0, x.1);
        let plot = Plot::new(root, margins, x_axis, Axis::log("speed (GFLOP/s, logarithmic)", y.0, y.1))?;
        let mut labels = Labels::default();
        for p in points {
            labels.keep_free(plot.pixel(p.x, p.y));
        }
        plot.line([(x.0, peak), (x.1, peak)], INK.stroke_width(2))?;
        for (i, (from, rate)) in roofs.iter().enumerate() {
            // From the left or the lower border to the peak.
            let (start, end) = (x.0.max(y.0 / rate), (peak / rate).min(x.1));
            if start < end {
                plot.line([(start, start * rate), (end, end * rate)], MUTED.stroke_width(1))?;
                // Above the peak, where layers of few operations never are; each a line lower than the one before.
                let text = format!("{from} {rate:.0} GB/s");
                let up = 14 * (roofs.len() - i) as i32;
                plot.text(&text, (end, end * rate), (4, 2 - up), text_style(SMALL, MUTED, Anchor::Left))?;
                plot.stem((end, end * rate), up)?;
            }
        }
        for p in points {
            plot.mark(mark(p.algorithm), (p.x, p.y), series(p.algorithm))?;
        }
        let mut lowest: Vec<&Point> = points.iter().collect();
        lowest.sort_by(|a, b| a.reached.total_cmp(&b.reached));
        for p in lowest.into_iter().take(LABELS) {
            labels.place(&plot, &p.label, plot.pixel(p.x, p.y))?;
        }
        Ok(())
    })
}
