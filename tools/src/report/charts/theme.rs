//! Colours, markers and text of all pictures.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Area;
use crate::failure::Outcome;

/// Text, and the lines that matter.
pub const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
/// Text and lines that step back.
pub const MUTED: RGBColor = RGBColor(0x59, 0x62, 0x6c);
/// Lines of the grid.
pub const GRID: RGBColor = RGBColor(0xdf, 0xe3, 0xe8);
/// Things that a reader should notice.
pub const ALERT: RGBColor = RGBColor(0xb4, 0x23, 0x18);

/// Colours of series. All have a contrast of 4.5 to white and are told apart by hue and by lightness, but no picture
/// relies on it: bars carry their names, points their shapes.
const SERIES: [RGBColor; 8] = [
    RGBColor(0x1f, 0x5f, 0xb4),
    RGBColor(0xb8, 0x4e, 0x07),
    RGBColor(0x17, 0x7a, 0x4a),
    RGBColor(0x7a, 0x4c, 0xc0),
    RGBColor(0xbd, 0x2a, 0x66),
    RGBColor(0x0a, 0x72, 0x80),
    RGBColor(0x77, 0x62, 0x00),
    RGBColor(0x4f, 0x58, 0x63),
];

/// Every colour with the one that takes its place on a dark page.
const DARK: [(RGBColor, &str); 12] = [
    (INK, "#e6eaef"),
    (MUTED, "#a3adb8"),
    (GRID, "#2f363e"),
    (ALERT, "#ff8a80"),
    (SERIES[0], "#7ab7ff"),
    (SERIES[1], "#ffa868"),
    (SERIES[2], "#56d39b"),
    (SERIES[3], "#c4a5ff"),
    (SERIES[4], "#ff8fb8"),
    (SERIES[5], "#59d3e0"),
    (SERIES[6], "#e0c55a"),
    (SERIES[7], "#b4bdc8"),
];

/// Rules that repaint all pictures for a dark page. Pictures name their light colours, so that they are right by
/// themselves too.
pub fn dark_rules() -> String {
    DARK.iter()
        .map(|(RGBColor(r, g, b), dark)| {
            let light = format!("#{r:02X}{g:02X}{b:02X}");
            format!("svg [fill=\"{light}\"]{{fill:{dark}}}svg [stroke=\"{light}\"]{{stroke:{dark}}}\n")
        })
        .collect()
}

/// The colour of the series of that number.
pub fn series(i: usize) -> RGBColor {
    SERIES[i % SERIES.len()]
}

/// Shapes of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A disc.
    Disc,
    /// A square.
    Square,
    /// A triangle, pointing up.
    Up,
    /// A diamond.
    Diamond,
    /// A triangle, pointing down.
    Down,
    /// A ring.
    Ring,
    /// A cross.
    Cross,
    /// A frame.
    Frame,
}

/// The shape of the series of that number.
pub fn mark(i: usize) -> Mark {
    use Mark::*;
    [Disc, Square, Up, Diamond, Down, Ring, Cross, Frame][i % 8]
}

impl Mark {
    /// Draws it around a pixel.
    pub fn draw(self, root: &Area<'_>, (x, y): (i32, i32), colour: RGBColor) -> Outcome<()> {
        let fill = colour.filled();
        let polygon = |points: &[(i32, i32)]| {
            Polygon::new(points.iter().map(|(dx, dy)| (x + dx, y + dy)).collect::<Vec<_>>(), fill)
        };
        match self {
            Mark::Disc => root.draw(&Circle::new((x, y), 5, fill))?,
            Mark::Square => root.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], fill))?,
            Mark::Up => root.draw(&polygon(&[(0, -6), (5, 4), (-5, 4)]))?,
            Mark::Diamond => root.draw(&polygon(&[(0, -6), (6, 0), (0, 6), (-6, 0)]))?,
            Mark::Down => root.draw(&polygon(&[(0, 6), (5, -4), (-5, -4)]))?,
            Mark::Ring => root.draw(&Circle::new((x, y), 4, colour.stroke_width(2)))?,
            Mark::Cross => {
                root.draw(&PathElement::new([(x - 4, y - 4), (x + 4, y + 4)], colour.stroke_width(2)))?;
                root.draw(&PathElement::new([(x - 4, y + 4), (x + 4, y - 4)], colour.stroke_width(2)))?;
            }
            Mark::Frame => {
                let corners = [(-4, -4), (4, -4), (4, 4), (-4, 4), (-4, -4)];
                let corners = corners.map(|(dx, dy)| (x + dx, y + dy));
                root.draw(&PathElement::new(corners, colour.stroke_width(2)))?;
            }
        }
        Ok(())
    }
}

/// Which point of a text is placed; its middle in height.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Left,
    /// Its right end.
    Right,
}

/// Text of a size in pixels.
pub fn text_style(size: f64, colour: RGBColor, anchor: Anchor) -> TextStyle<'static> {
    let h = match anchor {
        Anchor::Left => HPos::Left,
        Anchor::Right => HPos::Right,
    };
    // The backend divides sizes by 1.24.
    let mut style = TextStyle::from(("sans-serif", size * 1.24).into_font()).pos(Pos::new(h, VPos::Center));
    style.color = colour.to_backend_color();
    style
}

/// Roughly how wide a text is in pixels.
pub fn width(text: &str, size: f64) -> i32 {
    let em: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | 't' | 'f' | 'r' | '.' | ',' | ':' | ';' | '|' | '\'' | ' ' | '(' | ')' | '/' => 0.34,
            'm' | 'w' | 'M' | 'W' | '%' | '\u{2192}' => 0.9,
            'A'..='Z' => 0.68,
            _ => 0.58,
        })
        .sum();
    // DejaVu Sans, the widest of the fonts that the page asks for.
    (em * size * 1.06).ceil() as i32
}
