//! Speed against threads.

use plotters::prelude::*;

use super::theme::{INK, MUTED, mark, series};
use super::{Axis, Figure, Labels, Legend, Margins, Plot, Swatch};
use crate::failure::Outcome;
use crate::report::data::{Layer, Report, Set};
use crate::report::figures;

/// Left, each set's total time against threads; right, each layer's speed-up on the most threads against its size.
/// Nothing for a single number of threads.
pub fn draw(report: &Report) -> Outcome<Option<Figure>> {
    let (Some(&first), Some(&last)) = (report.threads.first(), report.threads.last()) else { return Ok(None) };
    if first == last {
        return Ok(None);
    }
    let ideal = last as f64 / first as f64;
    let at = report.threads.len() - 1;
    let sets: Vec<_> = report.sets.iter().filter(|s| !s.layers.is_empty()).collect();
    let speedup = |l: &Layer, i: usize| l.runs[0].chosen().ms / l.runs[i].chosen().ms;
    let total = |s: &Set, i| figures::figures(report, s, i).map_or(f64::NAN, |f| f.total_ms);
    let mut entries: Vec<_> =
        sets.iter().enumerate().map(|(i, s)| (Swatch::Mark(mark(i), series(i)), s.name.clone())).collect();
    entries.push((Swatch::Line(MUTED), "a layer".into()));
    entries.push((Swatch::Dashed(INK), "ideal".into()));
    let legend = Legend::new(entries);
    let title = format!("Speed against threads, {first} to {last}");
    let most = report.layers().map(|(_, l)| speedup(l, at)).fold(ideal, f64::max) * 1.05;
    let least = report.layers().map(|(_, l)| speedup(l, at)).fold(1.0, f64::min) * 0.95;
    let svg = super::svg(&title, legend.height + 400, |root| {
        legend.draw(root)?;
        let y = Axis::linear(&format!("speed-up over {}", figures::threads(first)), least.min(0.95), most, 6);
        let margins = Margins { top: legend.height, right: 580, bottom: 52, left: 70 };
        let x = Axis::linear("threads", first as f64, last as f64, 6).ticks(report.threads.iter().map(|t| *t as f64));
        let plot = Plot::new(root, margins, x, y.clone())?;
        let threads = || report.threads.iter().map(|t| *t as f64).enumerate();
        for (_, l) in report.layers() {
            plot.line(threads().map(|(i, t)| (t, speedup(l, i))), MUTED.mix(0.3).stroke_width(1))?;
        }
        for (i, set) in sets.iter().enumerate() {
            let points: Vec<_> = threads().map(|(j, t)| (t, total(set, 0) / total(set, j))).collect();
            plot.line(points.clone(), series(i).stroke_width(2))?;
            for point in points {
                plot.mark(mark(i), point, series(i))?;
            }
        }
        plot.dashed((first as f64, 1.0), (last as f64, ideal), INK.stroke_width(1))?;
        let margins = Margins { top: legend.height, right: 24, bottom: 52, left: 480 };
        let sizes = || report.layers().map(|(_, l)| l.flop as f64 / 1e6);
        let (low, high) = (sizes().fold(f64::INFINITY, f64::min) * 0.7, sizes().fold(0.0, f64::max) * 1.5);
        let plot = Plot::new(root, margins, Axis::log("size of the layer (MFLOP, logarithmic)", low, high), y)?;
        plot.dashed((low, ideal), (high, ideal), INK.stroke_width(1))?;
        let mut labels = Labels::default();
        let mut lowest = Vec::new();
        for (i, set) in sets.iter().enumerate() {
            for l in &set.layers {
                let point = (l.flop as f64 / 1e6, speedup(l, at));
                plot.mark(mark(i), point, series(i))?;
                labels.keep_free(plot.pixel(point.0, point.1));
                lowest.push((point, format!("{} {}", set.name, l.label(&set.name))));
            }
        }
        // Small layers run on one thread on purpose: the slowest of the large ones are worth a name.
        lowest.retain(|((mflop, speed), _)| *mflop > 50.0 && *speed < 0.93 * ideal);
        lowest.sort_by(|a, b| a.0.1.total_cmp(&b.0.1));
        for ((x, y), label) in lowest.into_iter().take(5) {
            labels.place(&plot, &label, plot.pixel(x, y))?;
        }
        Ok(())
    })?;
    let large: Vec<f64> =
        report.layers().filter(|(_, l)| l.flop > 50_000_000).map(|(_, l)| speedup(l, at) / ideal).collect();
    let good = large.iter().filter(|e| **e >= 0.93).count();
    let caption = format!(
        "Left, each set's whole time (each layer as often as it occurs) on more threads; thin lines are single layers. Right, the \
         speed-up of each layer on {last} threads against its size: the dashed line is the ideal, layers of a few MFLOP are too \
         short to share out, and the plan runs the shortest on one thread. {good} of {} layers above 50 MFLOP reach an efficiency of \
         0.93; the lowest of the others are named.",
        large.len()
    );
    Ok(Some(Figure { set: None, id: "threads".into(), title, svg, caption }))
}
