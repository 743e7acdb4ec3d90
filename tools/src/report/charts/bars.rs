//! Every algorithm on every layer of a set.

use plotters::prelude::*;

use super::theme::{ALERT, Anchor, INK, MUTED, series, text_style};
use super::{Axis, Figure, Legend, Margins, NAMES, Plot, SMALL, Swatch, fitted};
use crate::failure::Outcome;
use crate::report::data::{Report, Set};
use crate::report::figures;

/// Pixels of a bar with its gap, and between layers.
const BAR: i32 = 14;
const GAP: i32 = 8;

/// Draws the bars of a set, on the smallest number of threads.
pub fn draw(report: &Report, set: &Set) -> Outcome<Figure> {
    let threads = report.threads[0];
    let peak = report.machine.peak * threads as f64;
    let names = report.algorithms();
    let title = format!("Algorithms on {}, {}", set.name, figures::threads(threads));
    let used = names.iter().enumerate().filter(|(_, n)| set.layers.iter().any(|l| l.runs[0].ms(n).is_some()));
    let mut entries: Vec<_> = used.map(|(i, n)| (Swatch::Fill(series(i)), n.clone())).collect();
    entries.push((Swatch::Dashed(ALERT), format!("FMA peak, {peak:.0} GFLOP/s")));
    let legend = Legend::new(entries);
    let bars: usize = set.layers.iter().map(|l| l.runs[0].algorithms.len()).sum();
    let rows = bars as i32 * BAR + set.layers.len() as i32 * GAP;
    let times = set.layers.iter().flat_map(|l| l.runs[0].algorithms.iter().map(|t| l.gflops(t.ms)));
    let limit = times.fold(peak, f64::max) * 1.02;
    let svg = super::svg(&title, legend.height + rows + 52, |root| {
        legend.draw(root)?;
        let margins = Margins { top: legend.height, right: 150, bottom: 52, left: NAMES };
        let plot =
            Plot::new(root, margins, Axis::linear("speed (GFLOP/s)", 0.0, limit, 8), Axis::rows(f64::from(rows)))?;
        let mut texts = Vec::new();
        let mut y = f64::from(GAP) / 2.0;
        for layer in &set.layers {
            let run = &layer.runs[0];
            let middle = y + f64::from(run.algorithms.len() as i32 * BAR) / 2.0;
            let name = fitted(&layer.label_and_times(&set.name), NAMES - 16);
            plot.text(&name, (0.0, middle), (-8, 0), text_style(SMALL, INK, Anchor::Right))?;
            for time in &run.algorithms {
                let colour = series(names.iter().position(|n| *n == time.algorithm).unwrap_or(0));
                let chosen = time.algorithm == run.chosen().algorithm;
                let speed = layer.gflops(time.ms);
                let style = if chosen { colour.filled() } else { colour.mix(0.45).filled() };
                plot.bar([0.0, speed], [y, y + f64::from(BAR) - 2.0], style)?;
                texts.push(((speed, y + f64::from(BAR) / 2.0 - 1.0), &time.algorithm, chosen));
                y += f64::from(BAR);
            }
            y += f64::from(GAP);
        }
        // Texts come last, on top of the line.
        plot.dashed((peak, 0.0), (peak, f64::from(rows)), ALERT.stroke_width(1))?;
        for (at, algorithm, chosen) in texts {
            let text = format!("{:.1} {algorithm}{}", at.0, if chosen { " \u{25c0} chosen" } else { "" });
            let style = text_style(SMALL - 1.0, if chosen { INK } else { MUTED }, Anchor::Left);
            plot.text(&text, at, (5, 0), style)?;
        }
        Ok(())
    })?;
    let caption = "Every algorithm that supports a layer, timed in turn with the others; the full-coloured bar with the arrow is \
                   the one that the plan takes. A longer bar next to it is speed that the choice leaves behind.";
    Ok(Figure {
        set: Some(set.name.clone()),
        id: format!("algorithms-{}", super::id(&set.name)),
        title,
        svg,
        caption: caption.into(),
    })
}
