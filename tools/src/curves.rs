//! The picture of a training run: loss and accuracy by epoch.

use plotters::prelude::*;

use crate::epochs::Logged;
use crate::failure::{Failure, Outcome};

/// Width and height of the picture, in pixels.
const SIZE: (u32, u32) = (900, 340);

/// Draws the curves as SVG.
pub fn draw(log: &[Logged]) -> Outcome<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(Failure::new)?;
        let (left, right) = area.split_horizontally(SIZE.0 / 2);
        let points = |of: fn(&Logged) -> Option<f64>| -> Vec<(f64, f64)> {
            log.iter().filter_map(|l| Some((l.epoch as f64 + 1.0, of(l)?))).collect()
        };
        chart(&left, "loss", &[("training", points(|l| Some(l.loss)), BLUE)], 0.0)?;
        let share = [("training", points(|l| l.accuracy), BLUE), ("validation", points(|l| l.validation), RED)];
        let least = share.iter().flat_map(|(_, p, _)| p).map(|p| p.1).fold(1.0, f64::min);
        chart(&right, "share that is right", &share, (least - 0.01).max(0.0))?;
        area.present().map_err(Failure::new)?;
    }
    Ok(svg)
}

/// A line with its name and colour.
type Line = (&'static str, Vec<(f64, f64)>, RGBColor);

fn chart(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    lines: &[Line],
    floor: f64,
) -> Outcome<()> {
    let all = || lines.iter().flat_map(|(_, points, _)| points);
    let last = all().map(|p| p.0).fold(2.0, f64::max);
    let top = all().map(|p| p.1).fold(floor + 1e-6, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(56)
        .build_cartesian_2d(1.0..last, floor..top + (top - floor) * 0.05)
        .map_err(Failure::new)?;
    let whole = |epoch: &f64| format!("{epoch:.0}");
    let labels = (last as usize).min(10);
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("epoch").max_light_lines(0).x_labels(labels).x_label_formatter(&whole).draw().map_err(Failure::new)?;
    for (name, points, color) in lines {
        let color = *color;
        let line = LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3);
        let drawn = chart.draw_series(line).map_err(Failure::new)?;
        drawn.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    if lines.len() > 1 {
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::LowerRight).border_style(BLACK).draw().map_err(Failure::new)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_of_any_length_are_drawn() {
        let logged = |epoch, loss, validation| Logged {
            epoch,
            loss,
            accuracy: Some(0.5),
            validation,
            lr: 1e-3,
            seconds: 1.0,
            images_per_second: 1.0,
        };
        for n in 0..4 {
            let log: Vec<Logged> = (0..n).map(|i| logged(i, 2.0 / (i + 1) as f64, (i > 0).then_some(0.9))).collect();
            let svg = draw(&log).unwrap();
            roxmltree::Document::parse(&svg).unwrap();
            assert!(svg.contains("loss") && svg.contains("validation"));
        }
    }
}
