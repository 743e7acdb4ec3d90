//! A picture of what a network takes pictures for.

use std::convert::Infallible;
use std::path::Path;

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::{FONT_6X10, FONT_9X15};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Alignment, Text};
use swath::data::{Dataset, Picture, Sample};
use swath::metrics::argmax;
use swath::train::predict;
use swath::{Model, Random, SessionOptions};

use crate::failure::{Failure, Outcome};
use crate::training::Data;

/// A picture with what it is and what it is taken for.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Values from 0 to 1, one channel or three.
    pub picture: Picture,
    pub truth: String,
    pub guess: String,
    /// How probable the network holds its guess.
    pub probability: f32,
}

/// Predictions under a heading.
pub struct Section {
    pub title: String,
    pub predictions: Vec<Prediction>,
}

/// Pictures side by side.
const COLUMNS: usize = 10;
/// Side of a picture, in pixels of the result.
const SIDE: usize = 64;
/// From one picture to the next, across and down; below a picture are a bar and a line of text.
const PITCH: [usize; 2] = [SIDE + 8, SIDE + 26];
const MARGIN: usize = 12;
/// Height of a section's title.
const TITLE: usize = 26;

const PAPER: Rgb888 = Rgb888::new(250, 250, 248);
const INK: Rgb888 = Rgb888::new(40, 40, 40);
const RIGHT: Rgb888 = Rgb888::new(38, 132, 70);
const WRONG: Rgb888 = Rgb888::new(196, 44, 44);

