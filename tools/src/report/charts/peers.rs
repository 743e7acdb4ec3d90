//! Ratios to other libraries.

use plotters::prelude::*;

use super::theme::{ALERT, Anchor, INK, MUTED, mark, series, text_style};
use super::{Axis, Figure, Legend, Margins, NAMES, Plot, SMALL, Swatch, fitted};
use crate::failure::Outcome;
use crate::report::data::{Report, Set};
use crate::report::figures;

const ROW: i32 = 22;

/// Draws a set's ratios to every peer on every number of threads; nothing where no peer has a time.
pub fn draw(report: &Report, set: &Set) -> Outcome<Option<Figure>> {
    let mut lines = Vec::new();
    for peer in report.peers() {
        for (at, &threads) in report.threads.iter().enumerate() {
            if let Some(v) = figures::versus(set, at, &peer) {
                let text = format!(
                    "{}, {}: geometric mean {:.2}, total {:.2}",
                    peer,
                    figures::threads(threads),
                    v.mean,
                    v.total
                );
                lines.push((peer.clone(), at, text));
            }
        }
    }
    if lines.is_empty() {
        return Ok(None);
    }
    let entries = lines.iter().enumerate().map(|(i, l)| (Swatch::Mark(mark(i), series(i)), l.2.clone()));
    let legend = Legend::new(entries.collect());
    let ratio = |layer: usize, line: &(String, usize, String)| {
        let run = &set.layers[layer].runs[line.1];
        Some(run.peer(&line.0)? / run.chosen().ms)
    };
    let all = || (0..set.layers.len()).flat_map(|l| lines.iter().filter_map(move |line| ratio(l, line)));
    let (low, high) = (all().fold(0.9, f64::min) / 1.06, all().fold(1.2, f64::max) * 1.06);
    let title = format!("{} against peers", set.name);
    let rows = set.layers.len();
    let svg = super::svg(&title, legend.height + rows as i32 * ROW + 56, |root| {
        legend.draw(root)?;
        let margins = Margins { top: legend.height, right: 60, bottom: 52, left: NAMES };
        let x = Axis::log("peer's time over swath's (logarithmic): above 1, swath is faster", low, high);
        let candidates =
            [0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0];
        let x = x.ticks(candidates.into_iter().filter(|t| (low..=high).contains(t)));
        let plot = Plot::new(root, margins, x, Axis::rows(rows as f64))?;
        plot.line([(1.0, 0.0), (1.0, rows as f64)], INK.stroke_width(2))?;
        for (i, layer) in set.layers.iter().enumerate() {
            let middle = i as f64 + 0.5;
            let name = fitted(&layer.label(&set.name), NAMES - 16);
            plot.text(&name, (low, middle), (-8, 0), text_style(SMALL, INK, Anchor::Right))?;
            let ratios: Vec<(usize, f64)> =
                lines.iter().enumerate().filter_map(|(j, line)| Some((j, ratio(i, line)?))).collect();
            let Some(best) = ratios.iter().map(|r| r.1).max_by(f64::total_cmp) else { continue };
            let worst = ratios.iter().map(|r| r.1).fold(best, f64::min);
            plot.line([(worst.min(1.0), middle), (best.max(1.0), middle)], MUTED.mix(0.5).stroke_width(1))?;
            for (j, r) in &ratios {
                plot.mark(mark(*j), (*r, middle), series(*j))?;
            }
            let colour = if worst < 0.97 { ALERT } else { MUTED };
            let style = text_style(SMALL - 1.0, colour, Anchor::Left);
            plot.text(&format!("{worst:.2}"), (best.max(1.0), middle), (9, 0), style)?;
        }
        Ok(())
    })?;
    let caption = "How many times swath is as fast as each peer, layer by layer; to the right of the line swath is faster. The \
                   number is the layer's lowest ratio, red below 0.97.";
    Ok(Some(Figure {
        set: Some(set.name.clone()),
        id: format!("peers-{}", super::id(&set.name)),
        title,
        svg,
        caption: caption.into(),
    }))
}
