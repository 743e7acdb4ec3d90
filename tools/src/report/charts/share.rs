//! How much of the machine each layer uses, and how much that matters.

use plotters::prelude::*;

use super::theme::{ALERT, Anchor, INK, MUTED, series, text_style};
use super::{Axis, Figure, Legend, Margins, NAMES, Plot, SMALL, Swatch, WIDTH, fitted};
use crate::failure::Outcome;
use crate::report::data::{Layer, Report, Set};
use crate::report::figures;

const ROW: i32 = 20;
/// Where the second column begins.
const SECOND: i32 = 740;

/// Draws a set on the smallest number of threads.
pub fn draw(report: &Report, set: &Set) -> Outcome<Figure> {
    let threads = report.threads[0];
    let title = format!("Share of the FMA peak on {}, {}", set.name, figures::threads(threads));
    let names = report.algorithms();
    let used = names.iter().enumerate().filter(|(_, n)| set.layers.iter().any(|l| l.runs[0].chosen().algorithm == **n));
    let mut entries: Vec<_> = used.map(|(i, n)| (Swatch::Fill(series(i)), n.clone())).collect();
    entries.push((Swatch::Dashed(ALERT), "the peak".into()));
    entries.push((Swatch::Fill(MUTED), "share of the set's time".into()));
    let legend = Legend::new(entries);
    let rows = set.layers.len() as i32 * ROW;
    let total: f64 = figures::runs(set, 0).map(|(l, r)| r.chosen().ms * l.times as f64).sum();
    let share = |l: &Layer| 100.0 * figures::share(report, l, &l.runs[0]);
    let part = |l: &Layer| 100.0 * l.runs[0].chosen().ms * l.times as f64 / total;
    let limit = set.layers.iter().map(share).fold(100.0, f64::max) * 1.02;
    let most = set.layers.iter().map(part).fold(0.0, f64::max);
    let svg = super::svg(&title, legend.height + rows + 52, |root| {
        legend.draw(root)?;
        let margins = Margins { top: legend.height, right: WIDTH as i32 - SECOND + 70, bottom: 52, left: NAMES };
        let x = Axis::linear("share of the peak (%)", 0.0, limit, 6);
        let shares = Plot::new(root, margins, x, Axis::rows(set.layers.len() as f64))?;
        let margins = Margins { top: legend.height, right: 60, bottom: 52, left: SECOND };
        let x = Axis::linear("share of time (%)", 0.0, most, 3);
        let parts = Plot::new(root, margins, x, Axis::rows(set.layers.len() as f64))?;
        for (i, layer) in set.layers.iter().enumerate() {
            let rows = [i as f64 + 0.15, i as f64 + 0.85];
            let middle = i as f64 + 0.5;
            let name = fitted(&layer.label_and_times(&set.name), NAMES - 16);
            shares.text(&name, (0.0, middle), (-8, 0), text_style(SMALL, INK, Anchor::Right))?;
            let algorithm = &layer.runs[0].chosen().algorithm;
            let colour = series(names.iter().position(|n| n == algorithm).unwrap_or(0));
            shares.bar([0.0, share(layer)], rows, colour.filled())?;
            parts.bar([0.0, part(layer)], rows, MUTED.filled())?;
            let label = text_style(SMALL - 1.0, INK, Anchor::Left);
            parts.text(&format!("{:.1} %", part(layer)), (part(layer), middle), (5, 0), label)?;
        }
        // Texts come last, on top of the line.
        shares.dashed((100.0, 0.0), (100.0, set.layers.len() as f64), ALERT.stroke_width(1))?;
        for (i, share) in set.layers.iter().map(share).enumerate() {
            let label = text_style(SMALL - 1.0, INK, Anchor::Left);
            shares.text(&format!("{share:.0} %"), (share, i as f64 + 0.5), (5, 0), label)?;
        }
        Ok(())
    })?;
    let caption = "Left, how much of the multiply-add peak each layer's chosen algorithm reaches; more than 100 % is Winograd, \
                   a matrix unit or skipped padding. Right, how much of the whole set's time goes into it, as often as it occurs. A short bar on \
                   the left with a long one on the right is where work pays.";
    Ok(Figure {
        set: Some(set.name.clone()),
        id: format!("share-{}", super::id(&set.name)),
        title,
        svg,
        caption: caption.into(),
    })
}
