//! JPEG and PNG files as bytes.

use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::Path;

use image::{ImageFormat, ImageReader, Limits};

use super::fault;
use crate::data::sample::Picture;
use crate::error::{Error, Result};
use crate::file;

/// A picture as it comes out of its file: bytes, channels side by side.
#[derive(Clone, Debug)]
pub(super) struct Decoded {
    pub(super) size: [usize; 3],
    bytes: Vec<u8>,
}

impl Decoded {
    pub(super) fn put_into(&self, picture: &mut Picture) {
        picture.set_interleaved(self.size, &self.bytes);
    }
}

/// The longest side of a picture that is read.
const LONGEST: u32 = 1 << 15;

/// Bytes that a decoder may take: 256 MiB.
const MEMORY: u64 = 1 << 28;

/// Reads a picture as grey (one channel) or in colour (three).
pub(super) fn picture(path: &Path, channels: usize) -> Result<Decoded> {
    let bytes = file::read(path, MEMORY as usize)?;
    let known = |f: &ImageFormat| matches!(f, ImageFormat::Jpeg | ImageFormat::Png);
    let format = image::guess_format(&bytes).ok().filter(known);
    let format = format.ok_or_else(|| fault(path, "neither a JPEG nor a PNG file"))?;
    if format == ImageFormat::Jpeg && !has_jpeg_end(&bytes) {
        // The decoder would make up what is missing.
        return Err(fault(path, format!("truncated: {} bytes of JPEG without its end marker", bytes.len())));
    }
    let mut reader = ImageReader::with_format(Cursor::new(&bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST);
    limits.max_image_height = Some(LONGEST);
    limits.max_alloc = Some(MEMORY);
    reader.limits(limits);
    let image = reader.decode().map_err(|e| fault(path, format!("damaged: {e}")))?;
    let (w, h) = (image.width() as usize, image.height() as usize);
    let bytes = if channels == 1 { image.into_luma8().into_raw() } else { image.into_rgb8().into_raw() };
    Ok(Decoded { size: [channels, h, w], bytes })
}

/// Whether the data of the last scan of a JPEG file ends. Inside it no `ff` is followed by `d9`.
fn has_jpeg_end(bytes: &[u8]) -> bool {
    let marker = |m: u8| bytes.windows(2).rposition(|w| w == [0xff, m]);
    matches!((marker(0xda), marker(0xd9)), (Some(scan), Some(end)) if scan < end)
}

/// Reads a mask: a PNG of one channel or of a palette, whose numbers are not looked up. Height, width, and a byte a pixel.
pub(super) fn mask(path: &Path) -> Result<([usize; 2], Vec<u8>)> {
    let file = File::open(path).map_err(|error| Error::Io { action: "read", path: path.into(), error })?;
    let damaged = |e: png::DecodingError| fault(path, format!("damaged: {e}"));
    let limits = png::Limits { bytes: MEMORY as usize };
    let mut decoder = png::Decoder::new_with_limits(BufReader::new(file), limits);
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (colors, depth) = reader.output_color_type();
    let one_channel = matches!(colors, png::ColorType::Grayscale | png::ColorType::Indexed);
    if !one_channel || depth == png::BitDepth::Sixteen {
        let rule = "a mask is grey or of a palette, with at most 8 bits";
        return Err(fault(path, format!("a mask of colours {colors:?} with {} bits, but {rule}", depth as u8)));
    }
    let (w, h) = (reader.info().width, reader.info().height);
    let size = reader.output_buffer_size().filter(|_| w <= LONGEST && h <= LONGEST);
    let size = size.ok_or_else(|| fault(path, format!("{w}x{h} pixels are more than {LONGEST}x{LONGEST}")))?;
    let mut packed = vec![0; size];
    let frame = reader.next_frame(&mut packed).map_err(damaged)?;
    // What follows the picture may be cut off too.
    reader.finish().map_err(damaged)?;
    let (w, h, bits) = (w as usize, h as usize, depth as usize);
    let unpack = |row: &[u8], x: usize| {
        let shift = 8 - bits - x * bits % 8;
        (row[x * bits / 8] >> shift) & (0xffu16 >> (8 - bits)) as u8
    };
    let rows = packed.chunks(frame.line_size.max(1)).take(h);
    Ok(([h, w], rows.flat_map(|row| (0..w).map(move |x| unpack(row, x))).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::super::test::Folder;
    use super::*;

    /// The file of a picture in some format.
    pub(crate) fn encoded(image: &image::DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image.write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    fn sample() -> image::DynamicImage {
        image::RgbImage::from_fn(20, 10, |x, y| image::Rgb([x as u8 * 10, y as u8 * 20, 128])).into()
    }

    #[test]
    fn png_is_exact_and_jpeg_is_close() {
        let folder = Folder::new("decode");
        folder.write("a.png", &encoded(&sample(), ImageFormat::Png));
        folder.write("b.jpg", &encoded(&sample(), ImageFormat::Jpeg));
        let mut p = Picture::default();
        picture(&folder.path().join("a.png"), 3).unwrap().put_into(&mut p);
        assert_eq!(p.size, [3, 10, 20]);
        assert_eq!([p.values[5], p.values[200 + 40], p.values[400]], [50.0 / 255.0, 40.0 / 255.0, 128.0 / 255.0]);
        let mut q = Picture::default();
        picture(&folder.path().join("b.jpg"), 3).unwrap().put_into(&mut q);
        let error = p.values.iter().zip(&q.values).map(|(p, q)| (p - q).abs()).sum::<f32>() / 600.0;
        assert!(error < 0.05, "{error}");
        assert_eq!(picture(&folder.path().join("a.png"), 1).unwrap().size, [1, 10, 20]);
    }

    #[test]
    fn damaged_pictures_are_named() {
        let folder = Folder::new("decode-damaged");
        let text = |name: &str, bytes: &[u8]| {
            folder.write(name, bytes);
            picture(&folder.path().join(name), 3).unwrap_err().to_string()
        };
        let (jpeg, png) = (encoded(&sample(), ImageFormat::Jpeg), encoded(&sample(), ImageFormat::Png));
        for cut in [200, jpeg.len() / 2, jpeg.len() - 1] {
            assert!(text("a.jpg", &jpeg[..cut]).contains("a.jpg: truncated"), "{cut}");
        }
        for cut in [10, png.len() / 2] {
            assert!(text("b.png", &png[..cut]).contains("b.png: damaged"), "{cut}");
        }
        let mut flipped = png.clone();
        flipped[png.len() / 2] ^= 0x40;
        assert!(text("c.png", &flipped).contains("c.png: damaged"));
        assert!(text("d.png", b"GIF89a").contains("neither a JPEG nor a PNG"));
        assert!(text("e.png", b"").contains("neither"));
    }

    #[test]
    fn masks_keep_their_numbers() {
        let folder = Folder::new("mask");
        let write = |name: &str, colors, depth, palette: bool, data: &[u8]| {
            let mut out = Vec::new();
            let mut e = png::Encoder::new(&mut out, 5, 2);
            e.set_color(colors);
            e.set_depth(depth);
            if palette {
                e.set_palette((0..12).map(|i| i * 20).collect::<Vec<u8>>());
            }
            e.write_header().unwrap().write_image_data(data).unwrap();
            folder.write(name, &out);
            mask(&folder.path().join(name))
        };
        use png::{BitDepth, ColorType};
        let (size, grey) =
            write("a.png", ColorType::Grayscale, BitDepth::Eight, false, &[0, 1, 2, 3, 255, 5, 6, 7, 8, 9]).unwrap();
        assert_eq!((size, grey), ([2, 5], vec![0, 1, 2, 3, 255, 5, 6, 7, 8, 9]));
        let indices = [0b00_01_10_11, 0b01_000000, 0b11_10_01_00, 0b10_000000];
        let (_, palette) = write("b.png", ColorType::Indexed, BitDepth::Two, true, &indices).unwrap();
        assert_eq!(palette, [0, 1, 2, 3, 1, 3, 2, 1, 0, 2]);
        let (_, bits) =
            write("c.png", ColorType::Grayscale, BitDepth::One, false, &[0b1011_0000, 0b0000_1000]).unwrap();
        assert_eq!(bits, [1, 0, 1, 1, 0, 0, 0, 0, 0, 1]);
        let e = write("d.png", ColorType::Rgb, BitDepth::Eight, false, &[0; 30]).unwrap_err().to_string();
        assert!(e.contains("d.png: a mask of colours Rgb"), "{e}");
    }
}
