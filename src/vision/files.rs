//! Pictures from PNG and JPEG files, and as PNG files (feature `image`).

use std::path::Path;

use super::pixels;
use crate::data::{Picture, read_picture};
use crate::error::{Error, Result};
use crate::file;

/// Reads a JPEG or PNG file in colour: `[3, h, w]`, red, green and blue from 0 to 1. What a PNG lets shine through is left as it is.
///
/// # Errors
/// If the file cannot be read, is neither, is damaged, or has a side of more than 32,768 pixels.
pub fn read(path: impl AsRef<Path>) -> Result<Picture> {
    read_picture(path.as_ref(), 3)
}

/// As [`read`], in grey: `[1, h, w]`.
///
/// # Errors
/// As [`read`].
pub fn read_grey(path: impl AsRef<Path>) -> Result<Picture> {
    read_picture(path.as_ref(), 1)
}

/// Writes a picture of one channel (grey), three (colour) or four (with alpha) as a PNG file, whole or not at all. Values are cut to 0 to 1.
///
/// ```no_run
/// use swath::data::Picture;
/// swath::vision::files::write_png(&Picture::filled([3, 10, 20], 0.5), "grey.png")?;
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// If the picture has no pixels or another number of channels, or the file cannot be written.
pub fn write_png(picture: &Picture, path: impl AsRef<Path>) -> Result<()> {
    let [h, w] = pixels("write_png", picture)?;
    let channels = picture.size[0];
    let color = match channels {
        1 => png::ColorType::Grayscale,
        3 => png::ColorType::Rgb,
        4 => png::ColorType::Rgba,
        _ => return Err(Error::Channels { what: "write_png", takes: 3, gets: channels }),
    };
    let extent = |v: usize| {
        let rule = "a PNG file has at most 2147483647".to_string();
        u32::try_from(v).ok().filter(|v| *v <= i32::MAX as u32).ok_or_else(|| Error::Setting {
            what: "a side of the picture",
            value: v.to_string(),
            rule,
        })
    };
    let (width, height) = (extent(w)?, extent(h)?);
    let byte = |i: usize| (picture.values[i % channels * h * w + i / channels].clamp(0.0, 1.0) * 255.0).round() as u8;
    let bytes: Vec<u8> = (0..channels * h * w).map(byte).collect();
    file::write(path, |out| {
        let mut encoder = png::Encoder::new(&mut *out, width, height);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(std::io::Error::other)?;
        writer.write_image_data(&bytes).map_err(std::io::Error::other)?;
        writer.finish().map_err(std::io::Error::other)?;
        out.flush()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_come_back() {
        let path = std::env::temp_dir().join(format!("swath-vision-{}.png", std::process::id()));
        for channels in [1, 3] {
            let values = (0..channels * 6).map(|i| (i * 13 % 256) as f32 / 255.0).collect();
            let picture = Picture { size: [channels, 2, 3], values };
            write_png(&picture, &path).unwrap();
            let again = if channels == 1 { read_grey(&path) } else { read(&path) };
            assert_eq!(again.unwrap(), picture);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(write_png(&Picture::filled([2, 1, 1], 0.0), &path).unwrap_err().to_string().contains("2"));
        assert!(write_png(&Picture::default(), &path).is_err());
        assert!(read(&path).unwrap_err().to_string().starts_with("cannot read"));
    }
}
