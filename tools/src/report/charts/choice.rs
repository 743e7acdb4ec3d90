//! How good the choices of algorithms are.

use plotters::prelude::*;

use super::theme::{Anchor, INK, MUTED, mark, series, text_style};
use super::{Axis, Figure, Labels, Legend, Margins, Plot, SMALL, Swatch};
use crate::failure::Outcome;
use crate::report::data::{Report, TUNED};
use crate::report::figures::{self, Quality};

/// Losses beyond this are drawn at the border.
const LIMIT: f64 = 2.0;

/// One line for each way of choosing and number of threads: the losses of all problems, ascending.
pub fn draw(report: &Report) -> Outcome<Figure> {
    let mut lines: Vec<(Quality, usize)> = Vec::new();
    for (at, &threads) in report.threads.iter().enumerate() {
        lines.extend(figures::qualities(report, at).into_iter().map(|q| (q, threads)));
    }
    let name = |q: &Quality, threads: usize| {
        let [two, seven] = [1.02, 1.07].map(|l| 100.0 * q.within(l));
        let (name, threads) = (q.name(), figures::threads(threads));
        format!("{name}, {threads}: within 2 % on {two:.0} %, within 7 % on {seven:.0} %")
    };
    let entries = lines.iter().enumerate().map(|(i, (q, t))| (Swatch::Mark(mark(i), series(i)), name(q, *t)));
    let legend = Legend::new(entries.collect());
    let worst = lines.iter().filter_map(|(q, _)| q.losses.last()).map(|l| l.0).fold(1.1, f64::max);
    let top = (worst * 1.05).min(LIMIT);
    let title = "Tuned against untuned: choices against the best candidate";
    let svg = super::svg(title, legend.height + 320, |root| {
        legend.draw(root)?;
        let margins = Margins { top: legend.height, right: 24, bottom: 52, left: 70 };
        let x = Axis::linear("problems, sorted by their loss (%)", 0.0, 100.0, 10);
        let y = Axis::linear("time over the best candidate's", 1.0, top, 6).labels(|v| format!("{v:.2}"));
        let plot = Plot::new(root, margins, x, y)?;
        for limit in [1.02, 1.07] {
            plot.dashed((0.0, limit), (100.0, limit), MUTED.stroke_width(1))?;
            let text = format!("{:.0} % slower", 100.0 * (limit - 1.0));
            plot.text(&text, (0.0, limit), (6, -8), text_style(SMALL, MUTED, Anchor::Left))?;
        }
        let mut labels = Labels::default();
        let mut named = Vec::new();
        for (i, (q, _)) in lines.iter().enumerate() {
            let count = q.losses.len() as f64;
            let points = q.losses.iter().enumerate().map(|(j, (l, _))| (100.0 * (j as f64 + 0.5) / count, l.min(top)));
            let points: Vec<(f64, f64)> = points.collect();
            plot.line(points.clone(), series(i).stroke_width(1))?;
            for (&point, (loss, label)) in points.iter().zip(&q.losses) {
                // Where all is well, a line is enough.
                if *loss > 1.005 {
                    plot.mark(mark(i), point, series(i))?;
                    labels.keep_free(plot.pixel(point.0, point.1));
                }
                if *loss > 1.07 {
                    named.push((*loss, point, label));
                }
            }
        }
        named.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (loss, (x, y), label) in named.into_iter().take(8) {
            let text = format!("{label}: {loss:.2}");
            labels.place(&plot, &text, plot.pixel(x, y))?;
        }
        plot.line([(0.0, 1.0), (100.0, 1.0)], INK.stroke_width(1))
    })?;
    let caption = format!(
        "For every problem, the time of the algorithm that was chosen over that of the fastest one measured; 1 is the best that the \
         table of algorithms can do. The longer a line stays on the floor, the better the choice. Two algorithms within a per cent \
         of each other are a tie that noise decides. Losses above {LIMIT:.0} stand at the upper border. {}",
        if report.choosers().iter().any(|by| by == TUNED) {
            "Untuned is the cost model's choice, tuned what the tuning table says of a problem."
        } else {
            "No tuning table knows these problems: after swath tune, the tuned choices are a second line."
        }
    );
    Ok(Figure { set: None, id: "choices".into(), title: title.into(), svg, caption })
}