/// An RGB picture that is drawn on.
struct Canvas {
    size: Size,
    bytes: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        let size = Size::new(width as u32, height as u32);
        let paper = [PAPER.r(), PAPER.g(), PAPER.b()];
        Self { size, bytes: paper.repeat(width * height) }
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        self.size
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, color) in pixels {
            // What lies outside is not drawn.
            let (Ok(x), Ok(y)) = (u32::try_from(at.x), u32::try_from(at.y)) else { continue };
            if x < self.size.width && y < self.size.height {
                let at = 3 * (y as usize * self.size.width as usize + x as usize);
                self.bytes[at..at + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

/// Draws sections below each other, as a PNG file's bytes.
pub fn draw(sections: &[Section]) -> Outcome<Vec<u8>> {
    let sections: Vec<&Section> =
        sections.iter().filter(|s| !s.predictions.is_empty() || sections.len() == 1).collect();
    let rows = |s: &Section| s.predictions.len().div_ceil(COLUMNS);
    let height = |s: &&Section| TITLE + rows(s) * PITCH[1];
    let (width, total) = (COLUMNS * PITCH[0] - 8 + 2 * MARGIN, sections.iter().map(height).sum::<usize>() + MARGIN);
    let mut canvas = Canvas::new(width, total);
    let mut top = 0;
    for section in &sections {
        let title = MonoTextStyle::new(&FONT_9X15, INK);
        let Ok(_) = Text::new(&section.title, Point::new(MARGIN as i32, top as i32 + 18), title).draw(&mut canvas);
        for (i, prediction) in section.predictions.iter().enumerate() {
            let [x, y] = [MARGIN + i % COLUMNS * PITCH[0], top + TITLE + i / COLUMNS * PITCH[1]];
            let Ok(()) = cell(&mut canvas, Point::new(x as i32, y as i32), prediction);
        }
        top += height(section);
    }
    encode(&canvas)
}

/// Draws one picture, how sure the network is as the length of a bar, and in words what it says.
fn cell(canvas: &mut Canvas, at: Point, p: &Prediction) -> Result<(), Infallible> {
    let (right, side) = (p.truth == p.guess, SIDE as i32);
    let color = if right { RIGHT } else { WRONG };
    let [channels, height, width] = p.picture.size;
    let pixel = |x: i32, y: i32| {
        // The nearest pixel of the picture, whatever its size.
        let at = |v: i32, n: usize| (v as usize * n / SIDE).min(n.saturating_sub(1));
        let value = |c: usize| {
            let v = p.picture.values[((c % channels) * height + at(y, height)) * width + at(x, width)];
            (255.0 * v.clamp(0.0, 1.0)).round() as u8
        };
        Rgb888::new(value(0), value(1), value(2))
    };
    if p.picture.values.len() == channels * height * width && !p.picture.values.is_empty() {
        let pixels = (0..side * side).map(|i| Pixel(at + Point::new(i % side, i / side), pixel(i % side, i / side)));
        canvas.draw_iter(pixels)?;
    }
    let length = (p.probability.clamp(0.0, 1.0) * SIDE as f32).round() as u32;
    let bar = Rectangle::new(at + Point::new(0, side + 2), Size::new(length, 3));
    bar.into_styled(PrimitiveStyle::with_fill(color)).draw(canvas)?;
    let percent = (100.0 * p.probability).round();
    let words = if right { format!("{}, {percent} %", p.guess) } else { format!("{}, is {}", p.guess, p.truth) };
    let style = MonoTextStyle::new(&FONT_6X10, color);
    let middle = at + Point::new(side / 2, side + 15);
    // As many characters as fit.
    let words: String = words.chars().take(SIDE / 6 + 1).collect();
    Text::with_alignment(&words, middle, style, Alignment::Center).draw(canvas)?;
    Ok(())
}

fn encode(canvas: &Canvas) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, canvas.size.width, canvas.size.height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(Failure::new)?;
    writer.write_image_data(&canvas.bytes).map_err(Failure::new)?;
    writer.finish().map_err(Failure::new)?;
    Ok(bytes)
}

/// What a model takes the pictures for testing for.
pub fn of(model: &Model, data: &Data) -> Outcome<Vec<Prediction>> {
    let classes = data.test.classes();
    let mut all = Vec::with_capacity(data.test.len());
    predict(model, &data.validation(64, 1)?, &SessionOptions::default(), |batch, logits| {
        for (row, (&index, &truth)) in
            logits.as_slice().chunks(classes.len()).zip(batch.indices.iter().zip(&batch.labels))
        {
            let guess = argmax(row).unwrap_or(0);
            let total: f32 = row.iter().map(|v| (v - row[guess]).exp()).sum();
            // As it is, not as the network gets it.
            let mut sample = Sample::default();
            data.test.get(index, &mut Random::new(&[]), &mut sample)?;
            let (picture, probability) = (sample.picture, total.recip());
            all.push(Prediction { picture, truth: classes[truth].clone(), guess: classes[guess].clone(), probability });
        }
        Ok(())
    })?;
    Ok(all)
}

/// Writes a file, whole or not at all.
pub fn write(path: &Path, png: &[u8]) -> Outcome<()> {
    Ok(swath::file::write(path, |out| out.write_all(png))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(size: [usize; 3], guess: &str) -> Prediction {
        let picture = Picture::filled(size, 1.0);
        Prediction { picture, truth: "7".into(), guess: guess.into(), probability: 0.5 }
    }

    fn decoded(png: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        (frame.width, frame.height, pixels)
    }

    #[test]
    fn pictures_bars_and_words_are_where_they_should_be() {
        let predictions = vec![prediction([1, 32, 32], "7"), prediction([3, 20, 10], "1")];
        let sections =
            [Section { title: "two".into(), predictions }, Section { title: "none".into(), predictions: Vec::new() }];
        let (width, height, pixels) = decoded(&draw(&sections).unwrap());
        assert_eq!((width, height), (736, 26 + 90 + 12));
        let at = |x: usize, y: usize| &pixels[3 * (y * width as usize + x)..][..3];
        let white = [255, 255, 255];
        assert_eq!([at(12, 26), at(75, 89), at(84, 26), at(147, 89)], [white; 4]);
        // A bar half as long as the picture, green where right and red where wrong.
        assert_eq!(
            (at(12, 93), at(43, 93), at(44, 93)),
            (&[38, 132, 70][..], &[38, 132, 70][..], &[250, 250, 248][..])
        );
        assert_eq!(at(84, 93), [196, 44, 44]);
        // Words in the same colour, and a title.
        let has = |rows: core::ops::Range<usize>, color: [u8; 3]| {
            rows.flat_map(|y| (0..736).map(move |x| (x, y))).any(|(x, y)| at(x, y) == color)
        };
        assert!(has(97..110, [38, 132, 70]) && has(97..110, [196, 44, 44]) && has(0..26, [40, 40, 40]));
    }

    #[test]
    fn odd_predictions_are_drawn_too() {
        let mut odd = prediction([1, 1, 1], "a class with a long name \u{1b}");
        odd.probability = f32::NAN;
        let sections = [Section { title: "many".into(), predictions: vec![odd; 23] }];
        assert_eq!(decoded(&draw(&sections).unwrap()).1, 26 + 3 * 90 + 12);
    }
}
