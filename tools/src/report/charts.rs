//! Pictures: one file each, all drawn with what is here, so that they look alike.

mod bars;
mod choice;
mod peers;
mod roofline;
mod share;
mod speedup;
pub mod theme;

use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;

use super::data::Report;
use crate::failure::{Failure, Outcome};
use theme::{Anchor, GRID, INK, MUTED, Mark, text_style};

/// Width of every picture, in its own units.
pub const WIDTH: u32 = 960;
/// Room for the names of layers beside rows.
pub const NAMES: i32 = 318;
/// Size of the text of axes and labels.
pub const SMALL: f64 = 12.0;

/// What a picture is drawn on.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A picture with what belongs to it.
pub struct Figure {
    /// The set that it shows; `None` for the whole report.
    pub set: Option<String>,
    /// For links.
    pub id: String,
    /// Above the picture.
    pub title: String,
    /// The picture: an `<svg>` element.
    pub svg: String,
    /// What to see in it.
    pub caption: String,
}

/// All pictures of the whole report, then those of every set.
pub fn all(report: &Report) -> Outcome<Vec<Figure>> {
    let mut figures = Vec::new();
    if report.layers().next().is_none() {
        return Ok(figures);
    }
    figures.push(roofline::draw(report)?);
    figures.extend(speedup::draw(report)?);
    figures.push(choice::draw(report)?);
    for set in report.sets.iter().filter(|s| !s.layers.is_empty()) {
        figures.push(share::draw(report, set)?);
        figures.push(bars::draw(report, set)?);
        figures.extend(peers::draw(report, set)?);
    }
    Ok(figures)
}

impl From<DrawingAreaErrorKind<std::io::Error>> for Failure {
    fn from(e: DrawingAreaErrorKind<std::io::Error>) -> Self {
        Failure::new(format_args!("cannot draw: {e}"))
    }
}

/// A name as part of an identifier.
pub fn id(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// Draws an `<svg>` element of that height.
pub fn svg(title: &str, height: i32, draw: impl FnOnce(&Area<'_>) -> Outcome<()>) -> Outcome<String> {
    let mut out = String::new();
    {
        let root = SVGBackend::with_string(&mut out, (WIDTH, height.max(1) as u32)).into_drawing_area();
        draw(&root)?;
        root.present()?;
    }
    // For whoever hears the page instead of seeing it.
    let title = maud::html! { (title) }.into_string();
    Ok(out.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{title}\" "), 1))
}

/// An axis: how values become coordinates, and where its ticks are.
#[derive(Clone)]
pub struct Axis {
    title: String,
    from: f64,
    to: f64,
    log: bool,
    ticks: Vec<f64>,
}

/// At most four digits after the point, and none that say nothing.
fn number(v: f64) -> String {
    let text = format!("{v:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

impl Axis {
    /// From `from` to `to` or a little further, with about `count` round ticks.
    pub fn linear(title: &str, from: f64, to: f64, count: usize) -> Self {
        // An axis has two ends and something between them, whatever a report says. Half the largest float leaves room for
        // the difference of two.
        let [from, to] = [from, to].map(|v| if v.is_nan() { 0.0 } else { v.clamp(f64::MIN / 2.0, f64::MAX / 2.0) });
        let to = to.max(from + 1e-3).max(from + from.abs() * 1e-9);
        let rough = (to - from) / count as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough * 0.999);
        let step = step.unwrap_or(10.0 * power);
        let first = (from / step).ceil();
        // As many as there is room for, also where rounding says otherwise.
        let ticks = (0..=count + 1).map(|i| (first + i as f64) * step).take_while(|t| *t <= to + 1e-9).collect();
        Axis { title: title.into(), from, to, log: false, ticks }
    }

    /// Logarithmic; ticks at 1, 2 and 5 times powers of ten, or at these alone where that is too many.
    pub fn log(title: &str, from: f64, to: f64) -> Self {
        let (low, high) = (from.log10().floor() as i32, to.log10().ceil() as i32);
        let ticks = (low..=high).flat_map(|e| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(e)));
        let mut ticks: Vec<f64> = ticks.filter(|t| (from..=to).contains(t)).collect();
        if ticks.len() > 10 {
            ticks = (low..=high).map(|e| 10f64.powi(e)).filter(|t| (from..=to).contains(t)).collect();
        }
        Axis { title: title.into(), from, to, log: true, ticks }
    }

    /// Rows of a list, the first on top, without ticks.
    pub fn rows(count: f64) -> Self {
        Axis { title: String::new(), from: count, to: 0.0, log: false, ticks: Vec::new() }
    }

    /// With these ticks.
    pub fn ticks(self, ticks: impl IntoIterator<Item = f64>) -> Self {
        Axis { ticks: ticks.into_iter().collect(), ..self }
    }

    fn at(&self, v: f64) -> f64 {
        if self.log { v.log10() } else { v }
    }

    fn value(&self, at: f64) -> f64 {
        if self.log { 10f64.powf(at) } else { at }
    }

    fn coordinates(&self) -> Coordinates {
        Coordinates {
            from: self.at(self.from),
            to: self.at(self.to),
            ticks: self.ticks.iter().map(|t| self.at(*t)).collect(),
        }
    }
}

/// An axis as plotters sees it: linear, with ticks where the axis wants them.
struct Coordinates {
    from: f64,
    to: f64,
    ticks: Vec<f64>,
}

impl Ranged for Coordinates {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (value - self.from) / (self.to - self.from);
        // Within a picture's length of the picture, so that no line, dashes and all, is longer than three.
        let length = f64::from(limit.1 - limit.0);
        limit.0 + (part * length).clamp(-length.abs(), 2.0 * length.abs()).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

/// Room around a plot, in pixels of the picture.
#[derive(Clone, Copy)]
pub struct Margins {
    /// Above.
    pub top: i32,
    /// To the right.
    pub right: i32,
    /// Below: 48 hold ticks and title of the axis.
    pub bottom: i32,
    /// To the left: 64 hold ticks and title of the axis.
    pub left: i32,
}

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Coordinates, Coordinates>>;

/// Axes, and a way of drawing at values.
pub struct Plot<'a> {
    root: Area<'a>,
    chart: Chart<'a>,
    x: Axis,
    y: Axis,
}

impl<'a> Plot<'a> {
    /// Draws the axes.
    pub fn new(root: &Area<'a>, margins: Margins, x: Axis, y: Axis) -> Outcome<Self> {
        let title_and_ticks = |axis: &Axis, size: i32| if axis.ticks.is_empty() { 0 } else { size };
        let (below, beside) = (title_and_ticks(&x, 48), title_and_ticks(&y, 64));
        let mut chart = ChartBuilder::on(root)
            .margin_top(margins.top)
            .margin_right(margins.right)
            .margin_bottom(margins.bottom - below)
            .margin_left(margins.left - beside)
            .x_label_area_size(below)
            .y_label_area_size(beside)
            .build_cartesian_2d(x.coordinates(), y.coordinates())?;
        let (fx, fy) = (|v: &f64| number(x.value(*v)), |v: &f64| number(y.value(*v)));
        let mut mesh = chart.configure_mesh();
        mesh.bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(MUTED)
            .x_labels(x.ticks.len())
            .y_labels(y.ticks.len())
            .x_label_formatter(&fx)
            .y_label_formatter(&fy)
            .label_style(text_style(SMALL, MUTED, Anchor::Left))
            .axis_desc_style(text_style(SMALL + 1.0, INK, Anchor::Left))
            .x_desc(&x.title)
            .y_desc(&y.title);
        if y.ticks.is_empty() {
            mesh.disable_y_mesh().disable_y_axis();
        }
        mesh.draw()?;
        Ok(Plot { root: root.clone(), chart, x, y })
    }

    /// Where a value is in the picture.
    pub fn pixel(&self, x: f64, y: f64) -> (i32, i32) {
        self.chart.backend_coord(&(self.x.at(x), self.y.at(y)))
    }

    /// The corners of the plot: left, top, right, bottom.
    pub fn bounds(&self) -> (i32, i32, i32, i32) {
        let (x, y) = self.chart.plotting_area().get_pixel_range();
        (x.start, y.start, x.end, y.end)
    }

    /// A line through values.
    pub fn line(&self, points: impl IntoIterator<Item = (f64, f64)>, style: ShapeStyle) -> Outcome<()> {
        let points: Vec<_> = points.into_iter().map(|(x, y)| self.pixel(x, y)).collect();
        Ok(self.root.draw(&PathElement::new(points, style))?)
    }

    /// A dashed line between two values.
    pub fn dashed(&self, from: (f64, f64), to: (f64, f64), style: ShapeStyle) -> Outcome<()> {
        let ends = [self.pixel(from.0, from.1), self.pixel(to.0, to.1)];
        dashed(&self.root, ends, style)
    }

    /// A thin line upwards from a value, to a label that stands so many pixels higher.
    pub fn stem(&self, (x, y): (f64, f64), pixels: i32) -> Outcome<()> {
        let (px, py) = self.pixel(x, y);
        Ok(self.root.draw(&PathElement::new([(px, py), (px, py - pixels - 4)], MUTED.stroke_width(1)))?)
    }

    /// A bar between two values of x, over a part of the rows.
    pub fn bar(&self, x: [f64; 2], y: [f64; 2], style: ShapeStyle) -> Outcome<()> {
        let corners = [self.pixel(x[0], y[0]), self.pixel(x[1], y[1])];
        Ok(self.root.draw(&Rectangle::new(corners, style))?)
    }

    /// A marker at a value.
    pub fn mark(&self, mark: Mark, (x, y): (f64, f64), colour: RGBColor) -> Outcome<()> {
        mark.draw(&self.root, self.pixel(x, y), colour)
    }

    /// Text beside a value, moved by so many pixels.
    pub fn text(&self, text: &str, (x, y): (f64, f64), (dx, dy): (i32, i32), style: TextStyle<'_>) -> Outcome<()> {
        let (px, py) = self.pixel(x, y);
        Ok(self.root.draw(&Text::new(text, (px + dx, py + dy), style))?)
    }
}

/// A dashed line between two pixels: 6 drawn, 4 left out.
pub fn dashed(root: &Area<'_>, [from, to]: [(i32, i32); 2], style: ShapeStyle) -> Outcome<()> {
    let (dx, dy) = (f64::from(to.0 - from.0), f64::from(to.1 - from.1));
    let length = dx.hypot(dy);
    let at = |s: f64| {
        let t = if length > 0.0 { s.min(length) / length } else { 0.0 };
        ((f64::from(from.0) + t * dx).round() as i32, (f64::from(from.1) + t * dy).round() as i32)
    };
    for i in 0..(length / 10.0).ceil() as usize {
        let start = 10.0 * i as f64;
        root.draw(&PathElement::new([at(start), at(start + 6.0)], style))?;
    }
    Ok(())
}

/// How an entry of a legend looks.
#[derive(Clone, Copy)]
pub enum Swatch {
    /// A filled square.
    Fill(RGBColor),
    /// A marker.
    Mark(Mark, RGBColor),
    /// A line.
    Line(RGBColor),
    /// A dashed line.
    Dashed(RGBColor),
}

/// The legend, above the plot: as many entries to a line as fit.
pub struct Legend {
    entries: Vec<(Swatch, String, (i32, i32))>,
    /// Height in pixels, with the room below.
    pub height: i32,
}

impl Legend {
    /// Lays out entries.
    pub fn new(entries: Vec<(Swatch, String)>) -> Self {
        let (mut x, mut y) = (8, 14);
        let mut placed = Vec::new();
        for (swatch, text) in entries {
            let wide = 24 + theme::width(&text, SMALL) + 22;
            if x + wide > WIDTH as i32 && x > 8 {
                (x, y) = (8, y + 20);
            }
            placed.push((swatch, text, (x, y)));
            x += wide;
        }
        let height = if placed.is_empty() { 12 } else { y + 20 };
        Legend { entries: placed, height }
    }

    /// Draws it.
    pub fn draw(&self, root: &Area<'_>) -> Outcome<()> {
        for (swatch, text, (x, y)) in &self.entries {
            let line = [(*x, *y), (x + 18, *y)];
            match *swatch {
                Swatch::Fill(c) => root.draw(&Rectangle::new([(x + 4, y - 6), (x + 16, y + 6)], c.filled()))?,
                Swatch::Mark(mark, c) => mark.draw(root, (x + 10, *y), c)?,
                Swatch::Line(c) => root.draw(&PathElement::new(line, c.stroke_width(2)))?,
                Swatch::Dashed(c) => dashed(root, line, c.stroke_width(2))?,
            }
            root.draw(&Text::new(text.as_str(), (x + 24, *y), text_style(SMALL, INK, Anchor::Left)))?;
        }
        Ok(())
    }
}

/// Labels that keep out of each other's way.
#[derive(Default)]
pub struct Labels {
    taken: Vec<[i32; 4]>,
}

impl Labels {
    /// Nothing may stand on a marker at that pixel.
    pub fn keep_free(&mut self, (x, y): (i32, i32)) {
        self.taken.push([x - 5, y - 5, x + 5, y + 5]);
    }

    /// Writes a label near a marker, where there is room within the bounds; else not at all.
    pub fn place(&mut self, plot: &Plot<'_>, text: &str, (x, y): (i32, i32)) -> Outcome<()> {
        let (left, top, right, bottom) = plot.bounds();
        let (wide, high) = (theme::width(text, SMALL - 1.0), 14);
        // To the right, to the left, and above or below.
        let around = |dy: i32| {
            let over = (x - wide / 2).min(right - wide).max(left);
            [(x + 9, y + dy), (x - 9 - wide, y + dy), (over, y + dy)]
        };
        for (px, py) in (0..12).flat_map(|i| [14 * i, -14 * i]).flat_map(around) {
            let b = [px, py - high / 2, px + wide, py + high / 2];
            let inside = b[0] >= left && b[2] <= right && b[1] >= top && b[3] <= bottom;
            let free = self.taken.iter().all(|t| b[2] <= t[0] || t[2] <= b[0] || b[3] <= t[1] || t[3] <= b[1]);
            if inside && free {
                self.taken.push(b);
                if py != y {
                    // A thin line says whose label it is.
                    let end = match (px > x, px + wide < x) {
                        (true, _) => (px - 2, py),
                        (_, true) => (px + wide + 2, py),
                        _ => (x, if py > y { b[1] } else { b[3] }),
                    };
                    plot.root.draw(&PathElement::new([(x, y), end], MUTED.stroke_width(1)))?;
                }
                plot.root.draw(&Text::new(text, (px, py), text_style(SMALL - 1.0, INK, Anchor::Left)))?;
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Shortens a text to a number of pixels.
pub fn fitted(text: &str, pixels: i32) -> String {
    if theme::width(text, SMALL) <= pixels {
        return text.into();
    }
    let mut short: String = text.into();
    while !short.is_empty() && theme::width(&short, SMALL) > pixels - 10 {
        short.pop();
    }
    short + "\u{2026}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(Axis::linear("", 0.0, 120.0, 6).ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0]);
        assert_eq!(Axis::log("", 0.9, 25.0).ticks, [1.0, 2.0, 5.0, 10.0, 20.0]);
        let (huge, inf) = (f64::MAX, f64::INFINITY);
        for (from, to) in [
            (0.0, 0.0),
            (1.0, 1.0001),
            (0.0, 1e9),
            (5.0, 3.0),
            (0.0, huge),
            (-huge, huge),
            (1e21, 1e21),
            (0.0, inf),
            (-inf, inf),
            (inf, inf),
            (f64::NAN, f64::NAN),
            (0.0, 5e-324),
        ] {
            let axis = Axis::linear("", from, to, 5);
            assert!(axis.ticks.len() <= 7 && axis.to > axis.from, "{from} {to}: {:?}", axis.ticks);
        }
        assert_eq!((number(1.0), number(0.25), number(100.0)), ("1".into(), "0.25".into(), "100".into()));
    }

    #[test]
    fn long_texts_are_shortened() {
        assert_eq!(fitted("short", 100), "short");
        let short = fitted(&"long ".repeat(20), 100);
        assert!(short.ends_with('\u{2026}') && theme::width(&short, SMALL) <= 104, "{short}");
    }
}
